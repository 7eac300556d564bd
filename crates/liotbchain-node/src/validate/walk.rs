//! Reads what was found valid once more, for its ids and sequences alone.

use std::{future::Future, pin::Pin, sync::Arc};

use liotbchain_core::{BlockHash, Height, KeyId, TransactionId};
use liotbchain_store::{Place, Store, StoreError, StoredBlock};

use super::{
    Fault, Validation,
    pages::{PageError, Pages},
};

/// What is counted of a block.
pub(super) struct Listed {
    pub(super) height: Height,
    pub(super) hash: BlockHash,
    pub(super) transactions: Vec<ListedTransaction>,
}

/// What is counted of a transaction.
pub(super) struct ListedTransaction {
    pub(super) id: Option<TransactionId>,
    pub(super) key_id: KeyId,
    pub(super) sequence: u64,
}

impl Listed {
    /// Returns each id with its place.
    pub(super) fn places(&self) -> impl Iterator<Item = (TransactionId, Place)> + '_ {
        (0u32..).zip(&self.transactions).filter_map(|(position, transaction)| {
            Some((transaction.id?, Place { height: self.height, position, block_hash: self.hash }))
        })
    }
}

impl From<&StoredBlock> for Listed {
    fn from(stored: &StoredBlock) -> Self {
        let transactions = stored.block.transactions.iter().zip(&stored.ids).map(|(transaction, id)| {
            ListedTransaction { id: *id, key_id: transaction.key_id(), sequence: transaction.sequence }
        });
        Self { height: stored.block.header.height, hash: stored.hash, transactions: transactions.collect() }
    }
}

type List = fn(Vec<StoredBlock>) -> Listing;

type Listing = Pin<Box<dyn Future<Output = Result<Vec<Listed>, PageError>> + Send>>;

/// A second reading of a chain, up to where it was found valid.
pub(super) struct Walk<'a> {
    valid: &'a Validation,
    pages: Pages<List, Vec<Listed>>,
    /// What was read so far.
    passed: Validation,
}

impl<'a> Walk<'a> {
    pub(super) fn new(store: &Arc<dyn Store>, valid: &'a Validation) -> Self {
        let passed = Validation { since: valid.since, ..Validation::none(valid.signatures) };
        Self { valid, pages: Pages::new(store, 0..valid.valid_blocks, list), passed }
    }

    /// Returns the next page; where the chain is no longer what was validated, the end of what is left of it.
    pub(super) async fn next(&mut self) -> Result<Option<Result<Vec<Listed>, Box<Validation>>>, StoreError> {
        match self.pages.next().await? {
            Some(Ok(page)) => Ok(Some(Ok(page))),
            Some(Err(bad_row)) => Ok(Some(Err(Box::new(self.end(bad_row))))),
            None if self.passed.tip == self.valid.tip => Ok(None),
            None => Ok(Some(Err(Box::new(self.end(Fault {
                height: self.passed.valid_blocks as Height,
                position: None,
                field: "hash".to_owned(),
                reason: "the chain was reorganised while it was validated: validate it again".to_owned(),
                origin: None,
            }))))),
        }
    }

    /// Counts a block that is as it should be.
    pub(super) fn pass(&mut self, block: &Listed) {
        self.passed.valid_blocks += 1;
        self.passed.transactions += block.transactions.len() as u64;
        self.passed.pruned += block.transactions.iter().filter(|it| it.id.is_none()).count() as u64;
        self.passed.tip = Some(block.hash);
    }

    /// Returns the validation that ends before the next block, with its fault.
    pub(super) fn end(&self, fault: impl Into<Fault>) -> Validation {
        // Records are not read a second time, and an end before the last one may have left some out.
        let unrecorded = (self.passed.pruned == 0).then_some(0);
        Validation { fault: Some(fault.into()), unrecorded, ..self.passed.clone() }
    }
}

fn list(page: Vec<StoredBlock>) -> Listing {
    Box::pin(async move { Ok(page.iter().map(Listed::from).collect()) })
}
