//! Asks witnesses to cosign checkpoints, as [c2sp.org/tlog-witness](https://c2sp.org/tlog-witness) says: whenever the chain
//! grew, but not more often than once a second. What enough of them cosigned is shown from then on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{
    Checkpoint, Policy,
    checkpoint::parse_size,
    note::{self, Note, NoteSignature},
    policy::Party,
};
use liotbchain_node::{ProveError, Prover};
use reqwest::{Client, StatusCode, redirect};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use crate::state::Shared;

/// Time between two rounds at least.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// Time until witnesses are asked again that did not cosign: doubled each time, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How long a witness may take. One that validates every block reads them first.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a checkpoint waits for enough cosignatures before a newer one takes its place.
const TARGET_MAX: Duration = Duration::from_secs(5);
/// Checkpoints that are kept with their cosignatures: a slow witness may still be at an older one.
const ROUNDS_MAX: usize = 16;
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

/// Asks until the task is dropped: each witness by itself, so that one that is away, or slow, keeps no other waiting.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(policy) = shared.vouching.policy() else { return };
    let witnesses: Vec<_> =
        policy.witnesses.iter().filter(|witness| witness.url.is_some()).cloned().collect();
    let client = Client::builder().timeout(ANSWER_MAX).redirect(redirect::Policy::none()).build();
    let Ok(client) = client.inspect_err(|error| tracing::error!(%error, "no witness can be asked")) else {
        return;
    };
    if witnesses.is_empty() {
        tracing::warn!("the witnesses of the policy have no URLs: none is asked, and no checkpoint is shown");
        return;
    }
    let targets = watch::Sender::new(None);
    let rounds = Arc::new(Mutex::new(Rounds::default()));
    let mut asking = JoinSet::new();
    for witness in witnesses {
        asking.spawn(ask(
            Arc::clone(&shared),
            client.clone(),
            witness,
            targets.subscribe(),
            Arc::clone(&rounds),
        ));
    }
    let (mut changes, mut shown) = (shared.ledger.changes(), shared.vouching.watch());
    loop {
        changes.mark_unchanged();
        let started = Instant::now();
        match shared.vouching.sign(&shared.ledger).await {
            Ok(Some(note)) => {
                let size = size_of(&note);
                if targets.borrow().as_ref().is_none_or(|target: &Target| target.size != size) {
                    targets.send_replace(Some(Target { size, note }));
                }
                // All are asked for the same checkpoint, or none would ever have enough cosignatures on a chain that grows
                // all the time. One that does not get them is left in the end.
                let is_shown =
                    |shown: &Option<Note>| shown.as_ref().is_some_and(|shown| size_of(shown) >= size);
                if time::timeout(TARGET_MAX, shown.wait_for(is_shown)).await.is_err() {
                    tracing::warn!(
                        size,
                        "the checkpoint is not shown: too few witnesses have cosigned it so far"
                    );
                }
            }
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "no checkpoint could be made for the witnesses"),
        }
        time::sleep_until(started + ROUND_MIN).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What all witnesses are asked to cosign.
#[derive(Clone)]
struct Target {
    size: u64,
    note: Note,
}

fn size_of(note: &Note) -> u64 {
    Checkpoint::of(note).map_or(0, |checkpoint| checkpoint.size)
}

/// The newest checkpoints, each with the cosignatures that came.
#[derive(Default)]
struct Rounds(BTreeMap<u64, Note>);

impl Rounds {
    /// Adds a cosignature, and returns the checkpoint if it satisfies the policy now.
    fn add(&mut self, policy: &Policy, target: Target, signature: NoteSignature) -> Option<Note> {
        let Target { size, note } = target;
        let note = self.0.entry(size).or_insert(note);
        note.add(signature);
        let satisfied = policy.check(note).is_ok().then(|| note.clone());
        while self.0.len() > ROUNDS_MAX {
            self.0.pop_first();
        }
        satisfied
    }
}

/// Asks one witness for each checkpoint, until it cosigned it or there is a newer one.
async fn ask(
    shared: Arc<Shared>,
    client: Client,
    witness: Party,
    mut targets: watch::Receiver<Option<Target>>,
    rounds: Arc<Mutex<Rounds>>,
) {
    // How many blocks it cosigned last.
    let mut cosigned = 0;
    let mut retry = RETRY.0;
    loop {
        let target = targets.borrow_and_update().clone();
        let Some(target) = target.filter(|target| target.size != cosigned) else {
            if targets.changed().await.is_err() {
                return;
            }
            continue;
        };
        match cosign(&shared, &client, &witness, &target.note, target.size, cosigned).await {
            Ok(signature) => {
                (retry, cosigned) = (RETRY.0, target.size);
                let policy = shared.vouching.policy().expect("run has looked");
                let mut rounds = rounds.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(note) = rounds.add(policy, target, signature) {
                    shared.vouching.publish(note);
                }
            }
            Err(error) => {
                match &error {
                    WitnessError::Conflict(_) | WitnessError::Behind { .. } => {
                        tracing::error!(witness = witness.name, %error, "a witness does not cosign this chain");
                    }
                    _ => tracing::warn!(witness = witness.name, %error, "a witness did not cosign"),
                }
                time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}

/// Asks one witness, which cosigned `old` blocks as far as is known.
async fn cosign(
    shared: &Shared,
    client: &Client,
    witness: &Party,
    note: &Note,
    size: u64,
    mut old: u64,
) -> Result<NoteSignature, WitnessError> {
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
fn find(text: &str, note: &Note, witness: &Party) -> Result<NoteSignature, WitnessError> {
    let signatures = note::parse_signatures(text).map_err(|_| WitnessError::NoCosignature)?;
    let is_good = |signature: &NoteSignature| {
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
