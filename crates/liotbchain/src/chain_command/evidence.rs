//! What receipts hold against a chain that is validated.

use std::path::{Path, PathBuf};

use liotbchain_core::{
    Height,
    receipt::{ProofFile, ProvenReceipt, Receipt},
};
use liotbchain_node::Fault;
use liotbchain_store::{Store, StoreError};
use serde::Serialize;

use crate::failure::Failure;
use crate::verify_command::printable;

/// Characters of a text that are shown.
const SHOWN: usize = 400;

/// A receipt that holds by itself.
pub struct Held {
    pub file: String,
    receipt: Receipt,
    proven: ProvenReceipt,
}

/// What a receipt says of the stored chain.
#[derive(Debug, Serialize)]
pub struct Testimony {
    pub receipt: String,
    /// Whether the block that it proves is the one that is stored.
    pub agrees: bool,
    pub says: String,
}

impl Held {
    /// Reads receipts, which must hold.
    pub fn read(files: &[PathBuf]) -> Result<Vec<Self>, Failure> {
        files.iter().map(|file| Self::of(file)).collect()
    }

    fn of(path: &Path) -> Result<Self, Failure> {
        let file = path.display().to_string();
        let text = crate::verify_command::read_text(path)?;
        let receipt = match Receipt::parse_tlog_proof(&text) {
            Ok(receipt) => receipt,
            Err(_) => match ProofFile::parse(&text) {
                Ok(ProofFile::Receipt(receipt)) => *receipt,
                Ok(_) => return Err(Failure::failed(format!("{file} is a proof, but no receipt"))),
                Err(error) => return Err(Failure::failed(format!("{file}: {error}"))),
            },
        };
        let proven = receipt.verify().map_err(|error| {
            Failure::failed(format!("{file} proves nothing: {error}"))
                .with_hint("`liotbchain verify` says more")
        })?;
        Ok(Self { file, receipt, proven })
    }

    /// Holds the receipt against the stored block, and against a fault.
    pub async fn testify(&self, store: &dyn Store, fault: Option<&Fault>) -> Result<Testimony, StoreError> {
        let (height, hash) = (self.proven.block.height, self.proven.block.hash);
        let header = match store.headers(height, 1).await {
            Err(StoreError::Corrupt(_)) => None,
            headers => headers?.pop().filter(|header| header.height == height),
        };
        let stored = header.as_ref().map(liotbchain_core::Header::compute_hash);
        let mut says = match stored {
            Some(stored) if stored == hash => format!("block {height} is the one it proves"),
            Some(stored) => {
                format!(
                    "block {height} was {hash}, and is {stored} here: this chain was made anew since, or is another one"
                )
            }
            None => format!("block {height} was on the chain, and is missing here: the chain was cut off"),
        };
        let is_here = |fault: &&Fault| is_at(fault, height, self.proven.position);
        if let (Some(_), Some(text)) = (fault.filter(is_here), self.text()) {
            says += &format!("; it holds the true text of the faulty transaction: {text}");
        }
        Ok(Testimony { receipt: self.file.clone(), agrees: stored == Some(hash), says })
    }

    fn text(&self) -> Option<String> {
        let statement = self.receipt.block.entries.first()?.transaction.statement()?;
        Some(printable(&statement.payload.chars().take(SHOWN).collect::<String>()))
    }
}

fn is_at(fault: &Fault, height: Height, position: u32) -> bool {
    fault.height == height && fault.position.is_none_or(|it| it == position as usize)
}
