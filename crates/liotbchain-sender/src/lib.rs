//! The sender: a gateway that takes the readings of devices, signs them, keeps them on its disk and sends them to a
//! receiver, and loses none on the way.
//!
//! [`run`] is the whole program with its HTTP interface; [`Sender`] is the same without one, for use within a process.
//! Readings come in by [`Gateway::take`], whatever road they came by: HTTP, MQTT, or the simulated devices of the Python
//! original, whose text is kept as it was, so that with an RSA key the original's receiver takes it too.
//!
//! A device is answered once its reading is on the disk. A record leaves the disk once a receiver acknowledged its id.

use std::net::SocketAddr;

use liotbchain_http::{BindError, Edge, Limits, json_keys, json_text, serve};
use tokio::sync::oneshot;

pub mod check;
pub mod device;
mod fault;
mod forward;
mod gateway;
mod generator;
mod http;
mod intake;
mod job;
mod journal;
mod members;
pub mod mqtt;
pub mod outbox;
mod rate;
mod readiness;
pub mod reading;
mod record;
mod sender;
mod senml;
mod signed;
pub mod signer;
mod status;

pub use forward::{
    Accepted, ForwardConfig, ForwardStatus, Forwarder, LastAnswer, LastError, ParseProtocolError, Protocol,
    Receiver, ReceiverError,
};
pub use gateway::Gateway;
pub use http::router;
pub use job::{Job, JobError};
pub use journal::{DeviceCounts, Devices, Fate, Journal, Outcome};
pub use readiness::Readiness;
pub use sender::{Sender, SenderOptions};
pub use signer::{KEY_FILE, KeyKind, SignerError, SigningKey};
pub use status::{Queue, Status};

use outbox::OutboxError;

/// Bytes of a request: room for 8,000 readings of 500 bytes each.
pub const BODY_SIZE_MAX: usize = 4 << 20;

/// What a sender with its HTTP interface needs to know.
#[derive(Debug)]
pub struct SenderConfig {
    /// What it works with.
    pub options: SenderOptions,
    /// Where the HTTP interface listens.
    pub listen: SocketAddr,
    /// Who may use it.
    pub edge: Edge,
    /// Connections it takes at a time.
    pub connections_max: usize,
}

/// Why a sender cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The address is not to be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The receiver's address or token is of no use.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// The queue is not to be had.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Runs a sender with its HTTP interface until `shutdown` ends; then what is on its way is waited for, within bounds.
///
/// # Errors
///
/// [`SenderError`] where it cannot start. Once it runs it goes on.
pub async fn run(config: SenderConfig, shutdown: impl Future<Output = ()>) -> Result<(), SenderError> {
    let SenderConfig { options, listen, edge, connections_max } = config;
    let listener = edge.bind(listen, "SENDER_LISTEN").await?;
    let (key_id, algorithm) = (options.key.public_key().key_id(), options.key.public_key().algorithm());
    let sender = Sender::open(options).await?;
    let address = listener.local_addr().unwrap_or(listen);
    let receiver = sender.status().receiver_url;
    tracing::info!(%address, receiver, %key_id, %algorithm, "sender listens: POST /readings takes readings, /apidocs/ shows how");
    let limits = Limits { connections_max, body_size_max: BODY_SIZE_MAX, ..Limits::default() };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, router(sender.clone(), edge), limits, async { _ = stopped.await });
    let closer = async {
        shutdown.await;
        drop(stop);
        sender.close().await;
    };
    tokio::join!(server, closer);
    Ok(())
}
