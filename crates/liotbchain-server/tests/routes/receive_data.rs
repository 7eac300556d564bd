use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::Difficulty;
use liotbchain_node::LedgerConfig;
use liotbchain_server::ReceiverConfig;
use reqwest::header;
use serde_json::{Value, json};

use crate::{
    running::{self, Running, ledger_config, memory, receiver_config, refused, sqlite},
    signer::Signer,
};

#[tokio::test]
async fn acknowledges_each_item_with_its_place() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let receiver = Running::with(store, ledger_config(), receiver_config()).await;
        let device = Signer::new();
        let answer = receiver.take(&[device.item("1"), device.item("2"), device.item("3")]).await;
        assert_eq!(answer["status"], "success");
        assert_eq!(answer["message"], "Data added to blockchain");
        assert_eq!(answer.as_object().unwrap().len(), 3);

        let chain = receiver.get_json("/get_chain").await;
        let id = |payload: &str| device.statement(payload.to_owned()).id().to_string();
        let sealed = |payload, position| json!({"id": id(payload), "status": "sealed", "height": 1, "position": position, "block_hash": chain[1]["hash"]});
        let pending = json!({"id": id("3"), "status": "pending"});
        assert_eq!(answer["items"], json!([sealed("1", 0), sealed("2", 1), pending]));
        receiver.stop().await;
    }
}

#[tokio::test]
async fn takes_a_single_item_as_a_list_of_one() {
    let receiver = Running::start().await;
    let response = receiver.post(Signer::new().item("{}")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(running::json(response).await["items"][0]["status"], "pending");
}

#[tokio::test]
async fn the_same_statement_is_one_transaction() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let (item, other) = (device.item("1"), device.item("2"));
    let first = receiver.take(&[item.clone(), item.clone(), other]).await;
    assert_eq!(first["items"][0], first["items"][1]);
    let again = receiver.take(std::slice::from_ref(&item)).await;
    assert_eq!(again["items"][0], first["items"][0]);
    let chain = receiver.get_json("/get_chain").await;
    assert_eq!(chain.as_array().unwrap().len(), 2);
    assert_eq!(chain[1]["data"], json!([1, 2]));
}

/// More than one item is verified where the request arrives only if the body is small.
#[tokio::test]
async fn takes_a_list_of_thousands() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let items: Vec<_> = (0..8_000).map(|number| device.item(&number.to_string())).collect();
    let answer = receiver.take(&items).await;
    let acknowledged = answer["items"].as_array().unwrap();
    assert_eq!(acknowledged.len(), 8_000);
    for (number, item) in acknowledged.iter().enumerate() {
        assert_eq!(item["status"], "sealed");
        assert_eq!((&item["height"], &item["position"]), (&json!(number / 2 + 1), &json!(number % 2)));
    }
    let (status, code, _) = receiver.refuse(format!("[{}, 0]", items.join(","))).await;
    assert_eq!((status, code.as_str()), (413, "too_many_items"));
}

#[tokio::test]
async fn refuses_a_list_whole_and_names_the_items_at_fault() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let (good, bad) = (device.item("1"), device.item_signed("[2]", "[3]"));
    let (status, code, answer) = receiver.refuse(format!("[{good},{bad},7]")).await;
    assert_eq!((status, code.as_str()), (400, "invalid_items"));
    assert!(
        answer["message"].as_str().unwrap().starts_with("Invalid signature for item: [2]; 2 of 3"),
        "{answer}"
    );
    let items = answer["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!((&items[0]["index"], &items[0]["code"]), (&json!(1), &json!("invalid_signature")));
    assert_eq!((&items[1]["index"], &items[1]["code"]), (&json!(2), &json!("not_an_object")));
    assert_eq!(receiver.ledger.status().pending, 0);
}

#[tokio::test]
async fn names_what_is_wrong() {
    let config = ReceiverConfig { payload_size_max: 100, ..receiver_config() };
    let receiver = Running::with(memory().await, ledger_config(), config).await;
    let device = Signer::new();
    let item = |from: &str, to: &str| format!("[{}]", device.item("\"a\"").replacen(from, to, 1));
    let cases = [
        ("", 400, "not_json"),
        ("[", 400, "not_json"),
        ("NaN", 400, "not_json"),
        ("null", 400, "not_a_list"),
        ("[]", 400, "empty_list"),
        ("[0]", 400, "not_an_object"),
        (&item("\"data\"", "\"date\""), 400, "unknown_key"),
        (&item("\"data\": \"a\",", ""), 400, "missing_key"),
        (&item("{", "{\"data\": 1,"), 400, "duplicate_key"),
        (&item("\"a\"", "\"b\""), 400, "invalid_signature"),
        (&item("\"signature\": \"", "\"signature\": \"*"), 400, "bad_base64"),
        (&item("\"signature\": \"", "\"signature\": 1, \"x\": \""), 400, "bad_signature_type"),
        (&item("BEGIN PUBLIC", "BEGIN"), 400, "bad_public_key"),
        (&item("BEGIN PUBLIC", "BEGIN PRIVATE"), 400, "private_key_sent"),
        (&format!("[{}]", device.item("{\"a\":1,\"a\":2}")), 400, "bad_data"),
        (&format!("[{}]", device.item(&format!("\"{}\"", "a".repeat(99)))), 413, "payload_too_large"),
        (&format!("[{}]", device.item(&("[".repeat(101) + &"]".repeat(101)))), 400, "too_deep"),
    ];
    for (body, status, code) in cases {
        let (got, whole_code, answer) = receiver.refuse(body.to_owned()).await;
        let item_code = answer["items"][0]["code"].as_str().unwrap_or(&whole_code);
        assert_eq!((got, item_code), (status, code), "{body}: {answer}");
    }
    let (status, code, _) = receiver.refuse(b"\"\xff\"".to_vec()).await;
    assert_eq!((status, code.as_str()), (400, "not_utf8"));
    assert_eq!(receiver.ledger.status().pending, 0);
}

#[tokio::test]
async fn says_that_mining_failed_and_keeps_the_items() {
    let config =
        LedgerConfig { difficulty: Difficulty::new(16).unwrap(), nonce_limit: 1_000, ..ledger_config() };
    let receiver = Running::with(memory().await, config, receiver_config()).await;
    let device = Signer::new();
    let answer = receiver.take(&[device.item("1"), device.item("2"), device.item("3")]).await;
    assert_eq!(answer["mining_failed"], json!({"attempts": 1_000}));
    for item in answer["items"].as_array().unwrap() {
        assert_eq!((&item["status"], item.as_object().unwrap().len()), (&json!("pending"), 2));
    }
    assert_eq!(receiver.ledger.status().pending, 3);
}

#[tokio::test]
async fn says_pending_rather_than_wait_for_long() {
    let ledger =
        LedgerConfig { difficulty: Difficulty::new(16).unwrap(), nonce_limit: 1 << 32, ..ledger_config() };
    let config = ReceiverConfig { seal_wait: Duration::from_millis(50), ..receiver_config() };
    let receiver = Running::with(memory().await, ledger, config).await;
    let device = Signer::new();
    let answer = receiver.take(&[device.item("1"), device.item("2")]).await;
    assert_eq!(answer["items"][1]["status"], "pending");
    assert_eq!(answer.get("mining_failed"), None);
    receiver.stop().await;
}

#[tokio::test]
async fn asks_to_come_back_when_too_much_is_pending() {
    let config = LedgerConfig { pending_max: 1, ..ledger_config() };
    let receiver = Running::with(memory().await, config, receiver_config()).await;
    let device = Signer::new();
    receiver.take(&[device.item("1")]).await;
    let response = receiver.post(device.item("2")).send().await.unwrap();
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    let (status, code, answer) = refused(response).await;
    assert_eq!((status, code.as_str()), (503, "overloaded"));
    assert!(!answer.to_string().contains("wait to be mined"), "the cause is the log's: {answer}");
}

#[tokio::test]
async fn asks_to_come_back_while_the_store_is_gone() {
    let (store, _folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    receiver.ledger.store().close().await;
    let response = receiver.post(Signer::new().item("1")).send().await.unwrap();
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    let (status, code, answer) = refused(response).await;
    assert_eq!((status, code.as_str()), (503, "store_unavailable"));
    assert!(answer["request_id"].is_string(), "{answer}");
}

/// All that the sender of the Python original was recorded to send, but for what we refuse on purpose.
#[tokio::test]
async fn takes_what_the_original_sender_sent() {
    let config = LedgerConfig { transactions_per_block: 1, ..ledger_config() };
    let receiver = Running::with(memory().await, config, receiver_config()).await;
    let text = include_str!("../../../../testdata/original/sender-payloads.json");
    let recorded: Value = serde_json::from_str(text).unwrap();
    let decode =
        |value: &Value| String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap();
    let mut accepted = 0;
    let payloads = recorded["payloads"].as_array().unwrap();
    for payload in payloads {
        let body = decode(&payload["body_b64"]);
        match payload["name"].as_str().unwrap() {
            "0 items (empty list)" => assert_eq!(receiver.refuse(body).await.1, "empty_list"),
            "long string 100 kB" => assert_eq!(receiver.refuse(body).await.1, "payload_too_large"),
            name => {
                let response = receiver.post(body).send().await.unwrap();
                assert_eq!(response.status(), 200, "{name}");
                let chain = receiver.get("/get_chain").await.text().await.unwrap();
                for signed in payload["signed_messages_b64"].as_array().unwrap() {
                    assert!(chain.contains(&decode(signed)), "{name}");
                }
                accepted += 1;
            }
        }
    }
    assert_eq!(accepted, payloads.len() - 2);
}
