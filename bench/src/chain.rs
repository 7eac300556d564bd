//! Long chains, made once and kept.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use liotbchain_core::{Difficulty, VerifiedStatement, transaction::UNSIGNED_SALT_SIZE};
use liotbchain_node::{Ledger, LedgerConfig};
use liotbchain_store::{NewTransaction, OpenOptions, Store, sqlite::SqliteStore};

/// Of what is kept: other tables or another format need another number.
const VERSION: u32 = 1;
const LIST: u64 = 20_000;

/// Returns a folder with a chain of so many transactions in `chain.db`, that of an earlier run if there is one. Its
/// transactions are unsigned, which only makes them smaller and the chain faster to make.
pub async fn long_chain(data: &Path, transactions: u64, per_block: u32) -> anyhow::Result<PathBuf> {
    let folder = data.join(format!("chain-{transactions}-by-{per_block}-v{VERSION}"));
    if !folder.exists() {
        // Half a chain is no chain: it gets its name when it is whole.
        let unfinished = folder.with_extension("unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        std::fs::create_dir_all(&unfinished)?;
        make(&unfinished.join("chain.db"), transactions, per_block).await?;
        std::fs::rename(&unfinished, &folder)?;
    }
    Ok(folder)
}

async fn make(file: &Path, transactions: u64, per_block: u32) -> anyhow::Result<()> {
    let store = Arc::new(SqliteStore::open(file, &OpenOptions::default()).await?);
    let config = LedgerConfig {
        difficulty: Difficulty::new(0)?,
        transactions_per_block: per_block,
        mining_threads: 1,
        unsigned: true,
        ..LedgerConfig::default()
    };
    let ledger = Ledger::open(Arc::clone(&store) as Arc<dyn Store>, config).await?;
    for start in (0..transactions).step_by(LIST as usize) {
        let list = (start..transactions.min(start + LIST)).map(|number| {
            let payload = format!(
                r#"{{"device": "Raspberry Pi 1", "distance": {}, "timestamp": {number}.25}}"#,
                number % 400
            );
            let statement = VerifiedStatement::unsigned(payload, [0; UNSIGNED_SALT_SIZE])?;
            Ok(NewTransaction { statement, public_key: None })
        });
        ledger.submit(list.collect::<anyhow::Result<_>>()?, Duration::from_secs(600)).await?;
    }
    let height = u64::from(ledger.status().height);
    ledger.shutdown().await;
    store.close().await;
    let expected = transactions / u64::from(per_block);
    anyhow::ensure!(height == expected, "{height} blocks were mined instead of {expected}");
    Ok(())
}
