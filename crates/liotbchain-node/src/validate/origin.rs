//! Whose transaction a fault is in.

use liotbchain_core::KeyId;
use liotbchain_store::{Store, StoreError};
use serde_json::Value;

use super::Fault;

/// Characters of a device's name that are told.
const NAME_MAX: usize = 200;

/// Whose transaction it is, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who signed; zero where nobody did.
    pub key_id: KeyId,
    /// The `device` in the stored text, if it has one. It may be what was changed.
    pub device: Option<String>,
}

impl Origin {
    /// Looks up whose transaction a fault is in, if it is in one.
    pub(super) async fn of(store: &dyn Store, fault: &Fault) -> Result<Option<Self>, StoreError> {
        let Some(position) = fault.position else { return Ok(None) };
        let block = match store.blocks(fault.height, 1, 0).await {
            // A row that cannot be read says nothing.
            Err(StoreError::Corrupt(_)) => return Ok(None),
            blocks => blocks?.pop().filter(|block| block.block.header.height == fault.height),
        };
        let transaction = block.and_then(|block| block.block.transactions.get(position).cloned());
        Ok(transaction.map(|transaction| {
            let json = transaction.statement().and_then(|it| serde_json::from_str::<Value>(&it.payload).ok());
            let device = json.as_ref().and_then(|json| json.get("device")?.as_str());
            let device = device.map(|name| name.chars().take(NAME_MAX).collect());
            Self { key_id: transaction.key_id(), device }
        }))
    }
}
