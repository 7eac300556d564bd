//! Signed readings, ready before they are needed: what is measured is the receiver, not who signs.
//!
//! Reading by reading no two are the same, since a receiver takes a repetition for the first one. They cannot be used
//! twice, so a long run signs while it sends: threads keep a bounded number of lists ahead.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_sender::SigningKey;
use liotbchain_sender::device::Devices;
use tokio::sync::Semaphore;

use super::plan::{Length, Plan};
use crate::Failure;

/// Bytes of lists that wait to be sent: about 350,000 readings with Ed25519 keys, 140,000 with RSA keys.
const AHEAD_BYTES: usize = 128 << 20;
/// More than one receiver on a small machine takes in a second; a run that ends by time signs no more ahead.
const AHEAD_A_SECOND: u64 = 50_000;
/// Signing ahead ends after this, whatever is signed: RSA signs a thousand times a second.
const AHEAD_TIME: Duration = Duration::from_secs(20);

/// A list as it is posted.
pub struct List {
    pub items: u32,
    pub body: Vec<u8>,
}

/// Lists of signed readings, and the threads that sign them.
pub struct Lists(Arc<Shared>);

struct Shared {
    plan: Plan,
    devices: Vec<Device>,
    clock: Mutex<Devices>,
    queue: Mutex<Queue>,
    /// Told where there is room in the queue again, or nothing more to do.
    room: Condvar,
    /// A permit a list in the queue; closed when there will be no more.
    ready: Semaphore,
    /// Readings signed so far.
    signed: AtomicU64,
    /// How long connections waited for a list, all together.
    waited_us: AtomicU64,
}

struct Queue {
    lists: VecDeque<List>,
    bytes: usize,
    /// Number of the next list to sign.
    next: u64,
    /// Signers rest once the queue is full, until it is nearly empty: they would otherwise take the processors from a
    /// receiver on this machine for readings that nobody needs.
    resting: bool,
    closed: bool,
}

struct Device {
    key: SigningKey,
    /// Its public key in PEM, as a JSON string.
    public_key: String,
}

impl Lists {
    /// Makes the keys and starts to sign.
    ///
    /// # Errors
    ///
    /// Where the system gives no random numbers or no threads.
    pub fn start(plan: &Plan) -> Result<Self, Failure> {
        let devices = (0..plan.keys).map(|_| {
            let key = SigningKey::generate(plan.key)?;
            let public_key =
                serde_json::to_string(&key.public_key().to_pem()).expect("a text has a JSON form");
            Ok(Device { key, public_key })
        });
        let shared = Arc::new(Shared {
            plan: plan.clone(),
            devices: devices.collect::<Result<_, Failure>>()?,
            clock: Mutex::default(),
            queue: Mutex::new(Queue {
                lists: VecDeque::new(),
                bytes: 0,
                next: 0,
                resting: false,
                closed: false,
            }),
            room: Condvar::new(),
            ready: Semaphore::new(0),
            signed: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
        });
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let shared = Arc::clone(&shared);
            let signer = thread::Builder::new().name("signer".to_owned());
            signer
                .spawn(move || shared.sign_lists())
                .map_err(|error| Failure::failed(format!("the system gives no threads: {error}")))?;
        }
        Ok(Self(shared))
    }

    /// Waits until as much is signed as is to be ahead. Tells meanwhile how many readings are.
    pub async fn ahead(&self, mut progress: impl FnMut(u64, u64)) {
        let started = Instant::now();
        while !self.0.is_ahead() && started.elapsed() < AHEAD_TIME {
            progress(self.signed(), self.0.ahead_max());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the next list; none where there are no more.
    pub async fn take(&self) -> Option<List> {
        let started = Instant::now();
        self.0.ready.acquire().await.ok()?.forget();
        self.0.waited_us.fetch_add(started.elapsed().as_micros() as u64, Relaxed);
        let mut queue = self.0.lock();
        let list = queue.lists.pop_front()?;
        queue.bytes -= list.body.len();
        if queue.resting && queue.readings(&self.0.plan) < self.0.ahead_max() / 4 {
            queue.resting = false;
            self.0.room.notify_all();
        }
        Some(list)
    }

    /// Returns how many readings are signed so far.
    pub fn signed(&self) -> u64 {
        self.0.signed.load(Relaxed)
    }

    /// Returns how long connections waited for a list so far, all together.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.0.waited_us.load(Relaxed))
    }

    /// Ends the signing; who waits for a list gets none.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.ready.close();
        self.0.room.notify_all();
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    /// Returns how many readings wait, at most.
    fn readings(&self, plan: &Plan) -> u64 {
        self.lists.len() as u64 * u64::from(plan.batch)
    }
}

impl Shared {
    fn sign_lists(&self) {
        while let Some(number) = self.next_number() {
            let list = self.sign(number);
            self.signed.fetch_add(list.items.into(), Relaxed);
            let mut queue = self.lock();
            queue.bytes += list.body.len();
            queue.lists.push_back(list);
            queue.resting |= self.is_full(&queue);
            drop(queue);
            self.ready.add_permits(1);
        }
    }

    /// Returns the number of a list to sign, once there is room for it; none where nothing is left to do.
    fn next_number(&self) -> Option<u64> {
        let mut queue = self.lock();
        loop {
            if queue.closed || self.plan.lists().is_some_and(|lists| queue.next >= lists) {
                return None;
            }
            if !queue.resting {
                queue.next += 1;
                return Some(queue.next - 1);
            }
            queue = self.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn sign(&self, number: u64) -> List {
        let items = self.plan.items(number);
        let device = &self.devices[(number % self.devices.len() as u64) as usize];
        let texts: Vec<String> = {
            // One clock for all threads, so that no two readings have the same time.
            let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
            (0..items).map(|_| clock.measure(SystemTime::now()).1).collect()
        };
        let mut body = String::with_capacity(texts.len() * (texts[0].len() + device.public_key.len() + 400));
        for text in &texts {
            let separator = if body.is_empty() { '[' } else { ',' };
            body.push(separator);
            body.push_str("{\"data\":");
            body.push_str(text);
            body.push_str(",\"signature\":\"");
            STANDARD.encode_string(device.key.sign(text.as_bytes()), &mut body);
            body.push_str("\",\"public_key\":");
            body.push_str(&device.public_key);
            body.push('}');
        }
        body.push(']');
        body.shrink_to_fit();
        List { items, body: body.into_bytes() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many readings are to be ahead, if their bytes allow it.
    fn ahead_max(&self) -> u64 {
        match self.plan.length {
            Length::Readings(readings) => readings,
            Length::Seconds(seconds) => u64::from(seconds) * self.plan.rate.map_or(AHEAD_A_SECOND, u64::from),
        }
    }

    fn is_full(&self, queue: &Queue) -> bool {
        queue.bytes >= AHEAD_BYTES || queue.readings(&self.plan) >= self.ahead_max()
    }

    fn is_ahead(&self) -> bool {
        let queue = self.lock();
        // The last lists are still being signed when all numbers are given away.
        queue.resting || self.plan.lists().is_some_and(|lists| queue.lists.len() as u64 >= lists)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use liotbchain_core::PublicKey;
    use liotbchain_sender::KeyKind;
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
        signature: String,
        public_key: String,
    }

    #[tokio::test]
    async fn signs_what_the_plan_says_and_nothing_twice() {
        for key in [KeyKind::Ed25519, KeyKind::P256, KeyKind::Rsa] {
            let plan = Plan { batch: 7, length: Length::Readings(20), keys: 2, key, ..Plan::default() };
            let lists = Lists::start(&plan).unwrap();
            let (mut texts, mut keys) = (HashSet::new(), HashSet::new());
            for _ in 0..3 {
                let list = lists.take().await.unwrap();
                let body: Vec<Item<'_>> = serde_json::from_slice(&list.body).unwrap();
                assert_eq!(body.len(), list.items as usize);
                for Item { data, signature, public_key } in body {
                    let signature = STANDARD.decode(signature).unwrap();
                    let key = PublicKey::from_pem(&public_key).unwrap();
                    assert_eq!(key.verify(data.get().as_bytes(), &signature), Ok(()));
                    keys.insert(public_key);
                    texts.insert(data.get().to_owned());
                }
            }
            assert_eq!((texts.len(), keys.len(), lists.signed()), (20, 2, 20));
        }
    }

    #[tokio::test]
    async fn who_waits_in_vain_is_told_so() {
        let plan = Plan { length: Length::Readings(1), ..Plan::default() };
        let lists = Lists::start(&plan).unwrap();
        assert!(lists.take().await.is_some());
        let (taken, ()) = tokio::join!(lists.take(), async { lists.close() });
        assert!(taken.is_none());
    }
}
