//! Copies the write-ahead log back into the file, on a connection of its own, so that no commit pays for it.

use std::{
    sync::mpsc::{self, Receiver, SyncSender, TryRecvError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::connection::{Opened, Place};
use crate::StoreError;

/// What is written is copied within this time,
const DELAY: Duration = Duration::from_secs(1);
/// or when it fills so many pages: 16 MiB.
const PAGES: i64 = 1024;
/// How often the pages are counted meanwhile.
const TICK: Duration = Duration::from_millis(50);

/// A log of so many pages, 64 MiB, is started anew. A passive checkpoint never catches up with a writer that does not
/// rest, so the log would grow for ever; starting anew keeps writers waiting for the few pages that are left.
const LOG_PAGES_MAX: i64 = 4096;
/// Longest that a writer waits for readers of an old snapshot when the log starts anew; else it is tried again later.
const PATIENCE: Duration = Duration::from_millis(100);

/// Tells the checkpointer that something was written. It ends when all of these are dropped.
#[derive(Clone)]
pub(super) struct Wakeup(SyncSender<()>);

impl Wakeup {
    pub(super) fn written(&self) {
        // Full: it is awake already.
        let _ = self.0.try_send(());
    }
}

/// Starts the thread.
pub(super) fn start(place: Place) -> Result<(Wakeup, JoinHandle<()>), StoreError> {
    let (wakeup, wakeups) = mpsc::sync_channel(1);
    let checkpointer = Checkpointer { place, opened: None };
    let thread = thread::Builder::new()
        .name("sqlite-checkpoint".to_owned())
        .spawn(move || checkpointer.run(&wakeups))
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    Ok((Wakeup(wakeup), thread))
}

struct Checkpointer {
    place: Place,
    opened: Option<Opened>,
}

impl Checkpointer {
    fn run(mut self, wakeups: &Receiver<()>) {
        while wakeups.recv().is_ok() {
            let written = Instant::now();
            while written.elapsed() < DELAY && wakeups.try_recv() != Err(TryRecvError::Disconnected) {
                thread::sleep(TICK);
                if self.attempt(pages_waiting).is_some_and(|pages| pages >= PAGES) {
                    break;
                }
            }
            self.attempt(checkpoint);
        }
        // The last one out leaves one file behind.
        self.attempt(|connection| run(connection, "TRUNCATE"));
    }

    /// Runs `work`; an error closes the connection, and is met again when there is more to copy.
    fn attempt<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let opened = match self.opened.take().filter(|opened| opened.is_current(&self.place)) {
            Some(opened) => Ok(opened),
            None => self.place.open_checkpointer(PATIENCE),
        };
        let result = opened.and_then(|opened| {
            let value = work(&opened.connection)?;
            self.opened = Some(opened);
            Ok(value)
        });
        result.inspect_err(|error| tracing::warn!(%error, "the write-ahead log was not copied back")).ok()
    }
}

/// What a checkpoint says of the log.
struct Log {
    pages: i64,
    copied: i64,
}

fn pages_waiting(connection: &Connection) -> rusqlite::Result<i64> {
    run(connection, "NOOP").map(|log| log.pages - log.copied)
}

fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    let log = run(connection, "PASSIVE")?;
    if log.pages >= LOG_PAGES_MAX {
        run(connection, "RESTART")?;
    }
    Ok(())
}

fn run(connection: &Connection, mode: &str) -> rusqlite::Result<Log> {
    // A row says whether readers or writers stood in the way: that is no error, and mends itself.
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok(Log { pages: row.get(1)?, copied: row.get(2)? }))
}
