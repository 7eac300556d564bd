//! What is done with an open file, and what is known of it in memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::Arc,
};

use liotbchain_core::{PublicKey, Statement, TransactionId};

use super::{
    OutboxError, OutboxLimits, OutboxStatus, Queued, Record, Refusal, Slot, WhenFull,
    drop_oldest::Dropped,
    file::QueueFile,
    identities::{Identities, Identity, Known},
    on_the_way::OnTheWay,
    rows::{Kind, NewRow, Room, Rows},
    signing::sign_all,
};
use crate::{
    reading::{Body, DeviceName, Reading},
    record::{Head, Place, gap_text, reading_text},
    signer::{KeyKind, SigningKey},
};

/// Of each batch out of a backlog, one part in so many is the oldest there is.
const OLDEST_SHARE: usize = 4;
/// Of the space, one part in so many may hold what a receiver refused,
const ASIDE_SHARE: u64 = 8;
/// and one part in so many is made when the oldest are dropped, so that it is not done for each reading.
const ROOM_SHARE: u64 = 64;
/// Bytes that are given back at once: what one commit can carry without delaying those who come meanwhile.
const VACUUM_PAGES: u32 = 2048;
/// Bytes that the text of a gap record has at most, beside the name of its device.
const GAP_SIZE: usize = 320;
/// A file keeps so many free bytes.
const FREE_KEPT: u64 = 1 << 20;

/// A list of readings to be stored.
#[derive(Debug)]
pub(super) struct Put {
    pub readings: Vec<Reading>,
    pub received_ms: u64,
}

/// What is known of the file, and how to change it.
pub(super) struct Desk {
    key: Arc<SigningKey>,
    limits: OutboxLimits,
    pub(super) status: OutboxStatus,
    /// Whether there was something to delete when it was last looked.
    pub(super) had_deletions: bool,
    /// Whether the number of this start is in the file: no record may be there without it.
    is_boot_noted: bool,
    next_counter: u64,
    on_the_way: OnTheWay,
    identities: Identities,
    /// Records in the file that wait, those to be deleted with them.
    stored: u64,
    /// Bytes of what was refused.
    aside_size: u64,
    /// Whether pages may have come free since it was last looked.
    may_give_back: bool,
}

/// A record of a put before it is signed.
struct Draft {
    device: DeviceName,
    place: Place,
    received_ms: u64,
    kind: Kind,
    identity: Option<Identity>,
    content: Content,
}

enum Content {
    Text(String),
    Signed(Box<Statement>, Box<PublicKey>),
}

/// What becomes of a reading.
enum Verdict {
    New(Option<Identity>),
    /// It has a record.
    Known(TransactionId),
    /// It is the same as another reading of this list.
    RepeatsReading(usize),
    /// It is the same as one of a list that is stored at the same time.
    RepeatsDraft(usize),
}

/// What becomes of a reading, once there are drafts.
enum Fate {
    Draft(usize),
    Repeat(usize),
    Known(TransactionId),
}

/// All that is stored in one transaction.
#[derive(Default)]
struct Group {
    drafts: Vec<Draft>,
    by_identity: HashMap<[u8; 16], ([u8; 16], usize)>,
    size: u64,
    dropped_records: u64,
    dropped_readings: u64,
}

impl Desk {
    pub(super) fn new(key: Arc<SigningKey>, limits: OutboxLimits) -> Self {
        Self {
            key,
            limits,
            status: OutboxStatus { size_max: limits.size_max, ..OutboxStatus::default() },
            had_deletions: false,
            is_boot_noted: false,
            next_counter: 0,
            on_the_way: OnTheWay::default(),
            identities: Identities::new(limits.size_max),
            stored: 0,
            aside_size: 0,
            may_give_back: true,
        }
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Returns how many records may be deleted.
    pub(super) fn deletions(&self) -> usize {
        self.on_the_way.settled()
    }

    /// Begins a start of the outbox.
    pub(super) fn begin(&mut self, file: &mut QueueFile) -> rusqlite::Result<()> {
        let latest = file.rows.last_slot()?.map_or(0, |slot| Place::of_slot(slot).boot);
        self.status.boot = file.rows.boot()?.max(latest) + 1;
        self.refresh(file)
    }

    /// Learns anew what an opened file holds.
    pub(super) fn refresh(&mut self, file: &mut QueueFile) -> rusqlite::Result<()> {
        let rows = &file.rows;
        self.identities.refresh(&rows.connection)?;
        self.is_boot_noted &= rows.boot()? >= self.status.boot;
        // A commit that failed may have deleted them all the same, and a file that was saved may lack some.
        self.on_the_way.retain(|slot| rows.has(slot))?;
        // A commit that failed may have come through all the same.
        let last = rows.last_slot()?.map(Place::of_slot).filter(|last| last.boot == self.status.boot);
        self.next_counter = self.next_counter.max(last.map_or(0, |last| last.counter + 1));
        self.stored = rows.waiting()?;
        (self.status.set_aside, self.aside_size) = rows.aside_size()?;
        self.look(rows)
    }

    /// Notes the number of this start in the file, which shows whether it can be written.
    pub(super) fn note_boot(&mut self, file: &mut QueueFile) -> rusqlite::Result<()> {
        file.rows.set_boot(self.status.boot)?;
        self.identities.trim(&file.rows.connection)?;
        self.is_boot_noted = true;
        self.status.fault = None;
        Ok(())
    }

    /// Stores lists of readings. Returns what became of each list: one may be refused where others are not.
    pub(super) fn put(
        &mut self,
        file: &mut QueueFile,
        puts: Vec<Put>,
    ) -> rusqlite::Result<Vec<Result<Vec<Queued>, OutboxError>>> {
        let rows = &mut file.rows;
        rows.begin()?;
        if !self.is_boot_noted {
            rows.set_boot(self.status.boot)?;
        }
        let deleted = self.delete(rows)?;
        let mut group = Group::default();
        let mut results = Vec::with_capacity(puts.len());
        for put in puts {
            results.push(self.draft(rows, &mut group, put)?);
        }
        let ids = self.store(rows, &mut group.drafts)?;
        let identities: Vec<_> = group
            .drafts
            .iter()
            .zip(&ids)
            .filter_map(|(draft, id)| draft.identity.map(|identity| (identity, *id)))
            .collect();
        self.identities.write(&rows.connection, &identities)?;
        rows.commit()?;

        self.is_boot_noted = true;
        self.next_counter += group.drafts.len() as u64;
        self.identities.remember(&identities);
        self.on_the_way.deleted();
        self.stored = (self.stored + group.drafts.len() as u64)
            .saturating_sub(deleted)
            .saturating_sub(group.dropped_records);
        self.status.dropped += group.dropped_readings;
        self.may_give_back |= deleted > 0;
        let results = results.into_iter().map(|result| {
            result.map(|fates| {
                let queued = |fate| match fate {
                    Fate::Draft(place) => Queued { id: ids[place], is_new: true },
                    Fate::Repeat(place) => Queued { id: ids[place], is_new: false },
                    Fate::Known(id) => Queued { id, is_new: false },
                };
                let queued: Vec<_> = fates.into_iter().map(queued).collect();
                let new = queued.iter().filter(|it| it.is_new).count() as u64;
                self.status.put += new;
                self.status.duplicates += queued.len() as u64 - new;
                queued
            })
        });
        let results = results.collect();
        self.committed(rows)?;
        Ok(results)
    }

    /// Decides what becomes of a list, and adds what is new to the group.
    fn draft(
        &self,
        rows: &mut Rows,
        group: &mut Group,
        put: Put,
    ) -> rusqlite::Result<Result<Vec<Fate>, OutboxError>> {
        let Put { readings, received_ms } = put;
        let verdicts = self.judge(rows, group, &readings)?;
        let news = readings.iter().zip(&verdicts).filter(|(_, it)| matches!(it, Verdict::New(_)));
        let size: u64 = news.map(|(reading, _)| self.size_of(reading)).sum();
        match self.make_room(rows, group, size)? {
            Ok(dropped) => self.add_gaps(group, dropped, received_ms),
            Err(error) => return Ok(Err(error)),
        }
        group.size += size;
        let mut places: Vec<usize> = Vec::with_capacity(readings.len());
        let mut fates = Vec::with_capacity(readings.len());
        for (reading, verdict) in readings.into_iter().zip(verdicts) {
            let (place, fate) = match verdict {
                Verdict::New(identity) => {
                    let place = group.drafts.len();
                    if let Some(Identity { identity, body }) = identity {
                        group.by_identity.insert(identity, (body, place));
                    }
                    let draft = self.draft_reading(place, reading, identity, received_ms);
                    group.drafts.push(draft);
                    (place, Fate::Draft(place))
                }
                Verdict::RepeatsReading(reading) => (places[reading], Fate::Repeat(places[reading])),
                Verdict::RepeatsDraft(place) => (place, Fate::Repeat(place)),
                Verdict::Known(id) => (usize::MAX, Fate::Known(id)),
            };
            places.push(place);
            fates.push(fate);
        }
        Ok(Ok(fates))
    }

    fn judge(&self, rows: &Rows, group: &Group, readings: &[Reading]) -> rusqlite::Result<Vec<Verdict>> {
        let mut here: HashMap<[u8; 16], ([u8; 16], usize)> = HashMap::new();
        let mut verdicts = Vec::with_capacity(readings.len());
        for (index, reading) in readings.iter().enumerate() {
            let Some(identity) = Identity::of(reading) else {
                verdicts.push(Verdict::New(None));
                continue;
            };
            let known =
                here.get(&identity.identity).map(|(body, index)| (body, Verdict::RepeatsReading(*index)));
            let known = known.or_else(|| {
                let draft = group.by_identity.get(&identity.identity);
                draft.map(|(body, place)| (body, Verdict::RepeatsDraft(*place)))
            });
            let (verdict, is_other) = match known {
                Some((body, repeat)) if *body == identity.body => (repeat, false),
                Some(_) => (Verdict::New(Some(identity)), true),
                None => match self.identities.look_up(&rows.connection, &identity)? {
                    Known::Same(id) => (Verdict::Known(id), false),
                    Known::Other => (Verdict::New(Some(identity)), true),
                    Known::No => (Verdict::New(Some(identity)), false),
                },
            };
            if is_other {
                tracing::warn!(
                    device = %reading.device,
                    identity = reading.identity.as_deref().unwrap_or_default(),
                    "a reading has the identity of an earlier one and says something else: it is kept as a new one"
                );
            }
            if matches!(verdict, Verdict::New(_)) {
                here.insert(identity.identity, (identity.body, index));
            }
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    /// Sees to it that there is room for so many bytes more. Returns what was dropped for them.
    fn make_room(
        &self,
        rows: &Rows,
        group: &Group,
        size: u64,
    ) -> rusqlite::Result<Result<Dropped, OutboxError>> {
        let size_max = self.limits.size_max;
        let used = rows.pages()?.used + group.size;
        let mut dropped = Dropped::default();
        if size == 0 || used + size <= size_max {
            return Ok(Ok(dropped));
        }
        let full = OutboxError::Full { size: used, size_max };
        if self.limits.when_full == WhenFull::Refuse {
            return Ok(Err(full));
        }
        rows.connection.execute_batch("SAVEPOINT room")?;
        // What is to be free afterwards, if there is as much; and what has to be.
        let (wanted, needed) = (size.max(size_max / ROOM_SHARE), size);
        let is_fitting = loop {
            let used = rows.pages()?.used + group.size + self.size_of_gaps(&dropped);
            if used + wanted <= size_max {
                break true;
            }
            if !dropped.drop_some(rows, &self.on_the_way, used + wanted - size_max)? {
                break used + needed <= size_max;
            }
        };
        if !is_fitting {
            rows.connection.execute_batch("ROLLBACK TO room; RELEASE room")?;
            return Ok(Err(full));
        }
        rows.connection.execute_batch("RELEASE room")?;
        tracing::warn!(
            readings = dropped.readings,
            devices = dropped.gaps.len(),
            "the queue is full: the oldest readings were dropped, and records say which"
        );
        Ok(Ok(dropped))
    }

    fn add_gaps(&self, group: &mut Group, dropped: Dropped, received_ms: u64) {
        group.size += self.size_of_gaps(&dropped);
        group.dropped_records += dropped.records;
        group.dropped_readings += dropped.readings;
        let mut gaps: Vec<_> = dropped.gaps.into_iter().collect();
        gaps.sort_by_key(|(_, gap)| gap.from);
        for (device, gap) in gaps {
            let place = self.place(group.drafts.len());
            let text = gap_text(Head { device: &device, received_ms, place }, &gap);
            let content = Content::Text(text);
            group.drafts.push(Draft { device, place, received_ms, kind: Kind::Gap, identity: None, content });
        }
    }

    fn draft_reading(
        &self,
        index: usize,
        reading: Reading,
        identity: Option<Identity>,
        received_ms: u64,
    ) -> Draft {
        let place = self.place(index);
        let Reading { device, body, .. } = reading;
        let content = match body {
            Body::Plain(text) => {
                Content::Text(reading_text(Head { device: &device, received_ms, place }, &text))
            }
            Body::Bare(text) => Content::Text(text),
            Body::Signed(statement, public_key) => Content::Signed(statement, public_key),
        };
        Draft { device, place, received_ms, kind: Kind::Reading, identity, content }
    }

    fn place(&self, index: usize) -> Place {
        Place { boot: self.status.boot, counter: self.next_counter + index as u64 }
    }

    /// Signs what is not signed, and writes the rows. Returns the ids.
    fn store(&self, rows: &mut Rows, drafts: &mut [Draft]) -> rusqlite::Result<Vec<TransactionId>> {
        let texts = drafts.iter().filter_map(|draft| match &draft.content {
            Content::Text(text) => Some(text.as_str()),
            Content::Signed(..) => None,
        });
        let mut signatures = sign_all(&self.key, &texts.collect::<Vec<_>>()).into_iter();
        let mut ids = Vec::with_capacity(drafts.len());
        // How many records each device gets, and which is its latest.
        let mut devices: HashMap<&DeviceName, (u64, Option<Slot>)> = HashMap::new();
        let own_key = self.key.public_key();
        for draft in drafts {
            let own;
            let (statement, public_key) = match &mut draft.content {
                Content::Text(text) => {
                    let (payload, signature) = (mem::take(text), signatures.next().unwrap_or_default());
                    own = Statement { key_id: own_key.key_id(), payload, signature };
                    (&own, own_key)
                }
                Content::Signed(statement, public_key) => (&**statement, &**public_key),
            };
            ids.push(statement.id());
            let Draft { device, received_ms, kind, .. } = draft;
            let key = rows.key_number(public_key)?;
            let (slot, received_ms, kind) = (draft.place.slot(), *received_ms, *kind);
            let (count, last) = match devices.entry(device) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert((0, rows.last_of(device)?)),
            };
            let before = last.replace(slot);
            *count += 1;
            rows.insert(&NewRow { slot, device, received_ms, kind, key, before, statement })?;
        }
        for (device, (count, last)) in devices {
            rows.add_waiting(device, count, last.unwrap_or_default())?;
        }
        Ok(ids)
    }

    /// Returns about how many bytes of the file a reading will take.
    fn size_of(&self, reading: &Reading) -> u64 {
        let (payload, signature) = match &reading.body {
            Body::Plain(text) => (text.len() + reading.device.as_str().len() + 100, self.signature_size()),
            Body::Bare(text) => (text.len(), self.signature_size()),
            Body::Signed(statement, _) => (statement.payload.len(), statement.signature.len()),
        };
        row_size(&reading.device, payload + signature)
    }

    fn size_of_gaps(&self, dropped: &Dropped) -> u64 {
        dropped.gaps.keys().map(|device| row_size(device, GAP_SIZE + self.signature_size())).sum()
    }

    fn signature_size(&self) -> usize {
        match self.key.kind() {
            KeyKind::Ed25519 => 64,
            KeyKind::P256 => 72,
            KeyKind::Rsa => 256,
        }
    }

    /// Returns whether there is something in the file, all of it was acknowledged, and no refused record is kept there.
    pub(super) fn is_delivered(&self) -> bool {
        let settled = self.on_the_way.settled() as u64;
        settled > 0 && settled == self.stored && self.status.set_aside == 0
    }

    /// Returns whether the file holds no record but those that were acknowledged.
    pub(super) fn is_all_delivered(&self, rows: &Rows) -> rusqlite::Result<bool> {
        let (set_aside, _) = rows.aside_size()?;
        Ok(set_aside == 0 && rows.count()? == self.on_the_way.settled() as u64)
    }

    /// Takes records, as [`Outbox::take`](super::Outbox::take) says.
    pub(super) fn take(
        &mut self,
        file: &mut QueueFile,
        records_max: usize,
        size_max: usize,
    ) -> rusqlite::Result<Vec<Record>> {
        let free = self.stored.saturating_sub(self.on_the_way.len());
        if free == 0 || records_max == 0 {
            return Ok(Vec::new());
        }
        let mut records = Vec::new();
        let mut room = Room { records: records_max, size: size_max, is_empty: true };
        let taken = if free <= records_max as u64 {
            self.take_oldest(&mut file.rows, &mut room, &mut records)
        } else {
            self.take_from_backlog(&mut file.rows, &mut room, &mut records)
        };
        if let Err(error) = taken {
            records.iter().for_each(|record| self.release(record.slot));
            return Err(error);
        }
        records.sort_unstable_by_key(|record| record.slot);
        Ok(records)
    }

    /// Takes a share of the oldest, so that nobody waits for ever, then those of devices that have little waiting.
    fn take_from_backlog(
        &mut self,
        rows: &mut Rows,
        room: &mut Room,
        records: &mut Vec<Record>,
    ) -> rusqlite::Result<()> {
        let mut share = Room {
            records: room.records.div_ceil(OLDEST_SHARE),
            size: room.size / OLDEST_SHARE,
            is_empty: true,
        };
        let (records_share, size_share) = (share.records, share.size);
        self.take_oldest(rows, &mut share, records)?;
        room.records -= records_share - share.records;
        room.size = room.size.saturating_sub(size_share - share.size);
        room.is_empty = records.is_empty();
        for backlog in rows.small_backlogs(room.records)? {
            if room.is_used_up() {
                return Ok(());
            }
            let taken = rows.read_backlog(&backlog, |slot| self.on_the_way.is_free(slot), room)?;
            self.note_taken(taken, records);
        }
        self.take_oldest(rows, room, records)
    }

    fn take_oldest(
        &mut self,
        rows: &mut Rows,
        room: &mut Room,
        records: &mut Vec<Record>,
    ) -> rusqlite::Result<()> {
        let from = self.on_the_way.free_from();
        let taken = rows.scan(from, |slot| self.on_the_way.is_free(slot), room)?;
        if let Some(first) = taken.first() {
            self.on_the_way.begin_at(first.slot);
        }
        self.note_taken(taken, records);
        Ok(())
    }

    fn note_taken(&mut self, taken: Vec<Record>, records: &mut Vec<Record>) {
        for record in &taken {
            self.on_the_way.take(record.slot, record.device.clone());
        }
        records.extend(taken);
    }

    /// Puts a record back that was taken.
    pub(super) fn release(&mut self, slot: Slot) {
        self.on_the_way.release(slot);
    }

    /// Notes what may be deleted, which is done with the next commit.
    pub(super) fn acknowledge(&mut self, slots: &[Slot]) {
        let settled = slots.iter().filter(|slot| self.on_the_way.settle(**slot)).count();
        self.status.acknowledged += settled as u64;
        self.count();
    }

    /// Moves what a receiver refused to a table of its own. The oldest there goes when that is too big.
    pub(super) fn set_aside(&mut self, file: &mut QueueFile, refused: &[Refusal]) -> rusqlite::Result<()> {
        let rows = &mut file.rows;
        rows.begin()?;
        let deleted = self.delete(rows)?;
        let mut moved: Vec<(Slot, DeviceName)> = Vec::new();
        for Refusal { slot, reason } in refused {
            if let Some(device) = self.on_the_way.taken(*slot)
                && rows.move_aside(*slot, reason)?
            {
                moved.push((*slot, device.clone()));
            }
        }
        let mut devices: HashMap<&DeviceName, u64> = HashMap::new();
        for (_, device) in &moved {
            *devices.entry(device).or_default() += 1;
        }
        rows.subtract_waiting(devices)?;
        let (mut count, mut size) = rows.aside_size()?;
        while size > self.limits.size_max / ASIDE_SHARE
            && let Some((slot, fewer)) = rows.delete_oldest_aside()?
        {
            tracing::warn!(slot, "a record that the receiver had refused made room for later ones");
            (count, size) = (count - 1, size.saturating_sub(fewer));
        }
        rows.commit()?;
        self.on_the_way.deleted();
        moved.iter().for_each(|(slot, _)| self.on_the_way.remove(*slot));
        self.stored = self.stored.saturating_sub(deleted + moved.len() as u64);
        self.status.set_aside = count;
        self.committed(rows)
    }

    /// Deletes what was acknowledged.
    pub(super) fn delete_settled(&mut self, file: &mut QueueFile) -> rusqlite::Result<()> {
        let rows = &mut file.rows;
        rows.begin()?;
        let deleted = self.delete(rows)?;
        rows.commit()?;
        self.on_the_way.deleted();
        self.stored = self.stored.saturating_sub(deleted);
        self.committed(rows)
    }

    /// Deletes what was acknowledged, within a transaction. Returns how many rows that were.
    fn delete(&mut self, rows: &Rows) -> rusqlite::Result<u64> {
        if self.on_the_way.settled() == 0 {
            return Ok(0);
        }
        self.may_give_back = true;
        let (runs, devices) = self.on_the_way.to_delete();
        rows.subtract_waiting(devices)?;
        rows.delete(&runs)
    }

    /// Gives back some of the space that the file no longer needs. Returns whether there is more to do.
    pub(super) fn give_back(&mut self, file: &mut QueueFile) -> rusqlite::Result<bool> {
        if !self.may_give_back {
            return Ok(false);
        }
        let rows = &mut file.rows;
        if self.stored == 0 {
            rows.forget_keys()?;
        }
        let pages = rows.pages()?;
        self.may_give_back = pages.free > pages.used.max(FREE_KEPT);
        if self.may_give_back {
            rows.vacuum(VACUUM_PAGES)?;
        } else {
            rows.copy_log_back()?;
        }
        self.committed(rows)?;
        Ok(self.may_give_back)
    }

    /// Notes that a commit succeeded.
    fn committed(&mut self, rows: &Rows) -> rusqlite::Result<()> {
        self.status.fault = None;
        self.look(rows)
    }

    fn look(&mut self, rows: &Rows) -> rusqlite::Result<()> {
        self.status.size = rows.pages()?.used;
        self.status.oldest_ms = rows.oldest_ms()?;
        self.count();
        Ok(())
    }

    fn count(&mut self) {
        self.status.waiting = self.stored.saturating_sub(self.on_the_way.settled() as u64);
        if self.status.waiting == 0 {
            self.status.oldest_ms = None;
        }
    }
}

/// Returns about how many bytes of the file a row takes: the device's name stands in another table too, whose pages are
/// half to all full, and a page's last row may not fill it.
fn row_size(device: &DeviceName, content: usize) -> u64 {
    let name = device.as_str().len();
    (content + content / 8 + 4 * name + 100) as u64
}
