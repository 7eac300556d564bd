//! The right to seal: one row, and the clock of the machine that the file lies on.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, named_params};

use crate::{Right, StoreError};

/// SQLite's clock in milliseconds since the Unix epoch.
const NOW_MS: &str = "CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER)";

/// A century: longer than any right, and short enough to be added to a clock.
const TTL_MAX_MS: i64 = 3_155_760_000_000;

fn milliseconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(TTL_MAX_MS).min(TTL_MAX_MS)
}

pub(super) fn acquire(
    connection: &Connection,
    holder: &str,
    ttl: Duration,
) -> Result<Option<Right>, StoreError> {
    let update = format!(
        "UPDATE seal_right SET holder = :holder, epoch = epoch + 1, expires_ms = {NOW_MS} + :ttl
         WHERE holder IS NULL OR holder = :holder OR expires_ms <= {NOW_MS} RETURNING epoch"
    );
    let mut update = connection.prepare_cached(&update)?;
    let parameters = named_params! { ":holder": holder, ":ttl": milliseconds(ttl) };
    let epoch: Option<i64> = update.query_row(parameters, |row| row.get(0)).optional()?;
    Ok(epoch.map(|epoch| Right { holder: holder.to_owned(), epoch: epoch.cast_unsigned() }))
}

pub(super) fn renew(connection: &Connection, right: &Right, ttl: Duration) -> Result<(), StoreError> {
    let update = format!("UPDATE seal_right SET expires_ms = {NOW_MS} + ?3 WHERE holder = ?1 AND epoch = ?2");
    let mut update = connection.prepare_cached(&update)?;
    match update.execute((&right.holder, right.epoch.cast_signed(), milliseconds(ttl)))? {
        0 => Err(StoreError::RightLost),
        _ => Ok(()),
    }
}

pub(super) fn release(connection: &Connection, right: &Right) -> Result<(), StoreError> {
    let update = "UPDATE seal_right SET holder = NULL, expires_ms = 0 WHERE holder = ?1 AND epoch = ?2";
    connection.prepare_cached(update)?.execute((&right.holder, right.epoch.cast_signed()))?;
    Ok(())
}

/// Returns an error unless the right is held, and not expired.
pub(super) fn check(connection: &Connection, right: &Right) -> Result<(), StoreError> {
    let query =
        format!("SELECT 1 FROM seal_right WHERE holder = ?1 AND epoch = ?2 AND expires_ms > {NOW_MS}");
    let mut query = connection.prepare_cached(&query)?;
    match query.exists((&right.holder, right.epoch.cast_signed()))? {
        true => Ok(()),
        false => Err(StoreError::RightLost),
    }
}
