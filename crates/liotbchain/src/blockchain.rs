//! One chain, opened for use in a program.

use std::{
    io::{BufReader, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use liotbchain_core::{
    Block, Difficulty, Height, PublicKey, Rules, Statement, VerifiedStatement,
    transaction::{StatementError, UNSIGNED_SALT_SIZE},
};
use liotbchain_node::{
    Acknowledgement, Ledger, LedgerConfig, LedgerError, SealedBlock, TransferError, TransferProgress,
    Transferred, Validation, transfer, validate,
};
use liotbchain_sender::signer::SigningKey;
use liotbchain_store::{NewTransaction, OpenOptions, StoreError};

/// How to open a chain.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where a relative SQLite file lies.
    pub data_dir: PathBuf,
    /// Name of a chain that is created.
    pub network: String,
    /// Whether a chain that is created takes transactions without a signature.
    pub unsigned: bool,
    /// Leading zero hexadecimal digits of the blocks to come; the least of a chain that is created.
    pub difficulty: Difficulty,
    /// Transactions in a full block, at least 1. A block is mined by itself as soon as so many wait.
    pub transactions_per_block: u32,
    /// Attempts before mining a block is given up for now.
    pub nonce_limit: u64,
    /// Longest time that an answer waits for its block.
    pub seal_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let LedgerConfig { network, unsigned, difficulty, transactions_per_block, nonce_limit, .. } =
            LedgerConfig::default();
        Self {
            data_dir: PathBuf::from("."),
            network,
            unsigned,
            difficulty,
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
    /// A payload is not JSON.
    #[error("the payload is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// An export or an import.
    #[error(transparent)]
    Transfer(#[from] TransferError),
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
        let config = LedgerConfig {
            network: options.network,
            unsigned: options.unsigned,
            difficulty: options.difficulty,
            transactions_per_block: options.transactions_per_block.max(1),
            nonce_limit: options.nonce_limit,
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
        check_json(payload)?;
        let mut salt = [0; UNSIGNED_SALT_SIZE];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| Error::Random)?;
        let statement = VerifiedStatement::unsigned(payload.to_owned(), salt)?;
        self.submit_one(NewTransaction { statement, public_key: None }).await
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
        check_json(payload)?;
        let statement = Statement { key_id: public_key.key_id(), payload: payload.to_owned(), signature };
        let statement = VerifiedStatement::verify(statement, public_key)?;
        self.submit_one(NewTransaction { statement, public_key: Some(public_key.clone()) }).await
    }

    async fn submit_one(&self, transaction: NewTransaction) -> Result<Acknowledgement, Error> {
        let submission = self.ledger.submit(vec![transaction], self.seal_wait).await?;
        Ok(submission.acknowledgements[0])
    }

    /// Mines what is pending, in a last block that need not be full, and returns the height of the chain.
    ///
    /// # Errors
    ///
    /// [`Error::MiningFailed`], or [`Error::Ledger`].
    pub async fn mine(&self) -> Result<Height, Error> {
        match self.ledger.mine_pending().await? {
            None => Ok(self.height()),
            Some(attempts) => Err(Error::MiningFailed { attempts }),
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

fn check_json(payload: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<serde::de::IgnoredAny>(payload).map(drop)
}
