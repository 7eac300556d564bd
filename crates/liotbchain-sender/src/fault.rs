//! What can be wrong with one reading: a variant a rule, with what was got and what to do about it.

use liotbchain_core::{PublicKeyError, key::SignatureError, transaction::StatementError};

use crate::{
    json_text::{JsonError, Position},
    reading::{DeviceNameError, IDENTITY_SIZE_MAX, READING_SIZE_MAX},
};

/// Why one reading is refused. None of the texts holds what the reading says, since they go into logs and answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is another kind of JSON value.
    #[error("a reading is an object such as {{\"device\": \"greenhouse-1\", \"celsius\": 21.5}}, not {got}")]
    NotAnObject {
        /// What it is.
        got: &'static str,
    },
    /// A key stands twice in one object.
    #[error("the key \"{key}\" stands twice in one object, the second time at {at}: send it once")]
    DuplicateKey {
        /// The key in JSON escapes, shortened if it is long.
        key: String,
        /// Where it stands the second time.
        at: Position,
    },
    /// The text is too long for a record.
    #[error(
        "the reading has {size} bytes, more than the {READING_SIZE_MAX} that a record can hold: send it in parts"
    )]
    ReadingTooLarge {
        /// Its bytes.
        size: usize,
    },
    /// Nothing says whose it is.
    #[error(
        "nothing says whose reading it is: give it a string `device`, or send it to /readings?device=NAME"
    )]
    MissingDevice,
    /// `device` is not a string.
    #[error("`device` is {got}: send a string, or the device's name as /readings?device=NAME")]
    DeviceNotText {
        /// What it is.
        got: &'static str,
    },
    /// `device` holds half a surrogate pair, which is no text.
    #[error("`device` holds an escape for half a character: send the whole name")]
    DeviceBroken,
    /// The name is of no use.
    #[error("{0}: give the device another name, or send its name as /readings?device=NAME")]
    Device(#[from] DeviceNameError),
    /// `reading_id` is another kind of JSON value.
    #[error(
        "`reading_id` is not 1 to {IDENTITY_SIZE_MAX} bytes of text and not a whole number: it tells a reading from all \
         others of the device"
    )]
    ReadingId,

    /// An object with `signature` and `public_key` holds no text that was signed.
    #[error("`payload` is missing: next to `signature` and `public_key` send the text that was signed")]
    MissingPayload,
    /// It holds two.
    #[error("`payload` and `data` stand in one object: send one of them")]
    PayloadAndData,
    /// A member that is not signed would be lost on the way.
    #[error(
        "\"{key}\" stands beside the signature and is not signed: put it into `payload`, or leave it out"
    )]
    UnknownKey {
        /// The key in JSON escapes, shortened if it is long.
        key: String,
    },
    /// The key is named, and only the receiver knows keys by their names.
    #[error("`key_id` cannot be used here: send the key itself as `public_key`")]
    KeyNotKnown,
    /// `payload` is another kind of JSON value.
    #[error("`payload` is {got}: send a string that holds the text that was signed")]
    PayloadNotText {
        /// What it is.
        got: &'static str,
    },
    /// `payload` holds half a surrogate pair.
    #[error("`payload` holds an escape for half a character: send the text that was signed")]
    PayloadBroken,
    /// What was signed is not JSON, or too deep.
    #[error("`payload`: {0}")]
    PayloadNotJson(JsonError),
    /// `signature` is another kind of JSON value.
    #[error("`signature` is {got}: send a string, the signature's bytes in base64")]
    SignatureNotText {
        /// What it is.
        got: &'static str,
    },
    /// `signature` is not base64.
    #[error(
        "`signature` is not base64: use the standard alphabet, with `+` and `/`, and with `=` at the end"
    )]
    Base64,
    /// `public_key` is another kind of JSON value, or holds half a surrogate pair.
    #[error("`public_key` is not a text: send a string, the public key in PEM")]
    PublicKeyNotText,
    /// `public_key` holds a private key.
    #[error(
        "`public_key` holds a private key: send the public key only, and replace this key pair, as the private key has \
         been exposed"
    )]
    PrivateKeySent,
    /// The key is none.
    #[error("`public_key`: {0}")]
    PublicKey(PublicKeyError),
    /// The signature is not of this text by this key.
    #[error("{0}: sign the bytes of `payload` (or of `data` as they stand in the request), and send those")]
    Signature(SignatureError),
    /// The text or its signature breaks the chain's limits.
    #[error(transparent)]
    Statement(StatementError),
}

impl Fault {
    /// Returns the stable word for programs: that of the receiver, where it knows the same fault.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAnObject { .. } => "not_an_object",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::ReadingTooLarge { .. } | Self::Statement(StatementError::PayloadSize { size: 1.. }) => {
                "payload_too_large"
            }
            Self::MissingDevice => "missing_device",
            Self::DeviceNotText { .. } | Self::DeviceBroken | Self::Device(_) => "bad_device",
            Self::ReadingId => "bad_reading_id",
            Self::MissingPayload => "missing_key",
            Self::PayloadAndData => "two_payloads",
            Self::UnknownKey { .. } => "unknown_key",
            Self::KeyNotKnown => "key_not_known",
            Self::PayloadNotText { .. } => "bad_payload_type",
            Self::PayloadBroken
            | Self::PayloadNotJson(_)
            | Self::Statement(StatementError::PayloadSize { .. }) => "bad_payload",
            Self::SignatureNotText { .. } => "bad_signature_type",
            Self::Base64 => "bad_base64",
            Self::PublicKeyNotText => "bad_public_key_type",
            Self::PrivateKeySent | Self::PublicKey(PublicKeyError::Private) => "private_key_sent",
            Self::PublicKey(_) => "bad_public_key",
            Self::Signature(_) | Self::Statement(_) => "invalid_signature",
        }
    }
}
