//! What a request looks like: keys by their id, lists of the right size, compression where it helps.

use axum::http::{StatusCode, header};
use liotbchain_sender::{KeyKind, Protocol, Receiver};

use crate::{
    gateway::{Gateway, at, reading, readings},
    receiver::{Log, Post, TestReceiver, saying},
};

fn is_compressed(post: &Post) -> bool {
    post.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "zstd")
}

#[tokio::test]
async fn names_a_key_that_the_receiver_has_and_sends_it_when_that_was_lost() {
    for kind in [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::P256] {
        let receiver = TestReceiver::start().await;
        let gateway = Gateway::signing(kind).await;
        let mut forwarding = gateway.forward(&receiver.url());
        for (count, loses) in [(2, false), (4, false), (6, true), (8, false)] {
            if loses {
                receiver.log().keys.clear();
            }
            gateway.put(readings(2)).await;
            forwarding.until_accepted(count).await;
        }
        let status = forwarding.status.borrow().clone();
        assert_eq!((status.refused, status.retries, status.last_error), (0, 1, None));
        let named =
            receiver.log().posts.iter().map(|post| post.items.iter().all(|it| it.key_id.is_some())).collect();
        let named: Vec<bool> = named;
        assert_eq!(named, [false, true, true, false, true], "{kind}");
        assert_eq!(gateway.set_aside().await, []);
    }
}

#[tokio::test]
async fn lists_grow_with_the_backlog_and_do_not_wait_for_blocks_then() {
    let receiver = TestReceiver::start().await;
    let gateway = Gateway::holding(2300).await;
    let mut forwarding = gateway.forward(&receiver.url());
    forwarding.until_accepted(2300).await;
    gateway.until_waiting(0).await;
    gateway.put(readings(1)).await;
    forwarding.until_accepted(2301).await;
    let log = receiver.log();
    let posts = log.posts.iter().map(|post| (post.items.len(), post.query.as_deref()));
    let hurried = Some("wait=0");
    assert_eq!(Vec::from_iter(posts), [(1000, hurried), (1000, hurried), (300, None), (1, None)]);
    let expected = (0..2300).chain(0..1).map(|number| number.to_string());
    assert_eq!(log.taken, Vec::from_iter(expected));
}

#[tokio::test]
async fn lists_hold_a_mebibyte_of_large_readings() {
    let receiver = TestReceiver::start().await;
    let gateway = Gateway::new().await;
    let large = |number: usize| reading("d", format!("\"{number}{}\"", "x".repeat(60_000)));
    gateway.put((0..40).map(large).collect()).await;
    let mut forwarding = gateway.forward(&receiver.url());
    forwarding.until_accepted(40).await;
    let log = receiver.log();
    let sizes = log.posts.iter().map(|post| post.items.iter().map(|it| it.payload.len()).sum::<usize>());
    assert!(sizes.clone().all(|size| size <= 1 << 20) && sizes.clone().max() > Some(900_000), "{sizes:?}");
}

#[tokio::test]
async fn compresses_for_a_receiver_that_offers_it_and_is_not_on_this_machine() {
    // The address 0.0.0.0 leads here as well, and is not of the loopback.
    for (address, offers, expected) in [
        ("0.0.0.0", Some("gzip, zstd"), true),
        ("0.0.0.0", Some("gzip"), false),
        ("0.0.0.0", None, false),
        ("127.0.0.1", Some("gzip, zstd"), false),
    ] {
        let receiver = TestReceiver::start_at("127.0.0.1:0", Log { offers, ..Log::default() }).await;
        let gateway = Gateway::holding(100).await;
        let mut forwarding = gateway.forward(&format!("http://{address}:{}", receiver.address.port()));
        forwarding.until_accepted(100).await;
        assert_eq!(
            receiver.log().posts.iter().map(is_compressed).collect::<Vec<_>>(),
            [expected],
            "{address} {offers:?}"
        );
        assert_eq!(receiver.log().taken.len(), 100);
    }
}

#[tokio::test]
async fn sends_plain_when_a_proxy_does_not_take_what_the_receiver_offered() {
    let receiver = TestReceiver::answering([saying(StatusCode::UNSUPPORTED_MEDIA_TYPE)]).await;
    receiver.log().offers = Some("zstd");
    let gateway = Gateway::holding(100).await;
    let mut forwarding = gateway.forward(&format!("http://0.0.0.0:{}", receiver.address.port()));
    let status = forwarding.until_accepted(100).await;
    assert_eq!((status.retries, status.refused), (1, 0));
    assert_eq!(receiver.log().posts.iter().map(is_compressed).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn sends_the_token_and_refuses_what_no_request_can_carry() {
    let receiver = TestReceiver::start().await;
    let gateway = Gateway::holding(1).await;
    let target = Receiver::new(receiver.url().parse().unwrap(), Some("a-secret-token")).unwrap();
    let mut forwarding = gateway.forward_to(vec![target], Protocol::V1);
    forwarding.until_accepted(1).await;
    assert_eq!(receiver.log().posts[0].headers[header::AUTHORIZATION], "Bearer a-secret-token");
    assert!(Receiver::new("ftp://127.0.0.1/".parse().unwrap(), None).is_err());
    assert!(Receiver::new("http://127.0.0.1/".parse().unwrap(), Some("two\nlines")).is_err());
    assert_eq!(at("http://127.0.0.1").url().as_str(), "http://127.0.0.1/");
}
