//! `liotbchain keys generate` and `keys show`. The private half is never printed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use liotbchain_sender::{KEY_FILE, SignerError, SigningKey};
use serde::Serialize;

use crate::Failure;
use crate::output::{print, print_json, say};
use crate::settings::Settings;

/// Makes a key, and shows its public half.
///
/// # Errors
///
/// Where the file exists, or cannot be written.
pub fn generate(settings: &Settings, out: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    let path = out.unwrap_or_else(|| settings.data_dir.join(KEY_FILE));
    let key = SigningKey::create(&path, settings.sender_key).map_err(|error| match error {
        SignerError::Exists { path } => {
            Failure::failed(format!("{} exists and is left as it is", path.display()))
                .with_hint("`liotbchain keys show` shows it; --out makes one elsewhere")
        }
        error => error.into(),
    })?;
    say(format_args!("wrote the private key to {}: keep it to yourself", path.display()));
    describe(&key, &path, json)
}

/// Shows the public half of a key.
///
/// # Errors
///
/// Where the file is missing, or no private key of ours.
pub fn show(settings: &Settings, file: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    let path = file.unwrap_or_else(|| settings.data_dir.join(KEY_FILE));
    let key = SigningKey::load(&path).map_err(|error| match error {
        SignerError::Read { path, source } if source.kind() == ErrorKind::NotFound => {
            Failure::failed(format!("there is no key in {}", path.display()))
                .with_hint("`liotbchain keys generate` makes one, and so does the first start of a sender")
        }
        error => error.into(),
    })?;
    describe(&key, &path, json)
}

#[derive(Serialize)]
struct Described {
    file: String,
    kind: String,
    algorithm: String,
    key_id: String,
    public_key: String,
}

fn describe(key: &SigningKey, path: &Path, json: bool) -> Result<(), Failure> {
    let public_key = key.public_key();
    let described = Described {
        file: path.display().to_string(),
        kind: key.kind().to_string(),
        algorithm: public_key.algorithm().to_string(),
        key_id: public_key.key_id().to_string(),
        public_key: public_key.to_pem(),
    };
    if json {
        return print_json(&described);
    }
    let Described { algorithm, key_id, public_key, .. } = described;
    print(&format!("algorithm   {algorithm}\nkey id      {key_id}\n{public_key}"))
}
