//! A receiver: whether it is there, takes the token, and what time it has.

use std::time::SystemTime;

use reqwest::{
    StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, LOCATION},
};
use serde::Deserialize;

use super::{Finding, Verdict, client};
use crate::forward::{Protocol, Receiver, clock, link::root_cause};

/// Posts a list without readings, which stores nothing and is refused for being empty only to who may post.
pub(super) async fn receiver(receiver: &Receiver, protocol: Protocol) -> Vec<Finding> {
    let url = receiver.url();
    let mut route = url.clone();
    let steps: &[&str] = match protocol {
        Protocol::V1 => &["v1", "transactions"],
        Protocol::Original => &["receive_data"],
    };
    if let Ok(mut path) = route.path_segments_mut() {
        path.pop_if_empty().extend(steps);
    }
    let client = match client(receiver.is_on_this_machine()) {
        Ok(client) => client,
        Err(error) => {
            return vec![Finding::fail("receiver", format!("cannot set up the HTTP client: {error}"))];
        }
    };
    let mut request = client.post(route).header(CONTENT_TYPE, "application/json").body("[]");
    if let Some(authorization) = &receiver.authorization {
        request = request.header(AUTHORIZATION, authorization.clone());
    }
    match request.send().await {
        Ok(answer) => {
            let (status, headers) = (answer.status(), answer.headers().clone());
            let code = read_code(answer).await;
            let clock = clock(url, &headers, SystemTime::now());
            [Some(judge(url, protocol, status, code.as_deref(), &headers)), clock]
                .into_iter()
                .flatten()
                .collect()
        }
        Err(error) => {
            let message = format!("{url} cannot be reached: {}", root_cause(&error));
            let cure = "start it, or correct RECEIVER_URL; readings wait in the queue meanwhile";
            vec![Finding::new("receiver", Verdict::Unreachable, message).cure(cure)]
        }
    }
}

fn judge(
    url: &Url,
    protocol: Protocol,
    status: StatusCode,
    code: Option<&str>,
    headers: &HeaderMap,
) -> Finding {
    let told = code.map_or_else(|| status.to_string(), |code| format!("{status}, {code}"));
    let fail = |cure: &str| Finding::fail("receiver", format!("{url} answers {told}")).cure(cure);
    match (protocol, status.as_u16()) {
        (Protocol::V1, 400) if code == Some("empty_list") => {
            Finding::ok("receiver", format!("{url} is there, speaks v1 and takes the token"))
        }
        // The original's words are its own, and what it says to an empty list is not worth relying on.
        (Protocol::Original, 200 | 400) => {
            Finding::ok("receiver", format!("{url} is there and answers {status}"))
        }
        (_, 401) => fail("set RECEIVER_TOKEN to the receiver's API_TOKEN"),
        (_, 421) => fail("add the host name in RECEIVER_URL to the receiver's ALLOWED_HOSTS"),
        (_, 300..=399) => {
            let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("elsewhere");
            fail(&format!("set RECEIVER_URL to where the receiver is now ({location})"))
        }
        (Protocol::V1, 404 | 405) => fail(
            "RECEIVER_URL is not the address of a receiver, or of one that knows RECEIVER_PROTOCOL=original alone",
        ),
        (_, 429 | 500..=599) => {
            Finding::new("receiver", Verdict::Unreachable, format!("{url} answers {told}"))
                .cure("see the receiver's log; readings wait in the queue meanwhile")
        }
        _ => fail("RECEIVER_URL is not the address of a receiver: correct it"),
    }
}

/// A clock that is wrong by less is late, not wrong.
fn clock(url: &Url, headers: &HeaderMap, now: SystemTime) -> Option<Finding> {
    let offset_ms = clock::offset_ms(headers.get(DATE)?, now)?;
    let seconds = offset_ms.unsigned_abs() / 1000;
    if !clock::is_wrong(offset_ms) {
        return Some(Finding::ok("clock", format!("within {} s of that of {url}", seconds + 1)));
    }
    let side = if offset_ms > 0 { "behind" } else { "ahead of" };
    let message = format!("this machine's clock is {seconds} s {side} that of {url}");
    let cure = "`timedatectl set-ntp true` sets the clock and keeps it right (or correct the receiver's); readings are \
                taken and sent all the same, and carry the wrong received_ms";
    Some(Finding::warn("clock", message).cure(cure))
}

async fn read_code(mut answer: reqwest::Response) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        code: String,
    }
    // Any program may have answered, and with as much as it likes.
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > 64 << 10 {
            return None;
        }
    }
    let Refusal { code } = serde_json::from_slice(&body).ok()?;
    Some(code.chars().filter(|letter| !letter.is_control()).take(100).collect())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn each_answer_has_its_verdict_and_its_cure() {
        let url = Url::parse("http://chain.example.org").unwrap();
        let judged = |status, code| {
            let status = StatusCode::from_u16(status).unwrap();
            let finding = judge(&url, Protocol::V1, status, code, &HeaderMap::new());
            (finding.verdict, finding.cure.unwrap_or_default())
        };
        assert_eq!(judged(400, Some("empty_list")).0, Verdict::Ok);
        for (status, verdict, cure) in [
            (401, Verdict::Fail, "RECEIVER_TOKEN"),
            (421, Verdict::Fail, "ALLOWED_HOSTS"),
            (308, Verdict::Fail, "where the receiver is now"),
            (404, Verdict::Fail, "RECEIVER_PROTOCOL"),
            (503, Verdict::Unreachable, "log"),
            // Whoever takes an empty list is no receiver of ours.
            (200, Verdict::Fail, "RECEIVER_URL"),
            (400, Verdict::Fail, "RECEIVER_URL"),
        ] {
            let (found, told) = judged(status, None);
            assert_eq!(found, verdict, "{status}");
            assert!(told.contains(cure), "{status}: {told}");
        }
    }

    #[test]
    fn a_wrong_clock_is_a_warning() {
        let url = Url::parse("http://chain.example.org").unwrap();
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
        let finding = |date| {
            let headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]);
            clock(&url, &headers, now)
        };
        assert_eq!(finding("Sun, 06 Nov 1994 08:49:40 GMT").unwrap().verdict, Verdict::Ok);
        let behind = finding("Sun, 06 Nov 1994 10:49:37 GMT").unwrap();
        assert_eq!(behind.verdict, Verdict::Warn);
        assert!(behind.message.contains("7200 s behind"), "{behind:?}");
        assert!(finding("Sun, 06 Nov 1994 08:48:37 GMT").unwrap().message.contains("ahead of"));
        assert!(finding("yesterday").is_none());
    }
}
