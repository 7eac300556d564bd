//! The way on: records are taken from the outbox, posted to a receiver, and settled by what it answers.
//!
//! One request is on its way at a time, and a list that failed is posted again before the next, so that the readings of
//! a device arrive in their order. A record leaves the outbox only when an answer names its id, or is set aside when a
//! receiver refuses that very record; whatever else happens, it waits.

use std::{collections::VecDeque, fmt, pin::pin, str::FromStr, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

mod answer;
mod backoff;
mod batch;
pub(crate) mod clock;
pub(crate) mod link;
mod outage;
mod receiver;
mod rota;
mod settle;
mod status;

use answer::{Failure, Reply};
use batch::Batch;
use link::Link;
use outage::Outage;
pub use receiver::{Receiver, ReceiverError};
use rota::Rota;
pub use status::{Accepted, ForwardStatus, LastAnswer, LastError};

use crate::{
    gateway::now_ms,
    journal::Journal,
    outbox::{Outbox, OutboxError, OutboxStatus, Record},
};

/// Records and bytes of a list at most: enough that what is done once a list costs little of each record, and small
/// enough that a list which is lost on the way is soon sent again.
const RECORDS_MAX: usize = 1000;
const SIZE_MAX: usize = 1 << 20;
/// The original takes ten milliseconds a reading, and what it took of a list that it answers with an error is on its
/// chain twice.
const ORIGINAL_RECORDS_MAX: usize = 32;

/// How long a post may take: the receiver answers within its `SEAL_WAIT`, 5 s if not set otherwise. Doubled each time
/// that this is too short, since it may be set to as much as 300 s.
const POST_TIME: Duration = Duration::from_secs(30);
const POST_TIME_MAX: Duration = Duration::from_secs(330);

/// How long a forwarder that is to stop waits for the answer to the list on its way.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// How long an outbox that cannot be read is left alone.
const OUTBOX_DELAY: Duration = Duration::from_secs(1);

/// What a receiver speaks. `Display` and `FromStr` use the words of the setting `RECEIVER_PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /v1/transactions` of liotbchain.
    V1,
    /// `POST /receive_data` of the Python original. It acknowledges without naming ids, and stores what is sent twice
    /// twice.
    Original,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::Original => "original",
        })
    }
}

/// A text that names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such protocol: expected v1 or original, got {0}")]
pub struct ParseProtocolError(String);

impl FromStr for Protocol {
    type Err = ParseProtocolError;

    fn from_str(text: &str) -> Result<Self, ParseProtocolError> {
        match text {
            "v1" => Ok(Self::V1),
            "original" => Ok(Self::Original),
            _ => Err(ParseProtocolError(text.to_owned())),
        }
    }
}

/// Where records go.
#[derive(Debug, Clone)]
pub struct ForwardConfig {
    /// One receiver, or several of one chain: when one fails, the next is tried at once.
    pub receivers: Vec<Receiver>,
    /// What they speak.
    pub protocol: Protocol,
}

/// Empties an outbox into a receiver.
#[derive(Debug)]
pub struct Forwarder {
    outbox: Outbox,
    journal: Journal,
    protocol: Protocol,
    links: Vec<Link>,
    rota: Rota,
    /// What was taken from the outbox, in the order in which it is posted.
    queue: VecDeque<Batch>,
    /// What comes after it, taken while a list was on its way.
    ahead: Vec<Record>,
    /// Records of a list at present: fewer than allowed where a receiver found a list too large.
    records_max: usize,
    status: watch::Sender<ForwardStatus>,
    outbox_outage: Outage,
    is_clock_wrong: bool,
}

/// The outbox is closed: there is nothing more to do.
#[derive(Debug)]
struct Closed;

impl Forwarder {
    /// Prepares the way; nothing is sent before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// [`ReceiverError`] where there is no receiver, or no HTTP client can be set up.
    pub fn new(config: ForwardConfig, outbox: Outbox, journal: Journal) -> Result<Self, ReceiverError> {
        let ForwardConfig { receivers, protocol } = config;
        let links = receivers.into_iter().map(|receiver| Link::new(receiver, protocol));
        let links = links.collect::<Result<Vec<_>, _>>()?;
        let receiver = links.first().ok_or(ReceiverError::None)?.url().to_string();
        Ok(Self {
            outbox,
            journal,
            protocol,
            rota: Rota::new(links.len()),
            links,
            queue: VecDeque::new(),
            ahead: Vec::new(),
            records_max: most_records(protocol),
            status: watch::Sender::new(ForwardStatus { receiver, ..ForwardStatus::default() }),
            outbox_outage: Outage::default(),
            is_clock_wrong: false,
        })
    }

    /// Returns what forwarding is at, then and later.
    pub fn status(&self) -> watch::Receiver<ForwardStatus> {
        self.status.subscribe()
    }

    /// Forwards until `shutdown` ends; then the request on its way is waited for, within bounds, and the rest stays in
    /// the outbox.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        if self.protocol == Protocol::Original {
            tracing::warn!(
                "RECEIVER_PROTOCOL=original: this receiver does not say which readings it stored, and one that is sent \
                 again after an error may be on its chain twice"
            );
        }
        let (stop, stopped) = watch::channel(false);
        {
            let mut work = pin!(self.work(stopped));
            tokio::select! {
                Closed = &mut work => {}
                () = shutdown => {
                    stop.send_replace(true);
                    if timeout(CLOSE_TIME, work).await.is_err() {
                        tracing::warn!("the receiver has not answered; what was sent to it stays in the queue");
                    }
                }
            }
        }
        let ahead = self.ahead.iter().map(|record| record.slot);
        let slots = self.queue.iter().flat_map(Batch::slots).chain(ahead).collect();
        self.outbox.release(slots).await;
    }

    /// Goes on until it is to stop, or the outbox is closed.
    async fn work(&mut self, mut stop: watch::Receiver<bool>) -> Closed {
        let mut outbox = self.outbox.status();
        loop {
            if *stop.borrow() {
                return Closed;
            }
            let (at, ready_at) = self.rota.next(Instant::now());
            self.note_receiver(at);
            let done = if self.queue.is_empty() {
                outbox.mark_unchanged();
                match self.take().await {
                    Ok(true) => Ok(()),
                    Ok(false) => self.idle(at, ready_at, &mut outbox, &mut stop).await,
                    Err(Closed) => Err(Closed),
                }
            } else if let Some(ready_at) = ready_at {
                tokio::select! {
                    () = stopped(&mut stop) => {}
                    () = sleep_until(ready_at) => {}
                }
                Ok(())
            } else if self.links[at].is_greeted || self.greet(at).await {
                self.post(at).await
            } else {
                Ok(())
            };
            if let Err(Closed) = done {
                return Closed;
            }
        }
    }

    /// Waits for something to send. Meanwhile a receiver that was not reached yet, or is no longer, is looked for, so
    /// that the status tells how things stand.
    async fn idle(
        &mut self,
        at: usize,
        ready_at: Option<Instant>,
        outbox: &mut watch::Receiver<OutboxStatus>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Closed> {
        let now = Instant::now();
        let outbox_at = self.outbox_outage.is_on().then(|| now + OUTBOX_DELAY);
        tokio::select! {
            () = stopped(stop) => {}
            changed = outbox.changed() => changed.map_err(|_| Closed)?,
            () = sleep_until(outbox_at.unwrap_or(now)), if outbox_at.is_some() => {}
            () = sleep_until(ready_at.unwrap_or(now)), if !self.links[at].is_greeted => {
                self.greet(at).await;
            }
        }
        Ok(())
    }

    /// Returns how many bytes a list may have. What is on its way is never dropped, so of a small outbox only a part may be.
    fn size_max(&self) -> usize {
        let part = self.outbox.status().borrow().size_max / 8;
        usize::try_from(part).map_or(SIZE_MAX, |part| part.min(SIZE_MAX))
    }

    /// Takes the next list from the outbox, and returns whether there was one.
    async fn take(&mut self) -> Result<bool, Closed> {
        match self.outbox.take(self.records_max, self.size_max()).await {
            Ok(records) => {
                self.outbox_outage.ended(Instant::now());
                let is_some = !records.is_empty();
                if is_some {
                    self.queue.push_back(Batch::new(records));
                }
                Ok(is_some)
            }
            Err(OutboxError::Closed) => Err(Closed),
            Err(error) => {
                if self.outbox_outage.failed(&error.to_string(), Instant::now()) {
                    tracing::error!(%error, "nothing can be sent");
                }
                Ok(false)
            }
        }
    }

    /// Asks a receiver what it is, and returns whether it can be posted to.
    async fn greet(&mut self, at: usize) -> bool {
        match self.links[at].greet().await {
            Ok(reply) => {
                self.note_clock(&reply);
                if reply.status.is_success() {
                    self.note_reached(at);
                }
                true
            }
            Err(unanswered) => {
                self.postpone(at, &unanswered.failure, Duration::ZERO);
                false
            }
        }
    }

    /// Posts the first list once, and settles what the answer says of it. Takes the next list in the meantime where
    /// there is a whole one.
    async fn post(&mut self, at: usize) -> Result<(), Closed> {
        let Some(batch) = self.queue.front_mut() else { return Ok(()) };
        let is_posted = std::mem::replace(&mut batch.is_posted, true);
        let items = batch.len();
        let time = post_time(batch.unanswered);
        self.status.send_modify(|status| match is_posted {
            true => status.retries += 1,
            false => status.sent += items as u64,
        });
        let waiting = usize::try_from(self.outbox.status().borrow().waiting).unwrap_or(usize::MAX);
        let takes_ahead = self.queue.len() == 1 && waiting >= items + self.records_max;
        let (size_max, ahead) = (self.size_max(), &mut self.ahead);
        let take_ahead = async {
            if takes_ahead {
                // What is wrong shows again, and is told, when there is nothing else to send.
                *ahead = self.outbox.take(self.records_max, size_max).await.unwrap_or_default();
            }
        };
        let post = self.links[at].post(&self.queue[0], waiting > items, time);
        let (reply, ()) = tokio::join!(post, take_ahead);
        if !self.ahead.is_empty() {
            self.queue.push_back(Batch::new(std::mem::take(&mut self.ahead)));
        }
        self.settle(at, reply).await
    }

    /// Leaves a receiver alone for a while, at least so long.
    fn postpone(&mut self, at: usize, failure: &Failure, at_least: Duration) {
        let now = Instant::now();
        let asked = failure.retry_after.unwrap_or_default().max(at_least);
        let retry_in_ms = self.rota.failed(at, now, asked, rand::random()).as_millis();
        let message = &failure.message;
        let waiting = self.outbox.status().borrow().waiting;
        if !self.links[at].outage.failed(message, now) {
            tracing::debug!(waiting, retry_in_ms, "{message}");
        } else if at_least.is_zero() {
            tracing::warn!(waiting, retry_in_ms, "{message}");
        } else {
            tracing::error!(waiting, retry_in_ms, "{message}");
        }
        self.status.send_modify(|status| {
            status.reachable = Some(false);
            status.last_error = Some(last_error(failure, now_ms()));
        });
    }

    fn note_receiver(&self, at: usize) {
        let url = self.links[at].url().as_str();
        self.status.send_if_modified(|status| {
            let is_other = status.receiver != url;
            if is_other {
                status.receiver = url.to_owned();
            }
            is_other
        });
    }

    fn note_reached(&mut self, at: usize) {
        let link = &mut self.links[at];
        if let Some(outage) = link.outage.ended(Instant::now()) {
            let outage_s = outage.as_secs_f64();
            tracing::info!("the receiver at {} is reached again after {outage_s:.1} seconds", link.url());
        }
        self.status.send_if_modified(|status| status.reachable.replace(true) != Some(true));
    }

    fn note_clock(&mut self, reply: &Reply) {
        let Some(offset_ms) = reply.clock_offset_ms else { return };
        self.status.send_modify(|status| status.clock_offset_ms = Some(offset_ms));
        let is_wrong = clock::is_wrong(offset_ms);
        if is_wrong && !self.is_clock_wrong {
            tracing::warn!(
                offset_ms,
                "the receiver's clock and this machine's differ by {} seconds: set the one that is wrong; readings are \
                 stamped with this machine's",
                offset_ms.unsigned_abs() / 1000
            );
        } else if !is_wrong && self.is_clock_wrong {
            tracing::info!(offset_ms, "the receiver's clock and this machine's agree again");
        }
        self.is_clock_wrong = is_wrong;
    }
}

fn post_time(unanswered: u32) -> Duration {
    POST_TIME.saturating_mul(1 << unanswered.min(4)).min(POST_TIME_MAX)
}

fn most_records(protocol: Protocol) -> usize {
    match protocol {
        Protocol::V1 => RECORDS_MAX,
        Protocol::Original => ORIGINAL_RECORDS_MAX,
    }
}

fn last_error(failure: &Failure, timestamp_ms: u64) -> LastError {
    LastError { timestamp_ms, http_status: failure.http_status, message: failure.message.clone() }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever could stop it is gone: that is the same.
    _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_slow_receiver_more_time_each_time() {
        let seconds = Vec::from_iter((0..6).map(|unanswered| post_time(unanswered).as_secs()));
        assert_eq!(seconds, [30, 60, 120, 240, 330, 330]);
        assert_eq!(post_time(u32::MAX), POST_TIME_MAX);
    }

    #[test]
    fn words_of_the_setting_round_trip() {
        for protocol in [Protocol::V1, Protocol::Original] {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!("V1".parse::<Protocol>(), Err(ParseProtocolError("V1".into())));
    }
}
