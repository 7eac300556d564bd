//! Reads blocks of the best chain, and its tip.

use std::collections::{HashMap, VecDeque};

use liotbchain_core::{
    Bits, Block, BlockHash, Branch, Height, Root, TransactionId, Work,
    block::Header,
    chain::MEDIAN_BLOCKS,
    merkle::{Frontier, leaf_hash},
    rules,
    transaction::Transaction,
};
use tokio_postgres::Row;

use super::{
    fault::Failure,
    row::{block_hash, bytes32, column, content, corrupt, id, number, unsigned},
    session::Session,
};
use crate::{StoreError, StoredBlock, size_in_memory};

/// Headers asked for at once: 60 KiB.
const HEADERS_MAX: u32 = 256;

/// Transactions asked for at once: at most 16 MiB, and usually less than 100 KiB.
const TRANSACTIONS_MAX: i64 = 256;

/// The last block of the best chain, as its row says.
pub(super) struct Tip {
    pub hash: BlockHash,
    pub total_work: Work,
    pub header: Header,
}

impl Tip {
    pub fn read(row: &Row) -> Result<Self, StoreError> {
        let height = number(row, "height")?;
        let version: i32 = column(row, "version")?;
        if version != i32::from(Header::VERSION) {
            return Err(corrupt(height, format_args!("version {version}: expected {}", Header::VERSION)));
        }
        let header = Header {
            prev_block_hash: BlockHash(bytes32(row, "prev_block_hash")?),
            transactions_root: Root(bytes32(row, "transactions_root")?),
            history_root: Root(bytes32(row, "history_root")?),
            height,
            timestamp_ms: unsigned(row, "timestamp_ms")?,
            bits: Bits(number(row, "bits")?),
            nonce: number(row, "nonce")?,
        };
        Ok(Self {
            hash: block_hash(row)?,
            total_work: Work::from_be_bytes(bytes32(row, "total_work")?),
            header,
        })
    }

    /// Returns the best chain's last block.
    pub async fn load(session: &Session) -> Result<Option<Self>, Failure> {
        let sql = "SELECT * FROM liotbchain.blocks ORDER BY height DESC LIMIT 1";
        let rows = session.query(sql, &[]).await?;
        Ok(rows.first().map(Self::read).transpose()?)
    }

    /// Returns the best chain's block at a height.
    pub async fn load_at(session: &Session, height: Height) -> Result<Self, Failure> {
        let rows =
            session.query("SELECT * FROM liotbchain.blocks WHERE height = $1", &[&i64::from(height)]).await?;
        match rows.first() {
            Some(row) => Ok(Self::read(row)?),
            None => Err(corrupt(height, "it is missing").into()),
        }
    }
}

/// Returns the history tree's frontier over the first `size` blocks.
pub(super) async fn load_frontier(session: &Session, size: u64) -> Result<Frontier, Failure> {
    let places: Vec<_> = Frontier::places(size).collect();
    let levels: Vec<i32> = places.iter().map(|(level, _)| i32::from(*level)).collect();
    let indexes: Vec<i64> = places.iter().map(|(_, index)| index.cast_signed()).collect();
    let sql = "SELECT n.level, n.idx, n.hash
               FROM unnest($1::integer[], $2::bigint[]) AS p (level, idx)
               JOIN liotbchain.history_nodes n ON n.level = p.level AND n.idx = p.idx
               UNION ALL
               SELECT 0, b.height, b.hash
               FROM unnest($1::integer[], $2::bigint[]) AS p (level, idx)
               JOIN liotbchain.blocks b ON p.level = 0 AND b.height = p.idx";
    let rows = session.query(sql, &[&levels, &indexes]).await?;
    let mut nodes = HashMap::with_capacity(rows.len());
    for row in &rows {
        let (level, index): (i32, i64) = (column(row, "level")?, column(row, "idx")?);
        let bytes = bytes32(row, "hash")?;
        nodes.insert((level, index), if level == 0 { leaf_hash(&bytes) } else { bytes });
    }
    let frontier = Frontier::load(size, |level, index| {
        nodes.get(&(i32::from(level), index.cast_signed())).copied().ok_or_else(|| {
            StoreError::Corrupt(format!(
                "the history tree of {size} blocks lacks node {index} of level {level}"
            ))
        })
    });
    Ok(frontier?)
}

/// Returns the best chain as its tip knows it. The transaction must see one snapshot.
///
/// The tip's row is checked against itself and against the history tree: what a hash cannot be wrong about, and what the
/// next block is built on.
pub(super) async fn load_branch(session: &Session) -> Result<Option<Branch>, Failure> {
    let Some(tip) = Tip::load(session).await? else { return Ok(None) };
    let height = tip.header.height;
    let computed = tip.header.compute_hash();
    if computed != tip.hash {
        return Err(corrupt(
            height,
            format_args!("its header has the hash {computed}, its row says {}", tip.hash),
        )
        .into());
    }
    let sql = "SELECT height FROM liotbchain.transactions WHERE height > $1 ORDER BY height LIMIT 1";
    if let Some(row) = session.query(sql, &[&i64::from(height)]).await?.first() {
        let above: i64 = column(row, "height")?;
        let fault =
            format!("it is missing: its transactions are there, and the chain ends at block {height}");
        return Err(corrupt(above, fault).into());
    }
    let mut history = load_frontier(session, u64::from(height)).await?;
    if history.root() != tip.header.history_root {
        let (got, expected) = (tip.header.history_root, history.root());
        return Err(corrupt(
            height,
            format_args!("history_root is {got}: the history tree gives {expected}"),
        )
        .into());
    }
    history.append(leaf_hash(&tip.hash.0));

    let sql = "SELECT timestamp_ms FROM liotbchain.blocks WHERE height > $1 ORDER BY height";
    let rows = session.query(sql, &[&(i64::from(height) - MEDIAN_BLOCKS as i64)]).await?;
    let timestamps_ms: Vec<u64> =
        rows.iter().map(|row| unsigned(row, "timestamp_ms")).collect::<Result<_, _>>()?;
    if timestamps_ms.len() != MEDIAN_BLOCKS.min(height as usize + 1) {
        return Err(
            corrupt(height, format_args!("some of the last {MEDIAN_BLOCKS} blocks are missing")).into()
        );
    }

    let genesis =
        read_blocks(session, 0, 1, 0).await?.into_iter().next().ok_or_else(|| corrupt(0, "it is missing"))?;
    let stated = genesis.hash;
    let (genesis, rules) = rules::check_genesis(genesis.block).map_err(|error| corrupt(0, error))?;
    if genesis.hash() != stated {
        let fault = format!("its header has the hash {}, its row says {stated}", genesis.hash());
        return Err(corrupt(0, fault).into());
    }
    Ok(Some(Branch::load(rules, stated, tip.hash, height, history, timestamps_ms, tip.total_work)))
}

/// Returns blocks from a height upwards: at least one if there is any, at most `limit`, and none after `bytes` bytes of
/// payload. The transaction must see one snapshot, or hold the right to seal.
pub(super) async fn read_blocks(
    session: &Session,
    from: Height,
    limit: u32,
    bytes: usize,
) -> Result<Vec<StoredBlock>, Failure> {
    let sql = "SELECT * FROM liotbchain.blocks WHERE height >= $1 ORDER BY height LIMIT $2";
    let mut blocks = Vec::new();
    let mut bytes_read = 0;
    let mut next = i64::from(from);
    loop {
        let wanted = (limit - blocks.len() as u32).min(HEADERS_MAX);
        let rows = session.query(sql, &[&next, &i64::from(wanted)]).await?;
        let Some(last) = rows.last() else { return Ok(blocks) };
        let mut transactions = Transactions::new(session, next, column(last, "height")?);
        for row in &rows {
            let Tip { hash, total_work, header } = Tip::read(row)?;
            let (held, ids) = transactions.take(header.height).await?;
            bytes_read += held.iter().map(|it| size_in_memory(&it.content)).sum::<usize>();
            next = i64::from(header.height) + 1;
            blocks.push(StoredBlock { hash, total_work, block: Block { header, transactions: held }, ids });
            if bytes_read >= bytes {
                return Ok(blocks);
            }
        }
        if rows.len() < HEADERS_MAX as usize {
            return Ok(blocks);
        }
    }
}

/// Reads the transactions of a range of blocks in their order, some at a time.
struct Transactions<'a> {
    session: &'a Session,
    /// Where the last one stood that was read.
    after: (i64, i64),
    last_height: i64,
    waiting: VecDeque<Row>,
    at_end: bool,
}

impl<'a> Transactions<'a> {
    fn new(session: &'a Session, from: i64, last_height: i64) -> Self {
        Self { session, after: (from, -1), last_height, waiting: VecDeque::new(), at_end: false }
    }

    /// Returns the transactions of a block with their ids; heights must be asked for in their order.
    async fn take(
        &mut self,
        height: Height,
    ) -> Result<(Vec<Transaction>, Vec<Option<TransactionId>>), Failure> {
        let (mut held, mut ids) = (Vec::new(), Vec::new());
        loop {
            if self.waiting.is_empty() && !self.at_end {
                self.fetch().await?;
            }
            let Some(row) = self.waiting.front() else { return Ok((held, ids)) };
            let of: i64 = column(row, "height")?;
            if of > i64::from(height) {
                return Ok((held, ids));
            }
            if of < i64::from(height) {
                return Err(corrupt(of, "it has transactions, but no header").into());
            }
            let position: i64 = column(row, "position")?;
            if position != held.len() as i64 {
                let fault =
                    format_args!("a transaction stands at position {position}: expected {}", held.len());
                return Err(corrupt(height, fault).into());
            }
            let content = content(row).map_err(|error| match error {
                StoreError::Corrupt(fault) => {
                    corrupt(height, format_args!("transaction {position}: {fault}"))
                }
                other => other,
            })?;
            let transaction = Transaction { sequence: unsigned(row, "sequence")?, content };
            ids.push(transaction.statement().map(|_| id(row)).transpose()?);
            held.push(transaction);
            self.waiting.pop_front();
        }
    }

    async fn fetch(&mut self) -> Result<(), Failure> {
        let sql = "SELECT t.height, t.position, t.sequence, t.id, t.payload, t.signature, k.key_id
                   FROM liotbchain.transactions t LEFT JOIN liotbchain.keys k ON k.key = t.key
                   WHERE t.height IS NOT NULL AND (t.height, t.position) > ($1, $2) AND t.height <= $3
                   ORDER BY t.height, t.position LIMIT $4";
        let (height, position) = self.after;
        let rows =
            self.session.query(sql, &[&height, &position, &self.last_height, &TRANSACTIONS_MAX]).await?;
        if let Some(row) = rows.last() {
            self.after = (column(row, "height")?, column(row, "position")?);
        }
        self.at_end = (rows.len() as i64) < TRANSACTIONS_MAX;
        self.waiting = rows.into();
        Ok(())
    }
}
