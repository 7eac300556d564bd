//! What stands in the tables, and the statements that put it there and read it.

use std::{collections::HashMap, sync::Arc};

use liotbchain_core::{KeyId, PublicKey, Statement};
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};

use super::{Record, Slot, on_the_way::Run};
use crate::reading::DeviceName;

/// Keys that are held in memory beside the file, until they are read anew.
const KEYS_MAX: usize = 1024;

/// The tables of an open file.
pub(super) struct Rows {
    pub(super) connection: Connection,
    pub(super) keys: Keys,
}

/// Keys by the numbers that stand for them in rows.
#[derive(Default)]
pub(super) struct Keys {
    numbers: HashMap<KeyId, i64>,
    keys: HashMap<i64, Arc<PublicKey>>,
}

/// What a record is. The numbers are those of the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reading = 0,
    Gap = 1,
}

/// A record to be written.
pub(super) struct NewRow<'a> {
    pub slot: Slot,
    pub device: &'a DeviceName,
    pub received_ms: u64,
    pub kind: Kind,
    pub key: i64,
    /// The record of the device before this one.
    pub before: Option<Slot>,
    pub statement: &'a Statement,
}

/// What waits of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backlog {
    pub device: String,
    pub waiting: u64,
    /// The latest of it.
    pub last: Slot,
}

/// A record that was saved from a damaged file.
pub(super) struct SavedRow<'a> {
    pub slot: Slot,
    pub device: &'a DeviceName,
    pub received_ms: i64,
    pub kind: i64,
    pub key: i64,
    pub before: Option<i64>,
    pub statement: &'a Statement,
}

/// What may still be taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub records: usize,
    /// Bytes of payloads and signatures.
    pub size: usize,
    /// Whether nothing was taken so far: one record may be as big as it is.
    pub is_empty: bool,
}

impl Room {
    /// Returns whether nothing more may be taken.
    pub(super) fn is_used_up(&self) -> bool {
        self.records == 0 || self.size == 0
    }

    /// Makes room for a record. Returns false where there is none, nor will be for a smaller one.
    fn add(&mut self, statement: &Statement) -> bool {
        let size = statement.payload.len() + statement.signature.len();
        if self.records == 0 || (size > self.size && !self.is_empty) {
            self.records = 0;
            return false;
        }
        self.records -= 1;
        self.size = self.size.saturating_sub(size);
        self.is_empty = false;
        true
    }
}

/// How much is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pages {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that could be given back.
    pub free: u64,
}

impl Rows {
    /// Begins a transaction. After an error the file is closed, which ends it.
    pub(super) fn begin(&self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(|_| ())
    }

    /// Writes the transaction to the disk.
    pub(super) fn commit(&self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([]).map(|_| ())
    }

    /// Gives back up to so many pages that are not used.
    pub(super) fn vacuum(&self, pages: u32) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Copies the log into the file, whose end is cut off where it was given back.
    pub(super) fn copy_log_back(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    /// Deletes keys that no record was signed with, where none waits.
    pub(super) fn forget_keys(&mut self) -> rusqlite::Result<()> {
        let unused =
            "DELETE FROM keys WHERE key NOT IN (SELECT key FROM aside UNION SELECT key FROM records)";
        if self.connection.execute(unused, [])? > 0 {
            self.keys = Keys::default();
        }
        Ok(())
    }

    /// Returns bytes in use, and bytes to be given back.
    pub(super) fn pages(&self) -> rusqlite::Result<Pages> {
        let number = |pragma| {
            let mut statement = self.connection.prepare_cached(pragma)?;
            statement.query_row([], |row| row.get::<_, u64>(0))
        };
        let (all, free) = (number("PRAGMA page_count")?, number("PRAGMA freelist_count")?);
        let size = number("PRAGMA page_size")?;
        Ok(Pages { used: all.saturating_sub(free) * size, free: free * size })
    }

    /// Returns the number of the latest start.
    pub(super) fn boot(&self) -> rusqlite::Result<u64> {
        self.connection.query_row("SELECT boot FROM meta", [], |row| row.get(0))
    }

    /// Notes the number of the latest start.
    pub(super) fn set_boot(&self, boot: u64) -> rusqlite::Result<()> {
        self.connection.execute("UPDATE meta SET boot = ?1", [boot]).map(|_| ())
    }

    /// Returns the highest slot that any record has.
    pub(super) fn last_slot(&self) -> rusqlite::Result<Option<Slot>> {
        let read = "SELECT max(slot) FROM (SELECT max(slot) AS slot FROM records UNION ALL SELECT max(slot) FROM aside)";
        self.connection.query_row(read, [], |row| row.get(0))
    }

    /// Counts the records that wait.
    pub(super) fn waiting(&self) -> rusqlite::Result<u64> {
        self.connection.query_row("SELECT coalesce(sum(waiting), 0) FROM devices", [], |row| row.get(0))
    }

    /// Counts the records themselves.
    pub(super) fn count(&self) -> rusqlite::Result<u64> {
        self.connection.query_row("SELECT count(*) FROM records", [], |row| row.get(0))
    }

    /// Returns when the oldest record was received.
    pub(super) fn oldest_ms(&self) -> rusqlite::Result<Option<u64>> {
        let read = "SELECT received_ms FROM records ORDER BY slot LIMIT 1";
        let mut statement = self.connection.prepare_cached(read)?;
        statement.query_row([], |row| row.get(0).map(i64::cast_unsigned)).optional()
    }

    /// Returns whether a record waits in this slot.
    pub(super) fn has(&self, slot: Slot) -> rusqlite::Result<bool> {
        self.connection.prepare_cached("SELECT 1 FROM records WHERE slot = ?1")?.exists([slot])
    }

    /// Returns the number of a key, which is added where it is new.
    pub(super) fn key_number(&mut self, key: &PublicKey) -> rusqlite::Result<i64> {
        let id = key.key_id();
        if let Some(number) = self.keys.numbers.get(&id) {
            return Ok(*number);
        }
        let spki = key.spki_der();
        let read = "SELECT key FROM keys WHERE spki = ?1";
        let found: Option<i64> =
            self.connection.prepare_cached(read)?.query_row([spki], |row| row.get(0)).optional()?;
        let number = match found {
            Some(number) => number,
            None => {
                let mut insert = self.connection.prepare_cached("INSERT INTO keys (spki) VALUES (?1)")?;
                insert.insert([spki])?
            }
        };
        if self.keys.numbers.len() >= KEYS_MAX {
            self.keys.numbers.clear();
        }
        self.keys.numbers.insert(id, number);
        Ok(number)
    }

    /// Writes a record.
    pub(super) fn insert(&self, row: &NewRow<'_>) -> rusqlite::Result<()> {
        let NewRow { slot, device, received_ms, kind, key, before, statement } = *row;
        let insert = "INSERT INTO records (slot, device, received_ms, kind, key, before, payload, signature)
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let mut insert = self.connection.prepare_cached(insert)?;
        let Statement { payload, signature, .. } = statement;
        let (device, received_ms, kind) = (device.as_str(), received_ms.cast_signed(), kind as i64);
        insert.execute(params![slot, device, received_ms, kind, key, before, payload, signature])?;
        Ok(())
    }

    /// Returns the slot of the latest record of a device.
    pub(super) fn last_of(&self, device: &DeviceName) -> rusqlite::Result<Option<Slot>> {
        let read = "SELECT last FROM devices WHERE name = ?1";
        self.connection.prepare_cached(read)?.query_row([device.as_str()], |row| row.get(0)).optional()
    }

    /// Counts more records of a device, and notes the latest.
    pub(super) fn add_waiting(&self, device: &DeviceName, more: u64, last: Slot) -> rusqlite::Result<()> {
        let add = "INSERT INTO devices (name, waiting, last) VALUES (?1, ?2, ?3)
                   ON CONFLICT (name) DO UPDATE SET waiting = waiting + ?2, last = ?3";
        self.connection.prepare_cached(add)?.execute(params![device.as_str(), more, last]).map(|_| ())
    }

    /// Counts fewer records of some devices.
    pub(super) fn subtract_waiting<'a>(
        &self,
        devices: impl IntoIterator<Item = (&'a DeviceName, u64)>,
    ) -> rusqlite::Result<()> {
        let subtract = "UPDATE devices SET waiting = waiting - ?2 WHERE name = ?1 AND waiting > ?2";
        let mut subtract = self.connection.prepare_cached(subtract)?;
        let mut forget = self.connection.prepare_cached("DELETE FROM devices WHERE name = ?1")?;
        for (device, fewer) in devices {
            if subtract.execute(params![device.as_str(), fewer])? == 0 {
                forget.execute([device.as_str()])?;
            }
        }
        Ok(())
    }

    /// Deletes records; their devices are counted elsewhere. Returns how many there were.
    pub(super) fn delete(&self, runs: &[Run]) -> rusqlite::Result<u64> {
        let mut delete =
            self.connection.prepare_cached("DELETE FROM records WHERE slot BETWEEN ?1 AND ?2")?;
        let mut deleted = 0;
        for Run { first, last } in runs {
            deleted += delete.execute([first, last])? as u64;
        }
        Ok(deleted)
    }

    /// Reads records from a slot on, in their order, while there is room. `is_free` tells which to pass over.
    pub(super) fn scan(
        &mut self,
        from: Slot,
        is_free: impl Fn(Slot) -> bool,
        room: &mut Room,
    ) -> rusqlite::Result<Vec<Record>> {
        let Self { connection, keys } = self;
        let read = "SELECT slot, device, key, payload, signature FROM records WHERE slot >= ?1 ORDER BY slot";
        let mut statement = connection.prepare_cached(read)?;
        read_free(connection, keys, statement.query([from])?, is_free, room)
    }

    /// Reads the free records of one device, in their order, while there is room. Reads none where not all that wait can
    /// be found, since an older one may be among those.
    pub(super) fn read_backlog(
        &mut self,
        backlog: &Backlog,
        is_free: impl Fn(Slot) -> bool,
        room: &mut Room,
    ) -> rusqlite::Result<Vec<Record>> {
        let Self { connection, keys } = self;
        let mut slots = Vec::new();
        let mut next = Some(backlog.last);
        let mut read =
            connection.prepare_cached("SELECT before FROM records WHERE slot = ?1 AND device = ?2")?;
        while let Some(slot) = next
            && (slots.len() as u64) < backlog.waiting
            && let Some(before) =
                read.query_row(params![slot, backlog.device], |row| row.get(0)).optional()?
        {
            slots.push(slot);
            next = before;
        }
        if slots.len() as u64 != backlog.waiting {
            return Ok(Vec::new());
        }
        let read = "SELECT slot, device, key, payload, signature FROM records WHERE slot = ?1";
        let mut statement = connection.prepare_cached(read)?;
        let mut records: Vec<Record> = Vec::new();
        for slot in slots.into_iter().rev().filter(|slot| is_free(*slot)) {
            let mut rows = statement.query([slot])?;
            let Some(row) = rows.next()? else { break };
            let record = record(connection, keys, row, records.last().map(|last| &last.device))?;
            if !room.add(&record.statement) {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Returns the devices that have something waiting, but no more than `waiting_max`, those with the least first.
    pub(super) fn small_backlogs(&self, waiting_max: usize) -> rusqlite::Result<Vec<Backlog>> {
        let read = "SELECT name, waiting, last FROM devices WHERE waiting <= ?1 ORDER BY waiting LIMIT ?1";
        let mut statement = self.connection.prepare_cached(read)?;
        let backlogs = statement.query_map([waiting_max], |row| {
            Ok(Backlog { device: row.get(0)?, waiting: row.get(1)?, last: row.get(2)? })
        });
        backlogs?.collect()
    }

    /// Moves a record to those that were refused. Returns whether it was there.
    pub(super) fn move_aside(&self, slot: Slot, reason: &str) -> rusqlite::Result<bool> {
        let copy = "INSERT OR REPLACE INTO aside (slot, device, received_ms, kind, key, payload, signature, reason)
                    SELECT slot, device, received_ms, kind, key, payload, signature, ?2 FROM records WHERE slot = ?1";
        let moved = self.connection.prepare_cached(copy)?.execute(params![slot, reason])? == 1;
        self.delete(&[Run { first: slot, last: slot }])?;
        Ok(moved)
    }

    /// Returns the latest records that were refused, and why.
    pub(super) fn aside(&mut self, limit: u32) -> rusqlite::Result<Vec<(Record, String)>> {
        let Self { connection, keys } = self;
        let read =
            "SELECT slot, device, key, payload, signature, reason FROM aside ORDER BY slot DESC LIMIT ?1";
        let mut statement = connection.prepare_cached(read)?;
        let mut rows = statement.query([limit])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.push((record(connection, keys, row, None)?, row.get(5)?));
        }
        Ok(records)
    }

    /// Counts the records that were refused, and their bytes.
    pub(super) fn aside_size(&self) -> rusqlite::Result<(u64, u64)> {
        let read = "SELECT count(*), coalesce(sum(length(payload) + length(signature)), 0) FROM aside";
        self.connection.query_row(read, [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Deletes the record that was refused first, and returns its slot and its bytes.
    pub(super) fn delete_oldest_aside(&self) -> rusqlite::Result<Option<(Slot, u64)>> {
        let delete = "DELETE FROM aside WHERE slot = (SELECT min(slot) FROM aside)
                      RETURNING slot, length(payload) + length(signature)";
        self.connection.query_row(delete, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    /// Returns a key by its number.
    pub(super) fn key(&mut self, number: i64) -> rusqlite::Result<Option<Arc<PublicKey>>> {
        let exists = self.connection.prepare_cached("SELECT 1 FROM keys WHERE key = ?1")?.exists([number])?;
        exists.then(|| public_key(&self.connection, &mut self.keys, number)).transpose()
    }

    /// Writes a key under the number it had.
    pub(super) fn save_key(&self, number: i64, spki: &[u8]) -> rusqlite::Result<()> {
        let save = "INSERT OR IGNORE INTO keys (key, spki) VALUES (?1, ?2)";
        self.connection.prepare_cached(save)?.execute(params![number, spki]).map(|_| ())
    }

    /// Writes an identity under the number it had.
    pub(super) fn save_identity(
        &self,
        number: i64,
        identity: &[u8],
        body: &[u8],
        id: &[u8],
    ) -> rusqlite::Result<()> {
        let save = "INSERT OR IGNORE INTO identities (number, identity, body, id) VALUES (?1, ?2, ?3, ?4)";
        self.connection.prepare_cached(save)?.execute(params![number, identity, body, id]).map(|_| ())
    }

    /// Writes a record, or one that was refused, into the slot it had.
    pub(super) fn save_record(&self, row: &SavedRow<'_>, reason: Option<&str>) -> rusqlite::Result<()> {
        let SavedRow { slot, device, received_ms, kind, key, before, statement } = *row;
        let (device, Statement { payload, signature, .. }) = (device.as_str(), statement);
        if let Some(reason) = reason {
            let save = "INSERT OR IGNORE INTO aside
                            (slot, device, received_ms, kind, key, payload, signature, reason)
                        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let row = params![slot, device, received_ms, kind, key, payload, signature, reason];
            return self.connection.prepare_cached(save)?.execute(row).map(|_| ());
        }
        let save = "INSERT OR IGNORE INTO records
                        (slot, device, received_ms, kind, key, before, payload, signature)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let row = params![slot, device, received_ms, kind, key, before, payload, signature];
        self.connection.prepare_cached(save)?.execute(row).map(|_| ())
    }

    /// Counts the records of each device from the records themselves.
    pub(super) fn count_devices(&self) -> rusqlite::Result<()> {
        let count = "DELETE FROM devices;
                     INSERT INTO devices (name, waiting, last)
                     SELECT device, count(*), max(slot) FROM records GROUP BY device";
        self.connection.execute_batch(count)
    }
}

fn read_free(
    connection: &Connection,
    keys: &mut Keys,
    mut rows: rusqlite::Rows<'_>,
    is_free: impl Fn(Slot) -> bool,
    room: &mut Room,
) -> rusqlite::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    while room.records > 0
        && let Some(row) = rows.next()?
    {
        if !is_free(row.get(0)?) {
            continue;
        }
        let record = record(connection, keys, row, records.last().map(|last| &last.device))?;
        if !room.add(&record.statement) {
            break;
        }
        records.push(record);
    }
    Ok(records)
}

/// Reads a row: slot, device, key, payload, signature. Mostly, neighbours are of one device, whose name is then shared.
fn record(
    connection: &Connection,
    keys: &mut Keys,
    row: &Row<'_>,
    last: Option<&DeviceName>,
) -> rusqlite::Result<Record> {
    let device = row.get_ref(1)?.as_str()?;
    let device = match last {
        Some(last) if last.as_str() == device => last.clone(),
        _ => DeviceName::new(device).map_err(|error| not_valid(1, Type::Text, error))?,
    };
    let public_key = public_key(connection, keys, row.get(2)?)?;
    let statement = Statement { key_id: public_key.key_id(), payload: row.get(3)?, signature: row.get(4)? };
    Ok(Record { slot: row.get(0)?, id: statement.id(), device, statement, public_key })
}

fn public_key(connection: &Connection, keys: &mut Keys, number: i64) -> rusqlite::Result<Arc<PublicKey>> {
    if let Some(key) = keys.keys.get(&number) {
        return Ok(Arc::clone(key));
    }
    let mut statement = connection.prepare_cached("SELECT spki FROM keys WHERE key = ?1")?;
    let spki: Option<Vec<u8>> = statement.query_row([number], |row| row.get(0)).optional()?;
    let spki = spki.ok_or_else(|| not_valid(2, Type::Integer, MissingKey(number)))?;
    let key = PublicKey::from_spki_der(&spki).map_err(|error| not_valid(0, Type::Blob, error))?;
    if keys.keys.len() >= KEYS_MAX {
        keys.keys.clear();
    }
    Ok(Arc::clone(keys.keys.entry(number).or_insert(Arc::new(key))))
}

#[derive(Debug, thiserror::Error)]
#[error("there is no key {0}")]
struct MissingKey(i64);

/// Says that a column holds what nobody wrote there.
fn not_valid(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}
