//! The thread that owns the file: it does all that waits in one transaction, then answers.

use std::{
    fs::{self, File, TryLockError},
    io, mem,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use super::{
    Opened, OutboxError, OutboxLimits, OutboxStatus, Queued, Record, Refusal, Slot,
    desk::{Desk, Put},
    file::{OpenError, QueueFile, is_damage, is_disk_full, is_io_error},
    salvage::{self, Suspicion, beside},
};
use crate::{reading::Reading, signer::SigningKey};

/// What is acknowledged is deleted within this time, and the file tidied up after as long without work.
const IDLE: Duration = Duration::from_millis(200);
/// How often it is tried whether a file can be written again.
const RETRY: Duration = Duration::from_secs(1);
/// Readings that are signed and stored in one transaction, unless one caller brings more.
const GROUP_READINGS_MAX: usize = 2000;
/// Acknowledged records that are deleted without waiting for more,
const DELETIONS: usize = 4000;
/// and how many may be in memory because the file cannot be written.
const DELETIONS_MAX: usize = 50_000;

type PutAnswer = oneshot::Sender<Result<Vec<Queued>, OutboxError>>;

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Command {
    Put {
        readings: Vec<Reading>,
        received_ms: u64,
        answer: PutAnswer,
    },
    Take {
        records_max: usize,
        size_max: usize,
        /// Where the batch goes back to if nobody receives it.
        back: Sender<Command>,
        answer: oneshot::Sender<Result<Batch, OutboxError>>,
    },
    Settle {
        acknowledged: Vec<Slot>,
        refused: Vec<Refusal>,
        answer: oneshot::Sender<Result<(), OutboxError>>,
    },
    Release {
        slots: Vec<Slot>,
        answer: oneshot::Sender<()>,
    },
    SetAside {
        limit: u32,
        answer: oneshot::Sender<Result<Vec<(Record, String)>, OutboxError>>,
    },
    Close {
        answer: oneshot::Sender<()>,
    },
}

/// Records that were taken. Those that nobody received go back.
#[derive(Debug)]
pub(super) struct Batch {
    records: Vec<Record>,
    back: Sender<Command>,
}

impl Batch {
    pub(super) fn into_records(mut self) -> Vec<Record> {
        mem::take(&mut self.records)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if !self.records.is_empty() {
            let slots = self.records.iter().map(|record| record.slot).collect();
            // With the outbox closed they are back already.
            let _ = self.back.send(Command::Release { slots, answer: oneshot::channel().0 });
        }
    }
}

/// Starts the thread. What opening came to is sent to `opened`.
pub(super) fn start(
    path: &Path,
    key: Arc<SigningKey>,
    limits: OutboxLimits,
    commands: Receiver<Command>,
    publish: watch::Sender<OutboxStatus>,
    opened: oneshot::Sender<Result<Opened, OutboxError>>,
) -> Result<(), OutboxError> {
    let path = std::path::absolute(path).map_err(|error| OutboxError::Disk(error.to_string()))?;
    let run = move || match Writer::open(path, key, limits, publish) {
        Ok((writer, found)) => {
            if opened.send(Ok(found)).is_ok() {
                writer.run(&commands);
            }
        }
        Err(error) => {
            // Whoever opens may have given up.
            let _ = opened.send(Err(error));
        }
    };
    let thread = thread::Builder::new().name("outbox".to_owned()).spawn(run);
    thread.map(|_| ()).map_err(|error| OutboxError::Disk(error.to_string()))
}

struct Writer {
    path: PathBuf,
    /// None after an error: the next use opens the file again.
    file: Option<QueueFile>,
    /// What the last error said of the file.
    suspicion: Suspicion,
    /// Whether a file was saved from though SQLite found no fault with it: a second time would not help.
    is_salvaged: bool,
    /// Whether the last work failed because the disk has no room.
    is_disk_full: bool,
    /// Whether a write failed since the log was last copied back. What the system then shows of the log may not be on the
    /// disk, and nothing may be acknowledged that stands behind it.
    is_log_doubtful: bool,
    /// Held as long as this process lives, also while the file is opened again.
    _lock: File,
    desk: Desk,
    publish: watch::Sender<OutboxStatus>,
    /// When acknowledged records are deleted, or the file is tidied up; none where there is nothing to do.
    wake_at: Option<Instant>,
}

impl Writer {
    fn open(
        path: PathBuf,
        key: Arc<SigningKey>,
        limits: OutboxLimits,
        publish: watch::Sender<OutboxStatus>,
    ) -> Result<(Self, Opened), OutboxError> {
        let lock = lock_beside(&path)?;
        let disk = |error: rusqlite::Error| OutboxError::Disk(format!("{}: {error}", path.display()));
        let (mut file, mut salvaged) = salvage::open_or_salvage(&path, &key, Suspicion::Look)?;
        let mut desk = Desk::new(Arc::clone(&key), limits);
        if let Err(error) = desk.begin(&mut file) {
            if !is_damage(&error) || salvaged.is_some() {
                return Err(disk(error));
            }
            drop(file);
            (file, salvaged) = salvage::open_or_salvage(&path, &key, Suspicion::Certain)?;
            desk = Desk::new(key, limits);
            desk.begin(&mut file).map_err(disk)?;
        }
        let mut writer = Self {
            path,
            file: Some(file),
            suspicion: Suspicion::None,
            is_salvaged: false,
            is_disk_full: false,
            is_log_doubtful: false,
            _lock: lock,
            desk,
            publish,
            wake_at: Some(Instant::now() + IDLE),
        };
        // On a full disk, what waits can still be sent.
        let _ = writer.with_file(|desk, file| desk.note_boot(file));
        writer.tell();
        let opened = Opened { waiting: writer.desk.status.waiting, salvaged };
        Ok((writer, opened))
    }

    fn run(mut self, commands: &Receiver<Command>) {
        let mut is_open = true;
        while is_open {
            let first = match self.wake_at {
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wake_at) => commands.recv_timeout(wake_at.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(first) => is_open = self.round(first, commands),
                Err(RecvTimeoutError::Timeout) => self.idle(),
                Err(RecvTimeoutError::Disconnected) => is_open = false,
            }
            self.tell();
        }
    }

    /// Does what waits. Returns false once that was to close.
    fn round(&mut self, first: Command, commands: &Receiver<Command>) -> bool {
        let (mut puts, mut readings, mut others) = (Vec::new(), 0, Vec::new());
        let mut closing = None;
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Put { readings: list, received_ms, answer } => {
                    readings += list.len();
                    puts.push((Put { readings: list, received_ms }, answer));
                }
                Command::Close { answer } => closing = Some(answer),
                other => others.push(other),
            }
            let is_full = readings >= GROUP_READINGS_MAX || closing.is_some();
            next = if is_full { None } else { commands.try_recv().ok() };
        }
        // What was acknowledged makes room for what comes, and what comes can be taken at once.
        let (settling, taking): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|it| matches!(it, Command::Settle { .. } | Command::Release { .. }));
        settling.into_iter().for_each(|command| self.answer(command));
        if !puts.is_empty() {
            self.put(puts);
        }
        if self.is_new_file_wanted() {
            // Where it cannot be made, it is tried again.
            let _ = self.begin_anew();
        }
        taking.into_iter().for_each(|command| self.answer(command));
        if self.desk.deletions() >= DELETIONS {
            let _ = self.with_file(Desk::delete_settled);
        }
        self.plan();
        let Some(answer) = closing else { return true };
        self.close();
        self.tell();
        let _ = answer.send(());
        false
    }

    fn put(&mut self, puts: Vec<(Put, PutAnswer)>) {
        let (puts, answers): (Vec<_>, Vec<_>) = puts.into_iter().unzip();
        let is_current = self.file.as_ref().is_none_or(QueueFile::is_current);
        let results = if is_current {
            self.make_log_certain().and_then(|()| self.with_file(|desk, file| desk.put(file, puts)))
        } else {
            Err(self.note_gone())
        };
        self.tell();
        // Whoever asked may have gone away; the readings are stored all the same.
        match results {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Notes that the file is another one, or none. What it held can still be sent.
    fn note_gone(&mut self) -> OutboxError {
        let gone = format!("{} was deleted or replaced: restart the sender", self.path.display());
        if self.desk.status.fault.as_ref() != Some(&gone) {
            tracing::error!("{gone}");
        }
        self.is_disk_full = false;
        self.desk.status.fault = Some(gone.clone());
        OutboxError::Disk(gone)
    }

    /// Copies the log into the file after a failed write, and begins it anew: of a failed sync the system may keep pages in
    /// memory that never reach the disk, and a log that is cut there would lose what is written behind them.
    fn make_log_certain(&mut self) -> Result<(), OutboxError> {
        if self.is_log_doubtful {
            self.with_file(|_, file| file.rows.copy_log_back())?;
            self.is_log_doubtful = false;
        }
        Ok(())
    }

    fn answer(&mut self, command: Command) {
        match command {
            Command::Take { records_max, size_max, back, answer } => {
                let is_stuck = self.desk.deletions() > DELETIONS_MAX;
                let taken = match is_stuck.then(|| self.with_file(Desk::delete_settled)) {
                    Some(Err(error)) => Err(error),
                    _ => self.with_file(|desk, file| desk.take(file, records_max, size_max)),
                };
                if let Err(Ok(batch)) = answer.send(taken.map(|records| Batch { records, back })) {
                    let records = batch.into_records();
                    records.iter().for_each(|record| self.desk.release(record.slot));
                }
            }
            Command::Settle { acknowledged, refused, answer } => {
                self.desk.acknowledge(&acknowledged);
                let put_aside = match refused.is_empty() {
                    true => Ok(()),
                    false => self.with_file(|desk, file| desk.set_aside(file, &refused)),
                };
                if put_aside.is_err() {
                    refused.iter().for_each(|refusal| self.desk.release(refusal.slot));
                }
                self.tell();
                let _ = answer.send(put_aside);
            }
            Command::Release { slots, answer } => {
                slots.into_iter().for_each(|slot| self.desk.release(slot));
                let _ = answer.send(());
            }
            Command::SetAside { limit, answer } => {
                let _ = answer.send(self.with_file(|_, file| file.rows.aside(limit)));
            }
            Command::Put { .. } | Command::Close { .. } => {}
        }
    }

    /// Works on the file, which is opened again where the last work on it failed.
    fn with_file<T>(
        &mut self,
        work: impl FnOnce(&mut Desk, &mut QueueFile) -> rusqlite::Result<T>,
    ) -> Result<T, OutboxError> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.reopen().inspect_err(|error| self.desk.status.fault = Some(error.to_string()))?,
        };
        match work(&mut self.desk, &mut file) {
            Ok(value) => {
                self.file = Some(file);
                self.is_disk_full = false;
                Ok(value)
            }
            Err(error) => {
                if is_damage(&error) {
                    // A value that cannot be read passes SQLite's own look at the file.
                    let is_value = error.sqlite_error_code().is_none() && !self.is_salvaged;
                    self.suspicion = if is_value { Suspicion::Certain } else { Suspicion::Look };
                }
                self.is_disk_full = is_disk_full(&error);
                self.is_log_doubtful |= is_io_error(&error);
                // Once an outage: it is tried again all the time.
                match self.desk.status.fault.replace(error.to_string()) {
                    None => tracing::warn!(%error, "work on the queue failed; its file is opened again"),
                    Some(_) => tracing::debug!(%error, "work on the queue failed again"),
                }
                Err(OutboxError::Disk(error.to_string()))
            }
        }
    }

    fn reopen(&mut self) -> Result<QueueFile, OutboxError> {
        if !self.path.exists() {
            return Err(OutboxError::Disk(format!("{} is gone: restart the sender", self.path.display())));
        }
        let (mut file, _) = salvage::open_or_salvage(&self.path, self.desk.key(), self.suspicion)?;
        self.is_salvaged |= self.suspicion == Suspicion::Certain;
        self.suspicion = Suspicion::None;
        self.desk.refresh(&mut file).map_err(|error| OutboxError::Disk(error.to_string()))?;
        Ok(file)
    }

    /// Returns whether the disk is full and all that waited is delivered. What was delivered cannot be deleted there, since
    /// SQLite has to write to delete.
    fn is_new_file_wanted(&self) -> bool {
        self.desk.status.fault.is_some() && self.is_disk_full && self.desk.is_delivered()
    }

    /// Makes room on a full disk by beginning with a new file. The old one goes, and with it by what readings that come
    /// again are known.
    fn begin_anew(&mut self) -> Result<(), OutboxError> {
        // Where the file is gone, an earlier attempt removed it and could not make the new one.
        if self.path.exists() {
            // There may be room again; and the file itself has to say that nothing else is in it.
            let is_full = self.with_file(Desk::delete_settled).is_err() && self.is_disk_full;
            if !is_full {
                return Ok(());
            }
            let is_empty =
                self.with_file(|desk, file| Ok(file.is_current() && desk.is_all_delivered(&file.rows)?))?;
            self.is_disk_full = true;
            if !is_empty {
                return Ok(());
            }
        }
        self.file = None;
        let disk = |error: io::Error| OutboxError::Disk(format!("{}: {error}", self.path.display()));
        // SQLite discards a log without its file; a file without its log would be of an earlier time.
        for name in [self.path.clone(), beside(&self.path, "-wal")] {
            match fs::remove_file(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(error)),
                _ => {}
            }
        }
        let mut file = QueueFile::open(&self.path, false).map_err(OpenError::into_error)?;
        let begun = self.desk.refresh(&mut file).and_then(|()| self.desk.note_boot(&mut file));
        begun.map_err(|error| OutboxError::Disk(error.to_string()))?;
        self.file = Some(file);
        self.is_log_doubtful = false;
        tracing::warn!(
            "the disk was full and all that waited is delivered: the queue begins with a new file, and a reading that a \
             device sent before and sends again makes a second record"
        );
        Ok(())
    }

    /// Decides when there is something to do without being asked.
    fn plan(&mut self) {
        let now = Instant::now();
        let (wait, is_late) = match (&self.desk.status.fault, self.desk.deletions()) {
            (Some(_), _) => (RETRY, false),
            // The first to be deleted waits no longer because others come.
            (None, 1..) => (IDLE, self.desk.had_deletions),
            (None, 0) => (IDLE, false),
        };
        self.desk.had_deletions = self.desk.deletions() > 0;
        if !is_late || self.wake_at.is_none() {
            self.wake_at = Some(now + wait);
        }
    }

    fn idle(&mut self) {
        self.wake_at = None;
        let done = if self.is_new_file_wanted() {
            self.begin_anew().map(|()| true)
        } else if self.desk.status.fault.is_some() {
            // Nobody may write until this is over, so somebody has to try.
            match self.file.as_ref().is_none_or(QueueFile::is_current) {
                true => self.with_file(|desk, file| desk.note_boot(file)).map(|()| true),
                false => Err(self.note_gone()),
            }
        } else if self.desk.deletions() > 0 {
            self.with_file(Desk::delete_settled).map(|()| true)
        } else {
            self.with_file(Desk::give_back)
        };
        self.desk.had_deletions = self.desk.deletions() > 0;
        match done {
            Err(_) => self.wake_at = Some(Instant::now() + RETRY),
            Ok(true) => self.wake_at = Some(Instant::now() + IDLE),
            Ok(false) => {}
        }
    }

    fn close(&mut self) {
        if self.desk.deletions() > 0 {
            let _ = self.with_file(Desk::delete_settled);
        }
        if let Some(file) = self.file.take()
            && let Err(error) = file.close()
        {
            tracing::warn!(%error, "the queue's log stays beside its file; nothing is lost");
        }
    }

    fn tell(&self) {
        self.publish.send_if_modified(|status| {
            let is_changed = *status != self.desk.status;
            if is_changed {
                status.clone_from(&self.desk.status);
            }
            is_changed
        });
    }
}

/// Takes the lock that says whose queue this is. The file's own lock is let go of whenever it is opened again.
fn lock_beside(path: &Path) -> Result<File, OutboxError> {
    let lock = beside(path, ".lock");
    let disk = |error: io::Error| OutboxError::Disk(format!("{}: {error}", lock.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(disk)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(&lock).map_err(disk)?;
    // A sender that is just stopping gets a moment.
    for _ in 0..10 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(100)),
            Err(TryLockError::Error(error)) => return Err(disk(error)),
        }
    }
    Err(OutboxError::InUse { path: path.to_owned() })
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}
