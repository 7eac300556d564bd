//! What happens on a connection: messages are gathered, taken in one commit, and acknowledged after it.

use std::{pin::pin, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{
    config::MqttConfig,
    fault::MqttFault,
    link::{ANSWER_TIMEOUT, Command, Event, Hello, Link, STATUS_OFFLINE, STATUS_ONLINE, Welcome},
    message::{MESSAGES_MAX, Unusable},
    report::Report,
};
use crate::{
    gateway::Gateway,
    outbox::{OutboxError, Queued},
    reading::Reading,
};

/// Seconds after which the broker takes a silent sender for gone.
const KEEP_ALIVE_S: u16 = 30;
/// Bytes of messages that go into one commit.
const BATCH_SIZE_MAX: usize = 1 << 20;
/// Readings after which no more messages go into one commit: thousands may come in one message.
const READINGS_ENOUGH: usize = 2_000;
/// How long what the queue did not take waits before it is put to it again: at first, and at most.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What lasts from connection to connection.
pub(super) struct Session {
    config: MqttConfig,
    gateway: Gateway,
    pub report: Report,
    /// What came and is not on the disk yet, in the order in which it came. While there is some, no more is read than it
    /// takes to hear that the subscription stands, so that the broker keeps the rest.
    pending: Vec<Delivery>,
}

/// A message that waits to be taken.
struct Delivery {
    /// By what it is acknowledged. Where there is none the broker has no copy.
    packet_id: Option<u16>,
    /// Bytes of its payload.
    size: usize,
    /// None where the message can never be taken.
    readings: Vec<Reading>,
}

impl Session {
    pub fn new(config: MqttConfig, gateway: Gateway) -> Self {
        let report = Report::new(&config);
        Self { config, gateway, report, pending: Vec::new() }
    }

    /// Connects, and stays connected until told to stop.
    ///
    /// # Errors
    ///
    /// [`MqttFault`] says why there is no connection, or no longer one.
    pub async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), MqttFault> {
        let status_topic = self.config.status_topic();
        let hello = hello(&self.config, Some(status_topic.clone()));
        let connect = async {
            let mut link = Link::open(&self.config).await?;
            let welcome = link.greet(&hello).await?;
            Ok::<_, MqttFault>((link, welcome))
        };
        let (mut link, Welcome { session_present, keep_alive_s, session_expiry_s }) = tokio::select! {
            () = stopped(stop) => return Ok(()),
            connected = connect => connected?,
        };
        if let Some(seconds) = session_expiry_s {
            self.report.session_expires(seconds);
        }
        self.resume(session_present);
        // A broker may say that it remembers a session and have lost the subscriptions in it.
        link.put(&Command::Subscribe(&self.config.topics))?;
        link.flush().await?;

        let keep_alive = Duration::from_secs(keep_alive_s.unwrap_or(KEEP_ALIVE_S).into());
        let mut tick = interval((keep_alive / 2).clamp(Duration::from_secs(1), ANSWER_TIMEOUT));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        let (mut is_subscribed, mut is_heard) = (false, true);
        let mut retry_delay = RETRY;
        let mut retry_at = Instant::now();
        loop {
            if !is_subscribed && is_full(&self.pending) {
                // The answer to the subscription stands behind what does not fit here, and may stay there for long.
                self.announce(&mut link, session_present).await?;
            }
            let may_read = self.pending.is_empty() || !is_subscribed && !is_full(&self.pending);
            tokio::select! {
                biased;
                () = stopped(stop) => {
                    link.put(&Command::Status { topic: &status_topic, text: STATUS_OFFLINE })?;
                    link.put(&Command::Disconnect)?;
                    return link.flush().await;
                }
                () = sleep_until(retry_at), if !self.pending.is_empty() => {
                    let is_all = self.store(&mut link, &mut tick).await?;
                    // Little was read meanwhile, so that little could be heard.
                    is_heard = true;
                    retry_delay = if is_all { RETRY } else { (retry_delay * 2).min(RETRY_MAX) };
                    retry_at = if is_all { Instant::now() } else { Instant::now() + retry_delay };
                }
                _ = tick.tick() => {
                    if may_read && !(is_subscribed && is_heard) {
                        return Err(MqttFault::Silent(tick.period()));
                    }
                    is_heard = false;
                    ping(&mut link).await?;
                }
                event = next(&mut link, may_read) => {
                    is_heard = true;
                    let mut next = Some(event?);
                    let known = self.pending.len();
                    while let Some(event) = next {
                        if let Event::Subscribed(grants) = &event {
                            self.note_grants(grants, &mut link, session_present).await?;
                            is_subscribed = true;
                        }
                        self.note(event)?;
                        next = if is_full(&self.pending) { None } else { link.next_here()? };
                    }
                    self.report.received(self.pending.len() - known);
                }
            }
        }
    }

    /// Decides about what an earlier connection left behind.
    fn resume(&mut self, session_present: bool) {
        if session_present {
            // The broker sends the others again.
            self.pending.retain(|delivery| delivery.packet_id.is_none());
        } else {
            // The broker forgot them, so that these are the last copies, and nobody waits for an acknowledgement.
            self.pending.iter_mut().for_each(|delivery| delivery.packet_id = None);
        }
        self.report.withheld(self.pending.len(), None);
    }

    /// Tells, once for each connection, that the sender is there.
    async fn announce(&mut self, link: &mut Link, session_present: bool) -> Result<(), MqttFault> {
        if self.report.connected(session_present) {
            let topic = self.config.status_topic();
            link.put(&Command::Status { topic: &topic, text: STATUS_ONLINE })?;
            link.flush().await?;
        }
        Ok(())
    }

    /// Looks at what the broker grants.
    ///
    /// # Errors
    ///
    /// [`MqttFault::Subscription`] where it grants nothing: it may another time.
    async fn note_grants(
        &mut self,
        grants: &[Result<u8, String>],
        link: &mut Link,
        session_present: bool,
    ) -> Result<(), MqttFault> {
        if let Some(fault) = refusals(&self.config, grants).next()
            && grants.iter().all(Result::is_err)
        {
            return Err(fault);
        }
        self.announce(link, session_present).await?;
        for fault in refusals(&self.config, grants) {
            self.report.subscription_lacks(fault.to_string());
        }
        for (filter, _) in self.config.topics.filters().zip(grants).filter(|(_, grant)| **grant == Ok(0)) {
            self.report.subscription_lacks(format!(
                "the broker grants {filter:?} at QoS 0 only: what comes while the sender is away is lost"
            ));
        }
        Ok(())
    }

    /// Takes note of what came.
    fn note(&mut self, event: Event) -> Result<(), MqttFault> {
        let (packet_id, size, readings) = match event {
            Event::Message(message) => {
                let readings = message.readings(&self.config.topics).unwrap_or_else(|problem| {
                    self.report.unusable(&message.topic, &problem);
                    Vec::new()
                });
                (message.packet_id, message.payload.len(), readings)
            }
            Event::Oversized { packet_id, topic, size } => {
                self.report.unusable(&topic, &Unusable::TooLarge(size));
                (packet_id, 0, Vec::new())
            }
            Event::Ended(fault) | Event::Refused(fault) => return Err(fault),
            Event::Welcome(_) => return Err(MqttFault::Malformed("a second welcome".to_owned())),
            Event::Subscribed(_) | Event::Nothing => return Ok(()),
        };
        self.pending.push(Delivery { packet_id, size, readings });
        Ok(())
    }

    /// Takes what is pending, acknowledges what was taken in the order in which it came, and returns whether that was
    /// all of it.
    async fn store(&mut self, link: &mut Link, tick: &mut Interval) -> Result<bool, MqttFault> {
        let ((count, refusal), pinged) = finish(self.take(), link, tick).await;
        for delivery in self.pending.drain(..count) {
            if let Some(packet_id) = delivery.packet_id {
                link.put(&Command::Ack(packet_id))?;
            }
        }
        self.report.withheld(self.pending.len(), refusal.as_ref());
        pinged?;
        link.flush().await?;
        Ok(refusal.is_none())
    }

    /// Returns how many of the pending messages were taken, and why not the next.
    async fn take(&mut self) -> (usize, Option<OutboxError>) {
        match self.take_some(0, self.pending.len()).await {
            Ok(()) => (self.pending.len(), None),
            // What does not fit as a whole may fit in part.
            Err(OutboxError::Full { .. }) if self.pending.len() > 1 => {
                for index in 0..self.pending.len() {
                    if let Err(error) = self.take_some(index, index + 1).await {
                        return (index, Some(error));
                    }
                }
                (self.pending.len(), None)
            }
            Err(error) => (0, Some(error)),
        }
    }

    async fn take_some(&mut self, from: usize, to: usize) -> Result<(), OutboxError> {
        let deliveries = &self.pending[from..to];
        // The queue gives nothing back that it refuses; copies of one commit's worth are the price of another attempt.
        let readings: Vec<Reading> = deliveries.iter().flat_map(|it| it.readings.iter().cloned()).collect();
        if !readings.is_empty() {
            let queued: Vec<Queued> = self.gateway.take(readings).await?;
            self.report.taken(&queued);
        }
        Ok(())
    }
}

/// Whether no more may go into one commit.
fn is_full(pending: &[Delivery]) -> bool {
    let size: usize = pending.iter().map(|delivery| delivery.size).sum();
    let readings: usize = pending.iter().map(|delivery| delivery.readings.len()).sum();
    pending.len() >= MESSAGES_MAX || size >= BATCH_SIZE_MAX || readings >= READINGS_ENOUGH
}

/// Does work to its end, which may be long in coming on a slow disk, and lets the broker know meanwhile that the sender is
/// there. What becomes of the connection is told apart: work that was given up halfway would be done twice.
async fn finish<T>(
    work: impl Future<Output = T>,
    link: &mut Link,
    tick: &mut Interval,
) -> (T, Result<(), MqttFault>) {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return (done, Ok(())),
            _ = tick.tick() => {
                if let Err(fault) = ping(link).await {
                    return (work.await, Err(fault));
                }
            }
        }
    }
}

async fn ping(link: &mut Link) -> Result<(), MqttFault> {
    link.put(&Command::Ping)?;
    link.flush().await
}

/// Connects as a visitor beside the running sender, asks for the subscriptions, and leaves nothing behind.
///
/// # Errors
///
/// [`MqttFault`] says what the sender would fail at, the first refused topic included.
pub async fn check_broker(config: &MqttConfig) -> Result<(), MqttFault> {
    let hello = Hello { client_id: format!("{}-check", config.client_id), ..hello(config, None) };
    let mut link = Link::open(config).await?;
    link.greet(&hello).await?;
    link.put(&Command::Subscribe(&config.topics))?;
    link.flush().await?;
    let grants = async {
        loop {
            match link.next().await? {
                Event::Subscribed(grants) => return Ok(grants),
                Event::Ended(fault) => return Err(fault),
                _ => {}
            }
        }
    };
    let grants = timeout(ANSWER_TIMEOUT, grants).await.map_err(|_| MqttFault::Silent(ANSWER_TIMEOUT))??;
    link.put(&Command::Disconnect)?;
    link.flush().await?;
    refusals(config, &grants).next().map_or(Ok(()), Err)
}

/// Returns what comes next; where none may be read, only that the connection ended.
async fn next(link: &mut Link, may_read: bool) -> Result<Event, MqttFault> {
    if may_read { link.next().await } else { Err(link.end().await) }
}

/// Waits until told to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever could tell is gone where this fails.
    let _ = stop.wait_for(|it| *it).await;
}

fn hello(config: &MqttConfig, status_topic: Option<String>) -> Hello {
    Hello {
        client_id: config.client_id.clone(),
        keep_alive_s: KEEP_ALIVE_S,
        login: config.login.clone(),
        status_topic,
    }
}

fn refusals<'a>(
    config: &'a MqttConfig,
    grants: &'a [Result<u8, String>],
) -> impl Iterator<Item = MqttFault> + 'a {
    config.topics.filters().zip(grants).filter_map(|(filter, grant)| {
        let reason = grant.as_ref().err()?.clone();
        Some(MqttFault::Subscription { filter: filter.to_owned(), reason })
    })
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, time::sleep};

    use super::*;
    use crate::{
        mqtt::config::Version,
        reading::{Body, DeviceName},
    };

    #[test]
    fn a_commit_is_full_by_messages_by_bytes_and_by_readings() {
        let reading = Reading {
            device: DeviceName::new("pi").unwrap(),
            identity: None,
            body: Body::Plain("{}".to_owned()),
        };
        let pending = |messages: usize, size: usize, readings: usize| -> Vec<Delivery> {
            let delivery = || Delivery { packet_id: None, size, readings: vec![reading.clone(); readings] };
            (0..messages).map(|_| delivery()).collect()
        };
        assert!(!is_full(&pending(MESSAGES_MAX - 1, 2, 1)) && is_full(&pending(MESSAGES_MAX, 2, 1)));
        assert!(!is_full(&pending(3, BATCH_SIZE_MAX / 4, 1)) && is_full(&pending(4, BATCH_SIZE_MAX / 4, 1)));
        assert!(
            !is_full(&pending(3, 2, READINGS_ENOUGH / 4)) && is_full(&pending(4, 2, READINGS_ENOUGH / 4))
        );
    }

    #[tokio::test]
    async fn the_broker_hears_of_the_sender_while_it_works() {
        let (ours, mut broker) = tokio::io::duplex(1 << 10);
        let mut link = Link::new(Box::new(ours), Version::V5);
        let work = async {
            let mut pings = [0; 4];
            broker.read_exact(&mut pings).await.unwrap();
            pings
        };
        let (pings, pinged) = finish(work, &mut link, &mut interval(Duration::from_millis(1))).await;
        assert_eq!(pings, [0xc0, 0, 0xc0, 0]);
        pinged.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_finished_though_the_connection_broke() {
        let (ours, broker) = tokio::io::duplex(1 << 10);
        drop(broker);
        let mut link = Link::new(Box::new(ours), Version::V5);
        let work = async {
            sleep(Duration::from_millis(9)).await;
            "done"
        };
        let (done, pinged) = finish(work, &mut link, &mut interval(Duration::from_millis(1))).await;
        assert_eq!(done, "done");
        assert!(matches!(pinged, Err(MqttFault::Broken(_))));
    }
}
