//! A chain.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use liotbchain::{
    BlockHash, Blockchain, Difficulty, Error, Height, KeyId, NewTransaction, Options, TransactionId,
    TransferProgress,
    core::{mine::ATTEMPTS_MAX, receipt::ProofFile},
    node::prove::HISTORY_MAX,
};
use pyo3::{
    exceptions::{PyIndexError, PyKeyError, PyOSError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyDict, PyList, PyString},
};

use crate::{
    block::{BlockIterator, SealedBlock},
    error::{BlockchainOperationError, raise},
    payload::{Item, check_all},
    report::{Acknowledgement, Transferred, Validation},
    runtime::{is_forked, runtime, wait, wait_and},
    transaction::KnownTransaction,
};

/// A chain that is open. Use `Chain.open`, and close it, or use it in a `with` block.
///
/// All that `add` returned for is on the disk. Threads may share a chain; their additions share commits.
#[pyclass(frozen, weakref, module = "liotbchain")]
pub struct Chain {
    open: RwLock<Option<Blockchain>>,
    /// Its number in [`OPEN`].
    number: u64,
}

/// All chains that this process has open, so that its end closes those that nobody did.
static OPEN: Mutex<BTreeMap<u64, Blockchain>> = Mutex::new(BTreeMap::new());

fn open_chains() -> MutexGuard<'static, BTreeMap<u64, Blockchain>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes all chains that are open.
#[pyfunction]
pub fn close_all(py: Python<'_>) -> PyResult<()> {
    if is_forked() {
        return Ok(());
    }
    let chains = std::mem::take(&mut *open_chains());
    wait(py, async {
        for chain in chains.into_values() {
            chain.close().await;
        }
    })
}

impl Chain {
    fn new(chain: Blockchain) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        open_chains().insert(number, chain.clone());
        Self { open: RwLock::new(Some(chain)), number }
    }

    fn chain(&self) -> PyResult<Blockchain> {
        // Says so in a process that was forked off.
        runtime()?;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| BlockchainOperationError::new_err("the chain is closed: open it again"))
    }

    fn add_all(&self, py: Python<'_>, items: Vec<Item>) -> PyResult<Vec<Acknowledgement>> {
        let chain = self.chain()?;
        let transactions: Vec<NewTransaction> = py.detach(|| check_all(items))?;
        let submission = wait(py, chain.add_all(transactions))?.map_err(raise)?;
        Ok(submission.acknowledgements.into_iter().map(Acknowledgement::from).collect())
    }
}

impl Drop for Chain {
    /// Closes a chain that nobody closed, without waiting for it.
    fn drop(&mut self) {
        let chain = self.open.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if is_forked() {
            // Its files and connections are the other process's.
            std::mem::forget(chain);
            return;
        }
        open_chains().remove(&self.number);
        if let Some(chain) = chain
            && let Ok(runtime) = runtime()
        {
            runtime.spawn(async move { chain.close().await });
        }
    }
}

#[pymethods]
impl Chain {
    /// Opens the chain of a database, or creates one: "sqlite:FILE", "postgres://…", a libpq text, or "memory:".
    ///
    /// A relative SQLite file lies in `data_dir`. `network`, `unsigned` (whether transactions without a signature are
    /// taken) and `difficulty` (then the least for ever) hold for a chain that is created. `seal_wait` is how many seconds
    /// an addition that fills a block waits for it; by then it is on the disk in any case.
    #[staticmethod]
    #[pyo3(signature = (
        url = "sqlite:liotbchain.db", *, data_dir = PathBuf::from("."), network = "liotbchain".to_owned(),
        unsigned = true, difficulty = None, transactions_per_block = 2, nonce_limit = 10_000_000, seal_wait = 300.0
    ))]
    #[expect(clippy::too_many_arguments, reason = "each has a name in Python")]
    fn open(
        py: Python<'_>,
        url: &str,
        data_dir: PathBuf,
        network: String,
        unsigned: bool,
        difficulty: Option<i64>,
        transactions_per_block: i64,
        nonce_limit: i64,
        seal_wait: f64,
    ) -> PyResult<Self> {
        let seal_wait = Duration::try_from_secs_f64(seal_wait)
            .map_err(|_| PyValueError::new_err("seal_wait: expected seconds, from 0 on"))?;
        let difficulty = match difficulty {
            Some(digits) => Some(in_range("difficulty", digits, 0, Difficulty::MAX.digits().into())?),
            None => None,
        };
        let per_block = in_range("transactions_per_block", transactions_per_block, 1, u32::MAX.into())?;
        let options = Options {
            data_dir,
            network,
            unsigned,
            difficulty: difficulty.and_then(|digits| Difficulty::new(digits).ok()),
            transactions_per_block: u32::try_from(per_block).unwrap_or(u32::MAX),
            nonce_limit: in_range("nonce_limit", nonce_limit, 1, ATTEMPTS_MAX)?,
            seal_wait,
        };
        let chain = wait(py, Blockchain::open(url, options))?.map_err(raise)?;
        Ok(Self::new(chain))
    }

    /// Adds a transaction and returns when it is on the disk: a JSON text (str) as it is, a `Signed` one, or anything else
    /// as `json.dumps` writes it. Where it fills a block, the block is mined before this returns.
    fn add(&self, transaction: &Bound<'_, PyAny>) -> PyResult<Acknowledgement> {
        let mut one = self.add_all(transaction.py(), vec![Item::take(transaction)?])?;
        Ok(one.remove(0))
    }

    /// Adds transactions, all or none, in one commit: much faster than one by one.
    fn add_many(&self, transactions: &Bound<'_, PyAny>) -> PyResult<Vec<Acknowledgement>> {
        if transactions.is_instance_of::<PyString>() || transactions.is_instance_of::<PyDict>() {
            return Err(PyTypeError::new_err(
                "add_many takes a list of transactions; add takes a single one",
            ));
        }
        let items = transactions.try_iter()?.map(|item| Item::take(&item?)).collect::<PyResult<Vec<_>>>()?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        self.add_all(transactions.py(), items)
    }

    /// Mines what is pending, in a last block that need not be full, and returns the chain's height.
    fn mine(&self, py: Python<'_>) -> PyResult<Height> {
        let chain = self.chain()?;
        wait(py, chain.mine())?.map_err(raise)
    }

    /// Height of the last block; 0 is the genesis block.
    #[getter]
    fn height(&self) -> PyResult<Height> {
        Ok(self.chain()?.height())
    }

    /// Hash of the last block, in hexadecimal.
    #[getter]
    fn tip(&self) -> PyResult<String> {
        Ok(self.chain()?.ledger().status().tip.to_string())
    }

    /// Hash of the genesis block, in hexadecimal: the chain's identity.
    #[getter]
    fn genesis(&self) -> PyResult<String> {
        Ok(self.chain()?.ledger().genesis().to_string())
    }

    /// How many transactions wait to be mined, as far as this program knows.
    #[getter]
    fn pending_count(&self) -> PyResult<u64> {
        Ok(self.chain()?.ledger().status().pending)
    }

    /// Where the chain is kept, without a password.
    #[getter]
    fn location(&self) -> PyResult<String> {
        Ok(self.chain()?.ledger().store().location())
    }

    /// What was found beside the chain and left untouched, such as tables of the Python original; None otherwise.
    #[getter]
    fn notice(&self) -> PyResult<Option<String>> {
        Ok(self.chain()?.ledger().store().notice())
    }

    /// What the genesis block says.
    #[getter]
    fn rules<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let chain = self.chain()?;
        let rules = chain.rules();
        let dict = PyDict::new(py);
        dict.set_item("network", &rules.network)?;
        dict.set_item("seal", "on_count")?;
        dict.set_item("difficulty", rules.difficulty.digits())?;
        dict.set_item("unsigned", rules.unsigned)?;
        dict.set_item("timestamp_ms", rules.timestamp_ms)?;
        Ok(dict)
    }

    /// Returns the texts of transactions that wait, the oldest first.
    #[pyo3(signature = (limit = 100_000))]
    fn pending<'py>(&self, py: Python<'py>, limit: u32) -> PyResult<Bound<'py, PyList>> {
        let chain = self.chain()?;
        let texts = wait(py, async {
            let store = chain.ledger().store();
            let ids: Vec<_> = store.pending(limit).await?.into_iter().map(|it| it.id).collect();
            let mut statements = store.statements(&ids).await?;
            // One that was sealed meanwhile is found all the same.
            Ok::<_, Error>(
                ids.iter().filter_map(|id| statements.remove(id)).map(|it| it.payload).collect::<Vec<_>>(),
            )
        })?;
        PyList::new(py, texts.map_err(raise)?)
    }

    /// Returns a block, by its height (from the end where it is negative) or its hash. Raises IndexError or KeyError.
    fn block(&self, which: &Bound<'_, PyAny>) -> PyResult<SealedBlock> {
        let py = which.py();
        let chain = self.chain()?;
        let height = if let Ok(text) = which.cast::<PyString>() {
            let unknown = || PyKeyError::new_err(format!("no block of this chain has the hash {text}"));
            let hash: BlockHash = text.to_cow()?.parse().map_err(|_| unknown())?;
            let height = wait(py, chain.ledger().store().height_of(hash))?;
            height.map_err(|error| raise(Error::from(error)))?.ok_or_else(unknown)?
        } else {
            let place: i64 = which.extract()?;
            let blocks = i64::from(chain.height()) + 1;
            let place = if place < 0 { place + blocks } else { place };
            match Height::try_from(place) {
                Ok(height) if place < blocks => height,
                _ => return Err(PyIndexError::new_err(format!("the chain has {blocks} blocks"))),
            }
        };
        let found = wait(py, chain.ledger().store().blocks(height, 1, 1))?;
        let found = found.map_err(|error| raise(Error::from(error)))?;
        let gone = || PyIndexError::new_err(format!("the chain has no block {height}"));
        found
            .into_iter()
            .next()
            .filter(|it| it.block.header.height == height)
            .map(SealedBlock::new)
            .ok_or_else(gone)
    }

    /// Iterates over blocks from height `start` to `stop` (exclusive; as long as the chain is now where it is None), a few
    /// in memory at a time.
    #[pyo3(signature = (start = 0, stop = None))]
    fn blocks(slf: Bound<'_, Self>, start: Height, stop: Option<u64>) -> PyResult<BlockIterator> {
        let chain = slf.get().chain()?;
        // Asked anew: another program may have moved the chain a moment ago.
        let branch =
            wait(slf.py(), chain.ledger().store().branch())?.map_err(|error| raise(Error::from(error)))?;
        let length = branch.map_or(0, |branch| u64::from(branch.height()) + 1);
        Ok(BlockIterator::new(slf.unbind(), chain, start, stop.unwrap_or(length).min(length)))
    }

    /// Returns a transaction by its id. Raises KeyError.
    fn transaction(&self, py: Python<'_>, id: &str) -> PyResult<KnownTransaction> {
        let chain = self.chain()?;
        let unknown = || PyKeyError::new_err(format!("no transaction of this chain has the id {id}"));
        let id: TransactionId = id.parse().map_err(|_| unknown())?;
        let found = wait(py, chain.ledger().store().transaction(id))?;
        let found = found.map_err(|error| raise(Error::from(error)))?.ok_or_else(unknown)?;
        Ok(KnownTransaction::new(id, found))
    }

    /// Returns the receipt of a transaction, as JSON: a file by which anybody can check, without this chain, that the
    /// transaction stands on it (`liotbchain verify`, or `python -m liotbchain.verify`).
    fn receipt(&self, py: Python<'_>, id: &str) -> PyResult<String> {
        let chain = self.chain()?;
        let id: TransactionId = id
            .parse()
            .map_err(|_| PyKeyError::new_err(format!("no transaction of this chain has the id {id}")))?;
        let receipt = wait(py, chain.receipt(id))?.map_err(raise)?;
        Ok(ProofFile::Receipt(Box::new(receipt)).to_json())
    }

    /// Returns the transactions of a key from one height to another, as JSON, with the proof that none is missing. Where
    /// there are more than `limit`, it goes less far, as its `to` says.
    #[pyo3(signature = (key_id, start = 0, stop = None, *, limit = 100))]
    fn key_history(
        &self,
        py: Python<'_>,
        key_id: &str,
        start: Height,
        stop: Option<Height>,
        limit: u32,
    ) -> PyResult<String> {
        let chain = self.chain()?;
        let key_id: KeyId = key_id
            .parse()
            .map_err(|_| PyKeyError::new_err(format!("no key of this chain has the id {key_id}")))?;
        let limit = in_range("limit", limit.into(), 1, HISTORY_MAX.into())? as u32;
        let history = chain.key_history(key_id, start, stop.unwrap_or(Height::MAX), limit);
        Ok(ProofFile::KeyHistory(Box::new(wait(py, history)?.map_err(raise)?)).to_json())
    }

    /// Returns the proof, as JSON, that the history of the first `new` blocks begins with that of the first `old` ones.
    #[pyo3(signature = (old, new = None))]
    fn consistency(&self, py: Python<'_>, old: u64, new: Option<u64>) -> PyResult<String> {
        let chain = self.chain()?;
        // The last block's header is the last to hold on to: it commits to all below.
        let new = new.unwrap_or(chain.height().into());
        let proof = wait(py, chain.consistency(old, new))?.map_err(raise)?;
        Ok(ProofFile::Consistency(Box::new(proof)).to_json())
    }

    /// Validates all that is stored, every rule of it. `progress(done, of)` is called with heights meanwhile.
    #[pyo3(signature = (progress = None))]
    fn validate(&self, py: Python<'_>, progress: Option<Py<PyAny>>) -> PyResult<Validation> {
        let chain = self.chain()?;
        let steps = Steps::default();
        let told = steps.clone();
        let work = async move {
            liotbchain::node::validate(chain.ledger().store(), |done, of| told.set(done, of.into())).await
        };
        let validation = wait_and(py, work, || steps.tell(py, progress.as_ref()))?;
        validation.map(Validation::from).map_err(|error| raise(Error::from(error)))
    }

    /// Writes the chain to a file with which anybody can check it alone (docs/chain-format.md). A file that is there is
    /// replaced once the export is complete.
    #[pyo3(signature = (path, progress = None))]
    fn export(&self, py: Python<'_>, path: PathBuf, progress: Option<Py<PyAny>>) -> PyResult<Transferred> {
        let chain = self.chain()?;
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let steps = Steps::default();
        let told = steps.clone();
        let work = async {
            let mut file = BufWriter::new(File::create(&part)?);
            let done =
                chain.export(&mut file, |TransferProgress { height, of }| told.set(height.into(), of.into()));
            let done = done.await?;
            file.flush()?;
            file.get_ref().sync_all()?;
            std::fs::rename(&part, &path)?;
            Ok::<_, ExportError>(done)
        };
        let done = wait_and(py, work, || steps.tell(py, progress.as_ref()));
        if !matches!(done, Ok(Ok(_))) {
            // The first error is what counts.
            let _ = std::fs::remove_file(&part);
        }
        done?.map(Transferred::from).map_err(|error| match error {
            ExportError::Chain(error) => raise(error),
            ExportError::File(error) => {
                PyOSError::new_err((error.raw_os_error(), format!("{error}: {}", path.display())))
            }
        })
    }

    /// Checks an export and writes it into a database that is still empty.
    #[staticmethod]
    #[pyo3(signature = (path, url = "sqlite:liotbchain.db", *, data_dir = PathBuf::from("."), progress = None))]
    fn import_export(
        py: Python<'_>,
        path: PathBuf,
        url: &str,
        data_dir: PathBuf,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Transferred> {
        let steps = Steps::default();
        let told = steps.clone();
        let work = Blockchain::import(url, &data_dir, &path, move |TransferProgress { height, of }| {
            told.set(height.into(), of.into());
        });
        let done = wait_and(py, work, || steps.tell(py, progress.as_ref()))?;
        done.map(Transferred::from).map_err(raise)
    }

    /// Closes the chain. What is pending stays pending, on the disk. Does nothing where it is closed already.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if is_forked() {
            return Ok(());
        }
        let chain = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        open_chains().remove(&self.number);
        match chain {
            Some(chain) => wait(py, async move { chain.close().await }),
            None => Ok(()),
        }
    }

    /// Whether the chain is closed.
    #[getter]
    fn is_closed(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: Py<PyAny>,
        _value: Py<PyAny>,
        _trace: Py<PyAny>,
    ) -> PyResult<()> {
        self.close(py)
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.chain()?.height() as usize + 1)
    }

    fn __getitem__(&self, which: &Bound<'_, PyAny>) -> PyResult<SealedBlock> {
        self.block(which)
    }

    fn __iter__(slf: Bound<'_, Self>) -> PyResult<BlockIterator> {
        Self::blocks(slf, 0, None)
    }

    /// An open chain is true, however short.
    fn __bool__(&self) -> bool {
        true
    }

    fn __repr__(&self) -> String {
        match self.chain() {
            Ok(chain) => format!("<Chain {}, height {}>", chain.ledger().store().location(), chain.height()),
            Err(_) => "<Chain, closed>".to_owned(),
        }
    }
}

fn in_range(name: &str, value: i64, least: u64, most: u64) -> PyResult<u64> {
    let found = u64::try_from(value).ok().filter(|value| (least..=most).contains(value));
    found.ok_or_else(|| PyValueError::new_err(format!("{name} is {value}: expected {least} to {most}")))
}

/// What keeps an export from being written.
enum ExportError {
    Chain(Error),
    File(std::io::Error),
}

impl From<Error> for ExportError {
    fn from(error: Error) -> Self {
        Self::Chain(error)
    }
}

impl From<std::io::Error> for ExportError {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

/// How far something is, told by the one who works and read by the one who waits.
#[derive(Clone, Default)]
struct Steps(Arc<(AtomicU64, AtomicU64)>);

impl Steps {
    fn set(&self, done: u64, of: u64) {
        self.0.0.store(done, Ordering::Relaxed);
        self.0.1.store(of, Ordering::Relaxed);
    }

    fn tell(&self, py: Python<'_>, progress: Option<&Py<PyAny>>) -> PyResult<()> {
        let Some(progress) = progress else { return Ok(()) };
        match (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed)) {
            // Nothing is known yet.
            (_, 0) => Ok(()),
            steps => progress.call1(py, steps).map(drop),
        }
    }
}
