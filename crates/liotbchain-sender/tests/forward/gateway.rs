//! An outbox with a forwarder, and readings for it.

use std::{sync::Arc, time::Duration};

use liotbchain_sender::{
    Fate, ForwardConfig, ForwardStatus, Forwarder, Journal, KeyKind, Outcome, Protocol, Receiver, SigningKey,
    outbox::{OUTBOX_FILE, Outbox, OutboxLimits, WhenFull},
    reading::{Body, DeviceName, Reading},
};
use tempfile::TempDir;
use tokio::{
    sync::{broadcast, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

/// What a test waits for is there long before.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Gateway {
    pub outbox: Outbox,
    pub journal: Journal,
    outcomes: broadcast::Receiver<Outcome>,
    _folder: TempDir,
}

/// A forwarder that runs.
pub struct Forwarding {
    pub status: watch::Receiver<ForwardStatus>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

pub fn reading(device: &str, text: impl Into<String>) -> Reading {
    Reading { device: DeviceName::new(device).unwrap(), identity: None, body: Body::Plain(text.into()) }
}

/// So many readings of one device: the numbers from 0.
pub fn readings(count: usize) -> Vec<Reading> {
    (0..count).map(|number| reading("d", number.to_string())).collect()
}

pub fn at(url: &str) -> Receiver {
    Receiver::new(url.parse().unwrap(), None).unwrap()
}

impl Gateway {
    pub async fn new() -> Self {
        Self::signing(KeyKind::Ed25519).await
    }

    pub async fn signing(kind: KeyKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = Arc::new(SigningKey::generate(kind).unwrap());
        let limits = OutboxLimits { size_max: 256 << 20, when_full: WhenFull::Refuse };
        let path = folder.path().join(OUTBOX_FILE);
        let (outbox, _) = Outbox::open(&path, key, limits).await.unwrap();
        let journal = Journal::default();
        Self { outbox, outcomes: journal.subscribe(), journal, _folder: folder }
    }

    /// A gateway that holds so many readings of one device.
    pub async fn holding(count: usize) -> Self {
        let gateway = Self::new().await;
        gateway.put(readings(count)).await;
        gateway
    }

    pub async fn put(&self, readings: Vec<Reading>) {
        self.outbox.put(readings, 1_800_000_000_000).await.unwrap();
    }

    pub fn forward(&self, url: &str) -> Forwarding {
        self.forward_to(vec![at(url)], Protocol::V1)
    }

    pub fn forward_to(&self, receivers: Vec<Receiver>, protocol: Protocol) -> Forwarding {
        let config = ForwardConfig { receivers, protocol };
        let forwarder = Forwarder::new(config, self.outbox.clone(), self.journal.clone()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let status = forwarder.status();
        let task = tokio::spawn(forwarder.run(async { _ = stopped.await }));
        Forwarding { status, stop, task }
    }

    /// Waits until so many records wait.
    pub async fn until_waiting(&self, count: u64) {
        let mut status = self.outbox.status();
        let waited = timeout(PATIENCE, status.wait_for(|status| status.waiting == count)).await;
        assert!(waited.is_ok(), "{count} wait: {:#?}", self.outbox.status().borrow());
    }

    /// Returns the reasons of the records that were set aside, oldest first, each with the reading in it.
    pub async fn set_aside(&self) -> Vec<(String, String)> {
        let mut aside = self.outbox.set_aside(1000).await.unwrap();
        aside.reverse();
        aside.into_iter().map(|(record, reason)| (reading_of(&record.statement.payload), reason)).collect()
    }

    /// Returns what was told of readings since the last time.
    pub fn fates(&mut self) -> Vec<Fate> {
        std::iter::from_fn(|| self.outcomes.try_recv().ok()).map(|outcome| outcome.fate).collect()
    }
}

impl Forwarding {
    pub async fn until(&mut self, what: &str, condition: impl Fn(&ForwardStatus) -> bool) -> ForwardStatus {
        let met = timeout(PATIENCE, self.status.wait_for(|status| condition(status))).await.is_ok();
        let status = self.status.borrow().clone();
        assert!(met, "{what}: {status:#?}");
        status
    }

    pub async fn until_accepted(&mut self, count: u64) -> ForwardStatus {
        let accepted = |status: &ForwardStatus| status.accepted.sealed + status.accepted.pending;
        self.until(&format!("{count} accepted"), |status| accepted(status) >= count).await
    }

    /// Returns the last error once there is one that says this.
    pub async fn until_error(&mut self, words: &str) -> ForwardStatus {
        let says = |status: &ForwardStatus| {
            status.last_error.as_ref().is_some_and(|error| error.message.contains(words))
        };
        self.until(words, says).await
    }

    pub async fn stop(self) {
        self.begin_stop().await;
    }

    /// Tells it to stop, and returns what ends when it has.
    pub fn begin_stop(self) -> impl Future<Output = ()> {
        _ = self.stop.send(());
        async { timeout(PATIENCE, self.task).await.expect("a forwarder stops").unwrap() }
    }
}

/// Returns the device's own text in a record.
pub fn reading_of(payload: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(payload).unwrap();
    record["reading"].to_string()
}
