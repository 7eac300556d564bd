//! The edge over real sockets, spoken to in raw bytes: what a client library would hide is what is tested.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use liotbchain_http::{Edge, JsonBody, Limits, Token, apidocs, guard, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Times short enough for a test; the defaults are what `Limits` says.
fn limits() -> Limits {
    Limits {
        header_time: Duration::from_millis(300),
        body_time: Duration::from_millis(300),
        body_size_max: 1000,
        ..Limits::default()
    }
}

async fn start(edge: Edge, limits: Limits) -> Server {
    let router = Router::new()
        .route("/length", post(async |JsonBody(bytes): JsonBody| bytes.len().to_string()))
        .route("/read", get(async || "read"))
        .route("/panic", get(async || -> &'static str { panic!("the secret cause") }))
        .route("/slow", get(async || tokio::time::sleep(Duration::from_millis(400)).await))
        .route(
            "/endless",
            get(async || {
                axum::body::Body::from_stream(futures_util::stream::repeat_with(|| {
                    Ok::<_, std::io::Error>(vec![b'x'; 1 << 16])
                }))
            }),
        )
        .merge(apidocs(utoipa::openapi::OpenApi::default()));
    let listener = edge.bind("127.0.0.1:0".parse().unwrap(), "TEST_LISTEN").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, guard(router, edge), limits, async { _ = stopped.await }));
    Server { address, stop, task }
}

/// Sends bytes as they are and reads until the server closes.
async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    read_to_close(&mut stream).await
}

async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    read.expect("the server closes the connection").unwrap();
    String::from_utf8(answer).unwrap()
}

fn get_path(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

fn post_json(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /length HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

#[track_caller]
fn assert_refused(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((body["status"].as_str(), body["code"].as_str()), (Some("error"), Some(code)), "{answer}");
}

#[tokio::test]
async fn answers_a_request_and_a_second_on_the_same_connection() {
    let server = start(Edge::default(), limits()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /read HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(&post_json("", "[1]")).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert!(answer.ends_with("\r\n\r\n3"), "{answer}");
}

#[tokio::test]
async fn answers_a_client_that_closed_its_own_side() {
    let server = start(Edge::default(), limits()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_to_close(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn closes_a_connection_whose_headers_do_not_end() {
    let server = start(Edge::default(), limits()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let drip = async {
        writer.write_all(b"GET /read HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
        while writer.write_all(b"x-a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = Vec::new();
    let close = async { timeout(Duration::from_secs(20), reader.read_to_end(&mut answer)).await };
    tokio::select! {
        () = drip => {}
        closed = close => { closed.expect("the server closes the connection").ok(); }
    }
    assert!(answer.is_empty(), "no request, no answer");
}

#[tokio::test]
async fn closes_a_connection_that_asks_nothing() {
    let server = start(Edge::default(), limits()).await;
    assert_eq!(exchange(server.address, b"").await, "");
}

#[tokio::test]
async fn refuses_a_body_that_does_not_end() {
    let server = start(Edge::default(), limits()).await;
    let half = b"POST /length HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n[1,";
    assert_refused(&exchange(server.address, half).await, 408, "slow_request");
}

#[tokio::test]
async fn a_client_that_is_still_sending_reads_why_its_body_was_refused() {
    let server = start(Edge::default(), limits()).await;
    let body = "x".repeat(4 << 20);
    assert_refused(&exchange(server.address, &post_json("", &body)).await, 413, "body_too_large");
    let chunked = format!(
        "POST /length HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert_refused(&exchange(server.address, chunked.as_bytes()).await, 413, "body_too_large");
}

#[tokio::test]
async fn refuses_unknown_hosts_and_foreign_origins() {
    let server = start(Edge::default(), limits()).await;
    let foreign_host = b"GET /read HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    assert_refused(&exchange(server.address, foreign_host).await, 421, "unknown_host");
    let no_host = b"GET /read HTTP/1.1\r\nconnection: close\r\n\r\n";
    assert_refused(&exchange(server.address, no_host).await, 421, "unknown_host");
    let foreign_origin = post_json("origin: http://evil.example\r\n", "[]");
    assert_refused(&exchange(server.address, &foreign_origin).await, 403, "foreign_origin");
    let own_origin = post_json("origin: http://localhost\r\n", "[]");
    assert!(exchange(server.address, &own_origin).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn asks_writers_for_the_token_and_readers_not() {
    let edge = Edge { api_token: Some(Token::new("0123456789abcdef")), ..Edge::default() };
    let server = start(edge, limits()).await;
    let refused = exchange(server.address, &post_json("", "[]")).await;
    assert_refused(&refused, 401, "unauthorized");
    assert!(refused.contains("www-authenticate: Bearer"), "{refused}");
    let wrong = post_json("authorization: Bearer fedcba9876543210\r\n", "[]");
    assert_refused(&exchange(server.address, &wrong).await, 401, "unauthorized");
    let right = post_json("authorization: Bearer 0123456789abcdef\r\n", "[]");
    assert!(exchange(server.address, &right).await.starts_with("HTTP/1.1 200 OK"));
    assert!(exchange(server.address, &get_path("/read", "")).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn names_the_methods_of_a_route() {
    let server = start(Edge::default(), limits()).await;
    let refused = exchange(server.address, &get_path("/length", "")).await;
    assert_refused(&refused, 405, "method_not_allowed");
    assert!(refused.contains("allow: POST"), "{refused}");
    let options = b"OPTIONS /length HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = exchange(server.address, options).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("allow: POST"), "{answer}");
    assert_refused(&exchange(server.address, &get_path("/nowhere", "")).await, 404, "not_found");
    assert_refused(&exchange(server.address, &get_path("/apidocs/nowhere", "")).await, 404, "not_found");
}

#[tokio::test]
async fn hides_the_cause_of_a_panic_and_goes_on() {
    let server = start(Edge::default(), limits()).await;
    let failed = exchange(server.address, &get_path("/panic", "")).await;
    assert_refused(&failed, 500, "internal_error");
    assert!(!failed.contains("secret"), "{failed}");
    assert!(exchange(server.address, &get_path("/read", "")).await.ends_with("\r\n\r\nread"));
}

#[tokio::test]
async fn turns_connections_above_the_limit_away_and_takes_them_once_there_is_room() {
    let server = start(Edge::default(), Limits { connections_max: 1, ..limits() }).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let refused = exchange(server.address, &get_path("/read", "")).await;
    assert_refused(&refused, 503, "overloaded");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    assert!(read_to_close(&mut first).await.starts_with("HTTP/1.1 200 OK"));
    drop(first);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(exchange(server.address, &get_path("/read", "")).await.starts_with("HTTP/1.1 200 OK"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn gives_the_place_of_a_client_that_reads_nothing_to_another() {
    let stall_time = Duration::from_millis(500);
    let server = start(Edge::default(), Limits { connections_max: 1, stall_time, ..limits() }).await;
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    stalled.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_refused(&exchange(server.address, &get_path("/read", "")).await, 503, "overloaded");
    let served = async {
        while !exchange(server.address, &get_path("/read", "")).await.starts_with("HTTP/1.1 200 OK") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(30), served).await.expect("the place is given up");
}

#[tokio::test]
async fn lets_requests_in_flight_end_at_shutdown_and_takes_no_more() {
    let long = Duration::from_secs(60);
    let server = start(Edge::default(), Limits { header_time: long, shutdown_time: long, ..limits() }).await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let request = get_path("/slow", "");
    let in_flight = tokio::spawn({
        let address = server.address;
        async move { exchange(address, &request).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.send(()).unwrap();
    assert!(in_flight.await.unwrap().starts_with("HTTP/1.1 200 OK"));
    timeout(Duration::from_secs(20), server.task).await.expect("the server ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn serves_the_page_of_routes_from_the_binary() {
    let server = start(Edge::default(), limits()).await;
    let page = exchange(server.address, &get_path("/apidocs/", "")).await;
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("swagger-ui"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    let script = exchange(server.address, &get_path("/apidocs/swagger-initializer.js", "")).await;
    assert!(script.contains("\"validatorUrl\": \"none\""), "{script}");
    assert!(script.contains("/openapi.json"), "{script}");
    let openapi = exchange(server.address, &get_path("/openapi.json", "")).await;
    assert!(openapi.contains("\"bearer\""), "{openapi}");
}
