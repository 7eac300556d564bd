//! What the rows say: blocks, the branch, transactions, keys.

use std::collections::{HashMap, hash_map::Entry};

use liotbchain_core::{
    Bits, Block, BlockHash, Branch, Header, Height, KeyId, PublicKey, Root, Statement, Transaction,
    TransactionId, Work,
    chain::MEDIAN_BLOCKS,
    merkle::{self, Frontier},
    rules,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};

use crate::{
    KnownKey, Pending, Place, Status, StoreError, StoredBlock, StoredTransaction, read_content,
    size_in_memory,
};

/// What a block's own row says.
struct BlockRow {
    hash: BlockHash,
    header: Header,
    total_work: Work,
}

/// The columns that [`BlockRow::read`] expects.
const BLOCK_COLUMNS: &str = "height, hash, version, prev_block_hash, transactions_root, history_root, timestamp_ms, bits, nonce, total_work";

impl BlockRow {
    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        let height = row.get(0)?;
        let version: i64 = row.get(2)?;
        if version != i64::from(Header::VERSION) {
            return Err(StoreError::Corrupt(format!("block {height} has version {version}")));
        }
        let header = Header {
            prev_block_hash: BlockHash(row.get(3)?),
            transactions_root: Root(row.get(4)?),
            history_root: Root(row.get(5)?),
            height,
            timestamp_ms: row.get::<_, i64>(6)?.cast_unsigned(),
            bits: Bits(row.get(7)?),
            nonce: row.get(8)?,
        };
        Ok(Self { hash: BlockHash(row.get(1)?), header, total_work: Work::from_be_bytes(row.get(9)?) })
    }

    /// Returns an error where the header is not the one that the hash stands for.
    fn check_hash(&self) -> Result<(), StoreError> {
        let computed = self.header.compute_hash();
        if self.hash != computed {
            let height = self.header.height;
            return Err(StoreError::Corrupt(format!(
                "block {height} has the hash {computed}, its row says {}",
                self.hash
            )));
        }
        Ok(())
    }
}

/// The last block of the best chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tip {
    pub(super) height: Height,
    pub(super) hash: BlockHash,
    pub(super) total_work: Work,
}

pub(super) fn tip(connection: &Connection) -> Result<Option<Tip>, StoreError> {
    let query = "SELECT height, hash, total_work FROM blocks ORDER BY height DESC LIMIT 1";
    let read = |row: &Row<'_>| {
        let total_work = Work::from_be_bytes(row.get(2)?);
        Ok(Tip { height: row.get(0)?, hash: BlockHash(row.get(1)?), total_work })
    };
    Ok(connection.prepare_cached(query)?.query_row([], read).optional()?)
}

/// Returns the frontier of the history tree over the blocks below `size`, of which `last` is the highest.
pub(super) fn frontier(connection: &Connection, size: u64, last: BlockHash) -> Result<Frontier, StoreError> {
    let mut node =
        connection.prepare_cached("SELECT hash FROM history_nodes WHERE level = ?1 AND idx = ?2")?;
    Frontier::load(size, |level, index| {
        if level == 0 {
            return Ok(merkle::leaf_hash(&last.0));
        }
        let hash = node.query_row((level, index.cast_signed()), |row| row.get(0)).optional()?;
        hash.ok_or_else(|| {
            StoreError::Corrupt(format!("node {index} of level {level} of the history tree is missing"))
        })
    })
}

/// Returns nodes of the history tree, the leaves with them, which follow from the blocks' hashes.
pub(super) fn history_nodes(
    connection: &Connection,
    places: &[(u8, u64)],
) -> Result<Vec<Option<[u8; 32]>>, StoreError> {
    let query = "SELECT idx, hash FROM history_nodes WHERE level = ?1 AND idx BETWEEN ?2 AND ?3";
    let mut inner = connection.prepare_cached(query)?;
    let mut leaves =
        connection.prepare_cached("SELECT height, hash FROM blocks WHERE height BETWEEN ?1 AND ?2")?;
    // In order, neighbours are read in one go, which takes a tenth of the time.
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_unstable_by_key(|place| places[*place]);
    let is_run = |one: &usize, next: &usize| {
        let ((level, index), next) = (places[*one], places[*next]);
        (level, index) == next || index.checked_add(1).is_some_and(|index| (level, index) == next)
    };
    let mut nodes = vec![None; places.len()];
    for run in order.chunk_by(is_run) {
        let ((level, first), (_, last)) = (places[run[0]], places[run[run.len() - 1]]);
        // No index is longer than 63 bits.
        let (Ok(first), Ok(last)) = (i64::try_from(first), i64::try_from(last)) else { continue };
        let mut rows = match level {
            0 => leaves.query((first, last))?,
            level => inner.query((level, first, last))?,
        };
        let mut wanted = run.iter().peekable();
        while let Some(row) = rows.next()? {
            let (index, hash): (i64, [u8; 32]) = (row.get(0)?, row.get(1)?);
            let hash = if level == 0 { merkle::leaf_hash(&hash) } else { hash };
            while wanted.next_if(|place| places[**place].1 < index.cast_unsigned()).is_some() {}
            while let Some(place) = wanted.next_if(|place| places[**place].1 == index.cast_unsigned()) {
                nodes[*place] = Some(hash);
            }
        }
    }
    Ok(nodes)
}

pub(super) fn key_heights(
    connection: &Connection,
    key_id: KeyId,
    from: Height,
    limit: u32,
) -> Result<Vec<Height>, StoreError> {
    let query = "SELECT height FROM key_blocks
                 WHERE key = (SELECT key FROM keys WHERE key_id = ?1) AND height >= ?2 ORDER BY height LIMIT ?3";
    let mut statement = connection.prepare_cached(query)?;
    let heights: Result<_, _> = statement.query_map((key_id.0, from, limit), |row| row.get(0))?.collect();
    Ok(heights?)
}

pub(super) fn key_height_below(
    connection: &Connection,
    key_id: KeyId,
    height: Height,
) -> Result<Option<Height>, StoreError> {
    let query = "SELECT height FROM key_blocks
                 WHERE key = (SELECT key FROM keys WHERE key_id = ?1) AND height < ?2 ORDER BY height DESC LIMIT 1";
    Ok(connection.prepare_cached(query)?.query_row((key_id.0, height), |row| row.get(0)).optional()?)
}

pub(super) fn branch(connection: &Connection) -> Result<Option<Branch>, StoreError> {
    let query = format!("SELECT {BLOCK_COLUMNS} FROM blocks ORDER BY height DESC LIMIT {MEDIAN_BLOCKS}");
    let mut statement = connection.prepare_cached(&query)?;
    let rows: Result<Vec<_>, _> = statement.query_and_then([], BlockRow::read)?.collect();
    let rows = rows?;
    let Some(tip) = rows.first() else { return Ok(None) };
    tip.check_hash()?;
    let height = tip.header.height;
    let above = "SELECT height FROM transactions WHERE height > ?1 ORDER BY height LIMIT 1";
    if let Some(above) =
        connection.prepare_cached(above)?.query_row([height], |row| row.get::<_, i64>(0)).optional()?
    {
        return Err(StoreError::Corrupt(format!(
            "block {above} is missing: its transactions are there, and the chain ends at block {height}"
        )));
    }
    let mut history = frontier(connection, u64::from(height), tip.header.prev_block_hash)?;
    if history.root() != tip.header.history_root {
        return Err(StoreError::Corrupt(format!(
            "the history tree below block {height} is not the one it names"
        )));
    }
    history.append(merkle::leaf_hash(&tip.hash.0));
    let genesis = block(connection, 0)?
        .ok_or_else(|| StoreError::Corrupt("the genesis block is missing".to_owned()))?;
    let genesis_hash = genesis.hash;
    let (checked, rules) = rules::check_genesis(genesis.block)
        .map_err(|error| StoreError::Corrupt(format!("block 0: {error}")))?;
    if checked.hash() != genesis_hash {
        return Err(StoreError::Corrupt(format!(
            "block 0 has the hash {}, its row says {genesis_hash}",
            checked.hash()
        )));
    }
    let timestamps_ms = rows.iter().rev().map(|row| row.header.timestamp_ms);
    Ok(Some(Branch::load(rules, genesis_hash, tip.hash, height, history, timestamps_ms, tip.total_work)))
}

pub(super) fn headers(connection: &Connection, from: Height, limit: u32) -> Result<Vec<Header>, StoreError> {
    let query = format!("SELECT {BLOCK_COLUMNS} FROM blocks WHERE height >= ?1 ORDER BY height LIMIT ?2");
    let mut statement = connection.prepare_cached(&query)?;
    statement.query_and_then((from, limit), BlockRow::read)?.map(|row| Ok(row?.header)).collect()
}

/// Reads a block whose header must be the one that its hash stands for.
pub(super) fn sound_block(connection: &Connection, height: Height) -> Result<Block, StoreError> {
    let stored = block(connection, height)?;
    let stored = stored.ok_or_else(|| StoreError::Corrupt(format!("block {height} is missing")))?;
    BlockRow { hash: stored.hash, header: stored.block.header.clone(), total_work: stored.total_work }
        .check_hash()?;
    Ok(stored.block)
}

fn block(connection: &Connection, height: Height) -> Result<Option<StoredBlock>, StoreError> {
    Ok(blocks(connection, height, 1, 0)?.pop().filter(|block| block.block.header.height == height))
}

pub(super) fn blocks(
    connection: &Connection,
    from: Height,
    limit: u32,
    bytes: usize,
) -> Result<Vec<StoredBlock>, StoreError> {
    let query = format!("SELECT {BLOCK_COLUMNS} FROM blocks WHERE height >= ?1 ORDER BY height LIMIT ?2");
    let mut statement = connection.prepare_cached(&query)?;
    // One walk along the index of places, beside that of the blocks. SQLite would prepare a query of one block anew for
    // each height, which took an eighth of a validation.
    let mut transactions = connection.prepare_cached(
        "SELECT height, sequence, key, id, payload, signature FROM transactions
         WHERE height >= ?1 ORDER BY height, position",
    )?;
    let mut keys = KeyIds::new(connection)?;
    let mut rows = statement.query((from, limit))?;
    let mut sealed = transactions.query([from])?;
    let mut ahead = sealed.next()?;
    let mut blocks: Vec<StoredBlock> = Vec::new();
    let mut bytes_read = 0;
    while let Some(row) = rows.next()? {
        let BlockRow { hash, header, total_work } = BlockRow::read(row)?;
        let like_before = blocks.last().map_or(0, |block| block.ids.len());
        let mut ids = Vec::with_capacity(like_before);
        let mut block = Block { header, transactions: Vec::with_capacity(like_before) };
        while let Some(row) = ahead {
            let height: i64 = row.get(0)?;
            if height > i64::from(block.header.height) {
                break;
            }
            // Those below belong to a block that is missing.
            if height == i64::from(block.header.height) {
                let key_id = keys.id(row.get(2)?)?;
                let content = read_content(key_id, row.get(4)?, row.get(5)?).map_err(|fault| {
                    StoreError::Corrupt(format!("block {height}: transaction {}: {fault}", ids.len()))
                })?;
                bytes_read += size_in_memory(&content);
                let sequence = row.get::<_, i64>(1)?.cast_unsigned();
                let transaction = Transaction { sequence, content };
                ids.push(match transaction.statement() {
                    Some(_) => Some(TransactionId(row.get(3)?)),
                    None => None,
                });
                block.transactions.push(transaction);
            }
            ahead = sealed.next()?;
        }
        blocks.push(StoredBlock { hash, total_work, block, ids });
        if bytes_read >= bytes {
            break;
        }
    }
    Ok(blocks)
}

/// The ids of keys, asked for once each: most blocks hold many transactions of one key, and a join looks each of them up.
struct KeyIds<'a> {
    query: CachedStatement<'a>,
    known: HashMap<i64, KeyId>,
    last: Option<(i64, KeyId)>,
}

impl<'a> KeyIds<'a> {
    fn new(connection: &'a Connection) -> Result<Self, StoreError> {
        let query = connection.prepare_cached("SELECT key_id FROM keys WHERE key = ?1")?;
        Ok(Self { query, known: HashMap::new(), last: None })
    }

    fn id(&mut self, key: i64) -> Result<KeyId, StoreError> {
        if let Some((last, key_id)) = self.last
            && last == key
        {
            return Ok(key_id);
        }
        let key_id = match self.known.entry(key) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) => {
                let key_id = self.query.query_row([key], |row| row.get(0)).optional()?;
                let missing =
                    || StoreError::Corrupt(format!("a transaction is of key {key}, which is not there"));
                *unknown.insert(KeyId(key_id.ok_or_else(missing)?))
            }
        };
        self.last = Some((key, key_id));
        Ok(key_id)
    }
}

/// Reads `key_id, payload, signature` from a column on.
fn read_statement(row: &Row<'_>, column: usize) -> rusqlite::Result<Statement> {
    Ok(Statement {
        key_id: KeyId(row.get(column)?),
        payload: row.get(column + 1)?,
        signature: row.get(column + 2)?,
    })
}

/// Finds transactions by their ids.
pub(super) struct StatusQuery<'a>(CachedStatement<'a>);

impl<'a> StatusQuery<'a> {
    pub(super) fn new(connection: &'a Connection) -> Result<Self, StoreError> {
        let query =
            "SELECT height, position, hash FROM transactions LEFT JOIN blocks USING (height) WHERE id = ?1";
        Ok(Self(connection.prepare_cached(query)?))
    }

    pub(super) fn status(&mut self, id: &TransactionId) -> Result<Option<Status>, StoreError> {
        let read = |row: &Row<'_>| {
            let Some(height) = row.get(0)? else { return Ok(Status::Pending) };
            Ok(Status::Sealed(Place { height, position: row.get(1)?, block_hash: BlockHash(row.get(2)?) }))
        };
        Ok(self.0.query_row([&id.0], read).optional()?)
    }
}

pub(super) fn look_up(
    connection: &Connection,
    ids: &[TransactionId],
) -> Result<Vec<Option<Status>>, StoreError> {
    let mut query = StatusQuery::new(connection)?;
    ids.iter().map(|id| query.status(id)).collect()
}

pub(super) fn ids(
    connection: &Connection,
    from: TransactionId,
    limit: u32,
) -> Result<Vec<TransactionId>, StoreError> {
    let mut query =
        connection.prepare_cached("SELECT id FROM transactions WHERE id >= ?1 ORDER BY id LIMIT ?2")?;
    let ids =
        query.query_map((&from.0, limit), |row| row.get(0).map(TransactionId))?.collect::<Result<_, _>>();
    Ok(ids?)
}

pub(super) fn pending(connection: &Connection, limit: u32) -> Result<Vec<Pending>, StoreError> {
    let query = "SELECT id, received_ms FROM transactions WHERE height IS NULL ORDER BY arrival LIMIT ?1";
    let read = |row: &Row<'_>| {
        Ok(Pending { id: TransactionId(row.get(0)?), received_ms: row.get::<_, i64>(1)?.cast_unsigned() })
    };
    Ok(connection.prepare_cached(query)?.query_map([limit], read)?.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn pending_count(connection: &Connection, limit: u64) -> Result<u64, StoreError> {
    let query = "SELECT count(*) FROM (SELECT 1 FROM transactions WHERE height IS NULL LIMIT ?1)";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(connection.prepare_cached(query)?.query_row([limit], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

pub(super) fn statements(
    connection: &Connection,
    ids: &[TransactionId],
) -> Result<HashMap<TransactionId, Statement>, StoreError> {
    // A row that waits and has no payload was tampered with: whoever wants to seal it must see it.
    let query = "SELECT key_id, payload, signature FROM transactions JOIN keys USING (key)
                 WHERE id = ?1 AND (payload <> '' OR height IS NULL)";
    let mut query = connection.prepare_cached(query)?;
    let mut found = HashMap::with_capacity(ids.len());
    for id in ids {
        if let Some(statement) = query.query_row([&id.0], |row| read_statement(row, 0)).optional()? {
            found.insert(*id, statement);
        }
    }
    Ok(found)
}

pub(super) fn transaction(
    connection: &Connection,
    id: TransactionId,
) -> Result<Option<StoredTransaction>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT height, position, hash, sequence, received_ms, key_id, payload, signature
         FROM transactions JOIN keys USING (key) LEFT JOIN blocks USING (height) WHERE id = ?1",
    )?;
    let read = |row: &Row<'_>| {
        let place = match row.get(0)? {
            Some(height) => Some(Place { height, position: row.get(1)?, block_hash: BlockHash(row.get(2)?) }),
            None => None,
        };
        let content = read_content(KeyId(row.get(5)?), row.get(6)?, row.get(7)?)
            .map_err(|fault| StoreError::Corrupt(format!("transaction {id}: {fault}")))?;
        Ok(StoredTransaction {
            content,
            received_ms: row.get::<_, i64>(4)?.cast_unsigned(),
            place,
            sequence: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
        })
    };
    let mut rows = query.query([&id.0])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn next_sequences(
    connection: &Connection,
    key_ids: &[KeyId],
) -> Result<HashMap<KeyId, u64>, StoreError> {
    let mut query = connection.prepare_cached("SELECT transactions FROM keys WHERE key_id = ?1")?;
    let mut next = |key_id: &KeyId| {
        let transactions: Option<i64> = query.query_row([&key_id.0], |row| row.get(0)).optional()?;
        Ok((*key_id, transactions.unwrap_or(0).cast_unsigned()))
    };
    key_ids.iter().map(&mut next).collect()
}

pub(super) fn public_keys(
    connection: &Connection,
    key_ids: &[KeyId],
) -> Result<HashMap<KeyId, PublicKey>, StoreError> {
    let mut query = connection.prepare_cached("SELECT spki FROM keys WHERE key_id = ?1")?;
    let mut found = HashMap::with_capacity(key_ids.len());
    for key_id in key_ids {
        let spki: Option<Option<Vec<u8>>> = query.query_row([&key_id.0], |row| row.get(0)).optional()?;
        let Some(spki) = spki.flatten() else { continue };
        found.insert(*key_id, read_key(*key_id, &spki)?);
    }
    Ok(found)
}

pub(super) fn keys(
    connection: &Connection,
    after: Option<KeyId>,
    limit: u32,
) -> Result<Vec<KnownKey>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT key_id, spki, transactions FROM keys WHERE key_id > ?1 AND spki IS NOT NULL ORDER BY key_id LIMIT ?2",
    )?;
    // No id is empty, so the first one stands behind the empty one.
    let after = after.as_ref().map_or(&[][..], |key_id| &key_id.0);
    let mut rows = query.query((after, limit))?;
    let mut known = Vec::new();
    while let Some(row) = rows.next()? {
        let spki: Vec<u8> = row.get(1)?;
        let public_key = read_key(KeyId(row.get(0)?), &spki)?;
        known.push(KnownKey { public_key, transactions: row.get::<_, i64>(2)?.cast_unsigned() });
    }
    Ok(known)
}

fn read_key(key_id: KeyId, spki: &[u8]) -> Result<PublicKey, StoreError> {
    let key = PublicKey::from_spki_der(spki)
        .map_err(|error| StoreError::Corrupt(format!("key {key_id}: {error}")))?;
    if key.key_id() != key_id {
        return Err(StoreError::Corrupt(format!("key {key_id} is stored as {}", key.key_id())));
    }
    Ok(key)
}

pub(super) fn height_of(connection: &Connection, hash: BlockHash) -> Result<Option<Height>, StoreError> {
    let mut query = connection.prepare_cached("SELECT height FROM blocks WHERE hash = ?1")?;
    Ok(query.query_row([&hash.0], |row| row.get(0)).optional()?)
}

pub(super) fn side_block(connection: &Connection, hash: BlockHash) -> Result<Option<Vec<u8>>, StoreError> {
    let mut query = connection.prepare_cached("SELECT bytes FROM side_blocks WHERE hash = ?1")?;
    Ok(query.query_row([&hash.0], |row| row.get(0)).optional()?)
}
