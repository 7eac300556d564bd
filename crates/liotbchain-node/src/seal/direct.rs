//! Seals lists as they come: where mining is short, lists that fill blocks, with what waits before them, are admitted and
//! sealed in one commit, instead of one commit that makes them durable and another that gives them their place.
//!
//! This is a shorter way to the same end. Whatever stands in it (another receiver seals, a transaction is known already,
//! mining gives up, the store fails) sends the lists the long way, where each case has its answer.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use liotbchain_core::{PublicKey, TransactionId, VerifiedStatement};
use liotbchain_store::{NewTransaction, Place, StoreError};

use super::{
    FromQueue, Sealer,
    gathering::{Gathering, MinedBlock, MiningEnd, blocks_within},
};
use crate::ledger::LedgerConfig;

/// Attempts that mining may take on average to be short: some milliseconds on a small device.
const SHORT_ATTEMPTS: f64 = 32_768.0;
/// Transactions that may wait before lists that are sealed as they come: the thread that admits has them in its hands.
const WAITING_MAX: usize = 4_096;

/// The first lists of a batch that together fill blocks, with what waits before them, and no transaction left over.
pub(crate) struct Fill {
    /// How many lists.
    pub(crate) lists: usize,
    /// How many transactions wait before them.
    waiting: u32,
    /// Those first.
    statements: Vec<VerifiedStatement>,
    keys: Vec<PublicKey>,
    /// For each transaction of the lists, its place among the statements, which are distinct.
    order: Vec<usize>,
}

impl Fill {
    /// Chooses as many lists as fill blocks that are mined in a short time.
    fn choose<'a>(
        config: &LedgerConfig,
        waiting: &[VerifiedStatement],
        lists: impl Iterator<Item = &'a [NewTransaction]>,
    ) -> Option<Self> {
        let lists: Vec<_> = lists.collect();
        let per_block = config.transactions_per_block as usize;
        if waiting.len() + lists.iter().map(|list| list.len()).sum::<usize>() < per_block {
            return None;
        }
        let most = blocks_within(SHORT_ATTEMPTS, config).saturating_mul(per_block);
        let mut known: HashMap<TransactionId, usize> =
            waiting.iter().map(VerifiedStatement::id).zip(0..).collect();
        // The same one twice: it is not known any more what waits.
        if known.len() < waiting.len() {
            return None;
        }
        let mut all = Self {
            lists: 0,
            waiting: waiting.len() as u32,
            statements: waiting.to_vec(),
            keys: Vec::new(),
            order: Vec::new(),
        };
        let mut filled = (0, 0, 0);
        for (number, list) in (1..).zip(lists) {
            if known.len() + list.len() > most {
                break;
            }
            for transaction in list {
                let place = match known.entry(transaction.statement.id()) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(vacant) => {
                        all.statements.push(transaction.statement.clone());
                        all.add_key(transaction);
                        *vacant.insert(all.statements.len() - 1)
                    }
                };
                all.order.push(place);
            }
            if known.len().is_multiple_of(per_block) {
                filled = (number, known.len(), all.order.len());
            }
        }
        let (lists, statements, order) = filled;
        all.statements.truncate(statements);
        all.order.truncate(order);
        (lists > 0).then_some(Self { lists, ..all })
    }

    /// Mostly, one device sends one list.
    fn add_key(&mut self, transaction: &NewTransaction) {
        if let Some(key) = &transaction.public_key
            && self.keys.last().is_none_or(|last| last.key_id() != key.key_id())
        {
            self.keys.push(key.clone());
        }
    }
}

impl Sealer {
    /// Returns the first lists that can be sealed as they come, where there are any.
    pub(crate) fn fill<'a>(&self, lists: impl Iterator<Item = &'a [NewTransaction]>) -> Option<Fill> {
        let left = self.left.as_ref()?;
        // Another number waits where a look was overtaken by an admission.
        let is_all = left.len() as u64 == self.shared.pending.get();
        if is_all { Fill::choose(&self.shared.config, left, lists) } else { None }
    }

    /// Remembers what was admitted behind all that waits: these, of which so many were new, if that is known.
    ///
    /// Only what is in memory in any case is remembered; else, and where some are not new, what waits is no longer known.
    pub(crate) fn admitted(&mut self, new: Option<u64>, pending: &[TransactionId]) {
        let Some(mut left) = self.left.take() else { return };
        if new == Some(pending.len() as u64) && left.len() + pending.len() <= WAITING_MAX {
            self.left = self.known(pending.iter().copied()).map(|known| {
                left.extend(known);
                left
            });
        }
    }

    /// Admits and seals lists in one commit, and returns the place of each of their transactions. None where they must
    /// go the long way.
    pub(crate) async fn seal_directly(&mut self, fill: &Fill) -> Option<Vec<Place>> {
        match self.try_directly(fill).await {
            Ok(Some(places)) => {
                self.left = Some(Vec::new());
                Some(places)
            }
            Ok(None) => {
                self.left = None;
                None
            }
            Err(error) => {
                tracing::debug!(%error, "lists were not sealed as they came");
                self.forget();
                None
            }
        }
    }

    async fn try_directly(&mut self, fill: &Fill) -> Result<Option<Vec<Place>>, StoreError> {
        let store = Arc::clone(&self.shared.store);
        if !self.hold_right().await? {
            return Ok(None);
        }
        if self.branch.is_none() {
            self.set_branch(store.branch().await?);
            // Others may have admitted and sealed while they held the right, or nobody did.
            if fill.waiting > 0 || store.pending_count(1).await? > 0 {
                return Ok(None);
            }
        }
        let Some(mut gathering) = self.gather(fill.statements.clone()).await? else { return Ok(None) };
        let new_keys: Vec<_> =
            fill.keys.iter().filter(|key| gathering.next_sequence(&key.key_id()) == 0).cloned().collect();
        if !new_keys.is_empty() {
            store.add_keys(&new_keys).await?;
        }
        let expected_tip = gathering.branch.tip();
        let end = gathering.mine_all(&self.shared);
        self.failed_timestamp_ms = gathering.failed_timestamp_ms;
        if !matches!(end, MiningEnd::Gathered) {
            return Ok(None);
        }
        let places = places(&gathering, &fill.order);
        Ok(self.commit(expected_tip, gathering, FromQueue::All(fill.waiting)).await?.then_some(places))
    }
}

fn places(gathering: &Gathering, order: &[usize]) -> Vec<Place> {
    let of_block = |block: &MinedBlock| {
        let (height, block_hash) = (block.block.height(), block.block.hash());
        (0..block.block.transactions().len() as u32).map(move |position| Place {
            height,
            position,
            block_hash,
        })
    };
    let places: Vec<_> = gathering.blocks.iter().flat_map(of_block).collect();
    order.iter().map(|place| places[*place]).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use liotbchain_core::{Difficulty, Height, Statement};
    use liotbchain_store::{Status, Store, memory::MemoryStore};

    use super::*;
    use crate::Ledger;

    fn config(holder: &str) -> LedgerConfig {
        LedgerConfig {
            unsigned: true,
            difficulty: Difficulty::new(1).unwrap(),
            holder: holder.to_owned(),
            ..LedgerConfig::default()
        }
    }

    fn list(numbers: std::ops::Range<u8>) -> Vec<NewTransaction> {
        let new = |number: u8| NewTransaction {
            statement: VerifiedStatement::unsigned(number.to_string(), [number; 16]).unwrap(),
            public_key: None,
        };
        numbers.map(new).collect()
    }

    /// How many lists are chosen, and how many transactions they hold.
    fn chosen(lists: &[Vec<NewTransaction>]) -> Option<(usize, usize)> {
        chosen_behind(&[], lists)
    }

    fn chosen_behind(waiting: &[NewTransaction], lists: &[Vec<NewTransaction>]) -> Option<(usize, usize)> {
        let waiting: Vec<_> = waiting.iter().map(|it| it.statement.clone()).collect();
        let fill = Fill::choose(&config("a"), &waiting, lists.iter().map(Vec::as_slice))?;
        Some((fill.lists, fill.order.len()))
    }

    /// A ledger whose first look found nothing.
    async fn open(store: &Arc<dyn Store>, holder: &str) -> Ledger {
        let ledger = Ledger::open(Arc::clone(store), config(holder)).await.unwrap();
        while ledger.sealer().lock().await.left.is_none() {
            tokio::task::yield_now().await;
        }
        ledger
    }

    async fn seal(ledger: &Ledger, list: &[NewTransaction]) -> Option<Vec<(Height, u32)>> {
        let mut sealer = ledger.sealer().lock().await;
        let fill = sealer.fill([list].into_iter())?;
        let places = sealer.seal_directly(&fill).await?;
        Some(places.iter().map(|place| (place.height, place.position)).collect())
    }

    #[test]
    fn chooses_lists_as_long_as_they_fill_blocks() {
        assert_eq!(chosen(&[list(0..2), list(2..4), list(4..5)]), Some((2, 4)));
        assert_eq!(chosen(&[list(0..3), list(3..4), list(4..7)]), Some((2, 4)));
        assert_eq!(chosen(&[list(0..1), list(1..4), list(4..5)]), Some((2, 4)));
        assert_eq!(chosen(&[list(0..3)]), None);
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn counts_a_transaction_once_however_often_it_stands_there() {
        let twice = [list(0..2), list(0..2)].concat();
        assert_eq!(chosen(std::slice::from_ref(&twice)), Some((1, 4)));
        assert_eq!(chosen(&[list(0..2), list(1..2)]), Some((2, 3)));
        assert_eq!(chosen(&[[list(0..1), list(0..1)].concat()]), None);
    }

    #[test]
    fn chooses_none_whose_mining_is_long() {
        let hard = LedgerConfig { difficulty: Difficulty::new(4).unwrap(), ..config("a") };
        assert_eq!(blocks_within(SHORT_ATTEMPTS, &hard), 0);
        assert!(Fill::choose(&hard, &[], [&list(0..2)[..]].into_iter()).is_none());
        assert_eq!(blocks_within(SHORT_ATTEMPTS, &LedgerConfig::default()), 127);
    }

    #[tokio::test]
    async fn seals_lists_as_they_come() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let ledger = open(&store, "a").await;
        let twice = [list(0..4), list(1..3)].concat();
        let places = [(1, 0), (1, 1), (2, 0), (2, 1), (1, 1), (2, 0)];
        assert_eq!(seal(&ledger, &twice).await.unwrap(), places);
        assert_eq!(seal(&ledger, &list(4..6)).await.unwrap(), [(3, 0), (3, 1)]);
        let status = ledger.status();
        assert_eq!((status.height, status.pending), (3, 0));
        assert_eq!(store.branch().await.unwrap().unwrap().tip(), status.tip);
    }

    #[tokio::test]
    async fn what_is_known_goes_the_long_way_and_is_answered_there() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let ledger = open(&store, "a").await;
        seal(&ledger, &list(0..2)).await.unwrap();
        assert_eq!(seal(&ledger, &list(1..3)).await, None);
        assert_eq!(store.branch().await.unwrap().unwrap().height(), 1);
        let submission = ledger.submit(list(1..3), Duration::ZERO).await.unwrap();
        let statuses: Vec<_> = submission.acknowledgements.iter().map(|it| it.status).collect();
        assert!(matches!(
            statuses[..],
            [Status::Sealed(Place { height: 1, position: 1, .. }), Status::Pending]
        ));
        // Not all of the list were new, so it is not known what waits, and nothing overtakes it.
        assert_eq!(seal(&ledger, &list(3..5)).await, None);
    }

    #[test]
    fn what_waits_counts_as_the_beginning_of_a_block() {
        assert_eq!(chosen_behind(&list(9..10), &[list(0..1), list(1..3)]), Some((2, 3)));
        assert_eq!(chosen_behind(&list(9..10), &[list(0..2)]), None);
        // What waits already needs no second place.
        assert_eq!(chosen_behind(&list(0..1), &[list(0..2)]), Some((1, 2)));
        assert_eq!(chosen_behind(&list(0..1), &[list(0..1)]), None);
    }

    #[test]
    fn what_waits_twice_is_not_known() {
        let twice = [list(9..10), list(9..10)].concat();
        assert_eq!(chosen_behind(&twice, &[list(0..2)]), None);
        assert_eq!(chosen_behind(&twice, &[list(0..1), list(1..3)]), None);
    }

    #[tokio::test]
    async fn what_was_looked_up_after_an_unknown_commit_is_not_remembered() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let ledger = open(&store, "a").await;
        ledger.submit(list(0..1), Duration::ZERO).await.unwrap();
        let mut sealer = ledger.sealer().lock().await;
        let id = list(0..1)[0].statement.id();
        assert_eq!(sealer.left.as_ref().map(Vec::len), Some(1));
        sealer.admitted(None, &[id]);
        assert!(sealer.left.is_none());
    }

    #[tokio::test]
    async fn seals_a_list_behind_what_waits() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let ledger = open(&store, "a").await;
        seal(&ledger, &list(8..10)).await.unwrap();
        for (height, first) in [(2, 0), (3, 2)] {
            let waiting = ledger.submit(list(first..first + 1), Duration::ZERO).await.unwrap();
            assert_eq!(waiting.acknowledgements[0].status, Status::Pending);
            // With the one that waits, so that its place shows.
            let places = seal(&ledger, &list(first..first + 2)).await.unwrap();
            assert_eq!(places, [(height, 0), (height, 1)]);
            assert_eq!(ledger.status().pending, 0);
            assert_eq!(store.pending_count(9).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn knows_no_longer_what_waits_once_another_has_sealed() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let ledger = open(&store, "a").await;
        seal(&ledger, &list(8..10)).await.unwrap();
        ledger.submit(list(0..1), Duration::ZERO).await.unwrap();
        let mut sealer = ledger.sealer().lock().await;
        let fill = sealer.fill([&list(1..2)[..]].into_iter()).unwrap();
        // Taken anew, as after a pause in which another receiver had it.
        let (right, _) = sealer.right.take().unwrap();
        store.release_right(&right).await.unwrap();
        assert_eq!(sealer.seal_directly(&fill).await, None);
        assert!(sealer.fill([&list(1..2)[..]].into_iter()).is_none());
    }

    #[tokio::test]
    async fn nothing_overtakes_what_another_receiver_admitted() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let (first, second) = (open(&store, "a").await, open(&store, "b").await);
        seal(&first, &list(8..10)).await.unwrap();
        second.submit(list(0..1), Duration::ZERO).await.unwrap();
        assert_eq!(seal(&first, &list(1..3)).await, None);
        assert_eq!(store.branch().await.unwrap().unwrap().height(), 1);
        let submission = first.submit(list(1..3), Duration::from_secs(60)).await.unwrap();
        let statuses: Vec<_> = submission.acknowledgements.iter().map(|it| it.status).collect();
        // The block begins with what the other admitted.
        assert!(matches!(
            statuses[..],
            [Status::Sealed(Place { height: 2, position: 1, .. }), Status::Pending]
        ));
    }

    #[tokio::test]
    async fn nothing_overtakes_what_was_admitted_since_the_last_look() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let ledger = open(&store, "a").await;
        // From here on it has the right to seal, and knows the tip.
        seal(&ledger, &list(3..5)).await.unwrap();
        // Held, so that no round looks, and the list goes the long way.
        let sealer = ledger.sealer().lock().await;
        assert!(sealer.fill([&list(1..3)[..]].into_iter()).is_some());
        ledger.submit(list(0..1), Duration::ZERO).await.unwrap();
        assert!(sealer.left.as_ref().is_some_and(Vec::is_empty));
        assert!(sealer.fill([&list(1..3)[..]].into_iter()).is_none());
    }

    #[tokio::test]
    async fn makes_a_key_known_that_signs_for_the_first_time() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let ledger = open(&store, "a").await;
        let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        // RFC 8410: what stands before the 32 bytes of an Ed25519 key.
        let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        spki.extend_from_slice(pair.public_key().as_ref());
        let key = PublicKey::from_spki_der(&spki).unwrap();
        let signed = |payload: &str| {
            let signature = pair.sign(payload.as_bytes()).as_ref().to_vec();
            let statement = Statement { key_id: key.key_id(), payload: payload.to_owned(), signature };
            let statement = VerifiedStatement::verify(statement, &key).unwrap();
            NewTransaction { statement, public_key: Some(key.clone()) }
        };
        assert_eq!(seal(&ledger, &[signed("1"), signed("2")]).await.unwrap(), [(1, 0), (1, 1)]);
        assert_eq!(seal(&ledger, &[signed("3"), signed("4")]).await.unwrap(), [(2, 0), (2, 1)]);
        assert_eq!(store.next_sequences(&[key.key_id()]).await.unwrap()[&key.key_id()], 4);
    }

    #[tokio::test]
    async fn goes_the_long_way_while_another_receiver_seals() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let (first, second) = (open(&store, "a").await, open(&store, "b").await);
        seal(&first, &list(0..2)).await.unwrap();
        assert_eq!(seal(&second, &list(2..4)).await, None);
        assert_eq!(second.submit(list(2..4), Duration::ZERO).await.unwrap().acknowledgements.len(), 2);
    }
}
