//! The one job that runs, the lists that wait, and what has become of those before them. Pure: time and chance are
//! arguments.

use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    forward::{Answer, Failure, Outcome},
    list::List,
};

/// How many readings a list may have: what the receiver takes at once.
pub const ITEMS_RANGE: RangeInclusive<u64> = 1..=8000;
/// How many seconds may lie between two lists: up to a day.
pub const INTERVAL_RANGE_S: RangeInclusive<f64> = 0.0..=86_400.0;
/// Readings that may wait in memory. A list longer than this may wait alone.
pub const WAITING_MAX: usize = 1000;

const RETRY_DELAY_FIRST: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

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
    /// one before it is answered.
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

/// What a sender does and has done, as `GET /status` shows it. Counts are of readings since the start of the process.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Status {
    /// Whether a job runs.
    pub running: bool,
    /// Whether the devices wait because `waiting` has reached its bound; they go on once the receiver answers.
    pub paused: bool,
    /// Readings in each list of the job that runs, or ran last.
    pub number_of_items_to_send: Option<usize>,
    /// Seconds between its lists.
    pub interval_time: Option<f64>,
    /// Readings posted at least once.
    pub sent: u64,
    /// Readings that the receiver acknowledged.
    pub accepted: Accepted,
    /// Readings that the receiver refused for good.
    pub refused: u64,
    /// Posts of a list that had been posted before.
    pub retries: u64,
    /// Readings that wait for an answer, or to be posted. They are held in memory only.
    pub waiting: usize,
    /// The last list that was acknowledged.
    pub last_answer: Option<LastAnswer>,
    /// The last failure, which later answers do not erase.
    pub last_error: Option<LastError>,
    /// Where lists are posted.
    pub receiver_url: String,
    /// Id of the key that signs: SHA-256 of its SubjectPublicKeyInfo.
    pub key_id: String,
    /// What kind of key it is.
    pub algorithm: String,
}

/// Readings that the receiver acknowledged, by what it said of them then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Accepted {
    /// In a block.
    pub sealed: u64,
    /// Stored, waiting for a block.
    pub pending: u64,
}

/// A list that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastAnswer {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Readings of the list that are in a block.
    pub sealed: usize,
    /// Readings of the list that wait for a block.
    pub pending: usize,
    /// Height of the lowest block that holds one of them.
    pub height_min: Option<u32>,
    /// Height of the highest.
    pub height_max: Option<u32>,
}

/// A post that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastError {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// The receiver's status, if it answered.
    pub http_status: Option<u16>,
    /// What happened, and what to do about it.
    pub message: String,
}

/// A list in the queue. It keeps its place until it is accepted or refused, so readings arrive in the order they were
/// made.
#[derive(Debug)]
struct Waiting {
    list: List,
    /// Posts so far.
    attempts: u32,
}

/// Everything that changes while a sender works.
#[derive(Debug, Default)]
pub(crate) struct State {
    job: Option<Job>,
    running: bool,
    /// Counts starts and stops, so that whoever waits can tell that the job is no longer the same.
    pub epoch: u64,
    closed: bool,
    /// Whether the first list of the queue is on its way.
    pub posting: bool,
    queue: VecDeque<Waiting>,
    waiting: usize,
    sent: u64,
    accepted: Accepted,
    refused: u64,
    retries: u64,
    last_answer: Option<LastAnswer>,
    last_error: Option<LastError>,
}

impl State {
    /// Runs a job from now on, in place of the one that ran.
    pub fn start(&mut self, job: Job) {
        self.job = Some(job);
        self.running = !self.closed;
        self.epoch += 1;
    }

    /// Ends the job. The list on its way arrives or fails; those that wait keep their place for the next start.
    /// Returns whether a job ran.
    pub fn stop(&mut self) -> bool {
        self.epoch += 1;
        std::mem::take(&mut self.running)
    }

    /// Ends the job for good.
    pub fn close(&mut self) {
        self.stop();
        self.closed = true;
    }

    /// Returns the readings that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns the job, if there is room for another list of it.
    pub fn wanted(&self) -> Option<Job> {
        let job = self.job.filter(|_| self.running)?;
        let has_room = !job.interval.is_zero() && self.waiting + job.items <= WAITING_MAX;
        (has_room || self.queue.is_empty()).then_some(job)
    }

    /// Queues a list of the job that ran in `epoch`; one of an earlier job is dropped, since nobody saw it.
    pub fn push(&mut self, list: List, epoch: u64) {
        if self.running && self.epoch == epoch {
            self.waiting += list.items;
            self.queue.push_back(Waiting { list, attempts: 0 });
        }
    }

    /// Returns whether a list may be posted.
    pub fn can_post(&self) -> bool {
        self.running && !self.posting && !self.queue.is_empty()
    }

    /// Returns the first list, and how often it was posted before; it is on its way from now on.
    pub fn begin_post(&mut self) -> Option<(List, u32)> {
        let first = self.queue.front_mut().filter(|_| self.running && !self.posting)?;
        let attempts = first.attempts;
        first.attempts = attempts.saturating_add(1);
        if attempts == 0 {
            self.sent += first.list.items as u64;
        } else {
            self.retries += 1;
        }
        self.posting = true;
        Some((first.list.clone(), attempts))
    }

    /// Notes what the post of the first list came to. Returns how long to wait before the next, where it must be
    /// repeated. `chance` is from 0 to 1.
    pub fn settle(&mut self, outcome: &Outcome, timestamp_ms: u64, chance: f64) -> Option<Duration> {
        self.posting = false;
        let attempts = self.queue.front().map_or(0, |first| first.attempts);
        match outcome {
            Outcome::Accepted(acknowledged) => {
                self.finish_first();
                self.accept(acknowledged, timestamp_ms);
                None
            }
            Outcome::Refused(failure) => {
                self.refused += self.finish_first() as u64;
                self.fail(failure, timestamp_ms);
                None
            }
            Outcome::Misconfigured(failure) => {
                self.fail(failure, timestamp_ms);
                Some(RETRY_DELAY_MAX)
            }
            Outcome::Postponed(failure) => {
                self.fail(failure, timestamp_ms);
                Some(retry_delay(attempts, chance).max(failure.retry_after.unwrap_or_default()))
            }
        }
    }

    fn finish_first(&mut self) -> usize {
        let items = self.queue.pop_front().map_or(0, |first| first.list.items);
        self.waiting -= items;
        items
    }

    fn accept(&mut self, acknowledged: &Answer, timestamp_ms: u64) {
        let Answer { sealed, pending, heights } = *acknowledged;
        self.accepted.sealed += sealed as u64;
        self.accepted.pending += pending as u64;
        let (height_min, height_max) = heights.unzip();
        self.last_answer = Some(LastAnswer { timestamp_ms, sealed, pending, height_min, height_max });
    }

    fn fail(&mut self, failure: &Failure, timestamp_ms: u64) {
        let Failure { http_status, ref message, .. } = *failure;
        self.last_error = Some(LastError { timestamp_ms, http_status, message: message.clone() });
    }

    /// Shows the state, beside what never changes.
    pub fn status(&self, receiver_url: String, key_id: String, algorithm: String) -> Status {
        Status {
            running: self.running,
            paused: self.running
                && self.wanted().is_none()
                && self.job.is_some_and(|job| !job.interval.is_zero()),
            number_of_items_to_send: self.job.map(|job| job.items),
            interval_time: self.job.map(|job| job.interval.as_secs_f64()),
            sent: self.sent,
            accepted: self.accepted,
            refused: self.refused,
            retries: self.retries,
            waiting: self.waiting,
            last_answer: self.last_answer.clone(),
            last_error: self.last_error.clone(),
            receiver_url,
            key_id,
            algorithm,
        }
    }
}

/// Draws from 0 to 0.2 s, doubled with each attempt up to 30 s, so that many senders do not return at one moment.
fn retry_delay(attempts: u32, chance: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let longest = RETRY_DELAY_FIRST.saturating_mul(1 << doublings).min(RETRY_DELAY_MAX);
    longest.mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn job(items: u64, interval_s: f64) -> Job {
        Job::new(items, interval_s).unwrap()
    }

    fn list(items: usize) -> List {
        List { items, body: Bytes::new() }
    }

    fn failure() -> Failure {
        Failure { http_status: Some(503), message: "later".into(), retry_after: None }
    }

    fn accepted(items: usize) -> Outcome {
        Outcome::Accepted(Answer { sealed: items, pending: 0, heights: Some((1, 2)) })
    }

    fn running(job: Job) -> State {
        let mut state = State::default();
        state.start(job);
        state
    }

    fn status(state: &State) -> Status {
        state.status(String::new(), String::new(), String::new())
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
    fn makes_no_list_that_would_not_fit_in_memory_but_always_one() {
        let mut state = running(job(400, 1.0));
        let epoch = state.epoch;
        for _ in 0..2 {
            assert!(state.wanted().is_some());
            state.push(list(400), epoch);
        }
        assert_eq!(state.wanted(), None);
        assert!(status(&state).paused);
        assert_eq!(status(&state).waiting, 800);
        state.begin_post();
        assert_eq!(state.settle(&accepted(400), 0, 0.5), None);
        assert!(state.wanted().is_some() && !status(&state).paused);
        assert!(running(job(8000, 1.0)).wanted().is_some());
    }

    #[test]
    fn without_an_interval_the_next_list_waits_for_the_answer() {
        let mut state = running(job(1, 0.0));
        state.push(list(1), state.epoch);
        assert_eq!(state.wanted(), None);
        assert!(!status(&state).paused, "that is its pace, not a pause");
        state.begin_post();
        state.settle(&accepted(1), 0, 0.5);
        assert!(state.wanted().is_some());
    }

    #[test]
    fn keeps_a_list_until_it_is_accepted_or_refused() {
        let mut state = running(job(2, 1.0));
        state.push(list(2), state.epoch);
        state.push(list(3), state.epoch);
        assert_eq!(state.begin_post().map(|(list, attempts)| (list.items, attempts)), Some((2, 0)));
        assert!(state.begin_post().is_none(), "one at a time");
        assert!(state.settle(&Outcome::Postponed(failure()), 7, 0.5).is_some());
        assert_eq!(state.begin_post().map(|(list, attempts)| (list.items, attempts)), Some((2, 1)));
        assert!(state.settle(&Outcome::Misconfigured(failure()), 8, 0.5).is_some());
        assert_eq!(state.begin_post().map(|(list, attempts)| (list.items, attempts)), Some((2, 2)));
        state.settle(&accepted(2), 9, 0.5);
        assert_eq!(state.begin_post().map(|(list, attempts)| (list.items, attempts)), Some((3, 0)));
        state.settle(&Outcome::Refused(failure()), 10, 0.5);
        let status = status(&state);
        assert_eq!((status.sent, status.accepted.sealed, status.refused, status.retries), (5, 2, 3, 2));
        assert_eq!(status.waiting, 0);
        assert_eq!(status.last_answer.unwrap().timestamp_ms, 9);
        assert_eq!(
            status.last_error.unwrap(),
            LastError { timestamp_ms: 10, http_status: Some(503), message: "later".into() }
        );
    }

    #[test]
    fn a_second_start_replaces_the_numbers_and_what_was_being_made() {
        let mut state = running(job(2, 1.0));
        let first = state.epoch;
        state.start(job(5, 3.0));
        state.push(list(2), first);
        assert_eq!(status(&state).waiting, 0);
        assert_eq!(status(&state).number_of_items_to_send, Some(5));
    }

    #[test]
    fn stop_keeps_what_waits_for_the_next_start() {
        let mut state = running(job(2, 1.0));
        state.push(list(2), state.epoch);
        assert!(state.stop() && !state.stop());
        assert!(!state.can_post() && state.begin_post().is_none() && state.wanted().is_none());
        assert_eq!(state.waiting(), 2);
        state.start(job(1, 1.0));
        assert!(state.can_post());
        state.close();
        state.start(job(1, 1.0));
        assert!(!state.can_post() && state.wanted().is_none());
    }

    #[test]
    fn waits_longer_each_time_and_as_long_as_it_is_asked_to() {
        let longest = Vec::from_iter((1..=10).map(|attempts| retry_delay(attempts, 1.0).as_millis()));
        assert_eq!(longest, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(retry_delay(u32::MAX, 1.0), RETRY_DELAY_MAX);
        assert_eq!(retry_delay(5, 0.0), Duration::ZERO);
        let mut state = running(job(1, 1.0));
        state.push(list(1), state.epoch);
        state.begin_post();
        let asked = Failure { retry_after: Some(Duration::from_secs(7)), ..failure() };
        assert_eq!(state.settle(&Outcome::Postponed(asked), 0, 1.0), Some(Duration::from_secs(7)));
    }
}
