//! One validation at a time, of every rule over what is on disk, whoever asks for it: `GET /validate` here, and
//! `/v1/validation`.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use axum::{Json, extract::State, http::StatusCode};
use liotbchain_core::{BlockHash, Height, KeyId, TimestampMs, check::Signatures};
use liotbchain_http::{ApiError, ErrorBody};
use liotbchain_node::{ValidateOptions, Validation, now_ms, validate_with};
use liotbchain_store::{Store, StoreError};
use serde::Serialize;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use utoipa::ToSchema;

use crate::{error::ServerError, state::Shared};

/// One validation at a time. Whoever asks while it runs gets its result too, and it ends whoever goes away.
#[derive(Default)]
pub(crate) struct Validating(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    running: Option<Running>,
    last: Option<Arc<Ended>>,
}

/// A validation that runs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) started_ms: TimestampMs,
    /// Whether signatures are verified too.
    pub(crate) signatures: bool,
    progress: Arc<Progress>,
    /// None while it runs.
    ended: watch::Receiver<Option<Arc<Ended>>>,
    cancel: Arc<Notify>,
}

#[derive(Default)]
struct Progress {
    blocks_done: AtomicU64,
    height: AtomicU64,
}

/// A validation that is over.
pub(crate) struct Ended {
    pub(crate) started_ms: TimestampMs,
    pub(crate) finished_ms: TimestampMs,
    pub(crate) signatures: bool,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// All of the chain was checked, up to the first fault.
    Finished(Validation),
    /// Somebody wanted no more of it.
    Cancelled,
    /// The store could not be read.
    Failed(StoreError),
    /// The program made a mistake.
    Panicked,
}

impl Validating {
    /// Returns what runs, and what ended last.
    pub(crate) fn state(&self) -> (Option<Running>, Option<Arc<Ended>>) {
        let slot = lock(&self.0);
        (slot.running.clone(), slot.last.clone())
    }

    /// Returns the validation that runs, or starts one. The second value tells whether it was started.
    pub(crate) fn start(&self, store: &Arc<dyn Store>, signatures: bool) -> (Running, bool) {
        let mut slot = lock(&self.0);
        if let Some(running) = &slot.running {
            return (running.clone(), false);
        }
        let (sender, ended) = watch::channel(None);
        let started_ms = now_ms();
        let (progress, cancel) = Default::default();
        let running = Running { started_ms, signatures, progress, ended, cancel };
        tokio::spawn(running.clone().run(Arc::clone(store), Arc::clone(&self.0), sender));
        (slot.running.insert(running).clone(), true)
    }

    /// Cancels the validation that runs, if one does, and returns once it is over.
    pub(crate) async fn cancel(&self) {
        if let (Some(running), _) = self.state() {
            running.cancel.notify_one();
            running.ended().await;
        }
    }

    /// Returns the end of the validation of everything that runs, or of a new one.
    async fn result(&self, store: &Arc<dyn Store>) -> Option<Arc<Ended>> {
        loop {
            let (running, _) = self.start(store, true);
            let ended = running.ended().await?;
            if ended.signatures {
                return Some(ended);
            }
        }
    }
}

impl Running {
    /// Blocks done, and the height of the last block known.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (load(&self.progress.blocks_done), load(&self.progress.height))
    }

    /// Waits until it is over. None only where the runtime shuts down.
    async fn ended(mut self) -> Option<Arc<Ended>> {
        self.ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone())
    }

    async fn run(
        self,
        store: Arc<dyn Store>,
        slot: Arc<Mutex<Slot>>,
        sender: watch::Sender<Option<Arc<Ended>>>,
    ) {
        // A task of its own, so that a panic in it is told and not waited for; it ends with the set.
        let mut task = JoinSet::new();
        let progress = Arc::clone(&self.progress);
        let signatures = if self.signatures { Signatures::Checked } else { Signatures::Skipped };
        task.spawn(async move {
            let options = ValidateOptions { signatures, ..ValidateOptions::default() };
            validate_with(&store, options, |done, height| {
                progress.blocks_done.store(done, Ordering::Relaxed);
                progress.height.store(height.into(), Ordering::Relaxed);
            })
            .await
        });
        let outcome = tokio::select! {
            joined = task.join_next() => match joined {
                Some(Ok(Ok(validation))) => Outcome::Finished(validation),
                Some(Ok(Err(error))) => Outcome::Failed(error),
                Some(Err(_)) | None => Outcome::Panicked,
            },
            () = self.cancel.notified() => Outcome::Cancelled,
        };
        if let Outcome::Failed(error) = &outcome {
            tracing::error!(%error, "a validation broke off");
        }
        let Self { started_ms, signatures, .. } = self;
        let ended = Arc::new(Ended { started_ms, finished_ms: now_ms(), signatures, outcome });
        let mut slot = lock(&slot);
        *slot = Slot { running: None, last: Some(Arc::clone(&ended)) };
        sender.send_replace(Some(ended));
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a validation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidationResult {
    /// Whether every block is valid.
    valid: bool,
    /// Valid blocks, from the genesis block on.
    #[schema(example = 51)]
    blocks: u64,
    /// Transactions in them, that of the genesis block included.
    #[schema(example = 101)]
    transactions: u64,
    /// How many of them were pruned, so that their signatures could not be checked.
    #[schema(example = 0)]
    pruned: u64,
    /// How many of these no record on the chain speaks of; null where that is not known.
    #[schema(example = 0)]
    pruned_without_record: Option<u64>,
    /// Hash of the last valid block.
    #[schema(value_type = Option<String>)]
    tip: Option<BlockHash>,
    /// Height of the last valid block.
    #[schema(example = 50)]
    height: Option<u64>,
    /// The first fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    fault: Option<Fault>,
    /// The first fault in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Block 10 is not valid: …", nullable = false)]
    message: Option<String>,
}

/// The first fault of a chain.
#[derive(Debug, Serialize, ToSchema)]
struct Fault {
    /// Height of the block.
    #[schema(value_type = u64, example = 10)]
    block: Height,
    /// Place of the transaction in it, from 0, where the fault is one transaction's.
    #[schema(example = 0)]
    transaction: Option<usize>,
    /// The field that is wrong.
    #[schema(example = "signature")]
    field: String,
    /// What is wrong with it.
    reason: String,
    /// Who signed the transaction, as its row says; zeros where nobody did. Not there where the fault is not one
    /// transaction's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    key_id: Option<KeyId>,
    /// The `device` in the stored text, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    device: Option<String>,
}

impl From<&Validation> for ValidationResult {
    fn from(validation: &Validation) -> Self {
        let fault = validation.fault.as_ref();
        Self {
            valid: fault.is_none(),
            blocks: validation.valid_blocks,
            transactions: validation.transactions,
            pruned: validation.pruned,
            pruned_without_record: validation.unrecorded,
            tip: validation.tip,
            height: validation.valid_blocks.checked_sub(1),
            fault: fault.map(|fault| Fault {
                block: fault.height,
                transaction: fault.position,
                field: fault.field.clone(),
                reason: fault.reason.clone(),
                key_id: fault.origin.as_ref().map(|origin| origin.key_id),
                device: fault.origin.as_ref().and_then(|origin| origin.device.clone()),
            }),
            message: fault.map(|fault| format!("Block {} is not valid: {}", fault.height, fault.reason)),
        }
    }
}

/// Checks every block, signature and row of what is stored, and names the first fault.
///
/// A chain that is not valid is an answer, not an error: the status is 200. Requests at the same time share one
/// validation.
#[utoipa::path(
    get,
    path = "/validate",
    tag = "chain",
    responses(
        (status = OK, description = "The chain was checked; `valid` says with what result.", body = ValidationResult),
        (status = SERVICE_UNAVAILABLE, description = "The store does not answer: try again.", body = ErrorBody),
    ),
)]
pub(crate) async fn get_validate(
    State(shared): State<Arc<Shared>>,
) -> Result<Json<ValidationResult>, ServerError> {
    let ended = shared.validating.result(shared.ledger.store()).await;
    let ended = ended.ok_or(ServerError::Internal("the validation is gone"))?;
    match &ended.outcome {
        Outcome::Finished(validation) => Ok(Json(validation.into())),
        // A store's error cannot be cloned, and everybody who asked is told of it.
        Outcome::Failed(error) => Err(StoreError::Unavailable(error.to_string()).into()),
        Outcome::Cancelled => Err(ServerError::Api(ApiError::failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "validation_cancelled",
            "somebody cancelled the validation: ask again",
            &"DELETE /v1/validation",
        ))),
        Outcome::Panicked => Err(ServerError::Internal("the validation failed")),
    }
}

#[cfg(test)]
mod tests {
    use liotbchain_store::memory::MemoryStore;

    use super::*;

    fn empty() -> (Arc<dyn Store>, Validating) {
        (Arc::new(MemoryStore::default()), Validating::default())
    }

    #[tokio::test]
    async fn one_validation_runs_at_a_time_and_a_later_one_is_new() {
        let (store, validating) = empty();
        // Nothing is awaited in between, so the first cannot be done.
        let (first, second) = (validating.start(&store, true), validating.start(&store, true));
        assert_eq!((first.1, second.1), (true, false));
        assert!(first.0.ended.same_channel(&second.0.ended));
        let ended = validating.result(&store).await.unwrap();
        assert!(matches!(ended.outcome, Outcome::Finished(_)));
        let (running, last) = validating.state();
        assert!(running.is_none());
        assert!(Arc::ptr_eq(&last.unwrap(), &ended));
        assert!(validating.start(&store, true).1);
    }

    #[tokio::test]
    async fn who_wants_signatures_verified_waits_for_a_validation_of_them() {
        let (store, validating) = empty();
        let (without, _) = validating.start(&store, false);
        let with = validating.result(&store).await.unwrap();
        assert!(with.signatures);
        assert!(!without.ended().await.unwrap().signatures);
    }

    #[tokio::test]
    async fn a_validation_that_is_cancelled_makes_room_for_another() {
        let (store, validating) = empty();
        let (running, _) = validating.start(&store, true);
        validating.cancel().await;
        assert!(matches!(running.ended().await.unwrap().outcome, Outcome::Cancelled));
        assert!(validating.state().0.is_none());
        // Nothing runs: nothing to do.
        validating.cancel().await;
    }
}
