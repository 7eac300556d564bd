//! From the bytes that a device handed over to readings: the same for a request and for an MQTT message.
//!
//! A reading is a JSON object. Other values are refused, although a record could hold them: `[20, 21]` would be one
//! reading to one program and two to the next, and a bare number tells nobody later what was measured.
//!
//! What the receiver would refuse is refused here, while the device is still there to hear of it: keys that stand twice,
//! too many levels, texts too long for a record, bad signatures. A text is kept as it was sent, byte for byte; it is read
//! with the receiver's own scanner and never written again.

use crate::{
    fault::Fault,
    json_keys::JSON_DEPTH_MAX,
    json_text::{JsonError, Kind, Position, Token, Tokens},
    members::Members,
    reading::{Body, DeviceName, IDENTITY_SIZE_MAX, READING_DEPTH_MAX, READING_SIZE_MAX, Reading},
    senml::{self, SenmlError},
    signed::Verifier,
};

/// Readings that one body may hold.
pub const READINGS_MAX: usize = 8_000;
/// Levels that an item may have where a device signed the text of its `data`.
const ITEM_DEPTH_MAX: usize = JSON_DEPTH_MAX + 1;
/// Bytes that an id given beside the body may have, so that the number of an item fits behind it.
pub const IDEMPOTENCY_KEY_SIZE_MAX: usize = IDENTITY_SIZE_MAX - 16;
/// How many readings at fault an error lists.
const LISTED_MAX: usize = 100;

/// What a body is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One object, or a list of objects that are a reading each.
    Json,
    /// An object a line; empty lines are passed over.
    Lines,
    /// A SenML pack (RFC 8428), which is one reading.
    Senml,
}

/// Why a body was refused; nothing of it was taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// The body is in another encoding, or damaged.
    #[error("the readings are not UTF-8: byte {offset} cannot stand there; send JSON as UTF-8")]
    NotUtf8 {
        /// The first byte that is not, counted from 0.
        offset: usize,
    },
    /// The body is not JSON, or too deep.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// There is nothing to take.
    #[error("there is no reading: send at least one")]
    Empty,
    /// There are too many.
    #[error("there are more than {READINGS_MAX} readings: send them in parts")]
    TooMany,
    /// The id beside the body is of no use.
    #[error(
        "the id beside the readings has {size} bytes, or control characters in it: expected 1 to \
         {IDEMPOTENCY_KEY_SIZE_MAX} bytes of text in Idempotency-Key (over MQTT in reading_id)"
    )]
    IdempotencyKey {
        /// Its bytes.
        size: usize,
    },
    /// The pack breaks RFC 8428.
    #[error("{0}")]
    Senml(#[from] SenmlError),
    /// The only reading, with its place 0, is at fault.
    #[error("{}", .0.1)]
    Reading((usize, Fault)),
    /// Some of a list are at fault.
    #[error("{}", faults_in_words(*.count, .listed))]
    Readings {
        /// Readings in the body.
        count: usize,
        /// The first 100 that are at fault, by their place in the body from 0.
        listed: Vec<(usize, Fault)>,
    },
}

impl IntakeError {
    /// Returns the stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::Json(JsonError::Syntax { .. }) => "not_json",
            Self::Json(JsonError::TooDeep { .. }) => "too_deep",
            Self::Empty => "empty_list",
            Self::TooMany => "too_many_items",
            Self::IdempotencyKey { .. } => "bad_idempotency_key",
            Self::Senml(error) => error.code(),
            Self::Reading((_, fault)) => fault.code(),
            Self::Readings { .. } => "invalid_items",
        }
    }

    /// Returns the readings at fault, by their place in the body from 0; the first 100 where there are more.
    pub fn faults(&self) -> &[(usize, Fault)] {
        match self {
            Self::Reading(fault) => std::slice::from_ref(fault),
            Self::Readings { listed, .. } => listed,
            _ => &[],
        }
    }
}

fn faults_in_words(count: usize, listed: &[(usize, Fault)]) -> String {
    let at_least = if listed.len() >= LISTED_MAX { "at least " } else { "" };
    let first = listed.first().map(|(index, fault)| format!("; item {index}: {fault}")).unwrap_or_default();
    format!("{at_least}{} of {count} readings at fault, none was taken{first}", listed.len())
}

/// Reads a body into its readings, in order.
///
/// `device` is known from the address or the topic, and goes before what a reading says. `idempotency_key` is the
/// identity that came beside the body; in a list the number of the item is added, also in a list of one.
///
/// # Errors
///
/// [`IntakeError`]; then none of it may be taken.
pub fn decode(
    body: &[u8],
    form: Form,
    device: Option<&DeviceName>,
    idempotency_key: Option<&str>,
) -> Result<Vec<Reading>, IntakeError> {
    let text = std::str::from_utf8(body);
    let text = text.map_err(|error| IntakeError::NotUtf8 { offset: error.valid_up_to() })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(key) = idempotency_key
        && (key.is_empty() || key.len() > IDEMPOTENCY_KEY_SIZE_MAX || key.contains(char::is_control))
    {
        return Err(IntakeError::IdempotencyKey { size: key.len() });
    }
    let mut intake = Intake { device, idempotency_key, ..Intake::default() };
    match form {
        Form::Json => intake.json(text)?,
        Form::Lines => intake.lines(text)?,
        Form::Senml => return intake.pack(text),
    }
    intake.finish()
}

/// What has been read of a body so far.
#[derive(Default)]
struct Intake<'d> {
    device: Option<&'d DeviceName>,
    idempotency_key: Option<&'d str>,
    is_single: bool,
    verifier: Verifier,
    count: usize,
    readings: Vec<Reading>,
    faults: Vec<(usize, Fault)>,
}

impl Intake<'_> {
    fn json(&mut self, text: &str) -> Result<(), IntakeError> {
        self.is_single = !text.trim_ascii_start().starts_with('[');
        let list_depth = if self.is_single { 0 } else { 1 };
        let mut tokens = Tokens::new(text, ITEM_DEPTH_MAX + list_depth);
        if let Some(first) = tokens.next_token()? {
            if self.is_single {
                self.item(text, &mut tokens, first)?;
            } else {
                while let Some(first) = tokens.next_token()?
                    && first.kind != Kind::ArrayEnd
                {
                    self.item(text, &mut tokens, first)?;
                }
            }
        }
        tokens.next_token()?;
        Ok(())
    }

    fn lines(&mut self, text: &str) -> Result<(), IntakeError> {
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let known = self.faults.len();
            self.line(line).map_err(|error| match error {
                IntakeError::Json(error) => error.in_line(number).into(),
                error => error,
            })?;
            for (_, fault) in &mut self.faults[known..] {
                if let Fault::DuplicateKey { at, .. } = fault {
                    *at = Position { line: number, ..*at };
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<(), IntakeError> {
        let mut tokens = Tokens::new(line, ITEM_DEPTH_MAX);
        if let Some(first) = tokens.next_token()? {
            self.item(line, &mut tokens, first)?;
        }
        tokens.next_token()?;
        Ok(())
    }

    /// Reads an item to its end, whatever is wrong with it.
    fn item<'t>(
        &mut self,
        text: &'t str,
        tokens: &mut Tokens<'t>,
        first: Token<'t>,
    ) -> Result<(), IntakeError> {
        if self.count == READINGS_MAX {
            return Err(IntakeError::TooMany);
        }
        let index = self.count;
        self.count += 1;
        if self.faults.len() == LISTED_MAX {
            tokens.rest_of_value(first).map_err(as_of_reading)?;
            return Ok(());
        }
        let members = Members::read(text, tokens, first).map_err(as_of_reading)?;
        if let Ok(members) = &members
            && let Some(offset) = members.too_deep
            && !members.is_signed_data()
        {
            let at = tokens.position(offset);
            return Err(JsonError::TooDeep { depth_max: READING_DEPTH_MAX, at }.into());
        }
        let reading = members.and_then(|members| self.reading(index, first.kind, &members));
        match reading {
            Ok(reading) => self.readings.push(reading),
            Err(fault) => self.faults.push((index, fault)),
        }
        Ok(())
    }

    fn reading(&mut self, index: usize, kind: Kind<'_>, members: &Members<'_>) -> Result<Reading, Fault> {
        if kind != Kind::ObjectStart {
            return Err(Fault::NotAnObject { got: kind.describe() });
        }
        let mut reading = match self.verifier.verify(members, self.device)? {
            Some(signed) => signed,
            None => Reading {
                device: self.device.cloned().map_or_else(|| members.device(), Ok)?,
                identity: members.identity()?,
                body: plain(members.text)?,
            },
        };
        if let Some(key) = self.idempotency_key {
            reading.identity = Some(if self.is_single { key.to_owned() } else { format!("{key}:{index}") });
        }
        Ok(reading)
    }

    fn pack(self, text: &str) -> Result<Vec<Reading>, IntakeError> {
        // Before it is read, since all keys of a pack would be remembered, also of one that no record can hold.
        let size = text.trim_matches([' ', '\t', '\n', '\r']).len();
        if size > READING_SIZE_MAX {
            return Err(IntakeError::Reading((0, Fault::ReadingTooLarge { size })));
        }
        let pack = senml::read(text, READING_DEPTH_MAX)?;
        let body = plain(pack.text).map_err(|fault| IntakeError::Reading((0, fault)))?;
        let device = self.device.cloned().map_or_else(|| pack.device(), Ok)?;
        Ok(vec![Reading { device, identity: self.idempotency_key.map(str::to_owned), body }])
    }

    fn finish(mut self) -> Result<Vec<Reading>, IntakeError> {
        match self.faults.pop() {
            None if self.count == 0 => Err(IntakeError::Empty),
            None => Ok(self.readings),
            Some(only) if self.is_single => Err(IntakeError::Reading(only)),
            Some(last) => {
                self.faults.push(last);
                Err(IntakeError::Readings { count: self.count, listed: self.faults })
            }
        }
    }
}

/// Names the limit that readings have, in place of that of the tokens around them.
fn as_of_reading(error: JsonError) -> JsonError {
    match error {
        JsonError::TooDeep { at, .. } => JsonError::TooDeep { depth_max: READING_DEPTH_MAX, at },
        error => error,
    }
}

fn plain(text: &str) -> Result<Body, Fault> {
    match text.len() {
        size if size > READING_SIZE_MAX => Err(Fault::ReadingTooLarge { size }),
        _ => Ok(Body::Plain(text.to_owned())),
    }
}

#[cfg(test)]
mod tests;
