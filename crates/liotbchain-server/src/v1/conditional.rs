//! Answers that a client has already (RFC 9110, section 13), and for how long it may keep them (RFC 9111).

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use liotbchain_core::BlockHash;

/// What a client may keep if it asks each time whether it is still so. No answer that holds a payload is for ever: it may
/// be pruned, and caches are to forget it then.
pub(crate) const REVALIDATE: &str = "no-cache";

/// The entity tag of what one block decides, and how it may be kept.
pub(crate) struct Validator {
    etag: String,
    caching: &'static str,
}

impl Validator {
    /// The hash of the block is the tag.
    pub(crate) fn new(hash: BlockHash, caching: &'static str) -> Self {
        Self::pruned(hash, 0, caching)
    }

    /// So is it with how much of the answer is pruned, where some is.
    pub(crate) fn pruned(hash: BlockHash, pruned: usize, caching: &'static str) -> Self {
        let etag = match pruned {
            0 => format!("\"{hash}\""),
            _ => format!("\"{hash}-pruned-{pruned}\""),
        };
        Self { etag, caching }
    }

    /// Returns 304 where the client has it already.
    pub(crate) fn not_modified(&self, request: &HeaderMap) -> Option<Response> {
        is_known(request, &self.etag).then(|| (StatusCode::NOT_MODIFIED, self.headers()).into_response())
    }

    /// Returns the headers of an answer, whether it is 200 or 304.
    pub(crate) fn headers(&self) -> [(HeaderName, HeaderValue); 3] {
        let etag =
            HeaderValue::try_from(&self.etag).expect("digits and quotation marks may stand in a header");
        [
            (header::ETAG, etag),
            (header::CACHE_CONTROL, HeaderValue::from_static(self.caching)),
            (header::VARY, header::ACCEPT_ENCODING.into()),
        ]
    }
}

/// Returns whether `If-None-Match` names an entity tag. A tag that an encoding weakened on its way counts too.
pub(crate) fn is_known(request: &HeaderMap, etag: &str) -> bool {
    let values = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Weakens the tag of an answer that was compressed: its bytes are not those that the tag stands for.
pub(crate) async fn weaken_etag(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(etag) = headers.get(header::ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/"))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_tag_among_others() {
        let known = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            is_known(&headers, "\"ab\"")
        };
        for values in [&["\"ab\""][..], &["W/\"ab\""], &["*"], &["\"x\", \"ab\""], &["\"x\"", "W/\"ab\""]] {
            assert!(known(values), "{values:?}");
        }
        for values in [&[][..], &["ab"], &["\"abc\""], &["w/\"ab\""], &["W/W/\"ab\""]] {
            assert!(!known(values), "{values:?}");
        }
    }
}
