//! One connection, with what the server says on it unasked: that a commit did not wait for its standby, and that another
//! process changed the store.

use std::{
    future::poll_fn,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool_postgres::ClientWrapper;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Client, error::DbError};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::describe;

/// Where in its source PostgreSQL says that a commit did not wait for the standby to the end, or that an administrator
/// ended the wait. The text is translated into the server's language, this name is not.
const STANDBY_ROUTINE: &str = "SyncRepWaitForLSN";

/// What all connections of one store have in common.
#[derive(Debug)]
pub(super) struct Common {
    /// Stands in our own notifications, which need not wake us.
    pub name: String,
    /// Told when another process said that it changed the store.
    pub changed: Notify,
    /// Whether what can be read may be missing at the synchronous standby.
    pub doubt: Doubt,
}

/// A connection to the server.
pub(super) struct Connection {
    client: ClientWrapper,
    tls: MakeRustlsConnect,
    said: Arc<Said>,
    pub common: Arc<Common>,
}

/// What the server said unasked.
#[derive(Default)]
struct Said {
    is_unconfirmed: AtomicBool,
    ended: Notify,
}

impl Connection {
    /// Begins to read what the server says.
    pub fn new<S, T>(
        client: Client,
        connection: tokio_postgres::Connection<S, T>,
        server: String,
        tls: MakeRustlsConnect,
        common: Arc<Common>,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let said = Arc::new(Said::default());
        let reader = tokio::spawn(read(connection, server, Arc::clone(&said), Arc::clone(&common)));
        Self { client: ClientWrapper::new(client, reader), tls, said, common }
    }

    /// Returns whether the server said that a commit on this connection may be missing at the synchronous standby.
    ///
    /// It says so before it says that the commit is done.
    pub fn is_unconfirmed(&self) -> bool {
        self.said.is_unconfirmed.load(Ordering::SeqCst)
    }

    /// Returns once the connection is no more, to one caller.
    pub async fn ended(&self) {
        self.said.ended.notified().await;
    }

    /// Asks the server to give up what it is at for this connection, and does not wait for it.
    pub fn cancel(&self, patience: Duration) {
        let (token, tls) = (self.client.cancel_token(), self.tls.clone());
        tokio::spawn(async move {
            if !matches!(timeout(patience, token.cancel_query(tls)).await, Ok(Ok(()))) {
                tracing::debug!("a statement at PostgreSQL could not be cancelled");
            }
        });
    }
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

async fn read<S, T>(
    mut connection: tokio_postgres::Connection<S, T>,
    server: String,
    said: Arc<Said>,
    common: Arc<Common>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(server, "PostgreSQL says: {}", notice.message());
                if is_from_standby_wait(&notice) {
                    said.is_unconfirmed.store(true, Ordering::SeqCst);
                }
            }
            Ok(AsyncMessage::Notification(notification)) if notification.payload() != common.name => {
                common.changed.notify_one();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(server, "connection to PostgreSQL ended: {}", describe(&error));
                break;
            }
        }
    }
    said.ended.notify_one();
}

fn is_from_standby_wait(notice: &DbError) -> bool {
    notice.routine() == Some(STANDBY_ROUTINE)
}

/// Whether what can be read may be missing at the synchronous standby, and so after a failover.
///
/// PostgreSQL shows a transaction only after the standby has it, with two exceptions: the wait was cancelled, or the
/// server crashed meanwhile and started again. Whoever finds such a transaction must not acknowledge it before a later
/// commit went through, which implies that the standby has all before it. So every new connection, and every operation
/// that did not end well, raises a doubt.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    raised: AtomicU64,
    settled: AtomicU64,
}

impl Doubt {
    pub fn raise(&self) {
        self.raised.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns up to where a commit that begins now would settle it; none where all is settled.
    pub fn open(&self) -> Option<u64> {
        let raised = self.raised.load(Ordering::SeqCst);
        (self.settled.load(Ordering::SeqCst) < raised).then_some(raised)
    }

    pub fn settle(&self, up_to: u64) {
        self.settled.fetch_max(up_to, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_that_came_up_meanwhile_stays() {
        let doubt = Doubt::default();
        assert_eq!(doubt.open(), None);
        doubt.raise();
        let first = doubt.open().unwrap();
        doubt.raise();
        doubt.settle(first);
        let second = doubt.open().expect("the second is not settled by the first one's commit");
        doubt.settle(second);
        doubt.settle(first);
        assert_eq!(doubt.open(), None);
    }
}
