//! What a reading costs the sender from the device's request to the receiver's acknowledgement, how fast a queue drains, and
//! with how much memory a long one is kept.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use aws_lc_rs::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use crate::{
    Place, median,
    process::{Server, thread_cpu_s},
    traffic, verdict,
};

const ROUNDS: usize = 5;
/// At most so many times a bare signature.
const CPU_BAR: f64 = 3.0;
/// At least so much of what the receiver takes by itself.
const DRAIN_BAR: f64 = 1.0 / 3.0;
const MEMORY_BAR_MIB: f64 = 64.0;

const QUEUED: usize = 100_000;
const PER_BLOCK: usize = 100;
const CHAIN: [(&str, &str); 2] = [("DATABASE_URL", "sqlite:chain.db"), ("TRANSACTIONS_PER_BLOCK", "100")];
const DEVICES: usize = 50;
/// Nothing listens there.
const AWAY: &str = "http://127.0.0.1:9";
/// A test that waits longer has found a hang.
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    forwarding(place).await?;
    draining(place).await?;
    memory(place).await
}

/// Returns bodies for `POST /readings`, each a list of `size` by devices that count their readings.
fn bodies(count: usize, size: usize) -> Vec<String> {
    let reading = |number: usize| {
        let (device, counter) = (number % DEVICES, number / DEVICES);
        let celsius = 15.0 + (number % 100) as f64 / 10.0;
        format!(
            r#"{{"device":"greenhouse-{device}","counter":{counter},"celsius":{celsius:.1},"humidity":40}}"#
        )
    };
    let list = |start: usize| {
        let end = count.min(start + size);
        format!("[{}]", (start..end).map(reading).collect::<Vec<_>>().join(","))
    };
    (0..count).step_by(size).map(list).collect()
}

/// Hands readings to a sender over one connection. Returns in which time they were all taken.
async fn put(sender: &Server, bodies: Vec<String>) -> anyhow::Result<Duration> {
    let requests = Arc::new(traffic::requests_to(&sender.address, "/readings", bodies));
    let (_, elapsed) = traffic::send_all(&sender.address, &requests, 1, Duration::MAX, |_| true).await?;
    Ok(elapsed)
}

/// Waits until all that a sender has taken is acknowledged.
async fn wait_until_empty(sender: &Server) -> anyhow::Result<()> {
    wait_for(sender, "/status", |status| status["queue"]["waiting"] == 0).await
}

/// Waits until a receiver has so many blocks.
async fn wait_for_height(receiver: &Server, height: usize) -> anyhow::Result<()> {
    wait_for(receiver, "/v1/status", |status| status["height"] == height).await
}

async fn wait_for(server: &Server, path: &str, condition: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !condition(&status(server, path).await?) {
        anyhow::ensure!(started.elapsed() < PATIENCE, "{path} does not come to what it should");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn status(server: &Server, path: &str) -> anyhow::Result<Value> {
    let text = server.client.get(format!("{}{path}", server.url)).send().await?.text().await?;
    Ok(serde_json::from_str(&text)?)
}

/// Records of a gateway as they stand on a chain.
struct Records {
    payloads: Vec<String>,
    /// As items of `POST /v1/transactions`.
    items: Vec<String>,
}

impl Records {
    async fn of(receiver: &Server) -> anyhow::Result<Self> {
        let export = receiver.client.get(format!("{}/v1/export", receiver.url)).send().await?.text().await?;
        let (mut keys, mut records) = (HashMap::new(), Self { payloads: Vec::new(), items: Vec::new() });
        let text = |value: &Value| value.as_str().map(str::to_owned).context("not a text");
        for line in export.lines() {
            let line: Value = serde_json::from_str(line)?;
            match line["type"].as_str() {
                Some("key") => {
                    keys.insert(text(&line["key_id"])?, text(&line["public_key"])?);
                }
                Some("block") => {
                    for transaction in line["transactions"].as_array().into_iter().flatten() {
                        // The genesis block has one that nobody signed.
                        let Some(key) = transaction["key_id"].as_str().and_then(|id| keys.get(id)) else {
                            continue;
                        };
                        let (payload, signature) =
                            (text(&transaction["payload"])?, &transaction["signature"]);
                        let item = json!({"payload": payload, "signature": signature, "public_key": key});
                        records.items.push(item.to_string());
                        records.payloads.push(payload);
                    }
                }
                _ => {}
            }
        }
        Ok(records)
    }

    /// Signs each as plainly as can be. Returns microseconds of CPU a signature.
    fn sign(&self) -> anyhow::Result<f64> {
        let key = Ed25519KeyPair::generate().ok().context("a key")?;
        let started = thread_cpu_s();
        for payload in &self.payloads {
            std::hint::black_box(key.sign(payload.as_bytes()));
        }
        Ok((thread_cpu_s() - started) * 1e6 / self.payloads.len() as f64)
    }

    /// Sends all to a receiver of its own. Returns how many it seals a second.
    async fn ingest(&self, program: &Path, connections: usize) -> anyhow::Result<f64> {
        let folder = tempfile::tempdir()?;
        let receiver = Server::receiver(program, folder.path(), &CHAIN).await?;
        let bodies = self.items.chunks(PER_BLOCK).map(|list| format!("[{}]", list.join(","))).collect();
        let requests = Arc::new(traffic::requests_to(&receiver.address, "/v1/transactions", bodies));
        let started = Instant::now();
        traffic::send_all(&receiver.address, &requests, connections, Duration::MAX, |_| true).await?;
        wait_for_height(&receiver, self.items.len() / PER_BLOCK).await?;
        Ok(self.items.len() as f64 / started.elapsed().as_secs_f64())
    }
}

async fn forwarding(place: &Place) -> anyhow::Result<()> {
    println!(
        "## Readings forwarded by the sender, Ed25519, one connection in, a receiver on SQLite, median of {ROUNDS}\n"
    );
    println!("| a list of | sender, µs CPU | bare sign, µs CPU | sender over it | bar | | taken a second |");
    println!("|---:|---:|---:|---:|---:|---|---:|");
    for (size, count) in [(100, 50_000), (10, 20_000), (1, 5_000)] {
        let mut columns = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            let (at_receiver, at_sender) = (tempfile::tempdir()?, tempfile::tempdir()?);
            let receiver = Server::receiver(&place.program, at_receiver.path(), &CHAIN).await?;
            let settings = [("RECEIVER_URL", receiver.url.as_str())];
            let sender = Server::sender(&place.program, at_sender.path(), &settings).await?;
            let cpu_s = sender.cpu_s()?;
            let elapsed = put(&sender, bodies(count, size)).await?;
            wait_until_empty(&sender).await?;
            let cpu = (sender.cpu_s()? - cpu_s) * 1e6 / count as f64;
            wait_for_height(&receiver, count / PER_BLOCK).await?;
            let records = Records::of(&receiver).await?;
            anyhow::ensure!(records.payloads.len() == count, "{} records", records.payloads.len());
            let sign = records.sign()?;
            for (column, value) in
                columns.iter_mut().zip([cpu, sign, cpu / sign, count as f64 / elapsed.as_secs_f64()])
            {
                column.push(value);
            }
        }
        let [cpu, sign, ratio, rate] = columns.map(median);
        let (bar, kept) = match size {
            100 => (format!("≤ {CPU_BAR}"), verdict(ratio <= CPU_BAR)),
            _ => (String::new(), ""),
        };
        println!("| {size} | {cpu:.1} | {sign:.1} | {ratio:.2} | {bar} | {kept} | {rate:.0} |");
    }
    println!();
    Ok(())
}

async fn draining(place: &Place) -> anyhow::Result<()> {
    let mut columns = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let (at_receiver, at_sender) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let sender = Server::sender(&place.program, at_sender.path(), &[("RECEIVER_URL", AWAY)]).await?;
        put(&sender, bodies(QUEUED, 1000)).await?;
        drop(sender);
        let receiver = Server::receiver(&place.program, at_receiver.path(), &CHAIN).await?;
        let started = Instant::now();
        let settings = [("RECEIVER_URL", receiver.url.as_str())];
        let sender = Server::sender(&place.program, at_sender.path(), &settings).await?;
        wait_for_height(&receiver, QUEUED / PER_BLOCK).await?;
        let drain = QUEUED as f64 / started.elapsed().as_secs_f64();
        wait_until_empty(&sender).await?;
        drop(sender);
        let records = Records::of(&receiver).await?;
        drop(receiver);
        anyhow::ensure!(records.items.len() == QUEUED, "{} records", records.items.len());
        let mut ingest: f64 = 0.0;
        for connections in [1, 2, 4] {
            ingest = ingest.max(records.ingest(&place.program, connections).await?);
        }
        columns
            .iter_mut()
            .zip([drain, ingest, drain / ingest])
            .for_each(|(column, value)| column.push(value));
    }
    let [drain, ingest, ratio] = columns.map(median);
    println!(
        "## A queue of {QUEUED} readings drains into a receiver on SQLite, {PER_BLOCK} a block, median of {ROUNDS}\n"
    );
    println!(
        "| drained, readings a second | the receiver's own best, readings a second | drained over it | bar | |"
    );
    println!("|---:|---:|---:|---:|---|");
    println!(
        "| {drain:.0} | {ingest:.0} | {ratio:.2} | ≥ {DRAIN_BAR:.2} | {} |\n",
        verdict(ratio >= DRAIN_BAR)
    );
    Ok(())
}

async fn memory(place: &Place) -> anyhow::Result<()> {
    let (at_receiver, at_sender) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let sender = Server::sender(&place.program, at_sender.path(), &[("RECEIVER_URL", AWAY)]).await?;
    let mut connection = traffic::Connection::new(&sender.address);
    let mut requests =
        traffic::requests_to(&sender.address, "/readings", bodies(2_000_000, 1000)).into_iter();
    // Until the queue is full.
    while connection.send(&requests.next().context("a queue that is never full")?).await.is_ok() {}
    let queue = status(&sender, "/status").await?["queue"].clone();
    let (waiting, size) = (queue["waiting"].as_u64().unwrap_or(0), queue["bytes"].as_u64().unwrap_or(0));
    let filling = sender.peak_mib()?;
    drop(sender);
    let sender = Server::sender(&place.program, at_sender.path(), &[("RECEIVER_URL", AWAY)]).await?;
    let starting = sender.peak_mib()?;
    drop(sender);
    let receiver = Server::receiver(&place.program, at_receiver.path(), &CHAIN).await?;
    let settings = [("RECEIVER_URL", receiver.url.as_str())];
    let sender = Server::sender(&place.program, at_sender.path(), &settings).await?;
    wait_until_empty(&sender).await?;
    let draining = sender.peak_mib()?;
    println!(
        "## Peak memory of a sender with {waiting} readings, {:.0} MiB, in its queue\n",
        size as f64 / 1048576.0
    );
    println!("| | MiB | bar | |\n|---|---:|---:|---|");
    for (name, peak) in [("filling it", filling), ("starting with it", starting), ("draining it", draining)] {
        println!("| {name} | {peak:.1} | < {MEMORY_BAR_MIB} | {} |", verdict(peak < MEMORY_BAR_MIB));
    }
    println!();
    Ok(())
}
