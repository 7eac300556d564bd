//! `POST /start_sending` and `POST /stop_sending`: the simulated devices of the Python original.

use std::fmt;

use axum::{Json, extract::State, http::StatusCode};
use liotbchain_http::{ApiError, ErrorBody, JsonBody};
use serde::{
    Deserialize, Serialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    job::{INTERVAL_RANGE_S, ITEMS_RANGE, Job},
    sender::Sender,
};

/// What the Python original does with `{}`.
const ITEMS_DEFAULT: u64 = 1;
const INTERVAL_DEFAULT_S: f64 = 2.0;

const JOB_KEYS: [&str; 2] = ["number_of_items_to_send", "interval_time"];

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
        (status = 415, description = "The body is not said to be JSON", body = ErrorBody),
    ),
    security((), ("token" = []))
)]
pub(crate) async fn start_sending(
    State(sender): State<Sender>,
    JsonBody(body): JsonBody,
) -> Result<Json<Done>, ApiError> {
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

/// Reads the numbers of a job: both may be left out, nothing else may stand there.
fn parse_job(body: &[u8]) -> Result<(u64, f64), ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| bad_request("not_utf8", "the body is not UTF-8"))?;
    let members = match serde_json::from_str::<Box<RawValue>>(text) {
        Ok(value) if value.get().starts_with('{') => serde_json::from_str::<Members>(text),
        Ok(_) => {
            return Err(bad_request("not_an_object", format!("the body is JSON, but no object: {EXPECTED}")));
        }
        Err(error) => Err(error),
    };
    let Members(members) = members
        .map_err(|error| bad_request("not_json", format!("the body is not JSON ({error}): {EXPECTED}")))?;
    let (mut items, mut interval_s) = (ITEMS_DEFAULT, INTERVAL_DEFAULT_S);
    for (place, (key, value)) in members.iter().enumerate() {
        if members[..place].iter().any(|(earlier, _)| earlier == key) {
            return Err(bad_request(
                "duplicate_key",
                format!("the body has the key {key:?} twice: send it once"),
            ));
        }
        match key.as_str() {
            "number_of_items_to_send" => {
                let (min, max) = (ITEMS_RANGE.start(), ITEMS_RANGE.end());
                items = parse_number(key, value, &format!("a whole number from {min} to {max}"))?;
            }
            "interval_time" => {
                let (min, max) = (INTERVAL_RANGE_S.start(), INTERVAL_RANGE_S.end());
                interval_s = parse_number(key, value, &format!("seconds from {min} to {max}"))?;
            }
            _ => {
                let message =
                    format!("the key {key:?} is not known: the keys are {} and {}", JOB_KEYS[0], JOB_KEYS[1]);
                return Err(bad_request("unknown_key", message));
            }
        }
    }
    Ok((items, interval_s))
}

const EXPECTED: &str = r#"send an object such as {"number_of_items_to_send": 2, "interval_time": 5}"#;

fn parse_number<'a, T: Deserialize<'a>>(
    key: &str,
    value: &'a RawValue,
    expected: &str,
) -> Result<T, ApiError> {
    serde_json::from_str(value.get()).map_err(|_| {
        let mut shown: String = value.get().chars().take(40).collect();
        if shown.len() < value.get().len() {
            shown.push('…');
        }
        bad_request("bad_value", format!("{key} is {shown}: expected {expected}"))
    })
}

/// The members of an object as they stand there, so that a key that comes twice is seen.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
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
}
