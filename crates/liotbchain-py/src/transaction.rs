//! Transactions as they stand on a chain.

use liotbchain::{
    KeyId, Place, Status, Transaction as CoreTransaction, TransactionId,
    core::{Content, Statement},
    store::StoredTransaction,
};
use pyo3::{
    exceptions::{PyRecursionError, PyValueError},
    prelude::*,
    types::PyBytes,
};

use crate::payload::loads;

/// A transaction in a block.
#[pyclass(frozen, module = "liotbchain")]
pub struct Transaction {
    transaction: CoreTransaction,
    id: Option<TransactionId>,
}

impl Transaction {
    pub(crate) fn new(transaction: CoreTransaction, id: Option<TransactionId>) -> Self {
        Self { transaction, id }
    }
}

#[pymethods]
impl Transaction {
    /// The id in hexadecimal; None where the transaction was pruned.
    #[getter]
    fn id(&self) -> Option<String> {
        self.id.map(|id| id.to_string())
    }

    /// Who signed, in hexadecimal: SHA-256 of the public key. Zeros where nobody did.
    #[getter]
    fn key_id(&self) -> String {
        self.transaction.key_id().to_string()
    }

    /// How many transactions of this key stand earlier on the chain.
    #[getter]
    fn sequence(&self) -> u64 {
        self.transaction.sequence
    }

    /// The exact text that was signed; None where it was pruned.
    #[getter]
    fn payload(&self) -> Option<&str> {
        Some(&self.transaction.statement()?.payload)
    }

    /// What the payload says, as `json.loads` reads it; the text itself where it is no JSON.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.transaction.statement() {
            Some(statement) => read(py, statement),
            None => Ok(py.None().into_bound(py)),
        }
    }

    /// The signature; 16 random bytes where nobody signed; None where it was pruned.
    #[getter]
    fn signature<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        Some(PyBytes::new(py, &self.transaction.statement()?.signature))
    }

    /// Stands for payload and signature in the Merkle tree, in hexadecimal.
    #[getter]
    fn content_hash(&self) -> String {
        match &self.transaction.content {
            Content::Full(statement) => statement.content_hash().to_string(),
            Content::Pruned { content_hash, .. } => content_hash.to_string(),
        }
    }

    /// Whether somebody signed.
    #[getter]
    fn is_signed(&self) -> bool {
        self.transaction.key_id() != KeyId::ZERO
    }

    /// Whether payload and signature were dropped.
    #[getter]
    fn is_pruned(&self) -> bool {
        self.transaction.statement().is_none()
    }

    fn __repr__(&self) -> String {
        match self.id {
            Some(id) => format!("<Transaction {id}>"),
            None => "<Transaction, pruned>".to_owned(),
        }
    }
}

/// A transaction by its id: on the chain, or pending.
#[pyclass(frozen, module = "liotbchain")]
pub struct KnownTransaction {
    id: TransactionId,
    stored: StoredTransaction,
}

impl KnownTransaction {
    pub(crate) fn new(id: TransactionId, stored: StoredTransaction) -> Self {
        Self { id, stored }
    }

    fn statement(&self) -> Option<&Statement> {
        match &self.stored.content {
            Content::Full(statement) => Some(statement),
            Content::Pruned { .. } => None,
        }
    }
}

#[pymethods]
impl KnownTransaction {
    /// The id in hexadecimal.
    #[getter]
    fn id(&self) -> String {
        self.id.to_string()
    }

    /// Who signed, in hexadecimal: SHA-256 of the public key. Zeros where nobody did.
    #[getter]
    fn key_id(&self) -> String {
        match &self.stored.content {
            Content::Full(statement) => statement.key_id.to_string(),
            Content::Pruned { key_id, .. } => key_id.to_string(),
        }
    }

    /// The exact text that was signed; None where it was pruned.
    #[getter]
    fn payload(&self) -> Option<&str> {
        self.statement().map(|statement| statement.payload.as_str())
    }

    /// What the payload says, as `json.loads` reads it; the text itself where it is no JSON; None where it was pruned.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.statement().map(|statement| read(py, statement)).transpose()
    }

    /// The signature; 16 random bytes where nobody signed; None where it was pruned.
    #[getter]
    fn signature<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.statement().map(|statement| PyBytes::new(py, &statement.signature))
    }

    /// Whether payload and signature were dropped.
    #[getter]
    fn is_pruned(&self) -> bool {
        self.statement().is_none()
    }

    /// "sealed" or "pending".
    #[getter]
    fn status(&self) -> &'static str {
        match self.stored.place {
            Some(_) => "sealed",
            None => "pending",
        }
    }

    /// Height of its block; None while it is pending.
    #[getter]
    fn height(&self) -> Option<u32> {
        Some(self.stored.place?.height)
    }

    /// Place in the block, from 0; None while it is pending.
    #[getter]
    fn position(&self) -> Option<u32> {
        Some(self.stored.place?.position)
    }

    /// Hash of its block in hexadecimal; None while it is pending.
    #[getter]
    fn block_hash(&self) -> Option<String> {
        Some(self.stored.place?.block_hash.to_string())
    }

    /// When it came, in milliseconds since 1970.
    #[getter]
    fn received_ms(&self) -> u64 {
        self.stored.received_ms
    }

    fn __repr__(&self) -> String {
        format!("<KnownTransaction {} {}>", self.id, self.status())
    }
}

/// Returns the place that a status tells.
pub(crate) fn place(status: Status) -> Option<Place> {
    match status {
        Status::Pending => None,
        Status::Sealed(place) => Some(place),
    }
}

/// An imported chain may hold texts that are no JSON.
fn read<'py>(py: Python<'py>, statement: &Statement) -> PyResult<Bound<'py, PyAny>> {
    match loads(py, &statement.payload) {
        // Or is deeper than Python reads.
        Err(error)
            if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyRecursionError>(py) =>
        {
            Ok(statement.payload.as_str().into_pyobject(py)?.into_any())
        }
        read => read,
    }
}
