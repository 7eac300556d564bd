//! A witness over real sockets, in whole and against a model: each status of the protocol, and whatever sequence of
//! submissions comes, one history.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{env, fs, net::SocketAddr, path::Path, time::Duration};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{
    Checkpoint, Fork, Note, NoteKey, NoteKeyKind, PublicKey, Root, fork::Verdict, merkle,
    note::parse_signatures, proof,
};
use liotbchain_http::{Edge, Limits, serve};
use liotbchain_witness::{BODY_SIZE_MAX, Refusal, Witness, WitnessConfig, bind, router};
use proptest::prelude::*;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/openapi-witness.json");
const ORIGIN: &str = "log.example/test";

struct Log {
    pair: Ed25519KeyPair,
    key: NoteKey,
}

impl Log {
    fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let spki = [&hex::decode("302a300506032b6570032100").unwrap(), pair.public_key().as_ref()].concat();
        let key = NoteKey::new(ORIGIN, NoteKeyKind::Log, PublicKey::from_spki_der(&spki).unwrap()).unwrap();
        Self { pair, key }
    }

    fn checkpoint(&self, size: u64, root: Root) -> Note {
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size, root, extension: vec![] };
        let signature = self.pair.sign(checkpoint.to_string().as_bytes());
        checkpoint.into_note(self.key.signature(None, signature.as_ref()))
    }

    fn submission(&self, old: u64, path: &[[u8; 32]], size: u64, root: Root) -> String {
        let path: String = path.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        format!("old {old}\n{path}\n{}", self.checkpoint(size, root))
    }
}

/// A history: all begin alike, and part at the second entry.
fn leaves(branch: u8) -> Vec<[u8; 32]> {
    (0..40u8).map(|place| merkle::leaf_hash(&[if place == 0 { 0 } else { branch }, place])).collect()
}

fn root(branch: u8, size: u64) -> Root {
    merkle::compute_root(leaves(branch).into_iter().take(size as usize))
}

fn path(branch: u8, old: u64, size: u64) -> Vec<[u8; 32]> {
    if old == 0 || old >= size {
        return vec![];
    }
    let leaves = leaves(branch);
    let node = |level: u8, index: u64| {
        let (start, count) = ((index << level) as usize, 1 << level);
        Ok::<_, ()>(merkle::compute_root(leaves[start..start + count].iter().copied()).0)
    };
    proof::prove_consistency(old, size, node).unwrap().unwrap()
}

fn config(folder: &Path, log: &Log) -> WitnessConfig {
    let policy = folder.join("policy");
    fs::write(&policy, format!("log {}\nquorum none\n", log.key)).unwrap();
    WitnessConfig {
        data_dir: folder.to_owned(),
        policy,
        name: Some("witness.example/anna".to_owned()),
        validate: false,
        poll: Duration::from_secs(60),
        edge: Edge::default(),
        connections_max: 64,
    }
}

struct Interface {
    log: Log,
    witness: Witness,
    address: SocketAddr,
    client: Client,
    folder: TempDir,
}

impl Interface {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(1);
        let config = config(folder.path(), &log);
        let witness = Witness::open(&config).await.unwrap();
        let listener = bind(&config.edge, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { body_size_max: BODY_SIZE_MAX, ..Limits::default() };
        tokio::spawn(serve(listener, router(witness.clone(), config.edge), limits, std::future::pending()));
        Self { log, witness, address, client: Client::builder().no_proxy().build().unwrap(), folder }
    }

    async fn add(&self, body: String) -> Response {
        self.client.post(format!("http://{}/add-checkpoint", self.address)).body(body).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        self.client.get(format!("http://{}{path}", self.address)).send().await.unwrap().json().await.unwrap()
    }

    async fn answer(&self, body: String) -> (u16, String, String) {
        let answer = self.add(body).await;
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_status_of_the_protocol() {
    let it = Interface::start().await;
    let (log, stranger) = (&it.log, Log::new(2));
    let code = |(status, kind, body): (u16, String, String)| {
        assert_eq!(kind, "application/problem+json");
        (status, serde_json::from_str::<Value>(&body).unwrap()["code"].as_str().unwrap().to_owned())
    };
    let refused = |status: u16, code: &str| (status, code.to_owned());
    let size = |known: u64| (409, "text/x.tlog.size".to_owned(), format!("{known}\n"));
    let truth = |old, new| log.submission(old, &path(1, old, new), new, root(1, new));

    assert_eq!(code(it.answer("old 0\n".to_owned()).await), refused(400, "bad_submission"));
    let foreign = truth(0, 5).replace(ORIGIN, "log.example/other");
    assert_eq!(code(it.answer(foreign).await), refused(404, "unknown_log"));
    let stolen = stranger.submission(0, &[], 5, root(1, 5));
    assert_eq!(code(it.answer(stolen).await), refused(403, "not_signed"));
    assert_eq!(it.answer(truth(3, 5)).await, size(0));
    assert_eq!(
        code(it.answer(log.submission(0, &[[1; 32]], 5, root(1, 5))).await),
        refused(422, "bad_proof")
    );

    let (status, kind, lines) = it.answer(truth(0, 5)).await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"));
    let mut note = log.checkpoint(5, root(1, 5));
    parse_signatures(&lines).unwrap().into_iter().for_each(|signature| note.add(signature));
    let verifier: NoteKey = it.witness.key().to_string().parse().unwrap();
    assert!(note.verify_cosignature(&verifier).unwrap() > 1_700_000_000);

    assert_eq!(it.answer(truth(0, 5)).await, size(5));
    assert_eq!(it.answer(truth(5, 5)).await.0, 200);
    assert_eq!(code(it.answer(log.submission(6, &[], 5, root(1, 5))).await), refused(400, "backwards"));
    assert_eq!(code(it.answer(log.submission(5, &[], 6, root(1, 6))).await), refused(422, "bad_proof"));
    assert_eq!(code(it.answer(log.submission(5, &[], 5, root(2, 5))).await), refused(409, "fork"));
    let oversize = it.add("a".repeat(BODY_SIZE_MAX + 1)).await;
    assert_eq!(oversize.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(it.answer(truth(5, 9)).await.0, 200);

    let listed = it.get("/evidence").await;
    let kinds: Vec<_> = listed["evidence"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["fork", "doubt"]);
    let file = it.folder.path().join("evidence").join(listed["evidence"][0]["file"].as_str().unwrap());
    let fork = Fork::parse(&fs::read_to_string(file).unwrap()).unwrap();
    let proven = Verdict::Proven { size: 5, first: root(1, 5), second: root(2, 5) };
    assert_eq!(fork.verify(&log.key), Ok(proven));
    let logs = it.get("/v1/logs").await;
    assert_eq!((&logs["logs"][0]["size"], &logs["logs"][0]["forks"]), (&9.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_get_one_history() {
    let it = Interface::start().await;
    let tries = (1..=8u8).map(|branch| {
        let (witness, body) = (it.witness.clone(), it.log.submission(0, &[], 9, root(branch, 9)));
        tokio::spawn(async move { witness.add_checkpoint(body.as_bytes()).await.is_ok() })
    });
    let mut cosigned = 0;
    for attempt in tries.collect::<Vec<_>>() {
        cosigned += u8::from(attempt.await.unwrap());
    }
    assert_eq!(cosigned, 1);
}

/// `UPDATE_SNAPSHOTS=1 cargo nextest run -p liotbchain-witness describes_the_same_routes_as_before`.
#[tokio::test]
async fn describes_the_same_routes_as_before() {
    let it = Interface::start().await;
    let mut description = it.get("/openapi.json").await;
    // It would change with every release.
    description["info"]["version"] = "…".into();
    let text = serde_json::to_string_pretty(&description).unwrap() + "\n";
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(SNAPSHOT, &text).unwrap();
    }
    let before: Value = serde_json::from_str(&fs::read_to_string(SNAPSHOT).unwrap()).unwrap();
    assert!(
        description == before,
        "/openapi.json has changed; see the comment above this test. It is now:\n{text}"
    );
}

/// One submission of a sequence.
#[derive(Debug, Clone)]
struct Step {
    branch: u8,
    old: u64,
    /// Whether `old` is made what the witness knows.
    goes_on: bool,
    size: u64,
    proof: u8,
    restarts: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (1..3u8, 0..12u64, prop::bool::weighted(0.7), 0..20u64, 0..6u8, prop::bool::weighted(0.1)).prop_map(
        |(branch, old, goes_on, size, proof, restarts)| Step { branch, old, goes_on, size, proof, restarts },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The model knows the trees themselves, and no proof: an entry stands in both histories, or it does not.
    #[test]
    fn whatever_comes_is_decided_as_a_model_decides(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let log = Log::new(1);
            let config = config(folder.path(), &log);
            let mut witness = Witness::open(&config).await.unwrap();
            let mut known: Option<(u8, u64)> = None;
            for step in steps {
                if step.restarts {
                    drop(witness);
                    witness = Witness::open(&config).await.unwrap();
                }
                let Step { branch, size, .. } = step;
                let known_size = known.map_or(0, |(_, size)| size);
                let old = if step.goes_on { known_size } else { step.old };
                let mut path = path(branch, old, size);
                let is_changed = match step.proof {
                    0 => { path.push([9; 32]); true }
                    1 if !path.is_empty() => { path[0][0] ^= 1; true }
                    _ => false,
                };
                // Both histories are one up to the first entry.
                let is_one = |(other, shared): (u8, u64)| other == branch || shared <= 1;
                let body = log.submission(old, &path, size, root(branch, size));
                let expected = if old > size {
                    400
                } else if old != known_size {
                    4090
                } else if old == size && size > 0 && !known.is_some_and(|(other, _)| other == branch || size <= 1) {
                    4091
                } else if is_changed || !known.is_none_or(is_one) {
                    422
                } else {
                    200
                };
                let got = match witness.add_checkpoint(body.as_bytes()).await {
                    Ok(_) => 200,
                    Err(Refusal::Backwards { .. }) => 400,
                    Err(Refusal::OtherSize { known }) if known == known_size => 4090,
                    Err(Refusal::OtherRoot { .. }) => 4091,
                    Err(Refusal::Proof(_)) => 422,
                    Err(other) => panic!("{other}"),
                };
                prop_assert_eq!(got, expected, "old {} size {} of branch {} after {:?}", old, size, branch, known);
                if got == 200 {
                    known = Some((branch, size));
                }
                let latest = witness.latest(ORIGIN).await.unwrap().map(|it| (it.known.size, it.known.root));
                prop_assert_eq!(latest, known.map(|(branch, size)| (size, root(branch, size))));
            }
            Ok(())
        })?;
    }
}
