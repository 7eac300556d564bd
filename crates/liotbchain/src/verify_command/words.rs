//! What a file proves and what it does not, in plain words.

use std::fmt::Write;

use liotbchain_core::{
    Checkpoint, Fork, KeyId,
    fork::Verdict,
    receipt::{BlockSummary, ProvenAnchor, ProvenKeyHistory, ProvenReceipt, Receipt},
};

use super::{
    Known,
    file::{Finding, Proven, ProvenExport},
};
use crate::utc::Utc;

/// Characters of a payload that are shown.
const PAYLOAD_SHOWN: usize = 400;

/// Describes one file.
pub fn describe(finding: &Finding, known: &Known) -> String {
    let name = &finding.file;
    let mut text = String::new();
    let kind = finding.kind.map(|kind| format!(" ({})", kind.replace('_', " "))).unwrap_or_default();
    if let Some(reason) = &finding.refused {
        let _ = writeln!(text, "{name}{kind}: REFUSED: {}", printable(reason));
        return text;
    }
    let _ = writeln!(text, "{name}{kind}: holds");
    let mut lines = Lines(&mut text);
    match &finding.proven {
        Some(Proven::Receipt(proven, receipt)) => {
            describe_receipt(&mut lines, proven, receipt, finding, known)
        }
        Some(Proven::Block(proven, _)) => {
            describe_block(&mut lines, "block", &proven.block);
            describe_anchor(&mut lines, &proven.anchor, finding, known);
        }
        Some(Proven::KeyHistory(proven, _)) => describe_history(&mut lines, proven, finding, known),
        Some(Proven::Consistency(proven)) => {
            lines.add("proven", &format!(
                "the history of {} blocks begins with that of {} blocks: nothing was changed or taken away in between",
                proven.to.size, proven.from.size
            ));
            if proven.has_block
                && let Some(block) = &proven.from.block
            {
                describe_block(&mut lines, "with", block);
            }
            lines.add(
                "signatures",
                "not looked at: this file shows that two histories go together, not who vouches for them",
            );
            lines.add(
                "not proven",
                "that these are the only histories of this chain: compare both with checkpoints you trust",
            );
        }
        Some(Proven::Checkpoint(checkpoint, _)) => {
            lines.add(
                "says",
                &format!(
                    "{} has {} blocks, root {}",
                    printable(&checkpoint.origin),
                    checkpoint.size,
                    checkpoint.root
                ),
            );
            describe_signatures(&mut lines, finding, known, true);
        }
        Some(Proven::Export(proven)) => describe_export(&mut lines, proven),
        Some(Proven::Fork(fork)) => describe_fork(&mut lines, fork, finding),
        None => {}
    }
    if let Some(genesis) = finding.genesis {
        let asked =
            if known.genesis.is_some() { ", as you asked for" } else { ": compare it with what you know" };
        lines.add("chain", &format!("{genesis}{asked}"));
    }
    text
}

/// Lines with a heading each.
struct Lines<'a>(&'a mut String);

impl Lines<'_> {
    fn add(&mut self, heading: &str, text: &str) {
        let _ = writeln!(self.0, "  {heading:<11} {text}");
    }
}

fn describe_receipt(
    lines: &mut Lines<'_>,
    proven: &ProvenReceipt,
    receipt: &Receipt,
    finding: &Finding,
    known: &Known,
) {
    let statement = receipt.block.entries.first().and_then(|entry| entry.transaction.statement());
    match statement {
        Some(statement) => lines.add("says", &shorten(&statement.payload)),
        None => {
            lines.add("says", "nothing any more: payload and signature were pruned, only their hash is left")
        }
    }
    match (&receipt.public_key, statement) {
        (Some(key), Some(_)) => {
            lines.add("signed by", &format!("{} ({}), signature good", proven.key_id, key.algorithm()));
        }
        (_, None) => {
            lines.add("signed by", &format!("{}, as the block says: the signature is gone", proven.key_id))
        }
        (None, Some(_)) => lines.add("signed by", "nobody"),
    }
    lines.add("number", &format!("{} of its key, as whoever sealed it says", proven.sequence));
    describe_block(lines, "in block", &proven.block);
    describe_anchor(lines, &proven.anchor, finding, known);
    if proven.key_id != KeyId::ZERO {
        lines.add("", "whose key that is, and that what was said is true");
    }
}

fn describe_history(lines: &mut Lines<'_>, proven: &ProvenKeyHistory, finding: &Finding, known: &Known) {
    let count = proven.sequences.end - proven.sequences.start;
    lines.add("of key", &proven.key_id.to_string());
    let numbers = match count {
        0 => "none".to_owned(),
        1 => format!("1, number {}", proven.sequences.start),
        _ => format!("{count}, numbers {} to {}", proven.sequences.start, proven.sequences.end - 1),
    };
    lines.add("shows", &format!("{numbers}; signatures good"));
    if proven.pruned > 0 {
        lines.add("pruned", &format!("{} of them, whose signatures are gone", proven.pruned));
    }
    match proven.complete_to {
        Some(height) => lines.add("complete", &format!("no sealed one is missing up to block {height}")),
        None if count > 0 => lines.add("complete", "no sealed one is missing between those that are shown"),
        None => lines.add("complete", "not shown: no transaction of the key is there to prove it"),
    }
    describe_anchor(lines, &proven.anchor, finding, known);
    lines.add("", "that no two were given one number: only a witness that validated every block saw that");
    lines.add("", "anything of readings later than that, or never sealed");
}

fn describe_block(lines: &mut Lines<'_>, heading: &str, block: &BlockSummary) {
    let BlockSummary { height, hash, timestamp_ms, .. } = block;
    lines.add(heading, &format!("{height} ({hash})"));
    lines.add("made", &format!("{}, as its maker says", Utc(*timestamp_ms)));
}

fn describe_anchor(lines: &mut Lines<'_>, anchor: &ProvenAnchor, finding: &Finding, known: &Known) {
    let root = format!("the history of {} blocks, root {}", anchor.size, anchor.root);
    lines.add("ends in", &root);
    // Beside a checkpoint a header says nothing more, and nobody vouches for the rest of what it says.
    if let Some(block) = anchor.block.as_ref().filter(|_| anchor.checkpoint.is_none()) {
        lines.add("", &format!("to which the header of block {} commits ({})", block.height, block.hash));
    }
    describe_signatures(lines, finding, known, anchor.checkpoint.is_some());
    if known.checkpoint.is_some() {
        lines.add("", "which is the history of your checkpoint");
    }
    if finding.cosigned_by.is_empty() {
        lines.add("not proven", "that this history was shown to others too: no witness vouches for it");
    } else {
        lines.add("not proven", "when it was said: only that it was on the chain at the times above");
    }
}

fn describe_signatures(lines: &mut Lines<'_>, finding: &Finding, known: &Known, has_checkpoint: bool) {
    if !has_checkpoint {
        return;
    }
    if known.policy.is_none() {
        lines.add("signatures", "not looked at: --policy FILE names the keys to ask for");
        return;
    }
    if finding.signed_by_log {
        lines.add("signed by", "the chain's operator, whom the policy names");
    }
    for witness in &finding.cosigned_by {
        let time = Utc(witness.time.saturating_mul(1000));
        lines.add(
            "witnessed",
            &format!("by {} at {time}: it stood there no later than that", printable(&witness.name)),
        );
    }
}

fn describe_export(lines: &mut Lines<'_>, proven: &ProvenExport) {
    let ProvenExport { tip, height, transactions, pruned, .. } = proven;
    lines.add("proven", &format!("every rule from block 0 to {height}, {transactions} transactions"));
    if *pruned > 0 {
        lines.add("pruned", &format!("{pruned} transactions, whose signatures are gone"));
    }
    lines.add("tip", &tip.to_string());
    lines.add(
        "not proven",
        "that this is all, or the only history: compare the tip with a checkpoint you trust",
    );
}

fn describe_fork(lines: &mut Lines<'_>, fork: &Fork, finding: &Finding) {
    for (heading, note) in [("first", &fork.first), ("second", &fork.second)] {
        if let Ok(Checkpoint { origin, size, root, .. }) = Checkpoint::of(note) {
            lines.add(heading, &format!("{} of {size} blocks, root {root}", printable(&origin)));
        }
    }
    match finding.fork {
        Some(Verdict::Proven { size, .. }) => {
            lines.add("proven", &format!("the log signed two histories of {size} blocks: whoever has its key showed different people different chains"));
        }
        Some(Verdict::Unproven { .. }) => {
            lines.add("not proven", "a fork: the log signed both, and they may be of one history; the proof that was given does not show it");
            lines.add("", "ask the log for /v1/proofs/consistency from one size to the other");
        }
        None => lines.add("not looked at", "who signed: --policy FILE with the log's key tells"),
    }
}

/// Returns a text as it may stand on a terminal: without what moves the cursor, hides characters or turns their order.
pub fn printable(text: &str) -> String {
    let is_hidden = |it: char| {
        let marks = ['\u{61c}', '\u{feff}'];
        let ranges = ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}'];
        it.is_control() || marks.contains(&it) || ranges.iter().any(|range| range.contains(&it))
    };
    text.chars().flat_map(|it| if is_hidden(it) { it.escape_unicode().collect() } else { vec![it] }).collect()
}

fn shorten(payload: &str) -> String {
    let shown: String = payload.chars().take(PAYLOAD_SHOWN).collect();
    let more =
        if shown.len() < payload.len() { format!("… ({} bytes)", payload.len()) } else { String::new() };
    printable(&shown) + &more
}
