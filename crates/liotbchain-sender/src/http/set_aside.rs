//! `GET /set_aside`: what a receiver refused for good, and why.

use axum::{Json, extract::State, http::StatusCode};
use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_http::{ApiError, ErrorBody, Parameters, bad_query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{outbox::Record, sender::Sender};

/// Records that are shown at most: with the longest texts they take 7 MB.
const LIMIT_MAX: u32 = 100;
const LIMIT_DEFAULT: u32 = 20;

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SetAsideParameters {
    /// Records to show.
    #[param(minimum = 1, maximum = 100, default = 20, nullable = false)]
    limit: Option<u32>,
}

/// The records that were refused last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SetAside {
    /// How many are kept apart in all.
    total: u64,
    /// The latest of them, the newest first.
    records: Vec<RefusedRecord>,
}

/// One that a receiver will not take.
#[derive(Debug, Serialize, ToSchema)]
struct RefusedRecord {
    /// Its id: what the receiver would have called the transaction.
    id: String,
    /// Whose reading it is.
    device: String,
    /// What the receiver said.
    reason: String,
    /// The text that is signed.
    payload: String,
    /// The signature, in Base64.
    signature: String,
    /// Id of the key that verifies it.
    key_id: String,
}

impl RefusedRecord {
    fn new((Record { id, device, statement, .. }, reason): (Record, String)) -> Self {
        Self {
            id: id.to_string(),
            device: device.to_string(),
            reason,
            signature: STANDARD.encode(&statement.signature),
            key_id: statement.key_id.to_string(),
            payload: statement.payload,
        }
    }
}

/// Shows the records that a receiver refused for good. They stay on the disk, and are not sent again.
#[utoipa::path(
    get,
    path = "/set_aside",
    tag = "readings",
    params(SetAsideParameters),
    responses(
        (status = 200, description = "The latest of them.", body = SetAside),
        (status = 400, description = "`bad_query`.", body = ErrorBody),
        (status = 503, description = "`queue_unreadable`: the disk does not answer.", body = ErrorBody),
    ),
)]
pub(crate) async fn get_set_aside(
    State(sender): State<Sender>,
    Parameters(parameters): Parameters<SetAsideParameters>,
) -> Result<Json<SetAside>, ApiError> {
    let limit = parameters.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(bad_query(&format!("limit is {limit}: expected 1 to {LIMIT_MAX}")));
    }
    let records = sender.set_aside(limit).await.map_err(|error| {
        let message = "the queue cannot be read: try again later";
        ApiError::failure(StatusCode::SERVICE_UNAVAILABLE, "queue_unreadable", message, &error)
    })?;
    let total = sender.gateway().status().borrow().set_aside;
    Ok(Json(SetAside { total, records: records.into_iter().map(RefusedRecord::new).collect() }))
}
