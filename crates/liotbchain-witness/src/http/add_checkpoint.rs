//! `POST /add-checkpoint`.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use liotbchain_http::{ApiError, Problem, read_body};

use crate::witness::{Refusal, Witness};

/// What the protocol calls the answer to who goes on from another size.
const SIZE_TYPE: &str = "text/x.tlog.size";
/// When to come back where blocks could not be checked.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Cosigns a checkpoint that goes on from the last one which was cosigned.
///
/// The body is `old` with the size last cosigned (0 at first), up to 63 lines of a proof of consistency, an empty line, and
/// the checkpoint with the log's signature: c2sp.org/tlog-witness. The answer is one line of signature.
#[utoipa::path(
    post,
    path = "/add-checkpoint",
    tag = "witness",
    request_body(content = String, content_type = "text/plain"),
    responses(
        (status = OK, description = "The cosignature.", body = String, content_type = "text/plain"),
        (
            status = BAD_REQUEST,
            description = "`bad_submission`, or `backwards`: the old size is above the checkpoint's.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = FORBIDDEN,
            description = "`not_signed`: no signature by a key of this log.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = NOT_FOUND,
            description = "`unknown_log`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = CONFLICT,
            description = "The size last cosigned is another one, and stands in the body. Or, as a problem `fork`: another \
                           root of this size was cosigned.",
            body = String,
            content_type = "text/x.tlog.size",
        ),
        (
            status = PAYLOAD_TOO_LARGE,
            description = "`body_too_large`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = UNPROCESSABLE_ENTITY,
            description = "`bad_proof`, or `bad_chain`: the blocks behind it break a rule, or have another root.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = SERVICE_UNAVAILABLE,
            description = "`chain_unchecked`: the blocks behind it cannot be fetched now, or not all of them yet.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
pub(crate) async fn add_checkpoint(State(witness): State<Witness>, request: Request) -> Response {
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    match witness.add_checkpoint(&body).await {
        Ok(lines) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], lines).into_response(),
        Err(Refusal::OtherSize { known }) => {
            (StatusCode::CONFLICT, [(header::CONTENT_TYPE, SIZE_TYPE)], format!("{known}\n")).into_response()
        }
        Err(refusal) => to_error(&refusal).into_response(),
    }
}

/// Gives a refusal its status and its name. Without the media type of a size, 409 is told from that of another old size.
pub(super) fn to_error(refusal: &Refusal) -> ApiError {
    let (status, code) = match refusal {
        Refusal::Form(_) => (StatusCode::BAD_REQUEST, "bad_submission"),
        Refusal::UnknownLog(_) => (StatusCode::NOT_FOUND, "unknown_log"),
        Refusal::Signature(_) => (StatusCode::FORBIDDEN, "not_signed"),
        Refusal::Backwards { .. } => (StatusCode::BAD_REQUEST, "backwards"),
        Refusal::OtherSize { .. } => (StatusCode::CONFLICT, "other_size"),
        Refusal::OtherRoot { .. } => (StatusCode::CONFLICT, "fork"),
        Refusal::Proof(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_proof"),
        Refusal::Chain(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_chain"),
        Refusal::Unchecked(error) => {
            // Where the log's own blocks are is no secret to it; what is wrong with our disk is none of its business.
            let message = match error {
                crate::copy::CopyError::Store(_) => {
                    "the witness cannot keep its copy of the chain now".to_owned()
                }
                _ => refusal.to_string(),
            };
            return ApiError::busy("chain_unchecked", message, RETRY_AFTER);
        }
        Refusal::State(_) => {
            let message = "the witness cannot write what it cosigns, so it does not cosign";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return ApiError::failure(status, "state_unavailable", message, refusal);
        }
        Refusal::Task(_) => return ApiError::internal(refusal),
    };
    ApiError::refusal(status, code, refusal.to_string())
}
