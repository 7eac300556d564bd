//! What the program's own HTTP clients share: how they connect, show a token, and read an answer.

use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, Response};
use url::Url;

use crate::failure::{Exit, Failure};
use crate::sender_command::is_loopback;
use crate::settings::Secret;

/// Sets up a client for one server. What to repeat is its user's decision, and redirects are not followed: one would turn
/// a post into a GET, or take the token elsewhere.
///
/// # Errors
///
/// Where the system has no certificates, for example.
pub fn client(agent: &str, base: &Url, connections: u32, answer_time: Duration) -> Result<Client, Failure> {
    let mut client = Client::builder()
        .user_agent(format!("liotbchain-{agent}/{}", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        .timeout(answer_time)
        .pool_max_idle_per_host(connections as usize)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    if is_loopback(base.host()) {
        client = client.no_proxy();
    }
    client.build().map_err(|error| Failure::failed(format!("cannot set up the HTTP client: {error}")))
}

/// Returns the header that shows the token of a setting.
///
/// # Errors
///
/// Where no header can carry it.
pub fn bearer(token: Option<&Secret>, setting: &str) -> Result<Option<HeaderValue>, Failure> {
    let Some(token) = token else { return Ok(None) };
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
        .map_err(|_| Failure::new(Exit::Usage, format!("{setting} does not fit into a header")))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Reads the body of an answer, up to so many bytes. Whoever listens there may send without end.
///
/// # Errors
///
/// Says what broke.
pub async fn read(mut answer: Response, size_max: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + chunk.len() > size_max {
            return Err("an answer without end".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns the innermost error, which says what the system said.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
