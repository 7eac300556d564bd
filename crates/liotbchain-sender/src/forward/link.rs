//! The way to one receiver: a connection that is kept, and what was learned of who answers there.

use std::{
    collections::HashSet,
    error::Error,
    time::{Duration, SystemTime},
};

use liotbchain_core::KeyId;
use reqwest::{
    Client, RequestBuilder, Response, Url,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, LOCATION,
        RETRY_AFTER,
    },
};

use super::{
    Protocol, Receiver, ReceiverError,
    answer::{Failure, Reply},
    backoff,
    batch::{Batch, compress},
    clock,
    outage::Outage,
};

/// How long the first answer of a receiver may take.
const GREETING_TIME: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read: 1,000 acknowledgements take 230 KB.
const ANSWER_SIZE_MAX: usize = 2 << 20;
/// Keys that a receiver is remembered to have: 160 KB. It forgets all of them when there are more.
const KNOWN_KEYS_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Link {
    receiver: Receiver,
    client: Client,
    protocol: Protocol,
    route: Url,
    status_route: Url,
    /// Whether it was asked what it is since it was last unreachable.
    pub is_greeted: bool,
    /// Whether bodies go compressed.
    pub is_compressing: bool,
    /// Keys that it acknowledged records of.
    known_keys: HashSet<KeyId>,
    pub outage: Outage,
}

/// No answer came.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub failure: Failure,
    pub cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nobody listens there, or nobody is there.
    Unreachable,
    /// It takes too long.
    Slow,
    /// The answer did not come to its end.
    BrokenOff,
}

impl Link {
    pub(super) fn new(receiver: Receiver, protocol: Protocol) -> Result<Self, ReceiverError> {
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
        let route = match protocol {
            Protocol::V1 => below(&receiver.url, &["v1", "transactions"])?,
            Protocol::Original => below(&receiver.url, &["receive_data"])?,
        };
        Ok(Self {
            client: client.build()?,
            protocol,
            route,
            status_route: below(&receiver.url, &["v1", "status"])?,
            // The original would not know what it is asked.
            is_greeted: protocol == Protocol::Original,
            is_compressing: false,
            known_keys: HashSet::new(),
            outage: Outage::default(),
            receiver,
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.receiver.url
    }

    /// Tells whether records of this key may name it.
    pub(super) fn knows(&self, key_id: &KeyId) -> bool {
        self.known_keys.contains(key_id)
    }

    /// Notes that the receiver has this key.
    pub(super) fn learn(&mut self, key_id: KeyId) {
        if self.known_keys.len() >= KNOWN_KEYS_MAX && !self.known_keys.contains(&key_id) {
            self.known_keys.clear();
        }
        self.known_keys.insert(key_id);
    }

    /// Notes that the receiver does not have this key: it may have begun another chain.
    pub(super) fn forget(&mut self, key_id: &KeyId) {
        self.known_keys.remove(key_id);
    }

    /// Notes that the connection failed: who comes back may be another version of the program.
    pub(super) fn lost(&mut self) {
        self.is_greeted = self.protocol == Protocol::Original;
    }

    /// Asks the receiver what it is, and notes what it reads.
    pub(super) async fn greet(&mut self) -> Result<Reply, Unanswered> {
        let request = self.client.get(self.status_route.clone());
        let response = self.send(request, GREETING_TIME).await?;
        self.is_greeted = true;
        // Through the loopback a processor is dearer than bytes.
        self.is_compressing = !self.receiver.is_on_this_machine()
            && response.status().is_success()
            && offers_zstd(response.headers());
        self.read(response, GREETING_TIME).await
    }

    /// Posts a list. `is_hurried` asks for the answer as soon as all is durable, whatever becomes of blocks.
    pub(super) async fn post(
        &self,
        batch: &Batch,
        is_hurried: bool,
        time: Duration,
    ) -> Result<Reply, Unanswered> {
        let mut url = self.route.clone();
        let (body, media_type) = match self.protocol {
            Protocol::V1 => (batch.to_lines(&self.known_keys), "application/x-ndjson"),
            Protocol::Original => (batch.to_original_list(), "application/json"),
        };
        if is_hurried && self.protocol == Protocol::V1 {
            url.set_query(Some("wait=0"));
        }
        let mut request = self.client.post(url).header(CONTENT_TYPE, media_type);
        request = match self.is_compressing.then(|| compress(&body)).flatten() {
            Some(small) => request.header(CONTENT_ENCODING, "zstd").body(small),
            None => request.body(body),
        };
        let response = self.send(request, time).await?;
        self.read(response, time).await
    }

    async fn send(&self, mut request: RequestBuilder, time: Duration) -> Result<Response, Unanswered> {
        if let Some(authorization) = &self.receiver.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request.timeout(time).send().await.map_err(|error| self.unanswered(&error, time))
    }

    fn unanswered(&self, error: &reqwest::Error, time: Duration) -> Unanswered {
        let receiver = &self.receiver.url;
        let (cause, message) = if error.is_timeout() && !error.is_connect() {
            let seconds = time.as_secs();
            (Cause::Slow, format!("the receiver at {receiver} did not answer within {seconds} seconds"))
        } else {
            let reason = root_cause(error);
            let cure = "start it, or correct RECEIVER_URL";
            (Cause::Unreachable, format!("the receiver at {receiver} cannot be reached ({reason}): {cure}"))
        };
        Unanswered { failure: Failure { http_status: None, message, retry_after: None }, cause }
    }

    async fn read(&self, mut response: Response, time: Duration) -> Result<Reply, Unanswered> {
        let (status, headers) = (response.status(), response.headers());
        let clock_offset_ms = headers.get(DATE).and_then(|date| clock::offset_ms(date, SystemTime::now()));
        let mut reply = Reply {
            status,
            retry_after: headers.get(RETRY_AFTER).and_then(backoff::read_retry_after),
            location: headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned),
            body: Vec::new(),
            clock_offset_ms,
        };
        let broken_off = |reason: String| {
            let receiver = &self.receiver.url;
            let message = format!("the answer of the receiver at {receiver} broke off: {reason}");
            let http_status = Some(status.as_u16());
            Unanswered {
                failure: Failure { http_status, message, retry_after: None },
                cause: Cause::BrokenOff,
            }
        };
        let lost = |error: reqwest::Error| match error.is_timeout() {
            true => self.unanswered(&error, time),
            false => broken_off(root_cause(&error)),
        };
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if reply.body.len() + chunk.len() > ANSWER_SIZE_MAX {
                return Err(broken_off(format!("it is longer than {ANSWER_SIZE_MAX} bytes")));
            }
            reply.body.extend_from_slice(&chunk);
        }
        Ok(reply)
    }
}

/// Returns a route below the base address, which may itself lie below a path.
fn below(base: &Url, segments: &[&str]) -> Result<Url, ReceiverError> {
    let mut url = base.clone();
    match url.path_segments_mut() {
        Ok(mut path) => drop(path.pop_if_empty().extend(segments)),
        Err(()) => return Err(ReceiverError::Url(base.clone())),
    }
    url.set_query(None);
    Ok(url)
}

/// Tells whether a receiver reads zstd: what it accepts in requests stands in its answers (RFC 9110, section 12.5.3).
fn offers_zstd(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("zstd") && !is_refused
    })
}

/// Returns the innermost error, which says what the system said.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn link(url: &str) -> Link {
        Link::new(Receiver::new(url.parse().unwrap(), None).unwrap(), Protocol::V1).unwrap()
    }

    #[test]
    fn finds_the_routes_below_a_path() {
        let link = link("http://example.com/behind/a/proxy/?a=b");
        assert_eq!(link.route.as_str(), "http://example.com/behind/a/proxy/v1/transactions");
        assert_eq!(link.status_route.as_str(), "http://example.com/behind/a/proxy/v1/status");
    }

    #[test]
    fn knows_who_reads_zstd() {
        let offers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            offers_zstd(&headers)
        };
        for yes in [&["zstd"][..], &["gzip, zstd"], &["gzip", "ZSTD;q=0.5"], &["zstd ; q=1"]] {
            assert!(offers(yes), "{yes:?}");
        }
        for no in [&[][..], &["gzip"], &["zstd;q=0"], &["zstd; q=0.0, gzip"], &["xzstd"], &["*"]] {
            assert!(!offers(no), "{no:?}");
        }
    }

    #[test]
    fn tells_this_machine_from_others() {
        for near in [
            "http://127.0.0.1:5001",
            "http://127.8.9.1/",
            "http://[::1]:1/",
            "https://localhost/",
            "http://a.localhost",
        ] {
            assert!(link(near).receiver.is_on_this_machine(), "{near}");
        }
        for far in
            ["http://192.168.1.2", "http://[fe80::1]/", "http://localhost.example.com", "http://0.0.0.0"]
        {
            assert!(!link(far).receiver.is_on_this_machine(), "{far}");
        }
    }

    #[test]
    fn remembers_a_bounded_number_of_keys() {
        let mut link = link("http://127.0.0.1");
        let key = |number: usize| {
            let mut key = KeyId::ZERO;
            key.0[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        for number in 0..KNOWN_KEYS_MAX {
            link.learn(key(number));
        }
        assert!(link.knows(&key(0)) && link.knows(&key(KNOWN_KEYS_MAX - 1)));
        link.learn(key(0));
        assert_eq!(link.known_keys.len(), KNOWN_KEYS_MAX);
        link.learn(key(KNOWN_KEYS_MAX));
        assert!(link.knows(&key(KNOWN_KEYS_MAX)) && link.known_keys.len() == 1);
        link.forget(&key(KNOWN_KEYS_MAX));
        assert!(link.known_keys.is_empty());
    }
}
