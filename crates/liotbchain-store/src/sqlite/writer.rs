//! The one thread that writes.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::{sync::oneshot, time};

use super::{
    checkpoint::Wakeup,
    connection::{Opened, Place},
};
use crate::StoreError;

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// Hands jobs to the thread that owns the connection for writing.
pub(super) struct WriterHandle {
    /// None once closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    timeout: Duration,
}

impl WriterHandle {
    pub(super) fn start(place: Place, wakeup: Wakeup) -> Result<Self, StoreError> {
        let timeout = place.timeout;
        let opened = Some(place.open_writer()?);
        let (jobs, queue) = mpsc::channel::<Job>();
        let mut writer = Writer { place, opened, wakeup };
        let thread = thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || queue.into_iter().for_each(|job| job(&mut writer)))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)), timeout })
    }

    /// Runs `work` in a transaction of its own, and returns once it is on the disk.
    ///
    /// When nobody waits for the answer any more, the work is done all the same.
    pub(super) async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // Whoever sets it first decides: the writer that it commits, or the clock that it will not.
        let decided = Arc::new(AtomicBool::new(false));
        let (answer, answered) = oneshot::channel();
        let job: Job = {
            let decided = Arc::clone(&decided);
            Box::new(move |writer| {
                if !decided.load(Ordering::Acquire) {
                    // Nobody may be waiting for it.
                    let _ = answer.send(writer.transact(&decided, work));
                }
            })
        };
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        jobs.ok_or_else(closed)?.send(job).map_err(|_| closed())?;
        match time::timeout(self.timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                let reason = format!("no answer within {} s", self.timeout.as_secs_f32());
                let is_committing = decided.swap(true, Ordering::AcqRel);
                Err(if is_committing {
                    StoreError::CommitUnknown(reason)
                } else {
                    StoreError::Unavailable(reason)
                })
            }
        }
    }

    /// Takes no more jobs, and returns once those that were taken are done.
    pub(super) fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the SQLite writer ended in a panic");
        }
    }
}

struct Writer {
    place: Place,
    /// None after an error: the next job opens the file again.
    opened: Option<Opened>,
    wakeup: Wakeup,
}

impl Writer {
    fn transact<T>(
        &mut self,
        decided: &AtomicBool,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut opened = match self.opened.take().filter(|opened| opened.is_current(&self.place)) {
            Some(opened) => opened,
            None => self.place.open_writer()?,
        };
        let result = commit(&mut opened.connection, decided, work);
        match &result {
            Err(
                error @ (StoreError::Unavailable(_) | StoreError::CommitUnknown(_) | StoreError::Corrupt(_)),
            ) => {
                tracing::warn!(%error, "a write failed; the file is opened again");
            }
            _ => {
                self.opened = Some(opened);
                self.wakeup.written();
            }
        }
        result
    }
}

fn commit<T>(
    connection: &mut Connection,
    decided: &AtomicBool,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&transaction)?;
    if decided.swap(true, Ordering::AcqRel) {
        return Err(StoreError::Unavailable("given up before the commit".to_owned()));
    }
    transaction.commit().map_err(|error| StoreError::CommitUnknown(error.to_string()))?;
    Ok(value)
}
