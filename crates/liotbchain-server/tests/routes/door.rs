use liotbchain_http::{Edge, Token};
use liotbchain_server::ReceiverConfig;
use reqwest::{Method, header};

use crate::{
    running::{Running, ledger_config, memory, receiver_config, refused},
    signer::Signer,
};

#[tokio::test]
async fn unknown_routes_are_errors_like_all_others() {
    let receiver = Running::start().await;
    for path in ["/nothing", "/receive_data/", "/apidocs/nothing"] {
        let (status, code, _) = refused(receiver.get(path).await).await;
        assert_eq!((status, code.as_str()), (404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn other_methods_are_refused_with_those_there_are() {
    let receiver = Running::start().await;
    for (method, path, allow) in [
        (Method::GET, "/receive_data", "POST"),
        (Method::PUT, "/receive_data", "POST"),
        (Method::POST, "/get_chain", "GET,HEAD"),
        (Method::DELETE, "/validate", "GET,HEAD"),
    ] {
        let response = receiver.client.request(method.clone(), receiver.url(path)).send().await.unwrap();
        assert_eq!(response.headers()[header::ALLOW], allow, "{method} {path}");
        let (status, code, _) = refused(response).await;
        assert_eq!((status, code.as_str()), (405, "method_not_allowed"), "{method} {path}");
    }
}

#[tokio::test]
async fn options_names_the_methods() {
    let receiver = Running::start().await;
    for (path, allow) in [("/receive_data", "POST"), ("/get_chain", "GET,HEAD")] {
        let response = receiver.client.request(Method::OPTIONS, receiver.url(path)).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::ALLOW]),
            (200, &allow.parse().unwrap())
        );
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let receiver = Running::start().await;
    for path in ["/", "/get_chain", "/validate", "/healthz", "/readyz", "/metrics"] {
        let (get, head) =
            (receiver.get(path).await, receiver.client.head(receiver.url(path)).send().await.unwrap());
        assert_eq!(get.status(), head.status(), "{path}");
        assert_eq!(get.headers()[header::CONTENT_TYPE], head.headers()[header::CONTENT_TYPE], "{path}");
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_token_is_asked_of_writers_and_not_of_readers() {
    let edge = Edge { api_token: Some(Token::new("0123456789abcdef")), ..Edge::default() };
    let config = ReceiverConfig { edge, ..receiver_config() };
    let receiver = Running::with(memory().await, ledger_config(), config).await;
    let item = Signer::new().item("1");
    let (status, code, _) = refused(receiver.post(item.clone()).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (401, "unauthorized"));
    assert_eq!(receiver.post(item).bearer_auth("0123456789abcdef").send().await.unwrap().status(), 200);
    assert_eq!(receiver.get("/get_chain").await.status(), 200);
}

#[tokio::test]
async fn strangers_are_kept_out() {
    let receiver = Running::start().await;
    let get = |name, value| receiver.client.get(receiver.url("/get_chain")).header(name, value).send();
    let (status, code, _) = refused(get(header::HOST, "evil.example").await.unwrap()).await;
    assert_eq!((status, code.as_str()), (421, "unknown_host"));
    let (status, code, _) = refused(get(header::ORIGIN, "http://evil.example").await.unwrap()).await;
    assert_eq!((status, code.as_str()), (403, "foreign_origin"));
}

#[tokio::test]
async fn the_first_page_shows_where_everything_is() {
    let receiver = Running::start().await;
    let response = receiver.get("/").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    let page = response.text().await.unwrap();
    let tip = receiver.ledger.status().tip.to_string();
    for text in ["href=\"/apidocs/\"", "href=\"/get_chain\"", "href=\"/validate\"", &tip] {
        assert!(page.contains(text), "{text} is missing in {page}");
    }
    assert!(!page.contains("://"), "nothing is fetched from elsewhere: {page}");
}
