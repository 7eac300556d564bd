//! What a setting may hold: the kinds, how each is read from text, and how each is put to people.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use url::Url;

use super::database::{self, DatabaseUrl};

/// What may be written for a setting. `Display` completes the sentence "it must be …".
#[derive(Debug)]
pub enum Kind {
    /// A whole number in a range, both ends allowed.
    Whole { min: u64, max: u64 },
    /// Whole seconds in a range.
    Seconds { min: u64, max: u64 },
    /// Whole seconds in a range, or `off`.
    SecondsOrOff { min: u64, max: u64 },
    /// `true` or `false`.
    Bool,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// A short name, on one line.
    Name { length_max: usize },
    /// A path of the file system.
    Path,
    /// An address and port to listen on.
    Address,
    /// Addresses of HTTP servers, separated by commas.
    Urls,
    /// The address of an MQTT broker.
    MqttUrl,
    /// Topics of MQTT, and the level that names the device.
    Topics,
    /// Host names, separated by commas.
    Hosts,
    /// A bearer token.
    Secret { length_min: usize },
    /// A password that somebody else chose.
    Password,
    /// Where a chain is kept.
    Database,
}

/// A text that was found to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Whole`].
    Whole(u64),
    /// Of [`Kind::Seconds`] and [`Kind::SecondsOrOff`].
    Seconds(Duration),
    /// Of [`Kind::SecondsOrOff`].
    Off,
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::OneOf`].
    Word(&'static str),
    /// Of [`Kind::Name`], [`Kind::Path`], [`Kind::MqttUrl`] and [`Kind::Topics`].
    Text(String),
    /// Of [`Kind::Address`].
    Address(SocketAddr),
    /// Of [`Kind::Urls`]: one at least.
    Urls(Vec<Url>),
    /// Of [`Kind::Hosts`].
    Hosts(Vec<String>),
    /// Of [`Kind::Secret`] and [`Kind::Password`].
    Secret(Secret),
    /// Of [`Kind::Database`].
    Database(DatabaseUrl),
}

/// A token or password that never shows itself by accident: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns it, for the one place that compares or sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Each returns the value as a field's type, or nothing if it is of another kind or does not fit.
impl Value {
    pub fn whole<T: TryFrom<u64>>(&self) -> Option<T> {
        if let Self::Whole(number) = self { (*number).try_into().ok() } else { None }
    }

    pub fn seconds(&self) -> Option<Duration> {
        if let Self::Seconds(seconds) = self { Some(*seconds) } else { None }
    }

    pub fn answer(&self) -> Option<bool> {
        if let Self::Bool(answer) = self { Some(*answer) } else { None }
    }

    pub fn word(&self) -> Option<&'static str> {
        if let Self::Word(word) = self { Some(word) } else { None }
    }

    pub fn text(&self) -> Option<String> {
        if let Self::Text(text) = self { Some(text.clone()) } else { None }
    }

    pub fn address(&self) -> Option<SocketAddr> {
        if let Self::Address(address) = self { Some(*address) } else { None }
    }

    pub fn urls(&self) -> Option<Vec<Url>> {
        if let Self::Urls(urls) = self { Some(urls.clone()) } else { None }
    }

    pub fn hosts(&self) -> Option<Vec<String>> {
        if let Self::Hosts(hosts) = self { Some(hosts.clone()) } else { None }
    }

    pub fn secret(&self) -> Option<Secret> {
        if let Self::Secret(secret) = self { Some(secret.clone()) } else { None }
    }

    pub fn database(&self) -> Option<DatabaseUrl> {
        if let Self::Database(database) = self { Some(database.clone()) } else { None }
    }
}

impl Kind {
    /// Parses a text without white space around it. There is one way to be wrong a kind, which `Display` and
    /// [`Kind::hint`] put in words, so no error is told apart here.
    pub fn parse(&self, text: &str) -> Option<Value> {
        match *self {
            Self::Whole { min, max } => parse_whole(text, min, max).map(Value::Whole),
            Self::Seconds { min, max } => parse_seconds(text, min, max),
            Self::SecondsOrOff { .. } if text.eq_ignore_ascii_case("off") => Some(Value::Off),
            Self::SecondsOrOff { min, max } => parse_seconds(text, min, max),
            // Python's `True` and `WARNING` are in the files people bring along.
            Self::Bool => text.to_ascii_lowercase().parse().ok().map(Value::Bool),
            Self::OneOf(words) => {
                let text = if text.eq_ignore_ascii_case("warning") { "warn" } else { text };
                words.iter().find(|word| word.eq_ignore_ascii_case(text)).map(|word| Value::Word(word))
            }
            Self::Name { length_max } => {
                (text.len() <= length_max && is_on_one_line(text)).then(|| Value::Text(text.to_owned()))
            }
            Self::Path => (!text.contains('\0')).then(|| Value::Text(text.to_owned())),
            Self::Address => parse_address(text).map(Value::Address),
            Self::Urls => parse_urls(text).map(Value::Urls),
            Self::MqttUrl => is_mqtt_url(text).then(|| Value::Text(text.to_owned())),
            // What is wrong with a topic is said where the settings of MQTT are checked together.
            Self::Topics => is_on_one_line(text).then(|| Value::Text(text.to_owned())),
            Self::Hosts => parse_hosts(text).map(Value::Hosts),
            Self::Secret { length_min } => {
                let allowed = text.len() >= length_min && text.bytes().all(|byte| byte.is_ascii_graphic());
                allowed.then(|| Value::Secret(Secret(text.to_owned())))
            }
            Self::Password => is_on_one_line(text).then(|| Value::Secret(Secret(text.to_owned()))),
            Self::Database => DatabaseUrl::parse(text).map(Value::Database),
        }
    }

    /// Returns the text as it may be shown to whoever looks at the screen or the log.
    pub fn show(&self, text: &str) -> String {
        match self {
            Self::Secret { .. } | Self::Password => "(set)".to_owned(),
            Self::Database | Self::MqttUrl => database::redact(text),
            Self::Urls => Vec::from_iter(text.split(',').map(database::redact)).join(","),
            _ => text.to_owned(),
        }
    }

    /// Returns how to come by an allowed value, where the rule alone does not say it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Secret { length_min } if *length_min > 1 => Some("make one with `openssl rand -hex 24`"),
            Self::Database => Some(
                "write sqlite:NAME (lies in DATA_DIR), sqlite:///PATH, postgres://USER:PASSWORD@HOST/NAME, \
                 postgresql://… or \"host=… dbname=… user=…\"",
            ),
            Self::MqttUrl => Some("user and password of the broker belong into MQTT_USER and MQTT_PASSWORD"),
            Self::Address => {
                Some("127.0.0.1 is for this machine alone, 0.0.0.0 is for every network it is in")
            }
            _ => None,
        }
    }

    /// Returns the word that stands for the value in a help text.
    pub fn value_name(&self) -> &'static str {
        match self {
            Self::Whole { .. } => "N",
            Self::Seconds { .. } => "SECONDS",
            Self::SecondsOrOff { .. } => "SECONDS|off",
            Self::Bool => "BOOL",
            Self::OneOf(_) => "WORD",
            Self::Name { .. } => "NAME",
            Self::Path => "PATH",
            Self::Address => "ADDRESS",
            Self::Urls => "URL[,URL]",
            Self::MqttUrl | Self::Database => "URL",
            Self::Topics => "FILTER=LEVEL",
            Self::Hosts => "HOSTS",
            Self::Secret { .. } => "TOKEN",
            Self::Password => "PASSWORD",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Seconds { min, max } => write!(f, "whole seconds from {min} to {max}"),
            Self::SecondsOrOff { min, max } => {
                write!(f, "whole seconds from {min} to {max}, or off")
            }
            Self::Bool => f.write_str("true or false"),
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::Name { length_max } => {
                write!(f, "a name of at most {length_max} bytes on one line")
            }
            Self::Path => f.write_str("a path"),
            Self::Address => f.write_str("an IP address and a port, such as 127.0.0.1:5001 or [::1]:5001"),
            Self::Urls => f.write_str(
                "an address such as http://127.0.0.1:5001, without user, ? and #, or several with commas between",
            ),
            Self::MqttUrl => f.write_str(
                "an address such as mqtt://127.0.0.1:1883, or mqtts://127.0.0.1:8883 with TLS, without user and path",
            ),
            Self::Topics => f.write_str(
                "filters with the level that names the device, such as tele/+/SENSOR=2, separated by commas",
            ),
            Self::Hosts => f.write_str("host names without ports, such as chain.example.org,10.0.0.7"),
            Self::Secret { length_min } => {
                write!(f, "visible ASCII characters without spaces, at least {length_min}")
            }
            Self::Password => f.write_str("a text on one line"),
            Self::Database => f.write_str("a SQLite file or a PostgreSQL database"),
        }
    }
}

fn parse_whole(text: &str, min: u64, max: u64) -> Option<u64> {
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

fn parse_seconds(text: &str, min: u64, max: u64) -> Option<Value> {
    parse_whole(text, min, max).map(|seconds| Value::Seconds(Duration::from_secs(seconds)))
}

/// Reads `localhost` as 127.0.0.1 and asks no name server: what is listened on must not depend on one.
fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into());
    }
    text.parse().ok()
}

fn is_on_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn parse_urls(text: &str) -> Option<Vec<Url>> {
    text.split(',').map(|url| parse_url(url.trim())).collect()
}

fn is_mqtt_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "mqtt" | "mqtts")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

fn parse_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then_some(url)
}

/// Returns the names in lower case, as hosts are compared. A wildcard is no name: it would undo the check.
fn parse_hosts(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|host| parse_host(host.trim())).collect()
}

fn parse_host(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_name = !text.is_empty() && text.bytes().all(allowed);
    let is_ipv6 = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    (is_name || is_ipv6.parse::<std::net::Ipv6Addr>().is_ok()).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuses(kind: &Kind, texts: &[&str]) {
        for text in texts {
            assert_eq!(kind.parse(text), None, "{text:?} as {kind}");
        }
    }

    #[test]
    fn takes_both_ends_of_a_range_and_nothing_beyond() {
        let kind = Kind::Whole { min: 1, max: 1 << 32 };
        assert_eq!(kind.parse("1"), Some(Value::Whole(1)));
        assert_eq!(kind.parse("4294967296"), Some(Value::Whole(4_294_967_296)));
        refuses(&kind, &["0", "4294967297", "-1", "2.5", "abc", "1e3", "", "99999999999999999999999"]);
    }

    #[test]
    fn takes_off_or_seconds() {
        let kind = Kind::SecondsOrOff { min: 1, max: 100 };
        assert_eq!(kind.parse("OFF"), Some(Value::Off));
        assert_eq!(kind.parse("30"), Some(Value::Seconds(Duration::from_secs(30))));
        refuses(&kind, &["0", "101", "30s", "on"]);
        refuses(&Kind::Seconds { min: 0, max: 300 }, &["off", "301"]);
    }

    #[test]
    fn takes_the_words_as_python_writes_them() {
        assert_eq!(Kind::Bool.parse("True"), Some(Value::Bool(true)));
        refuses(&Kind::Bool, &["yes", "1", ""]);
        let levels = Kind::OneOf(&["warn", "info"]);
        assert_eq!(levels.parse("WARNING"), Some(Value::Word("warn")));
        assert_eq!(levels.parse("Info"), Some(Value::Word("info")));
        refuses(&levels, &["inof", "warn,info"]);
        refuses(&Kind::OneOf(&["text", "json"]), &["warning"]);
    }

    #[test]
    fn takes_addresses_without_asking_a_name_server() {
        let parsed = |text: &str| Kind::Address.parse(text);
        assert_eq!(parsed("localhost:5001"), parsed("127.0.0.1:5001"));
        assert!(matches!(parsed("[::1]:0"), Some(Value::Address(address)) if address.ip().is_loopback()));
        refuses(
            &Kind::Address,
            &["5001", "127.0.0.1", ":5001", "example.org:5001", "127.0.0.1:70000", "localhost:x"],
        );
    }

    #[test]
    fn takes_http_addresses_and_no_password_in_them() {
        let urls = |text: &str| Kind::Urls.parse(text).and_then(|value| value.urls());
        assert_eq!(urls("https://chain.example.org/liot").unwrap().len(), 1);
        assert_eq!(urls("http://10.0.0.1:5001, http://10.0.0.2:5001").unwrap().len(), 2);
        let refused = [
            "127.0.0.1:5001",
            "localhost:5001",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a?b",
            "http://a#b",
            "http://a,",
        ];
        refuses(&Kind::Urls, &refused);
        assert_eq!(Kind::Urls.show("http://a,http://u:geheim@a"), "http://a,http://u:***@a");
    }

    #[test]
    fn takes_addresses_of_brokers_and_no_user_in_them() {
        for text in ["mqtt://broker", "mqtt://127.0.0.1:1883", "mqtts://[::1]:8883/"] {
            assert!(Kind::MqttUrl.parse(text).is_some(), "{text}");
        }
        let refused = ["broker:1883", "http://broker", "mqtt://", "mqtt://u:geheim@broker", "mqtt://b/topic"];
        refuses(&Kind::MqttUrl, &refused);
        assert_eq!(Kind::MqttUrl.show("mqtt://u:geheim@b"), "mqtt://u:***@b");
        assert!(Kind::MqttUrl.hint().unwrap().contains("MQTT_USER"));
    }

    #[test]
    fn takes_passwords_of_any_kind_and_hides_them() {
        let Some(Value::Secret(password)) = Kind::Password.parse("a pässword") else { panic!("refused") };
        assert_eq!(password.reveal(), "a pässword");
        assert_eq!(Kind::Password.show("a pässword"), "(set)");
        refuses(&Kind::Password, &["a\nb"]);
    }

    #[test]
    fn takes_host_names_and_no_wildcard() {
        let hosts = |text: &str| Kind::Hosts.parse(text);
        let names = ["chain.example.org", "10.0.0.7", "[::1]", "pi_2"].map(str::to_owned).to_vec();
        assert_eq!(hosts("Chain.example.org, 10.0.0.7,[::1],pi_2"), Some(Value::Hosts(names)));
        refuses(&Kind::Hosts, &["*", "a,,b", "http://a", "a:5001", "a b", "*.example.org"]);
    }

    #[test]
    fn takes_long_tokens_and_hides_them() {
        let kind = Kind::Secret { length_min: 16 };
        let Some(Value::Secret(token)) = kind.parse("0123456789abcdef") else { panic!("refused") };
        assert_eq!(token.reveal(), "0123456789abcdef");
        assert!(!format!("{token:?}").contains("0123"));
        assert_eq!(kind.show("0123456789abcdef"), "(set)");
        refuses(&kind, &["0123456789abcde", "0123456789 abcdef", "0123456789abcdéf"]);
    }

    #[test]
    fn takes_names_on_one_line() {
        let kind = Kind::Name { length_max: 4 };
        assert_eq!(kind.parse("äß"), Some(Value::Text("äß".to_owned())));
        refuses(&kind, &["äßo", "a\nb"]);
    }
}
