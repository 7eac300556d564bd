//! What a receiver refuses is set aside, that very record and no other; what only a person can change is waited for.

use axum::{
    http::{StatusCode, header},
    response::{Html, IntoResponse},
};
use liotbchain_sender::{Fate, Protocol, Receiver};

use crate::{
    gateway::{Gateway, readings},
    receiver::{Log, TestReceiver, refusal, saying},
};

#[tokio::test]
async fn sets_aside_the_items_that_are_refused_and_goes_on() {
    let refused = ["3", "4", "7"].map(str::to_owned).into();
    let receiver = TestReceiver::start_at("127.0.0.1:0", Log { refused, ..Log::default() }).await;
    let mut gateway = Gateway::holding(9).await;
    let mut forwarding = gateway.forward(&receiver.url());
    let status = forwarding.until_accepted(6).await;
    gateway.until_waiting(0).await;
    assert_eq!((status.sent, status.refused, status.retries), (9, 3, 1));
    let error = status.last_error.unwrap();
    assert!(error.message.contains("item 3: bad_payload: as the test says"), "{error:?}");
    assert_eq!(error.http_status, Some(400));
    assert_eq!(receiver.log().taken, ["0", "1", "2", "5", "6", "8"]);
    let reason = "bad_payload: as the test says";
    let aside = ["3", "4", "7"].map(|reading| (reading.to_owned(), reason.to_owned()));
    assert_eq!(gateway.set_aside().await, aside);
    let told = gateway.fates().into_iter().filter(|fate| *fate == Fate::SetAside { reason: reason.into() });
    assert_eq!(told.count(), 3);
}

#[tokio::test]
async fn halves_a_list_that_is_refused_whole_and_sets_a_single_one_aside() {
    // A proxy that lets three readings through at a time, and one of them never.
    let receiver = TestReceiver::ruled(|items| {
        let is_too_large = items.len() > 3 || items.iter().any(|item| item.reading() == "5");
        is_too_large.then(|| (StatusCode::PAYLOAD_TOO_LARGE, Html("<h1>413 Too Large</h1>")).into_response())
    })
    .await;
    let gateway = Gateway::holding(10).await;
    let mut forwarding = gateway.forward(&receiver.url());
    let status = forwarding.until_accepted(9).await;
    gateway.until_waiting(0).await;
    assert_eq!((status.sent, status.refused), (10, 1));
    assert_eq!(receiver.log().taken, ["0", "1", "2", "3", "4", "6", "7", "8", "9"]);
    let aside = gateway.set_aside().await;
    assert_eq!((aside.len(), aside[0].0.as_str()), (1, "5"));
    assert!(aside[0].1.contains("413 Payload Too Large"), "{aside:?}");
    // It has learned how much goes through, and tries a little more from time to time.
    let posts = receiver.log().posts.len();
    gateway.put(readings(9)).await;
    forwarding.until_accepted(17).await;
    let later = receiver.log().posts[posts..].iter().map(|post| post.items.len()).max();
    assert!(later <= Some(4), "{later:?}");
}

#[tokio::test]
async fn keeps_everything_while_only_the_setup_is_wrong() {
    for (answer, cure) in [
        (refusal(401, "unauthorized"), "set RECEIVER_TOKEN"),
        (refusal(403, "foreign_origin"), "check RECEIVER_URL"),
        (refusal(404, "not_found"), "RECEIVER_URL is not the address of a receiver"),
        (refusal(421, "unknown_host"), "ALLOWED_HOSTS"),
        (saying((StatusCode::BAD_REQUEST, Html("plain HTTP sent to HTTPS"))), "check RECEIVER_URL"),
    ] {
        let wrong = TestReceiver::answering([answer]).await;
        let gateway = Gateway::holding(3).await;
        let mut forwarding = gateway.forward(&wrong.url());
        let status = forwarding.until_error(cure).await;
        assert_eq!((status.reachable, status.refused), (Some(false), 0), "{cure}");
        forwarding.stop().await;
        assert_eq!(wrong.log().posts.len(), 1, "it is not asked again for half a minute");
        gateway.until_waiting(3).await;
        assert_eq!(gateway.set_aside().await, []);
        let mut forwarding = gateway.forward(&wrong.url());
        forwarding.until_accepted(3).await;
        assert_eq!(wrong.log().taken, ["0", "1", "2"]);
    }
}

#[tokio::test]
async fn takes_readings_and_token_nowhere_else_when_it_is_redirected() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = TestReceiver::start().await;
        let location = format!("{}/v1/transactions", elsewhere.url());
        let redirect = (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, location.clone())]);
        let receiver = TestReceiver::answering([saying(redirect)]).await;
        let gateway = Gateway::holding(1).await;
        let target = Receiver::new(receiver.url().parse().unwrap(), Some("a-secret-token")).unwrap();
        assert!(!format!("{target:?}").contains("secret"));
        let mut forwarding = gateway.forward_to(vec![target], Protocol::V1);
        let told = forwarding
            .until_error(&format!("set RECEIVER_URL to where the receiver is now ({location})"))
            .await;
        assert!(!format!("{told:?}").contains("secret"));
        forwarding.stop().await;
        assert!(elsewhere.stop().await.posts.is_empty());
        gateway.until_waiting(1).await;
        assert_eq!(receiver.log().posts[0].headers[header::AUTHORIZATION], "Bearer a-secret-token");
    }
}
