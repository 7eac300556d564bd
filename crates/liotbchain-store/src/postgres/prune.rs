//! Drops payloads and signatures, and gives their space back.
//!
//! A step is one transaction that holds the row of the right to seal, so that no block is put on or taken off meanwhile.
//! The server computes the content hashes, so that no payload travels.

use std::{ops::Range, time::Duration};

use liotbchain_core::{Height, KeyId, codec};
use tokio_postgres::Row;

use super::{
    PostgresStore,
    fault::Failure,
    row::{column, number},
    session::{Session, deadline},
};
use crate::{PruneStep, StoreError, prune_block};

/// What a step drops.
const COUNT: &str = "
    SELECT count(*) AS transactions, min(sequence) AS first, max(sequence) AS last,
           coalesce(sum(octet_length(payload) + octet_length(signature)), 0)::bigint AS bytes
    FROM liotbchain.transactions
    WHERE height IS NOT NULL AND height >= $2 AND height < $3 AND octet_length(payload) > 0
      AND key = (SELECT k.key FROM liotbchain.keys k WHERE k.key_id = $1)";

/// Drops it. An integer is sent with its most significant byte first, as the format has it.
const DROP: &str = "
    UPDATE liotbchain.transactions
    SET payload = '', signature = sha256(int4send(octet_length(payload)) || payload
                                         || substr(int4send(octet_length(signature)), 3) || signature)
    WHERE height IS NOT NULL AND height >= $2 AND height < $3 AND octet_length(payload) > 0
      AND key = (SELECT k.key FROM liotbchain.keys k WHERE k.key_id = $1)";

/// Returns what a step drops, and drops it where `erase` is set. The caller begins and commits.
async fn step(
    session: &Session,
    key_id: &KeyId,
    heights: Range<Height>,
    limit: u32,
    erase: bool,
) -> Result<PruneStep, Failure> {
    if erase {
        session.query("SELECT epoch FROM liotbchain.seal_right WHERE singleton FOR UPDATE", &[]).await?;
    }
    let (start, end) = (i64::from(heights.start.max(1)), i64::from(heights.end));
    let sql = "SELECT height FROM liotbchain.transactions
               WHERE height IS NOT NULL AND height >= $1 AND height < $2
               ORDER BY height, position LIMIT 1 OFFSET $3";
    let rows = session.query(sql, &[&start, &end, &i64::from(limit.max(1) - 1)]).await?;
    let last = rows.first().map(|row| number(row, "height")).transpose()?;
    let next = last.and_then(|last| last.checked_add(1)).filter(|next| *next < heights.end);
    let end = next.map_or(end, i64::from);
    let rows = session.query(COUNT, &[&&key_id.0[..], &start, &end]).await?;
    let mut found = rows.first().map(found).transpose()?.unwrap_or_default();
    found.next = next;
    if erase && found.transactions > 0 {
        session.execute(DROP, &[&&key_id.0[..], &start, &end]).await?;
    }
    Ok(found)
}

fn found(row: &Row) -> Result<PruneStep, StoreError> {
    let unsigned = |name| Ok::<_, StoreError>(column::<i64>(row, name)?.cast_unsigned());
    let sequence = |name| Ok::<_, StoreError>(column::<Option<i64>>(row, name)?.map(i64::cast_unsigned));
    Ok(PruneStep {
        transactions: unsigned("transactions")?,
        bytes: unsigned("bytes")?,
        sequences: sequence("first")?.zip(sequence("last")?),
        next: None,
    })
}

pub(super) async fn prunable(
    store: &PostgresStore,
    key_id: &KeyId,
    heights: Range<Height>,
    limit: u32,
) -> Result<PruneStep, StoreError> {
    let session = store.session().await?;
    session.begin_snapshot().await?;
    let found = step(&session, key_id, heights, limit, false).await?;
    session.roll_back().await;
    Ok(found)
}

pub(super) async fn prune(
    store: &PostgresStore,
    key_id: &KeyId,
    heights: Range<Height>,
    limit: u32,
) -> Result<PruneStep, StoreError> {
    let session = store.session().await?;
    session.settle().await?;
    session.begin().await?;
    match step(&session, key_id, heights, limit, true).await {
        Ok(found) => session.commit().await.map(|()| found).map_err(Into::into),
        Err(failure) => {
            session.roll_back().await;
            Err(failure.into())
        }
    }
}

pub(super) async fn prune_side_blocks(
    store: &PostgresStore,
    key_id: &KeyId,
    below: Height,
) -> Result<u64, StoreError> {
    let session = store.session().await?;
    session.settle().await?;
    session.begin().await?;
    match side_blocks(&session, key_id, below).await {
        Ok(pruned) => session.commit().await.map(|()| pruned).map_err(Into::into),
        Err(failure) => {
            session.roll_back().await;
            Err(failure.into())
        }
    }
}

async fn side_blocks(session: &Session, key_id: &KeyId, below: Height) -> Result<u64, Failure> {
    session.query("SELECT epoch FROM liotbchain.seal_right WHERE singleton FOR UPDATE", &[]).await?;
    let sql = "SELECT hash, bytes FROM liotbchain.side_blocks WHERE hash > $1 AND height < $2 ORDER BY hash LIMIT 1";
    let update = "UPDATE liotbchain.side_blocks SET bytes = $2 WHERE hash = $1";
    let (mut after, mut pruned) = (Vec::new(), 0);
    // One at a time: a block may be large.
    loop {
        let rows = session.query(sql, &[&after, &i64::from(below)]).await?;
        let Some(row) = rows.first() else { return Ok(pruned) };
        after = column::<Vec<u8>>(row, "hash")?;
        let mut block = codec::decode_kept_block(column(row, "bytes")?)
            .map_err(|error| StoreError::Corrupt(format!("a side block: {error}")))?;
        let count = prune_block(&mut block, key_id);
        if count > 0 {
            session.execute(update, &[&after, &codec::encode_kept_block(&block)]).await?;
        }
        pruned += count;
    }
}

/// Returns the bytes of the tables that hold payloads, with their indexes.
pub(super) async fn size(store: &PostgresStore) -> Result<u64, StoreError> {
    let sql = "SELECT pg_total_relation_size('liotbchain.transactions')
                      + pg_total_relation_size('liotbchain.side_blocks') AS bytes";
    let rows = store.read(sql, &[]).await?;
    rows.first().map_or(Ok(0), |row| Ok(column::<i64>(row, "bytes")?.cast_unsigned()))
}

/// Vacuums, as long as it takes.
pub(super) async fn compact(store: &PostgresStore, full: bool) -> Result<(), StoreError> {
    let session = Session::open(&store.pool, deadline(Duration::MAX)).await?;
    let option = if full { "FULL, ANALYZE" } else { "ANALYZE" };
    // Each is a statement of its own: no VACUUM runs within a transaction.
    for sql in [
        "SET statement_timeout = 0",
        &format!("VACUUM ({option}) liotbchain.transactions"),
        &format!("VACUUM ({option}) liotbchain.side_blocks"),
        &format!(
            "SET statement_timeout = {}",
            i32::try_from(store.timeout.as_millis()).unwrap_or(i32::MAX).max(1)
        ),
    ] {
        session.batch(sql).await?;
    }
    session.finish();
    Ok(())
}
