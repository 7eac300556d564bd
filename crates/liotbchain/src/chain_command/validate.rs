//! `liotbchain chain validate`: every rule of every block, and what the store's rows say beside them.

use std::sync::Arc;

use liotbchain_core::{BlockHash, Height};
use liotbchain_node::{Fault, Validation};
use liotbchain_store::{Store, StoreError};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::opening::{no_chain, open_existing_store};
use crate::output::{print, print_json};
use crate::progress::{Progress, Unit};
use crate::settings::Settings;

/// Validates the chain and prints the verdict.
///
/// # Errors
///
/// With the exit code of an invalid chain, where it is one; the verdict has said why. Others where there is no chain,
/// or it cannot be read.
pub async fn validate(settings: &Settings, json: bool) -> Result<(), Failure> {
    let store = open_existing_store(settings).await?;
    let validated = validate_store(&store, settings).await;
    store.close().await;
    let validation = validated?;
    let printed = if json { print_json(&Verdict::of(&validation)) } else { print(&in_words(&validation)) };
    // Who has stopped reading still gets the exit code.
    if validation.fault.is_some() { Err(Failure::told(Exit::ChainInvalid)) } else { printed }
}

async fn validate_store(store: &Arc<dyn Store>, settings: &Settings) -> Result<Validation, Failure> {
    match store.branch().await {
        Ok(None) => return Err(no_chain(settings)),
        // The validation finds the block that contradicts itself.
        Ok(Some(_)) | Err(StoreError::Corrupt(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut progress = Progress::new("validating", Unit::Blocks);
    let validation =
        liotbchain_node::validate(store, |done, known| progress.set(done, u64::from(known) + 1)).await;
    Ok(validation?)
}

fn in_words(validation: &Validation) -> String {
    let Validation { valid_blocks, transactions, tip, fault } = validation;
    match (fault, tip) {
        (Some(Fault { height, position, field, reason }), _) => {
            let position = position.map(|position| format!(", transaction {position}")).unwrap_or_default();
            format!(
                "invalid: block {height}{position}, {field}: {reason}\nvalid below: {valid_blocks} blocks\n"
            )
        }
        (None, Some(tip)) => {
            format!("valid: {valid_blocks} blocks, {transactions} transactions, tip {tip}\n")
        }
        (None, None) => format!("valid: {valid_blocks} blocks\n"),
    }
}

/// The verdict as `GET /validate` gives it.
#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    blocks: u64,
    transactions: u64,
    tip: Option<BlockHash>,
    height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<ShownFault<'a>>,
}

#[derive(Serialize)]
struct ShownFault<'a> {
    block: Height,
    transaction: Option<usize>,
    field: &'a str,
    reason: &'a str,
}

impl<'a> Verdict<'a> {
    fn of(validation: &'a Validation) -> Self {
        Self {
            valid: validation.fault.is_none(),
            blocks: validation.valid_blocks,
            transactions: validation.transactions,
            tip: validation.tip,
            height: validation.valid_blocks.checked_sub(1),
            fault: validation.fault.as_ref().map(|fault| ShownFault {
                block: fault.height,
                transaction: fault.position,
                field: &fault.field,
                reason: &fault.reason,
            }),
        }
    }
}
