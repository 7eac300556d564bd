//! The topics that readings come under, and which level of each names the device.

use rumqttc_v5::mqttbytes::{matches, valid_filter};

use crate::reading::{DeviceName, DeviceNameError};

/// Filters that one subscription may have.
const FILTERS_MAX: usize = 64;
/// Bytes of a filter: MQTT counts them in 16 bits.
const FILTER_SIZE_MAX: usize = u16::MAX as usize;

/// Topic filters, each with the level that names the device.
///
/// Filters may overlap. A broker may then deliver a message once for each that fits (MQTT leaves that to it), which makes
/// as many readings of it unless the device tells its readings apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    filter: String,
    /// Counted from 0.
    level: usize,
}

/// Why a table of topics is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// There is none.
    #[error("no topic is given: expected filter=level, such as tele/+/SENSOR=2")]
    Empty,
    /// More than a subscription takes.
    #[error("{0} topics are given: expected at most {FILTERS_MAX}")]
    TooMany(usize),
    /// No level is named.
    #[error("{0:?} names no level: expected filter=level, such as tele/+/SENSOR=2")]
    NoLevel(String),
    /// The level is no number that the filter has.
    #[error(
        "{level:?} is no level of {filter:?}: expected a number from 1 up to the levels that every topic under it has"
    )]
    Level {
        /// The filter.
        filter: String,
        /// What stands for the level.
        level: String,
    },
    /// MQTT does not know such a filter.
    #[error(
        "{0:?} is no MQTT topic filter: + stands for a whole level, # for all that follow and only at the end"
    )]
    Filter(String),
    /// Filters that begin so mean something else to a broker.
    #[error(
        "{0:?} begins with $: the broker's own topics and shared subscriptions hold no readings of devices"
    )]
    Dollar(String),
    /// The same filter stands there twice.
    #[error("{0:?} is given twice")]
    Twice(String),
    /// The level is a fixed text, and no name.
    #[error("level {level} of {filter:?} cannot name a device: {problem}")]
    Name {
        /// The filter.
        filter: String,
        /// The level, counted from 1.
        level: usize,
        /// What is wrong with what stands there.
        problem: DeviceNameError,
    },
}

/// Why a topic tells no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The broker sent what was not subscribed to.
    #[error("no topic of MQTT_TOPICS fits")]
    Unexpected,
    /// It ends before the level that is to name the device.
    #[error("it has no level {0}, which is to name the device")]
    Short(usize),
    /// The level is there, and of no use.
    #[error(transparent)]
    Name(#[from] DeviceNameError),
}

impl Topics {
    /// Reads `filter=level`, several separated by commas; levels count from 1. Where several filters fit a topic, the
    /// first one counts.
    ///
    /// # Errors
    ///
    /// [`TopicsError`] says what is wrong with the first entry that is of no use.
    pub fn parse(text: &str) -> Result<Self, TopicsError> {
        let mut rules: Vec<Rule> = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let rule = Rule::parse(entry)?;
            if rules.iter().any(|it| it.filter == rule.filter) {
                return Err(TopicsError::Twice(rule.filter));
            }
            rules.push(rule);
        }
        match rules.len() {
            0 => Err(TopicsError::Empty),
            1..=FILTERS_MAX => Ok(Self(rules)),
            many => Err(TopicsError::TooMany(many)),
        }
    }

    /// Returns the filters, to subscribe to.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|rule| rule.filter.as_str())
    }

    /// Finds out whose reading comes under a topic.
    ///
    /// # Errors
    ///
    /// [`TopicError`] where the topic does not tell.
    pub fn device(&self, topic: &str) -> Result<DeviceName, TopicError> {
        let rule = self.0.iter().find(|rule| matches(topic, &rule.filter)).ok_or(TopicError::Unexpected)?;
        let name = topic.split('/').nth(rule.level).ok_or(TopicError::Short(rule.level + 1))?;
        Ok(DeviceName::new(name)?)
    }
}

impl Rule {
    fn parse(entry: &str) -> Result<Self, TopicsError> {
        let (filter, level) = entry.rsplit_once('=').ok_or_else(|| TopicsError::NoLevel(entry.to_owned()))?;
        let (filter, level) = (filter.trim(), level.trim());
        if !valid_filter(filter) || filter.len() > FILTER_SIZE_MAX || filter.contains(char::is_control) {
            return Err(TopicsError::Filter(filter.to_owned()));
        }
        if filter.starts_with('$') {
            return Err(TopicsError::Dollar(filter.to_owned()));
        }
        let wrong = || TopicsError::Level { filter: filter.to_owned(), level: level.to_owned() };
        let number: usize = level.parse().map_err(|_| wrong())?;
        let index = number.checked_sub(1).ok_or_else(wrong)?;
        match filter.split('/').nth(index) {
            Some("+" | "#") => {}
            // All that comes under a fixed level is one device's.
            Some(name) => {
                let name_is_wrong =
                    |problem| TopicsError::Name { filter: filter.to_owned(), level: number, problem };
                DeviceName::new(name).map_err(name_is_wrong)?;
            }
            // `#` stands for levels that a topic may have.
            None if filter.ends_with('#') => {}
            None => return Err(wrong()),
        }
        Ok(Self { filter: filter.to_owned(), level: index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(topics: &str, topic: &str) -> Result<String, TopicError> {
        Topics::parse(topics).unwrap().device(topic).map(|name| name.as_str().to_owned())
    }

    #[test]
    fn the_level_names_the_device() {
        let topics = "liotbchain/v1/+/+/up=4, tele/+/SENSOR=2,zigbee2mqtt/#=2,garage/door=1";
        assert_eq!(device(topics, "liotbchain/v1/home/pi-1/up").unwrap(), "pi-1");
        assert_eq!(device(topics, "tele/plug 7/SENSOR").unwrap(), "plug 7");
        assert_eq!(device(topics, "zigbee2mqtt/lamp/state").unwrap(), "lamp");
        assert_eq!(device(topics, "garage/door").unwrap(), "garage");
        assert_eq!(Topics::parse(topics).unwrap().filters().count(), 4);
    }

    #[test]
    fn the_first_filter_that_fits_counts() {
        assert_eq!(device("a/+/c=2,a/#=3", "a/b/c").unwrap(), "b");
        assert_eq!(device("a/#=3,a/+/c=2", "a/b/c").unwrap(), "c");
    }

    #[test]
    fn a_filter_may_hold_an_equals_sign() {
        assert_eq!(device("a=b/+=2", "a=b/pi").unwrap(), "pi");
    }

    #[test]
    fn refuses_topics_that_name_nobody() {
        assert_eq!(device("a/#=2", "a"), Err(TopicError::Short(2)));
        assert_eq!(device("a/#=2", "b/c"), Err(TopicError::Unexpected));
        assert_eq!(device("a/+=2", "a/"), Err(TopicError::Name(DeviceNameError::Size(0))));
        assert_eq!(device("a/+=2", "a/x\u{7}"), Err(TopicError::Name(DeviceNameError::Character('\u{7}'))));
        assert_eq!(
            device("a/+=2", &format!("a/{}", "x".repeat(129))),
            Err(TopicError::Name(DeviceNameError::Size(129)))
        );
    }

    #[test]
    fn refuses_tables_that_cannot_work() {
        let wrong = |text: &str| Topics::parse(text).unwrap_err().to_string();
        assert_eq!(Topics::parse(" , ").unwrap_err(), TopicsError::Empty);
        assert!(wrong("tele/+/SENSOR").contains("names no level"));
        for level in ["0", "4", "-1", "two", "", "99999999999999999999999"] {
            assert!(wrong(&format!("tele/+/SENSOR={level}")).contains("is no level of"), "{level}");
        }
        for filter in ["tele/#/SENSOR", "tele/x+/SENSOR", "", "a/b#", "a/\u{1}/+"] {
            assert!(wrong(&format!("{filter}=1")).contains("is no MQTT topic filter"), "{filter}");
        }
        assert!(wrong("$share/g/a/+=4").contains("begins with $"));
        assert!(wrong("a/+=2,a/+=2").contains("is given twice"));
        assert!(wrong("/+=1").contains("cannot name a device"));
        let many: Vec<String> = (0..65).map(|it| format!("{it}/+=2")).collect();
        assert_eq!(Topics::parse(&many.join(",")).unwrap_err(), TopicsError::TooMany(65));
    }
}
