//! `GET /validate`: every rule, over what is on disk.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Json, extract::State};
use liotbchain_core::{BlockHash, Height};
use liotbchain_http::ErrorBody;
use liotbchain_node::{Validation, validate};
use liotbchain_store::{Store, StoreError};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::{error::ServerError, state::Shared};

/// One validation at a time. Whoever asks while it runs gets its result too, and it ends whoever goes away.
#[derive(Default)]
pub(crate) struct Validating(Mutex<Option<watch::Receiver<Finished>>>);

/// None while the validation runs.
type Finished = Option<Arc<Result<Validation, StoreError>>>;

impl Validating {
    /// Returns the result of the validation that runs, or of a new one.
    async fn result(
        &self,
        store: &Arc<dyn Store>,
    ) -> Result<Arc<Result<Validation, StoreError>>, ServerError> {
        let mut running = self.join(store);
        let finished = running.wait_for(Option::is_some).await.ok().and_then(|finished| finished.clone());
        finished.ok_or(ServerError::Internal("the validation failed"))
    }

    fn join(&self, store: &Arc<dyn Store>) -> watch::Receiver<Finished> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Its task holds the sender as long as it runs.
        if let Some(running) = slot.as_ref().filter(|it| it.has_changed().is_ok()) {
            return running.clone();
        }
        let (sender, running) = watch::channel(None);
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let result = validate(&store, |_, _| {}).await;
            sender.send_replace(Some(Arc::new(result)));
        });
        slot.insert(running).clone()
    }
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
}

impl From<&Validation> for ValidationResult {
    fn from(validation: &Validation) -> Self {
        let fault = validation.fault.as_ref();
        Self {
            valid: fault.is_none(),
            blocks: validation.valid_blocks,
            transactions: validation.transactions,
            tip: validation.tip,
            height: validation.valid_blocks.checked_sub(1),
            fault: fault.map(|fault| Fault {
                block: fault.height,
                transaction: fault.position,
                field: fault.field.clone(),
                reason: fault.reason.clone(),
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
    match shared.validating.result(shared.ledger.store()).await?.as_ref() {
        Ok(validation) => Ok(Json(validation.into())),
        Err(error) => Err(shared_error(error)),
    }
}

/// A store's error cannot be cloned, and everybody who asked is told of it.
fn shared_error(error: &StoreError) -> ServerError {
    StoreError::Unavailable(error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use liotbchain_store::memory::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn one_validation_runs_at_a_time_and_a_later_one_is_new() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let validating = Validating::default();
        // Nothing is awaited in between, so the first cannot be done.
        let (first, second) = (validating.join(&store), validating.join(&store));
        assert!(first.same_channel(&second));
        assert!(validating.result(&store).await.unwrap().is_ok());
        assert!(!validating.join(&store).same_channel(&first));
    }
}
