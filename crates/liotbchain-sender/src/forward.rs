//! Posting a list to the receiver, and reading what its answer means for the list.

use std::{error::Error, time::Duration};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER},
};
use serde::Deserialize;

use crate::list::List;

/// Where readings go. The token shows in no `Debug` and no log.
#[derive(Debug, Clone)]
pub struct Receiver {
    url: Url,
    authorization: Option<HeaderValue>,
}

/// Why a receiver cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The address is of no HTTP server.
    #[error("{0} is not the address of a receiver: expected http:// or https:// in RECEIVER_URL")]
    Url(Url),
    /// The token does not fit into a header.
    #[error("RECEIVER_TOKEN holds characters that no HTTP header can carry: expected visible ASCII")]
    Token,
    /// The HTTP client cannot be made, for want of certificates for example.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Receiver {
    /// Names a receiver by its base address, and the `API_TOKEN` it asks for.
    ///
    /// # Errors
    ///
    /// [`ReceiverError`] says what is wrong with either.
    pub fn new(url: Url, token: Option<&str>) -> Result<Self, ReceiverError> {
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(ReceiverError::Url(url));
        }
        let authorization = token.map(|token| {
            let mut value =
                HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ReceiverError::Token)?;
            value.set_sensitive(true);
            Ok::<_, ReceiverError>(value)
        });
        Ok(Self { url, authorization: authorization.transpose()? })
    }

    /// Returns the base address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    fn is_on_this_machine(&self) -> bool {
        match self.url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

/// What one post of a list came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The receiver has the readings for good.
    Accepted(Answer),
    /// The receiver looked at the list and will never take it.
    Refused(Failure),
    /// Something is set up wrongly; the list is not to blame, and only a person can change it.
    Misconfigured(Failure),
    /// It may work later.
    Postponed(Failure),
}

/// What the receiver said of a list it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Readings in a block.
    pub sealed: usize,
    /// Readings stored that wait for a block.
    pub pending: usize,
    /// Heights of the lowest and the highest block that holds one.
    pub heights: Option<(u32, u32)>,
}

/// Why a list was not taken.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    /// The receiver's status, if it answered.
    pub http_status: Option<u16>,
    /// What happened, and what to do about it.
    pub message: String,
    /// How long the receiver asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// A retry never waits longer than this for `Retry-After`: a wrong value must not silence a sender.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read: 8,000 acknowledgements take about 2 MB.
const ANSWER_SIZE_MAX: usize = 8 << 20;
/// Bytes of a refusal that are shown to people.
const MESSAGE_SIZE_MAX: usize = 500;

/// Posts lists to one receiver.
#[derive(Debug)]
pub(crate) struct Forwarder {
    client: Client,
    route: Url,
    receiver: Receiver,
}

impl Forwarder {
    pub fn new(receiver: Receiver) -> Result<Self, ReceiverError> {
        let mut route = receiver.url.clone();
        match route.path_segments_mut() {
            Ok(mut path) => drop(path.pop_if_empty().push("receive_data")),
            Err(()) => return Err(ReceiverError::Url(receiver.url)),
        }
        let mut client = Client::builder()
            .user_agent(concat!("liotbchain-sender/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            // Shorter than the receiver waits for a second request, so that no post meets a connection about to close.
            .pool_idle_timeout(Duration::from_secs(5))
            // A redirect would turn the post into a GET, or take the token elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            // The repetitions are ours: they are counted, logged and spread out.
            .retry(reqwest::retry::never());
        if receiver.is_on_this_machine() {
            client = client.no_proxy();
        }
        Ok(Self { client: client.build()?, route, receiver })
    }

    /// Posts a list once.
    pub async fn post(&self, list: &List, time: Duration) -> Outcome {
        let mut request = self.client.post(self.route.clone()).timeout(time);
        request = request.header(CONTENT_TYPE, "application/json").body(list.body.clone());
        if let Some(authorization) = &self.receiver.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        match request.send().await {
            Ok(response) => self.read(response, list.items).await,
            Err(error) => Outcome::Postponed(self.unreached(&error, time)),
        }
    }

    fn unreached(&self, error: &reqwest::Error, time: Duration) -> Failure {
        let receiver = &self.receiver.url;
        let message = if error.is_timeout() && !error.is_connect() {
            format!("the receiver at {receiver} did not answer within {} seconds", time.as_secs())
        } else {
            let reason = root_cause(error);
            format!(
                "the receiver at {receiver} cannot be reached ({reason}): start it, or correct RECEIVER_URL"
            )
        };
        Failure { http_status: None, message, retry_after: None }
    }

    async fn read(&self, response: Response, items: usize) -> Outcome {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(read_retry_after);
        let location =
            response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let failure = |message: String| Failure { http_status: Some(status.as_u16()), message, retry_after };
        let body = match read_bounded(response).await {
            Ok(body) => body,
            Err(error) => {
                return Outcome::Postponed(failure(format!("the receiver's answer broke off: {error}")));
            }
        };
        if status == StatusCode::OK {
            return match read_acknowledgements(&body, items) {
                Some(acknowledged) => Outcome::Accepted(acknowledged),
                None => {
                    let receiver = &self.receiver.url;
                    let message =
                        format!("{receiver} answers, but not as a receiver does: correct RECEIVER_URL");
                    Outcome::Misconfigured(failure(message))
                }
            };
        }
        let said = read_refusal(&body);
        match status.as_u16() {
            408 | 425 | 429 | 500..=599 => {
                Outcome::Postponed(failure(format!("the receiver answers {status}: {said}")))
            }
            _ => match cure(status, location.as_deref()) {
                Some(cure) => {
                    Outcome::Misconfigured(failure(format!("the receiver answers {status}: {said}; {cure}")))
                }
                None => {
                    Outcome::Refused(failure(format!("the receiver refuses the list with {status}: {said}")))
                }
            },
        }
    }
}

/// Returns what to change where an answer judges not the list but the way to the receiver.
fn cure(status: StatusCode, location: Option<&str>) -> Option<String> {
    Some(match status.as_u16() {
        401 => "set RECEIVER_TOKEN to the receiver's API_TOKEN".to_owned(),
        403 => "something on the way to the receiver forbids the request: check RECEIVER_URL and the proxies"
            .to_owned(),
        404 | 405 => "RECEIVER_URL is not the address of a receiver: correct it".to_owned(),
        407 => "the proxy in HTTP_PROXY or HTTPS_PROXY asks for a password: put it there".to_owned(),
        421 => "add the host name in RECEIVER_URL to the receiver's ALLOWED_HOSTS".to_owned(),
        200..=399 => format!(
            "set RECEIVER_URL to where the receiver is now{}",
            location.map_or_else(String::new, |to| format!(" ({to})"))
        ),
        _ => return None,
    })
}

async fn read_bounded(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + chunk.len() > ANSWER_SIZE_MAX {
            return Err(format!("it is longer than {ANSWER_SIZE_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads the acknowledgement of each reading. The Python original's receiver gives none, and its blocks cannot be told.
fn read_acknowledgements(body: &[u8], items: usize) -> Option<Answer> {
    #[derive(Deserialize)]
    struct Body {
        status: String,
        items: Option<Vec<Acknowledgement>>,
    }
    #[derive(Deserialize)]
    struct Acknowledgement {
        status: String,
        height: Option<u32>,
    }
    let answer: Body =
        serde_json::from_slice(body).ok().filter(|answer: &Body| answer.status == "success")?;
    let Some(acknowledgements) = answer.items else {
        return Some(Answer { sealed: 0, pending: items, heights: None });
    };
    if acknowledgements.len() != items {
        return None;
    }
    let is_sealed = |acknowledgement: &&Acknowledgement| acknowledgement.status == "sealed";
    let sealed = acknowledgements.iter().filter(is_sealed).count();
    let heights = || acknowledgements.iter().filter_map(|acknowledgement| acknowledgement.height);
    Some(Answer { sealed, pending: items - sealed, heights: heights().min().zip(heights().max()) })
}

/// Returns what a refusal says, as one short line: it may come from any program that happens to listen there.
fn read_refusal(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
        code: Option<String>,
        #[serde(default)]
        items: Vec<ItemRefusal>,
    }
    #[derive(Deserialize)]
    struct ItemRefusal {
        index: u64,
        code: String,
        message: String,
    }
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => {
            let code = refusal.code.map_or_else(String::new, |code| format!("{code}: "));
            let items = refusal.items.iter().take(3);
            let items = items.map(|item| format!("; item {}: {}: {}", item.index, item.code, item.message));
            format!("{code}{}{}", refusal.message, items.collect::<String>())
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String =
        line.chars().filter(|character| !character.is_control()).take(MESSAGE_SIZE_MAX).collect();
    if line.is_empty() { "without a word".to_owned() } else { line }
}

/// Reads the form in seconds. The other form, a date, hangs on two clocks that agree.
fn read_retry_after(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Returns the innermost error, which says what the system said.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::post};
    use bytes::Bytes;
    use liotbchain_http::{Limits, serve};
    use tokio::net::TcpListener;

    use super::*;

    async fn post_to(answer: Router, time: Duration) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/behind/a/proxy/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(serve(listener, answer, Limits::default(), std::future::pending()));
        let forwarder = Forwarder::new(Receiver::new(url, None).unwrap()).unwrap();
        forwarder.post(&List { items: 1, body: Bytes::from_static(b"[]") }, time).await
    }

    fn route(handler: axum::routing::MethodRouter) -> Router {
        Router::new().route("/behind/a/proxy/receive_data", handler)
    }

    #[tokio::test]
    async fn gives_up_on_a_receiver_that_does_not_answer() {
        let answer = route(post(async || std::future::pending::<()>().await));
        let outcome = post_to(answer, Duration::from_millis(100)).await;
        let Outcome::Postponed(failure) = outcome else { panic!("{outcome:?}") };
        assert!(failure.message.contains("did not answer"), "{failure:?}");
    }

    #[tokio::test]
    async fn reads_no_answer_without_end() {
        let endless = || futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
        let outcome =
            post_to(route(post(async move || Body::from_stream(endless()))), Duration::from_secs(60)).await;
        let Outcome::Postponed(failure) = outcome else { panic!("{outcome:?}") };
        assert!(failure.message.contains("longer than"), "{failure:?}");
    }

    #[test]
    fn shows_a_refusal_as_one_short_line() {
        let refusal = br#"{"status": "error", "message": "1 item is at fault", "code": "invalid_items",
            "items": [{"index": 4, "code": "bad_base64", "message": "no\nbase64"}]}"#;
        assert_eq!(read_refusal(refusal), "invalid_items: 1 item is at fault; item 4: bad_base64: no base64");
        assert_eq!(read_refusal(b"<h1>Bad\r\n Gateway</h1>\x1b[2J\xff"), "<h1>Bad Gateway</h1>[2J\u{fffd}");
        assert_eq!(read_refusal(&[b'x'; 10_000]).len(), MESSAGE_SIZE_MAX);
        assert_eq!(read_refusal(b""), "without a word");
    }

    #[test]
    fn takes_a_retry_after_in_seconds_up_to_a_minute() {
        let read = |value: &'static str| read_retry_after(&HeaderValue::from_static(value));
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("86400"), Some(Duration::from_secs(60)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), None);
        assert_eq!(read("-1"), None);
    }
}
