//! The checks at the door, before any route sees a request.

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use crate::{ApiError, serve::Arrival};

/// Who may talk to a server.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    /// Names that `Host` may hold, without ports. Empty: loopback names and the address the request arrived at, which no
    /// web site can make a browser name for another server (DNS rebinding).
    pub allowed_hosts: Vec<String>,
    /// What writes must carry as `Authorization: Bearer`. Without one everybody who reaches the port may write.
    pub api_token: Option<Token>,
}

/// A token as its SHA-256: what is not kept cannot leak, and digests compare in constant time whatever their length was.
#[derive(Clone)]
pub struct Token(digest::Digest);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Takes the token as it is written in the settings.
    pub fn new(token: &str) -> Self {
        Self(digest::digest(&digest::SHA256, token.as_bytes()))
    }

    fn matches(&self, token: &[u8]) -> bool {
        let given = digest::digest(&digest::SHA256, token);
        verify_slices_are_equal(self.0.as_ref(), given.as_ref()).is_ok()
    }
}

/// Puts the checks of `Host`, `Origin` and token before a router, and gives what the router refuses, or panics at, the
/// shape of [`ApiError`].
///
/// A token is asked for by method: GET, HEAD and OPTIONS only read. Routes added to the result later are not guarded.
pub fn guard(router: Router, edge: Edge) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(edge), check))
}

async fn check(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = edge.check(&request) {
        let mut response = refusal.into_response();
        // The body was not read, so no other request can follow on this connection: the client must know.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let method = request.method().clone();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => reshape(&method, response),
        Err(panic) => {
            let text =
                panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
            ApiError::internal(&text.unwrap_or("a handler panicked")).into_response()
        }
    }
}

impl Edge {
    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let arrival = request.extensions().get::<Arrival>().map(|arrival| arrival.0.ip());
        let authority = self.check_host(request.uri(), request.headers(), arrival)?;
        check_origin(request.headers(), &authority)?;
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if reads { Ok(()) } else { self.check_token(request.headers()) }
    }

    /// Checks the host a request is addressed to and returns it. One that stands in the request line counts before the
    /// header (RFC 9112, section 3.2.2).
    fn check_host(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        arrival: Option<IpAddr>,
    ) -> Result<Authority, ApiError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let only = hosts
            .next()
            .filter(|_| hosts.next().is_none())
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let authority = only.map(|only| uri.authority().cloned().unwrap_or(only)).ok_or_else(|| {
            let message = "the request must have one Host header with the name of this server";
            ApiError::refusal(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message)
        })?;
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let allowed = if self.allowed_hosts.is_empty() {
            let is_here = |address: IpAddr| {
                address.is_loopback() || Some(address) == arrival.map(|ip| ip.to_canonical())
            };
            host == "localhost" || host.ends_with(".localhost") || address.is_some_and(is_here)
        } else {
            let unbracketed =
                |name: &str| name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
            self.allowed_hosts.iter().any(|name| unbracketed(name) == unbracketed(&host))
        };
        if allowed {
            return Ok(authority);
        }
        let message =
            format!("this server is not known as {host}: if it should be, add that name to ALLOWED_HOSTS");
        Err(ApiError::refusal(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message))
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(expected) = &self.api_token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let message = match given.and_then(bearer) {
            Some(token) if expected.matches(token) => return Ok(()),
            Some(_) => "the token is wrong: send the one that this server was given as API_TOKEN",
            None => {
                "this server asks writers for a token: send the header Authorization: Bearer with its API_TOKEN"
            }
        };
        Err(ApiError::refusal(StatusCode::UNAUTHORIZED, "unauthorized", message))
    }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Refuses what a page of another server made a browser send. The scheme is passed over: a proxy in front may add TLS.
fn check_origin(headers: &HeaderMap, authority: &Authority) -> Result<(), ApiError> {
    let own = |origin: &str| {
        let origin: Uri = origin.parse().ok()?;
        let default_port = if origin.scheme_str()? == "https" { 443 } else { 80 };
        let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
        let origin = origin.authority()?;
        Some(origin.host().eq_ignore_ascii_case(authority.host()) && port(origin) == port(authority))
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    if origins.all(|value| value.to_str().ok().and_then(own) == Some(true)) {
        return Ok(());
    }
    let message = "pages of other servers may not use this one from a browser: open this server's own /apidocs/, or \
                   send the request without an Origin header";
    Err(ApiError::refusal(StatusCode::FORBIDDEN, "foreign_origin", message))
}

/// Gives the router's own refusals, which are plain text or empty, the shape of every other. `OPTIONS` is answered with
/// the methods of a route, as the Python original does; the router adds the `Allow` header after this.
fn reshape(method: &Method, response: Response) -> Response {
    let (status, headers) = (response.status(), response.headers());
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    // A route that refuses in a form of its own says which.
    let is_routers = content_type.is_empty() || content_type.starts_with(b"text/plain");
    if !status.is_client_error() || !is_routers {
        return response;
    }
    match status {
        StatusCode::METHOD_NOT_ALLOWED if method == Method::OPTIONS => StatusCode::OK.into_response(),
        StatusCode::METHOD_NOT_ALLOWED => {
            let message = format!("this route does not take {method}: the Allow header says what it takes");
            ApiError::refusal(status, "method_not_allowed", message).into_response()
        }
        StatusCode::NOT_FOUND => {
            let message = "there is no such route: /apidocs/ shows all of them";
            ApiError::refusal(status, "not_found", message).into_response()
        }
        _ => {
            let message = "the request is not what the route takes: /apidocs/ shows what it takes";
            ApiError::refusal(status, "bad_request", message).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(edge: &Edge, host: &str, arrival: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        edge.check_host(&Uri::from_static("/"), &headers, Some(arrival.parse().unwrap())).is_ok()
    }

    #[test]
    fn knows_itself_by_loopback_names_and_the_address_it_was_reached_at() {
        let edge = Edge::default();
        for name in [
            "localhost:5001",
            "LOCALHOST.",
            "127.0.0.1:1",
            "127.8.8.8",
            "[::1]:5001",
            "pi.localhost",
            "10.0.0.7",
        ] {
            assert!(host(&edge, name, "10.0.0.7"), "{name}");
        }
        assert!(host(&edge, "10.0.0.7", "::ffff:10.0.0.7"));
        for name in ["evil.example", "10.0.0.8", "localhost.evil.example", "notlocalhost", ""] {
            assert!(!host(&edge, name, "10.0.0.7"), "{name}");
        }
    }

    #[test]
    fn listed_hosts_replace_the_default() {
        let edge = Edge { allowed_hosts: vec!["chain.example.org".into(), "::1".into()], ..Edge::default() };
        assert!(host(&edge, "Chain.Example.org:8080", "10.0.0.7"));
        assert!(host(&edge, "[::1]:8080", "10.0.0.7"));
        assert!(!host(&edge, "localhost", "10.0.0.7"));
        assert!(!host(&edge, "10.0.0.7", "10.0.0.7"));
    }

    #[test]
    fn refuses_two_hosts_and_none() {
        let mut headers = HeaderMap::new();
        let uri = Uri::from_static("/");
        assert!(Edge::default().check_host(&uri, &headers, None).is_err());
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert!(Edge::default().check_host(&uri, &headers, None).is_ok());
        let absolute = Uri::from_static("http://evil.example/");
        assert!(Edge::default().check_host(&absolute, &headers, None).is_err());
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert!(Edge::default().check_host(&uri, &headers, None).is_err());
    }

    #[test]
    fn takes_its_own_origin_only() {
        let origin = |origin: &'static str, host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            check_origin(&headers, &Authority::from_static(host)).is_ok()
        };
        assert!(origin("http://localhost:5001", "localhost:5001"));
        assert!(origin("https://chain.example.org", "chain.example.org:443"));
        assert!(origin("http://[::1]:5001", "[::1]:5001"));
        assert!(!origin("http://localhost:5000", "localhost:5001"));
        assert!(!origin("http://127.0.0.1:5001", "localhost:5001"));
        assert!(!origin("http://evil.example", "localhost:5001"));
        assert!(!origin("null", "localhost:5001"));
        assert!(!origin("localhost:5001", "localhost:5001"));
    }

    #[test]
    fn takes_the_right_token_only() {
        let edge = Edge { api_token: Some(Token::new("0123456789abcdef")), ..Edge::default() };
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            edge.check_token(&headers).is_ok()
        };
        assert!(token("Bearer 0123456789abcdef"));
        assert!(token("bearer  0123456789abcdef "));
        for value in
            ["Bearer 0123456789abcde", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer", "Bearer "]
        {
            assert!(!token(value), "{value}");
        }
        assert!(edge.check_token(&HeaderMap::new()).is_err());
        assert!(!format!("{edge:?}").contains("0123"));
    }
}
