//! `POST /start_sending` and `POST /stop_sending`: the simulated devices of the Python original.

use axum::{
    Json,
    extract::{FromRequest, Request, State},
    http::StatusCode,
};
use bytes::Bytes;
use liotbchain_http::{ApiError, ErrorBody, JsonBody, Limits};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    job::{INTERVAL_RANGE_S, ITEMS_RANGE, Job},
    json_keys::JSON_DEPTH_MAX,
    json_text::{JsonError, Kind, Tokens, ascii_spelling, shorten},
    sender::Sender,
};

/// What the Python original does with `{}`.
const ITEMS_DEFAULT: u64 = 1;
const INTERVAL_DEFAULT_S: f64 = 2.0;

const ITEMS_KEY: &str = "number_of_items_to_send";
const INTERVAL_KEY: &str = "interval_time";

/// Bytes that the body of a job may have: two numbers.
const JOB_SIZE_MAX: usize = 4 << 10;

/// The body of `POST /start_sending`.
#[derive(ToSchema)]
#[schema(example = json!({"number_of_items_to_send": 2, "interval_time": 5}))]
#[expect(dead_code, reason = "describes what `parse_job` reads, so that each fault gets a code of its own")]
pub(crate) struct StartSending {
    /// Readings in each list, 1 to 8000.
    #[schema(minimum = 1, maximum = 8000, default = 1, required = false)]
    number_of_items_to_send: u64,
    /// Seconds between two lists, 0 to 86400. With 0 each list follows when the one before it was delivered.
    #[schema(minimum = 0, maximum = 86400, default = 2, required = false)]
    interval_time: f64,
}

/// The answer to a request that was carried out.
#[derive(Serialize, ToSchema)]
pub(crate) struct Done {
    /// Always `success`.
    #[schema(example = "success")]
    status: &'static str,
    /// What was done.
    message: String,
}

fn done(message: String) -> Json<Done> {
    Json(Done { status: "success", message })
}

/// Lets simulated devices measure, or changes the numbers of the job that runs: there is never a second one.
#[utoipa::path(
    post,
    path = "/start_sending",
    tag = "devices",
    request_body = StartSending,
    responses(
        (status = 200, description = "The job runs", body = Done),
        (status = 400, description = "The body is not what it should be", body = ErrorBody),
        (status = 401, description = "The token is missing or wrong", body = ErrorBody),
        (status = 413, description = "The body is larger than 4096 bytes", body = ErrorBody),
        (status = 415, description = "The body is not said to be JSON", body = ErrorBody),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn start_sending(
    State(sender): State<Sender>,
    request: Request,
) -> Result<Json<Done>, ApiError> {
    let body = read_job(request).await?;
    let (items, interval_s) = parse_job(&body)?;
    let job = Job::new(items, interval_s).map_err(|error| bad_request("out_of_range", error.to_string()))?;
    sender.start(job);
    Ok(done(format!("Started sending {items} items every {interval_s} seconds")))
}

/// Stops the simulated devices. What they measured is sent all the same, and so is what other devices hand over.
#[utoipa::path(
    post,
    path = "/stop_sending",
    tag = "devices",
    responses(
        (status = 200, description = "No job runs", body = Done),
        (status = 401, description = "The token is missing or wrong", body = ErrorBody),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn stop_sending(State(sender): State<Sender>) -> Json<Done> {
    let ran = sender.stop();
    let mut message = if ran { "Stopped sending" } else { "Nothing was being sent" }.to_owned();
    let waiting = sender.gateway().status().borrow().waiting;
    if waiting > 0 {
        message += &format!("; {waiting} readings still wait to be sent");
    }
    done(message)
}

fn bad_request(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::refusal(StatusCode::BAD_REQUEST, code, message)
}

/// Reads a body of the size that a job may have.
async fn read_job(mut request: Request) -> Result<Bytes, ApiError> {
    let limits = request.extensions_mut().get_or_insert_default::<Limits>();
    limits.body_size_max = limits.body_size_max.min(JOB_SIZE_MAX);
    let body = JsonBody::from_request(request, &()).await;
    body.map(|JsonBody(body)| body).map_err(|error| match error.code() {
        "body_too_large" => {
            let message = format!("the body is larger than {JOB_SIZE_MAX} bytes: {EXPECTED}");
            ApiError::refusal(error.status(), "body_too_large", message)
        }
        _ => error,
    })
}

/// Reads the numbers of a job: both may be left out, nothing else may stand there.
fn parse_job(body: &[u8]) -> Result<(u64, f64), ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| bad_request("not_utf8", "the body is not UTF-8"))?;
    let not_json =
        |error: JsonError| bad_request("not_json", format!("the body cannot be read ({error}): {EXPECTED}"));
    let mut tokens = Tokens::new(text, JSON_DEPTH_MAX);
    let (mut items, mut interval_s) = (None, None);
    let first = tokens.next_token().map_err(not_json)?;
    if let Some(first) = first
        && first.kind != Kind::ObjectStart
    {
        tokens.rest_of_value(first).and_then(|_| tokens.next_token()).map_err(not_json)?;
        return Err(bad_request("not_an_object", format!("the body is JSON, but no object: {EXPECTED}")));
    }
    while let Some(token) = tokens.next_token().map_err(not_json)?
        && let Kind::Key(key) = token.kind
        && let key = ascii_spelling(key)
    {
        let is_first = match &*key {
            ITEMS_KEY => items.is_none(),
            INTERVAL_KEY => interval_s.is_none(),
            _ => {
                let key = shorten(&key);
                let message =
                    format!("the key \"{key}\" is not known: the keys are {ITEMS_KEY} and {INTERVAL_KEY}");
                return Err(bad_request("unknown_key", message));
            }
        };
        if !is_first {
            let message = format!("the body has the key \"{key}\" twice: send it once");
            return Err(bad_request("duplicate_key", message));
        }
        let Some(value) = tokens.next_token().map_err(not_json)? else { break };
        let value = tokens.rest_of_value(value).map_err(not_json)?;
        if key == ITEMS_KEY {
            let (min, max) = (ITEMS_RANGE.start(), ITEMS_RANGE.end());
            items = Some(parse_number(&key, value, &format!("a whole number from {min} to {max}"))?);
        } else {
            let (min, max) = (INTERVAL_RANGE_S.start(), INTERVAL_RANGE_S.end());
            interval_s = Some(parse_number(&key, value, &format!("seconds from {min} to {max}"))?);
        }
    }
    tokens.next_token().map_err(not_json)?;
    Ok((items.unwrap_or(ITEMS_DEFAULT), interval_s.unwrap_or(INTERVAL_DEFAULT_S)))
}

const EXPECTED: &str = r#"send an object such as {"number_of_items_to_send": 2, "interval_time": 5}"#;

fn parse_number<'a, T: Deserialize<'a>>(key: &str, value: &'a str, expected: &str) -> Result<T, ApiError> {
    serde_json::from_str(value).map_err(|_| {
        let mut shown: String = value.chars().take(40).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        bad_request("bad_value", format!("{key} is {shown}: expected {expected}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> &'static str {
        parse_job(body.as_bytes()).unwrap_err().code()
    }

    #[test]
    fn both_numbers_may_be_left_out() {
        assert_eq!(parse_job(b"{}").unwrap(), (1, 2.0));
        assert_eq!(parse_job(br#" {"interval_time": 0.5}"#).unwrap(), (1, 0.5));
        assert_eq!(parse_job(br#"{"number_of_items_to_send": 20, "interval_time": 3}"#).unwrap(), (20, 3.0));
    }

    #[test]
    fn each_fault_has_a_code_of_its_own() {
        for body in ["", "{", "{\"interval_time\": NaN}", "nul", "{}{}"] {
            assert_eq!(code(body), "not_json", "{body:?}");
        }
        for body in ["[1, 2]", "null", "3", "\"{}\""] {
            assert_eq!(code(body), "not_an_object", "{body:?}");
        }
        assert_eq!(code(r#"{"interval": 3}"#), "unknown_key");
        // Nothing is read on for.
        assert_eq!(code(r#"{"interval": "#), "unknown_key");
        assert_eq!(code(r#"{"interval_time": 3, "interval_time""#), "not_json");
        assert_eq!(code(r#"{"interval_time": 3, "interval_time": "#), "duplicate_key");
        assert_eq!(code(r#"{"interval_time": 3, "interval_time": 3}"#), "duplicate_key");
        assert_eq!(code(r#"{"interval_time": 3, "interval\u005ftime": 3}"#), "duplicate_key");
        for items in ["\"three\"", "2.5", "-3", "null", "true", "[2]", "1e400", "99999999999999999999"] {
            assert_eq!(code(&format!(r#"{{"number_of_items_to_send": {items}}}"#)), "bad_value", "{items}");
        }
        for interval in ["\"fast\"", "null", "false", "{}", "1e400"] {
            assert_eq!(code(&format!(r#"{{"interval_time": {interval}}}"#)), "bad_value", "{interval}");
        }
        assert_eq!(parse_job(b"\"\xff\"").unwrap_err().code(), "not_utf8");
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_a_job_and_no_larger() {
        let read = async |size: usize| {
            let request = Request::post("/start_sending").header("content-type", "application/json");
            let body = format!("{{}}{}", " ".repeat(size - 2));
            read_job(request.body(body.into()).unwrap()).await.map_err(|error| (error.status(), error.code()))
        };
        assert_eq!(read(JOB_SIZE_MAX).await.unwrap().len(), JOB_SIZE_MAX);
        let refused = read(JOB_SIZE_MAX + 1).await.unwrap_err();
        assert_eq!(refused, (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    }
}
