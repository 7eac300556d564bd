//! Moves the best chain: takes blocks off it, puts blocks on it, within one transaction.
//!
//! Locks are taken so that no two transactions wait for each other. The row of the right to seal comes first, so one
//! move runs at a time. Receivers that admit insert their rows in the order of their ids, and wait for nothing else; so
//! does a move with the transactions that have no row yet, before it changes any row that others may wait for.

use std::collections::{BTreeMap, HashSet};

use liotbchain_core::{
    BlockHash, CheckedBlock, Height, KeyId, TransactionId, Work, codec,
    merkle::{Frontier, leaf_hash},
    rules,
    transaction::{Content, Transaction},
};

use super::{
    admission::unknown_key,
    fault::Failure,
    reader::{Tip, load_frontier, read_blocks},
    row::{corrupt, id},
    session::{Parameters, Session},
};
use crate::{Right, StoreError, StoredBlock, columns, id_in_row};

/// Payload sent in one statement. PostgreSQL takes no value above 1 GiB, and an array of payloads is one.
const STATEMENT_BYTES_MAX: usize = 16 << 20;

/// A move of the best chain.
pub(super) struct Advance<'a> {
    /// The right to make it.
    pub(super) right: &'a Right,
    /// How many transactions may be pending before it, and from which place in the order of arrival on they are counted;
    /// none where any may.
    pub(super) pending: Option<(u32, i64)>,
    /// The tip that the caller knows.
    pub(super) expected_tip: BlockHash,
    /// How many blocks are taken off.
    pub(super) disconnect: u32,
    /// What is put on.
    pub(super) connect: &'a [CheckedBlock],
}

impl Advance<'_> {
    /// Locks the right to seal, and checks that it is held, and that no more waits than the caller knows of.
    async fn hold_right(&self, session: &Session) -> Result<(), Failure> {
        let (holder, epoch) = (&self.right.holder, self.right.epoch.cast_signed());
        let rows = match self.pending {
            None => {
                let sql = "SELECT holder = $1 AND epoch = $2 AND expires > clock_timestamp(), true
                           FROM liotbchain.seal_right WHERE singleton FOR UPDATE";
                session.query(sql, &[holder, &epoch]).await?
            }
            Some((pending, begin)) => {
                // In one statement, so that it costs no time on the way.
                let sql = "SELECT holder = $1 AND epoch = $2 AND expires > clock_timestamp(), NOT EXISTS (
                               SELECT FROM liotbchain.transactions WHERE height IS NULL AND arrival >= $4 OFFSET $3
                           )
                           FROM liotbchain.seal_right WHERE singleton FOR UPDATE";
                session.query(sql, &[holder, &epoch, &i64::from(pending), &begin]).await?
            }
        };
        let (is_held, is_all) = rows.first().map_or((false, false), |row| (row.get(0), row.get(1)));
        match self.pending {
            _ if !is_held => Err(StoreError::RightLost.into()),
            Some((expected, _)) if !is_all => Err(StoreError::MorePending { expected }.into()),
            _ => Ok(()),
        }
    }
}

/// Writes the first block.
pub(super) async fn create(session: &Session, genesis: &CheckedBlock) -> Result<(), Failure> {
    rules::check_genesis(genesis.as_block().clone()).map_err(|error| corrupt(0, error))?;
    session.query("SELECT epoch FROM liotbchain.seal_right WHERE singleton FOR UPDATE", &[]).await?;
    if Tip::load(session).await?.is_some() {
        return Err(StoreError::AlreadyCreated.into());
    }
    connect(session, Frontier::default(), Work::ZERO, std::slice::from_ref(genesis)).await
}

/// Moves the best chain. The caller begins and commits.
pub(super) async fn advance(session: &Session, advance: &Advance<'_>) -> Result<(), Failure> {
    advance.hold_right(session).await?;
    let Advance { expected_tip, disconnect, connect: blocks, .. } = *advance;
    let Some(mut tip) = Tip::load(session).await? else {
        return Err(StoreError::TipMoved { expected: expected_tip, got: BlockHash::ZERO }.into());
    };
    if tip.hash != expected_tip {
        return Err(StoreError::TipMoved { expected: expected_tip, got: tip.hash }.into());
    }
    if disconnect > 0 {
        let height = tip.header.height.checked_sub(disconnect).ok_or_else(|| StoreError::Config {
            problem: format!(
                "{disconnect} blocks cannot be taken off a chain of height {}",
                tip.header.height
            ),
            cure: "the genesis block stays: a chain from another one belongs in a store of its own"
                .to_owned(),
        })?;
        take_off(session, height).await?;
        tip = Tip::load_at(session, height).await?;
    }
    let Some(first) = blocks.first() else { return Ok(()) };
    check_links(&tip, blocks)?;
    let history = load_frontier(session, u64::from(tip.header.height) + 1).await?;
    if history.root() != first.header().history_root {
        let fault = "the history tree over it and all below is not that of the next block";
        return Err(corrupt(tip.header.height, fault).into());
    }
    connect(session, history, tip.total_work, blocks).await
}

fn check_links(tip: &Tip, blocks: &[CheckedBlock]) -> Result<(), StoreError> {
    let (mut height, mut below) = (Some(tip.header.height), tip.hash);
    for block in blocks {
        height = height.and_then(|height| height.checked_add(1));
        if Some(block.height()) != height || block.header().prev_block_hash != below {
            return Err(StoreError::Config {
                problem: format!("block {} does not follow on block {below}", block.hash()),
                cure: "give the blocks in chain order, from the block above the one that stays".to_owned(),
            });
        }
        below = block.hash();
    }
    Ok(())
}

/// Takes all blocks above a height off, and keeps them as side blocks.
async fn take_off(session: &Session, height: Height) -> Result<(), Failure> {
    let (mut counts, mut pruned) = (KeyCounts::default(), false);
    let mut next = height.checked_add(1);
    while let Some(from) = next {
        let blocks = read_blocks(session, from, u32::MAX, STATEMENT_BYTES_MAX).await?;
        next = blocks.last().and_then(|last| last.block.header.height.checked_add(1));
        for block in &blocks {
            let (height, transactions) = (block.block.header.height, &block.block.transactions);
            transactions.iter().for_each(|transaction| counts.add(height, transaction, -1));
        }
        pruned |= blocks.iter().any(|block| block.ids.contains(&None));
        keep_aside(session, &blocks).await?;
    }
    if pruned {
        let sql = "DELETE FROM liotbchain.transactions WHERE height > $1 AND octet_length(payload) = 0";
        session.execute(sql, &[&i64::from(height)]).await?;
    }
    let sql = "WITH undone AS (
                   UPDATE liotbchain.transactions SET height = NULL, position = NULL, sequence = NULL WHERE height > $1
               ), shortened AS (
                   DELETE FROM liotbchain.history_nodes n USING generate_series(1, 32) AS l (level)
                   WHERE n.level = l.level AND n.idx >= ($1 + 1) >> l.level
               )
               DELETE FROM liotbchain.blocks WHERE height > $1";
    session.execute(sql, &[&i64::from(height)]).await?;
    counts.write(session).await
}

async fn keep_aside(session: &Session, blocks: &[StoredBlock]) -> Result<(), Failure> {
    let mut bytes = Vec::with_capacity(blocks.len());
    for block in blocks {
        let height = block.block.header.height;
        if block.block.header.compute_hash() != block.hash {
            return Err(corrupt(height, "its header is not that of its hash").into());
        }
        bytes.push(codec::encode_kept_block(&block.block));
    }
    let hashes: Vec<&[u8]> = blocks.iter().map(|block| &block.hash.0[..]).collect();
    let parents: Vec<&[u8]> = blocks.iter().map(|block| &block.block.header.prev_block_hash.0[..]).collect();
    let heights: Vec<i64> = blocks.iter().map(|block| block.block.header.height.into()).collect();
    let sql = "INSERT INTO liotbchain.side_blocks (hash, prev_block_hash, height, bytes)
               SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bytea[])
               ON CONFLICT (hash) DO NOTHING";
    session.execute(sql, &[&hashes, &parents, &heights, &bytes]).await?;
    Ok(())
}

/// Puts blocks on a tip with this history and work below and with it.
async fn connect(
    session: &Session,
    history: Frontier,
    total_work: Work,
    blocks: &[CheckedBlock],
) -> Result<(), Failure> {
    seal(session, blocks).await?;
    insert_headers(session, history, total_work, blocks).await?;
    let mut counts = KeyCounts::default();
    for block in blocks {
        block.transactions().iter().for_each(|transaction| counts.add(block.height(), transaction, 1));
    }
    counts.write(session).await
}

/// A transaction with its place.
struct Sealed<'a> {
    id: TransactionId,
    transaction: &'a Transaction,
    received_ms: i64,
    height: i64,
    position: i64,
    sequence: i64,
}

fn sealed(blocks: &[CheckedBlock]) -> Result<Vec<Sealed<'_>>, StoreError> {
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    for block in blocks {
        for (position, (transaction, id)) in block.transactions().iter().zip(block.ids()).enumerate() {
            let id = id_in_row(transaction, *id);
            if !seen.insert(id) {
                return Err(StoreError::AlreadySealed);
            }
            all.push(Sealed {
                id,
                transaction,
                // When a transaction came that nobody admitted here is not known: the block came no earlier.
                received_ms: block.header().timestamp_ms.cast_signed(),
                height: block.height().into(),
                position: position as i64,
                sequence: transaction.sequence.cast_signed(),
            });
        }
    }
    Ok(all)
}

/// Gives the transactions of blocks their places, and inserts those that have no row yet.
async fn seal(session: &Session, blocks: &[CheckedBlock]) -> Result<(), Failure> {
    let all = sealed(blocks)?;
    let ids: Vec<&[u8]> = all.iter().map(|sealed| &sealed.id.0[..]).collect();
    // Rows are deleted only by who holds the right, so that those found here will still be there.
    let sql = "SELECT t.id FROM unnest($1::bytea[]) AS i (id) JOIN liotbchain.transactions t ON t.id = i.id";
    let rows = session.query(sql, &[&ids]).await?;
    let known = rows.iter().map(id).collect::<Result<HashSet<_>, _>>()?;
    let (known, new): (Vec<_>, Vec<_>) = all.iter().partition(|sealed| known.contains(&sealed.id));

    let mut changed = insert_sealed(session, &new).await?;
    if !known.is_empty() {
        let ids: Vec<&[u8]> = known.iter().map(|sealed| &sealed.id.0[..]).collect();
        let heights: Vec<i64> = known.iter().map(|sealed| sealed.height).collect();
        let positions: Vec<i64> = known.iter().map(|sealed| sealed.position).collect();
        let sequences: Vec<i64> = known.iter().map(|sealed| sealed.sequence).collect();
        let signatures: Vec<&[u8]> =
            known.iter().map(|sealed| columns(&sealed.transaction.content).1).collect();
        // The payload is the same, since the id is. The signature may be another one: the block's is what its root is of.
        let sql = "UPDATE liotbchain.transactions t
                   SET height = i.height, position = i.position, sequence = i.sequence, signature = i.signature
                   FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
                        AS i (id, height, position, sequence, signature)
                   WHERE t.id = i.id AND t.height IS NULL";
        changed += session.execute(sql, &[&ids, &heights, &positions, &sequences, &signatures]).await?;
    }
    if changed != all.len() as u64 {
        return Err(StoreError::AlreadySealed.into());
    }
    Ok(())
}

/// Inserts transactions that have no row yet; where another receiver admitted one meanwhile, its row gets the place.
async fn insert_sealed(session: &Session, new: &[&Sealed<'_>]) -> Result<u64, Failure> {
    if new.is_empty() {
        return Ok(0);
    }
    // They arrive in the order of the blocks, and are inserted in that of their ids.
    let sql = "SELECT nextval('liotbchain.transactions_arrival_seq') FROM generate_series(1, $1::bigint)";
    let rows = session.query(sql, &[&(new.len() as i64)]).await?;
    let mut new: Vec<_> = new.iter().zip(rows.iter().map(|row| row.get::<_, i64>(0))).collect();
    new.sort_unstable_by_key(|(sealed, _)| sealed.id);

    let sql = "INSERT INTO liotbchain.transactions
                   (arrival, id, key, received_ms, payload, signature, height, position, sequence)
               SELECT i.arrival, i.id, k.key, i.received_ms, i.payload, i.signature, i.height, i.position, i.sequence
               FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bytea[],
                           $7::bigint[], $8::bigint[], $9::bigint[])
                    AS i (arrival, id, key_id, received_ms, payload, signature, height, position, sequence)
               LEFT JOIN liotbchain.keys k ON k.key_id = i.key_id
               ORDER BY i.id
               ON CONFLICT (id) DO UPDATE
               SET height = EXCLUDED.height, position = EXCLUDED.position, sequence = EXCLUDED.sequence,
                   signature = EXCLUDED.signature
               WHERE transactions.height IS NULL";
    let mut changed = 0;
    let mut rest = &new[..];
    while !rest.is_empty() {
        let (part, after) =
            rest.split_at(count_fitting(rest.iter().map(|(sealed, _)| &sealed.transaction.content)));
        rest = after;
        let arrivals: Vec<i64> = part.iter().map(|(_, arrival)| *arrival).collect();
        let ids: Vec<&[u8]> = part.iter().map(|(sealed, _)| &sealed.id.0[..]).collect();
        let key_ids: Vec<KeyId> = part.iter().map(|(sealed, _)| sealed.transaction.key_id()).collect();
        let key_ids: Vec<&[u8]> = key_ids.iter().map(|key_id| &key_id.0[..]).collect();
        let received_ms: Vec<i64> = part.iter().map(|(sealed, _)| sealed.received_ms).collect();
        let payloads: Vec<&[u8]> =
            part.iter().map(|(sealed, _)| columns(&sealed.transaction.content).0.as_bytes()).collect();
        let signatures: Vec<&[u8]> =
            part.iter().map(|(sealed, _)| columns(&sealed.transaction.content).1).collect();
        let heights: Vec<i64> = part.iter().map(|(sealed, _)| sealed.height).collect();
        let positions: Vec<i64> = part.iter().map(|(sealed, _)| sealed.position).collect();
        let sequences: Vec<i64> = part.iter().map(|(sealed, _)| sealed.sequence).collect();
        let parameters: Parameters<'_> = &[
            &arrivals,
            &ids,
            &key_ids,
            &received_ms,
            &payloads,
            &signatures,
            &heights,
            &positions,
            &sequences,
        ];
        changed += session.execute(sql, parameters).await.map_err(unknown_key)?;
    }
    Ok(changed)
}

/// Returns how many statements go into one SQL statement: as many as are not too long together, and at least one.
fn count_fitting<'a>(contents: impl Iterator<Item = &'a Content>) -> usize {
    let mut bytes = 0;
    let fitting = contents.take_while(|content| {
        let (payload, signature) = columns(content);
        bytes += payload.len() + signature.len();
        bytes <= STATEMENT_BYTES_MAX
    });
    fitting.count().max(1)
}

/// Inserts the headers with the nodes that they complete, and forgets that some of them were side blocks.
async fn insert_headers(
    session: &Session,
    mut history: Frontier,
    mut total_work: Work,
    blocks: &[CheckedBlock],
) -> Result<(), Failure> {
    let mut works = Vec::with_capacity(blocks.len());
    let (mut levels, mut indexes, mut nodes) = (Vec::<i32>::new(), Vec::<i64>::new(), Vec::<[u8; 32]>::new());
    for block in blocks {
        total_work = total_work.saturating_add(block.work());
        works.push(total_work.to_be_bytes());
        for node in history.append(leaf_hash(&block.hash().0)).into_iter().filter(|node| node.level > 0) {
            levels.push(node.level.into());
            indexes.push(node.index.cast_signed());
            nodes.push(node.hash);
        }
    }
    let works: Vec<&[u8]> = works.iter().map(|work| &work[..]).collect();
    let nodes: Vec<&[u8]> = nodes.iter().map(|node| &node[..]).collect();
    let hashes: Vec<[u8; 32]> = blocks.iter().map(|block| block.hash().0).collect();
    let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash[..]).collect();
    let numbers = |number: fn(&CheckedBlock) -> i64| blocks.iter().map(number).collect::<Vec<_>>();
    let roots = |root: fn(&CheckedBlock) -> &[u8]| blocks.iter().map(root).collect::<Vec<_>>();
    let sql = "WITH completed AS (
                   INSERT INTO liotbchain.history_nodes (level, idx, hash)
                   SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bytea[])
               ), back AS (
                   DELETE FROM liotbchain.side_blocks s USING unnest($4::bytea[]) AS i (hash) WHERE s.hash = i.hash
               )
               INSERT INTO liotbchain.blocks
                   (hash, height, timestamp_ms, bits, nonce, prev_block_hash, transactions_root, history_root,
                    total_work, version)
               SELECT *, 1
               FROM unnest($4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[],
                           $10::bytea[], $11::bytea[], $12::bytea[])";
    session
        .execute(
            sql,
            &[
                &levels,
                &indexes,
                &nodes,
                &hashes,
                &numbers(|block| block.height().into()),
                &numbers(|block| block.header().timestamp_ms.cast_signed()),
                &numbers(|block| block.header().bits.0.into()),
                &numbers(|block| block.header().nonce.into()),
                &roots(|block| &block.header().prev_block_hash.0),
                &roots(|block| &block.header().transactions_root.0),
                &roots(|block| &block.header().history_root.0),
                &works,
            ],
        )
        .await?;
    Ok(())
}

/// How many transactions of each key a move puts on the chain, or takes off it, and of which blocks.
#[derive(Default)]
struct KeyCounts {
    numbers: BTreeMap<KeyId, i64>,
    /// One a key and block, those to forget with false.
    blocks: BTreeMap<(KeyId, Height), bool>,
}

impl KeyCounts {
    fn add(&mut self, height: Height, transaction: &Transaction, number: i64) {
        let key_id = transaction.key_id();
        *self.numbers.entry(key_id).or_default() += number;
        self.blocks.insert((key_id, height), number > 0);
    }

    async fn write(&self, session: &Session) -> Result<(), Failure> {
        let key_ids: Vec<&[u8]> = self.numbers.keys().map(|key_id| &key_id.0[..]).collect();
        let numbers: Vec<i64> = self.numbers.values().copied().collect();
        let in_blocks: Vec<&[u8]> = self.blocks.keys().map(|(key_id, _)| &key_id.0[..]).collect();
        let heights: Vec<i64> = self.blocks.keys().map(|(_, height)| i64::from(*height)).collect();
        let is_new: Vec<bool> = self.blocks.values().copied().collect();
        let sql = "WITH places AS (
                       SELECT k.key, i.height, i.is_new
                       FROM unnest($3::bytea[], $4::bigint[], $5::boolean[]) AS i (key_id, height, is_new)
                       JOIN liotbchain.keys k ON k.key_id = i.key_id
                   ), new AS (
                       INSERT INTO liotbchain.key_blocks (key, height) SELECT key, height FROM places WHERE is_new
                   ), gone AS (
                       DELETE FROM liotbchain.key_blocks b USING places p
                       WHERE NOT p.is_new AND b.key = p.key AND b.height = p.height
                   )
                   UPDATE liotbchain.keys k SET transactions = k.transactions + i.number
                   FROM unnest($1::bytea[], $2::bigint[]) AS i (key_id, number) WHERE k.key_id = i.key_id";
        session.execute(sql, &[&key_ids, &numbers, &in_blocks, &heights, &is_new]).await?;
        Ok(())
    }
}
