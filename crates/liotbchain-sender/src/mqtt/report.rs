//! What the MQTT client tells people: its status, and log lines that no flood of the same makes unreadable.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::{config::MqttConfig, fault::MqttFault, message::Unusable};
use crate::{
    gateway::now_ms,
    outbox::{OutboxError, Queued},
};

/// The same kind of line is written so often.
const QUIET: Duration = Duration::from_secs(30);

/// What the client does and did; counts are since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct MqttStatus {
    /// The broker, without user and password.
    pub url: String,
    /// By what the broker knows the sender.
    pub client_id: String,
    /// Connected, and subscribed to one topic at least. Where the broker sends more than fits here before it answers the
    /// subscription, that it sends is taken for the answer until that comes.
    pub connected: bool,
    /// Since when that is so, in milliseconds since 1970.
    pub since_ms: u64,
    /// Messages that came, those that came again with them.
    pub received: u64,
    /// Readings that were stored.
    pub taken: u64,
    /// Readings that were stored before.
    pub duplicates: u64,
    /// Messages that are no readings, by reason: `topic`, `too_large`, `retained`, or the `code` that the same body gets
    /// by HTTP. They were acknowledged, since they would come again for ever.
    pub unusable: BTreeMap<&'static str, u64>,
    /// Messages that wait here now without acknowledgement, since the queue does not take them.
    pub withheld: u64,
    /// Why there is no connection, no full subscription, or no acknowledgement; nothing while all is well.
    pub last_error: Option<String>,
}

/// Keeps the status, and writes the log.
pub(super) struct Report {
    status: watch::Sender<MqttStatus>,
    faults: Muffler,
    fault: String,
    unusable: BTreeMap<&'static str, Muffler>,
    refusals: Muffler,
    is_expiry_told: bool,
}

/// Lets a line through now and then.
#[derive(Default)]
struct Muffler {
    last: Option<Instant>,
    held_back: u64,
}

impl Muffler {
    /// Returns how many lines were held back, where one is due.
    fn pass(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < QUIET) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.held_back))
    }
}

impl Report {
    pub fn new(config: &MqttConfig) -> Self {
        let status = MqttStatus {
            url: config.url(),
            client_id: config.client_id.clone(),
            since_ms: now_ms(),
            ..MqttStatus::default()
        };
        Self {
            status: watch::Sender::new(status),
            faults: Muffler::default(),
            fault: String::new(),
            unusable: BTreeMap::new(),
            refusals: Muffler::default(),
            is_expiry_told: false,
        }
    }

    pub fn subscribe(&self) -> watch::Receiver<MqttStatus> {
        self.status.subscribe()
    }

    /// The broker granted the subscription. Returns whether that is news.
    pub fn connected(&mut self, session_present: bool) -> bool {
        self.fault.clear();
        self.status.send_if_modified(|status| {
            if status.connected {
                return false;
            }
            (status.connected, status.since_ms) = (true, now_ms());
            // What the queue refuses is put to it again at once, and says for itself why.
            if status.withheld == 0 {
                status.last_error = None;
            }
            tracing::info!(
                broker = status.url,
                client_id = status.client_id,
                session_present,
                "connected to the MQTT broker"
            );
            true
        })
    }

    /// The broker keeps the session for a time only.
    pub fn session_expires(&mut self, after_s: u32) {
        if !self.is_expiry_told {
            tracing::warn!(
                "MQTT: the broker forgets the sender once it is away for {after_s} s, and what came meanwhile with it: raise \
                 the session expiry that it allows"
            );
        }
        self.is_expiry_told = true;
    }

    /// There is no connection.
    pub fn lost(&mut self, fault: &MqttFault, retry_in: Duration) {
        let text = fault.to_string();
        if text != self.fault {
            self.faults = Muffler::default();
        }
        self.status.send_modify(|status| {
            if let Some(held_back) = self.faults.pass() {
                tracing::warn!(broker = status.url, ?retry_in, held_back, "MQTT: {text}");
            }
            if status.connected {
                (status.connected, status.since_ms) = (false, now_ms());
            }
            status.last_error = Some(text.clone());
        });
        self.fault = text;
    }

    /// The client was told to stop.
    pub fn stopped(&mut self) {
        self.status.send_modify(|status| (status.connected, status.since_ms) = (false, now_ms()));
    }

    /// The broker does not let the sender have what it subscribed to, or not for certain.
    pub fn subscription_lacks(&mut self, problem: String) {
        tracing::warn!("MQTT: {problem}");
        self.status.send_modify(|status| status.last_error = Some(problem));
    }

    /// A message can never be stored.
    pub fn unusable(&mut self, topic: &str, problem: &Unusable) {
        let reason = problem.reason();
        // A broker sends them as often as it is connected to; that is no mistake of anybody's.
        if !matches!(problem, Unusable::Retained)
            && let Some(held_back) = self.unusable.entry(reason).or_default().pass()
        {
            tracing::warn!(topic, held_back, "MQTT: a message is acknowledged and not stored: {problem}");
        }
        self.status.send_modify(|status| *status.unusable.entry(reason).or_default() += 1);
    }

    /// Messages came.
    pub fn received(&mut self, messages: usize) {
        self.status.send_modify(|status| status.received += messages as u64);
    }

    /// Readings are on the disk.
    pub fn taken(&mut self, queued: &[Queued]) {
        let new = queued.iter().filter(|queued| queued.is_new).count();
        self.status.send_modify(|status| {
            status.taken += new as u64;
            status.duplicates += (queued.len() - new) as u64;
        });
    }

    /// So many messages wait for the queue, and this is why if it refused some just now.
    pub fn withheld(&mut self, messages: usize, refusal: Option<&OutboxError>) {
        if let Some(error) = refusal
            && let Some(held_back) = self.refusals.pass()
        {
            tracing::warn!(messages, held_back, "MQTT: messages are not acknowledged: {error}");
        }
        self.status.send_if_modified(|status| {
            let was_withheld = status.withheld > 0;
            status.withheld = messages as u64;
            if let Some(error) = refusal {
                status.last_error = Some(error.to_string());
            } else if was_withheld && messages == 0 {
                status.last_error = None;
            }
            was_withheld || messages > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_the_same_is_one_line() {
        let mut muffler = Muffler::default();
        assert_eq!(muffler.pass(), Some(0));
        assert_eq!((0..1000).filter_map(|_| muffler.pass()).count(), 0);
        muffler.last = Instant::now().checked_sub(QUIET);
        assert_eq!(muffler.pass(), Some(1000));
    }
}
