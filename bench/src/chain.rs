//! A long chain: how long the receiver takes to start on it, to send all of it, and how much memory that needs.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use liotbchain_core::{Difficulty, Statement, VerifiedStatement};
use liotbchain_node::{Ledger, LedgerConfig};
use liotbchain_sender::signer::{KeyKind, SigningKey};
use liotbchain_store::{NewTransaction, OpenOptions, Store, sqlite::SqliteStore};

use crate::{median, process::Receiver};

const BLOCKS: usize = 100_000;
const LIST: usize = 5_000;
const ROUNDS: usize = 5;

pub async fn measure(program: &Path) -> anyhow::Result<()> {
    println!("## A chain of {BLOCKS} blocks, one transaction each, SQLite, median of {ROUNDS}\n");
    println!("| | an empty chain | {BLOCKS} blocks |\n|---|---:|---:|");
    let empty = tempfile::tempdir()?;
    let long = tempfile::tempdir()?;
    build(long.path()).await?;
    let settings =
        [("DIFFICULTY", "1"), ("TRANSACTIONS_PER_BLOCK", "1"), ("DATABASE_URL", "sqlite:chain.db")];
    let mut rows: [[Vec<f64>; 5]; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (folder, columns) in [empty.path(), long.path()].into_iter().zip(&mut rows) {
            let receiver = Receiver::start(program, folder, &settings).await?;
            columns[0].push(receiver.ready_after.as_secs_f64() * 1e3);
            columns[1].push(receiver.peak_mib()?);
            let (started, cpu_s) = (Instant::now(), receiver.cpu_s()?);
            let mut answer = receiver.client.get(format!("{}/get_chain", receiver.url)).send().await?;
            let mut bytes = 0;
            while let Some(chunk) = answer.chunk().await? {
                bytes += chunk.len();
            }
            columns[2].push(started.elapsed().as_secs_f64() * 1e3);
            columns[3].push((receiver.cpu_s()? - cpu_s) * 1e3);
            columns[4].push(receiver.peak_mib()?);
            anyhow::ensure!(
                folder != long.path() || bytes > BLOCKS * 100,
                "the chain is not whole: {bytes} bytes"
            );
        }
    }
    let [empty, long] = rows.map(|columns| columns.map(median));
    let names = [
        "start until ready, ms",
        "peak memory after the start, MiB",
        "`GET /get_chain`, ms",
        "`GET /get_chain`, ms CPU of the receiver",
        "peak memory after it, MiB",
    ];
    for (name, (empty, long)) in names.iter().zip(empty.iter().zip(long)) {
        println!("| {name} | {empty:.1} | {long:.1} |");
    }
    println!();
    Ok(())
}

async fn build(folder: &Path) -> anyhow::Result<()> {
    let store = Arc::new(SqliteStore::open(&folder.join("chain.db"), &OpenOptions::default()).await?);
    let config = LedgerConfig {
        difficulty: Difficulty::new(1)?,
        transactions_per_block: 1,
        mining_threads: 1,
        ..LedgerConfig::default()
    };
    let ledger = Ledger::open(store as Arc<dyn Store>, config).await?;
    let key = SigningKey::generate(KeyKind::Ed25519)?;
    for start in (0..BLOCKS).step_by(LIST) {
        let list = (start..start + LIST).map(|number| {
            let payload = format!(r#"{{"device": "Raspberry Pi 1", "distance": {number}}}"#);
            let signature = key.sign(payload.as_bytes());
            let statement = Statement { key_id: key.public_key().key_id(), payload, signature };
            let statement = VerifiedStatement::verify(statement, key.public_key())?;
            Ok(NewTransaction { statement, public_key: Some(key.public_key().clone()) })
        });
        ledger.submit(list.collect::<anyhow::Result<_>>()?, Duration::from_secs(300)).await?;
    }
    let height = usize::try_from(ledger.status().height).context("a height fits")?;
    ledger.shutdown().await;
    anyhow::ensure!(height == BLOCKS, "only {height} blocks were mined");
    Ok(())
}
