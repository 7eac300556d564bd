//! A record leaves the outbox when an answer names its id, and by nothing else.

use axum::{Json, http::StatusCode, response::Html};
use liotbchain_core::{BlockHash, TransactionId};
use liotbchain_sender::Fate;
use serde_json::json;

use crate::{
    gateway::{Gateway, readings},
    receiver::{Answer, TestReceiver, acknowledge, id_of, saying},
};

#[tokio::test]
async fn forwards_and_tells_what_became_of_each() {
    let receiver = TestReceiver::start().await;
    let mut gateway = Gateway::holding(3).await;
    let mut forwarding = gateway.forward(&receiver.url());
    let status = forwarding.until_accepted(3).await;
    gateway.until_waiting(0).await;
    assert_eq!((status.sent, status.accepted.sealed, status.accepted.pending), (3, 3, 0));
    assert_eq!((status.retries, status.refused, status.last_error), (0, 0, None));
    assert_eq!(status.receiver, receiver.url() + "/");
    let answer = status.last_answer.unwrap();
    assert_eq!((answer.sealed, answer.height_min, answer.height_max), (3, Some(7), Some(7)));
    forwarding.until("reached", |status| status.reachable == Some(true)).await;
    assert_eq!(receiver.log().taken, ["0", "1", "2"]);
    let sealed = Fate::Sealed { height: 7, block_hash: BlockHash([7; 32]) };
    assert_eq!(gateway.fates(), vec![sealed; 3]);
    gateway.put(readings(1)).await;
    forwarding.until_accepted(4).await;
    forwarding.stop().await;
}

#[tokio::test]
async fn keeps_what_is_answered_but_not_acknowledged() {
    let others = |_: &[_]| acknowledge(&[TransactionId([1; 32]), TransactionId([2; 32])]);
    let receiver = TestReceiver::answering([
        saying(StatusCode::OK),
        saying(Html("<html>welcome to the hotel's wireless network</html>")),
        saying(Json(json!({"status": "success", "message": "Data added to blockchain"}))),
        Box::new(others) as Answer,
        saying((StatusCode::CREATED, Json(json!({"items": []})))),
    ])
    .await;
    let mut gateway = Gateway::holding(2).await;
    let mut forwarding = gateway.forward(&receiver.url());
    let status = forwarding.until_accepted(2).await;
    gateway.until_waiting(0).await;
    assert_eq!((status.sent, status.retries, status.refused), (2, 5, 0));
    assert!(status.last_error.unwrap().message.contains("acknowledges no reading by its id"));
    assert_eq!(gateway.fates().len(), 2, "nothing was told before it was acknowledged");
    let log = receiver.log();
    assert_eq!(log.posts.len(), 6);
    for post in &log.posts {
        let payloads = |at: usize| Vec::from_iter(log.posts[at].items.iter().map(|item| &item.payload));
        assert_eq!(Vec::from_iter(post.items.iter().map(|item| &item.payload)), payloads(0));
    }
}

#[tokio::test]
async fn sends_again_only_what_the_answer_leaves_out() {
    let the_second = |items: &[crate::receiver::Item]| acknowledge(&[id_of(&items[1])]);
    let receiver = TestReceiver::answering([Box::new(the_second) as Answer]).await;
    let gateway = Gateway::holding(4).await;
    let mut forwarding = gateway.forward(&receiver.url());
    let status = forwarding.until_error("acknowledges 1 of 4 readings").await;
    assert_eq!(status.refused, 0);
    forwarding.until_accepted(4).await;
    gateway.until_waiting(0).await;
    assert_eq!(receiver.log().taken, ["0", "2", "3"]);
}
