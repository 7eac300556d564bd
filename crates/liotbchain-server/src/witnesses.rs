//! Asks witnesses to cosign checkpoints, as [c2sp.org/tlog-witness](https://c2sp.org/tlog-witness) says: whenever the chain
//! grew, but not more often than once a second. What enough of them cosigned is shown from then on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{
    Checkpoint,
    checkpoint::parse_size,
    note::{self, Note},
    policy::Party,
};
use liotbchain_node::{ProveError, Prover};
use reqwest::{Client, StatusCode, redirect};
use tokio::time::{self, Instant};

use crate::state::Shared;

/// Time between two rounds at least.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// Time until witnesses are asked again that did not cosign: doubled each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long a witness may take. One that validates every block reads them first.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const ANSWER_SIZE_MAX: usize = 16 << 10;
/// How often a witness is asked in a round: once to learn where it stands, and once more if that moved meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
enum WitnessError {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error(
        "it knows {witness} blocks of this chain, which has {ours}: was the chain cut off, or a copy of it restored?"
    )]
    Behind { witness: u64, ours: u64 },
    #[error("it says that this chain is not the one it cosigned before: {0}")]
    Conflict(String),
    #[error("it answered {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("its answer holds no good cosignature of the key that the policy names")]
    NoCosignature,
    #[error(transparent)]
    Prove(#[from] ProveError),
}

/// Asks until the task is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(policy) = shared.vouching.policy() else { return };
    let witnesses: Vec<_> = policy.witnesses.iter().filter(|witness| witness.url.is_some()).collect();
    let client = Client::builder().timeout(ANSWER_MAX).redirect(redirect::Policy::none()).build();
    let Ok(client) = client.inspect_err(|error| tracing::error!(%error, "no witness can be asked")) else {
        return;
    };
    if witnesses.is_empty() {
        tracing::warn!("the witnesses of the policy have no URLs: none is asked, and no checkpoint is shown");
        return;
    }
    let mut changes = shared.ledger.changes();
    // How many blocks each witness cosigned last.
    let mut sizes: HashMap<String, u64> = HashMap::new();
    let (mut retry, mut done) = (RETRY.0, 0);
    loop {
        let started = Instant::now();
        match round(&shared, &client, &witnesses, &mut sizes, done).await {
            Ok(Round::Done(size)) => (retry, done) = (RETRY.0, size),
            Ok(Round::Partly) => {
                time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "no checkpoint could be made for the witnesses");
                time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
                continue;
            }
        }
        time::sleep_until(started + ROUND_MIN).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

enum Round {
    /// All cosigned so many blocks.
    Done(u64),
    /// Some did not.
    Partly,
}

async fn round(
    shared: &Shared,
    client: &Client,
    witnesses: &[&Party],
    sizes: &mut HashMap<String, u64>,
    done: u64,
) -> Result<Round, ProveError> {
    let Some(mut note) = shared.vouching.sign(&shared.ledger).await? else { return Ok(Round::Done(done)) };
    let Ok(checkpoint) = Checkpoint::of(&note) else { return Ok(Round::Done(done)) };
    if checkpoint.size == done {
        return Ok(Round::Done(done));
    }
    let asked = witnesses.iter().map(|witness| {
        let old = sizes.get(&witness.name).copied().unwrap_or(0);
        cosign(shared, client, witness, &note, checkpoint.size, old)
    });
    let answers = futures_util::future::join_all(asked).await;
    let mut all = true;
    for (witness, answer) in witnesses.iter().zip(answers) {
        match answer {
            Ok(signature) => {
                sizes.insert(witness.name.clone(), checkpoint.size);
                note.add(signature);
            }
            Err(error @ (WitnessError::Conflict(_) | WitnessError::Behind { .. })) => {
                tracing::error!(witness = witness.name, %error, "a witness does not cosign this chain");
                all = false;
            }
            Err(error) => {
                tracing::warn!(witness = witness.name, %error, "a witness did not cosign");
                all = false;
            }
        }
    }
    let policy = shared.vouching.policy().expect("run has looked");
    match policy.check(&note) {
        Ok(_) => shared.vouching.publish(note),
        Err(error) => tracing::warn!(%error, size = checkpoint.size, "the checkpoint is not shown"),
    }
    Ok(if all { Round::Done(checkpoint.size) } else { Round::Partly })
}

/// Asks one witness, which cosigned `old` blocks as far as is known.
async fn cosign(
    shared: &Shared,
    client: &Client,
    witness: &Party,
    note: &Note,
    size: u64,
    mut old: u64,
) -> Result<note::NoteSignature, WitnessError> {
    let url = format!("{}/add-checkpoint", witness.url.as_deref().unwrap_or_default().trim_end_matches('/'));
    let prover =
        Prover::new(shared.ledger.store().as_ref(), shared.ledger.genesis(), shared.vouching.vouchers());
    for _ in 0..ATTEMPTS_MAX {
        let path =
            if old == 0 || old == size { Vec::new() } else { prover.consistency_path(old, size).await? };
        let mut body = format!("old {old}\n");
        for hash in path {
            body.push_str(&STANDARD.encode(hash));
            body.push('\n');
        }
        body.push('\n');
        body.push_str(&note.to_string());
        // An address is no secret, but the library's words may hold more than is of use.
        let answer = client.post(&url).body(body).send().await;
        let answer = answer.map_err(|error| WitnessError::Unreachable(error.without_url().to_string()))?;
        let (status, text) = read(answer).await?;
        match status {
            StatusCode::OK => return find(&text, note, witness),
            StatusCode::CONFLICT => match text.strip_suffix('\n').and_then(parse_size) {
                Some(witness) if witness > size => return Err(WitnessError::Behind { witness, ours: size }),
                Some(known) if known != old => old = known,
                _ => return Err(WitnessError::Conflict(first_line(&text))),
            },
            StatusCode::UNPROCESSABLE_ENTITY => return Err(WitnessError::Conflict(first_line(&text))),
            _ => return Err(WitnessError::Refused { status, text: first_line(&text) }),
        }
    }
    Err(WitnessError::Conflict("it moved on while it was asked".to_owned()))
}

/// Takes the cosignature of the witness's key from its answer, if it is a good one.
fn find(text: &str, note: &Note, witness: &Party) -> Result<note::NoteSignature, WitnessError> {
    let signatures = note::parse_signatures(text).map_err(|_| WitnessError::NoCosignature)?;
    let is_good = |signature: &note::NoteSignature| {
        let alone = Note::new(note.text().to_owned(), signature.clone());
        alone.verify_cosignature(&witness.key).is_ok()
    };
    signatures.into_iter().find(is_good).ok_or(WitnessError::NoCosignature)
}

async fn read(mut answer: reqwest::Response) -> Result<(StatusCode, String), WitnessError> {
    let status = answer.status();
    let mut bytes = Vec::new();
    let unreachable = |error: reqwest::Error| WitnessError::Unreachable(error.without_url().to_string());
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_SIZE_MAX {
            return Err(WitnessError::Unreachable("its answer is too long".to_owned()));
        }
    }
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// Returns what fits into a line of the log.
fn first_line(text: &str) -> String {
    text.chars().take_while(|character| *character != '\n').filter(|it| !it.is_control()).take(200).collect()
}
