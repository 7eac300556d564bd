use std::sync::{Arc, atomic::AtomicBool};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::{
    check::Signatures,
    export,
    mine::{self, Draft, Mined},
    pow::{Difficulty, Target},
    rules::SealRule,
    transaction::{Content, Statement, StatementError, Transaction, VerifiedStatement},
};

/// Makes chains at difficulty 1, with keys that never change.
struct Maker {
    pair: Ed25519KeyPair,
    key: PublicKey,
}

impl Maker {
    fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let spki = [&hex::decode("302a300506032b6570032100").unwrap(), pair.public_key().as_ref()].concat();
        Self { pair, key: PublicKey::from_spki_der(&spki).unwrap() }
    }

    fn statement(&self, payload: &str) -> Statement {
        let signature = self.pair.sign(payload.as_bytes()).as_ref().to_vec();
        Statement { key_id: self.key.key_id(), payload: payload.to_owned(), signature }
    }

    fn verified(&self, payload: &str) -> VerifiedStatement {
        VerifiedStatement::verify(self.statement(payload), &self.key).unwrap()
    }
}

fn rules() -> Rules {
    Rules {
        network: "test".to_owned(),
        seal: SealRule::OnCount,
        difficulty: Difficulty::new(1).unwrap(),
        unsigned: false,
        timestamp_ms: 1_000,
    }
}

fn found(header: &Header) -> u32 {
    match mine::mine(header, mine::ATTEMPTS_MAX, 1, &AtomicBool::new(false)).unwrap() {
        Mined::Found { nonce } => nonce,
        other => panic!("{other:?}"),
    }
}

/// A chain of three blocks above genesis, two transactions each, and the validator that holds it.
fn chain(maker: &Maker) -> (Vec<Block>, Validator) {
    let genesis = rules().genesis_block().unwrap();
    let mut validator = Validator::new();
    validator.add_key(maker.key.clone());
    let mut blocks = vec![genesis.into_block()];
    validator.push(blocks[0].clone()).unwrap();
    for height in 1..=3u64 {
        let statements = ["a", "b"].map(|name| maker.verified(&format!(r#"{{"{name}":{height}}}"#))).to_vec();
        let block = next_block(&validator, statements, 1_000 + height);
        validator.push(block.clone()).unwrap();
        blocks.push(block);
    }
    (blocks, validator)
}

fn next_block(validator: &Validator, statements: Vec<VerifiedStatement>, now_ms: u64) -> Block {
    let branch = validator.branch().unwrap();
    let draft = Draft::new(
        branch,
        statements,
        |key| validator.ancestry.next_sequence(key),
        rules().difficulty,
        now_ms,
    );
    let nonce = found(draft.header());
    check::check_draft(&draft, nonce, branch, &validator.ancestry).unwrap().into_block()
}

/// Changes a good next block, makes all that depends on the change right again, and returns the rule it breaks.
fn broken(change: impl FnOnce(&mut Block)) -> BlockError {
    let maker = Maker::new(1);
    let (_, mut validator) = chain(&maker);
    let statements = ["c", "d"].map(|name| maker.verified(&format!(r#"{{"{name}":4}}"#))).to_vec();
    let mut block = next_block(&validator, statements, 1_010);
    let root = block.header.transactions_root;
    change(&mut block);
    if block.header.transactions_root == root {
        block.header.transactions_root = block.compute_transactions_root();
    }
    if Target::from_bits(block.header.bits).is_ok_and(|target| target.expected_attempts() < 1e6) {
        block.header.nonce = found(&block.header);
    }
    match validator.push(block).unwrap_err() {
        ChainFault { height: 4, error: ChainError::Block(error) } => error,
        other => panic!("{other}"),
    }
}

fn change_statement(transaction: &mut Transaction, change: impl FnOnce(&mut Statement)) {
    let Content::Full(statement) = &mut transaction.content else { panic!("not pruned") };
    change(Arc::make_mut(statement));
}

#[test]
fn each_rule_of_a_block_has_its_error() {
    let other_key = Maker::new(9).key.key_id();
    assert!(matches!(broken(|block| block.header.height = 5), BlockError::Height { got: 5, expected: 4 }));
    assert!(matches!(
        broken(|block| block.header.prev_block_hash.0[0] ^= 1),
        BlockError::PrevBlockHash { .. }
    ));
    assert!(matches!(broken(|block| block.header.history_root.0[31] ^= 1), BlockError::HistoryRoot { .. }));
    let easier = Difficulty::new(0).unwrap().bits();
    assert!(matches!(broken(|block| block.header.bits = easier), BlockError::BitsNotAllowed { .. }));
    assert!(matches!(broken(|block| block.header.bits.0 += 1), BlockError::BitsNotAllowed { .. }));
    assert!(matches!(broken(|block| block.header.bits.0 = 0xff12_3456), BlockError::BitsNotAllowed { .. }));
    assert_eq!(
        broken(|block| block.header.timestamp_ms = 1_001),
        BlockError::TimestampBeforeMedian { got: 1_001, median: 1_002 }
    );
    assert_eq!(broken(|block| block.transactions.clear()), BlockError::NoTransactions);
    assert!(matches!(
        broken(|block| block.header.transactions_root.0[5] ^= 1),
        BlockError::TransactionsRoot { .. }
    ));
    assert_eq!(
        broken(|block| change_statement(&mut block.transactions[1], |it| it.key_id = other_key)),
        BlockError::UnknownKey { position: 1, key_id: other_key }
    );
    for change in [|it: &mut Statement| it.payload.push(' '), |it: &mut Statement| it.signature[3] ^= 1] {
        let error = broken(|block| change_statement(&mut block.transactions[1], change));
        assert!(
            matches!(error, BlockError::Statement { position: 1, error: StatementError::Signature(_) }),
            "{error}"
        );
    }
    let error = broken(|block| change_statement(&mut block.transactions[0], |it| it.payload.clear()));
    let size = StatementError::PayloadSize { size: 0 };
    assert_eq!(error, BlockError::Statement { position: 0, error: size });
    assert_eq!(
        broken(|block| change_statement(&mut block.transactions[0], |it| it.key_id = KeyId::ZERO)),
        BlockError::UnsignedNotAllowed { position: 0 }
    );
    assert!(matches!(
        broken(|block| block.transactions[1].content = block.transactions[0].content.clone()),
        BlockError::DuplicateId { position: 1, .. }
    ));
    let earlier = Maker::new(1).statement(r#"{"b":2}"#);
    assert!(matches!(
        broken(|block| block.transactions[0].content = Content::Full(Arc::new(earlier))),
        BlockError::DuplicateId { position: 0, .. }
    ));
    for (change, got) in [(7u64, 7u64), (5, 5)] {
        assert_eq!(
            broken(|block| block.transactions[0].sequence = change),
            BlockError::Sequence { position: 0, got, expected: 6 }
        );
    }
}

#[test]
fn signatures_may_be_skipped_and_nothing_else() {
    let maker = Maker::new(1);
    let (_, validator) = chain(&maker);
    let branch = validator.branch().unwrap();
    let link = |change: &dyn Fn(&mut Statement), signatures| {
        let mut block = next_block(&validator, vec![maker.verified("{}")], 1_010);
        change_statement(&mut block.transactions[0], change);
        block.header.transactions_root = block.compute_transactions_root();
        block.header.nonce = found(&block.header);
        let key = |key_id: &KeyId| (*key_id == maker.key.key_id()).then(|| maker.key.clone());
        let examined = Examined::new(&block, branch.rules(), &key, signatures);
        assert_eq!(examined.ids().is_empty(), examined.check_link(branch).is_err());
        branch.clone().link(&examined).map(drop)
    };
    let flip = |it: &mut Statement| it.signature[3] ^= 1;
    assert!(matches!(
        link(&flip, Signatures::Checked),
        Err(BlockError::Statement { position: 0, error: StatementError::Signature(_) })
    ));
    assert_eq!(link(&flip, Signatures::Skipped), Ok(()));
    let other_key = Maker::new(9).key.key_id();
    for signatures in [Signatures::Checked, Signatures::Skipped] {
        assert_eq!(link(&|_| {}, signatures), Ok(()));
        assert_eq!(
            link(&|it| it.key_id = other_key, signatures),
            Err(BlockError::UnknownKey { position: 0, key_id: other_key })
        );
        assert_eq!(
            link(&|it| it.payload.clear(), signatures),
            Err(BlockError::Statement { position: 0, error: StatementError::PayloadSize { size: 0 } })
        );
        assert_eq!(
            link(&|it| it.key_id = KeyId::ZERO, signatures),
            Err(BlockError::UnsignedNotAllowed { position: 0 })
        );
    }
}

#[test]
fn refuses_a_block_without_proof_of_work() {
    let maker = Maker::new(1);
    let (mut blocks, _) = chain(&maker);
    let mut block = blocks.pop().unwrap();
    let target = Target::from_bits(block.header.bits).unwrap();
    block.header.nonce = (0..)
        .find(|nonce| !target.is_met_by(&Header { nonce: *nonce, ..block.header.clone() }.compute_hash()))
        .unwrap();
    let mut validator = Validator::new();
    validator.add_key(maker.key.clone());
    blocks.into_iter().for_each(|block| drop(validator.push(block).unwrap()));
    let fault = validator.push(block).unwrap_err();
    assert!(matches!(fault.error, ChainError::Block(BlockError::ProofOfWork { .. })), "{fault}");
}

#[test]
fn a_harder_block_is_taken_and_counts_for_more() {
    let maker = Maker::new(1);
    let (_, mut validator) = chain(&maker);
    let branch = validator.branch().unwrap();
    let statements = vec![maker.verified("{}")];
    let draft = Draft::new(branch, statements, |_| 6, Difficulty::new(2).unwrap(), 2_000);
    let before = branch.work();
    let block = draft.block(found(draft.header()));
    let checked = validator.push(block).unwrap();
    assert_eq!(validator.branch().unwrap().work(), before.saturating_add(checked.work()));
    assert!(checked.work() > Work::of(&Target::from_bits(rules().difficulty.bits()).unwrap()));
}

#[test]
fn an_arriving_block_may_not_lie_ahead_of_the_clock() {
    let maker = Maker::new(1);
    let (_, validator) = chain(&maker);
    let block = next_block(&validator, vec![maker.verified("{}")], 200_000);
    let check =
        |now_ms| check::check_block(block.clone(), validator.branch().unwrap(), &validator.ancestry, now_ms);
    assert!(check(None).is_ok());
    assert!(check(Some(80_000)).is_ok());
    assert_eq!(check(Some(79_999)), Err(BlockError::TimestampAhead { got: 200_000, now: 79_999 }));
}

#[test]
fn miners_use_the_later_of_clock_and_median() {
    let maker = Maker::new(1);
    let (_, validator) = chain(&maker);
    assert_eq!(next_block(&validator, vec![maker.verified("{}")], 5).header.timestamp_ms, 1_002);
}

#[test]
fn unsigned_statements_enter_where_the_rules_allow_it() {
    let rules = Rules { unsigned: true, ..rules() };
    let genesis = rules.genesis_block().unwrap();
    let mut validator = Validator::new();
    validator.push(genesis.into_block()).unwrap();
    let statements: Vec<_> =
        [1, 2].map(|salt| VerifiedStatement::unsigned("{}".into(), [salt; 16]).unwrap()).into();
    let block = next_block(&validator, statements, 1_000);
    // The genesis transaction is number 0 of the zero key.
    assert_eq!(block.transactions.iter().map(|it| it.sequence).collect::<Vec<_>>(), [1, 2]);
    let mut salted = block.clone();
    validator.push(block).unwrap();
    change_statement(&mut salted.transactions[0], |it| it.signature.clear());
    let error = StatementError::UnsignedSalt { size: 0 };
    let Content::Full(statement) = &salted.transactions[0].content else { panic!() };
    assert_eq!(VerifiedStatement::check_unsigned(statement.as_ref().clone()), Err(error));
}

fn export_lines(maker: &Maker) -> Vec<String> {
    let (blocks, validator) = chain(maker);
    let branch = validator.branch().unwrap();
    let mut lines = vec![
        export::chain_line(branch.genesis(), branch.tip(), branch.height()),
        export::block_line(&blocks[0]),
        export::key_line(&maker.key),
    ];
    lines.extend(blocks[1..].iter().map(export::block_line));
    lines
}

fn read(lines: &[String]) -> Result<Validator, export::ExportError> {
    let mut reader = export::Reader::default();
    for line in lines {
        reader.push(line)?;
    }
    reader.finish()
}

#[test]
fn an_export_reads_back_as_the_same_chain() {
    let maker = Maker::new(1);
    let (_, validator) = chain(&maker);
    let read = read(&export_lines(&maker)).unwrap();
    assert_eq!(read.branch(), validator.branch());
    assert_eq!((read.transactions(), read.pruned()), (7, 0));
}

#[test]
fn each_rule_of_an_export_has_its_error() {
    use export::ExportError::*;

    let maker = Maker::new(1);
    let lines = export_lines(&maker);
    let fails = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        read(&lines).unwrap_err()
    };
    let replace = |line: usize, from: &str, to: &str| {
        fails(&|lines| {
            assert!(lines[line].contains(from), "{}", lines[line]);
            lines[line] = lines[line].replacen(from, to, 1);
        })
    };
    assert_eq!(read(&[]).unwrap_err(), Empty);
    assert_eq!(read(&lines[..1]).unwrap_err(), Empty);
    assert!(matches!(replace(3, "{", "{{"), Line { line: 4, .. }));
    assert!(matches!(replace(3, "\"height\":1", "\"height\":1,\"extra\":1"), Line { line: 4, .. }));
    assert_eq!(fails(&|lines| drop(lines.remove(0))), FirstLine { line: 1 });
    assert_eq!(fails(&|lines| lines.insert(1, lines[0].clone())), FirstLine { line: 2 });
    assert_eq!(replace(0, "\"version\":1", "\"version\":2"), Version { got: 2 });
    assert_eq!(replace(2, "-----BEGIN", "by the way:\\n-----BEGIN"), PublicKeyText { line: 3 });
    assert_eq!(replace(2, "KEY-----\\n\"}", "KEY-----\"}"), PublicKeyText { line: 3 });
    let listed = |line: usize| {
        let object: serde_json::Value = serde_json::from_str(&lines[line]).unwrap();
        let values: Vec<_> = object.as_object().unwrap().values().cloned().collect();
        serde_json::to_string(&values).unwrap()
    };
    assert!(matches!(fails(&|lines| lines[2] = listed(2)), Line { line: 3, .. }));
    assert!(matches!(
        fails(&|lines| {
            let mut block: serde_json::Value = serde_json::from_str(&lines[3]).unwrap();
            let transaction = &mut block["transactions"][0];
            let key = |name: &str| transaction[name].clone();
            let values = ["key_id", "sequence", "payload", "signature"].map(key);
            block["transactions"][0] = values.to_vec().into();
            lines[3] = block.to_string();
        }),
        Line { line: 4, .. }
    ));
    assert!(matches!(
        replace(3, "\"sequence\":0", "\"sequence\":0,\"content_hash\":null"),
        Line { line: 4, .. }
    ));
    assert_eq!(
        replace(3, "\"sequence\":0", "\"sequence\":0,\"pruned\":false"),
        Transaction { height: 1, position: 0 }
    );
    let upper = |text: &str| (text.to_owned(), text.to_uppercase());
    let (key_id, capitals) = upper(&maker.key.key_id().to_string());
    assert!(matches!(replace(3, &key_id, &capitals), Line { line: 4, .. }));
    let header: serde_json::Value = serde_json::from_str(&lines[3]).unwrap();
    let (header, capitals) = upper(header["header"].as_str().unwrap());
    assert!(matches!(replace(3, &header, &capitals), Header { height: 1, .. }));
    assert!(matches!(replace(2, "BEGIN PUBLIC KEY", "BEGIN SECRET KEY"), PublicKey { line: 3, .. }));
    assert!(matches!(replace(2, "\"key_id\":\"", "\"key_id\":\"00"), Line { line: 3, .. }));
    let other = Maker::new(2).key.key_id().to_string();
    assert!(matches!(replace(2, &maker.key.key_id().to_string(), &other), KeyId { line: 3, .. }));
    assert!(matches!(
        replace(3, "\"header\":\"0001", "\"header\":\"0002"),
        Header { height: 1, error: crate::codec::DecodeError::Version { got: 2 } }
    ));
    assert!(matches!(replace(3, "\"header\":\"00", "\"header\":\"xx"), Header { height: 1, .. }));
    assert_eq!(replace(3, "\"height\":1", "\"height\":2"), BlockLine { height: 2, field: "height" });
    let hash =
        serde_json::from_str::<serde_json::Value>(&lines[3]).unwrap()["hash"].as_str().unwrap().to_owned();
    assert_eq!(replace(3, &hash, &"0".repeat(64)), BlockLine { height: 1, field: "hash" });
    assert_eq!(replace(3, "\"signature\":\"", "\"signature\":\"!"), Transaction { height: 1, position: 0 });
    assert_eq!(
        replace(3, "\"sequence\":0", "\"sequence\":0,\"pruned\":true"),
        Transaction { height: 1, position: 0 }
    );
    assert!(matches!(replace(3, "\\\"a\\\":1", "\\\"a\\\":2"), Chain(ChainFault { height: 1, .. })));
    assert!(matches!(fails(&|lines| drop(lines.remove(4))), Chain(ChainFault { height: 2, .. })));
    assert!(matches!(fails(&|lines| lines.swap(4, 5)), Chain(ChainFault { height: 2, .. })));
    assert!(matches!(fails(&|lines| drop(lines.remove(2))), Chain(ChainFault { height: 1, .. })));
    assert!(matches!(
        fails(&|lines| lines[0] = export::chain_line(BlockHash::ZERO, BlockHash::ZERO, 3)),
        Genesis { .. }
    ));
    assert!(matches!(fails(&|lines| drop(lines.pop())), Tip { got_height: 2, .. }));
    assert!(matches!(replace(0, "\"height\":3", "\"height\":4"), Tip { height: 4, got_height: 3, .. }));
}

#[test]
fn a_pruned_transaction_keeps_its_roots_and_is_counted() {
    let maker = Maker::new(1);
    let mut lines = export_lines(&maker);
    let (blocks, _) = chain(&maker);
    let mut block = blocks[2].clone();
    let statement = Arc::clone(block.transactions[1].statement().unwrap());
    let (key_id, content_hash) = (statement.key_id, statement.content_hash());
    block.transactions[1].content = Content::Pruned { key_id, content_hash };
    lines[4] = export::block_line(&block);
    assert!(lines[4].contains("\"pruned\":true") && !lines[4].contains("{\\\"b\\\":2}"));
    let validator = read(&lines).unwrap();
    assert_eq!((validator.transactions(), validator.pruned()), (7, 1));
}

/// The bytes of these blocks are what version 1 of the format gives, for ever.
#[test]
fn golden_chain() {
    let (blocks, validator) = chain(&Maker::new(1));
    let bytes = crate::codec::encode_block(&blocks[3]).unwrap();
    let golden = include_str!("../../../../testdata/format/chain-v1.ndjson");
    assert_eq!(export_lines(&Maker::new(1)).concat(), golden);
    assert_eq!(crate::codec::decode_block(&bytes).as_ref(), Ok(&blocks[3]));
    assert_eq!(validator.branch().unwrap().height(), 3);
}
