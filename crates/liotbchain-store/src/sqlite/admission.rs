//! Takes transactions in.

use std::collections::HashMap;

use liotbchain_core::{KeyId, PublicKey, TimestampMs};
use rusqlite::{CachedStatement, Connection, OptionalExtension};

use super::rows::StatusQuery;
use crate::{Admitted, NewTransaction, Status, StoreError};

pub(super) fn admit(
    connection: &Connection,
    transactions: &[NewTransaction],
    now_ms: TimestampMs,
) -> Result<Admitted, StoreError> {
    add_keys(connection, transactions.iter().filter_map(|transaction| transaction.public_key.as_ref()))?;
    let mut keys = KeyNumbers::new(connection)?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO transactions (id, key, received_ms, payload, signature) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO NOTHING",
    )?;
    let mut query = StatusQuery::new(connection)?;
    let mut admitted = Admitted { statuses: Vec::with_capacity(transactions.len()), new: 0 };
    for transaction in transactions {
        let id = transaction.statement.id();
        let statement = transaction.statement.statement();
        let key = keys.number(&statement.key_id)?;
        let row = (&id.0, key, now_ms.cast_signed(), &statement.payload, &statement.signature);
        if insert.execute(row)? == 1 {
            admitted.new += 1;
            admitted.statuses.push(Status::Pending);
        } else {
            let status = query.status(&id)?;
            admitted
                .statuses
                .push(status.ok_or_else(|| StoreError::Corrupt(format!("id {id} is known and is not")))?);
        }
    }
    Ok(admitted)
}

pub(super) fn add_keys<'a>(
    connection: &Connection,
    keys: impl IntoIterator<Item = &'a PublicKey>,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO keys (key_id, spki) VALUES (?1, ?2) ON CONFLICT (key_id) DO NOTHING";
    let mut insert = connection.prepare_cached(insert)?;
    let mut last = None;
    for key in keys {
        // Mostly, one device sends one list.
        if last.replace(key.key_id()) != Some(key.key_id()) {
            insert.execute((&key.key_id().0, key.spki_der()))?;
        }
    }
    Ok(())
}

/// Finds the numbers that stand for keys in rows.
pub(super) struct KeyNumbers<'a> {
    query: CachedStatement<'a>,
    known: HashMap<KeyId, i64>,
}

impl<'a> KeyNumbers<'a> {
    pub(super) fn new(connection: &'a Connection) -> Result<Self, StoreError> {
        let query = connection.prepare_cached("SELECT key FROM keys WHERE key_id = ?1")?;
        Ok(Self { query, known: HashMap::new() })
    }

    pub(super) fn number(&mut self, key_id: &KeyId) -> Result<i64, StoreError> {
        if let Some(number) = self.known.get(key_id) {
            return Ok(*number);
        }
        let number: Option<i64> = self.query.query_row([&key_id.0], |row| row.get(0)).optional()?;
        let number = number.ok_or_else(|| StoreError::Config {
            problem: format!("the public key {key_id} is not known to the store"),
            cure: "make it known before a transaction that it signed".to_owned(),
        })?;
        self.known.insert(*key_id, number);
        Ok(number)
    }
}
