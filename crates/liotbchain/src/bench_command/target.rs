//! The receiver under load, as a client sees it: what it was asked, and what its answer means.

use std::time::Duration;

use liotbchain_core::TransactionId;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::client::{bearer, client, read, root_cause};
use crate::failure::{Exit, Failure};
use crate::sender_command::is_loopback;
use crate::settings::Settings;

/// Longest time for an answer: a receiver waits `SEAL_WAIT` for a block, which is 5 seconds where nobody changed it.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read: 8,000 acknowledgements take about 2 MB.
const ANSWER_SIZE_MAX: usize = 8 << 20;
/// A pause that a receiver asks for is taken no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a connection waits where it is not told how long.
const PAUSE: Duration = Duration::from_millis(100);

/// The code of a refusal that says that there is no such reading, not that there is no such route.
const UNKNOWN: &str = "transaction_not_found";

/// A receiver, and the way to it. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    client: Client,
    url: Url,
    receive_data: Url,
    authorization: Option<HeaderValue>,
}

/// What came of a list.
pub enum Outcome {
    /// It is stored. The places of its readings are known where the receiver tells them; the Python original does not.
    Accepted(Option<Vec<Place>>),
    /// It may work later. Says under which name it is counted, and after which pause to go on.
    Failed { name: String, pause: Duration },
}

/// What a receiver said of a reading that it stored.
#[derive(Clone, Copy)]
pub struct Place {
    pub id: TransactionId,
    pub is_sealed: bool,
}

/// What is known of a reading afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Sealed,
    Pending,
    Missing,
}

impl Target {
    /// Sets up a client for the receiver that the settings name.
    ///
    /// # Errors
    ///
    /// Where its address or token is of no use.
    pub fn new(settings: &Settings, connections: u32) -> Result<Self, Failure> {
        // The settings name one receiver at least; a bench measures the first.
        let url = settings.receiver_urls[0].clone();
        let authorization = bearer(settings.receiver_token.as_ref(), "RECEIVER_TOKEN")?;
        let client = client("bench", &url, connections, ANSWER_TIME)?;
        let receive_data = route(&url, &["receive_data"]);
        Ok(Self { client, url, receive_data, authorization })
    }

    /// Returns the base address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the port on this machine where the receiver, or what leads to it, listens; none where it is elsewhere.
    pub fn local_port(&self) -> Option<u16> {
        is_loopback(self.url.host()).then(|| self.url.port_or_known_default()).flatten()
    }

    /// Returns what the receiver says of itself; none where it is too old, or another one, and says nothing.
    ///
    /// # Errors
    ///
    /// Where there is nobody.
    pub async fn status(&self) -> Result<Option<serde_json::Value>, Failure> {
        let answer = self.client.get(route(&self.url, &["v1", "status"])).send().await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status() != StatusCode::OK {
            return Ok(None);
        }
        Ok(read(answer, ANSWER_SIZE_MAX).await.ok().and_then(|body| serde_json::from_slice(&body).ok()))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let (url, cause) = (&self.url, root_cause(error));
        Failure::new(Exit::Unreachable, format!("the receiver at {url} cannot be reached: {cause}"))
            .with_hint("start it, or name another with --url")
    }

    /// Posts a list once.
    ///
    /// # Errors
    ///
    /// Where the receiver will never take such a list, so that there is nothing to measure.
    pub async fn post(&self, body: Vec<u8>) -> Result<Outcome, Failure> {
        let mut request = self.client.post(self.receive_data.clone());
        request = request.header(CONTENT_TYPE, "application/json").body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let failed = |name: String| Ok(Outcome::Failed { name, pause: PAUSE });
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => return failed("no answer in time".to_owned()),
            Err(error) => return failed(root_cause(&error)),
        };
        let status = answer.status();
        let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = match read(answer, ANSWER_SIZE_MAX).await {
            Ok(body) => body,
            Err(cause) => return failed(cause),
        };
        if status == StatusCode::OK {
            return Ok(Outcome::Accepted(self.read_places(&body)?));
        }
        if matches!(status.as_u16(), 408 | 425 | 429 | 500..=599) {
            let code = read_refusal(&body).code.map_or_else(String::new, |code| format!(" {code}"));
            let pause = pause.map_or(PAUSE, Duration::from_secs).min(PAUSE_MAX);
            return Ok(Outcome::Failed { name: format!("{}{code}", status.as_u16()), pause });
        }
        Err(self.refused(status, &body))
    }

    fn read_places(&self, body: &[u8]) -> Result<Option<Vec<Place>>, Failure> {
        #[derive(Deserialize)]
        struct Body<'a> {
            status: &'a str,
            #[serde(borrow)]
            items: Option<Vec<Item<'a>>>,
        }
        #[derive(Deserialize)]
        struct Item<'a> {
            id: &'a str,
            status: &'a str,
        }
        let stranger = || {
            let error = format!("{} answers, but not as a receiver does", self.url);
            Failure::new(Exit::Usage, error).with_hint("name a receiver with --url")
        };
        let body: Body<'_> = serde_json::from_slice(body).map_err(|_| stranger())?;
        if body.status != "success" {
            return Err(stranger());
        }
        let Some(items) = body.items else { return Ok(None) };
        let place =
            |item: Item<'_>| Some(Place { id: item.id.parse().ok()?, is_sealed: item.status == "sealed" });
        items.into_iter().map(place).collect::<Option<Vec<_>>>().map(Some).ok_or_else(stranger)
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let said = read_refusal(body).message.unwrap_or_else(|| "without a word".to_owned());
        let hint = match status.as_u16() {
            401 => "set RECEIVER_TOKEN to the receiver's API_TOKEN",
            413 => {
                "send smaller lists with --batch, or raise the receiver's LIST_ITEMS_MAX and BODY_SIZE_MAX"
            }
            421 => "add the host name in --url to the receiver's ALLOWED_HOSTS",
            400 => "the Python original takes the signatures of RSA keys alone: --key rsa",
            _ => "name a receiver with --url",
        };
        Failure::failed(format!("{} refuses the readings with {status}: {said}", self.url)).with_hint(hint)
    }

    /// Asks for a reading; none where the receiver does not answer that.
    pub async fn state(&self, id: TransactionId) -> Option<State> {
        #[derive(Deserialize)]
        struct Body {
            status: String,
        }
        let answer =
            self.client.get(route(&self.url, &["v1", "transactions", &id.to_string()])).send().await.ok()?;
        let status = answer.status();
        let body = read(answer, ANSWER_SIZE_MAX).await.ok()?;
        match status {
            StatusCode::OK => match serde_json::from_slice::<Body>(&body).ok()?.status.as_str() {
                "sealed" => Some(State::Sealed),
                "pending" => Some(State::Pending),
                _ => None,
            },
            StatusCode::NOT_FOUND if read_refusal(&body).code.as_deref() == Some(UNKNOWN) => {
                Some(State::Missing)
            }
            _ => None,
        }
    }
}

/// What a refusal says, in the form of this project's receiver or of RFC 9457.
#[derive(Default, Deserialize)]
struct Refusal {
    code: Option<String>,
    #[serde(alias = "detail")]
    message: Option<String>,
}

fn read_refusal(body: &[u8]) -> Refusal {
    // Any program may have answered.
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let tame = |text: String| text.chars().filter(|letter| !letter.is_control()).take(200).collect();
    Refusal { code: refusal.code.map(tame), message: refusal.message.map(tame) }
}

fn route(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    url.path_segments_mut().expect("the settings take http and https alone").pop_if_empty().extend(parts);
    url
}
