//! What a device handed over: whose it is, its text, and by what it tells one reading from the next.

use std::{fmt, sync::Arc};

use liotbchain_core::{PublicKey, Statement};

use crate::json_keys::JSON_DEPTH_MAX;

/// Bytes that the name of a device may have.
pub const DEVICE_NAME_SIZE_MAX: usize = 128;
/// Bytes that the text of a reading may have: with what the gateway puts around it, it must fit into a payload of
/// 65,536 bytes.
pub const READING_SIZE_MAX: usize = 64_512;
/// Levels of lists and objects that a reading may have: the record around it is one more.
pub const READING_DEPTH_MAX: usize = JSON_DEPTH_MAX - 1;
/// Bytes that the identity of a reading may have.
pub const IDENTITY_SIZE_MAX: usize = 256;

/// The name of a device: 1 to 128 bytes of UTF-8 without control characters, `+` and `#`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(Arc<str>);

/// Why a name is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceNameError {
    /// No byte, or too many.
    #[error("the name of the device has {0} bytes: expected 1 to {DEVICE_NAME_SIZE_MAX}")]
    Size(usize),
    /// It holds what no MQTT topic or log line should.
    #[error("the name of the device holds {0:?}: control characters, + and # are not allowed")]
    Character(char),
}

impl DeviceName {
    /// Takes a name.
    ///
    /// # Errors
    ///
    /// [`DeviceNameError`] says what is wrong with it.
    pub fn new(name: &str) -> Result<Self, DeviceNameError> {
        if name.is_empty() || name.len() > DEVICE_NAME_SIZE_MAX {
            return Err(DeviceNameError::Size(name.len()));
        }
        match name.chars().find(|it| it.is_control() || matches!(it, '+' | '#')) {
            Some(character) => Err(DeviceNameError::Character(character)),
            None => Ok(Self(name.into())),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One reading, checked: nothing in it will be refused later for its form.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Who measured.
    pub device: DeviceName,
    /// By what the device tells this reading from its others, where it does: the same again is a repetition and makes
    /// no second record. At most [`IDENTITY_SIZE_MAX`] bytes.
    pub identity: Option<String>,
    /// What was measured.
    pub body: Body,
}

/// The text of a reading, and who vouches for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// One JSON value as the device wrote it, at most [`READING_SIZE_MAX`] bytes, without a key that stands twice in an
    /// object. The gateway puts it into a record and signs that.
    Plain(String),
    /// A text that the gateway signs as it is. Only the simulated devices of the Python original have it.
    Bare(String),
    /// The device signed it, and the signature was verified. Both are forwarded untouched.
    Signed(Box<Statement>, Box<PublicKey>),
}
