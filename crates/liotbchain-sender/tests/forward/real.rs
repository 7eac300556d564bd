//! To the real receiver.

use std::{collections::HashMap, time::Duration};

use liotbchain_core::{Content, TransactionId};
use liotbchain_http::{Edge, Limits, Token};
use liotbchain_node::{Ledger, LedgerConfig};
use liotbchain_sender::{Fate, KeyKind, Protocol, Receiver};
use liotbchain_server::ReceiverConfig;
use liotbchain_store::OpenOptions;
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::gateway::{Gateway, at, reading};

struct Real {
    port: u16,
    ledger: Ledger,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Real {
    async fn start(edge: Edge) -> Self {
        let store = liotbchain_store::open("memory:", "".as_ref(), &OpenOptions::default()).await.unwrap();
        let ledger =
            LedgerConfig { mining_threads: 1, transactions_per_block: 10, ..LedgerConfig::default() };
        let ledger = Ledger::open(store, ledger).await.unwrap();
        let listener = edge.bind("127.0.0.1:0".parse().unwrap(), "RECEIVER_LISTEN").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = ReceiverConfig {
            edge,
            limits: Limits { shutdown_time: Duration::from_secs(1), ..Limits::default() },
            seal_wait: Duration::from_secs(60),
            list_items_max: 400,
            ..ReceiverConfig::default()
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { _ = stopped.await };
        let task = tokio::spawn(liotbchain_server::serve(config, ledger.clone(), listener, shutdown));
        Self { port, ledger, stop, task }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn payload(&self, id: TransactionId) -> String {
        let stored = self.ledger.store().transaction(id).await.unwrap().unwrap();
        let Content::Full(statement) = stored.content else { panic!("{stored:?}") };
        statement.payload.clone()
    }

    async fn stop(self) {
        _ = self.stop.send(());
        self.task.await.unwrap();
        self.ledger.shutdown().await;
    }
}

#[tokio::test]
async fn a_chain_gets_every_reading_of_each_device_in_order() {
    for kind in [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::P256] {
        let receiver = Real::start(Edge::default()).await;
        let gateway = Gateway::signing(kind).await;
        let list =
            (0..1000).map(|number| reading(&format!("d{}", number % 7), format!("{{\"n\":{number}}}")));
        gateway.put(list.collect()).await;
        let mut outcomes = gateway.journal.subscribe();
        let mut forwarding = gateway.forward(&receiver.url());
        let status = forwarding.until_accepted(1000).await;
        gateway.until_waiting(0).await;
        assert_eq!((status.refused, status.sent), (0, 1000), "lists above the receiver's limit are halved");
        let mut last = HashMap::new();
        for _ in 0..1000 {
            let outcome = outcomes.try_recv().unwrap();
            assert!(matches!(outcome.fate, Fate::Pending | Fate::Sealed { .. }), "{outcome:?}");
            let record: Value = serde_json::from_str(&receiver.payload(outcome.id).await).unwrap();
            assert_eq!(record["device"], outcome.device.as_str());
            let number = record["reading"]["n"].as_u64().unwrap();
            assert!(last.insert(outcome.device, number) < Some(number), "{kind}");
        }
        // With nothing else waiting the answer comes after the block.
        let before = forwarding.status.borrow().accepted;
        gateway.put((0..10).map(|number| reading("e", number.to_string())).collect()).await;
        let after = forwarding.until_accepted(1010).await;
        assert_eq!(after.accepted.sealed, before.sealed + 10);
        assert!(after.last_answer.unwrap().height_min > Some(0));
        forwarding.stop().await;
        receiver.stop().await;
    }
}

#[tokio::test]
async fn a_token_and_compression_reach_the_real_receiver() {
    let token = Some(Token::new("0123456789abcdef"));
    let edge = Edge { allowed_hosts: vec!["0.0.0.0".into(), "127.0.0.1".into()], api_token: token };
    let receiver = Real::start(edge).await;
    let gateway = Gateway::holding(200).await;
    let mut forwarding = gateway.forward(&receiver.url());
    let status = forwarding.until_error("set RECEIVER_TOKEN to the receiver's API_TOKEN").await;
    assert_eq!(status.refused, 0);
    forwarding.stop().await;
    // It offers zstd, and the address 0.0.0.0 is not of the loopback.
    let url = format!("http://0.0.0.0:{}", receiver.port).parse().unwrap();
    let target = Receiver::new(url, Some("0123456789abcdef")).unwrap();
    let mut forwarding = gateway.forward_to(vec![target], Protocol::V1);
    forwarding.until_accepted(200).await;
    gateway.until_waiting(0).await;
}

#[tokio::test]
async fn a_receiver_with_an_empty_chain_gets_the_key_again() {
    let first = Real::start(Edge::default()).await;
    let gateway = Gateway::holding(2).await;
    let second = Real::start(Edge::default()).await;
    let mut forwarding = gateway.forward_to(vec![at(&first.url()), at(&second.url())], Protocol::V1);
    forwarding.until_accepted(2).await;
    first.stop().await;
    gateway.put(vec![reading("d", "2")]).await;
    let status = forwarding.until_accepted(3).await;
    assert_eq!((status.refused, status.receiver), (0, second.url() + "/"));
    assert_eq!(gateway.set_aside().await, []);
}
