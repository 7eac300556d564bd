//! Moves the best chain: takes blocks off its end, puts blocks on it.

use std::collections::HashMap;

use liotbchain_core::{
    BlockHash, CheckedBlock, Header, Height, KeyId, Work, codec,
    merkle::{self, Frontier},
};
use rusqlite::Connection;

use super::{
    admission::KeyNumbers,
    rows::{self, Tip},
    seal_right,
};
use crate::{Right, StoreError, columns, id_in_row};

pub(super) fn create(connection: &Connection, genesis: &CheckedBlock) -> Result<(), StoreError> {
    if rows::tip(connection)?.is_some() {
        return Err(StoreError::AlreadyCreated);
    }
    let mut end =
        End { next_height: 0, tip: BlockHash::ZERO, work: Work::ZERO, history: Frontier::default() };
    end.connect(connection, genesis)
}

pub(super) fn commit(
    connection: &Connection,
    right: &Right,
    expected_tip: BlockHash,
    disconnect: u32,
    connect: &[CheckedBlock],
) -> Result<(), StoreError> {
    seal_right::check(connection, right)?;
    let tip = rows::tip(connection)?;
    let tip = tip.filter(|tip| tip.hash == expected_tip).ok_or(StoreError::TipMoved {
        expected: expected_tip,
        got: tip.map_or(BlockHash::ZERO, |tip| tip.hash),
    })?;
    let tip = take_off(connection, tip, disconnect)?;
    let mut end = End {
        next_height: tip.height.saturating_add(1),
        tip: tip.hash,
        work: tip.total_work,
        history: rows::frontier(connection, u64::from(tip.height) + 1, tip.hash)?,
    };
    connect.iter().try_for_each(|block| end.connect(connection, block))
}

/// Takes blocks off, the highest first, and returns the tip that is left.
fn take_off(connection: &Connection, tip: Tip, disconnect: u32) -> Result<Tip, StoreError> {
    if disconnect == 0 {
        return Ok(tip);
    }
    if disconnect > tip.height {
        return Err(StoreError::Config {
            problem: format!("{disconnect} blocks cannot be taken off a chain of height {}", tip.height),
            cure: "the genesis block stays: a chain from another one belongs in a store of its own"
                .to_owned(),
        });
    }
    for height in (tip.height - disconnect + 1..=tip.height).rev() {
        disconnect_block(connection, height)?;
    }
    let size = i64::from(tip.height - disconnect) + 1;
    let mut delete = connection.prepare_cached("DELETE FROM history_nodes WHERE level = ?1 AND idx >= ?2")?;
    // A tree over so many blocks has no higher level; on each, the nodes that are whole within `size` leaves stay.
    for level in 1..=Height::BITS {
        delete.execute((level, size >> level))?;
    }
    rows::tip(connection)?.ok_or_else(|| StoreError::Corrupt("the genesis block is missing".to_owned()))
}

fn disconnect_block(connection: &Connection, height: Height) -> Result<(), StoreError> {
    let block = rows::sound_block(connection, height)?;
    let hash = block.header.compute_hash();
    let bytes = codec::encode_kept_block(&block);
    let keep = "INSERT INTO side_blocks (hash, prev_block_hash, height, bytes) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(keep)?.execute((&hash.0, &block.header.prev_block_hash.0, height, bytes))?;
    let mut counts: HashMap<KeyId, i64> = HashMap::new();
    for transaction in &block.transactions {
        *counts.entry(transaction.key_id()).or_default() -= 1;
    }
    if block.transactions.iter().any(|it| it.statement().is_none()) {
        let drop = "DELETE FROM transactions WHERE height = ?1 AND payload = ''";
        connection.prepare_cached(drop)?.execute([height])?;
    }
    let release = "UPDATE transactions SET height = NULL, position = NULL, sequence = NULL WHERE height = ?1";
    connection.prepare_cached(release)?.execute([height])?;
    connection.prepare_cached("DELETE FROM blocks WHERE height = ?1")?.execute([height])?;
    let forget =
        "DELETE FROM key_blocks WHERE key = (SELECT key FROM keys WHERE key_id = ?1) AND height = ?2";
    let mut forget = connection.prepare_cached(forget)?;
    for key_id in counts.keys() {
        forget.execute((&key_id.0, height))?;
    }
    count_transactions(connection, counts)
}

fn count_transactions(connection: &Connection, counts: HashMap<KeyId, i64>) -> Result<(), StoreError> {
    let mut update =
        connection.prepare_cached("UPDATE keys SET transactions = transactions + ?2 WHERE key_id = ?1")?;
    for (key_id, count) in counts {
        update.execute((&key_id.0, count))?;
    }
    Ok(())
}

/// The end of the best chain, where the next block goes.
struct End {
    next_height: Height,
    tip: BlockHash,
    work: Work,
    history: Frontier,
}

impl End {
    fn connect(&mut self, connection: &Connection, block: &CheckedBlock) -> Result<(), StoreError> {
        let header = block.header();
        if header.height != self.next_height || header.prev_block_hash != self.tip {
            return Err(StoreError::Config {
                problem: format!("block {} does not follow on block {}", block.hash(), self.tip),
                cure: "give the blocks in chain order, from the block above the one that stays".to_owned(),
            });
        }
        self.tip = block.hash();
        self.next_height = self.next_height.saturating_add(1);
        self.work = self.work.saturating_add(block.work());
        insert_block(connection, block, self.work)?;
        let mut insert =
            connection.prepare_cached("INSERT INTO history_nodes (level, idx, hash) VALUES (?1, ?2, ?3)")?;
        for node in self.history.append(merkle::leaf_hash(&block.hash().0)) {
            if node.level > 0 {
                insert.execute((node.level, node.index.cast_signed(), node.hash))?;
            }
        }
        seal_transactions(connection, block)
    }
}

fn insert_block(connection: &Connection, block: &CheckedBlock, total_work: Work) -> Result<(), StoreError> {
    let header = block.header();
    let insert =
        "INSERT INTO blocks (height, hash, version, prev_block_hash, transactions_root, history_root,
                    timestamp_ms, bits, nonce, total_work) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    connection.prepare_cached(insert)?.execute((
        header.height,
        block.hash().0,
        Header::VERSION,
        header.prev_block_hash.0,
        header.transactions_root.0,
        header.history_root.0,
        header.timestamp_ms.cast_signed(),
        header.bits.0,
        header.nonce,
        total_work.to_be_bytes(),
    ))?;
    connection.prepare_cached("DELETE FROM side_blocks WHERE hash = ?1")?.execute([block.hash().0])?;
    Ok(())
}

fn seal_transactions(connection: &Connection, block: &CheckedBlock) -> Result<(), StoreError> {
    let mut keys = KeyNumbers::new(connection)?;
    // Not one statement with DO UPDATE: SQLite then copies each page that it may have to undo into a temporary file.
    let mut insert = connection.prepare_cached(
        "INSERT INTO transactions (id, height, position, sequence, signature, key, received_ms, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING",
    )?;
    // The same statement may have been signed twice: what the block holds is what its root commits to.
    let mut update = connection.prepare_cached(
        "UPDATE transactions SET height = ?2, position = ?3, sequence = ?4, signature = ?5
         WHERE id = ?1 AND height IS NULL",
    )?;
    let (height, received_ms) = (block.height(), block.header().timestamp_ms.cast_signed());
    let mut counts = HashMap::new();
    let mut were_pending = false;
    for (position, (transaction, id)) in (0u32..).zip(block.transactions().iter().zip(block.ids())) {
        let (id, key_id) = (id_in_row(transaction, *id), transaction.key_id());
        let (payload, signature) = columns(&transaction.content);
        let place = (&id.0, height, position, transaction.sequence.cast_signed(), signature);
        let mut insert = || {
            let (id, height, position, sequence, signature) = place;
            let key = keys.number(&key_id)?;
            let row = (id, height, position, sequence, signature, key, received_ms, payload);
            Ok::<_, StoreError>(insert.execute(row)? == 1)
        };
        let mut update = || Ok::<_, StoreError>(update.execute(place)? == 1);
        // Mostly all of a block were pending, or none.
        let is_sealed = if were_pending {
            let is_updated = update()?;
            were_pending = is_updated;
            is_updated || insert()?
        } else {
            let is_inserted = insert()?;
            were_pending = !is_inserted;
            is_inserted || update()?
        };
        if !is_sealed {
            return Err(StoreError::AlreadySealed);
        }
        *counts.entry(key_id).or_default() += 1;
    }
    let mut place = connection.prepare_cached("INSERT INTO key_blocks (key, height) VALUES (?1, ?2)")?;
    for key_id in counts.keys() {
        place.execute((keys.number(key_id)?, height))?;
    }
    count_transactions(connection, counts)
}
