//! The channel on which the processes that share a database tell each other that they changed something.
//!
//! A NOTIFY locks the whole database while it commits. So it is no part of an admission or of a block's commit, which
//! would then go one after the other whichever receiver they came from. It is sent afterwards, by a connection of its
//! own, many changes in one, and does not wait for disk or standby: a change that goes unsaid is found by looking.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use deadpool::managed::{Manager, Pool};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_postgres::error::SqlState;

use super::{
    connection::Connection,
    connector::Connector,
    fault::{Fault, describe},
};

/// Changes of so much time are told at once: at most a hundred notifications a second from one process.
const GATHER: Duration = Duration::from_millis(10);
/// First and longest pause after the connection was lost.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Notifications stay within a database, and a database holds one chain: in its schema `liotbchain`.
const LISTEN: &str = "LISTEN liotbchain";

/// Tells others, and hears them. Without a connection until somebody asks for either.
pub(super) struct Channel {
    pool: Pool<Connector>,
    timeout: Duration,
    wishes: Arc<Wishes>,
    task: OnceLock<JoinHandle<()>>,
}

#[derive(Default)]
struct Wishes {
    /// There is something to tell.
    announce: Notify,
    close: Notify,
}

enum End {
    Lost,
    Closed,
}

impl Channel {
    pub fn new(pool: Pool<Connector>, timeout: Duration) -> Self {
        Self { pool, timeout, wishes: Arc::default(), task: OnceLock::new() }
    }

    /// Tells the other processes, soon, that this one changed something.
    pub fn announce(&self) {
        self.start();
        self.wishes.announce.notify_one();
    }

    /// Returns when another process announced something since the last time, or may have, unheard. For one caller.
    pub async fn changed(&self) {
        self.start();
        self.pool.manager().common().changed.notified().await;
    }

    /// Tells what is still to be told, and ends.
    pub async fn close(&self) {
        self.wishes.close.notify_one();
        let is_over = || self.task.get().is_none_or(JoinHandle::is_finished);
        let over = async {
            while !is_over() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        // What is not told by then is found by looking.
        let _ = timeout(self.timeout, over).await;
    }

    fn start(&self) {
        self.task
            .get_or_init(|| tokio::spawn(keep_up(self.pool.clone(), self.timeout, Arc::clone(&self.wishes))));
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

async fn keep_up(pool: Pool<Connector>, patience: Duration, wishes: Arc<Wishes>) {
    let mut pause = PAUSE.0;
    loop {
        let listening = tokio::select! {
            listening = listen(pool.manager(), patience) => listening,
            () = wishes.close.notified() => return,
        };
        match listening {
            Ok(connection) => {
                pause = PAUSE.0;
                // What was said meanwhile went unheard.
                pool.manager().common().changed.notify_one();
                match pass_on(&connection, pool.manager(), patience, &wishes).await {
                    End::Closed => return,
                    End::Lost => {}
                }
            }
            Err(Refusal::Unsupported(reason)) => {
                tracing::info!("changes by other receivers are found by looking for them: {reason}");
                return;
            }
            Err(Refusal::Away) => {}
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(PAUSE.1),
            () = wishes.close.notified() => return,
        }
    }
}

enum Refusal {
    /// There is no server now, or it is not as it should be: whoever has something to write is told.
    Away,
    /// The server, or a pooler before it, does not know the statement.
    Unsupported(String),
}

async fn listen(connector: &Connector, patience: Duration) -> Result<Connection, Refusal> {
    let connection = connector.create().await.map_err(|_| Refusal::Away)?;
    match timeout(patience, connection.batch_execute(LISTEN)).await {
        Ok(Ok(())) => Ok(connection),
        Ok(Err(error)) => match error.code() {
            Some(&(SqlState::FEATURE_NOT_SUPPORTED | SqlState::SYNTAX_ERROR)) => {
                Err(Refusal::Unsupported(describe(&error)))
            }
            _ => Err(Refusal::Away),
        },
        Err(_) => Err(Refusal::Away),
    }
}

async fn pass_on(connection: &Connection, connector: &Connector, patience: Duration, wishes: &Wishes) -> End {
    // Only within the transaction: behind a pooler, the server's session may be another client's next.
    let sql = format!(
        "BEGIN; SET LOCAL synchronous_commit = off; NOTIFY liotbchain, '{}'; COMMIT",
        connector.common().name
    );
    loop {
        tokio::select! {
            biased;
            () = connection.ended() => return End::Lost,
            // Before the end: a receiver that stops has just given up the right to seal.
            () = wishes.announce.notified() => {
                let told = timeout(patience, connection.batch_execute(&sql)).await;
                if let Err(fault) = told.map_err(|_| Fault::elapsed()).and_then(|told| Ok(told?)) {
                    tracing::debug!("others were not told of a change: {fault}");
                    wishes.announce.notify_one();
                    return End::Lost;
                }
                sleep(GATHER).await;
            }
            () = wishes.close.notified() => return End::Closed,
        }
    }
}
