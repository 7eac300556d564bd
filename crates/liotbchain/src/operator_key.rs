//! The key that a chain's operator signs with: checkpoints, and what is said on the chain in the operator's name.

use liotbchain_sender::{KeyKind, SigningKey};

use crate::failure::Failure;
use crate::settings::Settings;

/// Its file in `DATA_DIR`. Receivers that share a database need the same.
pub const OPERATOR_KEY_FILE: &str = "operator_key.pem";

/// Reads the key, or makes one.
///
/// # Errors
///
/// Where it cannot be read or made, or is no Ed25519 key.
pub fn load_or_create(settings: &Settings) -> Result<SigningKey, Failure> {
    Ok(SigningKey::load_or_create(&settings.data_dir.join(OPERATOR_KEY_FILE), KeyKind::Ed25519)?)
}
