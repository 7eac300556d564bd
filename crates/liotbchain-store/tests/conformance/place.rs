//! Where a case keeps its store: each gets a fresh, empty one.

use std::sync::Arc;

use liotbchain_store::{OpenOptions, Store};
use tempfile::TempDir;
use tokio_postgres::{Config, NoTls, config::Host};

use crate::postgres_cluster::Cluster;

/// A `DATABASE_URL` with nothing behind it yet.
pub struct Place {
    url: String,
    /// Relative files lie here.
    data_dir: TempDir,
    is_durable: bool,
}

impl Place {
    fn new(url: String, is_durable: bool) -> Self {
        Self { url, data_dir: TempDir::new().unwrap(), is_durable }
    }

    /// Opens the store. A durable one can be opened again.
    pub async fn open(&self) -> Arc<dyn Store> {
        liotbchain_store::open(&self.url, self.data_dir.path(), &OpenOptions::default()).await.unwrap()
    }

    /// Opens the store a second time beside the first, as another process would. In memory, there is only one.
    pub async fn open_beside(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        if self.is_durable { self.open().await } else { Arc::clone(store) }
    }

    /// Returns whether what is stored is there after the store was closed.
    pub fn is_durable(&self) -> bool {
        self.is_durable
    }
}

/// One of the three kinds of store.
pub enum Backend {
    Memory,
    Sqlite,
    Postgres(Box<Server>),
}

/// The PostgreSQL server to use: that of `TEST_POSTGRES_URL`, or one of our own.
pub struct Server {
    admin: Config,
    _own: Option<Cluster>,
}

impl Server {
    pub fn find() -> Self {
        let own = std::env::var_os("TEST_POSTGRES_URL").is_none().then(Cluster::start);
        let own_url = own.as_ref().map(|cluster| cluster.url("postgres"));
        let url = own_url.unwrap_or_else(|| std::env::var("TEST_POSTGRES_URL").unwrap());
        Self { admin: url.parse().expect("TEST_POSTGRES_URL is a connection string"), _own: own }
    }

    async fn execute(&self, sql: &str) {
        let (client, connection) = self.admin.connect(NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }

    /// Returns the connection string of another database on the same server.
    fn url(&self, database: &str) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let host = match &self.admin.get_hosts()[0] {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        let port = self.admin.get_ports().first().copied().unwrap_or(5432);
        let mut url = format!("host={} port={port} dbname={}", quote(&host), quote(database));
        if let Some(user) = self.admin.get_user() {
            url += &format!(" user={}", quote(user));
        }
        if let Some(password) = self.admin.get_password() {
            url += &format!(" password={}", quote(&String::from_utf8_lossy(password)));
        }
        url
    }
}

impl Backend {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Makes the place of a case.
    pub async fn make_place(&self, case: &str) -> Place {
        match self {
            Self::Memory => Place::new("memory:".to_owned(), false),
            Self::Sqlite => Place::new("sqlite:chain.db".to_owned(), true),
            Self::Postgres(server) => {
                let database = database_name(case);
                server.execute(&format!("CREATE DATABASE {database}")).await;
                Place::new(server.url(&database), true)
            }
        }
    }

    /// Removes what [`Backend::make_place`] made.
    pub async fn remove_place(&self, case: &str) {
        if let Self::Postgres(server) = self {
            server.execute(&format!("DROP DATABASE {} WITH (FORCE)", database_name(case))).await;
        }
    }
}

/// One of this process's own: a server that was given may be used by several test runs.
fn database_name(case: &str) -> String {
    let short: String = case.chars().take(40).collect();
    format!("liotbchain_{}_{short}", std::process::id())
}
