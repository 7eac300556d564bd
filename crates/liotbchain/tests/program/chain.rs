use std::fs;

use liotbchain::{Blockchain, Options, SigningKey, signer::KeyKind};
use serde_json::Value;
use tempfile::TempDir;

use crate::running::run;

/// Returns a folder whose store keeps three blocks of two readings, and one reading that waits.
fn kept() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("liotbchain-data");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let chain = Blockchain::open("sqlite:liotbchain.db", Options { data_dir, ..Options::default() })
            .await
            .unwrap();
        let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
        for n in 0..7 {
            chain.add_signed(&format!(r#"{{"n":{n}}}"#), &key).await.unwrap();
        }
        assert_eq!(chain.height(), 3);
        chain.close().await;
    });
    folder
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn shows_the_chain_in_short_and_its_last_blocks() {
    let folder = kept();
    let shown = run(&folder, "chain show").stdout();
    let told = json(&run(&folder, "chain show --json").stdout());
    assert_eq!(
        (&told["height"], &told["pending"], &told["network"]),
        (&3.into(), &1.into(), &"liotbchain".into())
    );
    for line in
        ["height      3\n", "pending     1\n", &format!("tip         {}\n", told["tip"].as_str().unwrap())]
    {
        assert!(shown.contains(line), "{line:?} in {shown}");
    }
    assert!(shown.lines().last().unwrap().ends_with(told["tip"].as_str().unwrap()));
    assert_eq!(shown.lines().count(), 6 + 1 + 4);
}

#[test]
fn shows_the_blocks_asked_for() {
    let folder = kept();
    let heights = |arguments: &str| -> Vec<u64> {
        let stdout = run(&folder, &format!("chain show --json {arguments}")).stdout();
        stdout.lines().map(|line| json(line)["height"].as_u64().unwrap()).collect()
    };
    assert_eq!(heights("--from 1"), [1, 2, 3]);
    assert_eq!(heights("--from 1 --limit 2"), [1, 2]);
    assert_eq!(heights("--limit 2"), [2, 3]);
    assert_eq!(heights("--limit 4294967295"), [0, 1, 2, 3]);
    run(&folder, "chain show --from 4").failed(1, &["the last one is block 3"]);
    run(&folder, "chain show --limit 0").failed(2, &["--limit"]);

    let block = json(&run(&folder, "chain show --json --from 2 --limit 1").stdout());
    assert_eq!(
        (&block["difficulty"], &block["transactions"][1]["payload"]),
        (&2.into(), &r#"{"n":3}"#.into())
    );
    let below = json(&run(&folder, "chain show --json --from 1 --limit 1").stdout());
    assert_eq!(block["prev_block_hash"], below["hash"]);
}

#[test]
fn commands_that_look_make_no_chain() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["chain show", "chain validate", "chain export --out a.ndjson"] {
        run(&folder, line).failed(1, &["there is no chain", "hint: `liotbchain demo`"]);
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_reading_that_was_changed_is_found() {
    let folder = kept();
    assert!(run(&folder, "chain validate").stdout().starts_with("valid: 4 blocks, 7 transactions, tip "));
    assert_eq!(json(&run(&folder, "chain validate --json").stdout())["valid"], true);

    let database = rusqlite::Connection::open(folder.path().join("liotbchain-data/liotbchain.db")).unwrap();
    let update = r#"UPDATE transactions SET payload = '{"n":9}' WHERE height = 2 AND position = 1"#;
    assert_eq!(database.execute(update, []).unwrap(), 1);
    drop(database);
    let told = run(&folder, "chain validate");
    told.failed(3, &[]);
    assert!(told.stdout.starts_with("invalid: block 2, transaction 1, signature: "), "{told:?}");
    assert!(told.stdout.ends_with("\nblocks 0 to 1 are valid\n"), "{told:?}");
    let told = run(&folder, "chain validate --json");
    told.failed(3, &[]);
    let verdict = json(&told.stdout);
    assert_eq!((&verdict["valid"], &verdict["blocks"]), (&false.into(), &2.into()));
    let fault = &verdict["fault"];
    assert_eq!(
        (&fault["block"], &fault["transaction"], &fault["field"]),
        (&2.into(), &1.into(), &"signature".into())
    );
}

#[test]
fn a_chain_is_the_same_after_export_and_import() {
    let folder = kept();
    let exported = run(&folder, "chain export --out chain.ndjson");
    assert!(exported.stderr.starts_with("exported 4 blocks with 7 transactions"), "{exported:?}");
    assert_eq!(exported.stdout(), "");
    let file = fs::read_to_string(folder.path().join("chain.ndjson")).unwrap();
    assert_eq!(run(&folder, "chain export --out -").stdout(), file);
    assert!(!folder.path().join("chain.ndjson.part").exists());

    let imported = json(&run(&folder, "chain import chain.ndjson --data-dir copy --json").stdout());
    assert_eq!((&imported["height"], &imported["transactions"]), (&3.into(), &7.into()));
    assert_eq!(run(&folder, "chain export --out - --data-dir copy").stdout(), file);
    assert!(run(&folder, "chain validate --data-dir copy").stdout().starts_with("valid: 4 blocks"));
    // Whoever was stopped at the very end may not know that all is there.
    run(&folder, "chain import chain.ndjson --data-dir copy").stdout();
    assert_eq!(run(&folder, "chain export --out - --data-dir copy").stdout(), file);
    let other = kept();
    run(&other, "chain export --out chain.ndjson").stdout();
    let foreign = other.path().join("chain.ndjson");
    run(&folder, &format!("chain import {} --data-dir copy", foreign.display()))
        .failed(1, &["holds a chain already", "hint: "]);
}

#[test]
fn an_export_replaces_a_file_only_when_told_to() {
    let folder = kept();
    let path = folder.path().join("a.ndjson");
    fs::write(&path, "precious").unwrap();
    run(&folder, "chain export --out a.ndjson").failed(1, &["a.ndjson exists", "--force"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let told = json(&run(&folder, "chain export --out a.ndjson --force --json").stdout());
    assert_eq!(told["height"], 3);
    assert!(fs::read_to_string(&path).unwrap().starts_with(r#"{"type":"chain""#));
    run(&folder, "chain export --out - --json").failed(2, &["hint: "]);
    run(&folder, "chain export --out nowhere/a.ndjson").failed(1, &["nowhere/a.ndjson cannot be written"]);
}

#[test]
fn a_bad_export_is_refused_and_the_store_stays_empty() {
    let folder = kept();
    run(&folder, "chain export --out good.ndjson").stdout();
    let good = fs::read_to_string(folder.path().join("good.ndjson")).unwrap();
    fs::write(folder.path().join("bad.ndjson"), good.replace(r#"{\"n\":3}"#, r#"{\"n\":9}"#)).unwrap();
    fs::write(folder.path().join("bytes.ndjson"), b"\xff\n").unwrap();
    let refused = run(&folder, "chain import bad.ndjson --data-dir copy");
    refused.failed(3, &["bad.ndjson: block 2", "hint: nothing was imported"]);
    run(&folder, "chain import bytes.ndjson --data-dir copy").failed(3, &["bytes.ndjson is not UTF-8"]);
    run(&folder, "chain show --data-dir copy").failed(1, &["there is no chain"]);
    run(&folder, "chain import good.ndjson --data-dir copy").stdout();
}

#[test]
fn an_import_names_what_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    run(&folder, "chain import -").failed(2, &["standard input", "hint: "]);
    run(&folder, "chain import nowhere.ndjson").failed(1, &["nowhere.ndjson cannot be read"]);
    run(&folder, "chain import .").failed(1, &["no regular file"]);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
