//! What simulated devices are to do, and the flags that say it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use liotbchain_sender::reading::{DeviceName, DeviceNameError};
use url::Url;

use super::curves::Kind;

/// Where the gateway of this machine listens, unless it was told otherwise.
const GATEWAY: &str = "http://127.0.0.1:5000";
const MQTT_PORT: u16 = 1883;

/// What simulated devices are to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub to: Gateway,
    pub origin: Origin,
}

/// Where readings come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They are made here.
    Fleet(FleetPlan),
    /// Another program prints them, one a line, all of this device; without a name each line names its own.
    Stdin(Option<DeviceName>),
}

/// Devices that measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetPlan {
    pub count: u32,
    /// Time between two readings of a device.
    pub interval: Duration,
    pub kind: Kind,
    /// From which all that looks like chance follows; drawn where there is none.
    pub seed: Option<u64>,
    /// Readings of all devices together after which the run ends; without a number it goes on.
    pub readings: Option<u64>,
    /// Whether each device signs for itself.
    pub sign: bool,
}

/// A gateway, or the broker that leads to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gateway {
    Http(Url),
    Mqtt { host: String, port: u16 },
}

/// Why a text names no gateway.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    #[error("{0}: write it as http://127.0.0.1:5000 or mqtt://127.0.0.1:1883")]
    NotAUrl(#[from] url::ParseError),
    #[error("{0}:// is not spoken here, only http://, https:// and mqtt://")]
    Scheme(String),
    #[error("there is no host in it: write it as http://127.0.0.1:5000 or mqtt://127.0.0.1:1883")]
    NoHost,
    #[error(
        "a user or password in it can be read by others on this machine: set MQTT_USER and MQTT_PASSWORD, or API_TOKEN"
    )]
    Credentials,
    #[error("only host and port of a broker are of use, not a path")]
    BrokerPath,
    #[error("a query or fragment is of no use in it")]
    Query,
}

impl FromStr for Gateway {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "http" | "https" | "mqtt") {
            return Err(GatewayError::Scheme(url.scheme().to_owned()));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(GatewayError::NoHost)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(GatewayError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(GatewayError::Query);
        }
        if url.scheme() != "mqtt" {
            return Ok(Self::Http(url));
        }
        if !matches!(url.path(), "" | "/") {
            return Err(GatewayError::BrokerPath);
        }
        // The brackets of an IPv6 address belong to the URL alone.
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self::Mqtt { host, port: url.port().unwrap_or(MQTT_PORT) })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => f.write_str(url.as_str().trim_end_matches('/')),
            Self::Mqtt { host, port } if host.contains(':') => write!(f, "mqtt://[{host}]:{port}"),
            Self::Mqtt { host, port } => write!(f, "mqtt://{host}:{port}"),
        }
    }
}

impl Plan {
    /// Adds the flags to a command.
    pub fn arguments(command: Command) -> Command {
        let kinds = PossibleValuesParser::new(Kind::ALL.map(Kind::name))
            .map(|word| Kind::named(&word).expect("these are the kinds there are"));
        let fleet = |arg: Arg| arg.conflicts_with("stdin");
        command
            .arg(
                Arg::new("to")
                    .long("to")
                    .value_name("URL")
                    .value_parser(|text: &str| text.parse::<Gateway>())
                    .default_value(GATEWAY)
                    .help("A gateway, or mqtt://host of a broker"),
            )
            .arg(fleet(
                Arg::new("count")
                    .long("count")
                    .value_name("N")
                    .value_parser(value_parser!(u32).range(1..=100_000))
                    .default_value("1")
                    .help("Devices"),
            ))
            .arg(fleet(
                Arg::new("interval")
                    .long("interval")
                    .value_name("SECONDS")
                    .value_parser(parse_interval)
                    .default_value("2")
                    .help("Time between two readings of a device; not all come at once"),
            ))
            .arg(fleet(
                Arg::new("kind")
                    .long("kind")
                    .value_name("KIND")
                    .value_parser(kinds)
                    .default_value("distance")
                    .hide_possible_values(true)
                    .help("distance, temperature, humidity, power or gps"),
            ))
            .arg(fleet(
                Arg::new("seed")
                    .long("seed")
                    .value_name("N")
                    .value_parser(value_parser!(u64))
                    .help("Measures the same again as another run with this seed, kind and interval"),
            ))
            .arg(fleet(
                Arg::new("readings")
                    .long("readings")
                    .value_name("N")
                    .value_parser(value_parser!(u64).range(1..))
                    .help("Stops after so many readings of all devices together"),
            ))
            .arg(fleet(
                Arg::new("sign")
                    .long("sign")
                    .action(ArgAction::SetTrue)
                    .help("Each device signs for itself, by a key that it keeps from run to run"),
            ))
            .arg(
                Arg::new("stdin")
                    .long("stdin")
                    .action(ArgAction::SetTrue)
                    .help("Sends what another program prints: a JSON object or a number a line"),
            )
            .arg(
                Arg::new("device")
                    .long("device")
                    .value_name("NAME")
                    .value_parser(|text: &str| -> Result<_, DeviceNameError> { DeviceName::new(text) })
                    .requires("stdin")
                    .help("Name of the device whose readings come from --stdin"),
            )
    }

    /// Takes the plan from a command line with these flags.
    pub fn take(matches: &mut ArgMatches) -> Self {
        let to = matches.remove_one("to").expect("a flag with a default has a value");
        let origin = if matches.get_flag("stdin") {
            Origin::Stdin(matches.remove_one("device"))
        } else {
            Origin::Fleet(FleetPlan {
                count: matches.remove_one("count").expect("a flag with a default has a value"),
                interval: matches.remove_one("interval").expect("a flag with a default has a value"),
                kind: matches.remove_one("kind").expect("a flag with a default has a value"),
                seed: matches.remove_one("seed"),
                readings: matches.remove_one("readings"),
                sign: matches.get_flag("sign"),
            })
        };
        Self { to, origin }
    }
}

/// A millisecond at least, since the counts of devices go up by one a reading and begin at a time in milliseconds.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, 0.001 to 86400".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, clap::Error> {
        let command = Plan::arguments(Command::new("device"));
        let mut matches =
            command.try_get_matches_from(["device"].into_iter().chain(line.split_whitespace()))?;
        Ok(Plan::take(&mut matches))
    }

    #[test]
    fn takes_what_it_is_told() {
        let told =
            plan("--to mqtt://[::1] --count 500 --interval 0.5 --kind gps --seed 7 --readings 9 --sign");
        let fleet = FleetPlan {
            count: 500,
            interval: Duration::from_millis(500),
            kind: Kind::Gps,
            seed: Some(7),
            readings: Some(9),
            sign: true,
        };
        let to = Gateway::Mqtt { host: "::1".to_owned(), port: 1883 };
        assert_eq!(told.unwrap(), Plan { to, origin: Origin::Fleet(fleet) });
        let told = plan("--stdin --device oven-1").unwrap();
        assert_eq!(told.origin, Origin::Stdin(Some(DeviceName::new("oven-1").unwrap())));
        assert_eq!(told.to.to_string(), GATEWAY);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for line in [
            "--count 0",
            "--count 100001",
            "--interval 0",
            "--interval nan",
            "--interval inf",
            "--kind pressure",
            "--readings 0",
            "--device oven-1",
            "--stdin --count 2",
            "--stdin --sign",
            "--stdin --device a/+",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_gateway_is_named_without_secrets() {
        for text in [
            "127.0.0.1:5000",
            "ftp://host",
            "mqtts://host",
            "mqtt://",
            "mqtt://host/topic",
            "mqtt://user:secret@host",
            "http://:secret@host",
            "http://host/?token=secret",
        ] {
            let error = text.parse::<Gateway>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{text}: {error}");
        }
        for text in ["http://host:1", "https://host/gateway", "mqtt://host:1", "mqtt://[::1]:1884"] {
            assert_eq!(text.parse::<Gateway>().unwrap().to_string(), text);
        }
    }
}
