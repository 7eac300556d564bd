//! Simulated devices, as the Python original has them: what they measure, and the text that is signed.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::{RngExt, seq::IndexedRandom};

/// The devices of the Python original, which lost a comma between the last two.
pub const DEVICES: [&str; 6] =
    ["Raspberry Pi 1", "Raspberry Pi 2", "Raspberry Pi 3", "Nodemcu 1", "Nodemcu 2", "Nodemcu 3"];

/// Simulated devices that share a clock.
///
/// The clock never shows the same time twice, so no two readings have the same bytes: a chain takes the same statement
/// by the same key for one statement.
#[derive(Debug, Default)]
pub struct Devices {
    last_us: u64,
}

impl Devices {
    /// Returns one reading by a device drawn at random: its name and the text.
    ///
    /// `now` comes from the system's clock, which may stand still or be set back; the reading's time then goes on by a
    /// microsecond.
    pub fn measure(&mut self, now: SystemTime) -> (&'static str, String) {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        self.last_us = now_us.max(self.last_us + 1);
        let mut random = rand::rng();
        let device = DEVICES.choose(&mut random).copied().unwrap_or(DEVICES[0]);
        (device, reading(device, random.random_range(50..=200), self.last_us))
    }
}

/// Returns what Python's `json.dumps` gives for the original's dict, byte for byte: the original's receiver checks the
/// signature over its own text of the value.
///
/// Python shows a float by its shortest text that reads back the same, and so does Rust; both switch to an exponent only
/// above 10^16. A double holds microseconds apart until the year 2255 (2^53 µs).
fn reading(device: &str, distance_cm: u32, time_us: u64) -> String {
    let timestamp = time_us as f64 / 1e6;
    format!(r#"{{"device": "{device}", "distance": {distance_cm}, "timestamp": {timestamp:?}}}"#)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, process::Command, time::Duration};

    use super::*;

    #[test]
    fn writes_the_text_of_the_original() {
        let text = reading("Raspberry Pi 1", 123, 1_717_979_369_243_414);
        assert_eq!(text, r#"{"device": "Raspberry Pi 1", "distance": 123, "timestamp": 1717979369.243414}"#);
        assert!(reading("Nodemcu 1", 50, 1_717_979_369_000_000).ends_with(r#""timestamp": 1717979369.0}"#));
        assert!(reading("Nodemcu 1", 50, 1_717_979_369_100_000).ends_with(r#""timestamp": 1717979369.1}"#));
    }

    #[test]
    fn python_writes_the_same_text() {
        let mut devices = Devices::default();
        let texts = Vec::from_iter((0..500).map(|_| devices.measure(SystemTime::now()).1));
        let program = "import json, sys\nfor line in sys.argv[1:]: print(json.dumps(json.loads(line)))";
        let output = Command::new("python3")
            .args(["-c", program])
            .args(&texts)
            .output()
            .expect("python3 is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(), texts);
    }

    #[test]
    fn no_two_readings_are_the_same_whatever_the_clock_does() {
        let mut devices = Devices::default();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = [now, now, now - Duration::from_secs(60), now, UNIX_EPOCH - Duration::from_secs(1)];
        let texts = Vec::from_iter(clock.iter().cycle().take(20_000).map(|now| devices.measure(*now).1));
        let time = |text: &String| {
            text.split_once("timestamp\": ").unwrap().1.trim_end_matches('}').parse::<f64>().unwrap()
        };
        assert!(texts.windows(2).all(|pair| time(&pair[0]) < time(&pair[1])));
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len());
    }

    #[test]
    fn every_device_measures_every_distance() {
        let mut devices = Devices::default();
        let mut seen = (HashSet::new(), HashSet::new());
        for _ in 0..20_000 {
            let reading: serde_json::Value =
                serde_json::from_str(&devices.measure(SystemTime::now()).1).unwrap();
            seen.0.insert(reading["device"].as_str().unwrap().to_owned());
            seen.1.insert(reading["distance"].as_u64().unwrap());
        }
        assert_eq!(seen.0, DEVICES.map(str::to_owned).into());
        assert_eq!(seen.1, (50..=200).collect());
    }
}
