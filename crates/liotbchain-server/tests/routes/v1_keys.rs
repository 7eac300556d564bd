use reqwest::header;
use serde_json::{Value, json};

use crate::{
    running::{Running, ledger_config, memory, problem, receiver_config, sqlite},
    signer::Signer,
};

#[tokio::test]
async fn a_key_is_there_by_its_id_with_the_number_of_its_transactions() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let receiver = Running::with(store, ledger_config(), receiver_config()).await;
        let device = Signer::new();
        let path = format!("/v1/keys/{}", device.key.key_id());
        let (status, code, _) = problem(receiver.get(&path).await).await;
        assert_eq!((status, code.as_str()), (404, "key_not_found"));
        receiver.take(&["1", "2", "3"].map(|text| device.item(text))).await;
        let expected = json!({
            "key_id": device.key.key_id(), "algorithm": "Ed25519", "public_key": device.key.to_pem(),
            "transactions": 2,
        });
        assert_eq!(receiver.get_json(&path).await, expected);
        receiver.stop().await;
    }
}

#[tokio::test]
async fn keys_come_in_pages() {
    let receiver = Running::start().await;
    let mut devices: Vec<_> = (0..5).map(|_| Signer::new()).collect();
    for device in &devices {
        receiver.take(&[device.item("1")]).await;
    }
    devices.sort_by_key(|device| device.key.key_id());
    let mut got = Vec::new();
    let mut next = Some("/v1/keys?limit=2".to_owned());
    let mut pages = 0;
    while let Some(path) = next {
        let response = receiver.get(&path).await;
        let link = response.headers().get(header::LINK).map(|link| link.to_str().unwrap().to_owned());
        let page: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        got.extend(
            page["keys"].as_array().unwrap().iter().map(|key| key["key_id"].as_str().unwrap().to_owned()),
        );
        next = page["next"].as_str().map(str::to_owned);
        assert_eq!(link, next.as_ref().map(|next| format!("<{next}>; rel=\"next\"")));
        pages += 1;
    }
    let expected: Vec<_> = devices.iter().map(|device| device.key.key_id().to_string()).collect();
    assert_eq!((got, pages), (expected, 3));
}

#[tokio::test]
async fn says_what_is_no_key() {
    let receiver = Running::start().await;
    for (path, status, expected) in [
        ("/v1/keys/x", 400, "bad_key_id"),
        (&format!("/v1/keys/{}", "0".repeat(64)), 404, "key_not_found"),
        ("/v1/keys?limit=0", 400, "bad_query"),
        ("/v1/keys?limit=257", 400, "bad_query"),
        ("/v1/keys?cursor=x", 400, "bad_cursor"),
    ] {
        let (got, code, _) = problem(receiver.get(path).await).await;
        assert_eq!((got, code.as_str()), (status, expected), "{path}");
    }
}
