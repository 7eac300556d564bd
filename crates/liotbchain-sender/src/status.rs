//! What a sender does and has done, as `GET /status` shows it.

use std::{collections::BTreeMap, sync::Arc};

use liotbchain_core::PublicKey;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    forward::{Accepted, ForwardStatus, LastAnswer, LastError},
    gateway::now_ms,
    job::State,
    journal::{DeviceCounts, Devices},
    mqtt::MqttStatus,
    outbox::{OutboxLimits, OutboxStatus, WhenFull},
    rate::Tempo,
};

/// What a sender does and has done. Counts are of readings since the start of the process where not said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Status {
    /// Whether the simulated devices measure.
    pub running: bool,
    /// Whether they wait because the queue takes no more; they go on once it does.
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
    /// Readings that wait for an answer, or to be posted. They are on the disk.
    pub waiting: u64,
    /// The last list that was acknowledged.
    pub last_answer: Option<LastAnswer>,
    /// The last failure, which later answers do not erase.
    pub last_error: Option<LastError>,
    /// The receiver that is sent to.
    pub receiver_url: String,
    /// Whether the last try to reach a receiver succeeded; not known before the first.
    pub receiver_reachable: Option<bool>,
    /// Id of the key that signs: SHA-256 of its SubjectPublicKeyInfo.
    pub key_id: String,
    /// What kind of key it is.
    pub algorithm: String,
    /// What waits on the disk.
    pub queue: Queue,
    /// How often a sender was started on this queue.
    pub boot: u64,
    /// Readings that were put into the queue.
    pub queued: u64,
    /// Readings that a device sent again; there is one record of each.
    pub duplicates: u64,
    /// Readings dropped because the queue was full, which happens only with `OUTBOX_WHEN_FULL=drop_oldest`.
    pub dropped: u64,
    /// Records that a receiver refused for good and that are kept apart, in all.
    pub set_aside: u64,
    /// By how many milliseconds the receiver's clock is ahead of this machine's (negative: behind), give or take half a
    /// second. Readings are taken and sent whatever it is; only their `received_ms` is wrong then.
    pub clock_offset_ms: Option<i64>,
    /// What the MQTT client does; none without `MQTT_URL`.
    pub mqtt: Option<MqttStatus>,
    /// What became of the readings of each device: of the 1,000 devices that were heard of last, since the start of the
    /// process.
    #[schema(value_type = BTreeMap<String, DeviceCounts>)]
    pub devices: BTreeMap<Arc<str>, DeviceCounts>,
    /// Devices whose counts were given up because there were more.
    pub devices_forgotten: u64,
}

/// What waits on the disk, and how long there is room for more.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Queue {
    /// Readings that wait.
    pub waiting: u64,
    /// Bytes of the file in use.
    pub bytes: u64,
    /// Bytes that it may have: `OUTBOX_SIZE_MAX`.
    pub bytes_max: u64,
    /// Seconds since the oldest that waits was received, by this machine's clock.
    pub oldest_age_s: Option<f64>,
    /// What happens to new readings once it is full: `refuse` or `drop_oldest`.
    #[schema(example = "refuse")]
    pub when_full: &'static str,
    /// Readings that came in a second, over the last minute.
    pub readings_per_second: f64,
    /// Seconds until it is full if as much goes on coming as within the last minute, and no receiver takes any. None
    /// where nothing came.
    pub seconds_until_full: Option<f64>,
    /// Why the last write failed, while none has succeeded since.
    pub fault: Option<String>,
}

impl Queue {
    pub(crate) fn new(status: &OutboxStatus, limits: OutboxLimits, tempo: Tempo, now_ms: u64) -> Self {
        let free = limits.size_max.saturating_sub(status.size);
        Self {
            waiting: status.waiting,
            bytes: status.size,
            bytes_max: limits.size_max,
            // A clock that was set back since says nothing.
            oldest_age_s: status.oldest_ms.map(|oldest_ms| now_ms.saturating_sub(oldest_ms) as f64 / 1000.0),
            when_full: match limits.when_full {
                WhenFull::Refuse => "refuse",
                WhenFull::DropOldest => "drop_oldest",
            },
            readings_per_second: round(tempo.readings),
            seconds_until_full: tempo.lasts(free).map(|lasts| lasts.as_secs_f64().round()),
            fault: status.fault.clone(),
        }
    }
}

/// Two places behind the point are as much as a mean of a minute can say.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// What a status is made of.
pub(crate) struct Parts<'a> {
    pub job: State,
    pub outbox: OutboxStatus,
    pub limits: OutboxLimits,
    pub tempo: Tempo,
    pub forward: ForwardStatus,
    pub mqtt: Option<MqttStatus>,
    pub devices: Devices,
    pub key: &'a PublicKey,
}

impl Status {
    pub(crate) fn new(parts: Parts<'_>) -> Self {
        let Parts { job: State { job, running, paused, .. }, outbox, limits, tempo, forward, mqtt, .. } =
            parts;
        let Devices { counts, forgotten } = parts.devices;
        Self {
            running,
            paused,
            number_of_items_to_send: job.map(|job| job.items()),
            interval_time: job.map(|job| job.interval().as_secs_f64()),
            sent: forward.sent,
            accepted: forward.accepted,
            refused: forward.refused,
            retries: forward.retries,
            waiting: outbox.waiting,
            last_answer: forward.last_answer,
            last_error: forward.last_error,
            receiver_url: forward.receiver,
            receiver_reachable: forward.reachable,
            key_id: parts.key.key_id().to_string(),
            algorithm: parts.key.algorithm().to_string(),
            queue: Queue::new(&outbox, limits, tempo, now_ms()),
            boot: outbox.boot,
            queued: outbox.put,
            duplicates: outbox.duplicates,
            dropped: outbox.dropped,
            set_aside: outbox.set_aside,
            clock_offset_ms: forward.clock_offset_ms,
            mqtt,
            devices: counts,
            devices_forgotten: forgotten,
        }
    }
}
