//! A sender at work: the way in, the queue on disk, the way out, and the simulated devices.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
};

use crate::{
    SenderError,
    forward::{ForwardConfig, ForwardStatus, Forwarder},
    gateway::Gateway,
    generator::generate,
    job::{Job, State},
    journal::{Journal, Outcome},
    mqtt::{Mqtt, MqttConfig, MqttStatus},
    outbox::{OUTBOX_FILE, Opened, Outbox, OutboxError, OutboxLimits, Record, WhenFull},
    rate::{InWords, RECORD_OVERHEAD, Tempo},
    readiness::Readiness,
    signer::SigningKey,
    status::{Parts, Status},
};

/// Bytes of the reading by which people are told how much the queue holds.
const TYPICAL_READING: u64 = 300;

/// What a sender works with.
#[derive(Debug)]
pub struct SenderOptions {
    /// Folder of the queue.
    pub data_dir: PathBuf,
    /// What signs.
    pub key: SigningKey,
    /// Where readings go.
    pub forward: ForwardConfig,
    /// How much may wait, and what happens then.
    pub outbox: OutboxLimits,
    /// The broker that devices publish to, if there is one.
    pub mqtt: Option<MqttConfig>,
}

/// A sender: takes readings by its [`Gateway`], and makes some of its own once a job is started; what waits on its disk
/// from before is sent in any case.
///
/// Cheap to clone; all clones are the same sender, and the last one that is dropped ends it. [`Sender::close`] first,
/// or what was just sent may be sent again by the next.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gateway: Gateway,
    journal: Journal,
    outbox: Outbox,
    limits: OutboxLimits,
    forward: watch::Receiver<ForwardStatus>,
    mqtt: Option<watch::Receiver<MqttStatus>>,
    key: Arc<SigningKey>,
    job: watch::Sender<State>,
    closing: watch::Sender<bool>,
    /// What is ended by [`Sender::close`], and by the first one alone.
    roads: Mutex<Option<Roads>>,
    _generator: JoinSet<()>,
}

/// The ways in and out that are at work.
#[derive(Debug)]
struct Roads {
    mqtt: Option<Mqtt>,
    stop_forwarding: watch::Sender<bool>,
    forwarding: JoinSet<()>,
}

impl Sender {
    /// Opens the queue, and begins to send what waits in it. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`SenderError`] where the queue cannot be opened, or the HTTP client not be made.
    pub async fn open(options: SenderOptions) -> Result<Self, SenderError> {
        let SenderOptions { data_dir, key, forward, outbox: limits, mqtt } = options;
        let key = Arc::new(key);
        let (outbox, opened) = Outbox::open(&data_dir.join(OUTBOX_FILE), Arc::clone(&key), limits).await?;
        tell(limits, &opened);
        let journal = Journal::default();
        let gateway = Gateway::new(outbox.clone(), journal.clone());
        let forwarder = Forwarder::new(forward, outbox.clone(), journal.clone())?;
        let forward = forwarder.status();
        let (stop_forwarding, mut stopped) = watch::channel(false);
        let mut forwarding = JoinSet::new();
        forwarding.spawn(forwarder.run(async move { _ = stopped.wait_for(|stopped| *stopped).await }));
        let mqtt = mqtt.map(|config| Mqtt::start(config, gateway.clone()));
        let job = watch::Sender::new(State::default());
        let mut generator = JoinSet::new();
        generator.spawn(generate(job.clone(), gateway.clone()));
        Ok(Self(Arc::new(Inner {
            gateway,
            journal,
            outbox,
            limits,
            forward,
            mqtt: mqtt.as_ref().map(Mqtt::status),
            key,
            job,
            closing: watch::Sender::new(false),
            roads: Mutex::new(Some(Roads { mqtt, stop_forwarding, forwarding })),
            _generator: generator,
        })))
    }

    /// Returns the way in for readings of real devices.
    pub fn gateway(&self) -> &Gateway {
        &self.0.gateway
    }

    /// Returns what became of readings.
    pub fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Lets the simulated devices measure from now on, in place of the job that ran.
    pub fn start(&self, job: Job) {
        tracing::info!(items = job.items(), interval_s = job.interval().as_secs_f64(), "job started");
        self.0.job.send_modify(|state| state.start(job));
    }

    /// Ends the job, and returns whether one ran. What waits is sent all the same.
    pub fn stop(&self) -> bool {
        let mut ran = false;
        self.0.job.send_modify(|state| ran = state.stop());
        if ran {
            tracing::info!("job stopped");
        }
        ran
    }

    /// Returns what the sender does and has done.
    pub fn status(&self) -> Status {
        let inner = &*self.0;
        Status::new(Parts {
            job: *inner.job.borrow(),
            outbox: inner.outbox.status().borrow().clone(),
            limits: inner.limits,
            tempo: inner.gateway.tempo(),
            forward: inner.forward.borrow().clone(),
            mqtt: inner.mqtt.as_ref().map(|mqtt| mqtt.borrow().clone()),
            devices: inner.journal.counts(),
            key: inner.key.public_key(),
        })
    }

    /// Returns whether readings are taken.
    pub fn readiness(&self) -> Readiness {
        let Inner { outbox, limits, forward, mqtt, .. } = &*self.0;
        let broker_connected = mqtt.as_ref().map(|mqtt| mqtt.borrow().connected);
        Readiness::new(&outbox.status().borrow(), *limits, &forward.borrow(), broker_connected)
    }

    /// Returns the latest records that a receiver refused, newest first, and why.
    ///
    /// # Errors
    ///
    /// [`OutboxError`] where the queue cannot be read.
    pub async fn set_aside(&self, limit: u32) -> Result<Vec<(Record, String)>, OutboxError> {
        self.0.outbox.set_aside(limit).await
    }

    /// Returns the outcomes to come, and a sign that the sender ends.
    pub(crate) fn outcomes(&self) -> (broadcast::Receiver<Outcome>, watch::Receiver<bool>) {
        (self.0.journal.subscribe(), self.0.closing.subscribe())
    }

    /// Ends the job for good, takes leave of the broker, waits within bounds for the answer to what is on its way, and
    /// closes the queue. What waits stays on the disk for the next start.
    pub async fn close(&self) {
        let Inner { outbox, job, closing, roads, .. } = &*self.0;
        job.send_modify(State::close);
        let roads = roads.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Roads { mqtt, stop_forwarding, mut forwarding }) = roads {
            if let Some(mqtt) = mqtt {
                mqtt.close().await;
            }
            stop_forwarding.send_replace(true);
            forwarding.join_next().await;
        }
        let waiting = outbox.status().borrow().waiting;
        outbox.close().await;
        if waiting > 0 {
            tracing::info!(waiting, "readings wait on the disk for the next start");
        }
        closing.send_replace(true);
    }
}

/// Says what was found, and how long it will last.
fn tell(limits: OutboxLimits, opened: &Opened) {
    if let Some((path, records)) = &opened.salvaged {
        tracing::warn!(
            records,
            "the queue was damaged: it is kept as {}, and every record that proves itself was saved from it",
            path.display()
        );
    }
    if opened.waiting > 0 {
        tracing::info!(waiting = opened.waiting, "readings wait from before");
    }
    tracing::info!("{}", capacity(limits));
}

/// Says how much the queue holds, before anything is known of the readings that will come.
fn capacity(OutboxLimits { size_max, when_full }: OutboxLimits) -> String {
    let one_a_second = Tempo { readings: 1.0, bytes: (TYPICAL_READING + RECORD_OVERHEAD) as f64 };
    let lasts = one_a_second.lasts(size_max).map_or_else(String::new, |lasts| format!("{}", InWords(lasts)));
    let readings = size_max / (TYPICAL_READING + RECORD_OVERHEAD);
    let then = match when_full {
        WhenFull::Refuse => "then new ones are refused",
        WhenFull::DropOldest => "then the oldest are dropped",
    };
    let size = size_max as f64 / f64::from(1 << 20);
    format!(
        "queue: {size:.0} MiB, holds about {readings} readings of {TYPICAL_READING} bytes: {lasts} at 1/s; {then}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        KeyKind,
        reading::{Body, DeviceName, Reading},
    };

    #[test]
    fn says_how_long_the_queue_lasts() {
        let limits = OutboxLimits { size_max: 256 << 20, when_full: WhenFull::Refuse };
        let readings = (256 << 20) / (300 + RECORD_OVERHEAD);
        let expected = format!(
            "queue: 256 MiB, holds about {readings} readings of 300 bytes: {} days at 1/s; then new ones are refused",
            readings / 86_400
        );
        assert_eq!(capacity(limits), expected);
    }

    #[tokio::test]
    async fn a_reading_takes_as_much_of_the_queue_as_is_said() {
        const READINGS: u64 = 4000;
        let folder = tempfile::tempdir().unwrap();
        let key = Arc::new(SigningKey::generate(KeyKind::Ed25519).unwrap());
        let limits = OutboxLimits { size_max: 64 << 20, when_full: WhenFull::Refuse };
        let (outbox, _) = Outbox::open(&folder.path().join(OUTBOX_FILE), key, limits).await.unwrap();
        let device = DeviceName::new("greenhouse-1").unwrap();
        let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(TYPICAL_READING as usize - 11));
        assert_eq!(text.len() as u64, TYPICAL_READING);
        let reading = Reading { device, identity: None, body: Body::Plain(text) };
        let empty = outbox.status().borrow().size;
        outbox.put(vec![reading; READINGS as usize], 0).await.unwrap();
        let each = (outbox.status().borrow().size - empty) / READINGS;
        let said = TYPICAL_READING + RECORD_OVERHEAD;
        assert!(each.abs_diff(said) <= said / 10, "{each} bytes, and {said} are said");
    }
}
