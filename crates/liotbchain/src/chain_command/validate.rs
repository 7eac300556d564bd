//! `liotbchain chain validate`: every rule of every block, and what the store's rows say beside them.

use std::path::PathBuf;
use std::sync::Arc;

use liotbchain_core::{BlockHash, Checkpoint, Height, KeyId, Note, check::Signatures, checkpoint::origin_of};
use liotbchain_node::{Fault, Origin, Since, ValidateOptions, Validation, validate_with};
use liotbchain_store::{Store, StoreError};
use serde::Serialize;

use super::evidence::{Held, Testimony};
use crate::failure::{Exit, Failure};
use crate::opening::{no_chain, open_existing_store};
use crate::output::{print, print_json, warn};
use crate::progress::{Progress, Unit};
use crate::settings::Settings;
use crate::verify_command::printable;

/// What is validated, beside all rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ValidatePlan {
    pub skip_signatures: bool,
    /// A file with a checkpoint, or a number of blocks.
    pub since: Option<String>,
    /// What somebody got of this chain before.
    pub receipts: Vec<PathBuf>,
}

/// Validates the chain and prints the verdict.
///
/// # Errors
///
/// With the exit code of an invalid chain, where it is one; the verdict has said why. Others where there is no chain,
/// or it cannot be read.
pub async fn validate(settings: &Settings, plan: &ValidatePlan, json: bool) -> Result<(), Failure> {
    let receipts = Held::read(&plan.receipts)?;
    let store = open_existing_store(settings).await?;
    let validated = validate_store(&store, settings, plan, &receipts).await;
    store.close().await;
    let (validation, testimonies) = validated?;
    if plan.skip_signatures {
        warn("NO SIGNATURE WAS CHECKED", Some("without --skip-signatures, all are"));
    }
    let is_valid = validation.fault.is_none() && testimonies.iter().all(|testimony| testimony.agrees);
    let printed = if json {
        print_json(&Verdict::of(&validation, is_valid, testimonies))
    } else {
        print(&(in_words(&validation) + &in_words_of(&testimonies)))
    };
    // Who has stopped reading still gets the exit code.
    if is_valid { printed } else { Err(Failure::told(Exit::ChainInvalid)) }
}

fn in_words_of(testimonies: &[Testimony]) -> String {
    let mut words = String::new();
    for Testimony { receipt, agrees, says } in testimonies {
        let verdict = if *agrees { "agrees" } else { "CONTRADICTS" };
        words += &format!("receipt {receipt} {verdict}: {says}\n");
    }
    words
}

async fn validate_store(
    store: &Arc<dyn Store>,
    settings: &Settings,
    plan: &ValidatePlan,
    receipts: &[Held],
) -> Result<(Validation, Vec<Testimony>), Failure> {
    let genesis = match store.branch().await {
        Ok(None) => return Err(no_chain(settings)),
        Ok(Some(branch)) => Some(branch.genesis()),
        // The validation finds the block that contradicts itself.
        Err(StoreError::Corrupt(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let signatures = if plan.skip_signatures { Signatures::Skipped } else { Signatures::Checked };
    let since = plan.since.as_deref().map(|since| read_since(since, genesis)).transpose()?;
    let validation = {
        let mut progress = Progress::new("validating", Unit::Blocks);
        let options = ValidateOptions { signatures, since, ..ValidateOptions::default() };
        validate_with(store, options, |done, known| progress.set(done, u64::from(known) + 1)).await?
    };
    let fault = validation.fault.as_ref();
    let mut testimonies = Vec::new();
    for receipt in receipts {
        testimonies.push(receipt.testify(store.as_ref(), fault).await?);
    }
    Ok((validation, testimonies))
}

/// Reads what need not be validated again: a number of blocks, or a file with a checkpoint of this chain.
fn read_since(since: &str, genesis: Option<BlockHash>) -> Result<Since, Failure> {
    if let Ok(size) = since.parse::<u64>() {
        if size == 0 {
            return Err(
                Failure::new(Exit::Usage, "--since 0 leaves nothing out").with_hint("leave --since away")
            );
        }
        return Ok(Since { size, root: None });
    }
    let bad = |error: &dyn std::fmt::Display| Failure::failed(format!("{since}: {error}"));
    let note: Note =
        crate::verify_command::read_text(since.as_ref())?.parse().map_err(|error| bad(&error))?;
    let checkpoint = Checkpoint::of(&note).map_err(|error| bad(&error))?;
    if let Some(genesis) = genesis {
        checkpoint.check_origin(&origin_of(genesis)).map_err(|error| bad(&error))?;
    }
    Ok(Since { size: checkpoint.size, root: Some(checkpoint.root) })
}

fn in_words(validation: &Validation) -> String {
    let Validation { valid_blocks, transactions, tip, fault, signatures, since, .. } = validation;
    let but = match signatures {
        Signatures::Checked => "",
        Signatures::Skipped => " but for signatures, which were NOT CHECKED",
    };
    let Some(Fault { height, position, field, reason, origin }) = fault else {
        let tip = tip.map(|tip| format!(", tip {tip}")).unwrap_or_default();
        if *since > 0 {
            let new = valid_blocks - since;
            let valid = format!(
                "valid{but} since block {since}: {new} new blocks, {transactions} transactions{tip}\n"
            );
            return valid
                + &pruned_in_words(validation)
                + &format!("the {since} blocks below were NOT CHECKED\n");
        }
        let valid = format!("valid{but}: {valid_blocks} blocks, {transactions} transactions{tip}\n");
        return valid + &pruned_in_words(validation);
    };
    let (mut place, mut reason) = (format!("block {height}"), reason.as_str());
    if let Some(position) = position {
        place += &format!(", transaction {position}");
        // Some reasons begin with the place.
        reason = reason.strip_prefix(&format!("transaction {position}: ")).unwrap_or(reason);
    }
    let valid = match valid_blocks {
        0 => String::new(),
        count if *since > 0 => match count.saturating_sub(*since) {
            0 => String::new(),
            _ => format!("blocks {since} to {} are valid{but}\n", count - 1),
        },
        1 => format!("block 0 is valid{but}\n"),
        count => format!("blocks 0 to {} are valid{but}\n", count - 1),
    };
    let origin = origin.as_deref().map_or_else(String::new, |Origin { key_id, device }| {
        let device = device.as_ref().map(|name| format!("device {}, ", printable(name))).unwrap_or_default();
        format!("it is a transaction of {device}key {key_id}\n")
    });
    format!("invalid: {place}, {field}: {reason}\n{origin}{valid}")
}

/// Says what could not be checked: nothing where nothing was pruned.
fn pruned_in_words(validation: &Validation) -> String {
    let without_record = match (validation.pruned, validation.unrecorded) {
        (0, _) => return String::new(),
        (_, None) => "it is not known how many of them without a record on the chain".to_owned(),
        (_, Some(0)) => "each with a record on the chain".to_owned(),
        (_, Some(count)) => format!("{count} of them WITHOUT A RECORD ON THE CHAIN"),
    };
    format!(
        "pruned: {} transactions, whose signatures and repetitions cannot be checked; {without_record}\n",
        validation.pruned
    )
}

/// The verdict as `GET /validate` gives it, and whether signatures were checked.
#[derive(Serialize)]
struct Verdict<'a> {
    valid: bool,
    signatures: &'static str,
    blocks: u64,
    transactions: u64,
    pruned: u64,
    pruned_without_record: Option<u64>,
    tip: Option<BlockHash>,
    height: Option<u64>,
    /// How many blocks at the beginning were not checked.
    #[serde(skip_serializing_if = "is_zero")]
    since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<ShownFault<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    receipts: Vec<Testimony>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct ShownFault<'a> {
    block: Height,
    transaction: Option<usize>,
    field: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
}

impl<'a> Verdict<'a> {
    fn of(validation: &'a Validation, is_valid: bool, receipts: Vec<Testimony>) -> Self {
        Self {
            valid: is_valid,
            since: validation.since,
            receipts,
            signatures: match validation.signatures {
                Signatures::Checked => "checked",
                Signatures::Skipped => "skipped",
            },
            blocks: validation.valid_blocks,
            transactions: validation.transactions,
            pruned: validation.pruned,
            pruned_without_record: validation.unrecorded,
            tip: validation.tip,
            height: validation.valid_blocks.checked_sub(1),
            fault: validation.fault.as_ref().map(|fault| ShownFault {
                block: fault.height,
                transaction: fault.position,
                field: &fault.field,
                reason: &fault.reason,
                key_id: fault.origin.as_ref().map(|origin| origin.key_id),
                device: fault.origin.as_ref().and_then(|origin| origin.device.as_deref()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(valid_blocks: u64, fault: Option<(Option<usize>, &str)>) -> String {
        in_words(&validation(valid_blocks, fault))
    }

    fn validation(valid_blocks: u64, fault: Option<(Option<usize>, &str)>) -> Validation {
        let fault = fault.map(|(position, reason)| Fault {
            height: valid_blocks as Height,
            position,
            field: "signature".to_owned(),
            reason: reason.to_owned(),
            origin: None,
        });
        let (tip, signatures) = (Some(BlockHash([0xab; 32])), Signatures::Checked);
        let (pruned, unrecorded) = (0, Some(0));
        Validation { valid_blocks, transactions: 9, pruned, unrecorded, tip, fault, signatures, since: 0 }
    }

    #[test]
    fn says_how_much_was_pruned() {
        let valid = validation(3, None);
        for (unrecorded, words) in [
            (Some(0), "each with a record"),
            (Some(2), "2 of them WITHOUT A RECORD"),
            (None, "it is not known"),
        ] {
            let pruned = Validation { pruned: 5, unrecorded, ..valid.clone() };
            let text = in_words(&pruned);
            assert!(
                text.starts_with("valid: ") && text.contains("pruned: 5") && text.contains(words),
                "{text}"
            );
        }
        assert!(!in_words(&valid).contains("pruned"));
    }

    #[test]
    fn says_that_signatures_were_not_checked() {
        for fault in [None, Some((Some(1), "bad"))] {
            let checked = validation(3, fault);
            assert!(!in_words(&checked).contains("NOT CHECKED"));
            let verdict = |validation: &Validation| {
                let is_valid = validation.fault.is_none();
                serde_json::to_value(Verdict::of(validation, is_valid, Vec::new())).unwrap()
            };
            assert_eq!(verdict(&checked)["signatures"], "checked");
            let skipped = Validation { signatures: Signatures::Skipped, ..checked };
            assert!(in_words(&skipped).contains("valid but for signatures, which were NOT CHECKED"));
            assert_eq!(verdict(&skipped)["signatures"], "skipped");
        }
    }

    #[test]
    fn names_block_transaction_field_and_reason() {
        assert_eq!(
            words(3, Some((Some(1), "transaction 1: it does not verify"))),
            "invalid: block 3, transaction 1, signature: it does not verify\nblocks 0 to 2 are valid\n"
        );
        assert_eq!(words(1, Some((None, "bad"))), "invalid: block 1, signature: bad\nblock 0 is valid\n");
        assert_eq!(words(0, Some((None, "bad"))), "invalid: block 0, signature: bad\n");
        assert_eq!(words(5, None), format!("valid: 5 blocks, 9 transactions, tip {}\n", "ab".repeat(32)));
    }
}
