//! Reading the body of a request: JSON by its content type, of bounded size, within bounded time.

use axum::{
    body::HttpBody,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::{ApiError, Limits};

/// The bytes of a request that says it is JSON. Parsing them is the route's business.
#[derive(Debug)]
pub struct JsonBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        check_content_encoding(request.headers())?;
        read_body(request).await.map(Self)
    }
}

/// Reads the body of a request as it was sent, within the size and the time of the [`Limits`] that it was served with.
///
/// # Errors
///
/// A refusal of status 400, 408 or 413.
pub async fn read_body(request: Request) -> Result<Bytes, ApiError> {
    let limits = request.extensions().get::<Limits>().cloned().unwrap_or_default();
    let body = request.into_body();
    // The announced length is checked first, so that a client which waits for "100 Continue" sends nothing in vain.
    if body.size_hint().lower() > limits.body_size_max as u64 {
        return Err(too_large(limits.body_size_max));
    }
    timeout(limits.body_time, collect(body, limits.body_size_max)).await.map_err(|_| {
        let seconds = limits.body_time.as_secs();
        let message = format!("the body did not arrive within {seconds} seconds: send all of it at once");
        ApiError::refusal(StatusCode::REQUEST_TIMEOUT, "slow_request", message)
    })?
}

/// Bytes that are reserved for a body on the word of its client.
const RESERVED_MAX: usize = 1 << 20;

async fn collect(mut body: axum::body::Body, size_max: usize) -> Result<Bytes, ApiError> {
    // Most bodies announce their size; memory that is only reserved costs nothing.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut bytes = BytesMut::with_capacity(announced.min(RESERVED_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let message = format!("the body broke off or is not well-formed HTTP: {error}");
            ApiError::refusal(StatusCode::BAD_REQUEST, "broken_body", message)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > size_max - bytes.len() {
            return Err(too_large(size_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

pub(crate) fn too_large(size_max: usize) -> ApiError {
    let message = format!("the body is larger than {size_max} bytes: send less at once");
    ApiError::refusal(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

/// `application/json` and every `application/…+json`, as the Python original accepts them. Parameters are passed over:
/// JSON is UTF-8 whatever a charset says.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    if is_json(&media_type(headers)) {
        return Ok(());
    }
    let message = "the body must be JSON and say so: send the header Content-Type: application/json";
    Err(ApiError::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", message))
}

/// Returns the media type that a request says its body has, in lower case and without parameters; empty where it says
/// none.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Returns whether a media type is one of JSON.
pub fn is_json(media_type: &str) -> bool {
    media_type.strip_prefix("application/").is_some_and(|kind| kind == "json" || kind.ends_with("+json"))
}

fn check_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let plain = |value: &axum::http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    let message = "compressed bodies are not read: send the body as it is, without Content-Encoding";
    Err(ApiError::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(
        content_type: Option<&str>,
        encoding: Option<&str>,
        size: usize,
    ) -> Result<usize, &'static str> {
        let mut request = Request::post("/");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(encoding) = encoding {
            request = request.header(header::CONTENT_ENCODING, encoding);
        }
        let limits = Limits { body_size_max: 10, ..Limits::default() };
        let request = request.extension(limits).body(vec![b'x'; size].into()).unwrap();
        JsonBody::from_request(request, &()).await.map(|body| body.0.len()).map_err(|error| error.code())
    }

    #[tokio::test]
    async fn takes_every_content_type_of_json() {
        let types = ["application/json", "application/json; charset=latin-1", "Application/VND.x+JSON"];
        for content_type in types {
            assert_eq!(read(Some(content_type), None, 10).await, Ok(10), "{content_type}");
        }
        assert_eq!(read(Some("application/json"), Some("identity"), 1).await, Ok(1));
    }

    #[tokio::test]
    async fn refuses_other_content_types_and_compression() {
        let refused =
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")];
        for content_type in refused {
            assert_eq!(
                read(content_type, None, 1).await,
                Err("unsupported_content_type"),
                "{content_type:?}"
            );
        }
        assert_eq!(read(Some("application/json"), Some("gzip"), 1).await, Err("unsupported_encoding"));
    }

    #[tokio::test]
    async fn refuses_a_body_above_the_limit() {
        assert_eq!(read(Some("application/json"), None, 11).await, Err("body_too_large"));
    }
}
