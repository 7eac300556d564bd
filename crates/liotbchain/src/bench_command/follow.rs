//! When readings that an answer called pending come into a block: a sample of them is followed.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use liotbchain_core::TransactionId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::tally::Times;
use super::target::{State, Target};

/// Readings followed at a time, so that the asking is no load beside the load.
const FOLLOWED_MAX: usize = 16;
/// How often each is asked for.
const ASK_INTERVAL: Duration = Duration::from_millis(10);
/// How long the last ones are waited for after the run.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A reading, and when it was sent.
type Offer = (TransactionId, Instant);

/// Follows a sample of the readings that are offered.
pub struct Follower {
    /// None once the run is over.
    offers: Mutex<Option<mpsc::Sender<Offer>>>,
}

/// What came of the sample.
pub struct Followed {
    /// From the request until the reading was seen in a block.
    pub until_sealed: Times,
    /// Those that are in none yet.
    pub pending: usize,
}

impl Follower {
    /// Starts to follow. The task ends after [`Follower::close`].
    pub fn start(target: Target) -> (Self, JoinHandle<Followed>) {
        let (offers, offered) = mpsc::channel(1);
        (Self { offers: Mutex::new(Some(offers)) }, tokio::spawn(follow(target, offered)))
    }

    /// Offers a reading; it is passed over where enough are followed.
    pub fn offer(&self, id: TransactionId, sent: Instant) {
        if let Some(offers) = &*self.offers.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = offers.try_send((id, sent));
        }
    }

    /// Takes no more offers.
    pub fn close(&self) {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

async fn follow(target: Target, mut offered: mpsc::Receiver<Offer>) -> Followed {
    let mut until_sealed = Times::new();
    let mut followed: Vec<Offer> = Vec::new();
    let mut closed_at: Option<Instant> = None;
    loop {
        if followed.is_empty() {
            match offered.recv().await {
                Some(offer) => followed.push(offer),
                None => return Followed { until_sealed, pending: 0 },
            }
        }
        while followed.len() < FOLLOWED_MAX
            && let Ok(offer) = offered.try_recv()
        {
            followed.push(offer);
        }
        if offered.is_closed() && closed_at.get_or_insert_with(Instant::now).elapsed() > LAST_WAIT {
            return Followed { until_sealed, pending: followed.len() };
        }
        let mut waiting = Vec::with_capacity(followed.len());
        for (id, sent) in followed {
            match target.state(id).await {
                Some(State::Sealed) => until_sealed.add(sent.elapsed()),
                _ => waiting.push((id, sent)),
            }
        }
        followed = waiting;
        tokio::time::sleep(ASK_INTERVAL).await;
    }
}
