//! `/v1/validation`: start a validation of the chain, watch it, cancel it, read the last one's result.

use std::sync::Arc;

use axum::{
    Json,
    body::HttpBody,
    extract::{FromRequest, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use liotbchain_core::TimestampMs;
use liotbchain_http::{ApiError, JsonBody, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::ServerError,
    state::Shared,
    validate::{Ended, Outcome, Running, Validating, ValidationResult},
};

/// What to validate. No body asks for all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ValidationOptions {
    /// Whether signatures are verified, which is most of the work. All else is checked in any case.
    #[schema(default = true)]
    signatures: bool,
}

impl Default for ValidationOptions {
    fn default() -> Self {
        Self { signatures: true }
    }
}

/// What runs, and what ended last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidationState {
    /// The validation that runs.
    running: Option<RunningValidation>,
    /// The last one that ended since the receiver started.
    last: Option<EndedValidation>,
}

/// A validation that runs.
#[derive(Debug, Serialize, ToSchema)]
struct RunningValidation {
    /// When it was started, in milliseconds since 1970.
    #[schema(value_type = u64)]
    started_ms: TimestampMs,
    /// Whether signatures are verified.
    signatures: bool,
    /// Blocks done.
    blocks_done: u64,
    /// Height of the last block to do; 0 until it is known.
    height: u64,
}

/// A validation that is over.
#[derive(Debug, Serialize, ToSchema)]
struct EndedValidation {
    /// When it was started, in milliseconds since 1970.
    #[schema(value_type = u64)]
    started_ms: TimestampMs,
    /// When it ended, in milliseconds since 1970.
    #[schema(value_type = u64)]
    finished_ms: TimestampMs,
    /// Whether signatures were verified.
    signatures: bool,
    /// How it ended.
    outcome: OutcomeName,
    /// What it found, where it was finished.
    result: Option<ValidationResult>,
}

/// How a validation ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OutcomeName {
    /// `result` says what it found.
    Finished,
    /// Somebody cancelled it.
    Cancelled,
    /// The store could not be read; the receiver's log has the cause.
    Failed,
}

impl ValidationState {
    fn of(validating: &Validating) -> Self {
        let (running, last) = validating.state();
        Self { running: running.as_ref().map(Into::into), last: last.as_deref().map(Into::into) }
    }
}

impl From<&Running> for RunningValidation {
    fn from(running: &Running) -> Self {
        let (blocks_done, height) = running.progress();
        let Running { started_ms, signatures, .. } = *running;
        Self { started_ms, signatures, blocks_done, height }
    }
}

impl From<&Ended> for EndedValidation {
    fn from(ended: &Ended) -> Self {
        let Ended { started_ms, finished_ms, signatures, ref outcome } = *ended;
        let (outcome, result) = match outcome {
            Outcome::Finished(validation) => (OutcomeName::Finished, Some(validation.into())),
            Outcome::Cancelled => (OutcomeName::Cancelled, None),
            Outcome::Failed(_) | Outcome::Panicked => (OutcomeName::Failed, None),
        };
        Self { started_ms, finished_ms, signatures, outcome, result }
    }
}

/// Returns the progress of the validation that runs, and the result of the last one.
#[utoipa::path(
    get,
    path = "/v1/validation",
    operation_id = "get_validation",
    tag = "v1",
    responses((status = OK, description = "What runs, and what ended last.", body = ValidationState)),
)]
pub(crate) async fn get_validation(State(shared): State<Arc<Shared>>) -> Response {
    answer(&shared, StatusCode::OK)
}

/// Starts a validation of the chain.
///
/// One runs at a time: while it does, nothing is started, and the answer is its progress.
#[utoipa::path(
    post,
    path = "/v1/validation",
    operation_id = "start_validation",
    tag = "v1",
    request_body(content = Option<ValidationOptions>),
    responses(
        (status = ACCEPTED, description = "It was started; `Location` shows its progress.", body = ValidationState),
        (status = OK, description = "One runs already.", body = ValidationState),
        (
            status = BAD_REQUEST,
            description = "The body is not what is asked for.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = UNSUPPORTED_MEDIA_TYPE,
            description = "There is a body, and it does not say that it is JSON.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
    security((), ("token" = [])),
)]
pub(crate) async fn start_validation(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ServerError> {
    let options = read_options(request).await?;
    let (_, is_new) = shared.validating.start(shared.ledger.store(), options.signatures);
    Ok(answer(&shared, if is_new { StatusCode::ACCEPTED } else { StatusCode::OK }))
}

/// Cancels the validation that runs. Where none does, there is nothing to do, and that is no error.
#[utoipa::path(
    delete,
    path = "/v1/validation",
    operation_id = "cancel_validation",
    tag = "v1",
    responses((status = NO_CONTENT, description = "No validation runs any more.")),
    security((), ("token" = [])),
)]
pub(crate) async fn cancel_validation(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.validating.cancel().await;
    StatusCode::NO_CONTENT
}

/// A validation without options needs no body, and no content type then.
async fn read_options(request: Request) -> Result<ValidationOptions, ApiError> {
    if request.body().is_end_stream() {
        return Ok(ValidationOptions::default());
    }
    let JsonBody(body) = JsonBody::from_request(request, &()).await?;
    // Only an object: the derived reader takes a list of its values, too.
    let text = body.trim_ascii_start();
    let is_object = text.starts_with(b"{") || text.starts_with(b"null");
    let options: Option<ValidationOptions> = match serde_json::from_slice(&body) {
        Ok(options) if is_object => options,
        refused => {
            let reason = refused.err().map_or("not an object".to_owned(), |error| error.to_string());
            let message = format!(
                "the body is not what is asked for ({reason}): send {{\"signatures\": false}}, or no body"
            );
            return Err(ApiError::refusal(StatusCode::BAD_REQUEST, "invalid_body", message));
        }
    };
    Ok(options.unwrap_or_default())
}

fn answer(shared: &Shared, status: StatusCode) -> Response {
    let location = (status == StatusCode::ACCEPTED).then_some([(header::LOCATION, "/v1/validation")]);
    let caching = [(header::CACHE_CONTROL, "no-store")];
    (status, location, caching, Json(ValidationState::of(&shared.validating))).into_response()
}
