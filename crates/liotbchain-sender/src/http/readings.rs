//! `POST /readings`: what devices measured, in; answered once it is on the disk.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::HttpBody,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use liotbchain_core::TransactionId;
use liotbchain_http::{
    ApiError, ContentEncoding, ErrorBody, ItemError, Limits, Parameters, is_json, media_type, read_body,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    gateway::Gateway,
    intake::{self, Form, IntakeError, READINGS_MAX},
    outbox::{OutboxError, Queued},
    reading::{DeviceName, Reading},
};

/// Bodies up to this size are always read: the number of connections bounds them.
const SMALL_BODY: usize = 64 << 10;
/// Bytes that larger bodies have in all. Unpacked and as texts of readings a body takes about twice its size again.
const LARGE_BODIES: usize = 16 << 20;
/// Bodies up to this size are decoded on the spot: less work than handing them over.
const INLINE_BODY: usize = 4 << 10;
/// Readings that all bodies may make at a time, until the disk has them. One of two bytes takes more than a hundred, so
/// the size of bodies alone bounds nothing.
const READINGS_AT_A_TIME: usize = 50_000;
/// How long a large body, or many readings, wait for their turn.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// When a device should come again. A queue does not empty, nor a disk, from one second to the next.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long the log hears nothing more of readings that are refused.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// One permit a [`SMALL_BODY`]. Memory is the whole process's, and so is its bound.
static ROOM: Semaphore = Semaphore::const_new(LARGE_BODIES / SMALL_BODY);
/// One permit a reading.
static PLACES: Semaphore = Semaphore::const_new(READINGS_AT_A_TIME);

/// Whose readings they are.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadingsQuery {
    /// Name of the device, for readings that do not say it or say it otherwise: 1 to 128 bytes, without control
    /// characters, `+` and `#`.
    #[param(nullable = false, example = "greenhouse-1")]
    device: Option<String>,
}

/// A reading: any JSON object, which is signed as it stands there. These members mean something to the gateway.
#[derive(ToSchema)]
#[schema(as = Reading, example = json!({"device": "greenhouse-1", "celsius": 21.5, "counter": 42}))]
#[expect(dead_code, reason = "describes what the intake reads without writing it again")]
pub(crate) struct ReadingJson {
    /// Name of the device, unless the address says it.
    #[schema(required = false, nullable = false)]
    device: Option<String>,
    /// Tells the reading from all others of the device, so that sending it again makes no second record: a text, or a
    /// whole number.
    #[schema(required = false, nullable = false, value_type = String)]
    reading_id: Option<String>,
    /// The same as a whole number that grows with each reading.
    #[schema(required = false, nullable = false)]
    counter: Option<u64>,
    /// The text that the device signed, for a device that signs; nothing but the next two may stand beside it.
    #[schema(required = false, nullable = false)]
    payload: Option<String>,
    /// Its signature, in base64.
    #[schema(required = false, nullable = false)]
    signature: Option<String>,
    /// The device's public key, in PEM.
    #[schema(required = false, nullable = false)]
    public_key: Option<String>,
}

/// Readings that are on the gateway's disk.
#[derive(Serialize, ToSchema)]
#[schema(as = QueuedReadings)]
pub(crate) struct Answer {
    /// Always `success`.
    #[schema(example = "success")]
    status: &'static str,
    /// What was done.
    message: String,
    /// One a reading, in the order given.
    items: Vec<Item>,
}

/// A reading that is on the gateway's disk.
#[derive(Serialize, ToSchema)]
#[schema(as = QueuedReading)]
pub(crate) struct Item {
    /// Id of its record, by which the chain will have it.
    #[schema(value_type = String)]
    id: TransactionId,
    /// `queued`, or `duplicate` where the device sent it before.
    #[schema(example = "queued")]
    status: &'static str,
}

/// Takes readings, all or none, and answers once they are on the disk.
///
/// From then on they are on their way to the receiver, whatever happens to the line or the power. Of a request that was
/// not answered, or answered with 503, nobody knows whether it was taken: send the same again. With an `Idempotency-Key`,
/// or a `reading_id` or `counter` in each reading, that makes no second record.
#[utoipa::path(
    post,
    path = "/readings",
    operation_id = "post_readings",
    tag = "readings",
    params(
        ReadingsQuery,
        (
            "Idempotency-Key" = Option<String>, Header,
            description = "Tells this request from all others of the device: 1 to 240 visible characters. In a list each \
                           reading adds its number.",
        ),
        ("Content-Encoding" = Option<String>, Header, description = "`gzip` or `zstd` where the body is compressed."),
    ),
    request_body(
        content(
            (Vec<ReadingJson> = "application/json"),
            (String = "application/x-ndjson"),
            (Object = "application/senml+json"),
        ),
        description = "A JSON object, a list of objects, an object a line, or a SenML pack (RFC 8428), which is one \
                       reading. At most 8,000 readings, each of at most 64,512 bytes.",
    ),
    responses(
        (status = ACCEPTED, description = "All are on the disk.", body = Answer),
        (
            status = BAD_REQUEST,
            description = "Not readings (`not_json`, `not_utf8`, `too_deep`, `empty_list`, `bad_query`, \
                           `broken_body`), one reading at \
                           fault (`missing_device`, `bad_device`, `duplicate_key`, `invalid_signature` and others), or \
                           some of a list (`invalid_items`); none was taken, and `items` names those at fault.",
            body = ErrorBody,
        ),
        (status = UNAUTHORIZED, description = "The token is missing or wrong.", body = ErrorBody),
        (status = REQUEST_TIMEOUT, description = "`slow_request`: the body came too slowly.", body = ErrorBody),
        (
            status = PAYLOAD_TOO_LARGE,
            description = "`body_too_large`, compressed or not, `too_many_items`, or `payload_too_large`.",
            body = ErrorBody,
        ),
        (
            status = UNSUPPORTED_MEDIA_TYPE,
            description = "`unsupported_content_type` or `unsupported_encoding`.",
            body = ErrorBody,
        ),
        (
            status = SERVICE_UNAVAILABLE,
            description = "`queue_full`, `queue_failed`, `stopping` or `overloaded`: send the same again later.",
            body = ErrorBody,
            headers(("Retry-After" = u64, description = "Seconds to wait.")),
        ),
    ),
    security((), ("token" = [])),
)]
pub(crate) async fn post_readings(
    State(gateway): State<Gateway>,
    Parameters(query): Parameters<ReadingsQuery>,
    request: Request,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let device = device_of(&query)?;
    let form = form_of(request.headers())?;
    let encoding = ContentEncoding::of(request.headers())?;
    let key = idempotency_key_of(request.headers())?;
    let size_max = request.extensions().get::<Limits>().cloned().unwrap_or_default().body_size_max;
    let announced = request.body().size_hint().exact().filter(|_| encoding == ContentEncoding::Identity);
    let room = make_room(announced, size_max).await?;
    let body = read_body(request).await?;
    let mut places = make_places(readings_at_most(&body, encoding)).await?;
    let is_small = body.len() <= INLINE_BODY && encoding == ContentEncoding::Identity;
    let decode = move || decode(encoding.decode(body, size_max)?, form, device.as_ref(), key.as_deref());
    let readings = if is_small {
        decode()?
    } else {
        let decoded = tokio::task::spawn_blocking(decode).await;
        decoded.map_err(|error| ApiError::internal(&error))??
    };
    drop(places.split(places.num_permits().saturating_sub(readings.len())));
    // In a task of its own: readings whose device hangs up take memory all the same until the disk has them.
    let taking = tokio::spawn(async move {
        let queued = gateway.take(readings).await;
        drop((room, places));
        queued
    });
    let queued = taking.await.map_err(|error| ApiError::internal(&error))?.map_err(refuse_for_now)?;
    Ok((StatusCode::ACCEPTED, Json(answer(&queued))))
}

/// Returns how many readings a body can make: each is an object. Of a compressed one nobody knows before it is unpacked.
fn readings_at_most(body: &[u8], encoding: ContentEncoding) -> usize {
    match encoding {
        ContentEncoding::Identity => body.iter().filter(|&&byte| byte == b'{').count().min(READINGS_MAX),
        _ => READINGS_MAX,
    }
}

/// Makes room for so many readings, until the permits are dropped.
async fn make_places(readings: usize) -> Result<SemaphorePermit<'static>, ApiError> {
    let permits = u32::try_from(readings).unwrap_or(u32::MAX);
    // The semaphore is never closed.
    let places = timeout(WAIT_MAX, PLACES.acquire_many(permits)).await.ok().and_then(Result::ok);
    places.ok_or_else(|| {
        let message =
            "readings of other requests wait for the disk, as many as may: send fewer at once, or later";
        ApiError::busy("overloaded", message, RETRY_AFTER)
    })
}

/// Makes room for a body of the size that was announced, if one was, until the permit is dropped.
async fn make_room(
    announced: Option<u64>,
    size_max: usize,
) -> Result<Option<SemaphorePermit<'static>>, ApiError> {
    // A body that is too large is refused before it is read; one of unknown size may become as large as allowed.
    let announced = announced.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    let size = announced.unwrap_or(size_max);
    if size <= SMALL_BODY || size > size_max {
        return Ok(None);
    }
    let permits = u32::try_from(size.min(LARGE_BODIES).div_ceil(SMALL_BODY)).unwrap_or(u32::MAX);
    // The semaphore is never closed.
    let room = timeout(WAIT_MAX, ROOM.acquire_many(permits)).await.ok().and_then(Result::ok);
    room.map(Some).ok_or_else(|| {
        let message = "large bodies of other requests take all memory they may: send less at once, or later";
        ApiError::busy("overloaded", message, RETRY_AFTER)
    })
}

fn device_of(query: &ReadingsQuery) -> Result<Option<DeviceName>, ApiError> {
    let device = query.device.as_deref().map(DeviceName::new).transpose();
    device.map_err(|error| bad_request("bad_device", format!("{error}: give the device another name")))
}

fn form_of(headers: &HeaderMap) -> Result<Form, ApiError> {
    match media_type(headers).as_str() {
        "application/senml+json" => Ok(Form::Senml),
        "application/x-ndjson" => Ok(Form::Lines),
        json if is_json(json) => Ok(Form::Json),
        _ => {
            let message = "the body must be JSON and say so: send the header Content-Type: application/json, or \
                           application/x-ndjson for an object a line, or application/senml+json";
            Err(ApiError::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", message))
        }
    }
}

fn idempotency_key_of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().map_err(|_| {
        bad_request(
            "bad_idempotency_key",
            "Idempotency-Key holds other than visible ASCII: send letters and digits",
        )
    })?;
    Ok(Some(key.to_owned()))
}

fn decode(
    body: Bytes,
    form: Form,
    device: Option<&DeviceName>,
    idempotency_key: Option<&str>,
) -> Result<Vec<Reading>, ApiError> {
    intake::decode(&body, form, device, idempotency_key).map_err(refuse)
}

/// A reading that is too large makes the whole answer 413, for clients that look at the status alone.
fn refuse(error: IntakeError) -> ApiError {
    let items: Vec<_> = error
        .faults()
        .iter()
        .map(|(index, fault)| ItemError { index: *index, code: fault.code(), message: fault.to_string() })
        .collect();
    let too_large = items.iter().find(|item| item.code == "payload_too_large");
    let (status, code) = match (too_large, error.code()) {
        (Some(item), _) => (StatusCode::PAYLOAD_TOO_LARGE, item.code),
        (None, code @ ("too_many_items" | "payload_too_large")) => (StatusCode::PAYLOAD_TOO_LARGE, code),
        (None, code) => (StatusCode::BAD_REQUEST, code),
    };
    ApiError::refusal(status, code, error.to_string()).with_items(items)
}

fn refuse_for_now(error: OutboxError) -> ApiError {
    warn_of(&error);
    match &error {
        OutboxError::Full { .. } => ApiError::busy("queue_full", error.to_string(), RETRY_AFTER),
        OutboxError::Disk(_) => {
            let message = "the queue cannot be written, nothing was taken for sure: /status says why; send the same again";
            ApiError::busy("queue_failed", message, RETRY_AFTER)
        }
        OutboxError::Closed => ApiError::busy("stopping", error.to_string(), RETRY_AFTER),
        OutboxError::InUse { .. } => ApiError::internal(&error),
    }
}

/// Tells the log, but not of every request for as long as it lasts.
fn warn_of(error: &OutboxError) {
    static WARNED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.is_none_or(|at| at.elapsed() >= WARNING_PAUSE) {
        *warned = Some(Instant::now());
        tracing::warn!("readings are refused: {error}");
    }
}

fn bad_request(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::refusal(StatusCode::BAD_REQUEST, code, message)
}

fn answer(queued: &[Queued]) -> Answer {
    let items = queued.iter().map(|queued| {
        let status = if queued.is_new { "queued" } else { "duplicate" };
        Item { id: queued.id, status }
    });
    let duplicates = queued.iter().filter(|queued| !queued.is_new).count();
    let readings = if queued.len() == 1 { "reading is" } else { "readings are" };
    let mut message = format!("{} {readings} stored and will be forwarded", queued.len());
    if duplicates > 0 {
        message += &format!("; {duplicates} came before");
    }
    Answer { status: "success", message, items: items.collect() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        KeyKind, SigningKey,
        journal::Journal,
        outbox::{OUTBOX_FILE, Outbox, OutboxLimits, WhenFull},
    };

    #[tokio::test(start_paused = true)]
    async fn large_bodies_wait_for_each_other_and_small_ones_do_not() {
        let refused = async |announced, size_max| make_room(announced, size_max).await.unwrap_err().code();
        let all = make_room(Some(LARGE_BODIES as u64), LARGE_BODIES).await.unwrap();
        assert!(all.is_some());
        assert_eq!(refused(Some(SMALL_BODY as u64 + 1), LARGE_BODIES).await, "overloaded");
        // Of unknown size, as what comes compressed.
        assert_eq!(refused(None, LARGE_BODIES).await, "overloaded");
        assert!(make_room(Some(SMALL_BODY as u64), LARGE_BODIES).await.unwrap().is_none());
        drop(all);
        assert!(make_room(None, LARGE_BODIES).await.unwrap().is_some());
        assert!(make_room(Some(u64::MAX), LARGE_BODIES).await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn readings_wait_while_too_many_are_on_their_way() {
        let mut all = make_places(READINGS_AT_A_TIME).await.unwrap();
        assert_eq!(make_places(1).await.unwrap_err().code(), "overloaded");
        drop(all.split(3));
        assert!(make_places(3).await.is_ok());
        assert_eq!(make_places(4).await.unwrap_err().code(), "overloaded");

        let folder = tempfile::tempdir().unwrap();
        let key = Arc::new(SigningKey::generate(KeyKind::Ed25519).unwrap());
        let limits = OutboxLimits { size_max: 64 << 20, when_full: WhenFull::Refuse };
        let (outbox, _) = Outbox::open(&folder.path().join(OUTBOX_FILE), key, limits).await.unwrap();
        let gateway = Gateway::new(outbox, Journal::default());
        let post = async |count: usize| {
            let query = Parameters(ReadingsQuery { device: Some("d".to_owned()) });
            let request = Request::post("/readings").header("content-type", "application/json");
            let request = request.body(format!("[{}]", vec!["{}"; count].join(",")).into()).unwrap();
            let answer = post_readings(State(gateway.clone()), query, request).await;
            answer.map(|(status, _)| status).map_err(|error| (error.status(), error.code()))
        };
        assert_eq!(post(4).await, Err((StatusCode::SERVICE_UNAVAILABLE, "overloaded")));
        assert_eq!(post(3).await, Ok(StatusCode::ACCEPTED));
        assert_eq!(post(3).await, Ok(StatusCode::ACCEPTED));
    }

    #[test]
    fn a_body_never_makes_more_readings_than_it_has_places() {
        let list = format!("[{}]", vec!["{}"; READINGS_MAX].join(","));
        for (body, form) in [
            ("{\"v\":{}}", Form::Json),
            ("[{},{\"v\":[{},\"{{\"]}]", Form::Json),
            (&list, Form::Json),
            ("{}\n\n{\"v\":1}", Form::Lines),
            ("[{\"n\":\"a\",\"v\":1},{\"n\":\"b\",\"v\":1}]", Form::Senml),
        ] {
            let device = DeviceName::new("d").unwrap();
            let made = intake::decode(body.as_bytes(), form, Some(&device), None).unwrap().len();
            assert!(made <= readings_at_most(body.as_bytes(), ContentEncoding::Identity), "{body:.100}");
        }
        assert_eq!(readings_at_most(list.repeat(2).as_bytes(), ContentEncoding::Identity), READINGS_MAX);
        assert_eq!(readings_at_most(b"", ContentEncoding::Gzip), READINGS_MAX);
    }
}
