//! The sender: simulated devices measure, their readings are signed and posted to a receiver.
//!
//! [`run`] is the whole program with its HTTP interface; [`Sender`] is the same without one, for use within a process.
//! The original's devices and routes are kept, so is the text that is signed: with an RSA key the Python original's
//! receiver takes the readings too.
//!
//! A list is posted, and posted again unchanged, until the receiver has taken it or refused it for good, so that each
//! reading is on the chain once. **The queue is in memory**: readings that wait when the process ends are lost.

use std::{net::SocketAddr, path::PathBuf};

use liotbchain_http::{BindError, Edge, Limits, serve};
use tokio::sync::oneshot;

pub mod device;
mod forward;
mod http;
mod job;
mod list;
mod sender;
pub mod signer;

pub use forward::{Answer, Receiver, ReceiverError};
pub use http::router;
pub use job::{Accepted, Job, JobError, LastAnswer, LastError, Status, WAITING_MAX};
pub use sender::Sender;
pub use signer::{KEY_FILE, KeyKind, SignerError, SigningKey};

/// Bytes of a request: a job takes 60.
const BODY_SIZE_MAX: usize = 64 << 10;

/// What a sender needs to know.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// Folder of the key file.
    pub data_dir: PathBuf,
    /// The kind of key to make, and to insist on.
    pub key_kind: KeyKind,
    /// Where readings go.
    pub receiver: Receiver,
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
    /// There is no key to sign with.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The receiver's address or token is of no use.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
}

/// Runs a sender with its HTTP interface until `shutdown` ends; then the list on its way is waited for.
///
/// # Errors
///
/// [`SenderError`] where it cannot start. Once it runs it goes on.
pub async fn run(config: SenderConfig, shutdown: impl Future<Output = ()>) -> Result<(), SenderError> {
    let listener = config.edge.bind(config.listen, "SENDER_LISTEN").await?;
    let key = SigningKey::load_or_create(&config.data_dir.join(KEY_FILE), config.key_kind)?;
    let (key_id, algorithm) = (key.public_key().key_id(), key.public_key().algorithm());
    let receiver = config.receiver.url().clone();
    let sender = Sender::new(key, config.receiver)?;
    let address = listener.local_addr().unwrap_or(config.listen);
    tracing::info!(%address, %receiver, %key_id, %algorithm, "sender listens: POST /start_sending starts it, /apidocs/ shows how");
    let limits =
        Limits { connections_max: config.connections_max, body_size_max: BODY_SIZE_MAX, ..Limits::default() };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, router(sender.clone(), config.edge), limits, async { _ = stopped.await });
    let closer = async {
        shutdown.await;
        drop(stop);
        sender.close().await;
    };
    tokio::join!(server, closer);
    Ok(())
}
