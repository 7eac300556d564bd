//! What a simulated sensor measures: the course of a day, a slow drift, noise, and now and then a fault.
//!
//! A curve depends on the time since the start alone, not on the clock, so that a seed means the same measurements
//! whenever it is used. Each start is eight in the morning to the devices.

use std::f64::consts::TAU;
use std::fmt::Write;

use super::chance::Chance;

const HOUR_S: f64 = 3600.0;
const DAY_S: f64 = 24.0 * HOUR_S;
/// Time of the day when a run starts.
const MORNING_S: f64 = 8.0 * HOUR_S;
/// One measurement in so many is a fault of the sensor.
const FAULT_ONCE_IN: f64 = 500.0;
/// Metres of a degree of latitude: a quarter of the meridian has 10,002 km.
const METRES_A_DEGREE: f64 = 10_002_000.0 / 90.0;

/// What a fleet measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From the lid of a water tank down to the water, by an ultrasonic sensor.
    Distance,
    /// Of the air outside, by a DS18B20.
    Temperature,
    /// Of the air in a greenhouse.
    Humidity,
    /// What a household takes from the grid.
    Power,
    /// Where a vehicle is on its round.
    Gps,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Distance, Self::Temperature, Self::Humidity, Self::Power, Self::Gps];

    /// Returns its word, which is also how the names of its devices begin.
    pub fn name(self) -> &'static str {
        match self {
            Self::Distance => "distance",
            Self::Temperature => "temperature",
            Self::Humidity => "humidity",
            Self::Power => "power",
            Self::Gps => "gps",
        }
    }

    /// Returns the kind of a word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == word)
    }
}

/// One sensor, between two measurements.
#[derive(Clone, Debug)]
pub struct Sensor {
    chance: Chance,
    drift: Drift,
    curve: Curve,
}

/// What a sensor's site is like.
#[derive(Clone, Debug)]
enum Curve {
    Distance { middle_cm: f64, swing_cm: f64 },
    Temperature { mean_c: f64, swing_c: f64 },
    Humidity { mean_percent: f64, swing_percent: f64 },
    Power { base_w: f64, morning_w: f64, evening_w: f64, fridge_s: f64, energy_wh: f64 },
    Gps { latitude: f64, longitude: f64, radius_m: f64, usual_kmh: f64, driven_m: f64 },
}

/// A value that wanders about 0 and comes back: an Ornstein-Uhlenbeck process, stepped exactly however long the step is
/// (Gillespie, Physical Review E 54, 1996, equation 3.1a).
#[derive(Clone, Debug)]
struct Drift {
    value: f64,
    /// Standard deviation in the long run.
    width: f64,
    /// After this time little is left of where it was.
    memory_s: f64,
}

impl Drift {
    fn step(&mut self, step_s: f64, chance: &mut Chance) -> f64 {
        let kept = (-step_s / self.memory_s).exp();
        self.value = self.value * kept + self.width * (1.0 - kept * kept).sqrt() * chance.bell();
        self.value
    }
}

impl Sensor {
    /// Sets up the sensor of one device: each stands elsewhere.
    pub fn new(kind: Kind, mut chance: Chance) -> Self {
        let (width, memory_s) = match kind {
            Kind::Distance => (1.5, 6.0 * HOUR_S),
            Kind::Temperature => (1.2, 3.0 * HOUR_S),
            Kind::Humidity => (4.0, 2.0 * HOUR_S),
            Kind::Power => (0.15, 0.25 * HOUR_S),
            Kind::Gps => (6.0, 60.0),
        };
        let draw = &mut chance;
        let curve = match kind {
            Kind::Distance => {
                Curve::Distance { middle_cm: draw.between(70.0, 140.0), swing_cm: draw.between(15.0, 40.0) }
            }
            Kind::Temperature => {
                Curve::Temperature { mean_c: draw.between(9.0, 19.0), swing_c: draw.between(3.0, 8.0) }
            }
            Kind::Humidity => Curve::Humidity {
                mean_percent: draw.between(55.0, 75.0),
                swing_percent: draw.between(8.0, 18.0),
            },
            Kind::Power => Curve::Power {
                base_w: draw.between(60.0, 180.0),
                morning_w: draw.between(300.0, 1200.0),
                evening_w: draw.between(800.0, 2500.0),
                fridge_s: draw.between(0.0, HOUR_S),
                energy_wh: draw.between(0.0, 9e6).round(),
            },
            Kind::Gps => Curve::Gps {
                latitude: draw.between(46.9, 47.1),
                longitude: draw.between(7.9, 8.1),
                radius_m: draw.between(800.0, 4000.0),
                usual_kmh: draw.between(25.0, 60.0),
                driven_m: draw.between(0.0, 20_000.0),
            },
        };
        Self { chance, drift: Drift { value: 0.0, width, memory_s }, curve }
    }

    /// Measures, so long after the start and after the measurement before; writes members of a JSON object, as
    /// `"celsius":21.44`.
    pub fn measure(&mut self, at_s: f64, step_s: f64, members: &mut String) {
        let Self { chance, drift, curve } = self;
        let day_s = (MORNING_S + at_s) % DAY_S;
        let drift = drift.step(step_s, chance);
        let is_fault = chance.once_in(FAULT_ONCE_IN);
        let written = match curve {
            // The tank is emptied by day and fills again at night. An echo that is lost reads as the end of the range,
            // which is 2 to 400 cm.
            Curve::Distance { middle_cm, swing_cm } => {
                let level = *middle_cm + *swing_cm * wave(day_s, 20.0) + drift + 0.3 * chance.bell();
                let distance = if is_fault { 400.0 } else { level.clamp(2.0, 400.0) };
                write!(members, r#""distance_cm":{distance:.1}"#)
            }
            // It counts sixteenths of a degree, and says 85 when it lost its supply for a moment.
            Curve::Temperature { mean_c, swing_c } => {
                let air = *mean_c + *swing_c * wave(day_s, 15.0) + drift + 0.1 * chance.bell();
                let celsius = if is_fault { 85.0 } else { (air * 16.0).round() / 16.0 };
                write!(members, r#""celsius":{celsius:.2}"#)
            }
            // Warm air holds more water: driest when it is warmest. Dew on the sensor reads as 100.
            Curve::Humidity { mean_percent, swing_percent } => {
                let air = *mean_percent - *swing_percent * wave(day_s, 15.0) + drift + 0.8 * chance.bell();
                let percent = if is_fault { 100.0 } else { air.clamp(0.0, 100.0) };
                write!(members, r#""humidity_percent":{percent:.1}"#)
            }
            // A refrigerator runs a third of each hour. A motor that starts shows for one measurement, and takes next
            // to no energy; the meter only goes up.
            Curve::Power { base_w, morning_w, evening_w, fridge_s, energy_wh } => {
                let fridge = if (at_s + *fridge_s) % HOUR_S < HOUR_S / 3.0 { 90.0 } else { 0.0 };
                let people = *morning_w * hump(day_s, 7.5, 1.0) + *evening_w * hump(day_s, 19.5, 2.0);
                let steady = *base_w + fridge + people * (1.0 + drift).max(0.0);
                *energy_wh += steady * step_s / HOUR_S;
                let start = if is_fault { chance.between(2000.0, 4000.0) } else { 0.0 };
                let power = (steady * (1.0 + 0.01 * chance.bell()) + start).max(0.0);
                write!(members, r#""power_w":{power:.1},"energy_wh":{energy_wh:.1}"#)
            }
            // Satellites give some metres, and hundreds where a wall throws their signals back.
            Curve::Gps { latitude, longitude, radius_m, usual_kmh, driven_m } => {
                let speed = (*usual_kmh + drift).max(0.0);
                *driven_m += speed / 3.6 * step_s;
                let jitter_m = if is_fault { 250.0 } else { 2.5 };
                let angle = *driven_m / *radius_m;
                let north_m = *radius_m * angle.sin() + jitter_m * chance.bell();
                let east_m = *radius_m * angle.cos() + jitter_m * chance.bell();
                let north = *latitude + north_m / METRES_A_DEGREE;
                let east = *longitude + east_m / (METRES_A_DEGREE * latitude.to_radians().cos());
                write!(
                    members,
                    r#""latitude_deg":{north:.6},"longitude_deg":{east:.6},"speed_kmh":{speed:.1}"#
                )
            }
        };
        written.expect("a text takes all that is written");
    }
}

/// Returns the course of a day from -1 to 1, highest at this hour.
fn wave(day_s: f64, highest_h: f64) -> f64 {
    ((day_s / HOUR_S - highest_h) / 24.0 * TAU).cos()
}

/// Returns a hump from 0 to 1 around an hour of the day; half as high so many hours before and after.
fn hump(day_s: f64, highest_h: f64, half_h: f64) -> f64 {
    let away = (day_s / HOUR_S - highest_h) / half_h;
    0.5f64.powf(away * away)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;

    const STEP_S: f64 = 60.0;

    /// A week of one device, a measurement a minute.
    fn week(kind: Kind, device: u32) -> Vec<Map<String, Value>> {
        let mut sensor = Sensor::new(kind, Chance::new(1, device));
        let mut measure = |step: u32| {
            let mut text = String::from("{");
            sensor.measure(f64::from(step) * STEP_S, STEP_S, &mut text);
            text.push('}');
            serde_json::from_str(&text).unwrap()
        };
        (0..7 * 24 * 60).map(&mut measure).collect()
    }

    fn values(measured: &[Map<String, Value>], member: &str) -> Vec<f64> {
        measured.iter().map(|it| it[member].as_f64().unwrap()).collect()
    }

    /// The mean of the hour of the day that begins at this one.
    fn mean_at(values: &[f64], hour: usize) -> f64 {
        let start = (hour + 24 - 8) % 24 * 60;
        let of_hour =
            (0..7).flat_map(|day| (start..start + 60).map(move |it| (day * 24 * 60 + it) % (7 * 24 * 60)));
        let chosen: Vec<f64> =
            of_hour.map(|it| values[it]).filter(|it| *it != 85.0 && *it != 400.0).collect();
        chosen.iter().sum::<f64>() / chosen.len() as f64
    }

    #[test]
    fn members_name_their_units_and_values_are_plausible() {
        for (kind, ranges) in [
            (Kind::Distance, vec![("distance_cm", 2.0, 400.0)]),
            (Kind::Temperature, vec![("celsius", -10.0, 85.0)]),
            (Kind::Humidity, vec![("humidity_percent", 0.0, 100.0)]),
            (Kind::Power, vec![("power_w", 0.0, 9000.0), ("energy_wh", 0.0, 1e7)]),
            (
                Kind::Gps,
                vec![("latitude_deg", 46.8, 47.2), ("longitude_deg", 7.8, 8.2), ("speed_kmh", 0.0, 100.0)],
            ),
        ] {
            for device in 0..10 {
                let measured = week(kind, device);
                let names: Vec<&str> = ranges.iter().map(|(name, ..)| *name).collect();
                let mut found: Vec<&str> = measured[0].keys().map(String::as_str).collect();
                found.sort_by_key(|name| names.iter().position(|it| it == name));
                assert_eq!(found, names);
                for (name, low, high) in &ranges {
                    let values = values(&measured, name);
                    assert!(values.iter().all(|it| (low..=high).contains(&it)), "{name} of {device}");
                }
            }
        }
    }

    #[test]
    fn days_have_their_course() {
        for device in 0..10 {
            let celsius = values(&week(Kind::Temperature, device), "celsius");
            assert!(mean_at(&celsius, 15) > mean_at(&celsius, 3) + 2.0, "{device}");
            let humidity = values(&week(Kind::Humidity, device), "humidity_percent");
            assert!(mean_at(&humidity, 15) < mean_at(&humidity, 3) - 5.0, "{device}");
            let distance = values(&week(Kind::Distance, device), "distance_cm");
            assert!(mean_at(&distance, 20) > mean_at(&distance, 8) + 10.0, "{device}");
            let power = values(&week(Kind::Power, device), "power_w");
            assert!(mean_at(&power, 19) > mean_at(&power, 3) + 300.0, "{device}");
        }
    }

    #[test]
    fn neighbouring_measurements_are_close_but_for_faults() {
        let celsius = values(&week(Kind::Temperature, 1), "celsius");
        let jumps = celsius.windows(2).filter(|pair| (pair[0] - pair[1]).abs() > 2.0).count();
        // About 20 faults in 10,080 measurements, each a jump up and one down.
        assert!((10..=80).contains(&jumps), "{jumps}");
        let faults = celsius.iter().filter(|it| **it == 85.0).count();
        assert!(jumps <= 2 * faults, "{jumps} jumps, {faults} faults");
    }

    #[test]
    fn a_meter_only_goes_up() {
        let energy = values(&week(Kind::Power, 3), "energy_wh");
        assert!(energy.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(energy.last() > energy.first());
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("pressure"), None);
    }
}
