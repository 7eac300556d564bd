//! The receiver: takes lists of signed items over HTTP, hands them to the ledger, serves and validates the chain.
//!
//! A thin edge. It decodes and verifies, and that is all it knows of transactions: what is durable, pending or sealed is
//! the ledger's to say, and nothing is answered before the ledger said it. It does no TLS and serves no files.

mod chain;
mod error;
mod health;
mod home;
mod items;
mod key_cache;
mod load;
mod metrics;
mod openapi;
mod python_json;
mod receive;
mod router;
mod start_report;
mod state;
mod tlog;
mod v1;
mod validate;
mod verify;
mod vouching;
mod witnesses;

pub use start_report::{StartReport, start_report};
pub use state::{Receiver, ReceiverConfig};

use liotbchain_http::{json_keys, json_text};
use liotbchain_node::Ledger;
use tokio::net::TcpListener;

/// Serves a ledger until `shutdown` ends, then lets the requests in flight end. The ledger is the caller's to shut down,
/// afterwards: requests that wait for their blocks are still answered.
pub async fn serve(
    config: ReceiverConfig,
    ledger: Ledger,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let limits = config.limits.clone();
    let receiver = Receiver::new(config, ledger);
    // Ends with the serving.
    let mut asking = tokio::task::JoinSet::new();
    asking.spawn(witnesses::run(receiver.shared()));
    let shutdown = async {
        shutdown.await;
        receiver.stop();
    };
    liotbchain_http::serve(listener, receiver.router(), limits, shutdown).await;
}
