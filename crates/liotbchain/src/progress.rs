//! How far something is that takes its time: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::output;

/// Lines are this far apart, so that a log is not flooded, and a short task says nothing.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Blocks,
    Bytes,
    Readings,
}

/// A task under way. The bar is gone when this value is.
pub struct Progress {
    task: &'static str,
    unit: Unit,
    bar: Option<ProgressBar>,
    started: Instant,
    told: Instant,
}

impl Progress {
    /// Begins to show a task.
    pub fn new(task: &'static str, unit: Unit) -> Self {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| bar(task, unit));
        Self { task, unit, bar, started: now, told: now }
    }

    /// Shows how much is done of how much. The whole may grow meanwhile.
    pub fn set(&mut self, done: u64, of: u64) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(of) {
                bar.set_length(of);
            }
            bar.set_position(done);
        } else if self.told.elapsed() >= LINE_INTERVAL {
            self.told = Instant::now();
            output::say(line(self.task, self.unit, done, of, self.started.elapsed()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(task: &'static str, unit: Unit) -> ProgressBar {
    let counts = match unit {
        Unit::Blocks => "{human_pos} of {human_len} blocks, {per_sec:0}",
        Unit::Readings => "{human_pos} of {human_len} readings, {per_sec:0}",
        Unit::Bytes => "{decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}",
    };
    let template = format!("{{msg}} [{{bar:30}}] {counts}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template names what indicatif knows");
    ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(task)
}

fn line(task: &str, unit: Unit, done: u64, of: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64();
    let left = Duration::try_from_secs_f64(of.saturating_sub(done) as f64 / rate).unwrap_or(Duration::MAX);
    let left = HumanDuration(left);
    match unit {
        Unit::Blocks | Unit::Readings => {
            let (done, of, rate) = (HumanCount(done), HumanCount(of), HumanCount(rate as u64));
            let noun = if unit == Unit::Blocks { "blocks" } else { "readings" };
            format!("{task}: {done} of {of} {noun}, {rate}/s, {left} left")
        }
        Unit::Bytes => {
            let (done, of, rate) = (DecimalBytes(done), DecimalBytes(of), DecimalBytes(rate as u64));
            format!("{task}: {done} of {of}, {rate}/s, {left} left")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_and_time_left() {
        let two_seconds = Duration::from_secs(2);
        assert_eq!(
            line("validating", Unit::Blocks, 2_000, 62_000, two_seconds),
            "validating: 2,000 of 62,000 blocks, 1,000/s, 60 seconds left"
        );
        assert_eq!(
            line("checking", Unit::Bytes, 20_000_000, 40_000_000, two_seconds),
            "checking: 20.00 MB of 40.00 MB, 10.00 MB/s, 2 seconds left"
        );
        // Nothing is done yet, or more than there was.
        line("checking", Unit::Bytes, 0, 0, Duration::ZERO);
        line("checking", Unit::Bytes, 5, 1, two_seconds);
    }

    #[test]
    fn a_bar_can_be_drawn() {
        for unit in [Unit::Blocks, Unit::Bytes, Unit::Readings] {
            bar("validating", unit).set_position(1);
        }
    }
}
