use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::running::{Running, run};

/// Asks for a path at an address such as `http://127.0.0.1:5001`, and returns the whole answer.
fn get(url: &str, path: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn receiver_url(receiver: &Running) -> String {
    receiver.wait_for_talk("receiver ").split_once(' ').unwrap().0.to_owned()
}

#[test]
fn a_receiver_serves_until_it_is_asked_to_stop() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let receiver = Running::start(&folder, "receiver --receiver-listen 127.0.0.1:0", &[]);
        let url = receiver_url(&receiver);
        receiver.wait_for_talk("difficulty ");
        assert!(get(&url, "/readyz").starts_with("HTTP/1.1 200 "));
        assert!(get(&url, "/get_chain").contains("Genesis Block"));
        let (code, said) = receiver.stop(signal);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("stopped"), "{said}");
        assert!(run(&folder, "chain validate").stdout().starts_with("valid: 1 blocks"));
    }
}

#[test]
fn one_receiver_at_a_time_has_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = Running::start(&folder, "receiver --receiver-listen 127.0.0.1:0", &[]);
    first.wait_for_talk("difficulty ");
    let owner = format!("process {}", first.id());
    for line in ["receiver", "demo --sender-listen 127.0.0.1:0"] {
        let ended = run(&folder, &format!("{line} --receiver-listen 127.0.0.1:0"));
        ended.failed(1, &["DATA_DIR", &owner, "hint: "]);
    }
    // Looking is no matter of who has the folder.
    run(&folder, "chain show").stdout();
    drop(first);
    // The system lets go of the lock of a process that was killed.
    let second = Running::start(&folder, "receiver --receiver-listen 127.0.0.1:0", &[]);
    second.wait_for_talk("difficulty ");
}

#[test]
fn a_receiver_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |line: &str, code, words: &[&str]| {
        run(&folder, &format!("receiver --receiver-listen 127.0.0.1:0 {line}")).failed(code, words);
    };
    std::fs::write(folder.path().join("occupied"), "").unwrap();
    refused("--data-dir occupied", 1, &["DATA_DIR=occupied is a file"]);
    refused("--data-dir occupied/data", 1, &["DATA_DIR=occupied/data cannot be written", "hint: "]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let database = format!("postgresql://u:geheim@{nobody}/none");
    let ended = run(&folder, &format!("receiver --receiver-listen 127.0.0.1:0 --database-url {database}"));
    ended.failed(4, &[&nobody.port().to_string(), "hint: "]);
    assert!(!ended.stderr.contains("geheim"), "{ended:?}");
    std::fs::create_dir(folder.path().join("foreign")).unwrap();
    std::fs::write(folder.path().join("foreign/liotbchain.db"), "My diary.\n".repeat(100)).unwrap();
    refused("--data-dir foreign", 2, &["liotbchain.db is not a SQLite database", "hint: "]);
}

#[test]
fn a_difficulty_below_the_chains_least_is_refused_with_the_value_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Running::start(&folder, "receiver --receiver-listen 127.0.0.1:0 --difficulty 3", &[]);
    receiver.wait_for_talk("difficulty ");
    assert_eq!(receiver.stop("TERM").0, Some(0));
    let ended = run(&folder, "receiver --receiver-listen 127.0.0.1:0 --difficulty 1");
    ended.failed(2, &["difficulty 1 is below 3", "hint: set DIFFICULTY=3"]);
}

#[test]
fn a_sender_serves_until_it_is_asked_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [("LOG_FORMAT", "json"), ("RECEIVER_TOKEN", "0123456789abcdef")];
    let sender = Running::start(
        &folder,
        "sender --sender-listen 127.0.0.1:0 --receiver-url http://192.0.2.1:5001",
        &environment,
    );
    let warning = sender.wait_for_talk("warning: ");
    assert!(
        warning.starts_with("RECEIVER_TOKEN goes to http://192.0.2.1:5001/ without encryption"),
        "{warning}"
    );
    let next_line = || serde_json::from_str(&format!("{{{}", sender.wait_for_talk("{"))).unwrap();
    let capacity: serde_json::Value = next_line();
    assert!(
        capacity["fields"]["message"].as_str().unwrap().starts_with("queue: 256 MiB, holds about "),
        "{capacity}"
    );
    let listening: serde_json::Value = next_line();
    let url = format!("http://{}", listening["fields"]["address"].as_str().unwrap());
    assert!(get(&url, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(folder.path().join("liotbchain-data/outbox.db").exists());
    assert!(folder.path().join("liotbchain-data/sender_key.pem").exists());
    let (code, said) = sender.stop("TERM");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("0123456789abcdef"));
}
