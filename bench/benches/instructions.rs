//! Instructions that the hot paths take, counted by valgrind: steady on a machine that does other work, so a change that
//! makes one slower fails `./test --long`.
//!
//! Each limit is 5 % above the count with Rust 1.95 on x86-64 with AVX2. Valgrind hides AVX-512 and the SHA instructions
//! from the program, so on such a machine the count stands for the code that runs without them. Where a change is worth
//! what it costs, its limit is raised with it; where one saves much, the limit is lowered.

#![allow(missing_docs, reason = "gungraun's macros make public modules")]
#![allow(clippy::unwrap_used, reason = "the tests of the receiver's readers come along")]

#[path = "../../crates/liotbchain-server/src/items.rs"]
#[allow(dead_code, unused_imports, reason = "the receiver's readers are not public; their tests come along")]
mod items;
#[path = "../../crates/liotbchain-http/src/json_keys.rs"]
#[allow(dead_code, unused_imports, reason = "the same")]
mod json_keys;
#[path = "../../crates/liotbchain-http/src/json_text.rs"]
#[allow(dead_code, unused_imports, reason = "the same")]
mod json_text;
#[path = "../../crates/liotbchain-server/src/python_json.rs"]
#[allow(dead_code, unused_imports, reason = "the same")]
mod python_json;

use std::{
    hint::black_box,
    sync::{Arc, atomic::AtomicBool},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use liotbchain_core::{
    Block, BlockHash, Content, Difficulty, Header, KeyId, PublicKey, Root, Statement, Transaction, codec,
    merkle,
    mine::{self, Kernel, Mined},
};
use serde_json::Value;

const LIST: usize = 100;

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// A signature of the golden data.
struct Signed {
    key: PublicKey,
    pem: String,
    message: String,
    signature: Vec<u8>,
}

fn signed(algorithm: &str) -> Signed {
    let vectors: Value = serde_json::from_str(include_str!("../../testdata/keys/public_keys.json"))
        .expect("the golden data is JSON");
    let text = |value: &Value| value.as_str().expect("the golden data is text").to_owned();
    let good = vectors["good"].as_array().expect("there are good keys");
    let good = good.iter().find(|it| it["name"] == algorithm).expect("there is one of each algorithm");
    let pem = text(&good["public_key"]);
    Signed {
        key: PublicKey::from_pem(&pem).expect("a good key"),
        pem,
        message: text(&vectors["message"]),
        signature: STANDARD.decode(text(&good["signatures"][0])).expect("base64"),
    }
}

#[library_benchmark]
#[bench::rsa_2048(args = ("RSA-2048"), setup = signed, config = at_most(353_000))]
#[bench::ed25519(args = ("Ed25519"), setup = signed, config = at_most(501_000))]
fn verify(signed: Signed) -> Signed {
    let verified = signed.key.verify(black_box(signed.message.as_bytes()), &signed.signature);
    assert!(verified.is_ok());
    signed
}

fn payload(number: usize) -> String {
    format!(r#"{{"device": "Raspberry Pi 1", "distance": {number}, "timestamp": {number}.5}}"#)
}

fn body(algorithm: &str) -> String {
    let Signed { pem, signature, .. } = signed(algorithm);
    let (pem, signature) = (pem.replace('\n', "\\n"), STANDARD.encode(signature));
    let item =
        |number| format!(r#"{{"data":{},"signature":"{signature}","public_key":"{pem}"}}"#, payload(number));
    format!("[{}]", (0..LIST).map(item).collect::<Vec<_>>().join(","))
}

#[library_benchmark]
#[bench::rsa_2048(args = ("RSA-2048"), setup = body, config = at_most(2_704_000))]
#[bench::ed25519(args = ("Ed25519"), setup = body, config = at_most(1_330_000))]
fn decode_items(body: String) -> String {
    let limits = items::Limits { items_max: LIST, payload_size_max: 65_536 };
    let items = items::decode(black_box(body.as_bytes()), limits);
    assert_eq!(items.map(|items| items.len()), Ok(LIST));
    body
}

fn header() -> Header {
    Header {
        prev_block_hash: BlockHash([1; 32]),
        transactions_root: Root([2; 32]),
        history_root: Root([3; 32]),
        height: 4,
        timestamp_ms: 5,
        bits: Difficulty::new(2).expect("2 is at most 16").bits(),
        nonce: 0,
    }
}

fn block_bytes() -> Vec<u8> {
    let transaction = |number| {
        let statement =
            Statement { key_id: KeyId([4; 32]), payload: payload(number), signature: vec![5; 64] };
        Transaction { sequence: number as u64, content: Content::Full(Arc::new(statement)) }
    };
    let block = Block { header: header(), transactions: (0..LIST).map(transaction).collect() };
    codec::encode_block(&block).expect("nothing is pruned")
}

#[library_benchmark]
#[bench::of_100(setup = block_bytes, config = at_most(2_683_000))]
fn decode_and_hash_block(bytes: Vec<u8>) -> (Vec<u8>, Block) {
    let block = codec::decode_block(black_box(&bytes)).expect("canonical bytes");
    black_box((block.header.compute_hash(), block.compute_transactions_root()));
    (bytes, block)
}

fn leaves() -> Vec<[u8; 32]> {
    (0..LIST).map(|number| merkle::leaf_hash(&number.to_be_bytes())).collect()
}

#[library_benchmark]
#[bench::of_100(setup = leaves, config = at_most(727_000))]
fn merkle_root(leaves: Vec<[u8; 32]>) -> Vec<[u8; 32]> {
    black_box(merkle::compute_root(black_box(&leaves).iter().copied()));
    leaves
}

#[library_benchmark]
#[bench::difficulty_2(setup = header, config = at_most(755_000))]
fn mine_portable(header: Header) -> Header {
    let mined = mine::mine_with(Kernel::PORTABLE, black_box(&header), 1 << 16, 1, &AtomicBool::new(false));
    assert!(matches!(mined, Ok(Mined::Found { .. })));
    header
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [verify, decode_items, decode_and_hash_block, merkle_root, mine_portable]
);
main!(library_benchmark_groups = hot_paths);
