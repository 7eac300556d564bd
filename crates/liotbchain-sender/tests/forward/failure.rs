//! Receivers that are down, overloaded, slow, or one of several.

use std::time::{Duration, UNIX_EPOCH};

use axum::{body::Body, http::header, response::IntoResponse};
use liotbchain_sender::Protocol;
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    gateway::{Gateway, at, readings},
    receiver::{Log, TestReceiver, busy, saying},
};

#[tokio::test]
async fn waits_as_long_as_it_is_asked_to() {
    let receiver = TestReceiver::answering([busy(2)]).await;
    let gateway = Gateway::holding(1).await;
    let mut forwarding = gateway.forward(&receiver.url());
    let status = forwarding.until_accepted(1).await;
    assert_eq!(status.last_error.unwrap().http_status, Some(503));
    let posts = &receiver.log().posts;
    assert!(posts[1].at - posts[0].at >= Duration::from_secs(2));
}

#[tokio::test]
async fn looks_for_a_receiver_that_is_down_and_tells_when_it_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let gateway = Gateway::new().await;
    let mut forwarding = gateway.forward(&format!("http://{address}"));
    let status = forwarding.until_error("cannot be reached (Connection refused").await;
    assert_eq!((status.reachable, status.sent), (Some(false), 0));
    gateway.put(readings(3)).await;
    let receiver = TestReceiver::start_at(&address, Log::default()).await;
    let status = forwarding.until_accepted(3).await;
    assert_eq!((status.reachable, status.sent), (Some(true), 3));
    let log = receiver.stop().await;
    assert_eq!(log.taken, ["0", "1", "2"]);
    gateway.put(readings(1)).await;
    forwarding.until("gone", |status| status.reachable == Some(false)).await;
    let _receiver = TestReceiver::start_at(&address, log).await;
    forwarding.until_accepted(4).await;
}

#[tokio::test]
async fn finds_a_receiver_again_with_nothing_to_send() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let gateway = Gateway::new().await;
    let mut forwarding = gateway.forward(&format!("http://{address}"));
    forwarding.until("gone", |status| status.reachable == Some(false)).await;
    let receiver = TestReceiver::start_at(&address, Log::default()).await;
    forwarding.until("there", |status| status.reachable == Some(true)).await;
    assert!(receiver.log().posts.is_empty());
}

#[tokio::test]
async fn goes_to_the_next_receiver_at_once_and_stays_there() {
    let overloaded = TestReceiver::ruled(|_| Some(busy(60)(&[]))).await;
    let works = TestReceiver::start().await;
    let gateway = Gateway::holding(2).await;
    let receivers = vec![at("http://127.0.0.1:1"), at(&overloaded.url()), at(&works.url())];
    let mut forwarding = gateway.forward_to(receivers, Protocol::V1);
    assert_eq!(forwarding.status.borrow().receiver, "http://127.0.0.1:1/");
    let status = forwarding.until_accepted(2).await;
    assert_eq!((status.receiver, status.reachable), (works.url() + "/", Some(true)));
    gateway.put(readings(5)).await;
    forwarding.until_accepted(7).await;
    assert_eq!(overloaded.log().posts.len(), 1);
    assert_eq!(works.log().posts.len(), 2);
    // The one in use goes: there is no other that may be tried, but the one that was down.
    let log = works.stop().await;
    gateway.put(readings(1)).await;
    forwarding.until("another is tried", |status| status.receiver == "http://127.0.0.1:1/").await;
    assert_eq!((log.taken.len(), gateway.set_aside().await.len()), (7, 0));
}

#[tokio::test]
async fn reads_no_answer_without_end() {
    let endless = || {
        let spaces = || Ok::<_, std::io::Error>(vec![b' '; 1 << 16]);
        Body::from_stream(futures_util::stream::repeat_with(spaces)).into_response()
    };
    let receiver = TestReceiver::answering([saying(endless())]).await;
    let gateway = Gateway::holding(1).await;
    let mut forwarding = gateway.forward(&receiver.url());
    forwarding.until_error("broke off: it is longer than 2097152 bytes").await;
    forwarding.until_accepted(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_waits_for_the_answer_to_the_list_on_its_way() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (seen, was_seen) = oneshot::channel();
    let mut seen = Some(seen);
    let receiver = TestReceiver::ruled(move |_| {
        // The answer comes only after the forwarder was told to stop.
        if let Some(seen) = seen.take() {
            seen.send(()).unwrap();
            released.recv().unwrap();
        }
        None
    })
    .await;
    let gateway = Gateway::holding(2).await;
    let forwarding = gateway.forward(&receiver.url());
    was_seen.await.unwrap();
    let stopped = forwarding.begin_stop();
    gateway.put(readings(3)).await;
    release.send(()).unwrap();
    stopped.await;
    gateway.until_waiting(3).await;
    assert_eq!(receiver.log().taken, ["0", "1"]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_and_puts_everything_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::holding(2500).await;
    let mut forwarding = gateway.forward(&format!("http://{}", listener.local_addr().unwrap()));
    let (greeting, _) = listener.accept().await.unwrap();
    greeting.readable().await.unwrap();
    greeting.try_write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    forwarding.until("posted", |status| status.sent == 1000).await;
    forwarding.stop().await;
    drop(greeting);
    let taken = gateway.outbox.take(5000, usize::MAX).await.unwrap();
    assert_eq!(taken.len(), 2500, "nothing is on its way any more");
    assert!(taken.windows(2).all(|pair| pair[0].slot < pair[1].slot));
}

#[tokio::test]
async fn tells_how_wrong_a_clock_is() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let dated = move |items: &[crate::receiver::Item]| {
        let ids: Vec<_> = items.iter().map(crate::receiver::id_of).collect();
        let mut response = crate::receiver::acknowledge(&ids);
        response.headers_mut().insert(header::DATE, date.parse().unwrap());
        response
    };
    let receiver = TestReceiver::answering([Box::new(dated) as crate::receiver::Answer]).await;
    let gateway = Gateway::new().await;
    let mut forwarding = gateway.forward(&receiver.url());
    let status = forwarding.until("greeted", |status| status.clock_offset_ms.is_some()).await;
    assert!(status.clock_offset_ms.unwrap().abs() < 30_000, "both are this machine's clock");
    gateway.put(readings(1)).await;
    let status = forwarding.until_accepted(1).await;
    let expected = 784_111_777_000 - i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let offset_ms = status.clock_offset_ms.unwrap();
    assert!((offset_ms - expected).abs() < 60_000, "{offset_ms}");
}
