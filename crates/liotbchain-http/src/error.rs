//! The one shape of every refusal: a status, words for people, a stable code for programs.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// An error answer.
///
/// Of a failure of ours (5xx) the client learns only a request id; the cause is logged under that id, since it may name
/// paths, hosts and statements that are nobody else's business.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Arc<ErrorBody>,
}

/// What an answer refuses, for those who give it another shape.
#[derive(Debug, Clone)]
pub(crate) struct Refused(pub(crate) Arc<ErrorBody>);

/// The body of an error answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorBody {
    /// Always `error`.
    #[schema(example = "error")]
    status: &'static str,
    /// What is wrong, why, and what to do about it.
    pub(crate) message: String,
    /// Stable name of the error, for programs.
    #[schema(example = "not_json")]
    pub(crate) code: &'static str,
    /// The items at fault, where the request as a whole is sound.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) items: Vec<ItemError>,
    /// Names the entry of the server's log that holds the cause; only in 5xx answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// What is wrong with one item of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ItemError {
    /// 0-based place in the list.
    pub index: usize,
    /// Stable name of the error.
    #[schema(value_type = String, example = "invalid_signature")]
    pub code: &'static str,
    /// What is wrong with the item, and what to do about it.
    pub message: String,
}

impl ApiError {
    /// Refuses a request for a fault of its own: a status of 4xx.
    pub fn refusal(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(status.is_client_error(), "a failure of ours hides its cause: ApiError::failure");
        let body =
            ErrorBody { status: "error", message: message.into(), code, items: Vec::new(), request_id: None };
        Self { status, retry_after: None, body: Arc::new(body) }
    }

    /// Reports a failure of ours, 5xx, and logs the cause under the request id that the answer carries.
    ///
    /// `message` must not hold the cause.
    pub fn failure(status: StatusCode, code: &'static str, message: &str, cause: &dyn fmt::Display) -> Self {
        let request_id = format!("{:016x}", rand::random::<u64>());
        tracing::error!(%request_id, code, %cause, "request failed");
        let message = format!("{message} (request {request_id}; the server's log has the cause)");
        let body =
            ErrorBody { status: "error", message, code, items: Vec::new(), request_id: Some(request_id) };
        Self { status, retry_after: None, body: Arc::new(body) }
    }

    /// Refuses a request for now, 503, for a reason that the client may know. Nothing is logged: it comes with every
    /// request for as long as it lasts, and whoever is at the reason tells it once.
    pub fn busy(code: &'static str, message: impl Into<String>, retry_after: Duration) -> Self {
        let body =
            ErrorBody { status: "error", message: message.into(), code, items: Vec::new(), request_id: None };
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, retry_after: Some(retry_after), body: Arc::new(body) }
    }

    /// Reports a fault in the program itself.
    pub fn internal(cause: &dyn fmt::Display) -> Self {
        Self::failure(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the server made a mistake", cause)
    }

    /// Names the items at fault.
    pub fn with_items(mut self, items: Vec<ItemError>) -> Self {
        Arc::make_mut(&mut self.body).items = items;
        self
    }

    /// Says when to try again. Rounded up to whole seconds.
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the stable name of the error.
    pub fn code(&self) -> &'static str {
        self.body.code
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&*self.body)).into_response();
        response.extensions_mut().insert(Refused(self.body));
        let headers = response.headers_mut();
        if let Some(delay) = self.retry_after {
            let seconds = delay.as_millis().div_ceil(1000).max(1);
            headers
                .insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn answer(error: ApiError) -> (Response<()>, serde_json::Value) {
        let (parts, body) = error.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(parts, ()), serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn names_the_items_at_fault() {
        let item = ItemError { index: 3, code: "bad_base64", message: "not base64".into() };
        let error = ApiError::refusal(StatusCode::BAD_REQUEST, "invalid_items", "1 item is at fault");
        let (response, body) = answer(error.with_items(vec![item])).await;
        assert_eq!(response.status(), 400);
        let expected = serde_json::json!({
            "status": "error", "message": "1 item is at fault", "code": "invalid_items",
            "items": [{"index": 3, "code": "bad_base64", "message": "not base64"}],
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn keeps_the_cause_of_a_failure_to_itself() {
        let error = ApiError::failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "the store is not reachable: try again later",
            &"password authentication failed for user liot",
        );
        let (response, body) = answer(error.with_retry_after(Duration::from_millis(1200))).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let request_id = body["request_id"].as_str().unwrap();
        assert_eq!(request_id.len(), 16);
        assert!(body["message"].as_str().unwrap().contains(request_id));
        assert!(!body.to_string().contains("password"), "{body}");
    }

    #[tokio::test]
    async fn says_how_to_authenticate() {
        let (response, _) =
            answer(ApiError::refusal(StatusCode::UNAUTHORIZED, "unauthorized", "token")).await;
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
}
