//! What only a SQLite file can do, or suffer.

#![allow(clippy::unwrap_used, reason = "a test ends there")]

#[path = "../support/chain.rs"]
#[allow(dead_code, reason = "the conformance suite uses the rest")]
mod chain;

mod damage;
mod failure;
mod foreign;
mod log;
mod people;
mod subprocess;

use std::{path::Path, sync::Arc, time::Duration};

use chain::Chain;
use liotbchain_store::{OpenOptions, Right, Store, sqlite::SqliteStore};

/// Opens a file whose operations give up soon.
async fn open(path: &Path) -> Arc<dyn Store> {
    let options = OpenOptions { timeout: Duration::from_secs(2), ..OpenOptions::default() };
    Arc::new(SqliteStore::open(path, &options).await.unwrap())
}

/// Puts a chain into an empty store.
async fn put(store: &Arc<dyn Store>, chain: &Chain) -> Right {
    store.create(chain.genesis()).await.unwrap();
    let right = store.acquire_right("test", Duration::from_secs(60)).await.unwrap().unwrap();
    store.commit(&right, chain.genesis().hash(), 0, &chain.blocks[1..]).await.unwrap();
    right
}
