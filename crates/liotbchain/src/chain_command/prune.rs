//! `liotbchain chain prune`: drops the payloads and signatures of a key, after it has said so on the chain.

use std::io::{self, BufRead, IsTerminal, stderr, stdin};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use liotbchain_core::prune::REASON_SIZE_MAX;
use liotbchain_core::{
    Difficulty, Height, KeyId, PruneRecord, Statement, TimestampMs, TransactionId, VerifiedStatement,
};
use liotbchain_node::prune::first_height_at;
use liotbchain_node::{Ledger, LedgerConfig, LedgerError, PrunePlan};
use liotbchain_sender::SigningKey;
use liotbchain_store::{NewTransaction, Status, Store, StoreError};
use serde::Serialize;

use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use crate::opening::{no_chain, open_existing_store, open_store};
use crate::operator_key;
use crate::output::{print, print_json, say, warn};
use crate::progress::{Progress, Unit};
use crate::settings::{DatabaseUrl, Settings};
use crate::utc::Utc;

/// More than the 2.5 seconds that the right to seal outlives its holder.
const TAKEOVER: Duration = Duration::from_secs(5);
const TAKEOVER_POLL: Duration = Duration::from_millis(100);

/// What is to be pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose transactions; the zero key stands for those that nobody signed.
    pub key_id: KeyId,
    /// From which block on all is left as it is.
    pub before: Before,
    /// Why; none only where nothing is to be done.
    pub reason: Option<String>,
    /// Asks nobody.
    pub yes: bool,
    /// Only shows what would be done.
    pub dry_run: bool,
    /// Has PostgreSQL give the space back to the operating system.
    pub vacuum_full: bool,
}

/// A point of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// A block.
    Height(Height),
    /// The first block that is not older than this.
    Time(TimestampMs),
}

impl FromStr for Before {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text
                .parse()
                .map(Self::Height)
                .map_err(|_| format!("expected a height up to {}", Height::MAX));
        }
        let expected = "expected a height such as 1200, or a time such as 2026-12-01T00:00:00Z";
        Utc::parse(text).map(|Utc(time_ms)| Self::Time(time_ms)).ok_or_else(|| expected.to_owned())
    }
}

/// Parses the reason, which stands on the chain for ever.
pub fn parse_reason(text: &str) -> Result<String, String> {
    match text {
        _ if text.trim().is_empty() => Err("expected some words".to_owned()),
        _ if text.len() > REASON_SIZE_MAX => {
            Err(format!("{} bytes: expected at most {REASON_SIZE_MAX}", text.len()))
        }
        _ if text.contains(char::is_control) => {
            Err("expected one line without control characters".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

/// Prunes the chain.
///
/// # Errors
///
/// Where there is no chain or no such key, a receiver uses the SQLite file, nobody says yes, or the store fails. What was
/// dropped until then is dropped; the same command goes on.
pub async fn prune(settings: &Settings, plan: &Plan, json: bool) -> Result<(), Failure> {
    // Of a SQLite file there is one writer. PostgreSQL serves a receiver meanwhile.
    let is_file = matches!(settings.database, DatabaseUrl::Sqlite(_));
    let data_dir = match is_file && !plan.dry_run {
        true => Some(DataDir::take(&settings.data_dir)?),
        false => None,
    };
    let holder = data_dir.as_ref().map(DataDir::holder).transpose()?;
    let store = open_existing_store(settings).await?;
    let pruned = prune_store(&store, settings, plan, holder, json).await;
    store.close().await;
    pruned
}

async fn prune_store(
    store: &Arc<dyn Store>,
    settings: &Settings,
    plan: &Plan,
    holder: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    let branch = store.branch().await?.ok_or_else(|| no_chain(settings))?;
    let key_id = plan.key_id;
    if key_id != KeyId::ZERO && store.public_keys(&[key_id]).await?.is_empty() {
        return Err(Failure::failed(format!("no transaction of this chain is of the key {key_id}"))
            .with_hint("`liotbchain chain show --from 1 --json` shows the key of each"));
    }
    let before_height = match plan.before {
        Before::Height(height) => height,
        Before::Time(time_ms) => first_height_at(store.as_ref(), time_ms).await?,
    };
    let mut progress = Progress::new("looking", Unit::Blocks);
    let of = u64::from(branch.height()) + 1;
    let planned =
        PrunePlan::make(store.as_ref(), key_id, before_height, |done| progress.set(done.into(), of)).await?;
    drop(progress);
    let mut answer = Answer::of(&planned, plan);
    if plan.dry_run {
        return if json {
            print_json(&answer)
        } else {
            print(&format!("would prune {}\n", in_words(&planned)))
        };
    }
    if planned.transactions > 0 && !plan.yes {
        confirm(&planned)?;
    }
    let bytes_before = store.size().await?;
    if let Some(record) = planned.record(plan.reason.clone().unwrap_or_default()) {
        let recorded = say_on_chain(settings, &record, holder).await?;
        tell(&recorded);
        answer.record = Some(recorded);
    }
    let mut progress = Progress::new("pruning", Unit::Blocks);
    let again = "what was dropped until now is dropped: the same command goes on with the rest";
    let done = planned.carry_out(store.as_ref(), |done| progress.set(done.into(), of)).await;
    drop(progress);
    let done = done.map_err(|error| Failure::from(error).with_hint(again))?;
    say("giving back the space");
    store.compact(plan.vacuum_full).await.map_err(not_compacted)?;
    let bytes_after = store.size().await?;
    (answer.transactions, answer.bytes) = (done.transactions, done.bytes);
    (answer.bytes_before, answer.bytes_after) = (Some(bytes_before), Some(bytes_after));
    if json {
        return print_json(&answer);
    }
    print(&format!(
        "pruned {}\nstore {}: {bytes_before} bytes before, {bytes_after} after\n",
        in_words(&done),
        store.location()
    ))
}

fn not_compacted(error: StoreError) -> Failure {
    let reason = match error {
        StoreError::Unavailable(reason) => reason,
        error => error.to_string(),
    };
    Failure::failed(format!("all is pruned, but its space was not given back: {reason}")).with_hint(
        "SQLite writes the file anew: free twice the disk that it takes, there and in SQLITE_TMPDIR, and run the same \
         command again",
    )
}

fn in_words(plan: &PrunePlan) -> String {
    let PrunePlan { key_id, before_height, transactions, bytes, sequences } = plan;
    let whose =
        if *key_id == KeyId::ZERO { "without a signature".to_owned() } else { format!("of key {key_id}") };
    let numbers = sequences.map(|(first, last)| format!(", numbers {first} to {last}")).unwrap_or_default();
    format!("{transactions} transactions {whose} in blocks below {before_height}{numbers}: {bytes} bytes")
}

/// Asks the person at the terminal.
fn confirm(plan: &PrunePlan) -> Result<(), Failure> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Failure::new(Exit::Usage, "nobody can be asked whether to drop payloads for ever")
            .with_hint("--dry-run shows what would go, --yes prunes it"));
    }
    say(format_args!("prunes {}", in_words(plan)));
    say("This cannot be undone. Type yes to go on:");
    let mut answer = String::new();
    let read = stdin().lock().read_line(&mut answer);
    read.map_err(|error: io::Error| Failure::failed(format!("the terminal cannot be read: {error}")))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was pruned")),
    }
}

/// Where the record stands.
#[derive(Debug, Serialize)]
struct Recorded {
    id: TransactionId,
    /// Who signed it.
    key_id: KeyId,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<Height>,
}

fn tell(recorded: &Recorded) {
    match recorded.height {
        Some(height) => say(format_args!("the record {} stands in block {height}", recorded.id)),
        None => warn(
            &format!("the record {} is stored and waits for its block", recorded.id),
            Some("the receiver seals it with the next one"),
        ),
    }
}

/// Signs the record and has it stored, and mined where no receiver is there to do it. It is durable then.
async fn say_on_chain(
    settings: &Settings,
    record: &PruneRecord,
    holder: Option<String>,
) -> Result<Recorded, Failure> {
    let key = operator_key::load_or_create(settings)?;
    let transaction = sign(&key, record.to_payload())?;
    let (id, key_id) = (transaction.statement.id(), key.public_key().key_id());
    // A store of its own: a ledger closes the one that it has.
    let store = open_store(settings).await?;
    let least = store.branch().await?.map(|branch| branch.rules().difficulty).unwrap_or_default();
    let asked = Difficulty::new(settings.difficulty.into()).unwrap_or_default();
    let config = LedgerConfig {
        transactions_per_block: settings.transactions_per_block,
        difficulty: asked.max(least),
        nonce_limit: settings.nonce_limit,
        mining_threads: settings.mining_threads,
        pending_max: settings.pending_max,
        // Nobody else has this name: two of one name would take the right to seal from each other.
        holder: holder.unwrap_or_else(|| format!("prune-{}-{id}", std::process::id())),
        ..LedgerConfig::default()
    };
    let ledger = match Ledger::open(Arc::clone(&store), config).await {
        Ok(ledger) => ledger,
        Err(error) => {
            store.close().await;
            return Err(error.into());
        }
    };
    let status = seal(&ledger, transaction).await;
    ledger.shutdown().await;
    let height = match status? {
        Status::Pending => None,
        Status::Sealed(place) => Some(place.height),
    };
    Ok(Recorded { id, key_id, status: if height.is_some() { "sealed" } else { "pending" }, height })
}

fn sign(key: &SigningKey, payload: String) -> Result<NewTransaction, Failure> {
    let signature = key.sign(payload.as_bytes());
    let statement = Statement { key_id: key.public_key().key_id(), payload, signature };
    let statement = VerifiedStatement::verify(statement, key.public_key())
        .map_err(|error| Failure::failed(format!("the record cannot be signed: {error}")))?;
    Ok(NewTransaction { statement, public_key: Some(key.public_key().clone()) })
}

/// Submits the record, and mines what waits if it waits too.
async fn seal(ledger: &Ledger, record: NewTransaction) -> Result<Status, Failure> {
    let id = record.statement.id();
    let submission = ledger.submit(vec![record], Duration::ZERO).await?;
    let status = submission.acknowledgements.first().map_or(Status::Pending, |it| it.status);
    if status != Status::Pending {
        return Ok(status);
    }
    let waited = Instant::now();
    loop {
        let mined = ledger.mine_pending().await;
        let status = ledger.store().look_up(&[id]).await?.into_iter().next().flatten();
        match (mined, status.unwrap_or(Status::Pending)) {
            (_, status @ Status::Sealed(_)) => return Ok(status),
            // A receiver will mine it, or the right to do so is that of a program that was killed.
            (Err(LedgerError::SealedElsewhere), _) if waited.elapsed() < TAKEOVER => {
                tokio::time::sleep(TAKEOVER_POLL).await;
            }
            (Ok(None) | Err(LedgerError::SealedElsewhere), status) => return Ok(status),
            (Ok(Some(attempts)), status) => {
                say(format_args!("no block was found in {attempts} attempts"));
                return Ok(status);
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
}

/// What was done, as a program reads it.
#[derive(Debug, Serialize)]
struct Answer {
    key_id: KeyId,
    before_height: Height,
    dry_run: bool,
    transactions: u64,
    bytes: u64,
    from_sequence: Option<u64>,
    to_sequence: Option<u64>,
    /// None where there was nothing to say.
    record: Option<Recorded>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_after: Option<u64>,
}

impl Answer {
    fn of(planned: &PrunePlan, plan: &Plan) -> Self {
        Self {
            key_id: planned.key_id,
            before_height: planned.before_height,
            dry_run: plan.dry_run,
            transactions: planned.transactions,
            bytes: planned.bytes,
            from_sequence: planned.sequences.map(|(first, _)| first),
            to_sequence: planned.sequences.map(|(_, last)| last),
            record: None,
            bytes_before: None,
            bytes_after: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_height_or_a_time() {
        assert_eq!("1200".parse(), Ok(Before::Height(1200)));
        assert_eq!("1970-01-01T01:00:01+01:00".parse(), Ok(Before::Time(1000)));
        for text in ["", "-1", "4294967296", "1.5", "yesterday", "2026-12-01"] {
            assert!(text.parse::<Before>().is_err(), "{text}");
        }
    }

    #[test]
    fn takes_a_reason_of_one_line() {
        assert_eq!(parse_reason("the tenant asked").unwrap(), "the tenant asked");
        for text in ["", "  ", "a\nb", "a\u{1b}[31mb", &"x".repeat(REASON_SIZE_MAX + 1)] {
            assert!(parse_reason(text).is_err(), "{text:?}");
        }
    }
}
