//! The operator's key: signs what is said about the chain itself, not what devices say.

use liotbchain_sender::SigningKey;
use liotbchain_sender::signer::KeyKind;

use crate::Failure;
use crate::settings::Settings;

/// Name of the key file in the data folder.
pub const OPERATOR_KEY_FILE: &str = "operator_key.pem";

/// Returns the operator's key, made at first need, in a file that only its owner can read.
///
/// # Errors
///
/// Where the file cannot be read or written, or holds no key of this kind. It is never overwritten.
pub fn load_or_create(settings: &Settings) -> Result<SigningKey, Failure> {
    let path = settings.data_dir.join(OPERATOR_KEY_FILE);
    SigningKey::load_or_create(&path, KeyKind::Ed25519)
        .map_err(|error| Failure::failed(format!("there is no operator's key: {error}")))
}
