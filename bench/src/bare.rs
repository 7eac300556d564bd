//! The bare limits: the signature library alone, and rows written by plain SQL, each on a thread of its own.

use std::{path::Path, thread};

use anyhow::Context;
use aws_lc_rs::signature::{
    ED25519, ParsedPublicKey, RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPssSaltLength,
    VerificationAlgorithm,
};
use liotbchain_core::{Statement, key::Algorithm};
use liotbchain_store::{OpenOptions, Store, sqlite::SqliteStore};
use rusqlite::{Connection, Transaction};

use crate::{process::thread_cpu_s, readings::Readings};

/// The salt that the sender signs with.
static RSA_PSS_MAX_SALT: RsaParameters = RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// Verifies each signature once, with a key that was parsed once. Returns microseconds of CPU a signature.
pub fn verify(readings: &Readings) -> anyhow::Result<f64> {
    let algorithm: &'static dyn VerificationAlgorithm = match readings.key.algorithm() {
        Algorithm::RsaPss { .. } => &RSA_PSS_MAX_SALT,
        _ => &ED25519,
    };
    let key = ParsedPublicKey::new(algorithm, readings.key.spki_der()).ok().context("a key that verifies")?;
    on_a_thread(|| {
        let started = thread_cpu_s();
        for statement in &readings.statements {
            let verified = key.verify_sig(statement.payload.as_bytes(), &statement.signature);
            anyhow::ensure!(verified.is_ok(), "a signature is wrong");
        }
        Ok((thread_cpu_s() - started) * 1e6 / readings.statements.len() as f64)
    })
}

/// A SQLite file with the receiver's tables and indexes, written by a plain program.
pub struct Table {
    database: Connection,
    next_height: i64,
}

impl Table {
    /// Makes an empty file with the tables as the receiver makes them.
    pub async fn create(file: &Path) -> anyhow::Result<Self> {
        SqliteStore::open(file, &OpenOptions::default()).await?.close().await;
        Self::open(file)
    }

    /// Opens a file that [`Self::create`] or a receiver made, to go on above its last block.
    pub fn open(file: &Path) -> anyhow::Result<Self> {
        let database = Connection::open(file)?;
        // As much as the receiver's writer has.
        database.pragma_update(None, "cache_size", -(64 << 10))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        let next_height =
            database.query_row("SELECT coalesce(max(height), -1) + 1 FROM blocks", (), |row| row.get(0))?;
        // The key of its rows, where a receiver did not make it known.
        database.execute("INSERT OR IGNORE INTO keys (key, key_id) VALUES (1, randomblob(32))", ())?;
        Ok(Self { database, next_height })
    }

    /// Writes rows as they are once their transactions are sealed, each list with the row of its block, in one commit a
    /// list. Returns microseconds of CPU a transaction.
    pub fn insert(&mut self, statements: &[Statement], size: usize) -> anyhow::Result<f64> {
        let rows: Vec<_> = statements.iter().map(|statement| (statement.id().0, statement)).collect();
        on_a_thread(|| {
            let started = thread_cpu_s();
            for list in rows.chunks(size) {
                let transaction = self.database.transaction()?;
                insert_list(&transaction, self.next_height, list)?;
                transaction.commit()?;
                self.next_height += 1;
            }
            Ok((thread_cpu_s() - started) * 1e6 / rows.len() as f64)
        })
    }
}

fn insert_list(
    transaction: &Transaction<'_>,
    height: i64,
    list: &[([u8; 32], &Statement)],
) -> rusqlite::Result<()> {
    // Any 32 bytes that no other block has do for its hashes.
    let hash = list[0].0;
    let block = "INSERT INTO blocks (height, hash, version, prev_block_hash, transactions_root, history_root,
                        timestamp_ms, bits, nonce, total_work) VALUES (?1, ?2, 1, ?2, ?2, ?2, ?3, ?4, ?5, ?2)";
    let (time_ms, bits) = (1_790_000_000_000i64, 0x1fff_ff00u32);
    transaction.prepare_cached(block)?.execute((height, hash, time_ms, bits, height))?;
    let row =
        "INSERT INTO transactions (id, key, received_ms, height, position, sequence, payload, signature)
               VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut insert = transaction.prepare_cached(row)?;
    for (position, (id, statement)) in (0i64..).zip(list) {
        let sequence = height * list.len() as i64 + position;
        insert.execute((
            id,
            time_ms,
            height,
            position,
            sequence,
            &statement.payload,
            &statement.signature,
        ))?;
    }
    Ok(())
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| scope.spawn(work).join().expect("a bare limit does not panic"))
}
