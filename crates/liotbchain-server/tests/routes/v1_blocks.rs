use std::{collections::HashSet, sync::Arc};

use liotbchain_core::{CheckedBlock, Header, Height};
use liotbchain_node::LedgerConfig;
use liotbchain_store::Store;
use reqwest::{Response, header};
use serde_json::{Value, json};

use crate::{
    chain::{Chain, blocks},
    running::{Running, json, ledger_config, memory, problem, receiver_config, sqlite},
    signer::Signer,
};

/// A receiver of a chain of so many blocks above the genesis block.
async fn receiver_of(
    store: Arc<dyn Store>,
    (count, payload_size): (usize, usize),
) -> (Running, Chain, Vec<CheckedBlock>) {
    let chain = Chain::create(Arc::clone(&store)).await;
    let blocks = chain.fill((count, payload_size)).await;
    // What a reorganisation makes pending again is not to be sealed.
    let config = LedgerConfig { transactions_per_block: 1_000, ..ledger_config() };
    (Running::with(store, config, receiver_config()).await, chain, blocks)
}

/// Follows a walk to its end, and returns the heights of each page.
async fn walk(receiver: &Running, start: &str) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    let mut next = Some(start.to_owned());
    while let Some(path) = next {
        let response = receiver.get(&path).await;
        let link = response.headers().get(header::LINK).map(|link| link.to_str().unwrap().to_owned());
        let page = json(response).await;
        let heights =
            page["blocks"].as_array().unwrap().iter().map(|block| block["height"].as_u64().unwrap());
        pages.push(heights.collect());
        next = page["next"].as_str().map(str::to_owned);
        assert_eq!(link, next.as_ref().map(|next| format!("<{next}>; rel=\"next\"")));
    }
    pages
}

fn etag(response: &Response) -> &str {
    response.headers()[header::ETAG].to_str().unwrap()
}

#[tokio::test]
async fn pages_go_up_and_down() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let (receiver, ..) = receiver_of(store, (25, 10)).await;
        let up = |from: u64, to: u64| (from..to).collect::<Vec<_>>();
        let down = |from: u64, to: u64| (to..=from).rev().collect::<Vec<_>>();
        for (query, expected) in [
            ("", vec![up(0, 26)]),
            ("?limit=10", vec![up(0, 10), up(10, 20), up(20, 26)]),
            ("?limit=13&from=0", vec![up(0, 13), up(13, 26)]),
            ("?from=20&order=asc", vec![up(20, 26)]),
            ("?from=26", vec![vec![]]),
            ("?from=4294967295", vec![vec![]]),
            ("?order=desc", vec![down(25, 0)]),
            ("?order=desc&limit=10", vec![down(25, 16), down(15, 6), down(5, 0)]),
            ("?order=desc&limit=13", vec![down(25, 13), down(12, 0)]),
            ("?order=desc&from=3&limit=3", vec![down(3, 1), vec![0]]),
            ("?order=desc&from=4294967295&limit=1000", vec![down(25, 0)]),
            ("?order=desc&from=0", vec![vec![0]]),
        ] {
            assert_eq!(walk(&receiver, &format!("/v1/blocks{query}")).await, expected, "{query}");
        }
        receiver.stop().await;
    }
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let (receiver, ..) = receiver_of(memory().await, (40, 60_000)).await;
    let pages = walk(&receiver, "/v1/blocks?include=transactions&limit=1000").await;
    assert!(pages.len() > 10 && pages.iter().all(|page| (1..=4).contains(&page.len())), "{pages:?}");
    assert_eq!(pages.concat(), (0..=40).collect::<Vec<_>>());
    // What is read counts too, not only what is shown.
    let pages = walk(&receiver, "/v1/blocks?order=desc&limit=1000").await;
    assert!(pages.len() > 1, "{pages:?}");
    assert_eq!(pages.concat(), (0..=40).rev().collect::<Vec<_>>());
}

/// Going down, the store fills its bytes with the blocks below, which may be far larger.
#[tokio::test]
async fn goes_down_from_small_blocks_to_large_ones() {
    let store = memory().await;
    let chain = Chain::create(Arc::clone(&store)).await;
    let device = Signer::new();
    let large = blocks(&chain.genesis, 40, 60_000, &device);
    chain.replace(&chain.genesis, 0, &device, &large).await;
    let mut tip = chain.genesis.clone();
    large.iter().for_each(|block| _ = tip.extend(block));
    let device = Signer::new();
    chain.replace(&tip, 0, &device, &blocks(&tip, 30, 10, &device)).await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    let pages = walk(&receiver, "/v1/blocks?order=desc&limit=1000").await;
    assert_eq!(pages.concat(), (0..=70).rev().collect::<Vec<_>>());
    assert!(pages[0].len() > 30, "{pages:?}");
}

#[tokio::test]
async fn a_block_says_all_that_its_hash_stands_for() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let receiver = Running::with(store, ledger_config(), receiver_config()).await;
        let device = Signer::new();
        receiver.take(&["1", "\"é\""].map(|text| device.item(text))).await;
        let stored = receiver.ledger.store().blocks(0, 9, usize::MAX).await.unwrap();
        for block in &stored {
            let Header {
                prev_block_hash,
                transactions_root,
                history_root,
                height,
                timestamp_ms,
                bits,
                nonce,
            } = block.block.header;
            let shown = receiver.get_json(&format!("/v1/blocks/{height}")).await;
            let transactions = block.block.transactions.iter().zip(&block.ids).map(|(transaction, id)| {
                let statement = transaction.statement().unwrap();
                use base64::Engine;
                let signature = base64::engine::general_purpose::STANDARD.encode(&statement.signature);
                json!({
                    "id": id, "key_id": statement.key_id, "sequence": transaction.sequence,
                    "payload": statement.payload, "signature": signature,
                })
            });
            let transactions: Vec<_> = transactions.collect();
            let mut expected = json!({
                "hash": block.hash, "best_chain": true, "version": 1, "prev_block_hash": prev_block_hash,
                "transactions_root": transactions_root, "history_root": history_root, "height": height,
                "timestamp_ms": timestamp_ms, "bits": bits.0, "nonce": nonce,
                "total_work": block.total_work.to_string(), "transaction_count": transactions.len(),
                "transactions": transactions,
            });
            assert_eq!(shown, expected);
            assert_eq!(receiver.get_json(&format!("/v1/blocks/{}", block.hash)).await, expected);
            // A page shows the same, without transactions unless they are asked for.
            let page =
                receiver.get_json(&format!("/v1/blocks?from={height}&limit=1&include=transactions")).await;
            assert_eq!(page["blocks"][0], expected);
            expected.as_object_mut().unwrap().remove("transactions");
            let page = receiver.get_json(&format!("/v1/blocks?from={height}&limit=1")).await;
            assert_eq!(page["blocks"][0], expected);
        }
        assert_eq!(receiver.get_json("/v1/blocks/tip").await["hash"], stored[1].hash.to_string());
        receiver.stop().await;
    }
}

#[tokio::test]
async fn a_block_is_not_sent_again_to_whoever_has_it() {
    let (receiver, _, blocks) = receiver_of(memory().await, (3, 10)).await;
    let hash = blocks[2].hash().to_string();
    // By its hash too: it may be pruned.
    for (name, caching) in [("3", "no-cache"), ("tip", "no-cache"), (hash.as_str(), "no-cache")] {
        let path = format!("/v1/blocks/{name}");
        let response = receiver.get(&path).await;
        assert_eq!(etag(&response), format!("\"{hash}\""));
        assert_eq!(response.headers()[header::CACHE_CONTROL], caching);
        let get =
            |tag: String| receiver.client.get(receiver.url(&path)).header(header::IF_NONE_MATCH, tag).send();
        for tag in [format!("\"{hash}\""), format!("W/\"{hash}\", \"x\""), "*".to_owned()] {
            let response = get(tag).await.unwrap();
            assert_eq!(response.status(), 304);
            assert_eq!(etag(&response), format!("\"{hash}\""));
            assert_eq!(response.headers()[header::CACHE_CONTROL], caching);
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
            assert_eq!(response.bytes().await.unwrap(), "");
        }
        assert_eq!(get(format!("\"{}\"", blocks[1].hash())).await.unwrap().status(), 200);
    }
}

/// Takes the blocks above a height off the chain and puts others there.
async fn reorganise(
    chain: &Chain,
    old_blocks: &[CheckedBlock],
    fork: Height,
    count: usize,
) -> Vec<CheckedBlock> {
    let mut below = chain.genesis.clone();
    old_blocks[..fork as usize].iter().for_each(|block| _ = below.extend(block));
    let mut old = below.clone();
    old_blocks[fork as usize..].iter().for_each(|block| _ = old.extend(block));
    let device = Signer::new();
    let new_blocks = blocks(&below, count, 10, &device);
    chain.replace(&old, old_blocks.len() as u32 - fork, &device, &new_blocks).await;
    new_blocks
}

#[tokio::test]
async fn a_walk_is_told_when_its_chain_moved() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let (receiver, chain, old_blocks) = receiver_of(store, (20, 10)).await;
        let next = async |path: &str| receiver.get_json(path).await["next"].as_str().unwrap().to_owned();
        // They ended at 4, 14 and 19, and at 10 and 17 on their way down.
        let (low, high) = (next("/v1/blocks?limit=5").await, next("/v1/blocks?limit=5&from=10").await);
        let (falling, fallen) =
            (next("/v1/blocks?order=desc&limit=3").await, next("/v1/blocks?order=desc&limit=11").await);
        let last = next("/v1/blocks?limit=1&from=19").await;
        let new_blocks = reorganise(&chain, &old_blocks, 12, 6).await;
        for gone in [&high, &falling, &last] {
            let (status, code, _) = problem(receiver.get(gone).await).await;
            assert_eq!((status, code.as_str()), (410, "chain_moved"), "{gone}");
        }
        let page = receiver.get_json(&low).await;
        assert_eq!(page["blocks"][0]["height"], 5);
        assert_eq!(walk(&receiver, &low).await.concat(), (5..=18).collect::<Vec<_>>());
        let page = receiver.get_json(&fallen).await;
        assert_eq!(page["blocks"][0]["hash"], old_blocks[8].hash().to_string());
        assert_eq!(receiver.get_json("/v1/blocks/tip").await["hash"], new_blocks[5].hash().to_string());
        receiver.stop().await;
    }
}

#[tokio::test]
async fn a_block_of_a_side_branch_is_there_by_its_hash() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let (receiver, chain, old_blocks) = receiver_of(store, (5, 10)).await;
        let path = format!("/v1/blocks/{}", old_blocks[4].hash());
        let before = receiver.get_json(&path).await;
        reorganise(&chain, &old_blocks, 3, 3).await;
        let response =
            receiver.client.get(receiver.url(&path)).header(header::IF_NONE_MATCH, "*").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(response.headers().get(header::ETAG), None);
        let mut side = json(response).await;
        assert_eq!(side["best_chain"], false);
        assert_eq!(side.get("total_work"), None);
        side["best_chain"] = json!(true);
        side["total_work"] = before["total_work"].clone();
        assert_eq!(side, before);
        let at_height = receiver.get_json("/v1/blocks/5").await;
        assert_ne!(at_height["hash"], before["hash"]);
        receiver.stop().await;
    }
}

#[tokio::test]
async fn says_what_is_no_block_and_what_is_not_there() {
    let (receiver, ..) = receiver_of(memory().await, (3, 10)).await;
    for (path, status, expected) in [
        ("/v1/blocks/-1", 400, "bad_block"),
        ("/v1/blocks/x", 400, "bad_block"),
        ("/v1/blocks/4", 404, "block_not_found"),
        ("/v1/blocks/99999999999", 404, "block_not_found"),
        (&format!("/v1/blocks/{}", "0".repeat(64)), 404, "block_not_found"),
        ("/v1/blocks?limit=0", 400, "bad_query"),
        ("/v1/blocks?limit=1001", 400, "bad_query"),
        ("/v1/blocks?limit=-1", 400, "bad_query"),
        ("/v1/blocks?limt=1", 400, "bad_query"),
        ("/v1/blocks?limit=1&limit=2", 400, "bad_query"),
        ("/v1/blocks?from=4294967296", 400, "bad_query"),
        ("/v1/blocks?order=down", 400, "bad_query"),
        ("/v1/blocks?include=headers", 400, "bad_query"),
        ("/v1/blocks?cursor=x", 400, "bad_cursor"),
        ("/v1/blocks?cursor=x&from=1", 400, "bad_query"),
        ("/v1/blocks/%ff", 400, "bad_request"),
    ] {
        let (got, code, _) = problem(receiver.get(path).await).await;
        assert_eq!((got, code.as_str()), (status, expected), "{path}");
    }
}

/// However many ask for large blocks at once and do not read them, each is served or told to come back.
#[tokio::test]
async fn large_answers_are_limited_in_number() {
    let config = LedgerConfig { transactions_per_block: 100, ..ledger_config() };
    let receiver = Running::with(memory().await, config, receiver_config()).await;
    let device = Signer::new();
    let items: Vec<_> = (0..100).map(|number| device.item(&format!("\"{number:0>60000}\""))).collect();
    receiver.take(&items).await;
    // Each answer is larger than what the sockets of a connection hold.
    let mut waiting = Vec::new();
    let refused = loop {
        let response = receiver.get("/v1/blocks/1").await;
        match response.status().as_u16() {
            200 => waiting.push(response),
            _ => break response,
        }
        assert!(waiting.len() < 100, "memory grows with the clients");
    };
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    let (status, code, _) = problem(refused).await;
    assert_eq!((status, code.as_str()), (503, "overloaded"));
    let first: Value = json(waiting.swap_remove(0)).await;
    let ids: HashSet<_> =
        first["transactions"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 100);
    assert_eq!(receiver.get("/v1/blocks/0").await.status(), 200, "small ones go on");
}
