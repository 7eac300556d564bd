//! Readings by HTTP: `POST /readings` of a gateway, one reading or a short list, again and again until it is taken.

use std::sync::Arc;
use std::time::Duration;

use liotbchain_sender::reading::DeviceName;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use url::Url;

use super::backoff::Backoff;
use super::run_name::RunName;
use super::source::{Reading, Source};
use super::tally::Tally;
use crate::Failure;
use crate::client::{bearer, client, read, root_cause};
use crate::failure::Exit;
use crate::settings::Secret;
use crate::stop::Stop;

/// Requests on their way at a time. Each of 100,000 real devices has a connection of its own; a gateway need not take
/// so many from one program.
pub const CONNECTIONS: u32 = 16;
/// Readings that are due at one time share a request, so that a backlog drains.
const READINGS_MAX: usize = 100;
/// Bytes of readings after which no more are added to a request.
const BODY_SIZE: usize = 256 << 10;
/// Longest time for an answer: the gateway's disk may be slow.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read: 100 acknowledgements or refusals take some 30 KB.
const ANSWER_SIZE_MAX: usize = 1 << 20;

/// A gateway. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    client: Client,
    readings: Url,
    authorization: Option<HeaderValue>,
    run: RunName,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    /// Nothing was taken, since these are at fault, each for this reason.
    Refused(Vec<(usize, String)>),
    /// The request as a whole is refused, for what it holds or its size.
    RefusedWhole(String),
    /// It may work later.
    Later {
        why: String,
        pause: Option<Duration>,
    },
}

impl Target {
    /// Sets up a client for the gateway of this address.
    ///
    /// # Errors
    ///
    /// Where the token is of no use.
    pub fn new(
        base: &Url,
        device: Option<&DeviceName>,
        token: Option<&Secret>,
        run: RunName,
    ) -> Result<Self, Failure> {
        let mut readings = base.clone();
        readings.path_segments_mut().expect("http and https have a path").pop_if_empty().push("readings");
        if let Some(device) = device {
            readings.query_pairs_mut().append_pair("device", device.as_str());
        }
        let authorization = bearer(token, "API_TOKEN")?;
        let client = client("device", base, CONNECTIONS, ANSWER_TIME)?;
        Ok(Self { client, readings, authorization, run })
    }

    async fn post(&self, readings: &[Reading]) -> Result<Outcome, Failure> {
        let mut request = self.client.post(self.readings.clone());
        request = request.header(CONTENT_TYPE, "application/json").body(body(readings));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(number) = readings[0].identity {
            request = request.header("Idempotency-Key", self.run.identity(number));
        }
        let later = |why: String, pause| Ok(Outcome::Later { why, pause });
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => return later("no answer in time".to_owned(), None),
            Err(error) => return later(root_cause(&error), None),
        };
        let status = answer.status();
        let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = match read(answer, ANSWER_SIZE_MAX).await {
            Ok(body) => body,
            Err(cause) => return later(cause, None),
        };
        if status.is_success() {
            return self.check_taken(&body, readings.len());
        }
        let refusal = read_refusal(&body);
        match status.as_u16() {
            408 | 425 | 429 | 500..=599 => {
                later(format!("{status}: {}", refusal.words()), pause.map(Duration::from_secs))
            }
            400 | 413 | 422 => Ok(refusal.outcome(readings.len())),
            _ => Err(self.refused(status, &refusal)),
        }
    }

    /// Believes an answer only where it speaks of as many readings as were sent: any web server says 200.
    fn check_taken(&self, body: &[u8], readings: usize) -> Result<Outcome, Failure> {
        #[derive(Deserialize)]
        struct Taken {
            items: Vec<IgnoredAny>,
        }
        match serde_json::from_slice::<Taken>(body) {
            Ok(taken) if taken.items.len() == readings => Ok(Outcome::Taken),
            _ => Err(Failure::new(
                Exit::Usage,
                format!("{} answers, but not as a gateway does", self.readings),
            )
            .with_hint("name the address of `liotbchain sender` with --to")),
        }
    }

    fn refused(&self, status: StatusCode, refusal: &Refusal) -> Failure {
        let hint = match status.as_u16() {
            401 | 403 => "set API_TOKEN to the API_TOKEN of the sender",
            421 => "add the host name in --to to the sender's ALLOWED_HOSTS",
            _ => "name the address of `liotbchain sender` with --to",
        };
        let words = refusal.words();
        Failure::failed(format!("{} refuses readings with {status}: {words}", self.readings)).with_hint(hint)
    }
}

/// Hands over what comes from a source, until there is no more or somebody asks to stop.
///
/// # Errors
///
/// Where the gateway is none, or does not let this program in.
pub async fn hand_over(
    target: Target,
    mut source: Source,
    mut backoff: Backoff,
    tally: Arc<Tally>,
    stop: Stop,
) -> Result<(), Failure> {
    loop {
        let first = tokio::select! {
            biased;
            () = stop.asked() => return Ok(()),
            first = source.next() => first?,
        };
        let Some(first) = first else { return Ok(()) };
        let mut size = first.text.len();
        let mut readings = vec![first];
        while readings.len() < READINGS_MAX
            && size < BODY_SIZE
            && let Some(reading) = source.ready()?
        {
            size += reading.text.len();
            readings.push(reading);
        }
        tally.send(readings.len());
        if !send(&target, readings, &mut backoff, &tally, &stop).await? {
            return Ok(());
        }
    }
}

/// Sends readings until each was taken or refused. False where somebody asked to stop before.
async fn send(
    target: &Target,
    readings: Vec<Reading>,
    backoff: &mut Backoff,
    tally: &Tally,
    stop: &Stop,
) -> Result<bool, Failure> {
    // Parts of the list, the first one last.
    let mut parts = vec![readings];
    let mut is_first = true;
    while let Some(mut readings) = parts.pop() {
        if !is_first {
            tally.send_again(readings.len());
        }
        is_first = false;
        match target.post(&readings).await? {
            Outcome::Taken => {
                tally.acknowledge(readings.len());
                backoff.reset();
            }
            Outcome::Refused(faults) => {
                for (index, why) in &faults {
                    tally.refuse(what_is_refused(&readings[*index], why));
                }
                let mut index = 0;
                readings.retain(|_| {
                    index += 1;
                    faults.iter().all(|(at_fault, _)| *at_fault != index - 1)
                });
                if !readings.is_empty() {
                    parts.push(readings);
                }
            }
            Outcome::RefusedWhole(why) if readings.len() == 1 => {
                tally.refuse(what_is_refused(&readings[0], &why));
            }
            Outcome::RefusedWhole(_) => {
                let second = readings.split_off(readings.len() / 2);
                parts.extend([second, readings]);
            }
            Outcome::Later { why, pause } => {
                tally.wait_for(why);
                parts.push(readings);
                tokio::select! {
                    biased;
                    () = stop.asked() => return Ok(false),
                    () = tokio::time::sleep(backoff.pause(pause)) => {}
                }
            }
        }
    }
    Ok(true)
}

fn what_is_refused(reading: &Reading, why: &str) -> String {
    match reading.identity {
        Some(line) => format!("line {line} is refused: {why}"),
        None => format!("a reading of {} is refused: {why}", reading.device),
    }
}

fn body(readings: &[Reading]) -> String {
    if let [reading] = readings {
        return reading.text.clone();
    }
    let size: usize = readings.iter().map(|reading| reading.text.len() + 1).sum();
    let mut body = String::with_capacity(size + 1);
    for reading in readings {
        body.push(if body.is_empty() { '[' } else { ',' });
        body.push_str(&reading.text);
    }
    body.push(']');
    body
}

/// What a refusal says. Any program may have answered.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    #[serde(alias = "detail")]
    message: String,
    items: Vec<RefusedItem>,
}

#[derive(Deserialize)]
struct RefusedItem {
    index: usize,
    message: String,
}

impl Refusal {
    fn words(&self) -> String {
        if self.message.is_empty() { "without a word".to_owned() } else { tame(&self.message) }
    }

    /// Returns what a refusal of so many readings means. Where it names none of them it is the list that is refused:
    /// the same list again would be refused again.
    fn outcome(&self, readings: usize) -> Outcome {
        let items = self.items.iter().filter(|item| item.index < readings);
        let faults = Vec::from_iter(items.map(|item| (item.index, tame(&item.message))));
        if faults.is_empty() { Outcome::RefusedWhole(self.words()) } else { Outcome::Refused(faults) }
    }
}

fn read_refusal(body: &[u8]) -> Refusal {
    serde_json::from_slice(body).unwrap_or_default()
}

fn tame(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_names_no_reading_is_one_of_the_list() {
        let outcome = |body: &str| read_refusal(body.as_bytes()).outcome(2);
        let whole = Outcome::RefusedWhole("no".to_owned());
        assert_eq!(outcome(r#"{"message":"no"}"#), whole);
        assert_eq!(outcome(r#"{"message":"no","items":[{"index":2,"message":"a"}]}"#), whole);
        assert_eq!(
            outcome(r#"{"message":"no","items":[{"index":7,"message":"a"},{"index":1,"message":"b"}]}"#),
            Outcome::Refused(vec![(1, "b".to_owned())])
        );
    }
}
