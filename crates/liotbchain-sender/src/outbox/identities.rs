//! By what the outbox knows a reading that comes again.
//!
//! The file holds the latest identities; memory holds a hash of each, so that a new one, as most are, costs no search.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use liotbchain_core::TransactionId;
use rusqlite::{Connection, OptionalExtension, params};

use crate::reading::{Body, Reading};

/// Identities that are remembered,
pub(super) const IDENTITIES_MAX: u64 = 100_000;
/// where that takes no more than an eighth of what the file may have, at this many bytes each: 8 MiB of 256.
const ROW_SIZE: u64 = 76;
const SHARE: u64 = 8;
/// So many more, a hundredth, are let in before the oldest go, all at once.
const SURPLUS_SHARE: u64 = 100;

/// The first half of a SHA-256.
pub(super) type Hash = [u8; 16];

/// What a reading is known by, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub identity: Hash,
    pub body: Hash,
}

/// What is known of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// The same reading has this record.
    Same(TransactionId),
    /// Another reading of the device had this identity.
    Other,
    /// None had.
    No,
}

/// The identities in memory: as many as in the file.
#[derive(Debug)]
pub(super) struct Identities {
    kept_max: u64,
    numbers: HashMap<Hash, u64>,
    /// The lowest and the next number.
    first: u64,
    next: u64,
}

impl Identity {
    /// Returns what a reading is known by; none where each delivery is a reading.
    pub(super) fn of(reading: &Reading) -> Option<Self> {
        let device = reading.device.as_str().as_bytes();
        match (&reading.body, &reading.identity) {
            // A statement is known by its id, whatever else the device calls it: a chain takes it once.
            (Body::Signed(statement, _), _) => {
                let id = statement.id();
                Some(Self { identity: hash(b"statement", &[&id.0]), body: hash(b"statement", &[&id.0]) })
            }
            (Body::Plain(text), Some(identity)) => Some(Self {
                identity: hash(b"identity", &[device, identity.as_bytes()]),
                body: hash(b"plain", &[text.as_bytes()]),
            }),
            (Body::Bare(text), Some(identity)) => Some(Self {
                identity: hash(b"identity", &[device, identity.as_bytes()]),
                body: hash(b"bare", &[text.as_bytes()]),
            }),
            (_, None) => None,
        }
    }
}

fn hash(kind: &[u8], parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in [kind].iter().chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut half = Hash::default();
    half.copy_from_slice(&context.finish().as_ref()[..16]);
    half
}

impl Identities {
    /// Remembers as many as fit into their share of a file of this size.
    pub(super) fn new(size_max: u64) -> Self {
        let kept_max = (size_max / SHARE / ROW_SIZE).clamp(1, IDENTITIES_MAX);
        Self { kept_max, numbers: HashMap::new(), first: 0, next: 0 }
    }

    /// Reads what the file has, unless it is what is known: while a disk is full the file is opened again and again.
    pub(super) fn refresh(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        // Numbers only grow, and go from below. What a file that was saved lacks in between is looked up in vain.
        let ends = "SELECT (SELECT min(number) FROM identities), (SELECT max(number) + 1 FROM identities)";
        let found = connection.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if found == (Some(self.first), Some(self.next)) && !self.numbers.is_empty() {
            return Ok(());
        }
        self.numbers.clear();
        let mut read = connection.prepare("SELECT number, identity FROM identities ORDER BY number")?;
        let mut rows = read.query([])?;
        let mut bounds = None;
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            self.numbers.insert(row.get(1)?, number);
            bounds = Some((bounds.map_or(number, |(first, _)| first), number + 1));
        }
        // Where the file has none, numbers go on all the same.
        (self.first, self.next) = bounds.unwrap_or((self.next, self.next));
        Ok(())
    }

    /// Looks a reading up.
    pub(super) fn look_up(&self, connection: &Connection, identity: &Identity) -> rusqlite::Result<Known> {
        let Some(number) = self.numbers.get(&identity.identity) else {
            return Ok(Known::No);
        };
        let read = "SELECT body, id FROM identities WHERE number = ?1";
        let row = connection
            .prepare_cached(read)?
            .query_row([number], |row| Ok((row.get::<_, Hash>(0)?, row.get::<_, [u8; 32]>(1)?)));
        Ok(match row.optional()? {
            Some((body, id)) if body == identity.body => Known::Same(TransactionId(id)),
            Some(_) => Known::Other,
            None => Known::No,
        })
    }

    /// Writes identities into the file, and the oldest out of it. What memory knows changes with
    /// [`remember`](Self::remember), once that is committed.
    pub(super) fn write(
        &self,
        connection: &Connection,
        new: &[(Identity, TransactionId)],
    ) -> rusqlite::Result<()> {
        let insert = "INSERT INTO identities (number, identity, body, id) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = connection.prepare_cached(insert)?;
        for (number, (identity, id)) in (self.next..).zip(new) {
            insert.execute(params![number, identity.identity, identity.body, id.0])?;
        }
        if let Some(first) = self.first_kept(new.len()) {
            connection.prepare_cached("DELETE FROM identities WHERE number < ?1")?.execute([first])?;
        }
        Ok(())
    }

    /// Lets those go that are more than are kept, after a smaller limit was set: nothing new need come for that.
    pub(super) fn trim(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.first_kept(0).is_some() {
            self.write(connection, &[])?;
            self.remember(&[]);
        }
        Ok(())
    }

    /// Knows what was written from now on.
    pub(super) fn remember(&mut self, new: &[(Identity, TransactionId)]) {
        let first = self.first_kept(new.len());
        for (identity, _) in new {
            self.numbers.insert(identity.identity, self.next);
            self.next += 1;
        }
        if let Some(first) = first {
            self.numbers.retain(|_, number| *number >= first);
            self.first = first;
        }
    }

    /// Returns the first number to keep, where it is time to let others go.
    fn first_kept(&self, new: usize) -> Option<u64> {
        let next = self.next + new as u64;
        let surplus = self.kept_max / SURPLUS_SHARE;
        (next - self.first > self.kept_max + surplus).then(|| next - self.kept_max)
    }
}
