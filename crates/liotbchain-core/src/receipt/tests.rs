use std::{collections::HashMap, convert::Infallible};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use proptest::prelude::*;

use super::*;
use crate::{
    export::{Read, Reader},
    hash::{ContentHash, KeyId},
    merkle::Frontier,
    note::{NoteKey, NoteKeyKind, cosigned_message},
    policy::{Policy, PolicyError},
};

/// Four blocks of two keys.
const GOLDEN: &str = include_str!("../../../../testdata/format/chain-v1.ndjson");

/// A chain with all that a server knows of it.
struct Chain {
    blocks: Vec<Block>,
    keys: HashMap<KeyId, PublicKey>,
    nodes: HashMap<(u8, u64), [u8; 32]>,
    roots: Vec<Root>,
    operator: Signer,
}

struct Signer {
    pair: Ed25519KeyPair,
    key: NoteKey,
}

impl Signer {
    fn new(seed: u8, name: &str, kind: NoteKeyKind) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let spki = [&hex::decode("302a300506032b6570032100").unwrap(), pair.public_key().as_ref()].concat();
        let key = NoteKey::new(name, kind, PublicKey::from_spki_der(&spki).unwrap()).unwrap();
        Self { pair, key }
    }

    fn sign(&self, checkpoint: Checkpoint) -> Note {
        let signature = self.pair.sign(checkpoint.to_string().as_bytes());
        checkpoint.into_note(self.key.signature(None, signature.as_ref()))
    }

    fn cosign(&self, note: &mut Note, time_s: u64) {
        let signature = self.pair.sign(cosigned_message(time_s, note.text()).as_bytes());
        note.add(self.key.signature(Some(time_s), signature.as_ref()));
    }
}

impl Chain {
    fn golden() -> Self {
        let (mut reader, mut blocks, mut keys) = (Reader::default(), Vec::new(), HashMap::new());
        for line in GOLDEN.lines() {
            match reader.push(line).unwrap() {
                Read::Key(key) => drop(keys.insert(key.key_id(), key)),
                Read::Block(block) => blocks.push(block.into_block()),
                _ => {}
            }
        }
        let mut frontier = Frontier::default();
        let (mut nodes, mut roots) = (HashMap::new(), vec![frontier.root()]);
        for block in &blocks {
            let completed = frontier.append(merkle::leaf_hash(&block.header.compute_hash().0));
            nodes.extend(completed.into_iter().map(|node| ((node.level, node.index), node.hash)));
            roots.push(frontier.root());
        }
        let origin = origin_of(blocks[0].header.compute_hash());
        Self { blocks, keys, nodes, roots, operator: Signer::new(1, &origin, NoteKeyKind::Log) }
    }

    fn genesis(&self) -> BlockHash {
        self.blocks[0].header.compute_hash()
    }

    fn path(&self, index: u64, size: u64) -> Path {
        let node = |level, index| Ok::<_, Infallible>(self.nodes[&(level, index)]);
        proof::prove_inclusion(index, size, node).unwrap().unwrap()
    }

    fn consistency_path(&self, old: u64, new: u64) -> Path {
        let node = |level, index| Ok::<_, Infallible>(self.nodes[&(level, index)]);
        proof::prove_consistency(old, new, node).unwrap().unwrap()
    }

    fn checkpoint(&self, size: u64) -> Note {
        self.operator.sign(Checkpoint::new(self.genesis(), size, self.roots[size as usize]))
    }

    fn anchor(&self, size: u64, signed: bool) -> Anchor {
        Anchor {
            size,
            genesis_path: if size == 0 { Path::new() } else { self.path(0, size) },
            header: self.blocks.get(size as usize).map(|block| block.header.clone()),
            checkpoint: signed.then(|| self.checkpoint(size)),
        }
    }

    fn proven(&self, height: usize, positions: &[u32], size: u64) -> ProvenBlock {
        let path = (height < size as usize).then(|| self.path(height as u64, size));
        ProvenBlock::of(&self.blocks[height], positions.iter().copied(), path)
    }

    fn receipt(&self, height: usize, position: u32, anchor: Anchor) -> Receipt {
        let transaction = &self.blocks[height].transactions[position as usize];
        Receipt {
            genesis: self.genesis(),
            public_key: self.keys.get(&transaction.key_id()).cloned(),
            block: self.proven(height, &[position], anchor.size),
            anchor,
        }
    }

    /// Every receipt there can be: of each transaction, in each history.
    fn receipts(&self) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for (height, block) in self.blocks.iter().enumerate() {
            for position in 0..block.transactions.len() as u32 {
                for size in height as u64..=self.blocks.len() as u64 {
                    for signed in [false, true] {
                        let has_own_header = size == height as u64 && !signed;
                        let has_header = (size as usize) < self.blocks.len();
                        if has_own_header || size > height as u64 && (signed || has_header) {
                            receipts.push(self.receipt(height, position, self.anchor(size, signed)));
                        }
                    }
                }
            }
        }
        receipts
    }

    fn places(&self, key_id: KeyId) -> Vec<(usize, u32)> {
        let blocks = self.blocks.iter().enumerate();
        let places = blocks.flat_map(|(height, block)| {
            (0u32..).zip(&block.transactions).map(move |(position, it)| (height, position, it.key_id()))
        });
        places.filter(|(.., key)| *key == key_id).map(|(height, position, _)| (height, position)).collect()
    }

    /// The history of a key as an honest server makes it.
    fn history(&self, key_id: KeyId, from: Height, to: Height) -> KeyHistory {
        let size = self.blocks.len() as u64;
        let places = self.places(key_id);
        let height_of = |(height, _): &(usize, u32)| *height as Height;
        let inside = |place: &&(usize, u32)| (from..=to).contains(&height_of(place));
        let before = places.iter().rfind(|place| height_of(place) < from);
        let behind = places.iter().find(|place| height_of(place) > to);
        let shown: Vec<_> = before.into_iter().chain(places.iter().filter(inside)).chain(behind).collect();
        let mut heights: Vec<_> = shown.iter().map(|(height, _)| *height).collect();
        heights.dedup();
        let block = |height: usize| {
            let positions: Vec<_> =
                shown.iter().filter(|place| place.0 == height).map(|(_, position)| *position).collect();
            self.proven(height, &positions, size)
        };
        KeyHistory {
            genesis: self.genesis(),
            key_id,
            public_key: self.keys.get(&key_id).cloned(),
            from,
            to,
            blocks: heights.into_iter().map(block).collect(),
            anchor: self.anchor(size, true),
        }
    }

    fn consistency(&self, from: u64, to: u64) -> Consistency {
        let earlier = self.anchor(from, from > 0);
        let has_header = earlier.header.is_some() && from < to;
        Consistency {
            genesis: self.genesis(),
            path: if from == 0 { Path::new() } else { self.consistency_path(from, to) },
            header_path: has_header.then(|| self.path(from, to)),
            from: earlier,
            to: self.anchor(to, true),
        }
    }
}

#[test]
fn every_transaction_has_a_receipt_in_every_history() {
    let chain = Chain::golden();
    let receipts = chain.receipts();
    assert_eq!(receipts.len(), 32);
    for receipt in receipts {
        let proven = receipt.verify().unwrap();
        assert_eq!(proven.genesis, chain.genesis());
        let height = proven.block.height as usize;
        let transaction = &chain.blocks[height].transactions[proven.position as usize];
        assert_eq!(proven.block.hash, chain.blocks[height].header.compute_hash());
        assert_eq!((proven.key_id, proven.sequence), (transaction.key_id(), transaction.sequence));
        assert_eq!(proven.id, transaction.statement().map(|statement| statement.id()));
        assert_eq!(proven.anchor.root, chain.roots[proven.anchor.size as usize]);
    }
}

#[test]
fn json_and_tlog_proof_round_trip() {
    let chain = Chain::golden();
    for receipt in chain.receipts() {
        let file = ProofFile::Receipt(Box::new(receipt.clone()));
        assert_eq!(ProofFile::parse(&file.to_json()), Ok(file));
        let proof = receipt.to_tlog_proof();
        let ends_in_checkpoint = receipt.anchor.checkpoint.is_some() && receipt.block.history_path.is_some();
        assert_eq!(proof.is_some(), ends_in_checkpoint);
        if let Some(proof) = proof {
            assert_eq!(Receipt::parse_tlog_proof(&proof), Ok(receipt));
        }
    }
    let key_id = *chain.keys.keys().next().unwrap();
    for file in [
        ProofFile::KeyHistory(Box::new(chain.history(key_id, 1, 2))),
        ProofFile::Consistency(Box::new(chain.consistency(1, 3))),
        ProofFile::Block(Box::new(BlockProof {
            genesis: chain.genesis(),
            block: chain.proven(2, &[], 4),
            anchor: chain.anchor(4, true),
        })),
    ] {
        assert_eq!(ProofFile::parse(&file.to_json()), Ok(file));
    }
}

/// What a server could try, and what becomes of it.
#[test]
fn refuses_a_lying_servers_receipts() {
    let chain = Chain::golden();
    let good = chain.receipt(1, 1, chain.anchor(3, true));
    good.verify().unwrap();
    type Lie = fn(&mut Receipt, &Chain);
    let lies: [(&str, Lie); 22] = [
        ("another network", |it, _| it.genesis.0[0] ^= 1),
        ("a later network", |it, chain| it.genesis = chain.blocks[1].header.compute_hash()),
        ("no genesis path", |it, _| it.anchor.genesis_path.clear()),
        ("another size", |it, _| it.anchor.size = 2),
        ("another header", |it, chain| it.anchor.header = Some(chain.blocks[2].header.clone())),
        ("another checkpoint", |it, chain| it.anchor.checkpoint = Some(chain.checkpoint(4))),
        ("a forked checkpoint", |it, chain| {
            it.anchor.checkpoint =
                Some(chain.operator.sign(Checkpoint::new(chain.genesis(), 3, chain.roots[2])));
        }),
        ("a checkpoint of another chain", |it, chain| {
            it.anchor.checkpoint =
                Some(chain.operator.sign(Checkpoint::new(BlockHash([7; 32]), 3, chain.roots[3])));
        }),
        ("nothing to hold on to", |it, _| (it.anchor.header, it.anchor.checkpoint) = (None, None)),
        ("a header without work", |it, _| {
            let header = it.anchor.header.as_mut().unwrap();
            header.nonce = header.nonce.wrapping_add(1);
        }),
        ("another block", |it, chain| it.block.header = chain.blocks[2].header.clone()),
        ("no path", |it, _| it.block.history_path = None),
        ("a short path", |it, _| {
            it.block.history_path.as_mut().unwrap().pop();
        }),
        ("a long path", |it, _| it.block.history_path.as_mut().unwrap().push([0; 32])),
        ("a reordered path", |it, _| it.block.history_path.as_mut().unwrap().reverse()),
        ("another place", |it, _| it.block.entries[0].position = 0),
        ("another number", |it, _| it.block.entries[0].transaction.sequence += 1),
        ("another text", |it, _| {
            let Content::Full(statement) = &mut it.block.entries[0].transaction.content else { return };
            let mut changed = (**statement).clone();
            changed.payload.push(' ');
            *statement = changed.into();
        }),
        ("a swapped key", |it, chain| {
            let own = it.public_key.as_ref().unwrap().key_id();
            it.public_key = chain.keys.values().find(|key| key.key_id() != own).cloned();
        }),
        ("no key", |it, _| it.public_key = None),
        ("no transaction", |it, _| it.block.entries.clear()),
        ("two transactions", |it, _| {
            let entry = it.block.entries[0].clone();
            it.block.entries.push(entry);
        }),
    ];
    for (name, lie) in lies {
        let mut receipt = good.clone();
        lie(&mut receipt, &chain);
        assert_ne!(receipt, good, "{name}");
        assert!(receipt.verify().is_err(), "{name}");
    }
}

/// Receipts that were made once verify for ever.
#[test]
fn golden_files_hold() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/proofs");
    let policy = Policy::parse(&std::fs::read_to_string(format!("{folder}/policy.txt")).unwrap()).unwrap();
    let (mut files, mut witnessed) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some((_, kind)) = name.rsplit_once('.') else { continue };
        let text = std::fs::read_to_string(&path).unwrap();
        let file = match kind {
            "json" => ProofFile::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}")),
            "tlog-proof" => ProofFile::Receipt(Box::new(Receipt::parse_tlog_proof(&text).unwrap())),
            _ => continue,
        };
        let anchor = check(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(ProofFile::parse(&file.to_json()).as_ref(), Ok(&file), "{name}");
        files += 1;
        witnessed += usize::from(anchor.is_some_and(|note| policy.check(&note).is_ok()));
    }
    assert!(files >= 12 && witnessed >= 6, "{files} files, {witnessed} of them witnessed");
}

#[test]
fn golden_lies_are_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/proofs/refused");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if let Ok(file) = ProofFile::parse(&text) {
            assert!(check(&file).is_err(), "{}", path.display());
        }
        files += 1;
    }
    assert!(files >= 7);
}

/// Checks a file, and returns the checkpoint that it ends in.
fn check(file: &ProofFile) -> Result<Option<Note>, ReceiptError> {
    Ok(match file {
        ProofFile::Receipt(it) => it.verify().map(|_| it.anchor.checkpoint.clone())?,
        ProofFile::Block(it) => it.verify().map(|_| it.anchor.checkpoint.clone())?,
        ProofFile::KeyHistory(it) => it.verify().map(|_| it.anchor.checkpoint.clone())?,
        ProofFile::Consistency(it) => it.verify().map(|_| it.to.checkpoint.clone())?,
    })
}

#[test]
fn a_pruned_transaction_is_shown_as_pruned_and_never_as_whole() {
    let chain = Chain::golden();
    let mut receipt = chain.receipt(1, 0, chain.anchor(3, true));
    let Content::Full(statement) = receipt.block.entries[0].transaction.content.clone() else { panic!() };
    let (key_id, content_hash) = (statement.key_id, statement.content_hash());
    receipt.block.entries[0].transaction.content = Content::Pruned { key_id, content_hash };
    let proven = receipt.verify().unwrap();
    assert_eq!((proven.id, proven.key_id), (None, key_id));
    receipt.block.entries[0].transaction.content =
        Content::Pruned { key_id, content_hash: ContentHash([1; 32]) };
    assert!(matches!(receipt.verify(), Err(ReceiptError::Inclusion { .. })));
    // Whoever makes a text up for it needs one with the same hash.
    let invented = Statement { payload: "{}".into(), ..(*statement).clone() };
    receipt.block.entries[0].transaction.content = Content::Full(invented.into());
    assert!(receipt.verify().is_err());
}

#[test]
fn the_history_of_a_key_shows_what_it_is_asked_for() {
    let chain = Chain::golden();
    let tip = chain.blocks.len() as Height - 1;
    for key_id in chain.keys.keys().copied().chain([KeyId::ZERO]) {
        let all = chain.places(key_id);
        for from in 0..=tip {
            for to in from..=tip + 1 {
                let proven = chain.history(key_id, from, to).verify().unwrap();
                let number_of = |height: Height| all.iter().filter(|place| place.0 < height as usize).count();
                let (first, end) = (number_of(from) as u64, number_of(to.saturating_add(1)) as u64);
                assert_eq!(proven.sequences, first..end, "{from} to {to}");
                let last_inside = all.iter().rfind(|place| (from..=to).contains(&(place.0 as Height)));
                let behind = all.iter().any(|place| place.0 > to as usize);
                let below_last = last_inside.map(|place| place.0 as Height).filter(|last| *last > from);
                let expected = if behind { Some(to) } else { below_last.map(|last| last - 1) };
                assert_eq!(proven.complete_to, expected, "{from} to {to}");
            }
        }
    }
}

#[test]
fn a_reading_withheld_from_a_history_is_noticed() {
    let chain = Chain::golden();
    let tip = chain.blocks.len() as Height - 1;
    let key_id = *chain.keys.keys().find(|key_id| chain.places(**key_id).len() > 2).unwrap();
    let good = chain.history(key_id, 0, tip);
    let count: usize = good.blocks.iter().map(|block| block.entries.len()).sum();
    assert!(count > 2);
    let mut nth = 0;
    for block in 0..good.blocks.len() {
        for entry in 0..good.blocks[block].entries.len() {
            let mut history = good.clone();
            history.blocks[block].entries.remove(entry);
            history.blocks.retain(|block| !block.entries.is_empty());
            nth += 1;
            let verdict = history.verify();
            if nth < count {
                assert!(matches!(verdict, Err(ReceiptError::Gap { .. } | ReceiptError::NoneBefore { .. })));
            } else {
                // The last one: nothing was claimed of its block before, and nothing is now.
                let left = history.blocks.last().map_or(0, |block| block.header.height);
                assert_eq!(verdict.unwrap().complete_to, Some(left - 1));
            }
        }
    }
    type Lie = fn(&mut KeyHistory);
    let lies: [(&str, Lie); 6] = [
        ("another key's bytes", |it| {
            it.public_key = Some(Signer::new(9, "a", NoteKeyKind::Log).key.public_key().clone())
        }),
        ("blocks in another order", |it| it.blocks.reverse()),
        ("a block twice", |it| it.blocks.push(it.blocks.last().unwrap().clone())),
        ("an empty block", |it| it.blocks[0].entries.clear()),
        ("another key's", |it| it.key_id = KeyId([1; 32])),
        ("asked for backwards", |it| (it.from, it.to) = (2, 1)),
    ];
    for (name, lie) in lies {
        let mut history = good.clone();
        lie(&mut history);
        assert!(history.verify().is_err(), "{name}");
    }
}

#[test]
fn any_two_histories_of_a_chain_are_consistent() {
    let chain = Chain::golden();
    let size = chain.blocks.len() as u64;
    for from in 0..=size {
        for to in from.max(1)..=size {
            let good = chain.consistency(from, to);
            let proven = good.verify().unwrap();
            assert_eq!((proven.from.size, proven.to.size), (from, to));
            if to < size {
                let mut forked = good.clone();
                forked.to.header = None;
                let root = chain.roots[to as usize - 1];
                forked.to.checkpoint = Some(chain.operator.sign(Checkpoint::new(chain.genesis(), to, root)));
                assert!(forked.verify().is_err(), "{from} to {to}");
            }
            let mut longer = good.clone();
            longer.path.push([0; 32]);
            assert!(longer.verify().is_err(), "{from} to {to}");
            if from < to && from > 0 {
                let mut backwards = good.clone();
                std::mem::swap(&mut backwards.from, &mut backwards.to);
                assert!(backwards.verify().is_err(), "{from} to {to}");
            }
        }
    }
}

#[test]
fn a_policy_asks_for_its_log_and_its_quorum() {
    let chain = Chain::golden();
    let witnesses = ["a", "b", "c"].map(|name| {
        Signer::new(name.as_bytes()[0], &format!("witness.example/{name}"), NoteKeyKind::Cosigner)
    });
    let stranger = Signer::new(9, "stranger.example", NoteKeyKind::Cosigner);
    let [a, b, c] = &witnesses;
    let log = &chain.operator.key;
    let text = format!(
        "# who counts\nlog {log}\n\twitness a {} http://127.0.0.1:1\nwitness b {}\nwitness c {}\ngroup two 2 a b c\nquorum two\n",
        a.key, b.key, c.key
    );
    let policy = Policy::parse(&text).unwrap();
    let mut note = chain.checkpoint(3);
    assert_eq!(policy.check(&note), Err(PolicyError::Quorum { quorum: "two".into(), cosigned: 0 }));
    stranger.cosign(&mut note, 1);
    a.cosign(&mut note, 1_800_000_000);
    // Twice the same does not make two.
    a.cosign(&mut note, 1_800_000_001);
    assert_eq!(policy.check(&note), Err(PolicyError::Quorum { quorum: "two".into(), cosigned: 1 }));
    c.cosign(&mut note, 1_800_000_002);
    let vouched = policy.check(&note).unwrap();
    let cosigned: Vec<_> = vouched.cosigned.iter().map(|it| (it.name.as_str(), it.time_s)).collect();
    assert_eq!(cosigned, [("witness.example/a", 1_800_000_001), ("witness.example/c", 1_800_000_002)]);
    assert!(vouched.by_log);

    // Another checkpoint under the same signatures.
    let other = chain.checkpoint(4);
    let moved = other.text().to_owned() + "\n" + note.to_string().split_once("\n\n").unwrap().1;
    assert!(policy.check(&moved.parse().unwrap()).is_err());
    // A log that the policy does not name.
    let mallory = Signer::new(3, log.name(), NoteKeyKind::Log);
    let mut forged = mallory.sign(Checkpoint::of(&note).unwrap());
    a.cosign(&mut forged, 1);
    b.cosign(&mut forged, 1);
    assert!(matches!(policy.check(&forged), Err(PolicyError::NoLog { .. })));
    // A bad cosignature in a known name spoils the note, whoever else signed.
    let broken = note.to_string().replace("— witness.example/c ", "— witness.example/b ");
    assert!(policy.check(&broken.parse().unwrap()).is_err());
}

#[test]
fn refuses_policies_that_are_none() {
    let log = Signer::new(1, "log.example", NoteKeyKind::Log).key;
    let a = Signer::new(2, "a.example", NoteKeyKind::Cosigner).key;
    let b = Signer::new(3, "b.example", NoteKeyKind::Cosigner).key;
    let parse = |text: String| Policy::parse(&text);
    assert!(parse(format!("log {log}\nquorum none\n")).unwrap().asks_for_none());
    assert!(parse(format!("witness a {a}\nwitness b {b}\ngroup g any a\ngroup h all g b\nquorum h")).is_ok());
    for (text, line) in [
        (format!("log {a}\nquorum none"), 1),
        (format!("witness a {log}\nquorum a"), 1),
        (format!("log {log}\nlog {log}\nquorum none"), 2),
        (format!("witness a {a}\nwitness b {a}\nquorum a"), 2),
        (format!("witness a {a}\nwitness a {b}\nquorum a"), 2),
        (format!("witness none {a}\nquorum none"), 1),
        (format!("witness a {a}\ngroup g 0 a\nquorum g"), 2),
        (format!("witness a {a}\ngroup g 2 a\nquorum g"), 2),
        (format!("witness a {a}\ngroup g many a\nquorum g"), 2),
        (format!("witness a {a}\ngroup g all\nquorum g"), 2),
        (format!("witness a {a}\ngroup g 1 a a\nquorum g"), 2),
        (format!("witness a {a}\ngroup g 1 a\ngroup h 1 a\nquorum h"), 3),
        (format!("witness a {a}\ngroup g 1 a\nquorum a"), 3),
        ("quorum a".to_owned(), 1),
        ("quorum none\nquorum none".to_owned(), 2),
        ("quorum none none".to_owned(), 1),
        ("log".to_owned(), 1),
        ("quorum none\r".to_owned(), 1),
    ] {
        let error = parse(text.clone()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("line {line}: ")), "{text:?}: {error}");
    }
    assert_eq!(parse(String::new()), Err(PolicyError::NoQuorum));
    assert_eq!(parse("# a comment\n".repeat(2000)), Err(PolicyError::TooLarge));
}

proptest! {
    /// A changed character makes the file another one that is refused, or one that says the same.
    #[test]
    fn a_changed_character_never_proves_anything_else(
        nth in 0usize..1000, place in 0usize..10_000, byte in prop::sample::select(b"0aA9+/=\"{,1 ".to_vec()),
    ) {
        let chain = Chain::golden();
        let receipts = chain.receipts();
        let good = &receipts[nth % receipts.len()];
        let mut json = ProofFile::Receipt(Box::new(good.clone())).to_json().into_bytes();
        let place = place % json.len();
        prop_assume!(json[place] != byte && json[place].is_ascii());
        json[place] = byte;
        let Ok(text) = String::from_utf8(json) else { return Ok(()) };
        let Ok(ProofFile::Receipt(receipt)) = ProofFile::parse(&text) else { return Ok(()) };
        if let Ok(proven) = receipt.verify() {
            // What a path does not show, and what nobody signed for yet: whose signature stands under the checkpoint.
            let is_same = *receipt == *good;
            let only_the_place = proven.id == good.verify().unwrap().id && proven.block == good.verify().unwrap().block;
            let note = |it: &Receipt| it.anchor.checkpoint.as_ref().map(|note| note.text().to_owned());
            prop_assert!(is_same || only_the_place && note(&receipt) == note(good), "{}", text);
        }
    }
}
