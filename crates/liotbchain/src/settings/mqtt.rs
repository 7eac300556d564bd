//! The settings of MQTT, which mean something only together.

use std::path::{Path, PathBuf};

use liotbchain_core::KeyId;
use liotbchain_sender::mqtt::{MqttConfig, MqttConfigError, MqttSettings};

use super::configuration::Configuration;
use super::value::{Secret, Value};

/// Hexadecimal digits of the key's id that a client is named by: with 12 of them two senders of 10,000 have the same
/// with a probability of one in five million.
const KEY_ID_DIGITS: usize = 12;

/// What the settings say of a broker.
#[derive(Clone, Debug)]
pub struct Mqtt {
    url: String,
    user: Option<String>,
    password: Option<Secret>,
    /// A relative path lies in `DATA_DIR` already.
    ca_file: Option<PathBuf>,
    version: &'static str,
    client_id: Option<String>,
    topics: String,
    site: String,
}

impl Mqtt {
    /// Takes the settings as they stand there; nothing where no broker is named.
    pub(super) fn of(configuration: &Configuration) -> Option<Self> {
        let value = |name| configuration.get(name).value.as_ref();
        let text = |name| value(name).and_then(Value::text);
        let data_dir = text("DATA_DIR")?;
        Some(Self {
            url: text("MQTT_URL")?,
            user: text("MQTT_USER"),
            password: value("MQTT_PASSWORD").and_then(Value::secret),
            ca_file: text("MQTT_CA_FILE").map(|path| Path::new(&data_dir).join(path)),
            version: value("MQTT_VERSION")?.word()?,
            client_id: text("MQTT_CLIENT_ID"),
            topics: text("MQTT_TOPICS")?,
            site: text("MQTT_SITE")?,
        })
    }

    /// Checks them together.
    ///
    /// # Errors
    ///
    /// [`MqttConfigError`] says what does not go together, or cannot be read.
    pub(super) fn check(&self) -> Result<(), MqttConfigError> {
        self.config("liotbchain").map(drop)
    }

    /// Returns what the sender with this key is to do.
    ///
    /// # Errors
    ///
    /// [`MqttConfigError`] as [`check`](Self::check): a file of certificates may have changed since.
    pub fn of_sender(&self, key_id: KeyId) -> Result<MqttConfig, MqttConfigError> {
        let mut client_id = key_id.to_string();
        client_id.truncate(KEY_ID_DIGITS);
        self.config(&format!("liotbchain-{client_id}"))
    }

    fn config(&self, client_id: &str) -> Result<MqttConfig, MqttConfigError> {
        MqttConfig::new(MqttSettings {
            url: &self.url,
            user: self.user.as_deref(),
            password: self.password.as_ref().map(Secret::reveal),
            ca_file: self.ca_file.as_deref(),
            version: self.version,
            client_id: self.client_id.as_deref().unwrap_or(client_id),
            topics: &self.topics,
            site: &self.site,
        })
    }
}
