//! Drops payloads and signatures, and gives their space back.

use std::{fs, io, ops::Range, path::Path};

use liotbchain_core::{Height, KeyId, Statement, codec};
use rusqlite::{Connection, OptionalExtension};

use super::connection::Place;
use crate::{PruneStep, StoreError, prune_block};

/// Rows whose payloads are in memory at once: at most 8 MiB.
const ROWS_MAX: usize = 64;

pub(super) fn prunable(
    connection: &Connection,
    key_id: &KeyId,
    heights: Range<Height>,
    limit: u32,
) -> Result<PruneStep, StoreError> {
    let (heights, next) = step(connection, heights, limit)?;
    let mut query = connection.prepare_cached(
        "SELECT sequence, octet_length(payload) + octet_length(signature) FROM transactions JOIN keys USING (key)
         WHERE height >= ?1 AND height < ?2 AND key_id = ?3 AND payload <> '' ORDER BY height, position",
    )?;
    let mut rows = query.query((heights.start, heights.end, &key_id.0))?;
    let mut step = PruneStep { next, ..PruneStep::default() };
    while let Some(row) = rows.next()? {
        step.add(row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
    }
    Ok(step)
}

pub(super) fn prune(
    connection: &Connection,
    key_id: &KeyId,
    heights: Range<Height>,
    limit: u32,
) -> Result<PruneStep, StoreError> {
    // What is dropped is overwritten at once, should nobody come to compact the file.
    connection.pragma_update(None, "secure_delete", true)?;
    let (heights, next) = step(connection, heights, limit)?;
    let mut query = connection.prepare_cached(
        "SELECT arrival, height, position, sequence, payload, signature FROM transactions JOIN keys USING (key)
         WHERE height >= ?1 AND (height, position) > (?1, ?2) AND height < ?3 AND key_id = ?4 AND payload <> ''
         ORDER BY height, position LIMIT ?5",
    )?;
    let mut update = connection
        .prepare_cached("UPDATE transactions SET payload = '', signature = ?2 WHERE arrival = ?1")?;
    let mut step = PruneStep { next, ..PruneStep::default() };
    let mut after = (i64::from(heights.start), -1);
    loop {
        let mut found = Vec::with_capacity(ROWS_MAX);
        let mut rows = query.query((after.0, after.1, heights.end, &key_id.0, ROWS_MAX as i64))?;
        while let Some(row) = rows.next()? {
            let (arrival, sequence): (i64, i64) = (row.get(0)?, row.get(3)?);
            after = (row.get(1)?, row.get(2)?);
            let statement = Statement { key_id: *key_id, payload: row.get(4)?, signature: row.get(5)? };
            step.add(sequence.cast_unsigned(), (statement.payload.len() + statement.signature.len()) as u64);
            found.push((arrival, statement.content_hash()));
        }
        for (arrival, content_hash) in &found {
            update.execute((arrival, &content_hash.0))?;
        }
        if found.len() < ROWS_MAX {
            return Ok(step);
        }
    }
}

/// Returns which of these heights are looked at in one step, and where the next one begins.
fn step(
    connection: &Connection,
    heights: Range<Height>,
    limit: u32,
) -> Result<(Range<Height>, Option<Height>), StoreError> {
    let Range { start, end } = heights;
    let start = start.max(1);
    let query = "SELECT height FROM transactions WHERE height >= ?1 AND height < ?2
                 ORDER BY height, position LIMIT 1 OFFSET ?3";
    let mut query = connection.prepare_cached(query)?;
    let last: Option<Height> =
        query.query_row((start, end, limit.max(1) - 1), |row| row.get(0)).optional()?;
    let next = last.and_then(|last| last.checked_add(1)).filter(|next| *next < end);
    Ok((start..next.unwrap_or(end), next))
}

pub(super) fn prune_side_blocks(
    connection: &Connection,
    key_id: &KeyId,
    below: Height,
) -> Result<u64, StoreError> {
    connection.pragma_update(None, "secure_delete", true)?;
    let mut list = connection.prepare_cached("SELECT hash FROM side_blocks WHERE height < ?1")?;
    let hashes: Vec<[u8; 32]> =
        list.query_map([below], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut query = connection.prepare_cached("SELECT bytes FROM side_blocks WHERE hash = ?1")?;
    let mut update = connection.prepare_cached("UPDATE side_blocks SET bytes = ?2 WHERE hash = ?1")?;
    let mut pruned = 0;
    for hash in hashes {
        let bytes: Vec<u8> = query.query_row([&hash], |row| row.get(0))?;
        let mut block = codec::decode_kept_block(&bytes)
            .map_err(|error| StoreError::Corrupt(format!("a side block: {error}")))?;
        let count = prune_block(&mut block, key_id);
        if count > 0 {
            update.execute((&hash, codec::encode_kept_block(&block)))?;
        }
        pruned += count;
    }
    Ok(pruned)
}

/// Returns the bytes of the file and its write-ahead log.
pub(super) fn size(path: &Path) -> Result<u64, StoreError> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let size = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::Unavailable(error.to_string())),
    };
    Ok(size(path)? + size(Path::new(&log))?)
}

/// Writes the file anew without the pages and bytes that are free, on a connection of its own.
pub(super) fn compact(place: &Place) -> Result<(), StoreError> {
    let opened = place.open_writer()?;
    opened.connection.execute_batch("VACUUM")?;
    // A row says whether somebody stood in the way: the log is then copied and cut when the store is closed.
    opened.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}
