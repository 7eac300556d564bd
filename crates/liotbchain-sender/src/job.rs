//! The one job that runs: how many readings of simulated devices, and how often.

use std::{ops::RangeInclusive, time::Duration};

/// How many readings a list may have: what the receiver takes at once.
pub const ITEMS_RANGE: RangeInclusive<u64> = 1..=8000;
/// How many seconds may lie between two lists: up to a day.
pub const INTERVAL_RANGE_S: RangeInclusive<f64> = 0.0..=86_400.0;

/// What to send, and how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Job {
    items: usize,
    interval: Duration,
}

/// A number of a job is out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum JobError {
    /// Readings a list.
    #[error("number_of_items_to_send is {0}: expected a whole number from 1 to 8000")]
    Items(u64),
    /// Seconds between lists.
    #[error("interval_time is {0}: expected seconds from 0 to 86400")]
    Interval(f64),
}

impl Job {
    /// Describes a job of so many readings every so many seconds. With an interval of 0 the next list is made when the
    /// one before it was delivered.
    ///
    /// # Errors
    ///
    /// [`JobError`] where a number is out of range.
    pub fn new(items: u64, interval_s: f64) -> Result<Self, JobError> {
        if !ITEMS_RANGE.contains(&items) {
            return Err(JobError::Items(items));
        }
        if !INTERVAL_RANGE_S.contains(&interval_s) {
            return Err(JobError::Interval(interval_s));
        }
        let items = usize::try_from(items).map_err(|_| JobError::Items(items))?;
        Ok(Self { items, interval: Duration::from_secs_f64(interval_s) })
    }

    /// Returns the readings of a list.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Returns the time between two lists.
    pub fn interval(&self) -> Duration {
        self.interval
    }
}

/// The job, and whether it runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    /// The job that runs, or ran last.
    pub job: Option<Job>,
    pub running: bool,
    /// Whether the devices wait because the queue takes no more.
    pub paused: bool,
    /// Counts starts and stops, so that whoever waits can tell that the job is no longer the same.
    pub epoch: u64,
    closed: bool,
}

impl State {
    /// Runs a job from now on, in place of the one that ran.
    pub fn start(&mut self, job: Job) {
        self.job = Some(job);
        self.running = !self.closed;
        self.paused = false;
        self.epoch += 1;
    }

    /// Ends the job, and returns whether one ran.
    pub fn stop(&mut self) -> bool {
        self.epoch += 1;
        self.paused = false;
        std::mem::take(&mut self.running)
    }

    /// Ends the job for good.
    pub fn close(&mut self) {
        self.stop();
        self.closed = true;
    }

    /// Returns the job if it runs.
    pub fn wanted(&self) -> Option<Job> {
        self.job.filter(|_| self.running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(items: u64, interval_s: f64) -> Job {
        Job::new(items, interval_s).unwrap()
    }

    #[test]
    fn refuses_numbers_out_of_range() {
        assert!(Job::new(1, 0.0).is_ok() && Job::new(8000, 86_400.0).is_ok());
        assert_eq!(Job::new(0, 2.0), Err(JobError::Items(0)));
        assert_eq!(Job::new(8001, 2.0), Err(JobError::Items(8001)));
        for interval_s in [-0.1, 86_400.1, f64::INFINITY, f64::NAN] {
            assert!(Job::new(1, interval_s).is_err(), "{interval_s}");
        }
    }

    #[test]
    fn a_second_start_replaces_the_numbers_and_tells_whoever_waits() {
        let mut state = State::default();
        state.start(job(2, 1.0));
        let first = state.epoch;
        state.start(job(5, 3.0));
        assert_eq!(state.wanted(), Some(job(5, 3.0)));
        assert_ne!(state.epoch, first);
    }

    #[test]
    fn a_closed_sender_starts_no_more() {
        let mut state = State::default();
        state.start(job(1, 1.0));
        assert!(state.stop() && !state.stop());
        assert_eq!(state.wanted(), None);
        state.start(job(1, 1.0));
        state.close();
        state.start(job(1, 1.0));
        assert_eq!(state.wanted(), None);
    }
}
