//! What a caller may hand over as a transaction.

use std::borrow::Cow;

use liotbchain::{Blockchain, NewTransaction, PublicKey};
use pyo3::{
    exceptions::{PyRecursionError, PyTypeError, PyValueError},
    prelude::*,
    pybacked::PyBackedStr,
    sync::PyOnceLock,
    types::{IntoPyDict, PyString},
};

use crate::{
    error::{InvalidTransactionError, raise},
    key::Signed,
};

/// A transaction that is not checked yet.
pub(crate) enum Item {
    /// A JSON text that nobody signed.
    Plain(PyBackedStr),
    /// One that was checked before.
    Prepared(NewTransaction),
    /// One that somebody signed.
    Signed { payload: String, signature: Vec<u8>, public_key: PublicKey },
}

impl Item {
    /// Takes a signed text, a JSON text, or whatever else `json.dumps` turns into one.
    pub(crate) fn take(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(signed) = value.cast::<Signed>() {
            let signed = signed.get();
            let public_key = PublicKey::from_pem(&signed.public_key).map_err(|error| {
                InvalidTransactionError::new_err(format!("public_key is no key that a chain takes: {error}"))
            })?;
            let (payload, signature) = (signed.payload.clone(), signed.signature.clone());
            return Ok(Self::Signed { payload, signature, public_key });
        }
        if let Ok(prepared) = value.cast::<Prepared>() {
            return Ok(Self::Prepared(prepared.get().0.clone()));
        }
        Ok(Self::Plain(to_text(value)?))
    }

    /// Checks it, the signature too. Needs no lock.
    pub(crate) fn check(self) -> Result<NewTransaction, liotbchain::Error> {
        match self {
            Self::Plain(payload) => Blockchain::unsigned(&payload),
            Self::Prepared(transaction) => Ok(transaction),
            Self::Signed { payload, signature, public_key } => {
                Blockchain::verified(&payload, signature, &public_key)
            }
        }
    }
}

/// Returns a JSON text as it is, and anything else as `json.dumps` writes it.
pub(crate) fn to_text(value: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    match value.cast::<PyString>() {
        Ok(text) => PyBackedStr::try_from(text.clone()),
        Err(_) => to_json(value),
    }
}

/// Returns the JSON text of a value, as `json.dumps` writes it. NaN and infinities are no JSON: InvalidTransactionError.
#[pyfunction]
pub(crate) fn to_json(value: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    // One for ever: `json.dumps` with an option makes a new one each time.
    let encode = ENCODE.get_or_try_init(py, || {
        let encoder = py.import("json")?.getattr("JSONEncoder")?;
        let encoder = encoder.call((), Some(&[("allow_nan", false)].into_py_dict(py)?))?;
        Ok::<_, PyErr>(encoder.getattr("encode")?.unbind())
    })?;
    let text = encode.bind(py).call1((value,)).map_err(|error| {
        if error.is_instance_of::<PyTypeError>(py)
            || error.is_instance_of::<PyValueError>(py)
            || error.is_instance_of::<PyRecursionError>(py)
        {
            let text = format!("the transaction cannot be written as JSON: {}", error.value(py));
            let raised = InvalidTransactionError::new_err(text);
            raised.set_cause(py, Some(error));
            return raised;
        }
        error
    })?;
    PyBackedStr::try_from(text.cast_into::<PyString>()?)
}

/// A JSON text that nobody signed, made ready: with its random bytes, and so its id. Added again it is the same transaction.
#[pyclass(frozen, module = "liotbchain._native")]
pub struct Prepared(NewTransaction);

#[pymethods]
impl Prepared {
    /// Raises InvalidTransactionError where the text is no JSON, too large, or too deep.
    #[new]
    fn new(text: PyBackedStr) -> PyResult<Self> {
        Blockchain::unsigned(&text).map(Self).map_err(raise)
    }

    /// The JSON text.
    #[getter]
    fn payload(&self) -> &str {
        &self.0.statement.statement().payload
    }
}

/// Returns what a JSON text says.
pub(crate) fn loads<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "json", "loads")?.call1((text,))
}

/// Checks items in their order and returns the first that is at fault as an exception.
pub(crate) fn check_all(items: Vec<Item>) -> PyResult<Vec<NewTransaction>> {
    let alone = items.len() == 1;
    items
        .into_iter()
        .enumerate()
        .map(|(place, item)| {
            item.check().map_err(|error| {
                let where_ = if alone { Cow::Borrowed("") } else { format!("transaction {place}: ").into() };
                match raise(error) {
                    error if alone => error,
                    error => Python::attach(|py| {
                        InvalidTransactionError::new_err(format!("{where_}{}", error.value(py)))
                    }),
                }
            })
        })
        .collect()
}
