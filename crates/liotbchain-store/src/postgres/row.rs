//! Takes rows apart. A row that a person changed by hand is [`StoreError::Corrupt`], never a panic.

use std::fmt::Display;

use liotbchain_core::{BlockHash, Content, KeyId, Statement, TransactionId};
use tokio_postgres::{Row, types::FromSql};

use super::fault::describe;
use crate::{StoreError, read_content};

/// Says what is wrong with the stored block.
pub(super) fn corrupt(height: impl Display, fault: impl Display) -> StoreError {
    StoreError::Corrupt(format!("block {height}: {fault}"))
}

/// Returns a column's value.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| StoreError::Corrupt(format!("a {name}: {}", describe(&error))))
}

/// Returns a column that holds 32 bytes.
pub(super) fn bytes32(row: &Row, name: &str) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = column(row, name)?;
    let fault = |_| StoreError::Corrupt(format!("a {name} of {} bytes: expected 32", bytes.len()));
    bytes.try_into().map_err(fault)
}

/// Returns a column that holds an unsigned 32-bit number.
pub(super) fn number(row: &Row, name: &str) -> Result<u32, StoreError> {
    let value: i64 = column(row, name)?;
    let fault = |_| StoreError::Corrupt(format!("a {name} of {value}: expected 0 to {}", u32::MAX));
    u32::try_from(value).map_err(fault)
}

/// Returns a column that holds an unsigned 64-bit number, bit for bit.
pub(super) fn unsigned(row: &Row, name: &str) -> Result<u64, StoreError> {
    column(row, name).map(i64::cast_unsigned)
}

pub(super) fn id(row: &Row) -> Result<TransactionId, StoreError> {
    bytes32(row, "id").map(TransactionId)
}

pub(super) fn key_id(row: &Row) -> Result<KeyId, StoreError> {
    bytes32(row, "key_id").map(KeyId)
}

pub(super) fn block_hash(row: &Row) -> Result<BlockHash, StoreError> {
    bytes32(row, "hash").map(BlockHash)
}

/// Returns what is kept of a statement.
pub(super) fn content(row: &Row) -> Result<Content, StoreError> {
    let Statement { key_id, payload, signature } = statement(row)?;
    read_content(key_id, payload, signature).map_err(StoreError::Corrupt)
}

pub(super) fn statement(row: &Row) -> Result<Statement, StoreError> {
    let payload: &[u8] = column(row, "payload")?;
    let payload =
        std::str::from_utf8(payload).map_err(|_| StoreError::Corrupt("a payload is not UTF-8".to_owned()))?;
    let signature: &[u8] = column(row, "signature")?;
    Ok(Statement { key_id: key_id(row)?, payload: payload.to_owned(), signature: signature.to_vec() })
}
