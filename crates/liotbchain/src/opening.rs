//! Opens the store that the settings name, for the commands that make a chain and for those that only look at one.

use std::sync::Arc;

use liotbchain_store::sqlite::SqliteStore;
use liotbchain_store::{OpenOptions, Store, StoreError};

use crate::failure::{Exit, Failure};
use crate::settings::{DatabaseUrl, Settings};

/// Opens the store, or makes an empty one where that is possible.
///
/// # Errors
///
/// Where it cannot be reached, is damaged, or is not ours.
pub async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    let options =
        OpenOptions { allow_lossy_failover: settings.allow_lossy_failover, ..OpenOptions::default() };
    let opened: Result<Arc<dyn Store>, StoreError> = match &settings.database {
        DatabaseUrl::Sqlite(path) => match SqliteStore::open(path, &options).await {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) => Err(error),
        },
        DatabaseUrl::Postgres(text) => liotbchain_store::open(text, &settings.data_dir, &options).await,
    };
    opened.map_err(|error| match error {
        StoreError::Unavailable(reason) => {
            let error = format!("the store {} cannot be used now: {reason}", settings.database.shown());
            Failure::new(Exit::Unreachable, error)
                .with_hint("`liotbchain config show` tells where DATABASE_URL is set")
        }
        error => error.into(),
    })
}

/// Opens a store that is there: a command that looks at a chain makes no file.
///
/// # Errors
///
/// As [`open_store`], and where there is none.
pub async fn open_existing_store(settings: &Settings) -> Result<Arc<dyn Store>, Failure> {
    match &settings.database {
        DatabaseUrl::Sqlite(path) if !path.metadata().is_ok_and(|metadata| metadata.len() > 0) => {
            Err(no_chain(settings))
        }
        _ => open_store(settings).await,
    }
}

/// Says that there is no chain.
pub fn no_chain(settings: &Settings) -> Failure {
    Failure::failed(format!("there is no chain in {}", settings.database.shown())).with_hint(
        "`liotbchain demo` and `liotbchain receiver` make one; if there should be one, set DATA_DIR or DATABASE_URL",
    )
}
