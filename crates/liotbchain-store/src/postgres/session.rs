//! A pooled connection in the hands of one operation, with the time that the operation may take.

use std::{future::Future, time::Duration};

use deadpool::managed::{Object, Pool, PoolError};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Row, types::ToSql};

use super::{connector::Connector, fault::Fault};
use crate::StoreError;

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How long a server may take to be asked for a cancellation.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// A connection until the operation's deadline.
///
/// Unless [`Session::finish`] or [`Session::commit`] says that all went well, the connection is closed and not used
/// again: after an error or a timeout, or when the caller was cancelled, nobody knows what is still on its way on it. The
/// server then undoes what was not committed.
pub(super) struct Session {
    connection: Option<Object<Connector>>,
    deadline: Instant,
}

impl Session {
    /// Takes a connection out of the pool, or makes one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], or [`StoreError::Config`] where trying again cannot help.
    pub async fn open(pool: &Pool<Connector>, deadline: Instant) -> Result<Self, StoreError> {
        match timeout_at(deadline, pool.get()).await {
            Ok(Ok(connection)) => Ok(Self { connection: Some(connection), deadline }),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(StoreError::Unavailable("it was closed".to_owned())),
            Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
            Err(_) => {
                let location = pool.manager().location();
                Err(StoreError::Unavailable(format!("no connection to {location} was free in time")))
            }
        }
    }

    fn connection(&self) -> &Object<Connector> {
        self.connection.as_ref().expect("it is taken only when the session ends")
    }

    async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        match timeout_at(self.deadline, work).await {
            Ok(result) => result.map_err(Fault::from),
            Err(_) => Err(Fault::elapsed()),
        }
    }

    /// Returns the rows of a statement that changes nothing, or that is part of a transaction.
    pub async fn query(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Fault> {
        let connection = self.connection();
        let statement = self.bounded(connection.prepare_cached(sql)).await?;
        self.bounded(connection.query(&statement, parameters)).await
    }

    /// Returns how many rows a statement changed that is part of a transaction.
    pub async fn execute(&self, sql: &str, parameters: Parameters<'_>) -> Result<u64, Fault> {
        let connection = self.connection();
        let statement = self.bounded(connection.prepare_cached(sql)).await?;
        self.bounded(connection.execute(&statement, parameters)).await
    }

    /// Returns the rows of a statement that is a transaction of its own, and commits.
    pub async fn write(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Fault> {
        let connection = self.connection();
        let statement = self.bounded(connection.prepare_cached(sql)).await?;
        let rows =
            self.bounded(connection.query(&statement, parameters)).await.map_err(Fault::at_autocommit)?;
        self.check_confirmed()?;
        Ok(rows)
    }

    fn check_confirmed(&self) -> Result<(), Fault> {
        if self.connection().is_unconfirmed() { Err(Fault::unconfirmed()) } else { Ok(()) }
    }

    /// Waits, where there is a doubt, until the synchronous standby has all that this connection has read.
    ///
    /// Before a write, too: while the standby is away, each commit that gave up waiting still occupies a process of the
    /// server, and the next one shall not add to them.
    pub async fn settle(&self) -> Result<(), Fault> {
        let doubt = &self.connection().common.doubt;
        let Some(up_to) = doubt.open() else { return Ok(()) };
        self.confirm().await?;
        doubt.settle(up_to);
        Ok(())
    }

    /// Waits until the synchronous standby, where the server has one, has all that this connection has read: commits a
    /// record of the server's log that changes nothing, and so can be given up without harm.
    pub async fn confirm(&self) -> Result<(), Fault> {
        let sql = "SELECT pg_logical_emit_message(true, 'liotbchain', ''::text)::text
                   WHERE current_setting('synchronous_standby_names') <> ''";
        let confirmed = self.query(sql, &[]).await.map(drop).and_then(|()| self.check_confirmed());
        if confirmed.as_ref().is_err_and(Fault::is_elapsed) {
            self.connection().cancel(CANCEL_PATIENCE);
        }
        confirmed
    }

    /// Runs statements without parameters that are part of a transaction, or begin one.
    pub async fn batch(&self, sql: &str) -> Result<(), Fault> {
        self.bounded(self.connection().batch_execute(sql)).await
    }

    /// Begins a transaction that writes.
    pub async fn begin(&self) -> Result<(), Fault> {
        self.batch("BEGIN").await
    }

    /// Begins a transaction whose statements all see the same snapshot.
    pub async fn begin_snapshot(&self) -> Result<(), Fault> {
        self.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// Commits what was begun.
    pub async fn commit(self) -> Result<(), Fault> {
        self.batch("COMMIT").await.map_err(Fault::at_commit)?;
        self.check_confirmed()?;
        self.finish();
        Ok(())
    }

    /// Undoes what was begun. If that fails, the server does it when the connection closes.
    pub async fn roll_back(self) {
        if self.batch("ROLLBACK").await.is_ok() {
            self.finish();
        }
    }

    /// Gives the connection back.
    pub fn finish(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.common.doubt.raise();
            drop(Object::take(connection));
        }
    }
}

/// Returns when an operation that begins now must have ended.
pub(super) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    // A deadline beyond what the clock can say is none: thirty years.
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(1_000_000_000))
}
