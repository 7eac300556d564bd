use liotbchain_core::Difficulty;
use liotbchain_node::{Ledger, LedgerConfig};
use liotbchain_server::start_report;

use crate::running::{ledger_config, memory, sqlite};

#[tokio::test]
async fn says_where_it_is_what_it_keeps_and_what_to_expect() {
    let (store, folder) = sqlite().await;
    let ledger = Ledger::open(store, ledger_config()).await.unwrap();
    let report = start_report(&ledger, "127.0.0.1:5001".parse().unwrap()).await;
    let text = report.to_string();
    for part in [
        "http://127.0.0.1:5001/apidocs/",
        folder.path().to_str().unwrap(),
        &ledger.genesis().to_string(),
        "height 0, 0 pending",
        "of 2 transactions",
        "difficulty  2: 256 attempts a block on average, less than 1 ms",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(report.warnings.is_empty(), "{text}");
}

#[tokio::test]
async fn warns_of_a_limit_that_is_too_low() {
    let config =
        LedgerConfig { difficulty: Difficulty::new(6).unwrap(), nonce_limit: 1_000, ..ledger_config() };
    let ledger = Ledger::open(memory().await, config).await.unwrap();
    let text = start_report(&ledger, "127.0.0.1:5001".parse().unwrap()).await.to_string();
    assert!(text.contains("warning: NONCE_LIMIT=1000 gives up 100.0 %"), "{text}");
    assert!(text.contains("16777"), "{text}");
}
