//! What holds for every route of `/v1`.

use std::io::Read;

use flate2::read::GzDecoder;
use liotbchain_core::Difficulty;
use liotbchain_http::{Edge, Token};
use liotbchain_node::LedgerConfig;
use liotbchain_server::ReceiverConfig;
use reqwest::{Method, header};
use serde_json::json;

use crate::{
    running::{Running, ledger_config, memory, problem, receiver_config, sqlite},
    signer::Signer,
};

#[tokio::test]
async fn the_doors_refusals_are_problems_too() {
    let edge = Edge { api_token: Some(Token::new("0123456789abcdef")), ..Edge::default() };
    let config = ReceiverConfig { edge, ..receiver_config() };
    let receiver = Running::with(memory().await, ledger_config(), config).await;
    let request = |method, path| receiver.client.request(method, receiver.url(path));
    for (request, status, expected) in [
        (request(Method::GET, "/v1"), 404, "not_found"),
        (request(Method::GET, "/v1/nothing"), 404, "not_found"),
        (request(Method::GET, "/v1/status/"), 404, "not_found"),
        (request(Method::GET, "/v1/status").header(header::HOST, "evil.example"), 421, "unknown_host"),
        (
            request(Method::GET, "/v1/status").header(header::ORIGIN, "http://evil.example"),
            403,
            "foreign_origin",
        ),
        (request(Method::POST, "/v1/transactions").json(&json!([])), 401, "unauthorized"),
    ] {
        let response = request.send().await.unwrap();
        let asks = response.headers().get(header::WWW_AUTHENTICATE).is_some();
        let (got, code, _) = problem(response).await;
        assert_eq!((got, code.as_str()), (status, expected));
        assert_eq!(asks, status == 401);
    }
    let item = Signer::new().transaction("1").to_string();
    let taken = receiver.post_v1(item).bearer_auth("0123456789abcdef").send().await.unwrap();
    assert_eq!(taken.status(), 201);
}

#[tokio::test]
async fn other_methods_are_refused_with_those_there_are() {
    let receiver = Running::start().await;
    let id = "0".repeat(64);
    for (path, allow) in [
        ("/v1/transactions", "POST"),
        (&format!("/v1/transactions/{id}"), "GET,HEAD"),
        ("/v1/blocks", "GET,HEAD"),
        ("/v1/blocks/tip", "GET,HEAD"),
        ("/v1/keys", "GET,HEAD"),
        (&format!("/v1/keys/{id}"), "GET,HEAD"),
        ("/v1/status", "GET,HEAD"),
        ("/v1/export", "GET,HEAD"),
    ] {
        let refused = receiver.client.patch(receiver.url(path)).send().await.unwrap();
        assert_eq!(refused.headers()[header::ALLOW], allow, "{path}");
        let (status, code, _) = problem(refused).await;
        assert_eq!((status, code.as_str()), (405, "method_not_allowed"), "{path}");
        let options = receiver.client.request(Method::OPTIONS, receiver.url(path)).send().await.unwrap();
        assert_eq!(
            (options.status().as_u16(), &options.headers()[header::ALLOW]),
            (200, &allow.parse().unwrap())
        );
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let receiver = Running::start().await;
    let device = Signer::new();
    receiver.take(&["1", "2"].map(|text| device.item(text))).await;
    let id = device.statement("1".to_owned()).id();
    for path in [
        &format!("/v1/transactions/{id}"),
        "/v1/transactions/0",
        "/v1/blocks",
        "/v1/blocks?limit=1",
        "/v1/blocks/tip",
        "/v1/blocks/x",
        &format!("/v1/blocks/{}", receiver.ledger.genesis()),
        "/v1/keys",
        &format!("/v1/keys/{}", device.key.key_id()),
        "/v1/export",
    ] {
        for encoding in ["identity", "gzip", "zstd"] {
            let ask = |method| {
                receiver
                    .client
                    .request(method, receiver.url(path))
                    .header(header::ACCEPT_ENCODING, encoding)
                    .send()
            };
            let (get, head) = (ask(Method::GET).await.unwrap(), ask(Method::HEAD).await.unwrap());
            assert_eq!(get.status(), head.status(), "{path}");
            let headers = |response: &reqwest::Response| {
                let mut headers = response.headers().clone();
                headers.remove(header::DATE);
                headers.remove(header::TRANSFER_ENCODING);
                headers
            };
            assert_eq!(headers(&get), headers(&head), "{path} {encoding}");
            assert!(head.bytes().await.unwrap().is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_ask() {
    let receiver = Running::start().await;
    let device = Signer::new();
    receiver.take(&[device.item(&format!("\"{}\"", "a".repeat(5_000))), device.item("2")]).await;
    let get = |path: &str, encoding: &'static str| {
        receiver.client.get(receiver.url(path)).header(header::ACCEPT_ENCODING, encoding).send()
    };
    for path in ["/v1/blocks/1", "/v1/export"] {
        let plain = get(path, "identity").await.unwrap();
        assert_eq!(plain.headers().get(header::CONTENT_ENCODING), None);
        assert_eq!(plain.headers()[header::VARY], "accept-encoding");
        let etag = plain.headers()[header::ETAG].to_str().unwrap().to_owned();
        let plain = plain.bytes().await.unwrap();
        for (asked, expected) in [("gzip", "gzip"), ("zstd", "zstd"), ("gzip, deflate, br, zstd", "zstd")] {
            let response = get(path, asked).await.unwrap();
            assert_eq!(response.headers()[header::CONTENT_ENCODING], expected, "{path}");
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
            // Other bytes than those of the strong tag, and the same for who has it.
            assert_eq!(response.headers()[header::ETAG], format!("W/{etag}"));
            let body = response.bytes().await.unwrap();
            assert!(body.len() < plain.len() / 2, "{path}");
            let mut unpacked = Vec::new();
            match expected {
                "gzip" => _ = GzDecoder::new(&body[..]).read_to_end(&mut unpacked).unwrap(),
                _ => unpacked = zstd::decode_all(&body[..]).unwrap(),
            }
            assert_eq!(unpacked, plain, "{path}");
        }
    }
    let short = get("/v1/keys", "gzip").await.unwrap();
    assert_eq!(short.headers().get(header::CONTENT_ENCODING), None);
    let refused = get("/v1/blocks/x", "gzip").await.unwrap();
    assert_eq!(refused.headers().get(header::CONTENT_ENCODING), None);
    let seed = get("/get_chain", "gzip").await.unwrap();
    assert_eq!(seed.headers().get(header::CONTENT_ENCODING), None);
}

#[tokio::test]
async fn a_failing_store_is_a_problem_with_a_request_id() {
    let (store, _folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    receiver.ledger.store().close().await;
    let id = "0".repeat(64);
    let item = Signer::new().transaction("1").to_string();
    let mut answers = vec![receiver.post_v1(item).send().await.unwrap()];
    for path in [
        "/v1/blocks",
        "/v1/blocks/0",
        "/v1/keys",
        &format!("/v1/keys/{id}"),
        &format!("/v1/transactions/{id}"),
    ] {
        answers.push(receiver.get(path).await);
    }
    for answer in answers {
        assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
        let (status, code, _) = problem(answer).await;
        assert_eq!((status, code.as_str()), (503, "store_unavailable"));
    }
}

/// Mining takes years here, so whatever waited for it would never answer.
#[tokio::test]
async fn reads_do_not_wait_for_mining() {
    let config = LedgerConfig { difficulty: Difficulty::MAX, nonce_limit: 1 << 32, ..ledger_config() };
    let receiver = Running::with(memory().await, config, receiver_config()).await;
    let device = Signer::new();
    let list = json!([device.transaction("1"), device.transaction("2")]).to_string();
    let request = receiver.client.post(receiver.url("/v1/transactions?wait=0"));
    let taken = request.header(header::CONTENT_TYPE, "application/json").body(list).send().await.unwrap();
    assert_eq!(taken.status(), 201);
    let id = device.statement("1".to_owned()).id();
    assert_eq!(receiver.get_json(&format!("/v1/transactions/{id}")).await["status"], "pending");
    for path in ["/v1/status", "/v1/blocks", "/v1/blocks/tip", "/v1/keys", "/v1/export", "/v1/validation"] {
        assert_eq!(receiver.get(path).await.status(), 200, "{path}");
    }
    receiver.stop().await;
}
