//! Where chains do their work while Python waits, or does something else.

use std::{future::Future, pin::pin, process, sync::OnceLock, time::Duration};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::error::BlockchainOperationError;

/// How often Python is asked whether somebody pressed Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// The runtime, and the process that started it.
static RUNTIME: OnceLock<(u32, Runtime)> = OnceLock::new();

/// Returns the runtime, and starts it where there is none yet.
///
/// A process that was forked off has none of the threads, of the runtime and of SQLite, and may have inherited a lock that
/// one of them held. So it gets an error, where it might wait for ever.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    if let Some((_, runtime)) = RUNTIME.get().filter(|(pid, _)| *pid == process::id()) {
        return Ok(runtime);
    }
    if is_forked() {
        return Err(BlockchainOperationError::new_err(
            "this process was forked off one that had a chain open: open the first chain after the fork, or start processes \
             with the method \"spawn\" of multiprocessing",
        ));
    }
    let runtime = Builder::new_multi_thread().thread_name("liotbchain").enable_all().build();
    let runtime = runtime
        .map_err(|error| BlockchainOperationError::new_err(format!("no threads can be started: {error}")))?;
    Ok(&RUNTIME.get_or_init(|| (process::id(), runtime)).1)
}

/// Returns whether this process was forked off one that had started the runtime.
pub(crate) fn is_forked() -> bool {
    RUNTIME.get().is_some_and(|(pid, _)| *pid != process::id())
}

/// Waits for a future without the interpreter's lock. Ctrl-C, and whatever else a signal handler of Python raises, ends
/// the wait and drops the future.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    wait_and(py, future, || Ok(()))
}

/// Waits as [`wait`] does, and calls `tick`, with the lock, from time to time.
pub(crate) fn wait_and<T: Send>(
    py: Python<'_>,
    future: impl Future<Output = T> + Send,
    mut tick: impl FnMut() -> PyResult<()>,
) -> PyResult<T> {
    let runtime = runtime()?;
    let mut future = pin!(future);
    loop {
        let step = py.detach(|| {
            runtime.block_on(async { tokio::time::timeout(SIGNALS_EVERY, future.as_mut()).await })
        });
        match step {
            Ok(done) => return Ok(done),
            Err(_) => {
                py.check_signals()?;
                tick()?;
            }
        }
    }
}
