//! What an accepted reading costs the receiver, beside its signature alone and its row alone.

use std::{path::Path, time::Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{PublicKey, Statement};
use liotbchain_sender::signer::{KeyKind, SigningKey};
use liotbchain_store::{OpenOptions, Store, sqlite::SqliteStore};

use crate::{
    median,
    process::{Receiver, own_cpu_s},
};

const READINGS: usize = 4_000;
const ROUNDS: usize = 3;

pub async fn measure(program: &Path) -> anyhow::Result<()> {
    println!(
        "## Readings accepted over HTTP, SQLite, difficulty 2, one connection, {READINGS} readings, median of {ROUNDS}\n"
    );
    println!(
        "CPU of the receiver's process, per reading, with its signature checked, its block mined, stored and answered.\n"
    );
    println!(
        "| key | a list, and a block, of | receiver, µs CPU | bare verify, µs CPU | bare durable insert, µs CPU | receiver over both | accepted a second |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for kind in [KeyKind::Rsa, KeyKind::Ed25519] {
        let key = SigningKey::generate(kind)?;
        for size in [2, 100] {
            let mut columns = [const { Vec::new() }; 4];
            for round in 0..ROUNDS {
                let statements: Vec<_> = (0..READINGS).map(|number| sign(&key, round, number)).collect();
                let verify = verify(key.public_key(), &statements)?;
                let insert = insert(&statements, size).await?;
                let (cpu, rate) = accept(program, key.public_key(), &statements, size).await?;
                for (column, value) in columns.iter_mut().zip([cpu, verify, insert, rate]) {
                    column.push(value);
                }
            }
            let [cpu, verify, insert, rate] = columns.map(median);
            println!(
                "| {} | {size} | {cpu:.0} | {verify:.0} | {insert:.0} | {:.2} | {rate:.0} |",
                key.public_key().algorithm(),
                cpu / (verify + insert),
            );
        }
    }
    println!();
    Ok(())
}

fn sign(key: &SigningKey, round: usize, number: usize) -> Statement {
    let payload = format!(r#"{{"device": "Raspberry Pi 1", "distance": {number}, "timestamp": {round}.5}}"#);
    let signature = key.sign(payload.as_bytes());
    Statement { key_id: key.public_key().key_id(), payload, signature }
}

/// Returns microseconds a signature.
fn verify(key: &PublicKey, statements: &[Statement]) -> anyhow::Result<f64> {
    let started = own_cpu_s()?;
    // Often enough for a clock of hundredths of a second.
    for _ in 0..4 {
        for statement in statements {
            key.verify(statement.payload.as_bytes(), &statement.signature)?;
        }
    }
    Ok((own_cpu_s()? - started) * 1e6 / (4 * statements.len()) as f64)
}

/// Writes the same rows into the same tables, by SQL alone, with the same promise: a commit a list. Returns
/// microseconds a row.
async fn insert(statements: &[Statement], size: usize) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bare.db");
    SqliteStore::open(&file, &OpenOptions::default()).await?.close().await;
    let mut database = rusqlite::Connection::open(&file)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    let started = own_cpu_s()?;
    for list in statements.chunks(size) {
        let transaction = database.transaction()?;
        let mut insert = transaction.prepare_cached(
            "INSERT INTO transactions (id, key, received_ms, payload, signature) VALUES (?, 0, 0, ?, ?)",
        )?;
        for statement in list {
            insert.execute((statement.id().as_bytes(), &statement.payload, &statement.signature))?;
        }
        drop(insert);
        transaction.commit()?;
    }
    Ok((own_cpu_s()? - started) * 1e6 / statements.len() as f64)
}

/// Returns microseconds of the receiver's processor time a reading, and readings a second.
async fn accept(
    program: &Path,
    key: &PublicKey,
    statements: &[Statement],
    size: usize,
) -> anyhow::Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let per_block = size.to_string();
    let settings = [("TRANSACTIONS_PER_BLOCK", per_block.as_str()), ("MINING_THREADS", "1")];
    let receiver = Receiver::start(program, folder.path(), &settings).await?;
    let pem = serde_json::to_string(&key.to_pem())?;
    let bodies: Vec<_> = statements.chunks(size).map(|list| body(list, &pem)).collect();
    let url = format!("{}/receive_data", receiver.url);
    let (started, cpu_s) = (Instant::now(), receiver.cpu_s()?);
    for body in bodies {
        let request = receiver.client.post(&url).header("content-type", "application/json").body(body);
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        let sealed = text.matches("\"sealed\"").count();
        anyhow::ensure!(status.is_success() && sealed == size.min(statements.len()), "{status}: {text}");
    }
    let (elapsed_s, cpu_s) = (started.elapsed().as_secs_f64(), receiver.cpu_s()? - cpu_s);
    let count = statements.len() as f64;
    Ok((cpu_s * 1e6 / count, count / elapsed_s))
}

fn body(list: &[Statement], pem: &str) -> String {
    let items = list.iter().map(|statement| {
        let signature = STANDARD.encode(&statement.signature);
        format!(r#"{{"data":{},"signature":"{signature}","public_key":{pem}}}"#, statement.payload)
    });
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}
