//! The settings of every command: one table, five sources, one typed value.
//!
//! [`Configuration`] says what was found and where, for people; [`Settings`] is what the program works with, and
//! exists only when everything in it is allowed.

mod configuration;
mod database;
mod dotenv;
mod mqtt;
mod problem;
mod sources;
mod table;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use liotbchain_sender::outbox::{OutboxLimits, WhenFull};
use liotbchain_sender::{KeyKind, Protocol};
use tracing::Level;
use url::Url;

pub use configuration::{Configuration, Found};
pub use database::DatabaseUrl;
pub use mqtt::Mqtt;
pub use problem::Problem;
pub use sources::{Origin, Sources, Texts};
pub use table::{Role, Setting, TABLE};
pub use value::{Kind, Secret};

use value::Value;

/// Every setting, checked and typed. The table says what each one means.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A relative SQLite path lies in `data_dir` already.
    pub database: DatabaseUrl,
    pub data_dir: PathBuf,
    pub network_name: String,
    pub transactions_per_block: u32,
    pub difficulty: u8,
    pub nonce_limit: u64,
    pub mining_threads: usize,
    pub block_max_age: Option<Duration>,
    pub seal_wait: Duration,
    pub pending_max: u64,
    pub receiver_listen: SocketAddr,
    pub sender_listen: SocketAddr,
    /// One at least.
    pub receiver_urls: Vec<Url>,
    pub receiver_token: Option<Secret>,
    pub receiver_protocol: Protocol,
    pub outbox: OutboxLimits,
    pub mqtt: Option<Mqtt>,
    /// How simulated devices come to a broker: theirs is not that of `MQTT_URL`.
    pub mqtt_user: Option<String>,
    pub mqtt_password: Option<Secret>,
    pub mqtt_site: String,
    pub witness_listen: SocketAddr,
    pub witness_name: Option<String>,
    /// A relative path lies in `data_dir` already.
    pub witness_policy: Option<PathBuf>,
    pub witness_validate: bool,
    pub witness_poll: Duration,
    pub api_token: Option<Secret>,
    pub allowed_hosts: Option<Vec<String>>,
    pub payload_size_max: usize,
    pub list_items_max: usize,
    pub body_size_max: usize,
    pub connections_max: usize,
    pub sender_key: KeyKind,
    pub allow_lossy_failover: bool,
    pub log_level: Level,
    pub log_format: LogFormat,
    /// A relative path lies in `data_dir` already.
    pub log_file: Option<PathBuf>,
    pub log_file_size_max: u64,
    pub log_files_max: u32,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs, an object a line.
    Json,
}

impl Settings {
    /// Takes the settings for a command.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them, at once.
    pub fn from_configuration(mut configuration: Configuration, role: Role) -> Result<Self, Vec<Problem>> {
        configuration.check_relations(role);
        if !configuration.problems.is_empty() {
            return Err(configuration.problems);
        }
        Ok(typed(&configuration).expect("the table's kinds and ranges fit the fields, as a test shows"))
    }
}

/// Returns the typed settings, or nothing where a value is missing or does not fit.
fn typed(configuration: &Configuration) -> Option<Settings> {
    let value = |name| configuration.get(name).value.as_ref();
    let data_dir = PathBuf::from(value("DATA_DIR")?.text()?);
    Some(Settings {
        database: value("DATABASE_URL")?.database()?.resolve(&data_dir),
        witness_policy: value("WITNESS_POLICY").and_then(Value::text).map(|path| data_dir.join(path)),
        log_file: value("LOG_FILE").and_then(Value::text).map(|path| data_dir.join(path)),
        data_dir,
        network_name: value("NETWORK_NAME")?.text()?,
        transactions_per_block: value("TRANSACTIONS_PER_BLOCK")?.whole()?,
        difficulty: value("DIFFICULTY")?.whole()?,
        nonce_limit: value("NONCE_LIMIT")?.whole()?,
        mining_threads: value("MINING_THREADS")?.whole()?,
        block_max_age: value("BLOCK_MAX_AGE")?.seconds(),
        seal_wait: value("SEAL_WAIT")?.seconds()?,
        pending_max: value("PENDING_MAX")?.whole()?,
        receiver_listen: value("RECEIVER_LISTEN")?.address()?,
        sender_listen: value("SENDER_LISTEN")?.address()?,
        receiver_urls: value("RECEIVER_URL")?.urls()?,
        receiver_token: value("RECEIVER_TOKEN").and_then(Value::secret),
        receiver_protocol: value("RECEIVER_PROTOCOL")?.word()?.parse().ok()?,
        outbox: OutboxLimits {
            size_max: value("OUTBOX_SIZE_MAX")?.whole()?,
            when_full: match value("OUTBOX_WHEN_FULL")?.word()? {
                "refuse" => WhenFull::Refuse,
                "drop_oldest" => WhenFull::DropOldest,
                _ => return None,
            },
        },
        mqtt: Mqtt::of(configuration),
        mqtt_user: value("MQTT_USER").and_then(Value::text),
        mqtt_password: value("MQTT_PASSWORD").and_then(Value::secret),
        mqtt_site: value("MQTT_SITE")?.text()?,
        witness_listen: value("WITNESS_LISTEN")?.address()?,
        witness_name: value("WITNESS_NAME").and_then(Value::text),
        witness_validate: value("WITNESS_VALIDATE")?.answer()?,
        witness_poll: value("WITNESS_POLL")?.seconds()?,
        api_token: value("API_TOKEN").and_then(Value::secret),
        allowed_hosts: value("ALLOWED_HOSTS").and_then(Value::hosts),
        payload_size_max: value("PAYLOAD_SIZE_MAX")?.whole()?,
        list_items_max: value("LIST_ITEMS_MAX")?.whole()?,
        body_size_max: value("BODY_SIZE_MAX")?.whole()?,
        connections_max: value("CONNECTIONS_MAX")?.whole()?,
        sender_key: value("SENDER_KEY")?.word()?.parse().ok()?,
        allow_lossy_failover: value("ALLOW_LOSSY_FAILOVER")?.answer()?,
        log_level: value("LOG_LEVEL")?.word()?.parse().ok()?,
        log_format: match value("LOG_FORMAT")?.word()? {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return None,
        },
        log_file_size_max: value("LOG_FILE_SIZE_MAX")?.whole()?,
        log_files_max: value("LOG_FILES_MAX")?.whole()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)], role: Role) -> Result<Settings, Vec<String>> {
        let environment = pairs.iter().map(|(name, text)| (name.into(), text.into())).collect();
        let configuration = Configuration::read(&Sources { environment, ..Sources::default() });
        let texts = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect();
        Settings::from_configuration(configuration, role).map_err(texts)
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let settings = settings(&[], Role::Config).unwrap();
        assert_eq!(settings.database, DatabaseUrl::Sqlite("./liotbchain-data/liotbchain.db".into()));
        assert_eq!(
            (settings.transactions_per_block, settings.difficulty, settings.nonce_limit),
            (2, 2, 10_000_000)
        );
        assert!(settings.mining_threads >= 1);
        assert_eq!((settings.block_max_age, settings.seal_wait), (None, Duration::from_secs(5)));
        assert_eq!(settings.receiver_listen, "127.0.0.1:5001".parse().unwrap());
        assert_eq!(settings.sender_listen, "127.0.0.1:5000".parse().unwrap());
        assert_eq!(settings.witness_listen, "127.0.0.1:5010".parse().unwrap());
        assert_eq!((settings.api_token, settings.receiver_token, settings.allowed_hosts), (None, None, None));
        assert_eq!((settings.payload_size_max, settings.list_items_max), (65_536, 8000));
        assert_eq!(settings.outbox, OutboxLimits { size_max: 256 << 20, when_full: WhenFull::Refuse });
        assert_eq!(settings.receiver_protocol, Protocol::V1);
        assert!(settings.mqtt.is_none());
        assert_eq!((settings.sender_key, settings.log_format), (KeyKind::Ed25519, LogFormat::Text));
        assert_eq!(
            (settings.log_file, settings.log_file_size_max, settings.log_files_max),
            (None, 10 << 20, 5)
        );
    }

    #[test]
    fn a_relative_log_file_lies_in_the_data_folder() {
        let log_file = |path| {
            settings(&[("DATA_DIR", "/data"), ("LOG_FILE", path)], Role::Receiver).unwrap().log_file.unwrap()
        };
        assert_eq!(log_file("log/liotbchain.log"), PathBuf::from("/data/log/liotbchain.log"));
        assert_eq!(log_file("/var/log/liotbchain.log"), PathBuf::from("/var/log/liotbchain.log"));
    }

    #[test]
    fn every_end_of_a_range_fits_its_field() {
        for setting in TABLE {
            let (Kind::Whole { min, max } | Kind::Seconds { min, max } | Kind::SecondsOrOff { min, max }) =
                setting.kind
            else {
                continue;
            };
            for end in [min, max] {
                // The greatest blocks need as many pending transactions.
                let pairs = [("PENDING_MAX", "8000"), (setting.name, &end.to_string())];
                let pairs = if setting.name == "PENDING_MAX" { &pairs[1..] } else { &pairs };
                let at_least_two = [&[("TRANSACTIONS_PER_BLOCK", "1")], pairs].concat();
                let pairs =
                    if setting.name == "TRANSACTIONS_PER_BLOCK" { pairs.to_vec() } else { at_least_two };
                assert!(settings(&pairs, Role::Config).is_ok(), "{} = {end}", setting.name);
            }
        }
    }

    #[test]
    fn every_word_of_a_choice_fits_its_field() {
        for setting in TABLE {
            let Kind::OneOf(words) = setting.kind else {
                continue;
            };
            for word in words {
                assert!(settings(&[(setting.name, word)], Role::Config).is_ok(), "{} = {word}", setting.name);
            }
        }
    }

    #[test]
    fn a_public_address_needs_a_token_where_it_is_listened_on() {
        let public = [("RECEIVER_LISTEN", "0.0.0.0:5001")];
        for role in [Role::Receiver, Role::Demo, Role::Config] {
            let problems = settings(&public, role).unwrap_err();
            let expected =
                "RECEIVER_LISTEN is 0.0.0.0:5001, which other machines can reach, but API_TOKEN is not set";
            assert_eq!(problems, [expected], "{role:?}");
        }
        assert!(settings(&public, Role::Sender).is_ok());
        assert!(settings(&[("SENDER_LISTEN", "[::]:5000")], Role::Sender).is_err());
        assert!(settings(&[("SENDER_LISTEN", "[::1]:5000")], Role::Sender).is_ok());
        // Its protocol has no token: what is taken is what a log signed.
        assert!(settings(&[("WITNESS_LISTEN", "0.0.0.0:5010")], Role::Witness).is_ok());
        let token = ("API_TOKEN", "0123456789abcdef");
        assert!(settings(&[public[0], token], Role::Receiver).is_ok());
    }

    #[test]
    fn the_settings_of_a_broker_are_checked_together() {
        let broker = ("MQTT_URL", "mqtt://127.0.0.1:1883");
        let problems = |more: &[(&str, &str)], role| settings(&[&[broker], more].concat(), role).err();
        assert_eq!(problems(&[], Role::Sender), None);
        assert_eq!(problems(&[("MQTT_USER", "pi"), ("MQTT_PASSWORD", "geheim")], Role::Config), None);
        for (pair, named) in [
            (("MQTT_PASSWORD", "geheim"), "MQTT_USER is not"),
            (("MQTT_CA_FILE", "ca.pem"), "no TLS"),
            (("MQTT_TOPICS", "tele/+/SENSOR"), "MQTT_TOPICS"),
            (("MQTT_SITE", "a/b"), "MQTT_SITE"),
        ] {
            let told = problems(&[pair], Role::Sender).unwrap_or_default().concat();
            assert!(told.contains(named) && !told.contains("geheim"), "{pair:?}: {told}");
            assert_eq!(problems(&[pair], Role::Receiver), None, "{pair:?}");
        }
        let tls = [("MQTT_URL", "mqtts://127.0.0.1:8883"), ("MQTT_CA_FILE", "/nowhere/ca.pem")];
        assert!(settings(&tls, Role::Config).unwrap_err()[0].contains("/nowhere/ca.pem"));
        assert!(settings(&[("MQTT_PASSWORD", "geheim")], Role::Config).is_ok(), "there is no broker");
    }

    #[test]
    fn refuses_blocks_that_never_fill() {
        let pairs = [("PENDING_MAX", "9"), ("TRANSACTIONS_PER_BLOCK", "10")];
        assert_eq!(settings(&pairs, Role::Chain).unwrap_err().len(), 1);
        assert!(settings(&[("PENDING_MAX", "10"), pairs[1]], Role::Chain).is_ok());
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let settings = settings(&[("API_TOKEN", "0123456789abcdef")], Role::Config).unwrap();
        assert!(!format!("{settings:?}").contains("0123456789abcdef"));
    }
}
