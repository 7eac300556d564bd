//! One chain, opened for use in a program.

use std::{
    io::{BufReader, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use liotbchain_core::{
    Block, Difficulty, Height, KeyId, PublicKey, Rules, Statement, TransactionId, VerifiedStatement,
    receipt::{Consistency, KeyHistory, Receipt},
    transaction::{StatementError, UNSIGNED_SALT_SIZE},
};
use liotbchain_http::json_keys::{AmbiguousJson, check_unambiguous};
use liotbchain_node::{
    Acknowledgement, Ledger, LedgerConfig, LedgerError, ProveError, Prover, SealedBlock, Submission,
    TransferError, TransferProgress, Transferred, Validation, Vouchers, transfer, validate,
};
use liotbchain_sender::signer::SigningKey;
use liotbchain_store::{NewTransaction, OpenOptions, StoreError};

/// More than the 2.5 seconds that the right to seal outlives its holder, and the quarter of a second between two looks.
const TAKEOVER: Duration = Duration::from_secs(5);
const TAKEOVER_POLL: Duration = Duration::from_millis(20);

/// How to open a chain.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where a relative SQLite file lies.
    pub data_dir: PathBuf,
    /// Name of a chain that is created.
    pub network: String,
    /// Whether a chain that is created takes transactions without a signature.
    pub unsigned: bool,
    /// Leading zero hexadecimal digits of the blocks to come, and the least for ever of a chain that is created. With none,
    /// 2, or the chain's least where that is more.
    pub difficulty: Option<Difficulty>,
    /// Transactions in a full block, at least 1. A block is mined by itself as soon as so many wait.
    pub transactions_per_block: u32,
    /// Attempts before mining a block is given up for now.
    pub nonce_limit: u64,
    /// Longest time that an answer waits for its block.
    pub seal_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let LedgerConfig { network, unsigned, transactions_per_block, nonce_limit, .. } =
            LedgerConfig::default();
        Self {
            data_dir: PathBuf::from("."),
            network,
            unsigned,
            difficulty: None,
            transactions_per_block,
            nonce_limit,
            seal_wait: Duration::from_secs(5),
        }
    }
}

/// Why a chain did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger or its store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A payload or a signature breaks a rule.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A payload is not JSON, or not every reader of JSON sees the same in it.
    #[error("the payload: {0}")]
    NotJson(#[from] AmbiguousJson),
    /// An export or an import.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// There is no such proof.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// No block within `nonce_limit` attempts; the transactions stay pending.
    #[error("no block was found in {attempts} attempts; the transactions stay pending")]
    MiningFailed {
        /// Nonces tried.
        attempts: u64,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error.into())
    }
}

/// A chain that is open. Cheap to clone; all clones are one chain.
#[derive(Clone)]
pub struct Blockchain {
    ledger: Ledger,
    seal_wait: Duration,
}

impl Blockchain {
    /// Opens the chain at a `DATABASE_URL`, or creates it: `sqlite:FILE`, `postgres://…`, or `memory:`.
    ///
    /// # Errors
    ///
    /// [`Error::Ledger`] where the store cannot be used, or `difficulty` is below the chain's least.
    pub async fn open(database_url: &str, options: Options) -> Result<Self, Error> {
        let store = liotbchain_store::open(database_url, &options.data_dir, &OpenOptions::default()).await?;
        let difficulty = match options.difficulty {
            Some(difficulty) => difficulty,
            None => {
                let least = store.branch().await?.map(|branch| branch.rules().difficulty);
                LedgerConfig::default().difficulty.max(least.unwrap_or_default())
            }
        };
        let config = LedgerConfig {
            network: options.network,
            unsigned: options.unsigned,
            difficulty,
            transactions_per_block: options.transactions_per_block.max(1),
            nonce_limit: options.nonce_limit,
            holder: draw_holder()?,
            ..LedgerConfig::default()
        };
        Ok(Self { ledger: Ledger::open(store, config).await?, seal_wait: options.seal_wait })
    }

    /// Adds a JSON text without a signature, where the chain's rules allow it. The answer is durable.
    ///
    /// # Errors
    ///
    /// [`Error::NotJson`], [`Error::Statement`], or [`Error::Ledger`].
    pub async fn add(&self, payload: &str) -> Result<Acknowledgement, Error> {
        self.add_one(Self::unsigned(payload)?).await
    }

    /// Signs a JSON text and adds it. The answer is durable.
    ///
    /// # Errors
    ///
    /// [`Error::NotJson`], [`Error::Statement`], or [`Error::Ledger`].
    pub async fn add_signed(&self, payload: &str, key: &SigningKey) -> Result<Acknowledgement, Error> {
        self.add_statement(payload, key.sign(payload.as_bytes()), key.public_key()).await
    }

    /// Adds a JSON text that somebody else signed. The answer is durable.
    ///
    /// # Errors
    ///
    /// [`Error::NotJson`], [`Error::Statement`] where the signature is not good, or [`Error::Ledger`].
    pub async fn add_statement(
        &self,
        payload: &str,
        signature: Vec<u8>,
        public_key: &PublicKey,
    ) -> Result<Acknowledgement, Error> {
        self.add_one(Self::verified(payload, signature, public_key)?).await
    }

    async fn add_one(&self, transaction: NewTransaction) -> Result<Acknowledgement, Error> {
        Ok(self.add_all(vec![transaction]).await?.acknowledgements[0])
    }

    /// Adds transactions, all or none, in one commit. The answer is durable.
    ///
    /// # Errors
    ///
    /// [`Error::Ledger`].
    pub async fn add_all(&self, transactions: Vec<NewTransaction>) -> Result<Submission, Error> {
        Ok(self.ledger.submit(transactions, self.seal_wait).await?)
    }

    /// Makes a transaction of a JSON text that nobody signed.
    ///
    /// # Errors
    ///
    /// [`Error::NotJson`] or [`Error::Statement`].
    pub fn unsigned(payload: &str) -> Result<NewTransaction, Error> {
        check_unambiguous(payload)?;
        let statement = VerifiedStatement::unsigned(payload.to_owned(), random::<UNSIGNED_SALT_SIZE>()?)?;
        Ok(NewTransaction { statement, public_key: None })
    }

    /// Makes a transaction of a JSON text and its signature.
    ///
    /// # Errors
    ///
    /// [`Error::NotJson`], or [`Error::Statement`] where the signature is not good.
    pub fn verified(
        payload: &str,
        signature: Vec<u8>,
        public_key: &PublicKey,
    ) -> Result<NewTransaction, Error> {
        check_unambiguous(payload)?;
        let statement = Statement { key_id: public_key.key_id(), payload: payload.to_owned(), signature };
        let statement = VerifiedStatement::verify(statement, public_key)?;
        Ok(NewTransaction { statement, public_key: Some(public_key.clone()) })
    }

    /// Mines what is pending, in a last block that need not be full, and returns the height of the chain.
    ///
    /// The right to mine may be that of a program which ended without giving it up: this is waited for.
    ///
    /// # Errors
    ///
    /// [`Error::MiningFailed`], or [`Error::Ledger`]: [`LedgerError::SealedElsewhere`] where another program goes on to
    /// mine.
    pub async fn mine(&self) -> Result<Height, Error> {
        let waited = Instant::now();
        loop {
            match self.ledger.mine_pending().await {
                Ok(None) => return Ok(self.height()),
                Ok(Some(attempts)) => return Err(Error::MiningFailed { attempts }),
                Err(LedgerError::SealedElsewhere) if waited.elapsed() < TAKEOVER => {
                    tokio::time::sleep(TAKEOVER_POLL).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the height of the last block; 0 is the genesis block.
    pub fn height(&self) -> Height {
        self.ledger.status().height
    }

    /// Returns the network's rules, as the genesis block states them.
    pub fn rules(&self) -> &Rules {
        self.ledger.rules()
    }

    /// Returns up to `limit` blocks from a height upwards.
    ///
    /// # Errors
    ///
    /// [`Error::Ledger`].
    pub async fn blocks(&self, from: Height, limit: u32) -> Result<Vec<Block>, Error> {
        const BYTES: usize = 16 << 20;
        let stored = self.ledger.store().blocks(from, limit, BYTES).await?;
        Ok(stored.into_iter().map(|stored| stored.block).collect())
    }

    /// Returns a receiver of the blocks that are mined from now on.
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<SealedBlock> {
        self.ledger.subscribe()
    }

    /// Validates all that is stored, every rule of it.
    ///
    /// # Errors
    ///
    /// [`Error::Ledger`] where the store could not be read; what is wrong with the chain is in the [`Validation`].
    pub async fn validate(&self) -> Result<Validation, Error> {
        Ok(validate(self.ledger.store(), |_, _| {}).await?)
    }

    /// Writes the chain so that anybody can check it alone.
    ///
    /// # Errors
    ///
    /// [`Error::Transfer`].
    pub async fn export(
        &self,
        out: &mut (dyn Write + Send),
        progress: impl FnMut(TransferProgress),
    ) -> Result<Transferred, Error> {
        Ok(transfer::export(self.ledger.store(), out, progress).await?)
    }

    /// Proves that a transaction stands on the chain, to whoever gets the receipt: [`Receipt::verify`] checks it alone. It ends
    /// in the header of the last block, which nobody signed.
    ///
    /// # Errors
    ///
    /// [`Error::Prove`].
    pub async fn receipt(&self, id: TransactionId) -> Result<Receipt, Error> {
        Ok(self.prover().receipt(id).await?)
    }

    /// Proves which transactions of a key stand from one height to another, and that none is missing, as far as `limit`
    /// allows: the history's `to` says how far that is.
    ///
    /// # Errors
    ///
    /// [`Error::Prove`].
    pub async fn key_history(
        &self,
        key_id: KeyId,
        from: Height,
        to: Height,
        limit: u32,
    ) -> Result<KeyHistory, Error> {
        Ok(self.prover().key_history(key_id, from, to, limit).await?)
    }

    /// Proves that the history of the first `to` blocks begins with that of the first `from` ones.
    ///
    /// # Errors
    ///
    /// [`Error::Prove`].
    pub async fn consistency(&self, from: u64, to: u64) -> Result<Consistency, Error> {
        Ok(self.prover().consistency(from, to).await?)
    }

    fn prover(&self) -> Prover<'_> {
        Prover::new(self.ledger.store().as_ref(), self.ledger.genesis(), Vouchers::default())
    }

    /// Checks an export and writes it into the empty store at a `DATABASE_URL`.
    ///
    /// # Errors
    ///
    /// [`Error::Transfer`] names the first fault; the store is then still empty.
    pub async fn import(
        database_url: &str,
        data_dir: &Path,
        file: &Path,
        progress: impl FnMut(TransferProgress),
    ) -> Result<Transferred, Error> {
        let store = liotbchain_store::open(database_url, data_dir, &OpenOptions::default()).await?;
        let open = || std::fs::File::open(file).map(BufReader::new);
        let transferred = transfer::import(&store, "import", open, progress).await;
        store.close().await;
        Ok(transferred?)
    }

    /// Returns the ledger under it.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Stops mining and closes the store. What is pending stays pending.
    pub async fn close(&self) {
        self.ledger.shutdown().await;
    }
}

fn random<const SIZE: usize>() -> Result<[u8; SIZE], Error> {
    let mut bytes = [0; SIZE];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// Returns a name that no other program on the same store has: two of one name would take the right to seal from each
/// other all the time.
fn draw_holder() -> Result<String, Error> {
    Ok(format!("library-{:032x}", u128::from_be_bytes(random()?)))
}
