//! What can be wrong with settings, in words, and the cure.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use liotbchain_sender::mqtt::MqttConfigError;
use thiserror::Error;

use super::sources::Origin;
use super::table::{Default, Setting};

/// Something wrong, or probably wrong, with the settings. [`Problem::hint`] says what to do about it.
#[derive(Debug, Error)]
pub enum Problem {
    #[error("{} is {got}, but must be {}", written(.setting, .origin), .setting.kind)]
    BadValue { setting: &'static Setting, origin: Origin, got: String },
    #[error("{} is empty, but must be {}", written(.setting, .origin), .setting.kind)]
    Empty { setting: &'static Setting, origin: Origin },
    #[error("unknown setting {key:?} in {}", .path.display())]
    UnknownKey { key: String, path: PathBuf },
    #[error("{key} in {place} is no setting of liotbchain", place = .origin.place())]
    NearMiss { key: String, origin: Origin, meant: &'static Setting },
    #[error("line {line} of {} cannot be read", .path.display())]
    BadLine { line: usize, path: PathBuf },
    #[error("{} is not valid TOML: {reason}, line {line}", .path.display())]
    BadToml { path: PathBuf, line: usize, reason: String },
    #[error("{} cannot be read: {cause}", .path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("{name} is {address}, which other machines can reach, but API_TOKEN is not set")]
    PublicWithoutToken { name: &'static str, address: SocketAddr },
    #[error(
        "PENDING_MAX is {pending}, less than TRANSACTIONS_PER_BLOCK, {block}: no block would ever be full"
    )]
    BlockNeverFull { pending: u64, block: u64 },
    #[error(transparent)]
    Mqtt(#[from] MqttConfigError),
}

impl Problem {
    /// Returns what to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::BadValue { setting, .. } | Self::Empty { setting, .. } => {
                match (setting.kind.hint(), &setting.default) {
                    (Some(hint), _) => hint.to_owned(),
                    (None, Default::Absent(words)) => format!("leave it out, and {words}"),
                    (None, default) => {
                        format!("leave it out to have the default: {}", default.words())
                    }
                }
            }
            Self::UnknownKey { key, .. } => match Setting::meant_by(key) {
                Some(setting) => format!("did you mean {:?}?", setting.key()),
                None => "`liotbchain config show` lists the settings there are".to_owned(),
            },
            Self::NearMiss { meant, .. } => format!("did you mean {}?", meant.name),
            Self::BadLine { .. } => "write NAME=value or NAME=\"value\"".to_owned(),
            Self::BadToml { .. } => "write lines such as difficulty = 2 or network_name = \"lab\"".to_owned(),
            Self::Unreadable { .. } => "make it a text file in UTF-8 that this user may read".to_owned(),
            Self::PublicWithoutToken { .. } => {
                "set API_TOKEN (`openssl rand -hex 24` makes one) or listen on 127.0.0.1".to_owned()
            }
            Self::Mqtt(error) => mqtt_hint(error).to_owned(),
            Self::BlockNeverFull { block, .. } => format!("set PENDING_MAX to {block} or more"),
        }
    }
}

fn mqtt_hint(error: &MqttConfigError) -> &'static str {
    match error {
        MqttConfigError::Url | MqttConfigError::UserInUrl => {
            "write mqtt://HOST:1883 or mqtts://HOST:8883; user and password belong into MQTT_USER and MQTT_PASSWORD"
        }
        MqttConfigError::PasswordAlone => "set MQTT_USER to the name that the broker knows the sender by",
        MqttConfigError::Version(_) => "leave MQTT_VERSION out to have the default: 5",
        MqttConfigError::Name { .. } => "leave it out to have the default",
        MqttConfigError::Topics(_) => {
            "write filters such as liotbchain/v1/+/+/up=4,tele/+/SENSOR=2: levels count from 1"
        }
        MqttConfigError::CaFile { .. } => {
            "name the file of the authority that signed the broker's certificate"
        }
        MqttConfigError::CaFileWithoutTls => "write mqtts:// into MQTT_URL, or leave MQTT_CA_FILE out",
        MqttConfigError::Roots(_) => "without either, TLS trusts nobody",
    }
}

/// Names the setting as its source writes it, and the source.
fn written(setting: &Setting, origin: &Origin) -> String {
    match origin {
        Origin::Flag => format!("--{}", setting.flag().unwrap_or_else(|| setting.key())),
        Origin::Toml(_) => format!("{} in {}", setting.key(), origin.place()),
        _ => format!("{} in {}", setting.name, origin.place()),
    }
}
