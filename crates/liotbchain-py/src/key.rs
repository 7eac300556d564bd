//! Keys that sign.

use std::{path::PathBuf, str::FromStr};

use liotbchain::{SigningKey as Key, signer::KeyKind};
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
};

use crate::payload::to_text;

/// A private key.
///
/// Its text never shows the private part. Keep it in a file that only its owner may read.
#[pyclass(frozen, module = "liotbchain")]
pub struct SigningKey(Key);

#[pymethods]
impl SigningKey {
    /// Makes a new key: "ed25519", "rsa" (2048 bits) or "p256".
    #[staticmethod]
    #[pyo3(signature = (kind = "ed25519"))]
    fn generate(py: Python<'_>, kind: &str) -> PyResult<Self> {
        let kind = KeyKind::from_str(kind).map_err(value_error)?;
        py.detach(|| Key::generate(kind)).map(Self).map_err(value_error)
    }

    /// Reads a private key, PKCS#8 in PEM without a password.
    #[staticmethod]
    fn from_pem(pem: &str) -> PyResult<Self> {
        Key::from_pem(pem.as_bytes()).map(Self).map_err(value_error)
    }

    /// Reads the key of a file, or makes one of this kind and keeps it there (mode 0600) where there is no file.
    #[staticmethod]
    #[pyo3(signature = (path, kind = "ed25519"))]
    fn load_or_create(py: Python<'_>, path: PathBuf, kind: &str) -> PyResult<Self> {
        let kind = KeyKind::from_str(kind).map_err(value_error)?;
        let key = py.detach(|| Key::load_or_create(&path, kind));
        key.map(Self).map_err(|error| PyOSError::new_err(error.to_string()))
    }

    /// Signs a transaction: a JSON text as it is, anything else as `json.dumps` writes it.
    fn sign(&self, transaction: &Bound<'_, PyAny>) -> PyResult<Signed> {
        let payload = to_text(transaction)?;
        let signature = transaction.py().detach(|| self.0.sign(payload.as_bytes()));
        Ok(Signed { payload: payload.to_string(), signature, public_key: self.public_key() })
    }

    /// The public key in PEM.
    #[getter]
    fn public_key(&self) -> String {
        self.0.public_key().to_pem()
    }

    /// SHA-256 of the public key's SubjectPublicKeyInfo, in hexadecimal: what the chain calls the signer.
    #[getter]
    fn key_id(&self) -> String {
        self.0.public_key().key_id().to_string()
    }

    fn __repr__(&self) -> String {
        format!("<SigningKey {}>", self.key_id())
    }
}

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A JSON text, its signature, and the public key that it verifies under.
#[pyclass(frozen, get_all, module = "liotbchain")]
pub struct Signed {
    /// The exact text that was signed.
    pub(crate) payload: String,
    /// The signature's bytes.
    pub(crate) signature: Vec<u8>,
    /// The public key in PEM.
    pub(crate) public_key: String,
}

#[pymethods]
impl Signed {
    #[new]
    fn new(payload: String, signature: Vec<u8>, public_key: String) -> Self {
        Self { payload, signature, public_key }
    }

    fn __repr__(&self) -> String {
        format!("<Signed {} bytes>", self.payload.len())
    }
}
