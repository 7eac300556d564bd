use std::{sync::Arc, sync::atomic::AtomicBool, time::Duration};

use liotbchain_core::{
    Ancestry, Branch, CheckedBlock, Difficulty, KeyId, PublicKey, Rules, SealRule, TransactionId, check,
    mine::{self, Draft, Mined},
};
use liotbchain_node::LedgerConfig;
use liotbchain_store::Store;
use reqwest::{Response, header};
use serde_json::{Value, json};

use crate::{
    running::{Running, ledger_config, memory, receiver_config, refused, sqlite},
    signer::Signer,
};

#[tokio::test]
async fn shows_the_chain_as_the_original_does() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let texts = [r#"{"b" : 1.10, "a": "é"}"#, "\"text\"", "12345678901234567890.0", "[null ]"];
    receiver.take(&texts.map(|text| device.item(text))).await;
    let response = receiver.get("/get_chain").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(response.headers().get(header::CONTENT_LENGTH), None, "it is streamed");
    let text = response.text().await.unwrap();
    assert!(text.starts_with("[{\"data\":\"Genesis Block\",\"hash\":\"") && text.ends_with("}]\n"), "{text}");
    assert!(text.contains(&format!("\"data\":[{},{}]", texts[0], texts[1])), "{text}");
    assert!(text.contains(&format!("\"data\":[{},{}]", texts[2], texts[3])), "{text}");

    let chain: Value = serde_json::from_str(&text).unwrap();
    let blocks = chain.as_array().unwrap();
    assert_eq!(blocks.len(), 3);
    assert_eq!(blocks[0]["previous hash"], "0");
    for (index, block) in blocks.iter().enumerate() {
        let mut keys: Vec<_> = block.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["data", "hash", "index", "nonce", "previous hash", "timestamp"]);
        assert_eq!(block["index"], index);
        assert!(block["timestamp"].is_f64() && block["nonce"].is_u64(), "{block}");
        if index > 0 {
            assert_eq!(block["previous hash"], blocks[index - 1]["hash"]);
            assert!(block["hash"].as_str().unwrap().starts_with("00"));
        }
    }
    assert_eq!(blocks[2]["hash"], receiver.ledger.status().tip.to_string());
}

#[tokio::test]
async fn a_store_that_is_gone_is_an_error_and_no_broken_body() {
    let (store, _folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    receiver.ledger.store().close().await;
    let (status, code, _) = refused(receiver.get("/get_chain").await).await;
    assert_eq!((status, code.as_str()), (503, "store_unavailable"));
}

#[tokio::test]
async fn many_pages_make_one_list() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let chain = Chain::create(Arc::clone(&store)).await;
        let blocks = chain.fill((1_600, 10)).await;
        let receiver = Running::with(store, ledger_config(), receiver_config()).await;
        let answer = receiver.get_json("/get_chain").await;
        let hashes: Vec<_> =
            answer.as_array().unwrap().iter().map(|block| block["hash"].as_str().unwrap()).collect();
        let expected = [chain.genesis.tip()].into_iter().chain(blocks.iter().map(CheckedBlock::hash));
        assert_eq!(hashes, expected.map(|hash| hash.to_string()).collect::<Vec<_>>());
        receiver.stop().await;
    }
}

/// Far more than the buffers of a connection hold, so that a client who reads slowly has most of it still to come.
const LARGE: (usize, usize) = (500, 60_000);

/// Reads on, and returns whether the body came to its end.
async fn is_complete(mut response: Response) -> bool {
    loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            end => return end.is_ok(),
        }
    }
}

#[tokio::test]
async fn breaks_off_where_the_chain_moves_to_another_branch() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let chain = Chain::create(Arc::clone(&store)).await;
        let old_blocks = chain.fill(LARGE).await;
        // What becomes pending again is not to be sealed.
        let config = LedgerConfig { transactions_per_block: 8_000, ..ledger_config() };
        let receiver = Running::with(store, config, receiver_config()).await;

        let mut slow = receiver.get("/get_chain").await;
        slow.chunk().await.unwrap().unwrap();
        let mut fork = chain.genesis.clone();
        old_blocks[..300].iter().for_each(|block| _ = fork.extend(block));
        let mut old = fork.clone();
        old_blocks[300..].iter().for_each(|block| _ = old.extend(block));
        let device = Signer::new();
        chain.replace(&old, 200, &device, &blocks(&fork, 201, 10, &device)).await;
        assert!(!is_complete(slow).await);

        let again = receiver.get_json("/get_chain").await;
        assert_eq!(again.as_array().unwrap().len(), 502);
        receiver.stop().await;
    }
}

#[tokio::test]
async fn breaks_off_where_the_store_fails() {
    let (store, _folder) = sqlite().await;
    let chain = Chain::create(Arc::clone(&store)).await;
    chain.fill(LARGE).await;
    let receiver = Running::with(Arc::clone(&store), ledger_config(), receiver_config()).await;
    let mut slow = receiver.get("/get_chain").await;
    slow.chunk().await.unwrap().unwrap();
    store.close().await;
    assert!(!is_complete(slow).await);
}

#[tokio::test]
async fn ends_at_the_tip_that_was_there_at_the_start() {
    let store = memory().await;
    let chain = Chain::create(Arc::clone(&store)).await;
    chain.fill(LARGE).await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    let tip = receiver.ledger.status().tip.to_string();
    let mut slow = receiver.get("/get_chain").await;
    let mut text = slow.chunk().await.unwrap().unwrap().to_vec();
    let device = Signer::new();
    receiver.take(&[device.item("1"), device.item("2")]).await;
    assert_ne!(receiver.ledger.status().tip.to_string(), tip);
    while let Some(chunk) = slow.chunk().await.unwrap() {
        text.extend(chunk);
    }
    let answer: Value = serde_json::from_slice(&text).unwrap();
    let last = answer.as_array().unwrap().last().unwrap();
    assert_eq!((&last["hash"], &last["index"]), (&json!(tip), &json!(LARGE.0)));
}

/// A chain that is written without a ledger, so that it can be moved.
pub struct Chain {
    pub store: Arc<dyn Store>,
    pub genesis: Branch,
}

impl Chain {
    pub async fn create(store: Arc<dyn Store>) -> Self {
        let rules = Rules {
            network: "test".to_owned(),
            seal: SealRule::OnCount,
            difficulty: Difficulty::new(0).unwrap(),
            unsigned: false,
            timestamp_ms: 1_795_345_827_157,
        };
        let genesis = rules.genesis_block().unwrap();
        store.create(&genesis).await.unwrap();
        Self { store, genesis: Branch::new(&genesis, rules) }
    }

    /// Writes a chain of blocks with payloads of so many bytes, and returns them.
    pub async fn fill(&self, (count, payload_size): (usize, usize)) -> Vec<CheckedBlock> {
        let device = Signer::new();
        let blocks = blocks(&self.genesis, count, payload_size, &device);
        self.replace(&self.genesis, 0, &device, &blocks).await;
        blocks
    }

    /// Takes blocks off a branch, and puts others on it.
    pub async fn replace(&self, old: &Branch, disconnect: u32, device: &Signer, blocks: &[CheckedBlock]) {
        let right = self.store.acquire_right("test", Duration::from_secs(60)).await.unwrap().unwrap();
        self.store.add_keys(std::slice::from_ref(&device.key)).await.unwrap();
        self.store.commit(&right, old.tip(), disconnect, blocks).await.unwrap();
        self.store.release_right(&right).await.unwrap();
    }
}

/// Mines blocks of one transaction each, by a key that is new on the branch.
pub fn blocks(parent: &Branch, count: usize, payload_size: usize, device: &Signer) -> Vec<CheckedBlock> {
    let mut branch = parent.clone();
    let mine = |number: usize| {
        let payload = format!("\"{number:0>payload_size$}\"");
        let below = Below { device: device.key.clone(), transactions: number as u64 };
        let statements = vec![device.statement(payload)];
        let difficulty = branch.rules().difficulty;
        let draft = Draft::new(&branch, statements, |key_id| below.next_sequence(key_id), difficulty, 0);
        let mined = mine::mine(draft.header(), 1 << 32, 1, &AtomicBool::new(false)).unwrap();
        let Mined::Found { nonce } = mined else { panic!("{mined:?}") };
        let block = check::check_draft(&draft, nonce, &branch, &below).unwrap();
        branch.extend(&block);
        block
    };
    (0..count).map(mine).collect()
}

struct Below {
    device: PublicKey,
    transactions: u64,
}

impl Ancestry for Below {
    fn public_key(&self, key_id: &KeyId) -> Option<PublicKey> {
        (*key_id == self.device.key_id()).then(|| self.device.clone())
    }

    fn next_sequence(&self, key_id: &KeyId) -> u64 {
        if *key_id == self.device.key_id() { self.transactions } else { 0 }
    }

    fn contains(&self, _: &TransactionId) -> bool {
        false
    }
}
