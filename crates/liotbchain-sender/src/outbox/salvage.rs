//! Saves what can be verified out of a damaged file.
//!
//! The pages are read one by one, whatever the trees over them say, so that a lost header or inner page costs no more
//! than itself. A record is good if its signature is: the rest of its row only says where it stood. The damaged file is
//! kept under another name, with its log.

mod cells;
mod pages;

use std::{
    error::Error,
    ffi::OsString,
    fs, io,
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use liotbchain_core::{PublicKey, Statement};

use super::{
    OutboxError, Slot,
    file::{OpenError, QueueFile},
    rows::{Rows, SavedRow},
};
use crate::{reading::DeviceName, record::Place, signer::SigningKey};
use cells::{Cell, Value};
use pages::Pages;

/// Records that are verified at a time, and stored in one transaction.
const STEP: usize = 1024;

/// More starts than these nobody makes: a number above it was damaged.
const BOOTS: i64 = 1 << 24;

/// What is thought of a file before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Nothing speaks against it.
    None,
    /// It is to be looked over.
    Look,
    /// It is damaged, whatever SQLite says: a value in it cannot be read.
    Certain,
}

/// Opens the file; a damaged one is put aside, and what can be verified goes on from it in a new one. Returns where the
/// damaged one is, and how many records that wait were saved.
pub(super) fn open_or_salvage(
    path: &Path,
    key: &SigningKey,
    suspicion: Suspicion,
) -> Result<(QueueFile, Option<(PathBuf, u64)>), OutboxError> {
    let saved = beside(path, ".saved");
    // Where it is there already, this was stopped before the new file had its place.
    if !saved.exists() {
        let reason = match QueueFile::open(path, suspicion != Suspicion::None) {
            Ok(_) if suspicion == Suspicion::Certain => "a value in it cannot be read".to_owned(),
            Ok(file) => return Ok((file, None)),
            Err(OpenError::Refused(error)) => return Err(error),
            Err(OpenError::Damaged(reason)) => reason,
        };
        let name = path.display();
        tracing::warn!(path = %name, reason, "the queue's file is damaged: what can be verified is saved from it");
        salvage(path, &saved, key)?;
    }
    let damaged = put_in_place(path, &saved).map_err(|error| disk(path, &error))?;
    let file = QueueFile::open(path, false).map_err(OpenError::into_error)?;
    let count = file.rows.waiting().map_err(|error| disk(path, &error))?;
    let name = damaged.display();
    tracing::warn!(damaged = %name, records = count, "the queue goes on with the records that were saved");
    Ok((file, Some((damaged, count))))
}

/// Puts the damaged file and its log aside, and the new one in its place. Returns where the damaged one is.
fn put_in_place(path: &Path, saved: &Path) -> io::Result<PathBuf> {
    let free =
        (1..u32::MAX).map(|number| beside(path, &format!(".damaged-{number}"))).find(|it| !it.exists());
    let damaged = free.ok_or(io::ErrorKind::AlreadyExists)?;
    let moves = [(beside(path, "-wal"), beside(&damaged, "-wal")), (path.to_owned(), damaged.clone())];
    for (from, to) in moves {
        match fs::rename(from, to) {
            // It was moved before this was stopped, or there was none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
    }
    fs::rename(saved, path)?;
    sync_folder(path)?;
    Ok(damaged)
}

/// Writes what can be verified into a file of its own.
fn salvage(path: &Path, saved: &Path, key: &SigningKey) -> Result<(), OutboxError> {
    // It gets the name that is looked for once it is whole.
    let part = beside(path, ".saving");
    for leftover in [part.clone(), beside(&part, "-wal")] {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(|error| disk(&leftover, &error))?,
        }
    }
    let mut pages = Pages::open(path, &beside(path, "-wal")).map_err(|error| disk(path, &error))?;
    let mut file = QueueFile::open(&part, false).map_err(OpenError::into_error)?;
    let saving = save_others(&mut pages, &mut file.rows)
        .and_then(|()| save_records(&mut pages, &mut file.rows, key))
        .and_then(|()| file.rows.count_devices());
    saving.and_then(|()| file.close()).map_err(|error| disk(&part, &error))?;
    fs::rename(&part, saved).and_then(|()| sync_folder(path)).map_err(|error| disk(saved, &error))
}

fn disk(path: &Path, error: &dyn Error) -> OutboxError {
    OutboxError::Disk(format!("{}: {error}", path.display()))
}

/// Saves what records are verified and known by: keys, identities, the number of the latest start.
fn save_others(pages: &mut Pages, rows: &mut Rows) -> rusqlite::Result<()> {
    let mut boot = 0;
    rows.begin()?;
    pages.each_cell(|Cell { rowid, values }| {
        match values.as_slice() {
            [Value::Null, Value::Integer(1), Value::Integer(found @ 0..BOOTS)] => {
                boot = boot.max(found.cast_unsigned());
            }
            [Value::Null, Value::Blob(spki)] if PublicKey::from_spki_der(spki).is_ok() => {
                rows.save_key(rowid, spki)?;
            }
            [Value::Null, Value::Blob(identity), Value::Blob(body), Value::Blob(id)]
                if (identity.len(), body.len(), id.len()) == (16, 16, 32) =>
            {
                rows.save_identity(rowid, identity, body, id)?;
            }
            _ => {}
        }
        Ok::<(), rusqlite::Error>(())
    })?;
    rows.set_boot(boot)?;
    rows.commit()
}

/// A record whose signature is still to be verified.
struct Candidate {
    slot: Slot,
    device: DeviceName,
    received_ms: i64,
    kind: i64,
    key: Option<Arc<PublicKey>>,
    before: Option<i64>,
    payload: String,
    signature: Vec<u8>,
    reason: Option<String>,
}

fn save_records(pages: &mut Pages, rows: &mut Rows, key: &SigningKey) -> rusqlite::Result<()> {
    let mut candidates = Vec::with_capacity(STEP);
    pages.each_cell(|cell| {
        candidates.extend(candidate(cell, rows)?);
        if candidates.len() == STEP {
            save(&mut candidates, rows, key.public_key())?;
        }
        Ok::<(), rusqlite::Error>(())
    })?;
    save(&mut candidates, rows, key.public_key())
}

/// Reads a row of the tables `records` and `aside`; none where it is another.
fn candidate(cell: Cell, rows: &mut Rows) -> rusqlite::Result<Option<Candidate>> {
    use Value::{Blob, Integer, Null, Text};
    let Ok(
        [
            Null,
            Text(device),
            Integer(received_ms),
            Integer(kind @ 0..=1),
            Integer(key),
            sixth,
            seventh,
            eighth,
        ],
    ) = <[Value; 8]>::try_from(cell.values)
    else {
        return Ok(None);
    };
    let (before, payload, signature, reason) = match (sixth, seventh, eighth) {
        (Null, Text(payload), Blob(signature)) => (None, payload, signature, None),
        (Integer(before), Text(payload), Blob(signature)) => (Some(before), payload, signature, None),
        (Text(payload), Blob(signature), Text(reason)) => (None, payload, signature, Some(reason)),
        _ => return Ok(None),
    };
    let (Ok(device), Ok(slot)) = (DeviceName::new(&device), Slot::try_from(cell.rowid)) else {
        return Ok(None);
    };
    if Place::of_slot(slot).boot >= BOOTS.cast_unsigned() {
        return Ok(None);
    }
    let key = rows.key(key)?;
    Ok(Some(Candidate { slot, device, received_ms, kind, key, before, payload, signature, reason }))
}

/// Verifies records, and stores those that are good.
fn save(candidates: &mut Vec<Candidate>, rows: &mut Rows, own_key: &PublicKey) -> rusqlite::Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let chunk = candidates.len().div_ceil(threads).max(1);
    let good: Vec<bool> = thread::scope(|scope| {
        let verifying: Vec<_> = candidates
            .chunks_mut(chunk)
            .map(|chunk| scope.spawn(|| chunk.iter_mut().map(|it| verify(it, own_key)).collect::<Vec<_>>()))
            .collect();
        verifying.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    rows.begin()?;
    for (candidate, _) in candidates.drain(..).zip(good).filter(|(_, is_good)| *is_good) {
        let Candidate { slot, device, received_ms, kind, key, before, payload, signature, reason } =
            candidate;
        let Some(public_key) = key else { continue };
        let key = rows.key_number(&public_key)?;
        let statement = Statement { key_id: public_key.key_id(), payload, signature };
        let row = SavedRow { slot, device: &device, received_ms, kind, key, before, statement: &statement };
        rows.save_record(&row, reason.as_deref())?;
    }
    rows.commit()
}

/// Finds out with which key a record is good: its own, or this sender's, where the row of its own is lost.
fn verify(candidate: &mut Candidate, own_key: &PublicKey) -> bool {
    let Candidate { key, payload, signature, .. } = candidate;
    let is_good = |key: &PublicKey| key.verify(payload.as_bytes(), signature).is_ok();
    if key.as_ref().is_some_and(|key| is_good(key)) {
        return true;
    }
    let is_own = is_good(own_key);
    if is_own {
        *key = Some(Arc::new(own_key.clone()));
    }
    is_own
}

/// Returns the path with something added to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Names are on the disk once their folder is.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
