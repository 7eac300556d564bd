//! The items of a `POST /receive_data` body: what each holds, before any signature is checked.
//!
//! A body is a JSON list of objects, or one such object, each with exactly `data`, `signature` and
//! `public_key`. A list is taken whole or not at all, so the answer names every faulty item at once.
//! Everything but JSON's own freedom of spelling is refused: a key too many, or twice, or a lenient
//! base64 could be read differently by the next reader.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::json_keys::JSON_DEPTH_MAX;
use crate::json_text::{
    JsonError, Kind, Position, SyntaxFault, Token, Tokens, ascii_spelling, shorten, unescape,
};

/// How many faulty items an answer lists.
pub const LISTED_MAX: usize = 100;

/// One item of a request; `data` may be any JSON value, its signature is yet to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<'a> {
    /// The text of `data`, verbatim: signatures are made over it.
    pub data: &'a str,
    /// The bytes of the signature.
    pub signature: Vec<u8>,
    /// The text of the key, yet to be read as PEM.
    pub public_key: Cow<'a, str>,
}

/// What a request may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Items in a list.
    pub items_max: usize,
    /// Bytes in the text of an item's `data`.
    pub payload_size_max: usize,
}

/// Why a body was refused. The messages are for the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ItemsError {
    /// The body is in another encoding, or damaged.
    #[error(
        "the body is not UTF-8 (byte {offset} cannot stand there); \
         send JSON as UTF-8, as UTF-16, UTF-32 and others are not accepted"
    )]
    NotUtf8 {
        /// The first byte that is not, counted from 0.
        offset: usize,
    },
    /// The body is not JSON.
    #[error("the body is not JSON: {fault} at {at}")]
    NotJson {
        /// The rule that is broken.
        fault: SyntaxFault,
        /// Where.
        at: Position,
    },
    /// Lists and objects lie within each other too deep.
    #[error(
        "the body is nested too deep at {at}; \
         `data` may hold {JSON_DEPTH_MAX} levels of lists and objects"
    )]
    TooDeep {
        /// Where the first level beyond the limit begins.
        at: Position,
    },
    /// The body is neither a list nor an object.
    #[error(
        "Payload should be a list of items, not {got}; \
         an item is {{\"data\": ..., \"signature\": \"...\", \"public_key\": \"...\"}}"
    )]
    NotAList {
        /// What it is.
        got: &'static str,
    },
    /// There is nothing to take.
    #[error("Payload should be a list of items, and this one is empty; send at least one item")]
    EmptyList,
    /// The list is too long.
    #[error("the list has more than {items_max} items; send it in parts")]
    TooManyItems {
        /// The limit.
        items_max: usize,
    },
    /// Some items are at fault, and so none is taken.
    #[error(
        "Invalid payload structure: {faulty} of {count} items at fault, none was taken; item {}",
        first_of(.listed)
    )]
    InvalidItems {
        /// Items in the request.
        count: usize,
        /// Items at fault.
        faulty: usize,
        /// The first [`LISTED_MAX`] of them, in the order of the request.
        listed: Vec<ItemError>,
    },
}

impl ItemsError {
    /// Returns the stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::TooDeep { .. } => "too_deep",
            Self::NotAList { .. } => "not_a_list",
            Self::EmptyList => "empty_list",
            Self::TooManyItems { .. } => "too_many_items",
            Self::InvalidItems { .. } => "invalid_items",
        }
    }
}

impl From<JsonError> for ItemsError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Syntax { fault, at } => Self::NotJson { fault, at },
            JsonError::TooDeep { at, .. } => Self::TooDeep { at },
        }
    }
}

/// A faulty item; of several faults a private key, else the one that stands first in the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{fault}")]
pub struct ItemError {
    /// The item's place in the list, counted from 0.
    pub index: usize,
    /// What is wrong with it.
    pub fault: ItemFault,
}

/// What can be wrong with one item before its signature is checked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ItemFault {
    /// The item is another kind of JSON value.
    #[error("an item is an object with `data`, `signature` and `public_key`, not {got}")]
    NotAnObject {
        /// What it is.
        got: &'static str,
    },
    /// One of the three keys is not there.
    #[error("`{key}` is missing; an item has `data`, `signature` and `public_key`")]
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// A key that items do not have.
    #[error("\"{key}\" is unknown; an item has `data`, `signature` and `public_key` alone")]
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
    /// The text of `data` is too long.
    #[error("`data` has {size} bytes, more than the {size_max} that this receiver takes; send less")]
    PayloadTooLarge {
        /// Its bytes.
        size: usize,
        /// The limit.
        size_max: usize,
    },
    /// `signature` is another kind of JSON value.
    #[error("`signature` is {got}; send a string, the signature's bytes in base64")]
    SignatureNotText {
        /// What it is.
        got: &'static str,
    },
    /// `signature` holds no bytes.
    #[error("`signature` is empty; sign the text of `data` and send the signature in base64")]
    SignatureEmpty,
    /// The other alphabet of RFC 4648.
    #[error("`signature` is in URL-safe base64; use the standard alphabet, with `+` and `/`")]
    Base64UrlSafe,
    /// A character that base64 does not have.
    #[error("`signature` holds {symbol:?}, which is not base64; use A-Z a-z 0-9 `+` `/` and `=`")]
    Base64Symbol {
        /// The character.
        symbol: char,
    },
    /// The characters are base64's, their number or the padding is not.
    #[error("`signature` is incomplete base64; check its length and the `=` at its end")]
    Base64Incomplete,
    /// `public_key` is another kind of JSON value.
    #[error("`public_key` is {got}; send a string, the public key in PEM")]
    PublicKeyNotText {
        /// What it is.
        got: &'static str,
    },
    /// `public_key` holds half a surrogate pair, which is no text.
    #[error("`public_key` holds an escape for half a character; send the public key in PEM")]
    PublicKeyBroken,
    /// `public_key` holds a private key. The message must never show it.
    #[error(
        "`public_key` holds a private key; send the public key only, \
         and replace this key pair, as the private key has been exposed"
    )]
    PrivateKeySent,
}

impl ItemFault {
    /// Returns the stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAnObject { .. } => "not_an_object",
            Self::MissingKey { .. } => "missing_key",
            Self::UnknownKey { .. } => "unknown_key",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::SignatureNotText { .. } => "bad_signature_type",
            Self::SignatureEmpty => "invalid_signature",
            Self::Base64UrlSafe | Self::Base64Symbol { .. } | Self::Base64Incomplete => "bad_base64",
            Self::PublicKeyNotText { .. } => "bad_public_key_type",
            Self::PublicKeyBroken => "bad_public_key",
            Self::PrivateKeySent => "private_key_sent",
        }
    }
}

fn first_of(listed: &[ItemError]) -> String {
    let first = listed.first();
    first.map_or_else(String::new, |error| format!("{}: {error}", error.index))
}

/// Decodes a body into its items, in order; a single object is a list of one.
///
/// # Errors
///
/// [`ItemsError`]. Faulty items are collected to the end of the body, unless the body as a whole
/// turns out to be at fault.
pub fn decode(body: &[u8], limits: Limits) -> Result<Vec<Item<'_>>, ItemsError> {
    let text = decode_utf8(body)?;
    let is_single = text.trim_ascii_start().starts_with('{');
    let envelope_depth = if is_single { 1 } else { 2 };
    let mut tokens = Tokens::new(text, JSON_DEPTH_MAX + envelope_depth);
    let mut taken = Taken::default();
    match tokens.next_token()? {
        Some(first) if first.kind == Kind::ObjectStart => taken.read(&mut tokens, first, limits)?,
        Some(first) if first.kind == Kind::ArrayStart => {
            while let Some(first) = tokens.next_token()?
                && first.kind != Kind::ArrayEnd
            {
                taken.read(&mut tokens, first, limits)?;
            }
        }
        other => {
            // What is not JSON at all should not be called the wrong kind of JSON.
            tokens.next_token()?;
            let got = other.map_or("nothing", |token| token.kind.describe());
            return Err(ItemsError::NotAList { got });
        }
    }
    tokens.next_token()?;
    match taken {
        Taken { count: 0, .. } => Err(ItemsError::EmptyList),
        Taken { faulty: 0, items, .. } => Ok(items),
        Taken { count, faulty, listed, .. } => Err(ItemsError::InvalidItems { count, faulty, listed }),
    }
}

fn decode_utf8(body: &[u8]) -> Result<&str, ItemsError> {
    let not_utf8 = |offset| ItemsError::NotUtf8 { offset };
    // No JSON text holds a zero byte; in UTF-16 and UTF-32 one of the first four is zero.
    if let Some(offset) = body.iter().take(4).position(|&byte| byte == 0) {
        return Err(not_utf8(offset));
    }
    let text = std::str::from_utf8(body).map_err(|error| not_utf8(error.valid_up_to()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// What has been read of a body so far.
#[derive(Default)]
struct Taken<'a> {
    count: usize,
    items: Vec<Item<'a>>,
    faulty: usize,
    listed: Vec<ItemError>,
}

impl<'a> Taken<'a> {
    fn read(&mut self, tokens: &mut Tokens<'a>, first: Token<'a>, limits: Limits) -> Result<(), ItemsError> {
        let items_max = limits.items_max;
        if self.count == items_max {
            return Err(ItemsError::TooManyItems { items_max });
        }
        let index = self.count;
        self.count += 1;
        match read_item(tokens, first, limits.payload_size_max)? {
            Ok(item) => self.items.push(item),
            Err(fault) => {
                self.faulty += 1;
                if self.listed.len() < LISTED_MAX {
                    self.listed.push(ItemError { index, fault });
                }
            }
        }
        Ok(())
    }
}

/// Reads an item to its end, whatever is wrong with it.
fn read_item<'a>(
    tokens: &mut Tokens<'a>,
    first: Token<'a>,
    payload_size_max: usize,
) -> Result<Result<Item<'a>, ItemFault>, JsonError> {
    if first.kind != Kind::ObjectStart {
        let got = first.kind.describe();
        tokens.rest_of_value(first)?;
        return Ok(Err(ItemFault::NotAnObject { got }));
    }
    let mut fields = Fields::default();
    let mut fault = None;
    while let Some(token) = tokens.next_token()?
        && let Kind::Key(key) = token.kind
    {
        let Some(value) = tokens.next_token()? else {
            break;
        };
        let text = tokens.rest_of_value(value)?;
        match fields.take(&ascii_spelling(key), value.kind, text, payload_size_max) {
            // Whoever sent one has to hear of it, whatever else is wrong.
            Err(ItemFault::PrivateKeySent) => fault = Some(ItemFault::PrivateKeySent),
            Err(found) => drop(fault.get_or_insert(found)),
            Ok(()) => {}
        }
    }
    Ok(match fault {
        Some(fault) => Err(fault),
        None => fields.complete(),
    })
}

/// The members of an item that have been read so far.
#[derive(Default)]
struct Fields<'a> {
    data: Option<&'a str>,
    signature: Option<Vec<u8>>,
    public_key: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    fn take(
        &mut self,
        key: &str,
        kind: Kind<'a>,
        text: &'a str,
        payload_size_max: usize,
    ) -> Result<(), ItemFault> {
        match key {
            "data" => put(&mut self.data, "data", check_size(text, payload_size_max)?),
            "signature" => put(&mut self.signature, "signature", decode_signature(kind)?),
            "public_key" => put(&mut self.public_key, "public_key", decode_public_key(kind)?),
            unknown => Err(ItemFault::UnknownKey { key: shorten(unknown) }),
        }
    }

    fn complete(self) -> Result<Item<'a>, ItemFault> {
        let missing = |key| ItemFault::MissingKey { key };
        Ok(Item {
            data: self.data.ok_or(missing("data"))?,
            signature: self.signature.ok_or(missing("signature"))?,
            public_key: self.public_key.ok_or(missing("public_key"))?,
        })
    }
}

fn put<T>(field: &mut Option<T>, key: &'static str, value: T) -> Result<(), ItemFault> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(ItemFault::DuplicateKey { key }),
    }
}

fn check_size(data: &str, size_max: usize) -> Result<&str, ItemFault> {
    match data.len() {
        size if size > size_max => Err(ItemFault::PayloadTooLarge { size, size_max }),
        _ => Ok(data),
    }
}

pub(crate) fn decode_signature(kind: Kind<'_>) -> Result<Vec<u8>, ItemFault> {
    let Kind::Text(content) = kind else {
        let got = kind.describe();
        return Err(ItemFault::SignatureNotText { got });
    };
    if let Ok(signature) = STANDARD.decode(content)
        && !signature.is_empty()
    {
        return Ok(signature);
    }
    let text = unescape(content).ok_or(ItemFault::Base64Symbol { symbol: char::REPLACEMENT_CHARACTER })?;
    // MIME encoders wrap their lines.
    let text = text.replace(|char: char| char.is_ascii_whitespace(), "");
    let is_base64 = |char: char| char.is_ascii_alphanumeric() || matches!(char, '+' | '/' | '=');
    match text.chars().find(|&char| !is_base64(char)) {
        Some('-' | '_') => return Err(ItemFault::Base64UrlSafe),
        Some(symbol) => return Err(ItemFault::Base64Symbol { symbol }),
        None if text.is_empty() => return Err(ItemFault::SignatureEmpty),
        None => {}
    }
    STANDARD.decode(text).map_err(|_| ItemFault::Base64Incomplete)
}

pub(crate) fn decode_public_key(kind: Kind<'_>) -> Result<Cow<'_, str>, ItemFault> {
    let Kind::Text(content) = kind else {
        let got = kind.describe();
        return Err(ItemFault::PublicKeyNotText { got });
    };
    let text = unescape(content).ok_or(ItemFault::PublicKeyBroken)?;
    // The label ends so for PKCS#8, encrypted PKCS#8, PKCS#1, SEC 1 and OpenSSH alike.
    match text.contains("PRIVATE KEY-----") {
        true => Err(ItemFault::PrivateKeySent),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { items_max: 3, payload_size_max: 64 };
    const GOOD: &str = r#"{"data":1,"signature":"AAEC","public_key":"k"}"#;

    fn code(body: &str) -> &'static str {
        decode(body.as_bytes(), LIMITS).unwrap_err().code()
    }

    fn message(body: &str) -> String {
        decode(body.as_bytes(), LIMITS).unwrap_err().to_string()
    }

    fn faults(body: &str) -> Vec<(usize, &'static str)> {
        match decode(body.as_bytes(), LIMITS) {
            Err(ItemsError::InvalidItems { listed, faulty, .. }) => {
                assert_eq!(listed.len(), faulty);
                listed.iter().map(|error| (error.index, error.fault.code())).collect()
            }
            other => panic!("{body} gave {other:?}"),
        }
    }

    /// The code of a lone item with the given members.
    fn item_code(members: &str) -> &'static str {
        let faults = faults(&format!("[{{{members}}}]"));
        assert_eq!(faults.len(), 1);
        faults[0].1
    }

    fn signature(content: &str) -> Result<Vec<u8>, ItemFault> {
        decode_signature(Kind::Text(content))
    }

    #[test]
    fn keeps_data_verbatim_in_a_list_and_alone() {
        let item = "{ \"signature\" : \"AAEC\" ,\n\"data\":  {\"é\" : 1.10, \"b\":[1 ,2]} , \"public_key\":\"a\\nb\"}";
        for body in [item.to_owned(), format!(" [ {item} ] "), format!("\u{feff}{item}")] {
            let items = decode(body.as_bytes(), LIMITS).unwrap();
            assert_eq!(
                items,
                [Item {
                    data: "{\"é\" : 1.10, \"b\":[1 ,2]}",
                    signature: vec![0, 1, 2],
                    public_key: "a\nb".into(),
                }]
            );
        }
        let scalars = ["null", "true", "-0.10", "\"\\ud83d\"", "[]", "{}", "\"\""];
        for data in scalars {
            let body = GOOD.replace('1', data);
            assert_eq!(decode(body.as_bytes(), LIMITS).unwrap()[0].data, data);
        }
        let body = format!("[{GOOD},{},{GOOD}]", GOOD.replace('1', "2"));
        let items = decode(body.as_bytes(), LIMITS).unwrap();
        let data: Vec<_> = items.iter().map(|item| item.data).collect();
        assert_eq!(data, ["1", "2", "1"]);
    }

    #[test]
    fn takes_keys_by_what_they_stand_for() {
        let body = GOOD.replace("data", "d\\u0061ta");
        assert_eq!(decode(body.as_bytes(), LIMITS).unwrap()[0].data, "1");
    }

    #[test]
    fn refuses_other_encodings() {
        let utf16 =
            |to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { GOOD.encode_utf16().flat_map(to_bytes).collect() };
        let utf32 = GOOD.chars().flat_map(|char| u32::from(char).to_le_bytes());
        let mut with_mark = vec![0xFF, 0xFE];
        with_mark.extend(utf16(u16::to_le_bytes));
        for body in [
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
            utf32.collect(),
            with_mark,
            b"[\"\xe9\"]".to_vec(),
        ] {
            let refused = decode(&body, LIMITS).unwrap_err();
            assert_eq!(refused.code(), "not_utf8");
            assert!(refused.to_string().contains("UTF-16, UTF-32"), "{refused}");
        }
        assert_eq!(decode(b"[\"\xe9\"]", LIMITS), Err(ItemsError::NotUtf8 { offset: 2 }));
    }

    #[test]
    fn says_where_a_body_is_not_json() {
        for (body, place) in [
            ("", "line 1 column 1"),
            ("\u{feff}\u{feff}[]", "line 1 column 1"),
            ("[{\"data\":1,\n \"é\":NaN}]", "line 2 column 6"),
            ("[1] x", "line 1 column 5"),
            ("[1,]", "line 1 column 4"),
            ("\"a\" b", "line 1 column 5"),
            ("[] 1", "line 1 column 4"),
            ("{\"data\":", "line 1 column 9"),
        ] {
            assert_eq!(code(body), "not_json", "{body:?}");
            assert!(message(body).ends_with(place), "{body:?}: {}", message(body));
        }
        let half = &GOOD[..GOOD.len() - 1];
        assert_eq!(code(half), "not_json");
        // A fault of the whole body outranks those of items.
        assert_eq!(code("[1, 2"), "not_json");
    }

    #[test]
    fn refuses_what_is_no_list_in_the_words_of_the_original() {
        for (body, got) in
            [("\"text\"", "a string"), ("null", "null"), ("12.5", "a number"), ("false", "false")]
        {
            assert_eq!(code(body), "not_a_list");
            let expected = format!("Payload should be a list of items, not {got}; an item is {{\"data\": ");
            assert!(message(body).starts_with(&expected), "{}", message(body));
        }
        assert_eq!(code("[ ]"), "empty_list");
        assert!(message("[]").starts_with("Payload should be a list of items"));
    }

    #[test]
    fn limits_the_number_of_items() {
        let list = |count| format!("[{}]", vec![GOOD; count].join(","));
        assert_eq!(decode(list(3).as_bytes(), LIMITS).unwrap().len(), 3);
        assert_eq!(code(&list(4)), "too_many_items");
        assert_eq!(code("[1,2,3,4"), "too_many_items");
        assert!(message(&list(4)).contains("more than 3 items"));
    }

    #[test]
    fn limits_the_depth_of_data_alike_in_a_list_and_alone() {
        let limits = Limits { payload_size_max: 1000, ..LIMITS };
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for (list_start, list_end) in [("", ""), ("[", "]")] {
            let body = |depth| format!("{list_start}{}{list_end}", GOOD.replace('1', &nested(depth)));
            assert!(decode(body(JSON_DEPTH_MAX).as_bytes(), limits).is_ok());
            let too_deep = body(JSON_DEPTH_MAX + 1);
            let refused = decode(too_deep.as_bytes(), limits).unwrap_err();
            assert_eq!(refused.code(), "too_deep");
        }
        assert_eq!(code(&"[".repeat(1_000_000)), "too_deep");
        assert!(message(&"[".repeat(200)).contains("100 levels"));
    }

    #[test]
    fn names_every_faulty_item() {
        let body = format!("[{{}}, {GOOD}, [\"data\"]]");
        assert_eq!(faults(&body), [(0, "missing_key"), (2, "not_an_object")]);
        assert_eq!(
            message(&body),
            "Invalid payload structure: 2 of 3 items at fault, none was taken; \
             item 0: `data` is missing; an item has `data`, `signature` and `public_key`"
        );
        let many = Limits { items_max: 1000, ..LIMITS };
        let body = format!("[{}]", vec!["0"; 1000].join(","));
        match decode(body.as_bytes(), many) {
            Err(ItemsError::InvalidItems { count: 1000, faulty: 1000, listed }) => {
                assert_eq!(listed.len(), LISTED_MAX)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn wants_exactly_the_three_keys_once() {
        assert_eq!(item_code(r#""signature":"AAEC","public_key":"k""#), "missing_key");
        assert_eq!(item_code(r#""data":1,"public_key":"k""#), "missing_key");
        assert_eq!(item_code(r#""data":1,"signature":"AAEC""#), "missing_key");
        let with = |more: &str| format!("{},{more}", GOOD.trim_matches(['{', '}']));
        assert_eq!(item_code(&with("\"extra\":{\"a\":[1]}")), "unknown_key");
        assert_eq!(item_code(&with("\"Data\":1")), "unknown_key");
        assert_eq!(item_code(&with("\"data\":1")), "duplicate_key");
        assert_eq!(item_code(&with("\"d\\u0061ta\":1")), "duplicate_key");
        assert_eq!(item_code(&with("\"signature\":\"AAEC\"")), "duplicate_key");
        assert_eq!(item_code(&with("\"public_key\":\"k\"")), "duplicate_key");
        let long = format!("[{{{}}}]", with(&format!("\"{}\":1", "é".repeat(30))));
        assert!(message(&long).contains("\"\\u00e9\\u00e9"), "{}", message(&long));
        assert!(message(&long).len() < 250, "{}", message(&long));
        for item in ["1", "null", "[]", "\"data signature public_key\""] {
            assert_eq!(faults(&format!("[{item}]")), [(0, "not_an_object")]);
        }
    }

    #[test]
    fn reports_the_fault_that_stands_first() {
        let item = r#""signature":5,"data":1,"data":1,"x":1"#;
        assert_eq!(item_code(item), "bad_signature_type");
    }

    #[test]
    fn limits_the_size_of_data() {
        let body = |size: usize| GOOD.replace('1', &format!("\"{}\"", "x".repeat(size - 2)));
        assert!(decode(body(64).as_bytes(), LIMITS).is_ok());
        assert_eq!(faults(&body(65)), [(0, "payload_too_large")]);
        assert!(message(&body(65)).contains("65 bytes"));
    }

    #[test]
    fn decodes_signatures_of_strict_base64_with_white_space() {
        assert_eq!(signature("AAEC"), Ok(vec![0, 1, 2]));
        assert_eq!(signature("/+8="), Ok(vec![0xFF, 0xEF]));
        assert_eq!(signature("\\/\\u002b8="), Ok(vec![0xFF, 0xEF]));
        assert_eq!(signature(" AA\\r\\nEC\\n\\t"), Ok(vec![0, 1, 2]));
        for (content, fault) in [
            ("", ItemFault::SignatureEmpty),
            (" \\n", ItemFault::SignatureEmpty),
            ("!!!!", ItemFault::Base64Symbol { symbol: '!' }),
            ("AA*EC", ItemFault::Base64Symbol { symbol: '*' }),
            ("AAEé", ItemFault::Base64Symbol { symbol: 'é' }),
            ("AA\u{a0}EC", ItemFault::Base64Symbol { symbol: '\u{a0}' }),
            ("AA\\u000bEC", ItemFault::Base64Symbol { symbol: '\u{b}' }),
            ("AAE\\ud83d", ItemFault::Base64Symbol { symbol: '\u{fffd}' }),
            ("_-8=", ItemFault::Base64UrlSafe),
            ("abc", ItemFault::Base64Incomplete),
            ("AA=", ItemFault::Base64Incomplete),
            ("AA===", ItemFault::Base64Incomplete),
            ("AA==AA==", ItemFault::Base64Incomplete),
            ("AAECA", ItemFault::Base64Incomplete),
            ("====", ItemFault::Base64Incomplete),
            // The last bits of a shortened group have to be zero.
            ("//9=", ItemFault::Base64Incomplete),
        ] {
            assert_eq!(signature(content), Err(fault), "{content:?}");
        }
        for value in ["5", "null", "true", "[\"AAEC\"]", "{}"] {
            let members = format!("\"data\":1,\"signature\":{value},\"public_key\":\"k\"");
            assert_eq!(item_code(&members), "bad_signature_type");
        }
    }

    #[test]
    fn wants_the_public_key_as_text() {
        for value in ["5", "null", "[]"] {
            let members = format!("\"data\":1,\"signature\":\"AAEC\",\"public_key\":{value}");
            assert_eq!(item_code(&members), "bad_public_key_type");
        }
        let broken = "\"data\":1,\"signature\":\"AAEC\",\"public_key\":\"\\ud83d\"";
        assert_eq!(item_code(broken), "bad_public_key");
    }

    #[test]
    fn detects_a_private_key_and_never_shows_it() {
        for label in ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "] {
            let label = format!("{label}PRIVATE KEY");
            let pem = format!("-----BEGIN {label}-----\\nc2VjcmV0\\n-----END {label}-----\\n");
            let body = GOOD.replace("\"k\"", &format!("\"{pem}\""));
            assert_eq!(faults(&body), [(0, "private_key_sent")]);
            let refused = decode(body.as_bytes(), LIMITS).unwrap_err();
            assert!(refused.to_string().contains("send the public key"));
            assert!(refused.to_string().contains("exposed"));
            assert!(!format!("{refused} {refused:?}").contains("c2VjcmV0"));
            let many_faults = body.replace("\"AAEC\"", "5");
            assert_eq!(faults(&many_faults), [(0, "private_key_sent")]);
        }
    }

    proptest! {
        #[test]
        fn takes_any_bytes_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0..GOOD.len(),
            byte in any::<u8>(),
        ) {
            let _ = decode(&bytes, LIMITS);
            let mut damaged = GOOD.as_bytes().to_vec();
            damaged[at] = byte;
            for body in [damaged.clone(), [b"[", &damaged[..], b"]"].concat()] {
                if let Ok(items) = decode(&body, LIMITS) {
                    prop_assert_eq!(items.len(), 1);
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
                }
            }
        }
    }
}
