//! What a receiver's answer means for the list that was posted. Only an answer that names a record's id takes it off the
//! outbox; whatever else is said with a 200 is not an acknowledgement.

use std::{collections::HashMap, time::Duration};

use liotbchain_core::{BlockHash, Height, TransactionId};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::Protocol;
use crate::outbox::Record;

/// Bytes of a refusal that are shown to people.
const MESSAGE_SIZE_MAX: usize = 500;

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: StatusCode,
    /// How long the receiver asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Where it sends elsewhere.
    pub location: Option<String>,
    pub body: Vec<u8>,
    /// By how much its clock is ahead.
    pub clock_offset_ms: Option<i64>,
}

/// Why a list was not taken.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    /// The receiver's status, if it answered.
    pub http_status: Option<u16>,
    /// What happened, and what to do about it.
    pub message: String,
    /// How long the receiver asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// What an answer means.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// The receiver has those records for good that it says something of, one at least. One entry a record.
    Acknowledged(Vec<Option<Acknowledgement>>),
    /// It took none, because of those. By their place in the list, one at least.
    ItemsRefused(Failure, Vec<ItemRefusal>),
    /// It will never take the list as it is.
    ListRefused(Failure),
    /// It does not read what was compressed.
    CompressionRefused,
    /// Something is set up wrongly; the list is not to blame, and only a person can change it.
    Misconfigured(Failure),
    /// It may work later.
    Postponed(Failure),
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    Pending,
    Sealed { height: Height, block_hash: BlockHash },
}

/// One record that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ItemRefusal {
    pub index: usize,
    pub code: String,
    pub message: String,
}

impl ItemRefusal {
    /// Returns both as one short line.
    pub(super) fn reason(&self) -> String {
        one_line(&format!("{}: {}", self.code, self.message))
    }
}

/// Judges an answer of the receiver at `url` to a list of these records.
pub(super) fn judge(
    reply: &Reply,
    records: &[Record],
    protocol: Protocol,
    is_compressed: bool,
    url: &Url,
) -> Verdict {
    let status = reply.status;
    let failure = |message: String| {
        let retry_after = reply.retry_after;
        Failure { http_status: Some(status.as_u16()), message, retry_after }
    };
    if status.is_success() {
        let acknowledged = read_acknowledgements(&reply.body, records, protocol);
        if acknowledged.iter().any(Option::is_some) {
            return Verdict::Acknowledged(acknowledged);
        }
        return Verdict::Postponed(failure(format!(
            "{url} answers {status}, but acknowledges no reading by its id: they are kept; correct RECEIVER_URL if \
             that is not a receiver"
        )));
    }
    let refusal = Refusal::read(&reply.body);
    let said = refusal.in_words(&reply.body);
    if is_compressed && (status.as_u16() == 415 || refusal.code.as_deref() == Some("broken_body")) {
        return Verdict::CompressionRefused;
    }
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => {
            return Verdict::Postponed(failure(format!("the receiver at {url} answers {status}: {said}")));
        }
        400 | 413 | 422 => {}
        _ => {
            let cure = cure(status, reply.location.as_deref());
            return Verdict::Misconfigured(failure(format!(
                "the receiver at {url} answers {status}: {said}; {cure}"
            )));
        }
    }
    let message = format!("the receiver at {url} refuses with {status}: {said}");
    let is_by_receiver = refusal.is_by_receiver(protocol);
    let items = refusal.items.into_iter().filter(|item| item.index < records.len()).collect::<Vec<_>>();
    match (items.is_empty(), is_by_receiver || status == StatusCode::PAYLOAD_TOO_LARGE) {
        (false, _) => Verdict::ItemsRefused(failure(message), items),
        (true, true) => Verdict::ListRefused(failure(message)),
        // A proxy or another program, which has not looked at the readings.
        (true, false) => Verdict::Misconfigured(failure(format!(
            "{message}; that is not how a receiver says it: check RECEIVER_URL"
        ))),
    }
}

/// Returns what to change where an answer judges not the list but the way to the receiver.
fn cure(status: StatusCode, location: Option<&str>) -> String {
    match status.as_u16() {
        401 => "set RECEIVER_TOKEN to the receiver's API_TOKEN".to_owned(),
        403 => "something on the way to the receiver forbids the request: check RECEIVER_URL and the proxies"
            .to_owned(),
        404 | 405 => {
            "RECEIVER_URL is not the address of a receiver: correct it, or set RECEIVER_PROTOCOL=original \
                      if it is the Python original"
                .to_owned()
        }
        407 => "the proxy in HTTP_PROXY or HTTPS_PROXY asks for a password: put it there".to_owned(),
        421 => "add the host name in RECEIVER_URL to the receiver's ALLOWED_HOSTS".to_owned(),
        300..=399 => format!(
            "set RECEIVER_URL to where the receiver is now{}",
            location.map_or_else(String::new, |to| format!(" ({})", one_line(to)))
        ),
        _ => "check RECEIVER_URL, and the proxies on the way".to_owned(),
    }
}

fn read_acknowledgements(
    body: &[u8],
    records: &[Record],
    protocol: Protocol,
) -> Vec<Option<Acknowledgement>> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        items: Option<Vec<Item<'a>>>,
        status: Option<&'a str>,
    }
    #[derive(Deserialize)]
    struct Item<'a> {
        id: &'a str,
        status: &'a str,
        height: Option<Height>,
        block_hash: Option<&'a str>,
    }
    let none = vec![None; records.len()];
    let Ok(answer) = serde_json::from_slice::<Body>(body) else { return none };
    let Some(items) = answer.items else {
        // The original says no more than that.
        let is_success = protocol == Protocol::Original && answer.status == Some("success");
        return if is_success { vec![Some(Acknowledgement::Pending); records.len()] } else { none };
    };
    let read = |item: &Item| {
        let id = item.id.parse::<TransactionId>().ok()?;
        let acknowledgement = match item.status {
            "pending" => Acknowledgement::Pending,
            "sealed" => {
                Acknowledgement::Sealed { height: item.height?, block_hash: item.block_hash?.parse().ok()? }
            }
            _ => return None,
        };
        Some((id, acknowledgement))
    };
    let named: Vec<_> = items.iter().map(read).collect();
    let is_in_order = named.len() == records.len()
        && named.iter().zip(records).all(|(named, record)| named.is_some_and(|(id, _)| id == record.id));
    if is_in_order {
        return named.into_iter().map(|named| named.map(|(_, acknowledgement)| acknowledgement)).collect();
    }
    let by_id: HashMap<_, _> = named.into_iter().flatten().collect();
    records.iter().map(|record| by_id.get(&record.id).copied()).collect()
}

/// What a refusal may hold: the problem of `/v1`, the error of the older routes and of the original, or nothing of both.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    detail: Option<String>,
    message: Option<String>,
    code: Option<String>,
    #[serde(default)]
    items: Vec<ItemRefusal>,
}

impl Refusal {
    fn read(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Tells whether a receiver wrote it. The original's errors have no code.
    fn is_by_receiver(&self, protocol: Protocol) -> bool {
        self.code.is_some() || (protocol == Protocol::Original && self.message.is_some())
    }

    /// Returns what it says, as one short line: it may come from any program that happens to listen there.
    fn in_words(&self, body: &[u8]) -> String {
        let Some(message) = self.detail.as_ref().or(self.message.as_ref()) else {
            return one_line(&String::from_utf8_lossy(body));
        };
        let code = self.code.as_ref().map_or_else(String::new, |code| format!("{code}: "));
        let items = self.items.iter().take(3);
        let items = items.map(|item| format!("; item {}: {}: {}", item.index, item.code, item.message));
        one_line(&format!("{code}{message}{}", items.collect::<String>()))
    }
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String =
        line.chars().filter(|character| !character.is_control()).take(MESSAGE_SIZE_MAX).collect();
    if line.is_empty() { "without a word".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::batch::tests::record, *};
    use crate::signer::{KeyKind, SigningKey};

    fn records() -> Vec<Record> {
        let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
        ["1", "2", "3"].map(|payload| record(&key, 0, payload)).to_vec()
    }

    fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        let status = StatusCode::from_u16(status).unwrap();
        Reply { status, retry_after: None, location: None, body: body.into(), clock_offset_ms: None }
    }

    fn judge_as(protocol: Protocol, reply: &Reply, records: &[Record]) -> Verdict {
        judge(reply, records, protocol, false, &"http://receiver/".parse().unwrap())
    }

    fn judge_v1(status: u16, body: impl Into<Vec<u8>>) -> Verdict {
        judge_as(Protocol::V1, &reply(status, body), &records())
    }

    fn pending(record: &Record) -> Value {
        json!({"id": record.id, "status": "pending"})
    }

    fn sealed(record: &Record) -> Value {
        json!({"id": record.id, "status": "sealed", "height": 7, "position": 1, "block_hash": BlockHash([9; 32])})
    }

    const SEALED: Acknowledgement = Acknowledgement::Sealed { height: 7, block_hash: BlockHash([9; 32]) };

    #[test]
    fn acknowledges_the_records_that_the_answer_names() {
        let all = records();
        let [first, second, third] = &all[..] else { unreachable!() };
        let (yes, wait) = (Some(SEALED), Some(Acknowledgement::Pending));
        for (items, expected) in [
            (vec![sealed(first), sealed(second), pending(third)], vec![yes, yes, wait]),
            (vec![sealed(third), pending(first)], vec![wait, None, yes]),
            (vec![pending(second)], vec![None, wait, None]),
        ] {
            for (protocol, status) in [(Protocol::V1, 200), (Protocol::V1, 201), (Protocol::Original, 200)] {
                let answer = json!({"items": items, "status": "success", "mining_failed": {"attempts": 3}});
                let verdict = judge_as(protocol, &reply(status, answer.to_string()), &all);
                assert_eq!(verdict, Verdict::Acknowledged(expected.clone()), "{answer}");
            }
        }
    }

    #[test]
    fn takes_nothing_else_for_an_acknowledgement() {
        let all = records();
        let stranger = json!({"id": TransactionId([1; 32]), "status": "sealed", "height": 7,
            "block_hash": BlockHash([9; 32])});
        let with = |change: Value| {
            let mut item = sealed(&all[0]);
            item.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"items": [item]}).to_string()
        };
        for body in [
            String::new(),
            "<html>welcome</html>".to_owned(),
            "null".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            json!({"status": "success", "message": "Data added to blockchain"}).to_string(),
            json!({"items": []}).to_string(),
            json!({"items": [stranger]}).to_string(),
            json!({"items": all.iter().map(|it| it.id).collect::<Vec<_>>()}).to_string(),
            with(json!({"status": "refused"})),
            with(json!({"status": null})),
            with(json!({"block_hash": null})),
            with(json!({"block_hash": "00"})),
            with(json!({"height": -1})),
            with(json!({"id": "00"})),
        ] {
            for status in [200, 201, 202] {
                let verdict = judge_as(Protocol::V1, &reply(status, body.clone()), &all);
                let Verdict::Postponed(failure) = verdict else { panic!("{body}: {verdict:?}") };
                assert!(failure.message.contains("acknowledges no reading"), "{failure:?}");
            }
        }
    }

    #[test]
    fn takes_the_success_of_the_original_for_all() {
        let body = "{\"message\":\"Data added to blockchain\",\"status\":\"success\"}\n";
        let verdict = judge_as(Protocol::Original, &reply(200, body), &records());
        assert_eq!(verdict, Verdict::Acknowledged(vec![Some(Acknowledgement::Pending); 3]));
        for body in
            ["", "<html>", "{\"status\":\"error\",\"message\":\"\"}", "{\"items\":[],\"status\":\"success\"}"]
        {
            let verdict = judge_as(Protocol::Original, &reply(200, body), &records());
            assert!(matches!(verdict, Verdict::Postponed(_)), "{body}: {verdict:?}");
        }
    }

    #[test]
    fn knows_the_items_at_fault() {
        let item =
            |index: usize| json!({"index": index, "code": "invalid_signature", "message": "it does\nnot"});
        let problem = |status: u16, items: Value| {
            json!({"type": "about:blank", "title": "", "status": status, "detail": "1 of 3", "code": "invalid_items",
                "items": items})
        };
        for status in [400, 413, 422] {
            let verdict = judge_v1(status, problem(status, json!([item(2), item(3)])).to_string());
            let Verdict::ItemsRefused(failure, items) = verdict else { panic!("{verdict:?}") };
            assert_eq!(items.len(), 1, "there are three records");
            assert_eq!((items[0].index, items[0].reason()), (2, "invalid_signature: it does not".to_owned()));
            let said = "invalid_items: 1 of 3; item 2: invalid_signature: it does not";
            assert!(failure.message.contains(said), "{}", failure.message);
            let verdict = judge_v1(status, problem(status, json!([item(3)])).to_string());
            assert!(matches!(verdict, Verdict::ListRefused(_)), "{verdict:?}");
        }
    }

    #[test]
    fn tells_a_refusal_of_the_list_from_one_by_something_on_the_way() {
        let problem = |code: &str| json!({"detail": "no", "code": code}).to_string();
        assert!(matches!(judge_v1(413, problem("body_too_large")), Verdict::ListRefused(_)));
        assert!(matches!(judge_v1(413, "<html>too large</html>"), Verdict::ListRefused(_)));
        assert!(matches!(judge_v1(400, problem("not_json")), Verdict::ListRefused(_)));
        for body in ["<html>The plain HTTP request was sent to HTTPS port</html>", "", "{\"message\":\"no\"}"]
        {
            let verdict = judge_v1(400, body);
            assert!(matches!(verdict, Verdict::Misconfigured(_)), "{verdict:?}");
        }
        let original = "{\"message\":\"Invalid signature for item: {'v': 1}\",\"status\":\"error\"}\n";
        let verdict = judge_as(Protocol::Original, &reply(400, original), &records());
        assert!(matches!(verdict, Verdict::ListRefused(_)), "{verdict:?}");
        let verdict = judge_as(Protocol::Original, &reply(400, "<!doctype html>"), &records());
        assert!(matches!(verdict, Verdict::Misconfigured(_)), "{verdict:?}");
    }

    #[test]
    fn says_what_to_change_where_the_list_is_not_to_blame() {
        for (status, cure) in [
            (401, "set RECEIVER_TOKEN"),
            (403, "check RECEIVER_URL"),
            (404, "RECEIVER_PROTOCOL=original"),
            (405, "RECEIVER_URL is not the address of a receiver"),
            (407, "HTTP_PROXY"),
            (421, "ALLOWED_HOSTS"),
            (308, "where the receiver is now (https://elsewhere/)"),
            (415, "check RECEIVER_URL"),
            (418, "check RECEIVER_URL"),
        ] {
            let reply =
                Reply { location: Some("https://elsewhere/".into()), ..reply(status, "<p>\u{1b}[2Jno") };
            let verdict = judge_as(Protocol::V1, &reply, &records());
            let Verdict::Misconfigured(failure) = verdict else { panic!("{status}: {verdict:?}") };
            assert!(failure.message.contains(cure), "{}", failure.message);
            assert!(!failure.message.contains('\u{1b}') && failure.http_status == Some(status));
        }
    }

    #[test]
    fn postpones_what_may_work_later() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            let reply = Reply { retry_after: Some(Duration::from_secs(7)), ..reply(status, "") };
            let verdict = judge_as(Protocol::V1, &reply, &records());
            let Verdict::Postponed(failure) = verdict else { panic!("{status}: {verdict:?}") };
            assert_eq!((failure.http_status, failure.retry_after), (Some(status), reply.retry_after));
            assert!(failure.message.ends_with("without a word"), "{}", failure.message);
        }
    }

    #[test]
    fn sends_plain_what_was_not_read_compressed() {
        for (status, code) in [(415, "unsupported_encoding"), (400, "broken_body")] {
            let reply = reply(status, json!({"detail": "no", "code": code}).to_string());
            let url = "http://receiver/".parse().unwrap();
            assert_eq!(judge(&reply, &records(), Protocol::V1, true, &url), Verdict::CompressionRefused);
            let verdict = judge(&reply, &records(), Protocol::V1, false, &url);
            assert_ne!(verdict, Verdict::CompressionRefused);
        }
    }

    #[test]
    fn shows_a_refusal_as_one_short_line() {
        let words = |body: &[u8]| Refusal::read(body).in_words(body);
        assert_eq!(words(b"<h1>Bad\r\n Gateway</h1>\x1b[2J\xff"), "<h1>Bad Gateway</h1>[2J\u{fffd}");
        assert_eq!(words(&[b'x'; 10_000]).len(), MESSAGE_SIZE_MAX);
        assert_eq!(words(b"{\"message\": \"a\", \"code\": \"b\"}"), "b: a");
        assert_eq!(words(b""), "without a word");
    }
}
