//! The fleet: when which device measures, and what it then hands over.
//!
//! A reading is made when it can be handed over, as if it had been made when it was due. So devices that wait for
//! their gateway take no memory, and none of their readings is left out.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_sender::SigningKey;
use tokio::time::Instant;

use super::chance::Chance;
use super::curves::{Kind, Sensor};
use super::keys::DeviceKeys;
use super::plan::FleetPlan;
use super::source::Reading;

/// Devices that measure in turn.
pub struct Fleet {
    kind: Kind,
    count: u32,
    interval: Duration,
    readings: Option<u64>,
    seed: u64,
    keys: Option<DeviceKeys>,
    started: Instant,
    started_ms: u64,
}

/// The part of a fleet that one connection hands over, so that each device's readings keep their order.
pub struct Share {
    fleet: Arc<Fleet>,
    /// Each with its number in the fleet.
    devices: Vec<(u32, Device)>,
    /// Whose turn it is.
    turn: usize,
    /// How often each device had its turn.
    round: u64,
}

struct Device {
    name: String,
    sensor: Sensor,
    key: Option<Key>,
}

struct Key {
    key: SigningKey,
    /// Its public half in PEM, as a JSON string.
    public_key: String,
}

impl Fleet {
    /// Starts the clock of a fleet.
    pub fn start(plan: &FleetPlan, seed: u64, keys: Option<DeviceKeys>) -> Arc<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            kind: plan.kind,
            count: plan.count,
            interval: plan.interval,
            readings: plan.readings,
            seed,
            keys,
            started: Instant::now(),
            started_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Returns how many readings were due by now.
    pub fn due(&self) -> u64 {
        self.due_after(self.started.elapsed())
    }

    fn due_after(&self, elapsed: Duration) -> u64 {
        let turns = elapsed.as_nanos() * u128::from(self.count) / self.interval.as_nanos();
        let due = u64::try_from(turns + 1).unwrap_or(u64::MAX);
        self.readings.map_or(due, |readings| due.min(readings))
    }

    /// Divides the fleet.
    pub fn shares(self: &Arc<Self>, shares: u32) -> Vec<Share> {
        let shares = shares.min(self.count);
        let share = |first: u32| Share {
            fleet: Arc::clone(self),
            devices: (first..self.count)
                .step_by(shares as usize)
                .map(|number| (number, Device::new(self, number)))
                .collect(),
            turn: 0,
            round: 0,
        };
        (0..shares).map(share).collect()
    }

    /// Returns when this device has its turn in a round, after the start; none where the run is over by then.
    fn turn(&self, number: u32, round: u64) -> Option<Duration> {
        let reading = u128::from(round) * u128::from(self.count) + u128::from(number);
        if self.readings.is_some_and(|readings| reading >= u128::from(readings)) {
            return None;
        }
        let nanos = self.interval.as_nanos() * reading / u128::from(self.count);
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

impl Share {
    /// Returns when the next reading is due; none where there are no more.
    pub fn next_due(&self) -> Option<Instant> {
        let (number, _) = self.devices.get(self.turn)?;
        Some(self.fleet.started + self.fleet.turn(*number, self.round)?)
    }

    /// Makes the next reading; none where there are no more.
    pub fn measure(&mut self) -> Option<Reading> {
        let (number, device) = self.devices.get_mut(self.turn)?;
        let due = self.fleet.turn(*number, self.round)?;
        let reading = device.measure(&self.fleet, self.round, due);
        self.turn += 1;
        if self.turn == self.devices.len() {
            (self.turn, self.round) = (0, self.round + 1);
        }
        Some(reading)
    }
}

impl Device {
    fn new(fleet: &Fleet, number: u32) -> Self {
        Self {
            name: format!("{}-{}", fleet.kind.name(), number + 1),
            sensor: Sensor::new(fleet.kind, Chance::new(fleet.seed, number)),
            key: None,
        }
    }

    fn measure(&mut self, fleet: &Fleet, round: u64, due: Duration) -> Reading {
        let mut text = String::with_capacity(160);
        let interval_s = fleet.interval.as_secs_f64();
        write!(text, r#"{{"device":"{}","#, self.name).expect("a text takes all that is written");
        self.sensor.measure(round as f64 * interval_s, interval_s, &mut text);
        // No count is used again by a later run, as a device would have it that keeps its count over a restart.
        let counter = fleet.started_ms.saturating_add(round);
        let time_ms = fleet.started_ms.saturating_add(due.as_millis() as u64);
        let (seconds, millis) = (time_ms / 1000, time_ms % 1000);
        write!(text, r#","counter":{counter},"time":{seconds}.{millis:03}}}"#)
            .expect("a text takes all that is written");
        if let Some(keys) = &fleet.keys {
            // The keys of a large fleet take seconds to make: each is made when it is first needed.
            let key = self.key.get_or_insert_with(|| Key::new(keys.key(&self.name)));
            text = key.sign(&text);
        }
        Reading { device: self.name.clone(), text, identity: None }
    }
}

impl Key {
    fn new(key: SigningKey) -> Self {
        let public_key = serde_json::to_string(&key.public_key().to_pem()).expect("a text has a JSON form");
        Self { key, public_key }
    }

    /// Returns a text as a device hands it over that signed it.
    fn sign(&self, text: &str) -> String {
        let payload = serde_json::to_string(text).expect("a text has a JSON form");
        let signature = STANDARD.encode(self.key.sign(text.as_bytes()));
        let public_key = &self.public_key;
        format!(r#"{{"payload":{payload},"signature":"{signature}","public_key":{public_key}}}"#)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use liotbchain_core::PublicKey;
    use serde_json::Value;

    use super::*;

    fn plan(count: u32, readings: u64) -> FleetPlan {
        let interval = Duration::from_millis(1500);
        FleetPlan { count, interval, kind: Kind::Power, seed: None, readings: Some(readings), sign: false }
    }

    /// All readings of each share, with the times they are due after the start.
    fn all(fleet: &Arc<Fleet>, shares: u32) -> Vec<(Duration, Reading)> {
        let of_share = |mut share: Share| {
            std::iter::from_fn(move || Some((share.next_due()? - share.fleet.started, share.measure()?)))
        };
        fleet.shares(shares).into_iter().flat_map(of_share).collect()
    }

    fn value(reading: &Reading) -> Value {
        serde_json::from_str(&reading.text).unwrap()
    }

    #[test]
    fn makes_as_many_as_it_is_told_spread_over_the_interval() {
        for (count, readings, shares) in [(1, 5, 4), (3, 10, 2), (10, 100, 4), (7, 3, 7)] {
            let fleet = Fleet::start(&plan(count, readings), 1, None);
            let mut due: Vec<_> = all(&fleet, shares).into_iter().map(|(due, _)| due).collect();
            due.sort_unstable();
            let expected: Vec<_> =
                (0..readings).map(|it| Duration::from_nanos(1_500_000_000 * it / u64::from(count))).collect();
            assert_eq!(due, expected, "{count} devices in {shares} shares");
        }
    }

    #[test]
    fn each_device_counts_its_readings_in_their_order() {
        let fleet = Fleet::start(&plan(10, 95), 1, None);
        let mut last = HashMap::new();
        for (due, reading) in all(&fleet, 3) {
            let value = value(&reading);
            assert_eq!(value["device"], reading.device.as_str());
            let (counter, time) = (value["counter"].as_u64().unwrap(), value["time"].as_f64().unwrap());
            let due_s = fleet.started_ms as f64 / 1000.0 + due.as_secs_f64();
            assert!((time - due_s).abs() < 0.002, "{time} {due_s}");
            let expected = last.get(&reading.device).map_or(fleet.started_ms, |last| last + 1);
            assert_eq!(counter, expected);
            last.insert(reading.device, counter);
        }
        assert_eq!(last.len(), 10);
    }

    #[test]
    fn a_seed_measures_the_same_however_many_connections_and_devices_there_are() {
        let measured = |count, seed, shares| {
            let fleet = Fleet::start(&plan(count, u64::from(count) * 20), seed, None);
            let mut measured = HashMap::<String, Vec<(Value, Value)>>::new();
            for (_, reading) in all(&fleet, shares) {
                let value = value(&reading);
                measured
                    .entry(reading.device)
                    .or_default()
                    .push((value["power_w"].clone(), value["energy_wh"].clone()));
            }
            measured
        };
        let first = measured(10, 7, 3);
        assert_eq!(measured(10, 7, 1), first);
        assert_ne!(measured(10, 8, 3), first);
        let fewer = measured(4, 7, 2);
        assert!(fewer.iter().all(|(device, values)| first[device] == *values));
        assert_ne!(first["power-1"], first["power-2"]);
    }

    #[test]
    fn signs_the_text_as_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let keys = DeviceKeys::load_or_create(folder.path()).unwrap();
        let fleet = Fleet::start(&plan(3, 6), 1, Some(keys));
        let mut keys = HashMap::<String, String>::new();
        for (_, reading) in all(&fleet, 2) {
            let item = value(&reading);
            let [payload, signature, pem] =
                ["payload", "signature", "public_key"].map(|name| item[name].as_str().unwrap());
            let key = PublicKey::from_pem(pem).unwrap();
            assert_eq!(key.verify(payload.as_bytes(), &STANDARD.decode(signature).unwrap()), Ok(()));
            let payload: Value = serde_json::from_str(payload).unwrap();
            assert_eq!(payload["device"], reading.device.as_str());
            let kept = keys.entry(reading.device).or_insert_with(|| pem.to_owned());
            assert_eq!(kept, pem);
        }
        assert_eq!(keys.values().collect::<std::collections::HashSet<_>>().len(), 3);
    }

    #[test]
    fn knows_how_many_were_due() {
        let fleet = Fleet::start(&plan(3, 10), 1, None);
        for (after_ms, due) in [(0, 1), (499, 1), (500, 2), (1000, 3), (3_600_000, 10)] {
            assert_eq!(fleet.due_after(Duration::from_millis(after_ms)), due, "{after_ms} ms");
        }
    }
}
