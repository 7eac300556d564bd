//! The load itself: connections that send lists, each when the last one is answered or when a rate says so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::follow::Follower;
use super::plan::Plan;
use super::readings::Lists;
use super::tally::Tally;
use super::target::{Outcome, Target};
use crate::Failure;

/// A run under way.
pub struct Load {
    plan: Plan,
    target: Target,
    lists: Lists,
    follower: Option<Follower>,
    tally: Mutex<Tally>,
    started: Instant,
    /// Number of the next list to send.
    next: AtomicU64,
    /// With a rate: a permit a list that is due.
    due: Semaphore,
    ended: AtomicBool,
}

impl Load {
    /// Starts the clock.
    pub fn new(plan: &Plan, target: Target, lists: Lists, follower: Option<Follower>) -> Arc<Self> {
        Arc::new(Self {
            plan: plan.clone(),
            target,
            lists,
            follower,
            tally: Mutex::new(Tally::new(plan.verify)),
            started: Instant::now(),
            next: AtomicU64::new(0),
            due: Semaphore::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// Returns what came of it so far.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the store of signed lists.
    pub fn lists(&self) -> &Lists {
        &self.lists
    }

    /// Returns how long it runs.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sends nothing more; what is on its way is still answered.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
        self.due.close();
        self.lists.close();
    }

    /// Offers no more readings to be followed.
    pub fn stop_following(&self) {
        self.follower.iter().for_each(Follower::close);
    }

    /// Returns how many lists were due by now and not sent, since all connections waited for answers.
    pub fn late(&self) -> u64 {
        let Some(rate) = self.plan.rate else { return 0 };
        let due = self.elapsed().as_secs_f64() * f64::from(rate) / f64::from(self.plan.batch);
        let due = (due as u64).min(self.plan.lists().unwrap_or(u64::MAX));
        due.saturating_sub(self.tally().lists)
    }

    /// Lets lists become due. A thread of its own sleeps more precisely than the timer of the runtime, which counts
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// Where the system gives no thread.
    pub fn pace(self: &Arc<Self>) -> Result<(), Failure> {
        let Some(lists) = self.plan.lists().filter(|_| self.plan.rate.is_some()) else { return Ok(()) };
        let this = Arc::clone(self);
        let pace = move || {
            for list in 0..lists {
                let due = this.plan.due(list).expect("a paced plan has a rate");
                // A sleep is never long, so that the end is not slept through.
                while let Some(left) = due.checked_sub(this.elapsed()).filter(|left| !left.is_zero()) {
                    thread::sleep(left.min(Duration::from_millis(100)));
                }
                if this.ended.load(Relaxed) {
                    return;
                }
                this.due.add_permits(1);
            }
        };
        let spawned = thread::Builder::new().name("pace".to_owned()).spawn(pace);
        spawned.map(|_| ()).map_err(|error| Failure::failed(format!("the system gives no threads: {error}")))
    }

    /// Sends one list after the other until the end.
    ///
    /// # Errors
    ///
    /// Where the receiver refuses them for good.
    pub async fn connection(self: Arc<Self>) -> Result<(), Failure> {
        while let Some(due) = self.next_turn().await {
            let Some(list) = self.lists.take().await else { break };
            if self.ended.load(Relaxed) {
                break;
            }
            self.tally().lists += 1;
            // With a rate, from when the list should have been sent: whoever waits for a slow receiver waits here too.
            let sent = due.unwrap_or_else(Instant::now);
            let outcome = self.target.post(list.body).await?;
            let latency = sent.elapsed();
            match outcome {
                Outcome::Accepted(places) => {
                    self.tally().accept(latency, list.items, places.as_deref());
                    let waits = places.iter().flatten().rev().find(|place| !place.is_sealed);
                    if let (Some(follower), Some(place)) = (&self.follower, waits) {
                        follower.offer(place.id, sent);
                    }
                }
                Outcome::Failed { name, pause } => {
                    self.tally().fail(name, list.items);
                    // A schedule goes on regardless.
                    if due.is_none() {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until a list may be sent; returns when it was due, where there is a rate. None at the end.
    async fn next_turn(&self) -> Option<Option<Instant>> {
        if self.plan.rate.is_some() {
            self.due.acquire().await.ok()?.forget();
        }
        let list = self.next.fetch_add(1, Relaxed);
        let is_over = self.ended.load(Relaxed) || self.plan.lists().is_some_and(|lists| list >= lists);
        (!is_over).then(|| self.plan.due(list).map(|due| self.started + due))
    }
}
