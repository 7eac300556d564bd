//! What a chain answers.

use liotbchain::{
    Acknowledgement as CoreAcknowledgement, Transferred as CoreTransferred, Validation as CoreValidation,
};
use pyo3::prelude::*;

use crate::transaction::place;

/// What becomes of a transaction. It is on the disk by then.
#[pyclass(frozen, get_all, module = "liotbchain")]
pub struct Acknowledgement {
    /// Its id, in hexadecimal.
    id: String,
    /// "sealed" or "pending".
    status: &'static str,
    /// Height of its block; None while it is pending.
    height: Option<u32>,
    /// Place in the block, from 0; None while it is pending.
    position: Option<u32>,
    /// Hash of its block, in hexadecimal; None while it is pending.
    block_hash: Option<String>,
}

impl From<CoreAcknowledgement> for Acknowledgement {
    fn from(CoreAcknowledgement { id, status }: CoreAcknowledgement) -> Self {
        let place = place(status);
        Self {
            id: id.to_string(),
            status: if place.is_some() { "sealed" } else { "pending" },
            height: place.map(|it| it.height),
            position: place.map(|it| it.position),
            block_hash: place.map(|it| it.block_hash.to_string()),
        }
    }
}

#[pymethods]
impl Acknowledgement {
    fn __repr__(&self) -> String {
        match (self.height, self.position) {
            (Some(height), Some(position)) => {
                format!("<Acknowledgement {}, sealed in block {height} at {position}>", self.id)
            }
            _ => format!("<Acknowledgement {}, pending>", self.id),
        }
    }
}

/// The first thing that is wrong with a chain.
#[pyclass(frozen, get_all, module = "liotbchain")]
#[derive(Clone)]
pub struct Fault {
    /// Height of the bad block.
    height: u32,
    /// Place of the bad transaction in it; None where the fault is not one transaction's.
    position: Option<usize>,
    /// The field that is wrong.
    field: String,
    /// What is wrong with it.
    reason: String,
}

#[pymethods]
impl Fault {
    fn __str__(&self) -> String {
        let Self { height, position, field, reason } = self;
        match position {
            Some(position) => format!("block {height}, transaction {position}, {field}: {reason}"),
            None => format!("block {height}, {field}: {reason}"),
        }
    }

    fn __repr__(&self) -> String {
        format!("<Fault {}>", self.__str__())
    }
}

/// The result of a validation. It is true where the chain is valid.
#[pyclass(frozen, get_all, module = "liotbchain")]
pub struct Validation {
    /// Blocks that were found valid, from the genesis block on.
    valid_blocks: u64,
    /// Transactions in them.
    transactions: u64,
    /// How many of them were pruned, so that their signatures could not be checked.
    pruned: u64,
    /// How many of these no record on the chain speaks of; None where that is not known.
    pruned_without_record: Option<u64>,
    /// Hash of the last valid block, in hexadecimal.
    tip: Option<String>,
    /// The first fault; None where there is none.
    fault: Option<Fault>,
}

impl From<CoreValidation> for Validation {
    fn from(validation: CoreValidation) -> Self {
        let CoreValidation { valid_blocks, transactions, pruned, unrecorded, tip, fault, .. } = validation;
        let fault = fault.map(|liotbchain::Fault { height, position, field, reason, .. }| Fault {
            height,
            position,
            field,
            reason,
        });
        let (pruned_without_record, tip) = (unrecorded, tip.map(|tip| tip.to_string()));
        Self { valid_blocks, transactions, pruned, pruned_without_record, tip, fault }
    }
}

#[pymethods]
impl Validation {
    fn __bool__(&self) -> bool {
        self.fault.is_none()
    }

    fn __repr__(&self) -> String {
        match &self.fault {
            Some(fault) => format!("<Validation: invalid, {}>", fault.__str__()),
            None => format!("<Validation: {} blocks are valid>", self.valid_blocks),
        }
    }
}

/// What was exported or imported.
#[pyclass(frozen, get_all, module = "liotbchain")]
pub struct Transferred {
    /// Hash of the genesis block, in hexadecimal.
    genesis: String,
    /// Hash of the last block, in hexadecimal.
    tip: String,
    /// Height of the last block.
    height: u32,
    /// Number of transactions.
    transactions: u64,
}

impl From<CoreTransferred> for Transferred {
    fn from(CoreTransferred { genesis, tip, height, transactions }: CoreTransferred) -> Self {
        Self { genesis: genesis.to_string(), tip: tip.to_string(), height, transactions }
    }
}

#[pymethods]
impl Transferred {
    fn __repr__(&self) -> String {
        format!("<Transferred: height {}, {} transactions, tip {}>", self.height, self.transactions, self.tip)
    }
}
