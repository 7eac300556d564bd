//! What a load run is to do, and the flags that say it.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use liotbchain_sender::KeyKind;
use serde::Serialize;

/// What a load run is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Requests on their way at a time, each on a connection of its own.
    pub connections: u32,
    /// Readings a list.
    pub batch: u32,
    pub length: Length,
    /// Readings a second, whether or not the receiver keeps up. Without one each connection sends its next list when
    /// the last one is answered.
    pub rate: Option<u32>,
    pub key: KeyKind,
    /// How many devices there are, each with a key of its own.
    pub keys: u32,
    /// Asks for every acknowledged reading afterwards.
    pub verify: bool,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    Seconds(u32),
    Readings(u64),
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            connections: 4,
            batch: 100,
            length: Length::Seconds(10),
            rate: None,
            key: KeyKind::Ed25519,
            keys: 8,
            verify: false,
        }
    }
}

impl Plan {
    /// Adds the flags to a command.
    pub fn arguments(command: Command) -> Command {
        let kinds = PossibleValuesParser::new(["ed25519", "rsa", "p256"])
            .map(|word| word.parse::<KeyKind>().expect("these are the kinds there are"));
        let number = |name: &'static str, value: &'static str, most: i64| {
            Arg::new(name).long(name).value_name(value).value_parser(value_parser!(u32).range(1..=most))
        };
        command
            .arg(number("connections", "N", 10_000).default_value("4").help("Connections that send"))
            .arg(number("batch", "N", 8000).default_value("100").help("Readings in a list"))
            .arg(number("seconds", "S", 86_400).default_value("10").help("How long lists are sent"))
            .arg(
                Arg::new("readings")
                    .long("readings")
                    .value_name("N")
                    .value_parser(value_parser!(u64).range(1..=1_000_000_000))
                    .conflicts_with("seconds")
                    .help("Sends so many readings instead, however long it takes"),
            )
            .arg(
                number("rate", "R", 10_000_000)
                    .help("Sends so many readings a second, whether or not the receiver keeps up"),
            )
            .arg(
                Arg::new("key")
                    .long("key")
                    .value_name("KIND")
                    .value_parser(kinds)
                    .default_value("ed25519")
                    .hide_possible_values(true)
                    .help("Kind of key that signs: ed25519, rsa or p256"),
            )
            .arg(number("keys", "N", 10_000).default_value("8").help("Keys that sign, made for this run"))
            .arg(
                Arg::new("verify")
                    .long("verify")
                    .action(ArgAction::SetTrue)
                    .help("Asks afterwards for every reading that was acknowledged"),
            )
    }

    /// Takes the plan from a command line with these flags.
    pub fn take(matches: &mut ArgMatches) -> Self {
        let mut number =
            |name: &str| matches.remove_one::<u32>(name).expect("a flag with a default has a value");
        let (connections, batch, keys) = (number("connections"), number("batch"), number("keys"));
        let seconds = number("seconds");
        Self {
            connections,
            batch,
            keys,
            length: match matches.remove_one("readings") {
                Some(readings) => Length::Readings(readings),
                None => Length::Seconds(seconds),
            },
            rate: matches.remove_one("rate"),
            key: matches.remove_one("key").expect("a flag with a default has a value"),
            verify: matches.get_flag("verify"),
        }
    }

    /// Returns how many lists there are to send; none where time alone ends the run.
    pub fn lists(&self) -> Option<u64> {
        let readings = match (self.length, self.rate) {
            (Length::Readings(readings), _) => readings,
            (Length::Seconds(seconds), Some(rate)) => u64::from(seconds) * u64::from(rate),
            (Length::Seconds(_), None) => return None,
        };
        Some(readings.div_ceil(self.batch.into()))
    }

    /// Returns how many readings the list of this number holds: the last one may hold fewer.
    pub fn items(&self, list: u64) -> u32 {
        match self.length {
            Length::Readings(readings) => {
                let left = readings.saturating_sub(list * u64::from(self.batch));
                u32::try_from(left).unwrap_or(u32::MAX).min(self.batch)
            }
            Length::Seconds(_) => self.batch,
        }
    }

    /// Returns when the list of this number is due after the start of a run with a rate.
    pub fn due(&self, list: u64) -> Option<Duration> {
        let rate = self.rate?;
        Some(Duration::from_secs_f64((list as f64 * f64::from(self.batch)) / f64::from(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, clap::Error> {
        let command = Plan::arguments(Command::new("bench"));
        let mut matches =
            command.try_get_matches_from(["bench"].into_iter().chain(line.split_whitespace()))?;
        Ok(Plan::take(&mut matches))
    }

    #[test]
    fn takes_what_it_is_told() {
        assert_eq!(plan("").unwrap(), Plan::default());
        let told =
            plan("--connections 2 --batch 7 --readings 20 --rate 100 --key rsa --keys 3 --verify").unwrap();
        let expected = Plan {
            connections: 2,
            batch: 7,
            length: Length::Readings(20),
            rate: Some(100),
            key: KeyKind::Rsa,
            keys: 3,
            verify: true,
        };
        assert_eq!(told, expected);
        for line in ["--seconds 3 --readings 9", "--batch 0", "--batch 8001", "--key dsa", "--rate 0"] {
            assert!(plan(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_last_list_holds_the_rest() {
        let plan = plan("--readings 20 --batch 7").unwrap();
        assert_eq!(plan.lists(), Some(3));
        assert_eq!([0, 1, 2, 3].map(|list| plan.items(list)), [7, 7, 6, 0]);
    }

    #[test]
    fn a_rate_counts_readings() {
        let plan = plan("--seconds 2 --rate 50 --batch 10").unwrap();
        assert_eq!((plan.lists(), plan.items(9)), (Some(10), 10));
        assert_eq!([0, 1, 9].map(|list| plan.due(list).unwrap().as_millis()), [0, 200, 1800]);
        assert_eq!(Plan::default().due(1), None);
    }
}
