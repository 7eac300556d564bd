//! The one table of settings.
//!
//! Parsing, range checks, error texts, command-line flags, `config show` and `config check` all come from the rows
//! below, so a setting cannot mean one thing in the help and another in the program. The table knows no sources and
//! no typed struct; it only says what may be written.

use std::thread::available_parallelism;

use super::value::Kind;

/// One setting: a row of [`TABLE`].
#[derive(Debug)]
pub struct Setting {
    /// Its name in the environment and in `.env`. [`Setting::key`] and [`Setting::flag`] derive the other two.
    pub name: &'static str,
    /// What holds where no source sets it.
    pub default: Default,
    /// What may be written.
    pub kind: Kind,
    /// One line for people, with the unit.
    pub meaning: &'static str,
    /// The commands that take it as a flag.
    pub roles: &'static [Role],
}

/// The value of a setting that no source sets.
#[derive(Debug)]
pub enum Default {
    /// This text, read as if it had been written down.
    Text(&'static str),
    /// A text that depends on the machine, and how it comes about.
    Computed(fn() -> String, &'static str),
    /// No value at all, and what that means.
    Absent(&'static str),
}

/// A command, or family of commands, that takes settings as flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `liotbchain receiver`
    Receiver,
    /// `liotbchain sender`
    Sender,
    /// `liotbchain witness`
    Witness,
    /// `liotbchain demo`
    Demo,
    /// `liotbchain keys …`
    Keys,
    /// `liotbchain chain …`
    Chain,
    /// `liotbchain bench`
    Bench,
    /// `liotbchain device`
    Device,
    /// `liotbchain config …`, which takes every flag, to show what a command line would lead to.
    Config,
}

use Role::{Bench, Chain, Demo, Device, Keys, Receiver, Sender, Witness};

/// The commands that open a chain.
const STORE: &[Role] = &[Receiver, Demo, Chain];
/// The commands that take readings and mine.
const RECEIVE: &[Role] = &[Receiver, Demo];
/// The commands that make readings.
const SEND: &[Role] = &[Sender, Demo];
/// The commands that take readings from others.
const TAKE: &[Role] = &[Receiver, Sender, Demo];
/// The commands that listen.
const SERVE: &[Role] = &[Receiver, Sender, Demo, Witness];
/// The commands that keep something.
const KEEP: &[Role] = &[Receiver, Sender, Witness, Demo, Keys, Chain, Device];
const ALL: &[Role] = &[Receiver, Sender, Witness, Demo, Keys, Chain, Bench, Device];

/// Every setting there is, in the order of `config show`.
pub static TABLE: &[Setting] = &[
    Setting {
        name: "DATABASE_URL",
        default: Default::Text("sqlite:liotbchain.db"),
        kind: Kind::Database,
        meaning: "Where the chain is kept; a relative SQLite path lies in DATA_DIR",
        roles: STORE,
    },
    Setting {
        name: "DATA_DIR",
        default: Default::Text("./liotbchain-data"),
        kind: Kind::Path,
        meaning: "Folder of the sender's key and queue, and of the SQLite file",
        roles: KEEP,
    },
    Setting {
        name: "NETWORK_NAME",
        default: Default::Text("liotbchain"),
        kind: Kind::Name { length_max: 64 },
        meaning: "Name in the genesis block; used only when a chain is created",
        roles: RECEIVE,
    },
    Setting {
        name: "TRANSACTIONS_PER_BLOCK",
        default: Default::Text("2"),
        kind: Kind::Whole { min: 1, max: 8000 },
        meaning: "Transactions a block holds",
        roles: RECEIVE,
    },
    Setting {
        name: "DIFFICULTY",
        default: Default::Text("2"),
        kind: Kind::Whole { min: 0, max: 16 },
        meaning: "Leading zero hexadecimal digits of a block hash",
        roles: RECEIVE,
    },
    Setting {
        name: "NONCE_LIMIT",
        default: Default::Text("10000000"),
        // The header's nonce has 32 bits, so there are no more than 2^32 attempts.
        kind: Kind::Whole { min: 1, max: 1 << 32 },
        meaning: "Attempts before mining a block is given up and tried again later",
        roles: RECEIVE,
    },
    Setting {
        name: "MINING_THREADS",
        default: Default::Computed(spare_cores, "all cores but one, at least 1"),
        kind: Kind::Whole { min: 1, max: 256 },
        meaning: "Threads that mine",
        roles: RECEIVE,
    },
    Setting {
        name: "BLOCK_MAX_AGE",
        default: Default::Text("off"),
        kind: Kind::SecondsOrOff { min: 1, max: YEAR_SECONDS },
        meaning: "Seconds after which a block that is not full is sealed all the same",
        roles: RECEIVE,
    },
    Setting {
        name: "SEAL_WAIT",
        default: Default::Text("5"),
        kind: Kind::Seconds { min: 0, max: 300 },
        meaning: "Seconds a request waits for its block before the answer says pending",
        roles: RECEIVE,
    },
    Setting {
        name: "PENDING_MAX",
        default: Default::Text("100000"),
        kind: Kind::Whole { min: 1, max: 100_000_000 },
        meaning: "Transactions that may wait for a block before new ones are turned away",
        roles: RECEIVE,
    },
    Setting {
        name: "RECEIVER_LISTEN",
        default: Default::Text("127.0.0.1:5001"),
        kind: Kind::Address,
        meaning: "Address the receiver listens on; a public one needs API_TOKEN",
        roles: RECEIVE,
    },
    Setting {
        name: "SENDER_LISTEN",
        default: Default::Text("127.0.0.1:5000"),
        kind: Kind::Address,
        meaning: "Address the sender listens on; a public one needs API_TOKEN",
        roles: SEND,
    },
    Setting {
        name: "RECEIVER_URL",
        default: Default::Text("http://127.0.0.1:5001"),
        kind: Kind::Urls,
        meaning: "The receiver the sender sends to; if it is down, the next one named",
        roles: &[Sender, Bench],
    },
    Setting {
        name: "RECEIVER_TOKEN",
        default: Default::Absent("no token is sent"),
        kind: Kind::Secret { length_min: 1 },
        meaning: "The API_TOKEN of the receiver the sender sends to",
        roles: &[Sender, Bench],
    },
    Setting {
        name: "RECEIVER_PROTOCOL",
        default: Default::Text("v1"),
        kind: Kind::OneOf(&["v1", "original"]),
        meaning: "What that receiver speaks; original is the Python original",
        roles: &[Sender],
    },
    Setting {
        name: "OUTBOX_SIZE_MAX",
        default: Default::Text("268435456"),
        // Room for a list of readings, and no more than a disk is likely to have.
        kind: Kind::Whole { min: 1 << 20, max: 1 << 40 },
        meaning: "Bytes of the queue of readings on the sender's disk",
        roles: SEND,
    },
    Setting {
        name: "OUTBOX_WHEN_FULL",
        default: Default::Text("refuse"),
        kind: Kind::OneOf(&["refuse", "drop_oldest"]),
        meaning: "What happens to readings then: new ones refused, or the oldest dropped",
        roles: SEND,
    },
    Setting {
        name: "MQTT_URL",
        default: Default::Absent("readings come by HTTP alone"),
        kind: Kind::MqttUrl,
        meaning: "The MQTT broker that devices publish to",
        roles: &[Sender],
    },
    Setting {
        name: "MQTT_USER",
        default: Default::Absent("the broker asks for none"),
        kind: Kind::Name { length_max: 256 },
        meaning: "User of the sender at the broker",
        roles: &[Sender, Device],
    },
    Setting {
        name: "MQTT_PASSWORD",
        default: Default::Absent("the broker asks for none"),
        kind: Kind::Password,
        meaning: "Password of that user",
        roles: &[Sender],
    },
    Setting {
        name: "MQTT_CA_FILE",
        default: Default::Absent("the system's certificates are trusted"),
        kind: Kind::Path,
        meaning: "Certificates to trust at the broker instead; a relative path lies in DATA_DIR",
        roles: &[Sender],
    },
    Setting {
        name: "MQTT_VERSION",
        default: Default::Text("5"),
        kind: Kind::OneOf(&["5", "3.1.1"]),
        meaning: "Version of MQTT that the broker speaks",
        roles: &[Sender],
    },
    Setting {
        name: "MQTT_CLIENT_ID",
        default: Default::Absent("liotbchain- and 12 digits of the key's id"),
        kind: Kind::Name { length_max: 128 },
        meaning: "Name by which the broker keeps what the sender missed",
        roles: &[Sender],
    },
    Setting {
        name: "MQTT_TOPICS",
        default: Default::Text("liotbchain/v1/+/+/up=4"),
        kind: Kind::Topics,
        meaning: "Topics of readings, and which level of each names the device",
        roles: &[Sender],
    },
    Setting {
        name: "MQTT_SITE",
        default: Default::Text("default"),
        kind: Kind::Name { length_max: 128 },
        meaning: "Site in the topic where the sender says whether it is there",
        roles: &[Sender, Device],
    },
    Setting {
        name: "WITNESS_LISTEN",
        default: Default::Text("127.0.0.1:5010"),
        kind: Kind::Address,
        meaning: "Address the witness listens on; a public one needs no token",
        roles: &[Witness],
    },
    Setting {
        name: "WITNESS_NAME",
        default: Default::Absent("liotbchain-witness/ and 16 digits of the key's id"),
        kind: Kind::Name { length_max: 255 },
        meaning: "Name of the witness's key in its cosignatures",
        roles: &[Witness],
    },
    Setting {
        name: "WITNESS_POLICY",
        default: Default::Absent("no witness is asked to cosign, and none starts"),
        kind: Kind::Path,
        meaning: "File of logs and witnesses (tlog-policy); a relative path lies in DATA_DIR",
        roles: &[Receiver, Demo, Witness],
    },
    Setting {
        name: "WITNESS_VALIDATE",
        default: Default::Text("false"),
        kind: Kind::Bool,
        meaning: "Copy each chain and check every rule of it before cosigning",
        roles: &[Witness],
    },
    Setting {
        name: "WITNESS_POLL",
        default: Default::Text("10"),
        kind: Kind::Seconds { min: 1, max: 86_400 },
        meaning: "Seconds between two looks at the checkpoint that a log shows to all",
        roles: &[Witness],
    },
    Setting {
        name: "API_TOKEN",
        default: Default::Absent("writes need no token"),
        kind: Kind::Secret { length_min: 16 },
        meaning: "Token that writes must carry as Authorization: Bearer",
        roles: TAKE,
    },
    Setting {
        name: "ALLOWED_HOSTS",
        default: Default::Absent("loopback names and the listening address are allowed"),
        kind: Kind::Hosts,
        meaning: "Host names requests may be addressed to, separated by commas",
        roles: SERVE,
    },
    Setting {
        name: "PAYLOAD_SIZE_MAX",
        default: Default::Text("65536"),
        // The chain format allows no larger payload.
        kind: Kind::Whole { min: 1, max: 65_536 },
        meaning: "Bytes of one reading",
        roles: RECEIVE,
    },
    Setting {
        name: "LIST_ITEMS_MAX",
        default: Default::Text("8000"),
        kind: Kind::Whole { min: 1, max: 8000 },
        meaning: "Items in one list",
        roles: RECEIVE,
    },
    Setting {
        name: "BODY_SIZE_MAX",
        default: Default::Text("8388608"),
        // A body is held in memory while it is checked.
        kind: Kind::Whole { min: 1024, max: 1 << 30 },
        meaning: "Bytes of one request body",
        roles: RECEIVE,
    },
    Setting {
        name: "CONNECTIONS_MAX",
        default: Default::Text("1024"),
        kind: Kind::Whole { min: 1, max: 65_535 },
        meaning: "Connections open at once",
        roles: SERVE,
    },
    Setting {
        name: "SENDER_KEY",
        default: Default::Text("ed25519"),
        kind: Kind::OneOf(&["ed25519", "rsa", "p256"]),
        meaning: "Kind of key the sender makes for itself",
        roles: &[Sender, Demo, Keys],
    },
    Setting {
        name: "ALLOW_LOSSY_FAILOVER",
        default: Default::Text("false"),
        kind: Kind::Bool,
        meaning: "Accept several PostgreSQL hosts without synchronous replication",
        roles: STORE,
    },
    Setting {
        name: "LOG_LEVEL",
        default: Default::Text("info"),
        kind: Kind::OneOf(&["error", "warn", "info", "debug", "trace"]),
        meaning: "How much is logged to stderr",
        roles: ALL,
    },
    Setting {
        name: "LOG_FORMAT",
        default: Default::Text("text"),
        kind: Kind::OneOf(&["text", "json"]),
        meaning: "How it is logged",
        roles: ALL,
    },
    Setting {
        name: "LOG_FILE",
        default: Default::Absent("the log goes to stderr"),
        kind: Kind::Path,
        meaning: "File a server logs to; a relative path lies in DATA_DIR",
        roles: SERVE,
    },
    Setting {
        name: "LOG_FILE_SIZE_MAX",
        default: Default::Text("10485760"),
        // Room for the longest line there is, and for some more.
        kind: Kind::Whole { min: 65_536, max: 1 << 40 },
        meaning: "Bytes of LOG_FILE, after which it is put aside and a new one begun",
        roles: SERVE,
    },
    Setting {
        name: "LOG_FILES_MAX",
        default: Default::Text("5"),
        kind: Kind::Whole { min: 1, max: 1000 },
        meaning: "Log files kept, LOG_FILE among them; the oldest is deleted",
        roles: SERVE,
    },
];

/// A block that is to wait longer than a year has surely had its seconds mistaken for milliseconds.
const YEAR_SECONDS: u64 = 365 * 24 * 60 * 60;

impl Setting {
    /// Returns the row of this name, if it is one.
    pub fn named(name: &str) -> Option<&'static Setting> {
        TABLE.iter().find(|setting| setting.name == name)
    }

    /// Returns the setting somebody probably meant by a name that is not one.
    ///
    /// One slip is allowed in five letters, and two at most: so `DIFICULTY` and `NONCE_LIMTI` are found, while
    /// `NPM_TOKEN`, which many environments have and which is two letters away from `API_TOKEN`, is left alone.
    pub fn meant_by(name: &str) -> Option<&'static Setting> {
        let name = name.to_ascii_uppercase().replace('-', "_");
        TABLE
            .iter()
            .map(|setting| (strsim::osa_distance(&name, setting.name), setting))
            .filter(|(distance, setting)| *distance <= (setting.name.len() / 5).min(2))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, setting)| setting)
    }

    /// Returns its key in `liotbchain.toml`.
    pub fn key(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// Returns its flag without the dashes, or nothing for a secret: other users of a machine can read the command
    /// line of a running program.
    pub fn flag(&self) -> Option<String> {
        (!self.is_secret()).then(|| self.key().replace('_', "-"))
    }

    /// Tells whether its value must not be shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret { .. } | Kind::Password)
    }

    /// Tells whether an empty value reads as "not set". Where a definite default stands, an empty value is more
    /// likely a forgotten one.
    pub fn is_optional(&self) -> bool {
        !matches!(self.default, Default::Text(_))
    }
}

impl Default {
    /// Returns the text of the default, if there is one.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some((*text).to_owned()),
            Self::Computed(text, _) => Some(text()),
            Self::Absent(_) => None,
        }
    }

    /// Returns the default in words, for help texts.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Text(words) | Self::Computed(_, words) | Self::Absent(words) => words,
        }
    }
}

/// Leaves one core to the requests, which would wait behind the miners otherwise.
fn spare_cores() -> String {
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    cores.saturating_sub(1).clamp(1, 256).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed() {
        for setting in TABLE {
            if let Some(text) = setting.default.text() {
                assert!(setting.kind.parse(&text).is_some(), "{} = {text}", setting.name);
            }
        }
    }

    #[test]
    fn every_name_is_written_once_and_in_capitals() {
        for (index, setting) in TABLE.iter().enumerate() {
            assert!(setting.name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
            assert!(TABLE[..index].iter().all(|other| other.name != setting.name));
            assert!(setting.meaning.len() <= 80, "{}", setting.name);
        }
    }

    #[test]
    fn finds_the_setting_meant_by_a_slip() {
        for (slip, name) in [
            ("DIFICULTY", "DIFFICULTY"),
            ("NONCE_LIMTI", "NONCE_LIMIT"),
            ("difficulty", "DIFFICULTY"),
            ("transactions-per-block", "TRANSACTIONS_PER_BLOCK"),
            ("TRANSACTION_PER_BLOCKS", "TRANSACTIONS_PER_BLOCK"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("API_TOKN", "API_TOKEN"),
        ] {
            assert_eq!(Setting::meant_by(slip).map(|setting| setting.name), Some(name), "{slip}");
        }
    }

    #[test]
    fn leaves_the_names_of_other_programs_alone() {
        for name in
            ["NPM_TOKEN", "GH_TOKEN", "PATH", "HOME", "DEBUG", "SECRET_KEY", "SERVER_URL", "DATABASE_USER"]
        {
            assert_eq!(Setting::meant_by(name).map(|setting| setting.name), None, "{name}");
        }
    }

    #[test]
    fn secrets_have_no_flag() {
        let secrets: Vec<_> =
            TABLE.iter().filter(|setting| setting.flag().is_none()).map(|s| s.name).collect();
        assert_eq!(secrets, ["RECEIVER_TOKEN", "MQTT_PASSWORD", "API_TOKEN"]);
    }
}
