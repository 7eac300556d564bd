//! SenML packs in JSON (RFC 8428): whether a pack is one, and whose it is.
//!
//! A pack is one reading and keeps its bytes, which are what is signed: its records are not taken apart, since the base
//! fields of one hold for the next. Base fields are resolved as far as names need it.
//!
//! The device is the base name without `:`, `/` and `_` at its end. Without a base name it is the record's name up to its
//! last `/` or `:`; of a URN, whose colons are its own, up to its first `_` (RFC 9039) or `/`. A pack that names several
//! devices needs somebody else to say who sends it.

use std::borrow::Cow;

use crate::{
    json_keys::{DuplicateKey, KeyWatch},
    json_text::{JsonError, Kind, Position, Token, Tokens, ascii_spelling, shorten, unescape},
    reading::{DeviceName, DeviceNameError},
};

/// The newest version of SenML that is known here.
const VERSION_MAX: u32 = 10;

/// Why a text is no SenML pack, or nobody's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenmlError {
    /// The body is not JSON, or too deep.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A key stands twice in one object.
    #[error("the key \"{key}\" stands twice in one object, the second time at {at}: send it once")]
    DuplicateKey {
        /// The key in JSON escapes, shortened if it is long.
        key: String,
        /// Where it stands the second time.
        at: Position,
    },
    /// The body is another kind of JSON value.
    #[error("a SenML pack is a list of records, not {got}: send [{{\"bn\": …, \"n\": …, \"v\": …}}]")]
    NotAList {
        /// What it is.
        got: &'static str,
    },
    /// It has no record.
    #[error("the SenML pack is empty: send at least one record")]
    Empty,
    /// A record is another kind of JSON value.
    #[error("SenML record {record} is {got}: send an object")]
    NotAnObject {
        /// Its place from 0.
        record: usize,
        /// What it is.
        got: &'static str,
    },
    /// A field is another kind of JSON value than RFC 8428 says.
    #[error("`{field}` of SenML record {record} is {got}: expected {expected}")]
    Field {
        /// Its place from 0.
        record: usize,
        /// The field.
        field: &'static str,
        /// What it is.
        got: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The record has more than one of `v`, `vs`, `vb`, `vd`.
    #[error("SenML record {record} has more than one value: send one of v, vs, vb and vd in a record")]
    TwoValues {
        /// Its place from 0.
        record: usize,
    },
    /// The record measures nothing and sets nothing.
    #[error("SenML record {record} has no value, no sum and no base field: send v, vs, vb, vd or s")]
    NoValue {
        /// Its place from 0.
        record: usize,
    },
    /// The base name and the name make none that RFC 8428 allows.
    #[error(
        "the name of SenML record {record} is not made of A-Z a-z 0-9 - : . / _, or begins with none of A-Z a-z 0-9"
    )]
    Name {
        /// Its place from 0.
        record: usize,
    },
    /// The pack is of a version that nobody knows here.
    #[error(
        "SenML record {record} is of another version than {VERSION_MAX}: leave `bver` out, or send {VERSION_MAX}"
    )]
    Version {
        /// Its place from 0.
        record: usize,
    },
    /// A field whose name ends with `_` must be understood, and is not.
    #[error("`{field}` of SenML record {record} must be understood and is not: leave it out")]
    UnknownField {
        /// Its place from 0.
        record: usize,
        /// The field, shortened if it is long.
        field: String,
    },
    /// The pack holds measurements of several devices.
    #[error(
        "the SenML pack names several devices, {one} and {other}: say who sends it with /readings?device=NAME"
    )]
    SeveralDevices {
        /// The first.
        one: String,
        /// One that is not the first.
        other: String,
    },
    /// No record has a name.
    #[error("the SenML pack measures nothing, so it names no device: send a record with a value")]
    NoDevice,
    /// The name is of no use.
    #[error("{0}: say who sends the SenML pack with /readings?device=NAME")]
    Device(#[from] DeviceNameError),
}

impl SenmlError {
    /// Returns the stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(JsonError::Syntax { .. }) => "not_json",
            Self::Json(JsonError::TooDeep { .. }) => "too_deep",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::Empty => "empty_list",
            Self::SeveralDevices { .. } => "several_devices",
            Self::NoDevice => "missing_device",
            Self::Device(_) => "bad_device",
            _ => "bad_senml",
        }
    }
}

/// A pack.
#[derive(Debug)]
pub(crate) struct Pack<'a> {
    /// As it stands there.
    pub(crate) text: &'a str,
    /// The first device that a record names, and another one.
    named: Option<String>,
    other: Option<String>,
}

impl Pack<'_> {
    /// Returns the only device that the records name.
    ///
    /// # Errors
    ///
    /// [`SenmlError`] where that is none, or several, or no name.
    pub(crate) fn device(self) -> Result<DeviceName, SenmlError> {
        match (self.named, self.other) {
            (None, _) => Err(SenmlError::NoDevice),
            (Some(one), Some(other)) => {
                Err(SenmlError::SeveralDevices { one: shorten(&one), other: shorten(&other) })
            }
            (Some(one), None) => Ok(DeviceName::new(&one)?),
        }
    }
}

/// Reads a pack.
///
/// # Errors
///
/// [`SenmlError`] names the record and the rule.
pub(crate) fn read(text: &str, depth_max: usize) -> Result<Pack<'_>, SenmlError> {
    let mut reader = Reader { tokens: Tokens::new(text, depth_max), keys: KeyWatch::default() };
    let Some(first) = reader.next()? else { return Err(SenmlError::Empty) };
    if first.kind != Kind::ArrayStart {
        reader.skip(first)?;
        reader.next()?;
        return Err(SenmlError::NotAList { got: first.kind.describe() });
    }
    let (mut base_name, mut named, mut other) = (String::new(), None::<String>, None);
    let mut count = 0;
    while let Some(first) = reader.next()?
        && first.kind != Kind::ArrayEnd
    {
        let record = reader.record(count, first)?;
        if let Some(name) = record.base_name {
            base_name = name.into_owned();
        }
        if record.is_measured {
            let name = record.name.as_deref().unwrap_or_default();
            check_name(&base_name, name).ok_or(SenmlError::Name { record: count })?;
            let device = device_of(&base_name, name);
            match &named {
                None => named = Some(device.to_owned()),
                Some(one) if one != device => drop(other.get_or_insert(device.to_owned())),
                Some(_) => {}
            }
        }
        count += 1;
    }
    let text = &text[first.start..reader.tokens.offset()];
    reader.next()?;
    if count == 0 { Err(SenmlError::Empty) } else { Ok(Pack { text, named, other }) }
}

/// What is looked at of a record.
#[derive(Default)]
struct Record<'a> {
    base_name: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    has_base: bool,
    has_value: bool,
    /// It has a value or a sum.
    is_measured: bool,
}

struct Reader<'a> {
    tokens: Tokens<'a>,
    keys: KeyWatch<'a>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<Token<'a>>, SenmlError> {
        let Some(token) = self.tokens.next_token()? else { return Ok(None) };
        self.keys.see(token.kind).map_err(|DuplicateKey { key }| {
            let at = self.tokens.position(token.start);
            SenmlError::DuplicateKey { key, at }
        })?;
        Ok(Some(token))
    }

    /// Reads on to the end of the value that `first` begins.
    fn skip(&mut self, first: Token<'a>) -> Result<(), SenmlError> {
        let mut depth = 0_usize;
        let mut token = Some(first);
        while let Some(Token { kind, .. }) = token {
            match kind {
                Kind::ObjectStart | Kind::ArrayStart => depth += 1,
                Kind::ObjectEnd | Kind::ArrayEnd => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            token = self.next()?;
        }
        Ok(())
    }

    fn record(&mut self, record: usize, first: Token<'a>) -> Result<Record<'a>, SenmlError> {
        if first.kind != Kind::ObjectStart {
            return Err(SenmlError::NotAnObject { record, got: first.kind.describe() });
        }
        let mut taken = Record::default();
        while let Some(token) = self.next()?
            && let Kind::Key(key) = token.kind
        {
            let Some(value) = self.next()? else { break };
            taken.field(record, key, value.kind)?;
            self.skip(value)?;
        }
        match taken {
            Record { has_base: false, is_measured: false, .. } => Err(SenmlError::NoValue { record }),
            taken => Ok(taken),
        }
    }
}

impl<'a> Record<'a> {
    fn field(&mut self, record: usize, key: &'a str, value: Kind<'a>) -> Result<(), SenmlError> {
        let key = ascii_spelling(key);
        let Some((field, expected)) = FIELDS.into_iter().find(|(field, _)| *field == key) else {
            // The others may be passed over.
            return match key.ends_with('_') {
                true => Err(SenmlError::UnknownField { record, field: shorten(&key) }),
                false => Ok(()),
            };
        };
        let wrong = || SenmlError::Field { record, field, got: value.describe(), expected: expected.words() };
        if !expected.fits(value) {
            return Err(wrong());
        }
        match (field, value) {
            ("bn", Kind::Text(content)) => self.base_name = Some(unescape(content).ok_or_else(wrong)?),
            ("n", Kind::Text(content)) => self.name = Some(unescape(content).ok_or_else(wrong)?),
            ("bver", Kind::Number(number)) if number.parse() != Ok(VERSION_MAX) => {
                return Err(SenmlError::Version { record });
            }
            ("v" | "vs" | "vb" | "vd", _) => {
                if self.has_value {
                    return Err(SenmlError::TwoValues { record });
                }
                self.has_value = true;
            }
            _ => {}
        }
        self.is_measured |= matches!(field, "v" | "vs" | "vb" | "vd" | "s");
        self.has_base |= field.starts_with('b');
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Expected {
    Text,
    Number,
    Boolean,
}

impl Expected {
    fn fits(self, kind: Kind<'_>) -> bool {
        match self {
            Self::Text => matches!(kind, Kind::Text(_)),
            Self::Number => matches!(kind, Kind::Number(_)),
            Self::Boolean => matches!(kind, Kind::Literal("true" | "false")),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Boolean => "true or false",
        }
    }
}

/// The fields of RFC 8428, section 4.
const FIELDS: [(&str, Expected); 15] = [
    ("bn", Expected::Text),
    ("bt", Expected::Number),
    ("bu", Expected::Text),
    ("bv", Expected::Number),
    ("bs", Expected::Number),
    ("bver", Expected::Number),
    ("n", Expected::Text),
    ("u", Expected::Text),
    ("v", Expected::Number),
    ("vs", Expected::Text),
    ("vb", Expected::Boolean),
    ("vd", Expected::Text),
    ("s", Expected::Number),
    ("t", Expected::Number),
    ("ut", Expected::Number),
];

/// RFC 8428, section 4.5.1: names go into URIs and topics.
fn check_name(base_name: &str, name: &str) -> Option<()> {
    let mut bytes = base_name.bytes().chain(name.bytes());
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-:./_".contains(&byte);
    (bytes.next()?.is_ascii_alphanumeric() && bytes.all(is_good)).then_some(())
}

fn device_of<'n>(base_name: &'n str, name: &'n str) -> &'n str {
    let base = base_name.trim_end_matches([':', '/', '_']);
    if !base.is_empty() {
        return base;
    }
    let end = if name.starts_with("urn:") { name.find(['_', '/']) } else { name.rfind([':', '/']) };
    end.map_or(name, |end| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(pack: &str) -> Result<String, SenmlError> {
        read(pack, 10)?.device().map(|device| device.to_string())
    }

    #[test]
    fn finds_the_device_in_the_names() {
        for (pack, expected) in [
            (r#"[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]"#, "urn:dev:ow:10e2073a01080063"),
            (r#"[{"n":"urn:dev:mac:0024befffe804ff1_temp","v":1}]"#, "urn:dev:mac:0024befffe804ff1"),
            (
                r#"[{"bn":"urn:dev:mac:0024befffe804ff1_","n":"t","v":1},{"n":"h","v":1}]"#,
                "urn:dev:mac:0024befffe804ff1",
            ),
            (
                r#"[{"bn":"urn:dev:ow:10e2073a01080063","bt":1,"bver":10},{"u":"V","v":1},{"t":2,"v":1}]"#,
                "urn:dev:ow:10e2073a01080063",
            ),
            (
                r#"[{"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","v":25.2},{"n":"humidity","v":30}]"#,
                "2001:db8::2",
            ),
            (r#"[{"n":"house/kitchen/temperature","vs":"warm"}]"#, "house/kitchen"),
            (r#"[{"n":"kitchen:door","vb":true},{"n":"kitchen:window","vb":false}]"#, "kitchen"),
            (r#"[{"n":"thermometer_1","s":12}]"#, "thermometer_1"),
            (r#"[{"\u0062n":"a\/","n":"b","vd":"aGk","custom":{"any":[1]}}]"#, "a"),
            (r#"[{"bn":"a:","n":"x","v":1},{"bn":"a/","n":"y","v":1}]"#, "a"),
        ] {
            assert_eq!(device(pack).as_deref(), Ok(expected), "{pack}");
        }
    }

    #[test]
    fn names_the_rule_that_a_pack_breaks() {
        for (pack, expected) in [
            ("", "not_json"),
            ("[", "not_json"),
            (r#"[{"n":"a","v":1}"#, "not_json"),
            (r#"[{"n":"a","v":1}]x"#, "not_json"),
            (r#"[{"n":"a","v":1,"x":[[[[[[[[[1]]]]]]]]]}]"#, "too_deep"),
            (r#"{"n":"a","v":1}"#, "bad_senml"),
            ("null", "bad_senml"),
            ("[]", "empty_list"),
            ("[1]", "bad_senml"),
            ("[[]]", "bad_senml"),
            ("[{}]", "bad_senml"),
            (r#"[{"n":"a"}]"#, "bad_senml"),
            (r#"[{"n":"a","v":1,"vs":"x"}]"#, "bad_senml"),
            (r#"[{"n":"a","v":1,"v":1}]"#, "duplicate_key"),
            (r#"[{"n":"a","v":1,"x":{"y":1,"\u0079":2}}]"#, "duplicate_key"),
            (r#"[{"n":"a","v":"1"}]"#, "bad_senml"),
            (r#"[{"n":"a","vs":1}]"#, "bad_senml"),
            (r#"[{"n":"a","vb":null}]"#, "bad_senml"),
            (r#"[{"n":"a","v":1,"t":"now"}]"#, "bad_senml"),
            (r#"[{"n":7,"v":1}]"#, "bad_senml"),
            (r#"[{"bn":"\ud83d","v":1}]"#, "bad_senml"),
            (r#"[{"v":1}]"#, "bad_senml"),
            (r#"[{"n":"","v":1}]"#, "bad_senml"),
            (r#"[{"n":":a","v":1}]"#, "bad_senml"),
            (r#"[{"n":"a b","v":1}]"#, "bad_senml"),
            (r#"[{"n":"é","v":1}]"#, "bad_senml"),
            (r#"[{"bver":11,"n":"a","v":1}]"#, "bad_senml"),
            (r#"[{"bver":10.0,"n":"a","v":1}]"#, "bad_senml"),
            (r#"[{"n":"a","v":1,"lat_":5}]"#, "bad_senml"),
            (r#"[{"bn":"a"}]"#, "missing_device"),
            (r#"[{"n":"a/x","v":1},{"n":"b/x","v":1}]"#, "several_devices"),
        ] {
            assert_eq!(device(pack).map_err(|error| error.code()), Err(expected), "{pack}");
        }
        let long = format!(r#"[{{"n":"{}","v":1}}]"#, "a".repeat(129));
        assert_eq!(device(&long).map_err(|error| error.code()), Err("bad_device"));
        let refused = read(r#"[{"n":"a","v":1},{"n":"a","v":true}]"#, 10).unwrap_err();
        assert_eq!(refused.to_string(), "`v` of SenML record 1 is true: expected a number");
    }
}
