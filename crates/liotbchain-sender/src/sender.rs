//! A sender at work: one task makes lists on time, another posts them in order.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{broadcast, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    device::Devices,
    forward::{Answer, Forwarder, Outcome, Receiver, ReceiverError},
    job::{Job, State, Status},
    list::List,
    signer::SigningKey,
};

/// Answers that a slow listener may fall behind before it misses some.
const ANSWERS_KEPT: usize = 256;

/// How long a post may take: the receiver answers within its `SEAL_WAIT`, 5 s if not set otherwise. Doubled with each
/// attempt, since it may be set to as much as 300 s.
const POST_TIME: Duration = Duration::from_secs(30);
const POST_TIME_MAX: Duration = Duration::from_secs(330);

/// How long a sender that is closed waits for the answer to the list on its way.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// A sender: simulated devices, a key, a queue in memory and a receiver. Does nothing until a job is started.
///
/// Cheap to clone; all clones are the same sender, and the last one that is dropped ends it. [`Sender::close`] first,
/// or the list on its way may be cut off.
#[derive(Debug, Clone)]
pub struct Sender {
    state: watch::Sender<State>,
    answers: broadcast::Sender<Answer>,
    receiver_url: String,
    key: Arc<SigningKey>,
    _tasks: Arc<JoinSet<()>>,
}

impl Sender {
    /// Sets up a sender. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ReceiverError`] where the HTTP client cannot be set up.
    pub fn new(key: SigningKey, receiver: Receiver) -> Result<Self, ReceiverError> {
        let receiver_url = receiver.url().to_string();
        let forwarder = Forwarder::new(receiver)?;
        let (state, _) = watch::channel(State::default());
        let (answers, _) = broadcast::channel(ANSWERS_KEPT);
        let key = Arc::new(key);
        let mut tasks = JoinSet::new();
        tasks.spawn(make_lists(state.clone(), Arc::clone(&key)));
        tasks.spawn(post_lists(state.clone(), forwarder, answers.clone()));
        Ok(Self { state, answers, receiver_url, key, _tasks: Arc::new(tasks) })
    }

    /// Runs a job from now on, in place of the one that ran. A list that waits is posted again at once.
    pub fn start(&self, job: Job) {
        tracing::info!(items = job.items(), interval_s = job.interval().as_secs_f64(), "job started");
        self.state.send_modify(|state| state.start(job));
    }

    /// Ends the job after the list on its way, and returns whether one ran. Lists that wait keep their place.
    pub fn stop(&self) -> bool {
        let mut ran = false;
        self.state.send_modify(|state| ran = state.stop());
        if ran {
            tracing::info!(waiting = self.state.borrow().waiting(), "job stopped");
        }
        ran
    }

    /// Returns what the sender does and has done.
    pub fn status(&self) -> Status {
        let public_key = self.key.public_key();
        let (key_id, algorithm) = (public_key.key_id().to_string(), public_key.algorithm().to_string());
        self.state.borrow().status(self.receiver_url.clone(), key_id, algorithm)
    }

    /// Returns the answers to come.
    pub fn answers(&self) -> broadcast::Receiver<Answer> {
        self.answers.subscribe()
    }

    /// Ends the job for good and waits, within bounds, for the answer to the list on its way. Readings that still wait
    /// are lost, and counted in the log: the queue is in memory.
    pub async fn close(&self) {
        self.state.send_modify(State::close);
        let mut view = self.state.subscribe();
        let settled = timeout(CLOSE_TIME, view.wait_for(|state| !state.posting)).await.is_ok();
        let waiting = self.state.borrow().waiting();
        if waiting > 0 {
            tracing::warn!(waiting, settled, "the sender ends, and readings that wait in memory are lost");
        }
    }
}

/// Makes a list whenever one is due and there is room for it.
async fn make_lists(state: watch::Sender<State>, key: Arc<SigningKey>) {
    let mut view = state.subscribe();
    let mut devices = Devices::default();
    let mut epoch = 0;
    let mut due = Instant::now();
    loop {
        let wanted =
            view.wait_for(|state| state.wanted().is_some()).await.map(|state| (state.wanted(), state.epoch));
        let Ok((Some(job), job_epoch)) = wanted else { return };
        if epoch != job_epoch {
            (epoch, due) = (job_epoch, Instant::now());
        }
        if timeout_at(due, view.wait_for(|state| state.epoch != epoch)).await.is_ok() {
            continue;
        }
        // Signing thousands of readings takes seconds.
        let signer = Arc::clone(&key);
        let made = spawn_blocking(move || {
            let readings = (0..job.items()).map(|_| devices.measure(SystemTime::now())).collect();
            (devices, List::sign(readings, &signer))
        });
        let Ok((used, list)) = made.await else { return };
        devices = used;
        match list {
            Ok(list) => state.send_modify(|state| state.push(list, epoch)),
            Err(error) => tracing::error!(%error, "a reading is not JSON and is left out"),
        }
        // Lists that were due in the meantime are not made up for.
        due = (due + job.interval()).max(Instant::now());
    }
}

/// Posts the first list until the receiver has taken or refused it, then the next.
async fn post_lists(state: watch::Sender<State>, forwarder: Forwarder, answers: broadcast::Sender<Answer>) {
    let mut view = state.subscribe();
    while view.wait_for(State::can_post).await.is_ok() {
        let mut first = None;
        state.send_modify(|state| first = state.begin_post());
        let Some((list, attempts)) = first else { continue };
        let time = POST_TIME.saturating_mul(1 << attempts.min(4)).min(POST_TIME_MAX);
        let outcome = forwarder.post(&list, time).await;
        let (mut delay, mut epoch) = (None, 0);
        state.send_modify(|state| {
            delay = state.settle(&outcome, now_ms(), rand::random());
            epoch = state.epoch;
        });
        log(&outcome, list.items, delay);
        if let Outcome::Accepted(answer) = outcome {
            // Nobody may be listening.
            let _ = answers.send(answer);
        }
        if let Some(delay) = delay {
            // A start tries again at once, a stop ends the waiting.
            let _ = timeout(delay, view.wait_for(|state| state.epoch != epoch)).await;
        }
    }
}

fn log(outcome: &Outcome, items: usize, delay: Option<Duration>) {
    let retry_in_ms = delay.unwrap_or_default().as_millis();
    match outcome {
        Outcome::Accepted(Answer { sealed, pending, heights }) => {
            let (height_min, height_max) = heights.unzip();
            tracing::info!(items, sealed, pending, height_min, height_max, "list accepted");
        }
        Outcome::Refused(failure) => tracing::error!(items, "readings dropped: {}", failure.message),
        Outcome::Misconfigured(failure) => {
            tracing::error!(items, retry_in_ms, "list waits: {}", failure.message)
        }
        Outcome::Postponed(failure) => tracing::warn!(items, retry_in_ms, "list waits: {}", failure.message),
    }
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
