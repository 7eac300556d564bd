//! What the MQTT client is told: which broker, as whom, and which topics.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use rustls::ClientConfig;
use url::{Host, Url};

use super::{
    tls,
    topic::{Topics, TopicsError},
};

/// Bytes that a client id and the name of a site may have: both are levels of a topic.
const NAME_SIZE_MAX: usize = 128;

/// The settings as they were written.
#[derive(Clone, Copy)]
pub struct MqttSettings<'a> {
    /// `MQTT_URL`: `mqtt://host:1883` or `mqtts://host:8883`.
    pub url: &'a str,
    /// `MQTT_USER`.
    pub user: Option<&'a str>,
    /// `MQTT_PASSWORD`.
    pub password: Option<&'a str>,
    /// `MQTT_CA_FILE`: certificates that the broker's may lead to, instead of those the system trusts.
    pub ca_file: Option<&'a Path>,
    /// `MQTT_VERSION`: `5` or `3.1.1`.
    pub version: &'a str,
    /// `MQTT_CLIENT_ID`: by it the broker knows the sender again.
    pub client_id: &'a str,
    /// `MQTT_TOPICS`: see [`Topics::parse`].
    pub topics: &'a str,
    /// `MQTT_SITE`: level of the topic under which the sender tells whether it is there.
    pub site: &'a str,
}

/// The settings, checked. `Debug` shows no password.
#[derive(Debug, Clone)]
pub struct MqttConfig {
    pub(super) broker: Broker,
    pub(super) login: Option<Login>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) topics: Topics,
    pub(super) site: String,
}

/// Why the settings are of no use.
#[derive(Debug, thiserror::Error)]
pub enum MqttConfigError {
    /// The address is of no broker. It is not repeated: it may hold a password.
    #[error(
        "MQTT_URL is not the address of a broker: expected mqtt://host:1883, or mqtts://host:8883 with TLS, and nothing after it"
    )]
    Url,
    /// It holds what belongs elsewhere.
    #[error(
        "MQTT_URL holds a user or a password, which would show in logs: give them in MQTT_USER and MQTT_PASSWORD"
    )]
    UserInUrl,
    /// MQTT 3.1.1 has no place for it.
    #[error("MQTT_PASSWORD is set and MQTT_USER is not: set both, or neither")]
    PasswordAlone,
    /// Neither of the two.
    #[error("MQTT_VERSION is {0:?}: expected 5 or 3.1.1")]
    Version(String),
    /// It cannot be a level of a topic.
    #[error(
        "{name} is {value:?}: expected 1 to {NAME_SIZE_MAX} bytes without /, +, # and control characters"
    )]
    Name {
        /// The setting.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// The table of topics is wrong.
    #[error("MQTT_TOPICS: {0}")]
    Topics(#[from] TopicsError),
    /// The certificates are not to be had.
    #[error("MQTT_CA_FILE {}: {problem}: expected a file of certificates in PEM", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It would not be used.
    #[error("MQTT_CA_FILE is set and MQTT_URL has no TLS: expected mqtts://")]
    CaFileWithoutTls,
    /// The system trusts nobody.
    #[error("TLS cannot be set up: {0}: install the package ca-certificates, or set MQTT_CA_FILE")]
    Roots(String),
}

/// Where the broker listens. It shows as the address without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broker {
    pub host: Host,
    pub port: u16,
    pub is_tls: bool,
}

/// As whom the sender connects.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub user: String,
    pub password: Option<Password>,
}

/// A password that never shows itself by accident.
#[derive(Clone)]
pub(super) struct Password(String);

impl Password {
    /// Returns it, for the one packet that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The versions of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V5,
    V311,
}

impl MqttConfig {
    /// Checks the settings, and reads the certificates where TLS is asked for.
    ///
    /// # Errors
    ///
    /// [`MqttConfigError`] names the setting that is of no use.
    pub fn new(settings: MqttSettings<'_>) -> Result<Self, MqttConfigError> {
        let broker: Broker = settings.url.parse()?;
        let login = match (settings.user, settings.password) {
            (None, None) => None,
            (None, Some(_)) => return Err(MqttConfigError::PasswordAlone),
            (Some(user), password) => {
                Some(Login { user: user.to_owned(), password: password.map(|it| Password(it.to_owned())) })
            }
        };
        let version = match settings.version {
            "5" => Version::V5,
            "3.1.1" => Version::V311,
            other => return Err(MqttConfigError::Version(other.to_owned())),
        };
        let client_id = level("MQTT_CLIENT_ID", settings.client_id)?;
        let site = level("MQTT_SITE", settings.site)?;
        let topics = Topics::parse(settings.topics)?;
        let tls = match (broker.is_tls, settings.ca_file) {
            (true, ca_file) => Some(Arc::new(tls::client_config(ca_file)?)),
            (false, Some(_)) => return Err(MqttConfigError::CaFileWithoutTls),
            (false, None) => None,
        };
        Ok(Self { broker, login, tls, version, client_id, topics, site })
    }

    /// Returns the broker's address, without any secret.
    pub fn url(&self) -> String {
        self.broker.to_string()
    }

    /// Returns the topic under which a retained `online` or `offline` says whether the sender is there.
    pub fn status_topic(&self) -> String {
        format!("liotbchain/v1/{}/{}/status", self.site, self.client_id)
    }
}

impl FromStr for Broker {
    type Err = MqttConfigError;

    fn from_str(text: &str) -> Result<Self, MqttConfigError> {
        let url = Url::parse(text).map_err(|_| MqttConfigError::Url)?;
        let is_tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(MqttConfigError::Url),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(MqttConfigError::UserInUrl);
        }
        let has_more = !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some();
        let host = url.host().filter(|host| *host != Host::Domain("") && !has_more);
        let host = host.ok_or(MqttConfigError::Url)?.to_owned();
        Ok(Self { host, port: url.port().unwrap_or(if is_tls { 8883 } else { 1883 }), is_tls })
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

fn level(name: &'static str, value: &str) -> Result<String, MqttConfigError> {
    let is_level = !value.is_empty()
        && value.len() <= NAME_SIZE_MAX
        && !value.contains(|it: char| it.is_control() || matches!(it, '/' | '+' | '#'));
    if is_level { Ok(value.to_owned()) } else { Err(MqttConfigError::Name { name, value: value.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: MqttSettings<'static> = MqttSettings {
        url: "mqtt://127.0.0.1",
        user: None,
        password: None,
        ca_file: None,
        version: "5",
        client_id: "liotbchain-0123456789ab",
        topics: "liotbchain/v1/+/+/up=4",
        site: "default",
    };

    #[test]
    fn the_port_is_the_usual_one_unless_given() {
        let shown = |url| MqttConfig::new(MqttSettings { url, ..SETTINGS }).unwrap().url();
        assert_eq!(shown("mqtt://broker.example"), "mqtt://broker.example:1883");
        assert_eq!(shown("mqtt://[::1]:2000/"), "mqtt://[::1]:2000");
        let broker: Broker = "mqtts://broker.example".parse().unwrap();
        assert_eq!(broker.to_string(), "mqtts://broker.example:8883");
    }

    #[test]
    fn refuses_addresses_of_no_broker_without_repeating_them() {
        let text = "http://h mqtt: mqtt:// mqtt:///x mqtt://h/topic mqtt://h?x=1 mqtt://h#x mqtt://:1 h:1883 \
                    mqtt://u:geheim@h mqtt://u@h mqtt://h:99999";
        for url in text.split(' ') {
            let error = MqttConfig::new(MqttSettings { url, ..SETTINGS }).unwrap_err();
            assert!(matches!(error, MqttConfigError::Url | MqttConfigError::UserInUrl), "{url}: {error}");
            assert!(!error.to_string().contains("geheim"));
        }
    }

    #[test]
    fn shows_no_password() {
        let settings = MqttSettings { user: Some("pi"), password: Some("geheim"), ..SETTINGS };
        let shown = format!("{:?}", MqttConfig::new(settings).unwrap());
        assert!(shown.contains("pi") && !shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn refuses_what_cannot_be() {
        let error = |settings| MqttConfig::new(settings).unwrap_err().to_string();
        assert!(error(MqttSettings { password: Some("x"), ..SETTINGS }).contains("MQTT_USER is not"));
        assert!(error(MqttSettings { version: "3", ..SETTINGS }).contains("expected 5 or 3.1.1"));
        assert!(error(MqttSettings { client_id: "a/b", ..SETTINGS }).contains("MQTT_CLIENT_ID"));
        assert!(error(MqttSettings { site: "", ..SETTINGS }).contains("MQTT_SITE"));
        assert!(error(MqttSettings { topics: "x", ..SETTINGS }).starts_with("MQTT_TOPICS: "));
        let file = Path::new("/no/such/file.pem");
        assert!(error(MqttSettings { ca_file: Some(file), ..SETTINGS }).contains("no TLS"));
        let settings = MqttSettings { url: "mqtts://h", ca_file: Some(file), ..SETTINGS };
        assert!(error(settings).contains("MQTT_CA_FILE /no/such/file.pem"));
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        let settings = MqttSettings { url: "mqtts://h", ca_file: Some(file.path()), ..SETTINGS };
        assert!(matches!(MqttConfig::new(settings), Err(MqttConfigError::CaFile { .. })));
    }

    #[test]
    fn the_status_has_a_topic_of_its_own() {
        let config = MqttConfig::new(SETTINGS).unwrap();
        assert_eq!(config.status_topic(), "liotbchain/v1/default/liotbchain-0123456789ab/status");
    }
}
