//! A chain in PostgreSQL 13 or later, which several receivers may share.
//!
//! **What is safe when.** Every statement runs at READ COMMITTED, and commits are durable before they are acknowledged: a
//! server that is set otherwise is refused when a connection is made. An operation that failed before its COMMIT was sent
//! is [`StoreError::Unavailable`]; one that failed or took too long after is [`StoreError::CommitUnknown`]. Nothing waits
//! longer than [`OpenOptions::timeout`], here and at the server.
//!
//! **Connections** come from a pool. One on which anything went wrong is closed and not used again, so the pool recovers
//! by itself when the server is back. A pooler between this program and the server must keep sessions (PgBouncer's
//! `pool_mode = session`).
//!
//! **Addresses** are a URL or libpq's `key=value` pairs, with several hosts where a standby may take over; the one that
//! can be written is used. A password that is not in it is taken from `PGPASSWORD` or the password file. `sslmode=require` takes only a server whose certificate names this host and leads to a root
//! that the operating system trusts (or `SSL_CERT_FILE` names); `prefer`, the default, encrypts where it can and verifies
//! nothing; `disable` does neither.

mod address;
mod admission;
mod advance;
mod channel;
mod connection;
mod connector;
mod fault;
mod front;
mod password;
mod prune;
mod reader;
mod row;
mod schema;
mod session;
mod tls;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    time::Duration,
};

use async_trait::async_trait;
use deadpool::managed::Pool;
use liotbchain_core::{
    BlockHash, Branch, CheckedBlock, Header, Height, KeyId, PublicKey, Statement, TimestampMs, TransactionId,
    merkle,
};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;

use self::{
    address::Address,
    advance::Advance,
    channel::Channel,
    connector::Connector,
    fault::Failure,
    front::Front,
    password::Passwords,
    session::{Parameters, Session, deadline},
};
use crate::{
    Admitted, KnownKey, NewTransaction, OpenOptions, Pending, Place, PruneStep, Right, Status, Store,
    StoreError, StoredBlock, StoredTransaction,
};

/// Connections of one store: what keeps a small server busy, and leaves room for others under the usual limit of 100.
const CONNECTIONS_MAX: usize = 8;

/// How often a transaction is tried that others got in the way of.
const ATTEMPTS_MAX: u32 = 5;

/// The longest that anybody may hold the right to seal: a year. PostgreSQL's calendar ends.
const RIGHT_TTL_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A chain in PostgreSQL, in the schema `liotbchain`.
pub struct PostgresStore {
    pool: Pool<Connector>,
    channel: Channel,
    front: Front,
    timeout: Duration,
    notice: Option<String>,
}

impl PostgresStore {
    /// Connects, checks the server, and makes the tables or brings them to the newest format.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] where the server cannot be reached; [`StoreError::Config`] where the address, the login
    /// or the server's settings must be changed; [`StoreError::Newer`].
    pub async fn open(database_url: &str, options: &OpenOptions) -> Result<Self, StoreError> {
        let address = Address::parse(database_url, &Passwords::load(), options.timeout)?;
        let connector = Connector::new(address, options)?;
        let pool = Pool::builder(connector).max_size(CONNECTIONS_MAX).build();
        let pool = pool.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let channel = Channel::new(pool.clone(), options.timeout);
        let front = Front::default();
        let mut store = Self { pool, channel, front, timeout: options.timeout, notice: None };
        let session = store.session().await?;
        match schema::migrate(&session).await {
            Ok(()) => session.commit().await?,
            Err(failure) => {
                session.roll_back().await;
                return Err(failure.into());
            }
        }
        let session = store.session().await?;
        store.notice = schema::find_original(&session).await?;
        session.finish();
        Ok(store)
    }

    async fn session(&self) -> Result<Session, StoreError> {
        Session::open(&self.pool, deadline(self.timeout)).await
    }

    /// Runs one statement that changes nothing.
    async fn read(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        let session = self.session().await?;
        let rows = session.query(sql, parameters).await?;
        session.finish();
        Ok(rows)
    }

    /// Runs one statement that commits by itself.
    async fn write(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        let until = deadline(self.timeout);
        Ok(self.write_until(until, sql, parameters).await?)
    }

    /// Runs one statement that commits by itself, again where another transaction got in its way.
    async fn write_until(
        &self,
        until: Instant,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let session = Session::open(&self.pool, until).await?;
        session.settle().await?;
        let mut attempt = 1;
        loop {
            match session.write(sql, parameters).await {
                Ok(rows) => {
                    session.finish();
                    return Ok(rows);
                }
                Err(fault) if attempt < ATTEMPTS_MAX && (fault.is_conflict() || fault.is_key_missing()) => {
                    attempt += 1
                }
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// Returns the status of each id of a list that is known, to be acknowledged. What was not committed here, or is in
    /// doubt, is confirmed by the standby first.
    async fn statuses(
        &self,
        until: Instant,
        ids: &[&[u8]],
        confirm: bool,
    ) -> Result<HashMap<TransactionId, Status>, Failure> {
        let sql = "SELECT t.id, t.height, t.position, b.hash
                   FROM unnest($1::bytea[]) AS i (id)
                   JOIN liotbchain.transactions t ON t.id = i.id
                   LEFT JOIN liotbchain.blocks b ON b.height = t.height";
        let session = Session::open(&self.pool, until).await?;
        let rows = session.query(sql, &[&ids]).await?;
        match confirm {
            true => session.confirm().await?,
            false => session.settle().await?,
        }
        session.finish();
        let mut statuses = HashMap::with_capacity(rows.len());
        for row in &rows {
            statuses.insert(row::id(row)?, status(row)?);
        }
        Ok(statuses)
    }
}

fn status(row: &Row) -> Result<Status, StoreError> {
    if row::column::<Option<i64>>(row, "height")?.is_none() {
        return Ok(Status::Pending);
    }
    let height = row::number(row, "height")?;
    if row::column::<Option<&[u8]>>(row, "hash")?.is_none() {
        return Err(row::corrupt(height, "it has transactions, but no header"));
    }
    Ok(Status::Sealed(Place {
        height,
        position: row::number(row, "position")?,
        block_hash: row::block_hash(row)?,
    }))
}

impl PostgresStore {
    /// Moves the best chain, again where another transaction was in the way.
    async fn advance(&self, advance: &Advance<'_>) -> Result<(), StoreError> {
        let until = deadline(self.timeout);
        let mut attempt = 1;
        loop {
            let session = Session::open(&self.pool, until).await?;
            session.settle().await?;
            session.begin().await?;
            match advance::advance(&session, advance).await {
                Ok(()) => {
                    let committed = session.commit().await;
                    if advance.disconnect > 0 {
                        self.front.forget();
                    }
                    committed?;
                    self.channel.announce();
                    return Ok(());
                }
                Err(Failure::Fault(fault)) if attempt < ATTEMPTS_MAX && fault.is_conflict() => attempt += 1,
                Err(Failure::Fault(fault)) => return Err(fault.into()),
                Err(Failure::Refused(error)) => {
                    session.roll_back().await;
                    return Err(error);
                }
            }
        }
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn location(&self) -> String {
        self.pool.manager().location().to_owned()
    }

    fn notice(&self) -> Option<String> {
        self.notice.clone()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read("SELECT 1", &[]).await.map(drop)
    }

    async fn create(&self, genesis: &CheckedBlock) -> Result<(), StoreError> {
        let session = self.session().await?;
        session.begin().await?;
        match advance::create(&session, genesis).await {
            Ok(()) => Ok(session.commit().await?),
            Err(failure) => {
                session.roll_back().await;
                Err(failure.into())
            }
        }
    }

    async fn branch(&self) -> Result<Option<Branch>, StoreError> {
        let session = self.session().await?;
        session.begin_snapshot().await?;
        let branch = reader::load_branch(&session).await?;
        session.batch("ROLLBACK").await?;
        session.settle().await?;
        session.finish();
        Ok(branch)
    }

    async fn admit(
        &self,
        transactions: &[NewTransaction],
        now_ms: TimestampMs,
    ) -> Result<Admitted, StoreError> {
        let admitted = admission::admit(self, transactions, now_ms).await?;
        if admitted.new > 0 {
            self.channel.announce();
        }
        Ok(admitted)
    }

    async fn look_up(&self, ids: &[TransactionId]) -> Result<Vec<Option<Status>>, StoreError> {
        let list: Vec<&[u8]> = ids.iter().map(|id| &id.0[..]).collect();
        let statuses = self.statuses(deadline(self.timeout), &list, false).await?;
        Ok(ids.iter().map(|id| statuses.get(id).copied()).collect())
    }

    async fn ids(&self, from: TransactionId, limit: u32) -> Result<Vec<TransactionId>, StoreError> {
        let sql = "SELECT id FROM liotbchain.transactions WHERE id >= $1 ORDER BY id LIMIT $2";
        self.read(sql, &[&from.0.as_slice(), &i64::from(limit)]).await?.iter().map(row::id).collect()
    }

    async fn pending(&self, limit: u32) -> Result<Vec<Pending>, StoreError> {
        let sql = "SELECT arrival, id, received_ms FROM liotbchain.transactions
                   WHERE height IS NULL AND arrival >= $2 ORDER BY arrival LIMIT $1";
        let begin = self.front.begin_list(std::time::Instant::now());
        let rows = self.read(sql, &[&i64::from(limit), &begin]).await?;
        if let Some(oldest) = rows.first() {
            self.front.found(row::column(oldest, "arrival")?);
        }
        let pending =
            |row| Ok(Pending { id: row::id(row)?, received_ms: row::unsigned(row, "received_ms")? });
        rows.iter().map(pending).collect()
    }

    async fn pending_count(&self, limit: u64) -> Result<u64, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT count(*) FROM (
                       SELECT FROM liotbchain.transactions WHERE height IS NULL AND arrival >= $2 LIMIT $1
                   ) AS waiting";
        let begin = self.front.begin_count(std::time::Instant::now());
        let rows = self.read(sql, &[&limit, &begin]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()))
    }

    async fn statements(
        &self,
        ids: &[TransactionId],
    ) -> Result<HashMap<TransactionId, Statement>, StoreError> {
        let list: Vec<&[u8]> = ids.iter().map(|id| &id.0[..]).collect();
        let sql = "SELECT t.id, t.payload, t.signature, k.key_id
                   FROM unnest($1::bytea[]) AS i (id)
                   JOIN liotbchain.transactions t ON t.id = i.id
                   LEFT JOIN liotbchain.keys k ON k.key = t.key
                   WHERE octet_length(t.payload) > 0 OR t.height IS NULL";
        let rows = self.read(sql, &[&list]).await?;
        rows.iter().map(|row| Ok((row::id(row)?, row::statement(row)?))).collect()
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<StoredTransaction>, StoreError> {
        let sql =
            "SELECT t.height, t.position, t.sequence, t.received_ms, t.payload, t.signature, k.key_id, b.hash
                   FROM liotbchain.transactions t LEFT JOIN liotbchain.keys k ON k.key = t.key
                   LEFT JOIN liotbchain.blocks b ON b.height = t.height WHERE t.id = $1";
        let rows = self.read(sql, &[&&id.0[..]]).await?;
        rows.first().map(stored_transaction).transpose()
    }

    async fn next_sequences(&self, key_ids: &[KeyId]) -> Result<HashMap<KeyId, u64>, StoreError> {
        let list: Vec<&[u8]> = key_ids.iter().map(|key_id| &key_id.0[..]).collect();
        let sql = "SELECT k.key_id, k.transactions
                   FROM unnest($1::bytea[]) AS i (key_id) JOIN liotbchain.keys k ON k.key_id = i.key_id";
        let rows = self.read(sql, &[&list]).await?;
        let mut next: HashMap<KeyId, u64> = key_ids.iter().map(|key_id| (*key_id, 0)).collect();
        for row in &rows {
            next.insert(row::key_id(row)?, row::unsigned(row, "transactions")?);
        }
        Ok(next)
    }

    async fn public_keys(&self, key_ids: &[KeyId]) -> Result<HashMap<KeyId, PublicKey>, StoreError> {
        let list: Vec<&[u8]> = key_ids.iter().map(|key_id| &key_id.0[..]).collect();
        let sql = "SELECT k.key_id, k.spki FROM unnest($1::bytea[]) AS i (key_id)
                   JOIN liotbchain.keys k ON k.key_id = i.key_id WHERE k.spki IS NOT NULL";
        let rows = self.read(sql, &[&list]).await?;
        rows.iter().map(public_key).collect()
    }

    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Vec<KnownKey>, StoreError> {
        let sql = "SELECT key_id, spki, transactions FROM liotbchain.keys
                   WHERE key_id > $1 AND spki IS NOT NULL ORDER BY key_id LIMIT $2";
        // No id is empty, so the first one stands behind the empty one.
        let after = after.as_ref().map_or(&[][..], |key_id| &key_id.0);
        let rows = self.read(sql, &[&after, &i64::from(limit)]).await?;
        let known = |row| {
            let (_, public_key) = public_key(row)?;
            Ok(KnownKey { public_key, transactions: row::unsigned(row, "transactions")? })
        };
        rows.iter().map(known).collect()
    }

    async fn add_keys(&self, keys: &[PublicKey]) -> Result<(), StoreError> {
        let keys: BTreeMap<KeyId, &PublicKey> = keys.iter().map(|key| (key.key_id(), key)).collect();
        let key_ids: Vec<&[u8]> = keys.keys().map(|key_id| &key_id.0[..]).collect();
        let spkis: Vec<&[u8]> = keys.values().map(|key| key.spki_der()).collect();
        let sql = "INSERT INTO liotbchain.keys (key_id, spki)
                   SELECT n.key_id, n.spki FROM unnest($1::bytea[], $2::bytea[]) AS n (key_id, spki)
                   WHERE NOT EXISTS (SELECT FROM liotbchain.keys k WHERE k.key_id = n.key_id)
                   ORDER BY n.key_id
                   ON CONFLICT (key_id) DO NOTHING";
        self.write(sql, &[&key_ids, &spkis]).await.map(drop)
    }

    async fn acquire_right(&self, holder: &str, ttl: Duration) -> Result<Option<Right>, StoreError> {
        let sql = "UPDATE liotbchain.seal_right
                   SET holder = $1, epoch = epoch + 1, expires = clock_timestamp() + $2 * interval '1 second'
                   WHERE singleton AND (holder IS NULL OR holder = $1 OR expires <= clock_timestamp())
                   RETURNING epoch";
        let rows = self.write(sql, &[&holder, &seconds(ttl)]).await?;
        let right =
            |row: &Row| Right { holder: holder.to_owned(), epoch: row.get::<_, i64>(0).cast_unsigned() };
        Ok(rows.first().map(right))
    }

    async fn renew_right(&self, right: &Right, ttl: Duration) -> Result<(), StoreError> {
        let sql = "UPDATE liotbchain.seal_right SET expires = clock_timestamp() + $3 * interval '1 second'
                   WHERE singleton AND holder = $1 AND epoch = $2 RETURNING epoch";
        let rows = self.write(sql, &[&right.holder, &right.epoch.cast_signed(), &seconds(ttl)]).await?;
        if rows.is_empty() { Err(StoreError::RightLost) } else { Ok(()) }
    }

    async fn release_right(&self, right: &Right) -> Result<(), StoreError> {
        let sql = "UPDATE liotbchain.seal_right SET holder = NULL, expires = '-infinity'
                   WHERE singleton AND holder = $1 AND epoch = $2";
        self.write(sql, &[&right.holder, &right.epoch.cast_signed()]).await?;
        self.channel.announce();
        Ok(())
    }

    async fn commit(
        &self,
        right: &Right,
        expected_tip: BlockHash,
        disconnect: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError> {
        self.advance(&Advance { right, pending: None, expected_tip, disconnect, connect }).await
    }

    async fn commit_all(
        &self,
        right: &Right,
        expected_tip: BlockHash,
        pending: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError> {
        let pending = Some((pending, self.front.begin_count(std::time::Instant::now())));
        self.advance(&Advance { right, pending, expected_tip, disconnect: 0, connect }).await
    }

    async fn blocks(&self, from: Height, limit: u32, bytes: usize) -> Result<Vec<StoredBlock>, StoreError> {
        let session = self.session().await?;
        session.begin_snapshot().await?;
        let blocks = reader::read_blocks(&session, from, limit, bytes).await?;
        session.roll_back().await;
        Ok(blocks)
    }

    async fn headers(&self, from: Height, limit: u32) -> Result<Vec<Header>, StoreError> {
        let sql = "SELECT * FROM liotbchain.blocks WHERE height >= $1 ORDER BY height LIMIT $2";
        let rows = self.read(sql, &[&i64::from(from), &i64::from(limit)]).await?;
        rows.iter().map(|row| Ok(reader::Tip::read(row)?.header)).collect()
    }

    async fn height_of(&self, hash: BlockHash) -> Result<Option<Height>, StoreError> {
        let rows = self.read("SELECT height FROM liotbchain.blocks WHERE hash = $1", &[&&hash.0[..]]).await?;
        rows.first().map(|row| row::number(row, "height")).transpose()
    }

    async fn history_nodes(&self, places: &[(u8, u64)]) -> Result<Vec<Option<[u8; 32]>>, StoreError> {
        let levels: Vec<i32> = places.iter().map(|(level, _)| i32::from(*level)).collect();
        // No index is longer than 63 bits: -1 finds nothing.
        let indexes: Vec<i64> = places.iter().map(|(_, index)| i64::try_from(*index).unwrap_or(-1)).collect();
        let sql = "SELECT p.level, coalesce(n.hash, b.hash) AS hash
                   FROM unnest($1::integer[], $2::bigint[]) WITH ORDINALITY AS p (level, idx, place)
                   LEFT JOIN liotbchain.history_nodes n ON n.level = p.level AND n.idx = p.idx
                   LEFT JOIN liotbchain.blocks b ON p.level = 0 AND b.height = p.idx
                   ORDER BY p.place";
        let rows = self.read(sql, &[&levels, &indexes]).await?;
        let node = |row: &Row| {
            if row::column::<Option<&[u8]>>(row, "hash")?.is_none() {
                return Ok(None);
            }
            let hash = row::bytes32(row, "hash")?;
            let is_leaf = row::column::<i32>(row, "level")? == 0;
            Ok(Some(if is_leaf { merkle::leaf_hash(&hash) } else { hash }))
        };
        rows.iter().map(node).collect()
    }

    async fn key_heights(&self, key_id: KeyId, from: Height, limit: u32) -> Result<Vec<Height>, StoreError> {
        let sql = "SELECT height FROM liotbchain.key_blocks
                   WHERE key = (SELECT key FROM liotbchain.keys WHERE key_id = $1) AND height >= $2
                   ORDER BY height LIMIT $3";
        let rows = self.read(sql, &[&&key_id.0[..], &i64::from(from), &i64::from(limit)]).await?;
        rows.iter().map(|row| row::number(row, "height")).collect()
    }

    async fn key_height_below(&self, key_id: KeyId, height: Height) -> Result<Option<Height>, StoreError> {
        let sql = "SELECT height FROM liotbchain.key_blocks
                   WHERE key = (SELECT key FROM liotbchain.keys WHERE key_id = $1) AND height < $2
                   ORDER BY height DESC LIMIT 1";
        let rows = self.read(sql, &[&&key_id.0[..], &i64::from(height)]).await?;
        rows.first().map(|row| row::number(row, "height")).transpose()
    }

    async fn side_block(&self, hash: BlockHash) -> Result<Option<Vec<u8>>, StoreError> {
        let rows =
            self.read("SELECT bytes FROM liotbchain.side_blocks WHERE hash = $1", &[&&hash.0[..]]).await?;
        rows.first().map(|row| row::column(row, "bytes")).transpose()
    }

    async fn prunable(
        &self,
        key_id: KeyId,
        heights: Range<Height>,
        limit: u32,
    ) -> Result<PruneStep, StoreError> {
        prune::prunable(self, &key_id, heights, limit).await
    }

    async fn prune(
        &self,
        key_id: KeyId,
        heights: Range<Height>,
        limit: u32,
    ) -> Result<PruneStep, StoreError> {
        prune::prune(self, &key_id, heights, limit).await
    }

    async fn prune_side_blocks(&self, key_id: KeyId, below: Height) -> Result<u64, StoreError> {
        prune::prune_side_blocks(self, &key_id, below).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        prune::size(self).await
    }

    async fn compact(&self, full: bool) -> Result<(), StoreError> {
        prune::compact(self, full).await
    }

    async fn changed(&self) {
        self.channel.changed().await;
    }

    async fn close(&self) {
        self.channel.close().await;
        self.pool.close();
        // A connection in use is closed when its operation ends, which it does by its deadline.
        let until = deadline(self.timeout);
        let emptied = async {
            while self.pool.status().size > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout_at(until, emptied).await.is_err() {
            tracing::warn!("closing PostgreSQL while an operation is not ended");
        }
    }
}

fn stored_transaction(row: &Row) -> Result<StoredTransaction, StoreError> {
    let (place, sequence) = match status(row)? {
        Status::Pending => (None, None),
        Status::Sealed(place) => (Some(place), Some(row::unsigned(row, "sequence")?)),
    };
    let (content, received_ms) = (row::content(row)?, row::unsigned(row, "received_ms")?);
    Ok(StoredTransaction { content, received_ms, place, sequence })
}

fn public_key(row: &Row) -> Result<(KeyId, PublicKey), StoreError> {
    let key_id = row::key_id(row)?;
    let key = PublicKey::from_spki_der(row::column(row, "spki")?)
        .map_err(|error| StoreError::Corrupt(format!("the public key {key_id}: {error}")))?;
    if key.key_id() != key_id {
        return Err(StoreError::Corrupt(format!("the public key {key_id} has the id {}", key.key_id())));
    }
    Ok((key_id, key))
}

fn seconds(ttl: Duration) -> f64 {
    ttl.min(RIGHT_TTL_MAX).as_secs_f64()
}
