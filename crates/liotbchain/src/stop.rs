//! Ctrl-C and SIGTERM: the first asks the program to stop, the second ends it at once.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Tells when somebody asked the program to stop.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// A signal so soon after another is the same one: `timeout` and some supervisors send theirs twice.
const SAME_SIGNAL: Duration = Duration::from_millis(300);
/// What a shell makes of a program that was ended by Ctrl-C: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

impl Stop {
    /// Listens from now on. Until then a signal ends the process, as the system does it.
    ///
    /// # Errors
    ///
    /// Where the system does not let us listen.
    pub fn on_signal() -> io::Result<Self> {
        let mut signals = Signals::listen()?;
        let (asked, stop) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            asked.send_replace(true);
            let first = Instant::now();
            loop {
                signals.next().await;
                if first.elapsed() > SAME_SIGNAL {
                    std::process::exit(INTERRUPTED);
                }
            }
        });
        Ok(Self(stop))
    }

    /// Returns once somebody asked.
    pub fn asked(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stop = self.0.clone();
        async move {
            // The sender lives as long as the process.
            let _ = stop.wait_for(|asked| *asked).await;
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
