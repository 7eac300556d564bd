//! `GET /`: what somebody sees who opens the receiver in a browser.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{Html, IntoResponse},
};

use crate::state::Shared;

pub(crate) async fn home(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let status = shared.ledger.status();
    let page = format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>liotbchain receiver</title>
<style>body {{ font-family: sans-serif; margin: 2rem auto; max-width: 48rem; padding: 0 1rem; overflow-wrap: anywhere }}</style>
<h1>liotbchain receiver</h1>
<p>Takes signed readings, mines them into blocks, and shows the chain. Network: <b>{network}</b>.</p>
<dl>
<dt>Height <dd>{height}
<dt>Tip <dd><code>{tip}</code>
<dt>Pending transactions <dd>{pending}
</dl>
<ul>
<li><a href="/apidocs/">All routes, to try out</a>
<li><a href="/get_chain">The whole chain as JSON</a>
<li><a href="/validate">Validate the chain</a>
</ul>
</html>
"#,
        network = escape(&shared.ledger.rules().network),
        height = status.height,
        tip = status.tip,
        pending = status.pending,
    );
    ([(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")], Html(page))
}

/// A chain's name may come from elsewhere.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_brings_no_markup() {
        assert_eq!(escape("<b>&amp;"), "&lt;b>&amp;amp;");
    }
}
