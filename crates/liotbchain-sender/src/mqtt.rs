//! Readings from an MQTT broker: the sender is a client of a broker that is there, by MQTT 5 or 3.1.1.
//!
//! A message is acknowledged once its readings are on the disk, so that the broker keeps what the sender did not store.
//! The session outlives the connection: what devices publish while the sender is away waits in the broker, within the
//! broker's own limits. The subscription is made anew at every connection, whatever the broker says that it remembers.
//!
//! - Where the queue takes nothing (it is full, the disk fails), messages stay unacknowledged, nothing more is read, and
//!   the same messages are put to the queue again until it takes them or the connection ends. Then the broker sends
//!   them again; if it says that it forgot the session, those that are here are kept and stored all the same.
//! - A message that can never be stored is acknowledged, counted and logged: it would come again for ever.
//! - A retained message says nothing new, and would come again at each connection: none is taken for a reading. What a
//!   device publishes with the retain flag while the subscription stands is delivered as any message, and taken.
//! - A message that is published at QoS 0 is taken, with no promise: neither the broker nor the sender can ask for it
//!   again. One of QoS 2 comes as one of QoS 1.
//!
//! While the sender is connected, `liotbchain/v1/{site}/{client id}/status` holds a retained `online`; otherwise the
//! broker or the sender puts `offline` there.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

mod config;
mod fault;
mod link;
mod message;
mod report;
mod session;
mod tls;
mod topic;
mod v4;
mod v5;

pub use config::{MqttConfig, MqttConfigError, MqttSettings};
pub use fault::MqttFault;
pub use report::MqttStatus;
pub use session::check_broker;
pub use topic::{TopicError, Topics, TopicsError};

use crate::gateway::Gateway;
use session::{Session, stopped};

/// The first wait before another connection is tried is at most so long.
const BACKOFF: Duration = Duration::from_millis(200);
/// And no wait is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted so long was a good one. Two senders with one client id throw each other out sooner, and must
/// not do so at full speed.
const STEADY: Duration = Duration::from_secs(10);

/// A client that runs. Cheap to clone; all clones are one client.
#[derive(Debug, Clone)]
pub struct Mqtt {
    stop: watch::Sender<bool>,
    status: watch::Receiver<MqttStatus>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Mqtt {
    /// Starts a client that hands what comes to the gateway. It connects, and connects again, until it is closed.
    pub fn start(config: MqttConfig, gateway: Gateway) -> Self {
        let session = Session::new(config, gateway);
        let (stop, stopped) = watch::channel(false);
        let status = session.report.subscribe();
        let task = tokio::spawn(keep_connected(session, stopped));
        Self { stop, status, task: Arc::new(Mutex::new(Some(task))) }
    }

    /// Returns what it does, as it changes.
    pub fn status(&self) -> watch::Receiver<MqttStatus> {
        self.status.clone()
    }

    /// Finishes the commit on its way, says `offline` and disconnects. What was not acknowledged stays with the broker.
    pub async fn close(&self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the MQTT client failed");
        }
    }
}

async fn keep_connected(mut session: Session, mut stop: watch::Receiver<bool>) {
    let mut failures = 0;
    loop {
        let start = Instant::now();
        let Err(fault) = session.run(&mut stop).await else { break };
        if start.elapsed() >= STEADY {
            failures = 0;
        }
        let delay = backoff(failures);
        failures += 1;
        session.report.lost(&fault, delay);
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = sleep(delay) => {}
        }
    }
    session.report.stopped();
}

/// Returns a wait anywhere up to one that doubles with each failure, so that many senders do not come back at once.
fn backoff(failures: u32) -> Duration {
    let longest = BACKOFF.saturating_mul(2_u32.saturating_pow(failures)).min(BACKOFF_MAX);
    longest.mul_f64(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        for failures in [0, 1, 7, 8, 31, 32, u32::MAX] {
            let longest = BACKOFF.saturating_mul(2_u32.saturating_pow(failures)).min(BACKOFF_MAX);
            let longest_seen = (0..1000).map(|_| backoff(failures)).max().unwrap();
            assert!(longest_seen <= longest && longest_seen > longest / 2, "{failures}");
        }
    }
}
