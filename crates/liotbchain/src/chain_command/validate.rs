//! `liotbchain chain validate`: every rule of every block, and what the store's rows say beside them.

use std::sync::Arc;

use liotbchain_core::{BlockHash, Height, check::Signatures};
use liotbchain_node::{Fault, ValidateOptions, Validation, validate_with};
use liotbchain_store::{Store, StoreError};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::opening::{no_chain, open_existing_store};
use crate::output::{print, print_json, warn};
use crate::progress::{Progress, Unit};
use crate::settings::Settings;

/// Validates the chain and prints the verdict.
///
/// # Errors
///
/// With the exit code of an invalid chain, where it is one; the verdict has said why. Others where there is no chain,
/// or it cannot be read.
pub async fn validate(settings: &Settings, skip_signatures: bool, json: bool) -> Result<(), Failure> {
    let store = open_existing_store(settings).await?;
    let signatures = if skip_signatures { Signatures::Skipped } else { Signatures::Checked };
    let validated = validate_store(&store, settings, signatures).await;
    store.close().await;
    let validation = validated?;
    if skip_signatures {
        warn("NO SIGNATURE WAS CHECKED", Some("without --skip-signatures, all are"));
    }
    let printed = if json { print_json(&Verdict::of(&validation)) } else { print(&in_words(&validation)) };
    // Who has stopped reading still gets the exit code.
    if validation.fault.is_some() { Err(Failure::told(Exit::ChainInvalid)) } else { printed }
}

async fn validate_store(
    store: &Arc<dyn Store>,
    settings: &Settings,
    signatures: Signatures,
) -> Result<Validation, Failure> {
    match store.branch().await {
        Ok(None) => return Err(no_chain(settings)),
        // The validation finds the block that contradicts itself.
        Ok(Some(_)) | Err(StoreError::Corrupt(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut progress = Progress::new("validating", Unit::Blocks);
    let options = ValidateOptions { signatures, ..ValidateOptions::default() };
    Ok(validate_with(store, options, |done, known| progress.set(done, u64::from(known) + 1)).await?)
}

fn in_words(validation: &Validation) -> String {
    let Validation { valid_blocks, transactions, tip, fault, signatures, .. } = validation;
    let but = match signatures {
        Signatures::Checked => "",
        Signatures::Skipped => " but for signatures, which were NOT CHECKED",
    };
    let Some(Fault { height, position, field, reason }) = fault else {
        let tip = tip.map(|tip| format!(", tip {tip}")).unwrap_or_default();
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
        1 => format!("block 0 is valid{but}\n"),
        count => format!("blocks 0 to {} are valid{but}\n", count - 1),
    };
    format!("invalid: {place}, {field}: {reason}\n{valid}")
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
        });
        let (tip, signatures) = (Some(BlockHash([0xab; 32])), Signatures::Checked);
        let (pruned, unrecorded) = (0, Some(0));
        Validation { valid_blocks, transactions: 9, pruned, unrecorded, tip, fault, signatures }
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
            let verdict = |validation: &Validation| serde_json::to_value(Verdict::of(validation)).unwrap();
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
