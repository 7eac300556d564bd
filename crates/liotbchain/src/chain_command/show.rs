//! `liotbchain chain show`: the chain in short, or block by block.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::transaction::Content;
use liotbchain_core::{
    BlockHash, Branch, ContentHash, Difficulty, Height, KeyId, Root, TimestampMs, TransactionId,
};
use liotbchain_store::{Store, StoredBlock};
use serde::Serialize;

use crate::Failure;
use crate::opening::{no_chain, open_existing_store};
use crate::output::{print, print_json, say};
use crate::settings::Settings;
use crate::utc::Utc;

/// Blocks that are shown below the chain in short.
const LAST_BLOCKS: u32 = 10;
/// Blocks and bytes of payload that one read takes at most.
const PAGE_BLOCKS: u32 = 512;
const PAGE_BYTES: usize = 1 << 20;
/// Hexadecimal digits of a hash that a terminal is shown.
const HASH_DIGITS: usize = 16;

/// Shows the chain: in short with its last blocks, or the blocks `from` a height, or the last `limit` blocks.
///
/// # Errors
///
/// Where there is no chain, or it cannot be read.
pub async fn show(
    settings: &Settings,
    from: Option<Height>,
    limit: Option<u32>,
    json: bool,
) -> Result<(), Failure> {
    let store = open_existing_store(settings).await?;
    let shown = show_store(store.as_ref(), settings, from, limit, json).await;
    store.close().await;
    shown
}

async fn show_store(
    store: &dyn Store,
    settings: &Settings,
    from: Option<Height>,
    limit: Option<u32>,
    json: bool,
) -> Result<(), Failure> {
    let branch = store.branch().await?.ok_or_else(|| no_chain(settings))?;
    if let Some(notice) = store.notice() {
        say(notice);
    }
    let height = branch.height();
    let last = |count: u32| height.saturating_add(1).saturating_sub(count);
    let (from, limit) = match (from, limit) {
        (None, None) => {
            let chain = Chain::of(&branch, store).await?;
            if json {
                return print_json(&chain);
            }
            print(&chain.to_text())?;
            (last(LAST_BLOCKS), LAST_BLOCKS)
        }
        (None, Some(limit)) => (last(limit), limit),
        (Some(from), limit) => (from, limit.unwrap_or(u32::MAX)),
    };
    if from > height {
        return Err(Failure::failed(format!("there is no block {from}: the last one is block {height}")));
    }
    if json {
        print_objects(store, from, limit, height).await
    } else {
        print_table(store, from, limit, height).await
    }
}

/// The chain in short.
#[derive(Serialize)]
struct Chain {
    network: String,
    genesis: BlockHash,
    height: Height,
    tip: BlockHash,
    pending: u64,
    /// The least that the rules allow.
    difficulty: u8,
    unsigned: bool,
    timestamp_ms: TimestampMs,
    store: String,
}

impl Chain {
    async fn of(branch: &Branch, store: &dyn Store) -> Result<Self, Failure> {
        let rules = branch.rules();
        Ok(Self {
            network: rules.network.clone(),
            genesis: branch.genesis(),
            height: branch.height(),
            tip: branch.tip(),
            pending: store.pending_count(u64::from(u32::MAX)).await?,
            difficulty: rules.difficulty.digits(),
            unsigned: rules.unsigned,
            timestamp_ms: rules.timestamp_ms,
            store: store.location(),
        })
    }

    fn to_text(&self) -> String {
        let Self { network, genesis, height, tip, pending, difficulty, unsigned, timestamp_ms, store } = self;
        let signed = if *unsigned { "with or without signatures" } else { "signed transactions only" };
        format!(
            "chain       {network} {genesis}\n\
             rules       difficulty {difficulty} or higher, {signed}, since {}\n\
             store       {store}\n\
             height      {height}\n\
             tip         {tip}\n\
             pending     {pending}\n\n",
            Utc(*timestamp_ms)
        )
    }
}

async fn print_table(store: &dyn Store, from: Height, limit: u32, height: Height) -> Result<(), Failure> {
    let is_terminal = stdout().is_terminal();
    let width = height.to_string().len().max("height".len());
    if is_terminal {
        print(&format!(
            "{:>width$}  {:20}  {:>12}  {:>10}  hash\n",
            "height", "time", "transactions", "nonce"
        ))?;
    }
    for_each_page(store, from, limit, height, |page| {
        let lines = page.iter().map(|StoredBlock { hash, block, .. }| {
            let (header, transactions) = (&block.header, block.transactions.len());
            let (time, nonce) = (Utc(header.timestamp_ms).to_string(), header.nonce);
            let hash = if is_terminal { shorten(hash) } else { hash.to_string() };
            format!("{:>width$}  {time:20}  {transactions:>12}  {nonce:>10}  {hash}\n", header.height)
        });
        print(&lines.collect::<String>())
    })
    .await
}

/// Returns the digits of a hash that people compare.
pub fn shorten(hash: &BlockHash) -> String {
    let mut digits = hash.to_string();
    digits.truncate(HASH_DIGITS);
    digits.push('…');
    digits
}

async fn print_objects(store: &dyn Store, from: Height, limit: u32, height: Height) -> Result<(), Failure> {
    for_each_page(store, from, limit, height, |page| {
        let mut lines = String::new();
        for stored in page {
            let line =
                serde_json::to_string(&ShownBlock::of(stored)).expect("texts and numbers have a JSON form");
            writeln!(lines, "{line}").expect("a text can be written to");
        }
        print(&lines)
    })
    .await
}

/// Reads page by page, so that memory does not grow with the chain.
async fn for_each_page(
    store: &dyn Store,
    from: Height,
    limit: u32,
    height: Height,
    mut show: impl FnMut(&[StoredBlock]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let end = from.saturating_add(limit - 1).min(height);
    let mut next = from;
    while next <= end {
        let mut page =
            store.blocks(next, (end - next).saturating_add(1).min(PAGE_BLOCKS), PAGE_BYTES).await?;
        // Where blocks are missing, what comes after them is not what was asked for.
        page.retain(|stored| (next..=end).contains(&stored.block.header.height));
        let Some(last) = page.last() else { break };
        let Some(above) = last.block.header.height.checked_add(1) else { return show(&page) };
        show(&page)?;
        next = above;
    }
    Ok(())
}

/// A block as a program reads it.
#[derive(Serialize)]
struct ShownBlock<'a> {
    height: Height,
    hash: BlockHash,
    prev_block_hash: BlockHash,
    transactions_root: Root,
    history_root: Root,
    timestamp_ms: TimestampMs,
    bits: u32,
    /// Absent where the bits are of no difficulty.
    #[serde(skip_serializing_if = "Option::is_none")]
    difficulty: Option<u8>,
    nonce: u32,
    transactions: Vec<ShownTransaction<'a>>,
}

#[derive(Serialize)]
struct ShownTransaction<'a> {
    /// Absent where it was pruned, as are payload and signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<TransactionId>,
    key_id: KeyId,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_hash: Option<ContentHash>,
    /// There, and true, where it was pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pruned: Option<bool>,
}

impl<'a> ShownBlock<'a> {
    fn of(stored: &'a StoredBlock) -> Self {
        let header = &stored.block.header;
        let ids = stored.ids.iter().copied().chain(std::iter::repeat(None));
        let transactions = stored.block.transactions.iter().zip(ids).map(|(transaction, id)| {
            let (payload, signature, content_hash) = match &transaction.content {
                Content::Full(statement) => {
                    (Some(statement.payload.as_str()), Some(STANDARD.encode(&statement.signature)), None)
                }
                Content::Pruned { content_hash, .. } => (None, None, Some(*content_hash)),
            };
            let (key_id, sequence) = (transaction.key_id(), transaction.sequence);
            let pruned = content_hash.map(|_| true);
            ShownTransaction { id, key_id, sequence, payload, signature, content_hash, pruned }
        });
        Self {
            height: header.height,
            hash: stored.hash,
            prev_block_hash: header.prev_block_hash,
            transactions_root: header.transactions_root,
            history_root: header.history_root,
            timestamp_ms: header.timestamp_ms,
            bits: header.bits.0,
            difficulty: Difficulty::from_bits(header.bits).map(Difficulty::digits),
            nonce: header.nonce,
            transactions: transactions.collect(),
        }
    }
}
