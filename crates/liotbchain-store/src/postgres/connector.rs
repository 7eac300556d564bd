//! Makes connections: tries the servers in turn, and takes none that would forget what it acknowledged.

use std::{
    error::Error,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::{sync::Notify, time::timeout};
use tokio_postgres::{SimpleQueryMessage, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    address::{Address, Server},
    connection::{Common, Connection, Doubt},
    fault::describe,
    tls,
};
use crate::{OpenOptions, StoreError};

/// The oldest version that this store is written for, 13, as `server_version_num` writes it.
const VERSION_MIN: u32 = 130_000;

const NO_ANSWER: &str = "no answer in time";

/// Makes connections for the pool.
pub(super) struct Connector {
    address: Address,
    tls: MakeRustlsConnect,
    setup: String,
    allow_lossy_failover: bool,
    server_timeout: Duration,
    common: Arc<Common>,
}

impl Connector {
    pub(super) fn new(address: Address, options: &OpenOptions) -> Result<Self, StoreError> {
        let tls = tls::connector(address.ssl_mode)?;
        // What is left of the operation's time is for the operation.
        let server_timeout = options.timeout / (address.servers.len() as u32 + 1);
        let allow_lossy_failover = options.allow_lossy_failover;
        // The standard library seeds its hashers at random: two processes will hardly have the same name.
        let name = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        let common = Arc::new(Common { name, changed: Notify::new(), doubt: Doubt::default() });
        Ok(Self { setup: setup(options.timeout), address, tls, allow_lossy_failover, server_timeout, common })
    }

    /// Returns what all connections share.
    pub(super) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    pub(super) fn location(&self) -> &str {
        &self.address.location
    }

    async fn connect(&self, server: &Server) -> Result<Connection, StoreError> {
        let connected = server.config.connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|error| refusal(server, &error))?;
        let (name, tls, common) = (server.name.clone(), self.tls.clone(), Arc::clone(&self.common));
        Ok(Connection::new(client, connection, name, tls, common))
    }

    /// Begins a session, and checks what the server promises.
    async fn check(&self, server: &Server, connection: Connection) -> Result<Connection, StoreError> {
        let answer = timeout(self.server_timeout, connection.simple_query(&self.setup)).await;
        let answer =
            answer.map_err(|_| unreachable(server, NO_ANSWER))?.map_err(|error| refusal(server, &error))?;
        let settings = Settings::read(&answer).ok_or_else(|| {
            StoreError::Unavailable(format!("PostgreSQL at {} does not tell its settings", server.name))
        })?;
        settings.check(self.address.servers.len() > 1 && !self.allow_lossy_failover).map_err(
            |(problem, cure)| {
                let problem = format!("PostgreSQL at {} {problem}", server.name);
                StoreError::Config { problem, cure: cure.to_owned() }
            },
        )?;
        // It may have crashed since the last one, and show what its standby lacks.
        self.common.doubt.raise();
        Ok(connection)
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = StoreError;

    async fn create(&self) -> Result<Connection, StoreError> {
        let mut failures = Vec::new();
        for server in &self.address.servers {
            match timeout(self.server_timeout, self.connect(server)).await {
                // A server that can be written is the one to use, whatever the others say.
                Ok(Ok(connection)) => return self.check(server, connection).await,
                Ok(Err(error)) => failures.push(error),
                Err(_) => failures.push(unreachable(server, NO_ANSWER)),
            }
        }
        Err(joined(failures))
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<StoreError> {
        if connection.is_closed() {
            Err(RecycleError::message("the server closed the connection"))
        } else {
            Ok(())
        }
    }
}

/// Returns the statements that begin a session.
///
/// - The server gives a statement up when we do, and soon frees the locks of a receiver that vanished.
/// - Statements are written for READ COMMITTED, whatever the database's default is.
/// - `synchronous_commit` is pinned to the value that is checked, so that a reload of the server's configuration cannot
///   change it behind our back.
/// - Each statement has its index, and keeps its plan whatever the server's statistics say: those of a table that is a
///   queue are often wrong, and a plan that reads all of it is never the right one. None is worth compiling, which takes
///   longer than to run it.
fn setup(timeout: Duration) -> String {
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
    format!(
        "SET statement_timeout = {ms}; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = {ms};
         SET default_transaction_isolation = 'read committed'; SET enable_seqscan = off;
         SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan; SET jit = off;
         SELECT current_setting('server_version_num'), current_setting('server_version'), current_setting('fsync'),
                set_config('synchronous_commit', current_setting('synchronous_commit'), false),
                current_setting('synchronous_standby_names')"
    )
}

/// What the server's promises rest on.
struct Settings {
    version_num: u32,
    version: String,
    fsync: String,
    synchronous_commit: String,
    synchronous_standby_names: String,
}

impl Settings {
    fn read(answer: &[SimpleQueryMessage]) -> Option<Self> {
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })?;
        let text = |column| row.try_get(column).ok().flatten().map(str::to_owned);
        Some(Self {
            version_num: text(0)?.parse().ok()?,
            version: text(1)?,
            fsync: text(2)?,
            synchronous_commit: text(3)?,
            synchronous_standby_names: text(4)?,
        })
    }

    /// Checks that a commit survives power loss and, where `standby` is asked for, the loss of the server.
    ///
    /// # Errors
    ///
    /// What is wrong with the server, and what to do.
    fn check(&self, standby: bool) -> Result<(), (String, &'static str)> {
        if self.version_num < VERSION_MIN {
            let cure = "upgrade the server, or keep the chain in SQLite (DATABASE_URL=sqlite:liotbchain.db)";
            return Err((format!("is version {}: expected 13 or later", self.version), cure));
        }
        if self.fsync != "on" {
            let cure = "set fsync = on in postgresql.conf and reload the server";
            return Err((
                "runs with fsync=off: it may lose or damage the chain when power fails".to_owned(),
                cure,
            ));
        }
        if self.synchronous_commit == "off" {
            let cure = "set synchronous_commit = on in postgresql.conf (or with ALTER ROLE, ALTER DATABASE, where it was \
                        turned off) and reload the server";
            let problem =
                "runs with synchronous_commit=off: it may forget what it acknowledged when power fails";
            return Err((problem.to_owned(), cure));
        }
        if !standby {
            return Ok(());
        }
        let cure = "set synchronous_standby_names to the standby and synchronous_commit = on; or, if readings may be \
                    lost at a failover, set ALLOW_LOSSY_FAILOVER=true";
        if self.synchronous_standby_names.trim().is_empty() {
            let problem = "has no synchronous standby, while DATABASE_URL names several hosts: what was acknowledged \
                           may be missing after a failover";
            return Err((problem.to_owned(), cure));
        }
        if !matches!(self.synchronous_commit.as_str(), "on" | "remote_apply") {
            let problem = format!(
                "runs with synchronous_commit={}, which does not wait until the standby has written: what was \
                 acknowledged may be missing after a failover",
                self.synchronous_commit
            );
            return Err((problem, cure));
        }
        Ok(())
    }
}

/// Says why a server took no connection: [`StoreError::Config`] where trying again cannot help.
fn refusal(server: &Server, error: &tokio_postgres::Error) -> StoreError {
    let name = &server.name;
    let said = describe(error);
    let config = |problem: String, cure: &str| StoreError::Config { problem, cure: cure.to_owned() };
    match error.code() {
        Some(&SqlState::INVALID_CATALOG_NAME) => config(
            format!("PostgreSQL at {name}: {said}"),
            "create the database (createdb NAME), or correct its name in DATABASE_URL",
        ),
        Some(&(SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION)) => config(
            format!("PostgreSQL at {name} refuses the login: {said}"),
            "correct user and password in DATABASE_URL, or the server's pg_hba.conf",
        ),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => config(
            format!("PostgreSQL at {name} refuses the user: {said}"),
            "grant the user CONNECT on the database, or name another user in DATABASE_URL",
        ),
        Some(_) => StoreError::Unavailable(format!("PostgreSQL at {name}: {said}")),
        None if said.contains("password missing") || said.starts_with("authentication error") => config(
            format!("PostgreSQL at {name} refuses the login: {said}"),
            "put user and password into DATABASE_URL (the password may be in PGPASSWORD or ~/.pgpass), or allow the login in \
             the server's pg_hba.conf",
        ),
        None if said.contains("does not support TLS") => config(
            format!("PostgreSQL at {name} offers no TLS, which sslmode=require asks for"),
            "set ssl = on at the server, or take sslmode=require out of DATABASE_URL",
        ),
        None if is_bad_certificate(error) => config(
            format!("the certificate of PostgreSQL at {name} is not valid: {said}"),
            "set SSL_CERT_FILE to the root certificate that signed it, name the host as the certificate does, or use \
             sslmode=prefer, which checks no certificate",
        ),
        None if said.contains("does not allow writes") => StoreError::Unavailable(format!(
            "PostgreSQL at {name} is a standby, which cannot be written: name the primary in DATABASE_URL, too"
        )),
        None => unreachable(server, &said),
    }
}

fn unreachable(server: &Server, reason: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "PostgreSQL at {} cannot be reached ({reason}): start the server, or correct DATABASE_URL",
        server.name
    ))
}

fn is_bad_certificate(error: &tokio_postgres::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // An `io::Error` passes over the error that it wraps.
        source = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    false
}

/// Makes one error of those of all servers. If one of them may be back later, trying again may help.
fn joined(failures: Vec<StoreError>) -> StoreError {
    let is_final = |error: &StoreError| matches!(error, StoreError::Config { .. });
    if failures.len() == 1 || failures.iter().all(is_final) {
        let none = || StoreError::Unavailable("DATABASE_URL names no host".to_owned());
        return failures.into_iter().next().unwrap_or_else(none);
    }
    let texts = failures.iter().map(|error| match error {
        StoreError::Unavailable(reason) => reason.clone(),
        other => other.to_string(),
    });
    StoreError::Unavailable(texts.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            version_num: 150_020,
            version: "15.20".to_owned(),
            fsync: "on".to_owned(),
            synchronous_commit: "on".to_owned(),
            synchronous_standby_names: String::new(),
        }
    }

    #[test]
    fn takes_a_server_that_keeps_what_it_acknowledges() {
        assert!(settings().check(false).is_ok());
        assert!(Settings { synchronous_commit: "local".to_owned(), ..settings() }.check(false).is_ok());
        assert!(Settings { synchronous_standby_names: "s1".to_owned(), ..settings() }.check(true).is_ok());
    }

    #[test]
    fn refuses_one_that_does_not_and_says_what_to_do() {
        let standby = || "ANY 1 (s1, s2)".to_owned();
        for (bad, several, word) in [
            (Settings { version_num: 120_022, version: "12.22".to_owned(), ..settings() }, false, "12.22"),
            (Settings { fsync: "off".to_owned(), ..settings() }, false, "fsync=off"),
            (
                Settings { synchronous_commit: "off".to_owned(), ..settings() },
                false,
                "synchronous_commit=off",
            ),
            (settings(), true, "no synchronous standby"),
            (
                Settings {
                    synchronous_commit: "remote_write".to_owned(),
                    synchronous_standby_names: standby(),
                    ..settings()
                },
                true,
                "synchronous_commit=remote_write",
            ),
        ] {
            let (problem, cure) = bad.check(several).unwrap_err();
            assert!(problem.contains(word) && !cure.is_empty(), "{problem}");
        }
    }

    #[test]
    fn one_server_that_may_be_back_makes_the_failure_temporary() {
        let config = || StoreError::Config { problem: "a".to_owned(), cure: "b".to_owned() };
        let away = || StoreError::Unavailable("c".to_owned());
        assert!(matches!(joined(vec![config(), away()]), StoreError::Unavailable(text) if text == "a; c"));
        assert!(matches!(joined(vec![config(), config()]), StoreError::Config { .. }));
    }
}
