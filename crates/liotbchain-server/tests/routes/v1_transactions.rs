use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use liotbchain_core::{Difficulty, Transaction, hash::ContentHash};
use liotbchain_http::Limits;
use liotbchain_node::LedgerConfig;
use liotbchain_server::ReceiverConfig;
use reqwest::header;
use serde_json::{Value, json};

use crate::{
    running::{Running, json, ledger_config, memory, problem, receiver_config, sqlite},
    signer::Signer,
};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 3).unwrap()
}

async fn get_transaction(receiver: &Running, id: &Value) -> Value {
    receiver.get_json(&format!("/v1/transactions/{}", id.as_str().unwrap())).await
}

#[tokio::test]
async fn what_was_posted_can_be_read() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let receiver = Running::with(store, ledger_config(), receiver_config()).await;
        let device = Signer::new();
        let texts = ["{\"b\" : 1.10,\n \"a\":\"é\"}", "\"\\u00e9\"", "3"];
        let list = json!(texts.map(|text| device.transaction(text)));
        let response = receiver.post_v1(list.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers().get(header::LOCATION), None);
        let answer = json(response).await;
        assert_eq!(answer.as_object().unwrap().len(), 1, "{answer}");

        let tip = receiver.ledger.status().tip.to_string();
        for (number, (text, item)) in texts.iter().zip(answer["items"].as_array().unwrap()).enumerate() {
            let statement = device.statement((*text).to_owned());
            assert_eq!(item["id"], statement.id().to_string());
            let shown = get_transaction(&receiver, &item["id"]).await;
            assert_eq!(shown["payload"], *text);
            assert_eq!(shown["public_key"], device.key.to_pem());
            assert_eq!(shown["key_id"], device.key.key_id().to_string());
            assert_eq!(shown["signature"], list[number]["signature"]);
            assert_eq!(shown["content_hash"], statement.statement().content_hash().to_string());
            for key in ["status", "height", "position", "block_hash"] {
                assert_eq!(shown[key], item[key], "{key}");
            }
            if number < 2 {
                assert_eq!((&shown["status"], &shown["sequence"]), (&json!("sealed"), &json!(number)));
                assert_eq!((&shown["height"], &shown["block_hash"]), (&json!(1), &json!(tip)));
                let content = liotbchain_core::Content::Full(statement.statement().clone());
                let leaf = Transaction { sequence: number as u64, content };
                assert_eq!(shown["leaf_hash"], ContentHash(leaf.leaf_hash()).to_string());
            } else {
                assert_eq!(shown["status"], "pending");
                assert_eq!((shown.get("sequence"), shown.get("leaf_hash")), (None, None));
            }
        }
        receiver.stop().await;
    }
}

#[tokio::test]
async fn what_is_known_is_acknowledged_again() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let (one, two) = (device.transaction("1"), device.transaction("2"));
    let first = receiver.post_v1(one.to_string()).send().await.unwrap();
    assert_eq!(first.status(), 201);
    let location = first.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let first = json(first).await;
    assert_eq!(receiver.get_json(&location).await["id"], first["items"][0]["id"]);
    let again = receiver.post_v1(one.to_string()).send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(json(again).await, first);
    let some_new = receiver.post_v1(json!([one, two]).to_string()).send().await.unwrap();
    assert_eq!(some_new.status(), 201);
    let all_known = receiver.post_v1(json!([one, two]).to_string()).send().await.unwrap();
    assert_eq!(all_known.status(), 200);
    assert_eq!(json(all_known).await["items"][1]["status"], "sealed");
    // The seed's route has the same transactions.
    let seed = receiver.take(&[device.item("1")]).await;
    assert_eq!(seed["items"][0]["height"], 1);
}

#[tokio::test]
async fn takes_an_object_a_line_and_keys_by_their_ids() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let named = |payload: &str| {
        let mut item = device.transaction(payload);
        item.as_object_mut().unwrap().remove("public_key");
        item["key_id"] = json!(device.key.key_id());
        item
    };
    let (status, code, answer) =
        problem(receiver.post_v1(named("1").to_string()).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (400, "invalid_items"));
    assert_eq!(answer["items"][0]["code"], "key_not_known");
    let lines = |lines: &[Value]| {
        let body: Vec<_> = lines.iter().map(Value::to_string).collect();
        let request = receiver.client.post(receiver.url("/v1/transactions"));
        request.header(header::CONTENT_TYPE, "application/x-ndjson").body(body.join("\n") + "\n").send()
    };
    assert_eq!(lines(&[device.transaction("1"), device.transaction("2")]).await.unwrap().status(), 201);
    let taken = lines(&[named("3"), named("4")]).await.unwrap();
    assert_eq!(taken.status(), 201);
    assert_eq!(
        json(taken).await["items"][1],
        json!({
            "id": device.statement("4".to_owned()).id(), "status": "sealed", "height": 2, "position": 1,
            "block_hash": receiver.ledger.status().tip,
        })
    );
    let (_, code, answer) = problem(lines(&[named("5"), json!("6")]).await.unwrap()).await;
    assert_eq!(code, "invalid_items");
    assert_eq!(
        (&answer["items"][0]["index"], &answer["items"][0]["code"]),
        (&json!(1), &json!("not_an_object"))
    );
    assert_eq!(receiver.ledger.status().pending, 0);
}

#[tokio::test]
async fn takes_compressed_bodies() {
    let receiver = Running::start().await;
    let device = Signer::new();
    for (number, (encoding, encode)) in
        [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd), ("identity", |text| text.to_vec())]
            .into_iter()
            .enumerate()
    {
        let list: Vec<_> =
            (0..100).map(|item| device.transaction(&(number * 100 + item).to_string())).collect();
        let body = encode(json!(list).to_string().as_bytes());
        let response =
            receiver.post_v1(body).header(header::CONTENT_ENCODING, encoding).send().await.unwrap();
        assert_eq!(response.status(), 201, "{encoding}");
        assert_eq!(json(response).await["items"][99]["status"], "sealed");
    }
}

#[tokio::test]
async fn refuses_what_unpacks_to_more_than_a_body_may_have() {
    let limits = Limits { body_size_max: 100_000, ..receiver_config().limits };
    let receiver =
        Running::with(memory().await, ledger_config(), ReceiverConfig { limits, ..receiver_config() }).await;
    let bomb = vec![b' '; 50_000_000];
    for (encoding, body) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        assert!(body.len() < 100_000);
        let response =
            receiver.post_v1(body).header(header::CONTENT_ENCODING, encoding).send().await.unwrap();
        let (status, code, _) = problem(response).await;
        assert_eq!((status, code.as_str()), (413, "body_too_large"), "{encoding}");
    }
    for (encoding, expected) in [
        ("gzip", (400, "broken_body")),
        ("zstd", (400, "broken_body")),
        ("br", (415, "unsupported_encoding")),
    ] {
        let response =
            receiver.post_v1("[]").header(header::CONTENT_ENCODING, encoding).send().await.unwrap();
        let (status, code, _) = problem(response).await;
        assert_eq!((status, code.as_str()), expected, "{encoding}");
    }
}

#[tokio::test]
async fn names_what_is_wrong_and_takes_nothing() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let good = device.transaction("1");
    let mut bad = device.transaction("2");
    bad["payload"] = json!("3");
    for (body, status, expected) in [
        ("".to_owned(), 400, "not_json"),
        ("7".to_owned(), 400, "not_a_list"),
        ("[]".to_owned(), 400, "empty_list"),
        (json!([good, bad]).to_string(), 400, "invalid_items"),
        (json!([good, device.transaction("{\"a\":1,\"a\":1}")]).to_string(), 400, "invalid_items"),
        (json!([device.transaction(&"1".repeat(65_537))]).to_string(), 413, "payload_too_large"),
        (json!(vec![good.clone(); 8_001]).to_string(), 413, "too_many_items"),
        (" ".repeat((8 << 20) + 1), 413, "body_too_large"),
    ] {
        let shown: String = body.chars().take(100).collect();
        let (got, code, _) = problem(receiver.post_v1(body).send().await.unwrap()).await;
        assert_eq!((got, code.as_str()), (status, expected), "{shown}");
    }
    let request = receiver.client.post(receiver.url("/v1/transactions")).body(good.to_string());
    let (status, code, _) =
        problem(request.header(header::CONTENT_TYPE, "text/plain").send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (415, "unsupported_content_type"));
    assert_eq!(receiver.ledger.status().pending, 0);
    assert_eq!(receiver.ledger.status().height, 0);
}

#[tokio::test]
async fn waits_no_longer_than_asked() {
    let ledger =
        LedgerConfig { difficulty: Difficulty::new(16).unwrap(), nonce_limit: 1 << 32, ..ledger_config() };
    // Mining will not end in the time of this test, and neither would an answer that waits for it.
    let config = ReceiverConfig { seal_wait: Duration::from_secs(100_000), ..receiver_config() };
    let receiver = Running::with(memory().await, ledger, config).await;
    let device = Signer::new();
    let list = json!([device.transaction("1"), device.transaction("2")]).to_string();
    for wait in ["0", "0.05"] {
        let request = receiver.client.post(receiver.url(&format!("/v1/transactions?wait={wait}")));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(list.clone());
        assert_eq!(json(request.send().await.unwrap()).await["items"][1]["status"], "pending");
    }
    for wait in ["-1", "x", "NaN", "", "1&wait=2", "1&for=2"] {
        let request = receiver.client.post(receiver.url(&format!("/v1/transactions?wait={wait}")));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(list.clone());
        let (status, code, _) = problem(request.send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (400, "bad_query"), "{wait}");
    }
    receiver.stop().await;
}

#[tokio::test]
async fn a_sealed_one_is_not_sent_again_to_whoever_has_it() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let list = json!([device.transaction("1"), device.transaction("2"), device.transaction("3")]);
    let answer = json(receiver.post_v1(list.to_string()).send().await.unwrap()).await;
    let url = |number: usize| {
        let id = answer["items"][number]["id"].as_str().unwrap();
        receiver.url(&format!("/v1/transactions/{id}"))
    };
    let sealed = receiver.client.get(url(0)).send().await.unwrap();
    let etag = sealed.headers()[header::ETAG].clone();
    assert_eq!(etag, format!("\"{}\"", receiver.ledger.status().tip));
    assert_eq!(sealed.headers()[header::CACHE_CONTROL], "no-cache");
    let again = receiver.client.get(url(0)).header(header::IF_NONE_MATCH, &etag).send().await.unwrap();
    assert_eq!((again.status().as_u16(), &again.headers()[header::ETAG]), (304, &etag));
    assert_eq!(again.bytes().await.unwrap(), "");
    let pending = receiver.client.get(url(2)).header(header::IF_NONE_MATCH, "*").send().await.unwrap();
    assert_eq!((pending.status().as_u16(), pending.headers().get(header::ETAG)), (200, None));
}

#[tokio::test]
async fn says_what_is_no_id_and_what_is_unknown() {
    let receiver = Running::start().await;
    let (status, code, _) = problem(receiver.get("/v1/transactions/7").await).await;
    assert_eq!((status, code.as_str()), (400, "bad_transaction_id"));
    let (status, code, _) =
        problem(receiver.get(&format!("/v1/transactions/{}", "0".repeat(64))).await).await;
    assert_eq!((status, code.as_str()), (404, "transaction_not_found"));
}
