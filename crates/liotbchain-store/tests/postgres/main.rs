//! What only PostgreSQL can do to a chain: be restarted, be set up wrongly, be shared, or not answer.
//!
//! Each test has a cluster of its own, on a free port, since it breaks it. `TEST_POSTGRES_BIN` names another version's
//! programs. What all stores have in common is in the conformance suite.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[allow(dead_code, reason = "shared with the conformance suite, which uses all of it")]
#[path = "../support/chain.rs"]
mod chain;
#[path = "../support/postgres_cluster.rs"]
mod cluster;
mod wire;

mod addresses;
mod channel;
mod failing;
mod queue;
mod sharing;
mod standby;
mod tables;

use std::time::Duration;

use liotbchain_store::{OpenOptions, postgres::PostgresStore};

/// How long a test holds the right to seal that nobody is to take.
const TTL: Duration = Duration::from_secs(60);

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(url, &OpenOptions::default()).await.unwrap()
}
