//! What the routes answer when they cannot do as asked.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use liotbchain_http::{ApiError, ItemError};
use liotbchain_node::LedgerError;
use liotbchain_store::StoreError;

use crate::{
    items::ItemsError,
    load::Overload,
    v1::{bounds::Crowded, submission::SubmissionError},
    verify::InvalidItems,
};

/// When a client should try again what failed for a passing reason.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a route did not do as asked. The messages of the first three are the client's, of the others the log's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// The edge refused.
    #[error("{}", .0.code())]
    Api(ApiError),
    /// The body holds no items that could be verified.
    #[error(transparent)]
    Items(#[from] ItemsError),
    /// Some items are at fault.
    #[error(transparent)]
    InvalidItems(#[from] InvalidItems),
    /// The body of `POST /v1/transactions` holds none that could be verified.
    #[error(transparent)]
    Submission(#[from] SubmissionError),
    /// The receiver has as much to do as it takes.
    #[error(transparent)]
    Overload(#[from] Overload),
    /// The receiver has as much in memory as it takes.
    #[error(transparent)]
    Crowded(#[from] Crowded),
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The chain moved to another branch while its first blocks were read.
    #[error("the chain moved to another branch at height {0} while it was read")]
    Moved(liotbchain_core::Height),
    /// What is stored gives no proof that holds.
    #[error("what is stored gives no proof that holds: {0}")]
    Unprovable(liotbchain_core::receipt::ReceiptError),
    /// Something that cannot happen did.
    #[error("{0}")]
    Internal(&'static str),
}

impl ServerError {
    /// Returns whether the store failed.
    pub(crate) fn is_by_store(&self) -> bool {
        matches!(self, Self::Ledger(LedgerError::Store(_) | LedgerError::Slow(_)))
    }

    /// Returns how many items were refused with it; a body that holds no list has none.
    pub(crate) fn refused_items(&self) -> usize {
        match self {
            Self::InvalidItems(InvalidItems { count, .. })
            | Self::Submission(SubmissionError::InvalidItems { count, .. }) => *count,
            _ => 0,
        }
    }
}

impl From<ApiError> for ServerError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<StoreError> for ServerError {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error.into())
    }
}

/// Marks an answer that a failing store caused, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreFailed;

impl From<ServerError> for ApiError {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Api(error) => error,
            ServerError::Items(error) => refuse_body(&error),
            ServerError::InvalidItems(error) => refuse_items(&error),
            ServerError::Submission(error) => refuse_submission(&error),
            ServerError::Overload(cause) => overloaded(&cause),
            ServerError::Crowded(cause) => overloaded(&cause),
            ServerError::Ledger(cause @ (LedgerError::Overloaded { .. } | LedgerError::Busy)) => {
                overloaded(&cause)
            }
            ServerError::Ledger(cause) if cause.is_passing() => unavailable(
                "store_unavailable",
                "the store is not available at the moment: try again",
                &cause,
            ),
            ServerError::Moved(_) => unavailable(
                "chain_moved",
                "the chain moved to another branch while it was read: try again",
                &error,
            ),
            ServerError::Ledger(_) | ServerError::Unprovable(_) | ServerError::Internal(_) => {
                ApiError::internal(&error)
            }
        }
    }
}

impl IntoResponse for ServerError {
    fn into_response(self) -> Response {
        let by_store = self.is_by_store();
        let mut response = ApiError::from(self).into_response();
        if by_store {
            response.extensions_mut().insert(StoreFailed);
        }
        response
    }
}

fn unavailable(code: &'static str, message: &str, cause: &dyn std::fmt::Display) -> ApiError {
    ApiError::failure(StatusCode::SERVICE_UNAVAILABLE, code, message, cause).with_retry_after(RETRY_AFTER)
}

fn overloaded(cause: &dyn std::fmt::Display) -> ApiError {
    unavailable("overloaded", "the receiver has as much to do as it can take: try again", cause)
}

fn refuse_body(error: &ItemsError) -> ApiError {
    let status = match error {
        ItemsError::TooManyItems { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    ApiError::refusal(status, error.code(), error.to_string())
}

fn refuse_items(error: &InvalidItems) -> ApiError {
    refuse_list(
        error.to_string(),
        error.listed.iter().map(|(index, fault)| (*index, fault.code(), fault.to_string())),
    )
}

fn refuse_submission(error: &SubmissionError) -> ApiError {
    let status = match error {
        SubmissionError::InvalidItems { listed, .. } => {
            let items = listed.iter().map(|(index, fault)| (*index, fault.code(), fault.to_string()));
            return refuse_list(error.to_string(), items);
        }
        SubmissionError::TooManyItems { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    ApiError::refusal(status, error.code(), error.to_string())
}

/// A payload that is too large makes the whole answer 413, for clients that look at the status alone.
fn refuse_list(message: String, items: impl Iterator<Item = (usize, &'static str, String)>) -> ApiError {
    let items: Vec<_> = items.map(|(index, code, message)| ItemError { index, code, message }).collect();
    let (status, code) = match items.iter().find(|item| item.code == "payload_too_large") {
        Some(item) => (StatusCode::PAYLOAD_TOO_LARGE, item.code),
        None => (StatusCode::BAD_REQUEST, "invalid_items"),
    };
    ApiError::refusal(status, code, message).with_items(items)
}
