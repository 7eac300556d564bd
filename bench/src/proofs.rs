//! What a receipt of a long chain costs: the receiver's processor time, its size, and checking it offline.

use anyhow::Context;
use liotbchain_core::receipt::{ProofFile, Receipt};
use serde_json::Value;

use crate::{
    Place,
    chain::long_chain,
    median,
    process::{Server, thread_cpu_s},
    verdict,
};

const BLOCKS: u64 = 1_000_000;
const ROUNDS: usize = 5;
const RECEIPTS: u64 = 500;
/// Steps through the chain as if at random: prime, and far from any power of two.
const STEP: u64 = 611_953;
const SERVER_BAR_MS: f64 = 5.0;
const SIZE_BAR_BYTES: usize = 4096;
const VERIFY_BAR_MS: f64 = 1.0;

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    let folder = long_chain(&place.data, BLOCKS, 1).await?;
    let settings = [("DATABASE_URL", "sqlite:chain.db"), ("TRANSACTIONS_PER_BLOCK", "1")];
    let receiver = Server::receiver(&place.program, &folder, &settings).await?;
    let ids = ids(&receiver).await?;
    let (mut server, mut offline, mut size_max) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let (mut texts, cpu_s) = (Vec::new(), receiver.cpu_s()?);
        for id in &ids {
            let url = format!("{}/v1/transactions/{id}/receipt", receiver.url);
            texts.push(receiver.client.get(url).send().await?.error_for_status()?.text().await?);
        }
        server.push((receiver.cpu_s()? - cpu_s) * 1e3 / ids.len() as f64);
        let started = thread_cpu_s();
        for text in &texts {
            verify(text)?.verify()?;
        }
        offline.push((thread_cpu_s() - started) * 1e3 / texts.len() as f64);
        for text in &texts {
            size_max = size_max.max(size_beside(text)?);
        }
    }
    let (server, offline) = (median(server), median(offline));
    println!(
        "## Receipts of {} transactions of a chain of {BLOCKS} blocks, SQLite, median of {ROUNDS}\n",
        ids.len()
    );
    println!("| | | bar | |\n|---|---:|---:|---|");
    println!(
        "| receiver, ms CPU a receipt | {server:.2} | < {SERVER_BAR_MS} | {} |",
        verdict(server < SERVER_BAR_MS)
    );
    println!(
        "| largest, bytes beside the transaction | {size_max} | < {SIZE_BAR_BYTES} | {} |",
        verdict(size_max < SIZE_BAR_BYTES)
    );
    println!(
        "| checked offline, ms CPU | {offline:.3} | < {VERIFY_BAR_MS} | {} |\n",
        verdict(offline < VERIFY_BAR_MS)
    );
    Ok(())
}

fn verify(text: &str) -> anyhow::Result<Receipt> {
    match ProofFile::parse(text)? {
        ProofFile::Receipt(receipt) => Ok(*receipt),
        other => anyhow::bail!("no receipt: {other:?}"),
    }
}

/// Returns the bytes of a receipt without its transaction.
fn size_beside(text: &str) -> anyhow::Result<usize> {
    let json: Value = serde_json::from_str(text)?;
    let transaction = &json["block"]["entries"][0]["transaction"];
    anyhow::ensure!(transaction.is_object(), "a receipt shows its transaction");
    Ok(text.len() - serde_json::to_string(transaction)?.len())
}

/// Returns ids of transactions all over the chain.
async fn ids(receiver: &Server) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for number in 0..RECEIPTS {
        let height = number * STEP % BLOCKS + 1;
        let url = format!("{}/v1/blocks/{height}", receiver.url);
        let block: Value = serde_json::from_str(&receiver.client.get(url).send().await?.text().await?)?;
        let id = block["transactions"][0]["id"].as_str().context("a block shows its transactions")?;
        ids.push(id.to_owned());
    }
    Ok(ids)
}
