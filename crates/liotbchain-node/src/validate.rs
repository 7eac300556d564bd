//! Validates what a store keeps, from the genesis block on, on all cores, and in memory that does not grow with the chain.
//!
//! Pages are read and examined at the same time: hashes, signatures, and what the rows say beside them. In their order
//! their blocks are then linked, which costs next to nothing, and their transactions counted by a [`Census`], which finds
//! ids and sequences that are wrong across blocks. Where the chain has more transactions than the census may keep, it is
//! read again, for these two rules alone.
//!
//! What the store keeps to make proofs of is checked beside each page: the nodes of the history tree, and which blocks hold
//! transactions of a key.
//!
//! Of the store's index of ids it is checked that it has every id of the chain, and none twice, by one reading in its
//! order. What it says of an id, that is which row it leads to, is not looked at: that would be a random access for each
//! transaction, which costs more than all else.

mod index;
mod indexes;
mod keys;
mod origin;
mod pages;
mod since;
mod walk;

use std::{fmt::Display, sync::Arc};

use liotbchain_core::{
    BlockError, BlockHash, Branch, ChainFault, Height, KeyId, PruneRecord, Root, Rules, Transaction,
    TransactionId, Work,
    chain::{Census, CensusBudget, ChainError},
    check::{Examined, Signatures},
    rules,
};
use liotbchain_store::{Store, StoreError, StoredBlock};

use crate::prune::PrunedCount;
use index::Suspects;
use indexes::Beside;
use keys::Keys;
pub use origin::Origin;
use pages::{BadRow, PageError, Pages};
use walk::{Listed, Walk};

/// The result of a validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    /// Blocks found valid, from the genesis block on.
    pub valid_blocks: u64,
    /// Transactions in them, that of the genesis block with them.
    pub transactions: u64,
    /// How many of them were pruned: their roots were checked, their signatures and repetitions cannot be.
    pub pruned: u64,
    /// How many of these no [`PruneRecord`] further up the valid blocks speaks of; none where there are too many gaps to
    /// remember.
    pub unrecorded: Option<u64>,
    /// Hash of the last valid block; none where the first one is bad already.
    pub tip: Option<BlockHash>,
    /// The first fault.
    pub fault: Option<Fault>,
    /// Whether signatures were verified.
    pub signatures: Signatures,
    /// The blocks below this height were not looked at, but that they are those of a root; 0 where all were.
    pub since: u64,
}

/// A history whose blocks need not be validated again: those that a checkpoint commits to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Blocks in it, at least 1.
    pub size: u64,
    /// Root over them, if it is known.
    pub root: Option<Root>,
}

impl Validation {
    /// Returns the validation of no block.
    fn none(signatures: Signatures) -> Self {
        let (valid_blocks, transactions, pruned) = (0, 0, 0);
        Self {
            valid_blocks,
            transactions,
            pruned,
            unrecorded: Some(0),
            tip: None,
            fault: None,
            signatures,
            since: 0,
        }
    }
}

/// How much is validated, and in how much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidateOptions {
    /// Whether signatures are verified, which is most of the work.
    pub signatures: Signatures,
    /// What the search for repeated ids and false sequences keeps at a time.
    pub budget: CensusBudget,
    /// What need not be validated again.
    pub since: Option<Since>,
}

impl Default for ValidateOptions {
    /// All of it, 5,200,000 transactions and 57,000 keys at a time, so that the whole process keeps within 64 MiB.
    fn default() -> Self {
        let budget = CensusBudget { ids: 5_200_000, keys: 57_000 };
        Self { signatures: Signatures::Checked, budget, since: None }
    }
}

/// The first fault of a stored chain, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Height of the bad block.
    pub height: Height,
    /// Place of the bad transaction in it, where the fault is one transaction's.
    pub position: Option<usize>,
    /// The field that is wrong.
    pub field: String,
    /// What is wrong with it: got and expected.
    pub reason: String,
    /// Whose transaction it is in, where it is in one.
    pub origin: Option<Box<Origin>>,
}

impl From<ChainFault> for Fault {
    fn from(ChainFault { height, error }: ChainFault) -> Self {
        let (position, field) = (error.position(), error.field().to_owned());
        let reason = match &error {
            ChainError::Genesis(error) => error.to_string(),
            ChainError::Block(error) => error.to_string(),
        };
        Self { height, position, field, reason, origin: None }
    }
}

impl From<BadRow> for Fault {
    fn from(BadRow { height, field, reason }: BadRow) -> Self {
        Self { height, position: None, field: field.to_owned(), reason, origin: None }
    }
}

/// Validates the best chain of a store: every rule of the chain, and that what the rows say beside the blocks agrees
/// with them. `progress` is told the number of blocks done and the height of the last block known.
///
/// Dropping the future cancels the validation. What is under way then ends with its page.
///
/// # Errors
///
/// [`StoreError`] where the store could not be read; what is read and wrong is a [`Fault`].
pub async fn validate(
    store: &Arc<dyn Store>,
    progress: impl FnMut(u64, Height),
) -> Result<Validation, StoreError> {
    validate_with(store, ValidateOptions::default(), progress).await
}

/// Validates as [`validate`] does, but for what the options say.
///
/// # Errors
///
/// [`StoreError`] where the store could not be read; what is read and wrong is a [`Fault`].
pub async fn validate_with(
    store: &Arc<dyn Store>,
    options: ValidateOptions,
    mut progress: impl FnMut(u64, Height),
) -> Result<Validation, StoreError> {
    let (mut validation, chain) = link_all(store, options, &mut progress).await?;
    let Chain { branch, mut census, wrong_beside, .. } = chain;
    loop {
        let (mut counted, next) = blocking(move || census.finish()).await?;
        if options.since.is_some() && validation.fault.is_none() {
            let counts = std::mem::take(&mut counted.next_sequences);
            validation.fault = since::check_counts(store.as_ref(), &validation, counts).await?;
        }
        let suspects = Suspects::find(store, counted).await?;
        if !suspects.is_empty()
            && let Some(ended) = suspects.look(store, &validation).await?
        {
            validation = ended;
        }
        let Some(next) = next else { break };
        census = next;
        if let Some(ended) = count_again(store, &validation, &mut census).await? {
            validation = ended;
        }
    }
    if validation.fault.is_none() {
        validation.fault = check_tip(store.as_ref(), branch.as_ref()).await?;
    }
    // What is kept beside the chain can be made anew of it, so a fault of the chain itself says more.
    if validation.fault.is_none() {
        validation.fault = wrong_beside;
    }
    if let Some(fault) = &mut validation.fault {
        fault.origin = Origin::of(store.as_ref(), fault).await?.map(Box::new);
    }
    Ok(validation)
}

/// Reads the chain the first time: checks all but what only whole census passes show.
async fn link_all(
    store: &Arc<dyn Store>,
    options: ValidateOptions,
    progress: &mut impl FnMut(u64, Height),
) -> Result<(Validation, Chain), StoreError> {
    let signatures = options.signatures;
    let census = match options.since {
        None => Census::new(options.budget),
        Some(_) => Census::from_anywhere(options.budget),
    };
    let since = options.since.map_or(0, |since| since.size);
    let mut chain = Chain {
        branch: None,
        census,
        pruned: PrunedCount::default(),
        validation: Validation { since, ..Validation::none(signatures) },
        wrong_beside: None,
    };
    // A tip that contradicts itself is found again at the end.
    let mut known_height = store.branch().await.ok().flatten().map_or(0, |branch| branch.height());
    let genesis = match store.blocks(0, 1, 0).await {
        Err(StoreError::Corrupt(reason)) => {
            chain.validation.fault = Some(BadRow { height: 0, field: "row", reason }.into());
            return Ok(chain.into_parts());
        }
        page => page?.pop(),
    };
    let Some(genesis) = genesis else { return Ok(chain.into_parts()) };
    let rules = match chain.begin(genesis) {
        Ok(rules) => Arc::new(rules),
        Err(fault) => {
            chain.validation.fault = Some(fault);
            return Ok(chain.into_parts());
        }
    };
    if let Some(since) = options.since
        && let Err(fault) = chain.skip(store.as_ref(), since).await?
    {
        chain.validation.fault = Some(fault);
        return Ok(chain.into_parts());
    }
    let first = since.max(1);
    let (keys, beside) = (Arc::new(Keys::new(store)), Arc::clone(store));
    let mut pages = Pages::new(store, first..u64::MAX, move |page| {
        let (rules, keys, store) = (Arc::clone(&rules), Arc::clone(&keys), Arc::clone(&beside));
        async move {
            let keys = keys.of(&page).await.map_err(PageError::Keys)?;
            let beside = Beside::of(store.as_ref(), &page).await.map_err(PageError::Blocks)?;
            let examine = move || {
                let key = |key_id: &KeyId| keys.get(key_id).cloned();
                let looked = |(stored, beside): (&StoredBlock, Beside)| {
                    Looked::new(stored, Examined::new(&stored.block, &rules, &key, signatures), beside)
                };
                page.iter().zip(beside).map(looked).collect::<Vec<_>>()
            };
            blocking(examine).await.map_err(PageError::Blocks)
        }
    });
    while let Some(page) = pages.next().await? {
        let linked = match page {
            Ok(page) => page.iter().try_for_each(|looked| chain.link(looked)),
            Err(bad_row) => Err(bad_row.into()),
        };
        chain.validation.fault = linked.err();
        let done = chain.validation.valid_blocks;
        known_height = known_height.max((done as Height).saturating_sub(1));
        progress(done, known_height);
        if chain.validation.fault.is_some() {
            break;
        }
    }
    Ok(chain.into_parts())
}

/// Reads the chain again for what the census left over.
async fn count_again(
    store: &Arc<dyn Store>,
    valid: &Validation,
    census: &mut Census,
) -> Result<Option<Validation>, StoreError> {
    let mut walk = Walk::new(store, valid);
    while let Some(page) = walk.next().await? {
        let page = match page {
            Ok(page) => page,
            Err(ended) => return Ok(Some(*ended)),
        };
        for block in page {
            if let Err(error) = count(census, &block) {
                return Ok(Some(walk.end(ChainFault { height: block.height, error: error.into() })));
            }
            walk.pass(&block);
        }
    }
    Ok(None)
}

fn count(census: &mut Census, block: &Listed) -> Result<(), BlockError> {
    for (position, transaction) in block.transactions.iter().enumerate() {
        let (id, got) = (transaction.id.as_ref(), transaction.sequence);
        let counted = census.count(id, &transaction.key_id, got);
        counted.map_err(|expected| BlockError::Sequence { position, got, expected })?;
    }
    Ok(())
}

/// Runs what costs time on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let failed = |panic| StoreError::Corrupt(format!("validation failed: {panic}"));
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

/// The valid part of the chain, as it grows.
struct Chain {
    /// None before the genesis block.
    branch: Option<Branch>,
    census: Census,
    pruned: PrunedCount,
    validation: Validation,
    /// The first fault in what is kept beside the blocks.
    wrong_beside: Option<Fault>,
}

impl Chain {
    fn into_parts(self) -> (Validation, Self) {
        (self.validation.clone(), self)
    }

    fn begin(&mut self, stored: StoredBlock) -> Result<Rules, Fault> {
        let (genesis, rules) = rules::check_genesis(stored.block.clone())
            .map_err(|error| ChainFault { height: 0, error: error.into() })?;
        check_row(0, "hash", &stored.hash, &genesis.hash())?;
        check_row(0, "total_work", &stored.total_work, &Work::ZERO)?;
        wrong_id(0, &stored.ids, genesis.ids()).map_or(Ok(()), Err)?;
        self.branch = Some(Branch::new(&genesis, rules.clone()));
        self.pass(&Listed::from(&stored))?;
        Ok(rules)
    }

    fn link(&mut self, looked: &Looked) -> Result<(), Fault> {
        let Looked { examined, total_work, wrong_id, listed, beside, records } = looked;
        let Some(branch) = &mut self.branch else { return Ok(()) };
        let height = branch.next_height();
        let completed = branch.link(examined).map_err(|error| ChainFault { height, error: error.into() })?;
        let work = branch.work();
        check_row(height, "hash", &listed.hash, &examined.hash())?;
        check_row(height, "total_work", total_work, &work)?;
        wrong_id.clone().map_or(Ok(()), Err)?;
        if self.wrong_beside.is_none() {
            self.wrong_beside = beside.check(height, &completed);
        }
        self.pass(listed)?;
        for transaction in listed.transactions.iter().filter(|it| it.id.is_none()) {
            self.pruned.add(transaction.key_id, transaction.sequence);
        }
        records.iter().for_each(|record| self.pruned.meet(record));
        (self.validation.pruned, self.validation.unrecorded) = self.pruned.counts();
        Ok(())
    }

    /// Counts a block that is valid by itself.
    fn pass(&mut self, block: &Listed) -> Result<(), Fault> {
        count(&mut self.census, block)
            .map_err(|error| ChainFault { height: block.height, error: error.into() })?;
        self.validation.valid_blocks += 1;
        self.validation.transactions += block.transactions.len() as u64;
        self.validation.tip = Some(block.hash);
        Ok(())
    }
}

/// A block that was looked at alone.
struct Looked {
    examined: Examined,
    total_work: Work,
    wrong_id: Option<Fault>,
    listed: Listed,
    beside: Beside,
    /// What its signed transactions say of prunings.
    records: Vec<PruneRecord>,
}

impl Looked {
    fn new(stored: &StoredBlock, examined: Examined, beside: Beside) -> Self {
        let wrong_id = wrong_id(examined.height(), &stored.ids, examined.ids());
        let signed = stored.block.transactions.iter().filter_map(Transaction::statement);
        let signed = signed.filter(|statement| !statement.is_unsigned());
        let records = signed.filter_map(|statement| PruneRecord::from_payload(&statement.payload)).collect();
        Self { examined, total_work: stored.total_work, wrong_id, listed: stored.into(), beside, records }
    }
}

fn check_row<T: PartialEq + Display>(
    height: Height,
    field: &str,
    got: &T,
    expected: &T,
) -> Result<(), Fault> {
    if got == expected {
        return Ok(());
    }
    let reason = format!("the stored {field} is {got}: expected {expected}");
    Err(Fault { height, position: None, field: field.to_owned(), reason, origin: None })
}

fn wrong_id(
    height: Height,
    got: &[Option<TransactionId>],
    expected: &[Option<TransactionId>],
) -> Option<Fault> {
    let wrong = |(got, expected): (&Option<TransactionId>, &Option<TransactionId>)| matches!((got, expected), (Some(got), Some(expected)) if got != expected);
    let position = got.iter().zip(expected).position(wrong)?;
    let (got, expected) = (got[position]?, expected[position]?);
    let fault = check_row(height, "id", &got, &expected).err()?;
    Some(Fault { position: Some(position), ..fault })
}

/// The tip as the store knows it must be the last block validated, unless the chain grew or moved meanwhile.
async fn check_tip(store: &dyn Store, validated: Option<&Branch>) -> Result<Option<Fault>, StoreError> {
    let fault = |height, field: &str, reason| {
        Some(Fault { height, position: None, field: field.to_owned(), reason, origin: None })
    };
    let Some(validated) = validated else {
        return Ok(fault(0, "height", "the store holds no block at height 0".to_owned()));
    };
    let stored = match store.branch().await {
        Err(StoreError::Corrupt(reason)) => return Ok(fault(validated.height(), "tip", reason)),
        stored => stored?,
    };
    let Some(stored) = stored else { return Ok(fault(0, "height", "the chain is gone".to_owned())) };
    if stored.tip() == validated.tip() && stored != *validated {
        let reason = "what is kept of the history tree does not agree with the blocks".to_owned();
        return Ok(fault(validated.height(), "history_root", reason));
    }
    if stored.height() > validated.height() {
        let gap = store.blocks(validated.next_height(), 1, 1).await?;
        if gap.is_empty() {
            let reason = format!("the block is missing, and the chain goes on to height {}", stored.height());
            return Ok(fault(validated.next_height(), "height", reason));
        }
    }
    Ok(None)
}
