//! The body of `POST /v1/transactions`: texts with their signatures, to transactions that verified.
//!
//! A payload is the exact text that was signed, as a JSON string: nobody need guess which bytes a signature is over.

use std::collections::{HashMap, HashSet};

use liotbchain_core::{
    KeyId, PublicKey, PublicKeyError, Statement, VerifiedStatement, key::SignatureError,
    transaction::StatementError,
};
use liotbchain_store::NewTransaction;

use crate::{
    items::{ItemFault, LISTED_MAX, Limits, decode_public_key, decode_signature},
    json_keys::{AmbiguousJson, JSON_DEPTH_MAX, check_unambiguous},
    json_text::{JsonError, Kind, Token, Tokens, ascii_spelling, shorten, unescape},
    key_cache::KeyCache,
};

/// How the items of a body are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A JSON list, or one item.
    List,
    /// An item a line.
    Lines,
}

/// Why a body was refused. The messages are for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubmissionError {
    /// The body is in another encoding, or damaged.
    #[error("the body is not UTF-8: byte {offset} cannot stand there")]
    NotUtf8 {
        /// The first byte that is not, counted from 0.
        offset: usize,
    },
    /// The body is not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The body is neither a list nor an object.
    #[error("the body is {got}: send a list of transactions")]
    NotAList {
        /// What it is.
        got: &'static str,
    },
    /// There is nothing to take.
    #[error("the body holds no transaction: send at least one")]
    EmptyList,
    /// The list is too long.
    #[error("the body has more than {items_max} transactions: send it in parts")]
    TooManyItems {
        /// The limit.
        items_max: usize,
    },
    /// Some transactions are at fault, and so none is taken.
    #[error("{}", faults_in_words(*.count, .listed))]
    InvalidItems {
        /// Transactions in the body.
        count: usize,
        /// The first [`LISTED_MAX`] that are at fault, by their place in the body.
        listed: Vec<(usize, Fault)>,
    },
}

impl SubmissionError {
    /// Returns the stable word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::Json(JsonError::Syntax { .. }) => "not_json",
            Self::Json(JsonError::TooDeep { .. }) => "too_deep",
            Self::NotAList { .. } => "not_a_list",
            Self::EmptyList => "empty_list",
            Self::TooManyItems { .. } => "too_many_items",
            Self::InvalidItems { .. } => "invalid_items",
        }
    }
}

fn faults_in_words(count: usize, listed: &[(usize, Fault)]) -> String {
    // Nobody looks further than the last fault that is listed.
    let at_least = if listed.len() >= LISTED_MAX { "at least " } else { "" };
    let first = listed.first().map(|(index, fault)| format!("; item {index}: {fault}")).unwrap_or_default();
    format!("{at_least}{} of {count} items at fault, none was taken{first}", listed.len())
}

/// What can be wrong with one item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The item is another kind of JSON value.
    #[error("an item is an object with `payload`, `signature`, and `public_key` or `key_id`, not {got}")]
    NotAnObject {
        /// What it is.
        got: &'static str,
    },
    /// Something is not there.
    #[error("{key} is missing; an item has `payload`, `signature`, and `public_key` or `key_id`")]
    MissingKey {
        /// What.
        key: &'static str,
    },
    /// A key that items do not have.
    #[error("\"{key}\" is unknown; an item has `payload`, `signature`, and `public_key` or `key_id` alone")]
    UnknownKey {
        /// The key in JSON escapes, shortened if it is long.
        key: String,
    },
    /// A key stands twice.
    #[error("`{key}` stands twice; send it once")]
    DuplicateKey {
        /// The key.
        key: &'static str,
    },
    /// The public key is said in two ways.
    #[error("`public_key` and `key_id` stand in one item; send one of them")]
    TwoKeys,
    /// `payload` is another kind of JSON value.
    #[error("`payload` is {got}; send a string that holds the text that was signed")]
    PayloadNotText {
        /// What it is.
        got: &'static str,
    },
    /// `payload` holds half a surrogate pair, which is no text.
    #[error("`payload` holds an escape for half a character; send the text that was signed")]
    PayloadBroken,
    /// `payload` is too long.
    #[error("`payload` has {size} bytes, more than the {size_max} that this receiver takes; send less")]
    PayloadTooLarge {
        /// Its bytes.
        size: usize,
        /// The limit.
        size_max: usize,
    },
    /// `signature` or `public_key` is not what it should be.
    #[error(transparent)]
    Part(ItemFault),
    /// The key is none.
    #[error("`public_key`: {0}")]
    PublicKey(#[from] PublicKeyError),
    /// `key_id` is none.
    #[error("`key_id` is not a string of 64 lower-case hexadecimal digits")]
    BadKeyId,
    /// Nobody sent that key before.
    #[error("no key {0} is known here; send it as `public_key`")]
    KeyNotKnown(KeyId),
    /// The signature is not of this payload by this key.
    #[error("{0}, over the text of `payload`")]
    Signature(SignatureError),
    /// A good signature over a text that two readers understand differently.
    #[error("`payload` has a good signature, but cannot be taken: {0}")]
    Ambiguous(AmbiguousJson),
    /// The text or its signature breaks the chain's limits.
    #[error(transparent)]
    Statement(StatementError),
}

impl Fault {
    /// Returns the stable word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotAnObject { .. } => "not_an_object",
            Self::MissingKey { .. } => "missing_key",
            Self::UnknownKey { .. } => "unknown_key",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::TwoKeys => "two_keys",
            Self::PayloadNotText { .. } => "bad_payload_type",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::Part(fault) => fault.code(),
            Self::PublicKey(PublicKeyError::Private) => "private_key_sent",
            Self::PublicKey(_) => "bad_public_key",
            Self::BadKeyId => "bad_key_id",
            Self::KeyNotKnown(_) => "key_not_known",
            Self::Signature(_) | Self::Statement(StatementError::SignatureSize { .. }) => "invalid_signature",
            Self::PayloadBroken | Self::Ambiguous(_) | Self::Statement(_) => "bad_payload",
        }
    }
}

/// The items of a body, their signatures yet to be checked.
#[derive(Debug)]
pub(crate) struct Submission {
    count: usize,
    items: Vec<(usize, Item)>,
    faults: Vec<(usize, Fault)>,
}

#[derive(Debug)]
struct Item {
    payload: String,
    signature: Vec<u8>,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Sent(PublicKey),
    Named(KeyId),
}

impl Submission {
    /// Reads a body to its end, whatever is wrong with its items.
    ///
    /// # Errors
    ///
    /// [`SubmissionError`], where the body as a whole is at fault.
    pub(crate) fn decode(
        body: &[u8],
        form: Form,
        limits: Limits,
        keys: &KeyCache,
    ) -> Result<Self, SubmissionError> {
        let text = std::str::from_utf8(body);
        let text = text.map_err(|error| SubmissionError::NotUtf8 { offset: error.valid_up_to() })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut decoding =
            Decoding { limits, keys, taken: Self { count: 0, items: Vec::new(), faults: Vec::new() } };
        match form {
            Form::List => decoding.list(text)?,
            Form::Lines => decoding.lines(text)?,
        }
        match decoding.taken {
            Self { count: 0, .. } => Err(SubmissionError::EmptyList),
            taken => Ok(taken),
        }
    }

    /// Returns the keys that were named and not sent.
    pub(crate) fn named_keys(&self) -> Vec<KeyId> {
        let named = self.items.iter().filter_map(|(_, item)| match item.key {
            Key::Named(key_id) => Some(key_id),
            Key::Sent(_) => None,
        });
        named.collect::<HashSet<_>>().into_iter().collect()
    }

    /// Verifies every signature.
    ///
    /// # Errors
    ///
    /// [`SubmissionError::InvalidItems`].
    pub(crate) fn verify(
        self,
        known: &HashMap<KeyId, PublicKey>,
    ) -> Result<Vec<NewTransaction>, SubmissionError> {
        let Self { count, items, faults: mut listed } = self;
        let mut verified = Vec::with_capacity(items.len());
        for (index, item) in items {
            if listed.len() >= LISTED_MAX {
                break;
            }
            match item.verify(known) {
                Ok(transaction) => verified.push(transaction),
                Err(fault) => listed.push((index, fault)),
            }
        }
        if listed.is_empty() {
            return Ok(verified);
        }
        listed.sort_by_key(|(index, _)| *index);
        Err(SubmissionError::InvalidItems { count, listed })
    }
}

impl Item {
    fn verify(self, known: &HashMap<KeyId, PublicKey>) -> Result<NewTransaction, Fault> {
        let key = match self.key {
            Key::Sent(key) => key,
            Key::Named(key_id) => known.get(&key_id).cloned().ok_or(Fault::KeyNotKnown(key_id))?,
        };
        let statement = Statement { key_id: key.key_id(), payload: self.payload, signature: self.signature };
        let statement = VerifiedStatement::verify(statement, &key).map_err(|error| match error {
            StatementError::Signature(error) => Fault::Signature(error),
            error => Fault::Statement(error),
        })?;
        check_unambiguous(&statement.statement().payload).map_err(Fault::Ambiguous)?;
        Ok(NewTransaction { statement, public_key: Some(key) })
    }
}

struct Decoding<'k> {
    limits: Limits,
    keys: &'k KeyCache,
    taken: Submission,
}

impl Decoding<'_> {
    fn list(&mut self, text: &str) -> Result<(), SubmissionError> {
        let mut tokens = Tokens::new(text, JSON_DEPTH_MAX);
        match tokens.next_token()? {
            Some(first) if first.kind == Kind::ObjectStart => self.item(&mut tokens, first)?,
            Some(first) if first.kind == Kind::ArrayStart => {
                while let Some(first) = tokens.next_token()?
                    && first.kind != Kind::ArrayEnd
                {
                    self.item(&mut tokens, first)?;
                }
            }
            other => {
                // What is not JSON at all should not be called the wrong kind of JSON.
                tokens.next_token()?;
                let got = other.map_or("nothing", |token| token.kind.describe());
                return Err(SubmissionError::NotAList { got });
            }
        }
        tokens.next_token()?;
        Ok(())
    }

    /// Empty lines are passed over.
    fn lines(&mut self, text: &str) -> Result<(), SubmissionError> {
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            self.line(line).map_err(|error| match error {
                SubmissionError::Json(error) => error.in_line(number).into(),
                error => error,
            })?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), SubmissionError> {
        let mut tokens = Tokens::new(line, JSON_DEPTH_MAX);
        if let Some(first) = tokens.next_token()? {
            self.item(&mut tokens, first)?;
        }
        tokens.next_token()?;
        Ok(())
    }

    fn item<'a>(&mut self, tokens: &mut Tokens<'a>, first: Token<'a>) -> Result<(), SubmissionError> {
        let items_max = self.limits.items_max;
        if self.taken.count == items_max {
            return Err(SubmissionError::TooManyItems { items_max });
        }
        let index = self.taken.count;
        self.taken.count += 1;
        match self.read(tokens, first)? {
            Ok(item) => self.taken.items.push((index, item)),
            Err(fault) if self.taken.faults.len() < LISTED_MAX => self.taken.faults.push((index, fault)),
            Err(_) => {}
        }
        Ok(())
    }

    /// Reads an item to its end, whatever is wrong with it.
    fn read<'a>(&self, tokens: &mut Tokens<'a>, first: Token<'a>) -> Result<Result<Item, Fault>, JsonError> {
        if first.kind != Kind::ObjectStart {
            let got = first.kind.describe();
            tokens.rest_of_value(first)?;
            return Ok(Err(Fault::NotAnObject { got }));
        }
        let mut fields = Fields::default();
        let mut fault = None;
        while let Some(token) = tokens.next_token()?
            && let Kind::Key(key) = token.kind
        {
            let Some(value) = tokens.next_token()? else { break };
            tokens.rest_of_value(value)?;
            match fields.take(&ascii_spelling(key), value.kind, self.limits.payload_size_max, self.keys) {
                // Whoever sent one has to hear of it, whatever else is wrong.
                Err(private) if private.code() == "private_key_sent" => fault = Some(private),
                Err(found) => drop(fault.get_or_insert(found)),
                Ok(()) => {}
            }
        }
        Ok(fault.map_or_else(|| fields.complete(), Err))
    }
}

/// The members of an item that have been read so far.
#[derive(Default)]
struct Fields {
    payload: Option<String>,
    signature: Option<Vec<u8>>,
    public_key: Option<PublicKey>,
    key_id: Option<KeyId>,
}

impl Fields {
    fn take(
        &mut self,
        key: &str,
        kind: Kind<'_>,
        payload_size_max: usize,
        keys: &KeyCache,
    ) -> Result<(), Fault> {
        match key {
            "payload" => put(&mut self.payload, "payload", decode_payload(kind, payload_size_max)?),
            "signature" => {
                put(&mut self.signature, "signature", decode_signature(kind).map_err(Fault::Part)?)
            }
            "public_key" => {
                let pem = decode_public_key(kind).map_err(Fault::Part)?;
                put(&mut self.public_key, "public_key", keys.read(&pem)?)
            }
            "key_id" => put(&mut self.key_id, "key_id", decode_key_id(kind)?),
            unknown => Err(Fault::UnknownKey { key: shorten(unknown) }),
        }
    }

    fn complete(self) -> Result<Item, Fault> {
        let missing = |key| Fault::MissingKey { key };
        let key = match (self.public_key, self.key_id) {
            (Some(key), None) => Key::Sent(key),
            (None, Some(key_id)) => Key::Named(key_id),
            (None, None) => return Err(missing("`public_key` or `key_id`")),
            (Some(_), Some(_)) => return Err(Fault::TwoKeys),
        };
        Ok(Item {
            payload: self.payload.ok_or(missing("`payload`"))?,
            signature: self.signature.ok_or(missing("`signature`"))?,
            key,
        })
    }
}

fn put<T>(field: &mut Option<T>, key: &'static str, value: T) -> Result<(), Fault> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::DuplicateKey { key }),
    }
}

fn decode_payload(kind: Kind<'_>, size_max: usize) -> Result<String, Fault> {
    let Kind::Text(content) = kind else { return Err(Fault::PayloadNotText { got: kind.describe() }) };
    let payload = unescape(content).ok_or(Fault::PayloadBroken)?;
    match payload.len() {
        size if size > size_max => Err(Fault::PayloadTooLarge { size, size_max }),
        _ => Ok(payload.into_owned()),
    }
}

fn decode_key_id(kind: Kind<'_>) -> Result<KeyId, Fault> {
    let Kind::Text(text) = kind else { return Err(Fault::BadKeyId) };
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    text.parse().ok().filter(|_| is_lower).ok_or(Fault::BadKeyId)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::Ed25519KeyPair;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde_json::{Value, json};

    use super::*;
    use crate::openapi::{EXAMPLE_PUBLIC_KEY, EXAMPLE_SEED};

    const LIMITS: Limits = Limits { items_max: 4, payload_size_max: 64 };

    fn key() -> PublicKey {
        PublicKey::from_pem(EXAMPLE_PUBLIC_KEY).unwrap()
    }

    fn item(payload: &str) -> Value {
        let pair = Ed25519KeyPair::from_seed_unchecked(&EXAMPLE_SEED).unwrap();
        let signature = STANDARD.encode(pair.sign(payload.as_bytes()));
        json!({"payload": payload, "signature": signature, "public_key": EXAMPLE_PUBLIC_KEY})
    }

    fn with(payload: &str, key: &str, value: Value) -> Value {
        let mut item = item(payload);
        match value {
            Value::Null => drop(item.as_object_mut().unwrap().remove(key)),
            value => item[key] = value,
        }
        item
    }

    fn take(body: &str, form: Form) -> Result<Vec<NewTransaction>, SubmissionError> {
        let submission = Submission::decode(body.as_bytes(), form, LIMITS, &KeyCache::default())?;
        let named = submission.named_keys();
        let known =
            named.into_iter().filter(|key_id| *key_id == key().key_id()).map(|key_id| (key_id, key()));
        submission.verify(&known.collect())
    }

    fn payloads(body: &str, form: Form) -> Vec<String> {
        let taken = take(body, form).unwrap();
        taken.iter().map(|it| it.statement.statement().payload.clone()).collect()
    }

    fn code(body: &str, form: Form) -> &'static str {
        match take(body, form).unwrap_err() {
            SubmissionError::InvalidItems { listed, .. } => listed[0].1.code(),
            error => error.code(),
        }
    }

    #[test]
    fn takes_the_text_that_was_signed_and_no_other() {
        let text = "{\"b\" : 1.10,\n \"a\":\"\\u00e9 é\"}";
        assert_eq!(payloads(&item(text).to_string(), Form::List), [text]);
        let other = with(text, "payload", json!("{\"b\": 1.10, \"a\": \"\\u00e9 \\u00e9\"}"));
        assert_eq!(code(&other.to_string(), Form::List), "invalid_signature");
    }

    #[test]
    fn takes_lists_and_lines() {
        let (one, two) = (item("1").to_string(), item("2").to_string());
        assert_eq!(payloads(&format!("\u{feff} [{one},\n{two}] "), Form::List), ["1", "2"]);
        assert_eq!(payloads(&format!("{one}\r\n\n {two}"), Form::Lines), ["1", "2"]);
        assert_eq!(payloads(&format!("{one}\n"), Form::Lines), ["1"]);
    }

    #[test]
    fn takes_a_known_key_by_its_id() {
        let named = |key_id: String| {
            let mut item = with("1", "public_key", Value::Null);
            item["key_id"] = json!(key_id);
            item
        };
        let key_id = key().key_id().to_string();
        let taken = take(&named(key_id.clone()).to_string(), Form::List).unwrap();
        assert_eq!(taken[0].public_key, Some(key()));
        assert_eq!(code(&named("0".repeat(64)).to_string(), Form::List), "key_not_known");
        assert_eq!(code(&named(key_id.to_uppercase()).to_string(), Form::List), "bad_key_id");
        assert_eq!(code(&with("1", "key_id", json!(key_id)).to_string(), Form::List), "two_keys");
    }

    #[test]
    fn names_what_is_wrong_with_an_item() {
        for (item, expected) in [
            (json!(7), "not_an_object"),
            (with("1", "payload", Value::Null), "missing_key"),
            (with("1", "signature", Value::Null), "missing_key"),
            (with("1", "public_key", Value::Null), "missing_key"),
            (with("1", "data", json!(1)), "unknown_key"),
            (with("1", "payload", json!({"a": 1})), "bad_payload_type"),
            (with("1", "payload", json!("2")), "invalid_signature"),
            (with("1", "signature", json!(1)), "bad_signature_type"),
            (with("1", "signature", json!("*")), "bad_base64"),
            (with("1", "public_key", json!(1)), "bad_public_key_type"),
            (with("1", "public_key", json!("key")), "bad_public_key"),
            (with("1", "public_key", json!("-----BEGIN PRIVATE KEY-----")), "private_key_sent"),
            (with("1", "key_id", json!(1)), "bad_key_id"),
            (item("{\"a\":1,\"a\":2}"), "bad_payload"),
            (item("no JSON"), "bad_payload"),
            (item("1 2"), "bad_payload"),
            (item(&"1".repeat(65)), "payload_too_large"),
        ] {
            assert_eq!(code(&json!([item]).to_string(), Form::List), expected, "{item}");
        }
        let twice = item("1").to_string().replacen('{', "{\"payload\":\"1\",", 1);
        assert_eq!(code(&twice, Form::List), "duplicate_key");
        let broken = item("1").to_string().replacen("\"payload\":\"1\"", "\"payload\":\"\\ud800\"", 1);
        assert_eq!(code(&broken, Form::List), "bad_payload");
    }

    #[test]
    fn names_what_is_wrong_with_the_body() {
        let item = item("1").to_string();
        for (body, form, expected) in [
            ("", Form::List, "not_json"),
            ("[", Form::List, "not_json"),
            ("[] 1", Form::List, "not_json"),
            ("7", Form::List, "not_a_list"),
            ("[]", Form::List, "empty_list"),
            (" \n", Form::Lines, "empty_list"),
            ("{", Form::Lines, "not_json"),
            ("[]", Form::Lines, "not_an_object"),
            (&format!("{item}\n{item} {item}"), Form::Lines, "not_json"),
            (&["["; 200].concat(), Form::List, "too_deep"),
            (&vec![item.clone(); 5].join("\n"), Form::Lines, "too_many_items"),
            (&format!("[{}]", vec![item.clone(); 5].join(",")), Form::List, "too_many_items"),
        ] {
            assert_eq!(code(body, form), expected, "{body}");
        }
        let error = Submission::decode(b"\"\xff\"", Form::List, LIMITS, &KeyCache::default()).unwrap_err();
        assert_eq!(error, SubmissionError::NotUtf8 { offset: 1 });
        let error = take(&format!("{item}\n\n{item} x"), Form::Lines).unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn names_every_item_at_fault_in_its_place() {
        let body = json!([item("1"), with("2", "payload", json!("3")), 7, with("4", "key_id", json!("x"))]);
        match take(&body.to_string(), Form::List).unwrap_err() {
            SubmissionError::InvalidItems { count, listed } => {
                let listed: Vec<_> = listed.iter().map(|(index, fault)| (*index, fault.code())).collect();
                let expected = [(1, "invalid_signature"), (2, "not_an_object"), (3, "bad_key_id")];
                assert_eq!((count, &listed[..]), (4, &expected[..]));
            }
            error => panic!("{error}"),
        }
    }
}
