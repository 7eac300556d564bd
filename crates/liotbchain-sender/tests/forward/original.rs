//! The Python original's receiver: its exact answers, and what they mean for what waits.

use std::sync::{Arc, Mutex};

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::PublicKey;
use liotbchain_sender::{
    KeyKind, Protocol,
    reading::{Body, DeviceName, Reading},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::gateway::{Gateway, at};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    signature: String,
    public_key: String,
}

/// What it took, list by list, and what it refuses.
#[derive(Default)]
struct Taken {
    lists: Vec<usize>,
    data: Vec<String>,
    requests: Vec<String>,
}

/// Answers byte by byte as the original does, and closes the connection after each.
async fn original() -> (String, Arc<Mutex<Taken>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Taken::default()));
    let log = Arc::clone(&taken);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            answer(stream, &log).await;
        }
    });
    (url, taken)
}

async fn answer(stream: TcpStream, log: &Mutex<Taken>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut size) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let from = head.len();
        if stream.read_line(&mut head).await.unwrap() == 0 {
            return;
        }
        if let Some(value) = head[from..].to_ascii_lowercase().strip_prefix("content-length:") {
            size = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; size];
    stream.read_exact(&mut body).await.unwrap();
    let answer = {
        let mut log = log.lock().unwrap();
        log.requests.push(head.lines().next().unwrap().to_owned());
        assert!(head.to_ascii_lowercase().contains("content-type: application/json\r\n"), "{head}");
        receive(&mut log, &body)
    };
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Adds item by item, and stops at the first that is at fault, as the original does.
fn receive(log: &mut Taken, body: &[u8]) -> String {
    let items: Vec<Item> = serde_json::from_slice(body).unwrap();
    log.lists.push(items.len());
    for item in &items {
        let data = item.data.get();
        let key = PublicKey::from_pem(&item.public_key).unwrap();
        key.verify(data.as_bytes(), &STANDARD.decode(&item.signature).unwrap()).unwrap();
        if data.contains("faulty") {
            let repr = data.replace('"', "'");
            return response(
                "400 BAD REQUEST",
                &format!("{{\"message\":\"Invalid signature for item: {repr}\",\"status\":\"error\"}}\n"),
            );
        }
        log.data.push(data.to_owned());
    }
    response("200 OK", "{\"message\":\"Data added to blockchain\",\"status\":\"success\"}\n")
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nServer: Werkzeug/3.0.3 Python/3.11.7\r\nDate: Sun, 22 Nov 2026 20:00:00 GMT\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn bare(text: String) -> Reading {
    Reading { device: DeviceName::new("Nodemcu 1").unwrap(), identity: None, body: Body::Bare(text) }
}

#[tokio::test]
async fn sends_the_original_what_it_takes_and_believes_its_success() {
    let (url, taken) = original().await;
    let gateway = Gateway::signing(KeyKind::Rsa).await;
    let texts: Vec<_> = (0..70)
        .map(|number| {
            format!("{{\"device\": \"Nodemcu 1\", \"distance\": {number}, \"timestamp\": 1717979369.0}}")
        })
        .collect();
    gateway.put(texts.iter().cloned().map(bare).collect()).await;
    let mut forwarding = gateway.forward_to(vec![at(&url)], Protocol::Original);
    let status = forwarding.until_accepted(70).await;
    gateway.until_waiting(0).await;
    assert_eq!(
        (status.accepted.sealed, status.accepted.pending),
        (0, 70),
        "it does not say what is in a block"
    );
    assert_eq!((status.retries, status.last_error), (0, None));
    let taken = taken.lock().unwrap();
    assert_eq!(taken.data, texts);
    assert_eq!(taken.lists, [32, 32, 6]);
    assert_eq!(taken.requests, ["POST /receive_data HTTP/1.1"; 3]);
}

#[tokio::test]
async fn sets_aside_what_the_original_refuses_again_and_again() {
    let (url, taken) = original().await;
    let gateway = Gateway::signing(KeyKind::Rsa).await;
    let texts = ["{\"v\": 1}", "{\"v\": \"faulty\"}", "{\"v\": 2}"];
    gateway.put(texts.iter().map(|text| bare((*text).to_owned())).collect()).await;
    let mut forwarding = gateway.forward_to(vec![at(&url)], Protocol::Original);
    let status =
        forwarding.until("all settled", |status| status.accepted.pending == 2 && status.refused == 1).await;
    gateway.until_waiting(0).await;
    let aside = gateway.outbox.set_aside(10).await.unwrap();
    assert_eq!((aside.len(), aside[0].0.statement.payload.as_str()), (1, texts[1]));
    assert!(aside[0].1.contains("Invalid signature for item: {'v': 'faulty'}"), "{}", aside[0].1);
    assert!(status.retries >= 4, "{status:?}");
    // What was taken of a list that failed was taken again: the original cannot tell.
    let taken = taken.lock().unwrap();
    assert_eq!(taken.data.last().map(String::as_str), Some(texts[2]));
    assert!(taken.lists.iter().filter(|items| **items == 1).count() >= 4, "{:?}", taken.lists);
}
