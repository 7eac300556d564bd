use serde_json::Value;

use crate::running::{Running, run};

/// Free ports, and a block for each reading.
const DEMO: &str =
    "demo --receiver-listen 127.0.0.1:0 --sender-listen 127.0.0.1:0 --transactions-per-block 1";

fn event(demo: &Running, kind: &str) -> Value {
    let event: Value = serde_json::from_str(&demo.next_data()).unwrap();
    assert_eq!(event["event"], kind, "{event}");
    event
}

#[test]
fn shows_blocks_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let first = Running::start(&folder, &format!("{DEMO} --json"), &[]);
    let start = event(&first, "start");
    assert_eq!((&start["height"], &start["algorithm"]), (&0.into(), &"Ed25519".into()));
    for height in 1..=2 {
        let block = event(&first, "block");
        assert_eq!((&block["height"], &block["transactions"]), (&height.into(), &1.into()));
        assert!(
            block["hash"].as_str().unwrap().starts_with("00") && block["attempts"].as_u64().unwrap() >= 1
        );
    }
    let (code, said) = first.stop("INT");
    assert_eq!((code, said.as_str()), (Some(0), ""));

    let shown: Value = serde_json::from_str(&run(&folder, "chain show --json").stdout()).unwrap();
    let height = shown["height"].as_u64().unwrap();
    assert!(height >= 2);

    let second = Running::start(&folder, &format!("{DEMO} --json"), &[]);
    let again = event(&second, "start");
    assert_eq!((&again["height"], &again["genesis"]), (&height.into(), &start["genesis"]));
    assert_eq!(again["key_id"], start["key_id"]);
    assert_eq!(event(&second, "block")["height"], height + 1);
    assert_eq!(second.stop("TERM").0, Some(0));
    assert!(run(&folder, "chain validate").stdout().starts_with("valid: "));
}

#[test]
fn tells_people_where_everything_is() {
    let folder = tempfile::tempdir().unwrap();
    let token = ("API_TOKEN", "0123456789abcdef");
    // The demo's own sender gets past its own door.
    let demo = Running::start(&folder, DEMO, &[token, ("ALLOWED_HOSTS", "chain.example.org")]);
    let receiver = demo.wait_for_talk("receiver ");
    let url = receiver.split_once(' ').unwrap().0.to_owned();
    assert!(demo.wait_for_talk("store ").ends_with("/liotbchain-data/liotbchain.db"));
    assert!(demo.wait_for_talk("difficulty ").contains("256 attempts a block on average"));
    assert!(demo.wait_for_talk("sender ").starts_with("http://127.0.0.1:"));
    assert!(demo.wait_for_talk("key ").starts_with("Ed25519 "));
    assert_eq!(demo.wait_for_talk("look "), format!("curl {url}/get_chain"));
    assert!(demo.wait_for_talk("validate ").ends_with("liotbchain chain validate"));
    assert!(demo.wait_for_talk("export ").ends_with("liotbchain chain export --out chain.ndjson"));
    demo.wait_for_talk("a new chain begins");
    let line = demo.next_data();
    assert!(line.starts_with("block      1  00") && line.contains("1 transaction "), "{line}");
    let (code, said) = demo.stop("INT");
    assert_eq!(code, Some(0));
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("stopped at block ") && last.ends_with("the next start goes on"), "{said}");
}

#[test]
fn names_the_setting_of_a_port_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for (setting, other) in [("sender", "receiver"), ("receiver", "sender")] {
        let ended = run(&folder, &format!("demo --{setting}-listen {address} --{other}-listen 127.0.0.1:0"));
        let name = format!("set {}_LISTEN", setting.to_uppercase());
        ended.failed(1, &[&format!("{address} is in use"), &name]);
    }
    // Neither attempt left a chain behind.
    run(&folder, "chain show").failed(1, &["there is no chain"]);
}
