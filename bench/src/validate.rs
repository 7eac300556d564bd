//! `liotbchain chain validate` on a chain of 100 transactions a block, with and without signatures, beside the bare
//! verification of the same signatures.
//!
//! `VALIDATE_TRANSACTIONS` sets the length of the chains (200,000); `VALIDATE_KEYS` sets which are made, `rsa`, `ed25519`
//! and `unsigned` (`rsa,ed25519`). A chain is made once and kept.

use std::{
    collections::HashMap,
    fs,
    hint::black_box,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use liotbchain_core::{
    Ancestry, Branch, CheckedBlock, Difficulty, KeyId, PublicKey, Rules, SealRule, Statement, TransactionId,
    VerifiedStatement, check,
    mine::{self, Draft, Mined},
};
use liotbchain_sender::signer::{KeyKind, SigningKey};
use liotbchain_store::{OpenOptions, Store, sqlite::SqliteStore};

use crate::{Place, median, process::thread_cpu_s, verdict};

const PER_BLOCK: u64 = 100;
const BLOCKS_A_COMMIT: usize = 200;
const ROUNDS: usize = 5;
/// Signatures that the bare verification takes, again and again.
const SAMPLE: u64 = 2_000;
const TIMESTAMP_MS: u64 = 1_790_000_000_000;

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let transactions: u64 = setting("VALIDATE_TRANSACTIONS", "200000").parse()?;
    let cores = thread::available_parallelism()?;
    println!(
        "## `chain validate`, SQLite, {transactions} transactions, {PER_BLOCK} a block, {cores} cores, median of {ROUNDS}\n"
    );
    println!(
        "µs CPU of the whole process, its start with it, a transaction. *Limit*: 2 µs without signatures, 1.2 × the bare verify plus that with them.\n"
    );
    println!(
        "| key | without signatures, µs | with, µs | bare verify, µs | with, over its limit | cores busy without, with | peak without, with, MiB | kept |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---|");
    for name in setting("VALIDATE_KEYS", "rsa,ed25519").split(',') {
        let key = match name {
            "unsigned" => None,
            kind => Some(SigningKey::generate(kind.parse::<KeyKind>()?)?),
        };
        let folder = place.data.join(format!("validate-{name}-{transactions}"));
        if !folder.exists() {
            let unfinished = folder.with_extension("unfinished");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)?;
            }
            build(&unfinished, key.as_ref(), transactions).await?;
            fs::rename(&unfinished, &folder)?;
        }
        let mut rows = [const { Vec::new() }; 7];
        for _ in 0..ROUNDS {
            let without = Run::of(&place.program, &folder, true)?;
            let with = Run::of(&place.program, &folder, false)?;
            let verify = key.as_ref().map_or(Ok(0.0), bare_verify_us)?;
            let a_transaction = |run: &Run| run.cpu_s * 1e6 / transactions as f64;
            for (row, value) in rows.iter_mut().zip([
                a_transaction(&without),
                a_transaction(&with),
                verify,
                without.cpu_s / without.wall_s,
                with.cpu_s / with.wall_s,
                without.peak_mib,
                with.peak_mib,
            ]) {
                row.push(value);
            }
        }
        let [without, with, verify, busy_without, busy_with, mib_without, mib_with] = rows.map(median);
        let over = with / (1.2 * verify + without);
        println!(
            "| {name} | {without:.2} | {with:.2} | {verify:.2} | {over:.2} | {busy_without:.2}, {busy_with:.2} | {mib_without:.1}, {mib_with:.1} | {} |",
            verdict(without <= 2.0 && (over <= 1.0 || key.is_none()) && mib_without.max(mib_with) <= 64.0)
        );
    }
    println!();
    Ok(())
}

/// What one validation cost.
struct Run {
    cpu_s: f64,
    wall_s: f64,
    peak_mib: f64,
}

impl Run {
    fn of(program: &Path, folder: &Path, skip_signatures: bool) -> anyhow::Result<Self> {
        let (started, cpu_s) = (Instant::now(), children_cpu_s()?);
        let mut child = Command::new(program)
            .args(["chain", "validate"])
            .args(skip_signatures.then_some("--skip-signatures"))
            .current_dir(folder)
            .env("DATA_DIR", folder)
            .env("DATABASE_URL", "sqlite:chain.db")
            .env("LOG_LEVEL", "error")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let status = format!("/proc/{}/status", child.id());
        let mut peak_mib: f64 = 0.0;
        let exit = loop {
            // Gone once the process has ended; what it said last is its peak, but for a millisecond.
            if let Ok(text) = fs::read_to_string(&status)
                && let Some(kib) = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))
            {
                peak_mib = peak_mib.max(kib.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0);
            }
            if let Some(exit) = child.try_wait()? {
                break exit;
            }
            thread::sleep(Duration::from_millis(2));
        };
        anyhow::ensure!(exit.success(), "chain validate ended with {exit}");
        Ok(Self { cpu_s: children_cpu_s()? - cpu_s, wall_s: started.elapsed().as_secs_f64(), peak_mib })
    }
}

/// Returns the processor time of all children that have ended, in seconds.
fn children_cpu_s() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("unknown form of /proc/self/stat")?;
    // cutime and cstime are fields 16 and 17, in hundredths of a second.
    let ticks: f64 = fields.split_whitespace().skip(13).take(2).filter_map(|it| it.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

/// Returns microseconds that the library takes for one of such signatures.
fn bare_verify_us(key: &SigningKey) -> anyhow::Result<f64> {
    let signed: Vec<_> = (0..SAMPLE).map(payload).map(|it| (key.sign(it.as_bytes()), it)).collect();
    let started = thread_cpu_s();
    for (signature, payload) in signed.iter().cycle().take(4 * signed.len()) {
        key.public_key().verify(black_box(payload.as_bytes()), signature)?;
    }
    Ok((thread_cpu_s() - started) * 1e6 / (4 * SAMPLE) as f64)
}

fn payload(number: u64) -> String {
    format!(r#"{{"device": "Raspberry Pi 1", "distance": {number}, "timestamp": "2026-11-22 12:00:00"}}"#)
}

/// Makes a chain through the store, block by block.
async fn build(folder: &Path, key: Option<&SigningKey>, transactions: u64) -> anyhow::Result<()> {
    let store = SqliteStore::open(&folder.join("chain.db"), &OpenOptions::default()).await?;
    let rules = Rules {
        network: "bench".to_owned(),
        seal: SealRule::OnCount,
        difficulty: Difficulty::new(0)?,
        unsigned: key.is_none(),
        timestamp_ms: TIMESTAMP_MS,
    };
    let genesis = rules.genesis_block()?;
    store.create(&genesis).await?;
    if let Some(key) = key {
        store.add_keys(&[key.public_key().clone()]).await?;
    }
    let right =
        store.acquire_right("bench", Duration::from_secs(86_400)).await?.context("nobody else is there")?;
    let mut ancestry = Sequences(HashMap::from([(KeyId::ZERO, 1)]));
    let mut branch = Branch::new(&genesis, rules);
    let blocks: Vec<u64> = (0..transactions.div_ceil(PER_BLOCK)).collect();
    for blocks in blocks.chunks(BLOCKS_A_COMMIT) {
        let first = blocks[0] * PER_BLOCK;
        let last = transactions.min(first + blocks.len() as u64 * PER_BLOCK);
        let numbers: Vec<u64> = (first..last).collect();
        let statements = statements(key, &numbers)?;
        let tip = branch.tip();
        let mut connect: Vec<CheckedBlock> = Vec::new();
        for of_block in statements.chunks(PER_BLOCK as usize) {
            let next_sequence = |key_id: &KeyId| ancestry.next_sequence(key_id);
            let difficulty = branch.rules().difficulty;
            let now_ms = TIMESTAMP_MS + u64::from(branch.next_height());
            let draft = Draft::new(&branch, of_block.to_vec(), next_sequence, difficulty, now_ms);
            let mined = mine::mine(draft.header(), mine::ATTEMPTS_MAX, 1, &AtomicBool::new(false))?;
            let Mined::Found { nonce } = mined else { anyhow::bail!("no nonce: {mined:?}") };
            let block = check::check_draft(&draft, nonce, &branch, &ancestry)?;
            branch.extend(&block);
            *ancestry.0.entry(of_block[0].statement().key_id).or_default() += of_block.len() as u64;
            connect.push(block);
        }
        store.commit(&right, tip, 0, &connect).await?;
    }
    store.release_right(&right).await?;
    store.close().await;
    Ok(())
}

/// Signs on all cores.
fn statements(key: Option<&SigningKey>, numbers: &[u64]) -> anyhow::Result<Vec<VerifiedStatement>> {
    let cores = thread::available_parallelism()?.get();
    let sign = |number: &u64| -> anyhow::Result<VerifiedStatement> {
        let payload = payload(*number);
        let Some(key) = key else {
            return Ok(VerifiedStatement::unsigned(payload, u128::from(*number).to_be_bytes())?);
        };
        let signature = key.sign(payload.as_bytes());
        let statement = Statement { key_id: key.public_key().key_id(), payload, signature };
        Ok(VerifiedStatement::verify(statement, key.public_key())?)
    };
    let signed: Vec<anyhow::Result<Vec<_>>> = thread::scope(|scope| {
        let parts: Vec<_> = numbers
            .chunks(numbers.len().div_ceil(cores))
            .map(|part| scope.spawn(move || part.iter().map(sign).collect()))
            .collect();
        parts
            .into_iter()
            .map(|part| part.join().unwrap_or_else(|_| anyhow::bail!("a thread ended early")))
            .collect()
    });
    Ok(signed.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat())
}

/// How many transactions each key has.
struct Sequences(HashMap<KeyId, u64>);

impl Ancestry for Sequences {
    fn public_key(&self, _: &KeyId) -> Option<PublicKey> {
        None
    }

    fn next_sequence(&self, key_id: &KeyId) -> u64 {
        self.0.get(key_id).copied().unwrap_or(0)
    }

    fn contains(&self, _: &TransactionId) -> bool {
        false
    }
}
