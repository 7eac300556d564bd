use std::io::Cursor;

use liotbchain_node::transfer;
use reqwest::{Method, header};

use crate::{
    running::{Running, ledger_config, memory, receiver_config, sqlite},
    signer::Signer,
};

async fn chain_of(receiver: &Running, transactions: u64) {
    let device = Signer::new();
    let items: Vec<_> = (0..transactions).map(|number| device.item(&number.to_string())).collect();
    receiver.take(&items).await;
}

#[tokio::test]
async fn is_the_export_of_the_command_line_and_can_be_imported() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let receiver = Running::with(store, ledger_config(), receiver_config()).await;
        chain_of(&receiver, 1_000).await;
        let answer = receiver.get("/v1/export").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/x-ndjson");
        let text = answer.text().await.unwrap();
        let mut file = Vec::new();
        transfer::export(receiver.ledger.store(), &mut file, |_| {}).await.unwrap();
        assert_eq!(text.as_bytes(), file);

        let tip = receiver.ledger.status().tip;
        let expected = serde_json::json!({"type": "end", "blocks": 501, "transactions": 1_001, "tip": tip});
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last, expected);

        let copy = memory().await;
        let open = || Ok(Cursor::new(text.clone()));
        let imported = transfer::import(&copy, "test", open, |_| {}).await.unwrap();
        assert_eq!((imported.tip, imported.transactions), (tip, 1_001));
    }
}

#[tokio::test]
async fn is_not_sent_again_to_whoever_has_it() {
    let receiver = Running::start().await;
    chain_of(&receiver, 2).await;
    let answer = receiver.get("/v1/export").await;
    let etag = answer.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", receiver.ledger.status().tip));
    let if_none_match = |tag: String| {
        receiver.client.get(receiver.url("/v1/export")).header(header::IF_NONE_MATCH, tag).send()
    };
    for tag in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let answer = if_none_match(tag).await.unwrap();
        assert_eq!(answer.status(), 304);
        assert_eq!(answer.headers()[header::ETAG], etag);
        assert_eq!(answer.bytes().await.unwrap(), "");
    }
    assert_eq!(if_none_match("\"other\"".to_owned()).await.unwrap().status(), 200);
    chain_of(&receiver, 2).await;
    assert_eq!(if_none_match(etag).await.unwrap().status(), 200);
}

#[tokio::test]
async fn names_the_file_and_shows_its_headers_to_head() {
    let receiver = Running::start().await;
    let shown = receiver.client.request(Method::HEAD, receiver.url("/v1/export")).send().await.unwrap();
    let sent = receiver.get("/v1/export").await;
    let tip = receiver.ledger.status().tip.to_string();
    let name = format!("attachment; filename=\"chain-{}.ndjson\"", &tip[..16]);
    for answer in [&shown, &sent] {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[header::CONTENT_DISPOSITION], name);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-cache");
    }
    assert_eq!(shown.bytes().await.unwrap(), "");
}

#[tokio::test]
async fn breaks_off_without_its_end_when_the_store_fails() {
    let (store, folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    chain_of(&receiver, 1_200).await;
    // Damage beyond the first page.
    let connection = rusqlite::Connection::open(folder.path().join("chain.db")).unwrap();
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    let changed = connection.execute("DELETE FROM blocks WHERE height = 500", []).unwrap();
    assert_eq!(changed, 1);
    let mut answer = receiver.get("/v1/export").await;
    assert_eq!(answer.status(), 200);
    let mut text = Vec::new();
    let broken = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            end => break end,
        }
    };
    assert!(broken.is_err());
    assert!(text.starts_with(b"{\"type\":\"chain\""));
    assert!(!String::from_utf8(text).unwrap().contains("\"type\":\"end\""));
}
