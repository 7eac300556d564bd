//! From the body of a request to verified transactions: which key, which text, and whether the one signed the other.

use liotbchain_core::{
    PublicKey, PublicKeyError, Statement, VerifiedStatement, key::SignatureError, transaction::StatementError,
};
use liotbchain_store::NewTransaction;

use crate::{
    error::ServerError,
    items::{self, Item, ItemFault, ItemsError, LISTED_MAX, Limits},
    json_keys::{AmbiguousJson, check_unambiguous},
    json_text::{Kind, Tokens},
    key_cache::KeyCache,
    python_json::python_form,
};

/// Characters of `data` that a message shows.
const SHOWN_MAX: usize = 200;

/// Some items are at fault, and so none is taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub(crate) struct InvalidItems {
    /// Items in the list.
    pub(crate) count: usize,
    /// The first [`LISTED_MAX`] that are at fault, by their place in the list.
    pub(crate) listed: Vec<(usize, Fault)>,
}

impl InvalidItems {
    /// Starts as the Python original's message does.
    fn message(&self) -> String {
        // Nobody looks further than the last fault that is listed.
        let at_least = if self.listed.len() >= LISTED_MAX { "at least " } else { "" };
        let none_taken =
            format!("{at_least}{} of {} items at fault, none was taken", self.listed.len(), self.count);
        match self.listed.first() {
            Some((_, Fault::Signature { data, .. })) => {
                format!("Invalid signature for item: {data}; {none_taken}")
            }
            Some((index, fault)) => format!("Invalid payload structure: {none_taken}; item {index}: {fault}"),
            None => none_taken,
        }
    }
}

/// What can be wrong with one item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It does not have the parts of an item.
    #[error(transparent)]
    Structure(#[from] ItemFault),
    /// The key is none.
    #[error("`public_key`: {0}")]
    PublicKey(#[from] PublicKeyError),
    /// The signature is of neither text, or of another key.
    #[error("{error}, neither over the text of `data` as it was sent nor over Python's json.dumps of it")]
    Signature {
        /// Which kind of key it was checked with.
        error: SignatureError,
        /// The start of what was sent.
        data: String,
    },
    /// A good signature over a text that two readers understand differently.
    #[error("`data` has a good signature, but cannot be taken: {0}")]
    Ambiguous(AmbiguousJson),
    /// The text or its signature breaks the chain's limits.
    #[error("`data`: {0}")]
    Statement(StatementError),
    /// Python's text of `data` was signed, and is too long.
    #[error(
        "Python's json.dumps of `data` has {size} bytes, more than the {size_max} that this receiver takes; send less"
    )]
    PythonFormTooLarge {
        /// Its bytes.
        size: usize,
        /// The limit.
        size_max: usize,
    },
}

impl Fault {
    /// Returns the stable word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Structure(fault) => fault.code(),
            Self::PublicKey(PublicKeyError::Private) => "private_key_sent",
            Self::PublicKey(_) => "bad_public_key",
            Self::Signature { .. } | Self::Statement(StatementError::SignatureSize { .. }) => {
                "invalid_signature"
            }
            Self::Ambiguous(_) | Self::Statement(_) => "bad_data",
            Self::PythonFormTooLarge { .. } => "payload_too_large",
        }
    }
}

/// Decodes a body and verifies every item of it.
///
/// # Errors
///
/// [`ServerError::Items`] where the body is no list of items, [`ServerError::InvalidItems`] where some are at fault.
pub(crate) fn decode_and_verify(
    body: &[u8],
    limits: Limits,
    keys: &KeyCache,
) -> Result<Vec<NewTransaction>, ServerError> {
    let (count, mut listed, items) = match items::decode(body, limits) {
        Ok(items) => (items.len(), Vec::new(), items.into_iter().enumerate().collect::<Vec<_>>()),
        // The answer names all items at fault, so those whose structure is sound are verified too.
        Err(ItemsError::InvalidItems { count, listed, .. }) => {
            let faults = listed.into_iter().map(|it| (it.index, Fault::from(it.fault)));
            (count, faults.collect(), sound_items(body, limits))
        }
        Err(error) => return Err(error.into()),
    };
    let mut transactions: Vec<NewTransaction> = Vec::with_capacity(items.len());
    let mut last: Option<(&str, PublicKey)> = None;
    for (index, item) in &items {
        if listed.len() >= LISTED_MAX {
            break;
        }
        // Mostly, one device sends one list.
        let key = match last.take().filter(|(text, _)| *text == item.public_key) {
            Some((_, key)) => Ok(key),
            None => keys.read(&item.public_key),
        };
        let verified = key.map_err(Fault::from).and_then(|key| {
            let verified = verify_item(item, limits.payload_size_max, &key);
            last = Some((&item.public_key, key));
            verified
        });
        match verified {
            Ok(transaction) => transactions.push(transaction),
            Err(fault) => listed.push((*index, fault)),
        }
    }
    if listed.is_empty() {
        return Ok(transactions);
    }
    listed.sort_by_key(|(index, _)| *index);
    Err(InvalidItems { count, listed }.into())
}

/// Returns the items of a list that have no fault of structure, with their places.
fn sound_items(body: &[u8], limits: Limits) -> Vec<(usize, Item<'_>)> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let mut tokens = Tokens::new(text.strip_prefix('\u{feff}').unwrap_or(text), usize::MAX);
    let mut sound = Vec::new();
    // The opening bracket; a single object is at fault itself.
    if !matches!(tokens.next_token(), Ok(Some(first)) if first.kind == Kind::ArrayStart) {
        return sound;
    }
    for index in 0.. {
        let Ok(Some(first)) = tokens.next_token() else { break };
        let Ok(item) = tokens.rest_of_value(first) else { break };
        if first.kind == Kind::ObjectStart
            && let Ok(items) = items::decode(item.as_bytes(), limits)
        {
            sound.extend(items.into_iter().map(|item| (index, item)));
        }
    }
    sound
}

/// What verified is what the chain keeps: the text as it was sent, or else Python's text of it, which clients of the
/// original sign.
fn verify_item(item: &Item<'_>, payload_size_max: usize, key: &PublicKey) -> Result<NewTransaction, Fault> {
    let statement = match verify_text(item.data, item, key) {
        Ok(statement) => {
            check_unambiguous(item.data).map_err(Fault::Ambiguous)?;
            statement
        }
        Err(fault @ Fault::Signature { .. }) => {
            let python = python_form(item.data).ok().filter(|python| python != item.data);
            let Some(python) = python else { return Err(fault) };
            if python.len() > payload_size_max {
                key.verify(python.as_bytes(), &item.signature).map_err(|_| fault)?;
                return Err(Fault::PythonFormTooLarge { size: python.len(), size_max: payload_size_max });
            }
            verify_text(&python, item, key)?
        }
        Err(fault) => return Err(fault),
    };
    Ok(NewTransaction { statement, public_key: Some(key.clone()) })
}

fn verify_text(text: &str, item: &Item<'_>, key: &PublicKey) -> Result<VerifiedStatement, Fault> {
    let statement =
        Statement { key_id: key.key_id(), payload: text.to_owned(), signature: item.signature.clone() };
    VerifiedStatement::verify(statement, key).map_err(|error| match error {
        StatementError::Signature(error) => Fault::Signature { error, data: shown(item.data) },
        error => Fault::Statement(error),
    })
}

fn shown(data: &str) -> String {
    match data.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &data[..end]),
        None => data.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::Ed25519KeyPair;
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;
    use crate::openapi::{EXAMPLE_PUBLIC_KEY, EXAMPLE_SEED};

    fn item(data: &str, signed: &str) -> String {
        let key = Ed25519KeyPair::from_seed_unchecked(&EXAMPLE_SEED).unwrap();
        let signature = STANDARD.encode(key.sign(signed.as_bytes()));
        let public_key = EXAMPLE_PUBLIC_KEY.replace('\n', "\\n");
        format!(r#"{{"data":{data},"signature":"{signature}","public_key":"{public_key}"}}"#)
    }

    fn take(items: &[String]) -> Result<Vec<NewTransaction>, InvalidItems> {
        let limits = Limits { items_max: 1000, payload_size_max: 64 };
        let body = format!("\u{feff} [{}]", items.join(","));
        decode_and_verify(body.as_bytes(), limits, &KeyCache::default()).map_err(|error| match error {
            ServerError::InvalidItems(error) => error,
            other => panic!("{other}"),
        })
    }

    fn payload(data: &str, signed: &str) -> Result<String, &'static str> {
        match take(&[item(data, signed)]) {
            Ok(transactions) => Ok(transactions[0].statement.statement().payload.clone()),
            Err(error) => Err(error.listed[0].1.code()),
        }
    }

    fn codes(error: &InvalidItems) -> Vec<(usize, &'static str)> {
        error.listed.iter().map(|(index, fault)| (*index, fault.code())).collect()
    }

    #[test]
    fn keeps_the_text_that_was_signed() {
        assert_eq!(payload(r#"{"v":1.10}"#, r#"{"v":1.10}"#).unwrap(), r#"{"v":1.10}"#);
        assert_eq!(payload(r#"{"v":1.10}"#, r#"{"v": 1.1}"#).unwrap(), r#"{"v": 1.1}"#);
        assert_eq!(payload(r#"{"v":1.10}"#, r#"{"v":1.1}"#), Err("invalid_signature"));
    }

    #[test]
    fn refuses_a_key_twice_as_sent_and_takes_the_one_that_python_reads() {
        let twice = r#"{"a": 1, "a": 2}"#;
        assert_eq!(payload(twice, twice), Err("bad_data"));
        assert_eq!(payload(twice, r#"{"a": 2}"#).unwrap(), r#"{"a": 2}"#);
        assert_eq!(payload(twice, r#"{"a": 1}"#), Err("invalid_signature"));
    }

    #[test]
    fn refuses_python_text_above_the_limit_if_it_was_signed() {
        let data = format!("\"{}\"", "é".repeat(20));
        let python = python_form(&data).unwrap();
        assert!(data.len() <= 64 && python.len() > 64);
        assert_eq!(payload(&data, &python), Err("payload_too_large"));
        assert_eq!(payload(&data, "\"e\""), Err("invalid_signature"));
        assert_eq!(payload(&data, &data).unwrap(), data);
    }

    #[test]
    fn names_all_items_at_fault_whatever_the_fault() {
        let (good, bad) = (item("1", "1"), item("1", "2"));
        let no_key = good.replace("BEGIN PUBLIC", "BEGIN");
        let nested = format!("[{good}]");
        let error =
            take(&[good.clone(), bad, good.clone(), nested, no_key, "{}".to_owned(), good]).unwrap_err();
        let expected =
            [(1, "invalid_signature"), (3, "not_an_object"), (4, "bad_public_key"), (5, "missing_key")];
        assert_eq!(codes(&error), expected);
        assert_eq!(error.to_string(), "Invalid signature for item: 1; 4 of 7 items at fault, none was taken");
    }

    #[test]
    fn stops_at_as_many_as_are_listed() {
        let bad = item("1", "2");
        for others in [Vec::new(), vec!["7".to_owned(); 60], vec!["7".to_owned(); 300]] {
            let items = [vec![bad.clone(); 200], others].concat();
            let error = take(&items).unwrap_err();
            assert_eq!(error.listed.len(), LISTED_MAX);
            let text = error.to_string();
            assert!(text.contains(&format!("at least 100 of {} items at fault", items.len())), "{text}");
        }
    }

    #[test]
    fn shows_no_more_than_the_start_of_long_data() {
        let limits = Limits { items_max: 1, payload_size_max: 65_536 };
        let body = item(&format!("\"{}\"", "é".repeat(10_000)), "1");
        let error = decode_and_verify(body.as_bytes(), limits, &KeyCache::default()).unwrap_err();
        assert!((200..300).contains(&error.to_string().chars().count()), "{error}");
    }
}
