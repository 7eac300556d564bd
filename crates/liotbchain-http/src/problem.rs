//! Refusals in the form of RFC 9457, below a path.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    ItemError,
    error::{ErrorBody, Refused},
};

/// The media type of a problem.
const PROBLEM_JSON: &str = "application/problem+json";

/// A refusal in the form of RFC 9457. `code` names it for programs and does not change; `detail` is for people.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem<'a> {
    /// Always `about:blank`: `code` tells more than the status does.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Bad Request")]
    title: &'static str,
    /// The status.
    #[schema(example = 400)]
    status: u16,
    /// What is wrong, why, and what to do about it.
    detail: &'a str,
    /// Stable name of the problem, for programs.
    #[schema(example = "not_json")]
    code: &'static str,
    /// The items at fault, where the request as a whole is sound.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    items: &'a [ItemError],
    /// Names the entry of the server's log that holds the cause; only in 5xx answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
}

impl<'a> Problem<'a> {
    fn new(status: StatusCode, body: &'a ErrorBody) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: &body.message,
            code: body.code,
            items: &body.items,
            request_id: body.request_id.as_deref(),
        }
    }
}

/// Gives every [`crate::ApiError`] below a path, such as `/v1`, the form of a [`Problem`], whoever made it. Goes around
/// [`crate::guard`], so that its refusals are among them.
pub fn problems_below(router: Router, path: &'static str) -> Router {
    router.layer(middleware::from_fn_with_state(path, reshape))
}

async fn reshape(State(path): State<&'static str>, request: Request, next: Next) -> Response {
    let below = request.uri().path().strip_prefix(path);
    let is_below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut response = next.run(request).await;
    if !is_below {
        return response;
    }
    let Some(Refused(body)) = response.extensions_mut().remove() else { return response };
    let problem = serde_json::to_vec(&Problem::new(response.status(), &body));
    let Ok(problem) = problem else { return response };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(problem);
    response
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, http::Method, response::IntoResponse, routing::get};
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::{ApiError, Edge, guard};

    fn router() -> Router {
        let failing = || async { ApiError::internal(&"a secret").into_response() };
        let faulty = || async {
            let items = vec![ItemError { index: 3, code: "bad", message: "it is bad".into() }];
            ApiError::refusal(StatusCode::BAD_REQUEST, "bad_items", "one is bad").with_items(items)
        };
        let panicking = || async {
            if true {
                panic!("on purpose")
            }
        };
        let router = Router::new()
            .route("/v1/failing", get(failing))
            .route("/v1/faulty", get(faulty))
            .route("/v1/panicking", get(panicking))
            .route("/v1x", get(failing));
        problems_below(guard(router, Edge::default()), "/v1")
    }

    async fn ask(method: Method, path: &str, host: &str) -> (Response<()>, Value) {
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        let response = router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn every_refusal_below_the_path_is_a_problem() {
        for (method, path, host, status, code) in [
            (Method::GET, "/v1/failing", "localhost", 500, "internal_error"),
            (Method::GET, "/v1/panicking", "localhost", 500, "internal_error"),
            (Method::GET, "/v1/faulty", "localhost", 400, "bad_items"),
            (Method::GET, "/v1/faulty", "evil.example", 421, "unknown_host"),
            (Method::POST, "/v1/faulty", "localhost", 405, "method_not_allowed"),
            (Method::GET, "/v1/nothing", "localhost", 404, "not_found"),
            (Method::GET, "/v1", "localhost", 404, "not_found"),
        ] {
            let (response, problem) = ask(method, path, host).await;
            assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON, "{path}");
            assert_eq!(response.status().as_u16(), status, "{path}");
            assert_eq!(problem["status"], status);
            assert_eq!(problem["code"], code);
            assert_eq!(problem["type"], "about:blank");
            assert_eq!(problem["title"], response.status().canonical_reason().unwrap());
            assert!(problem["detail"].as_str().unwrap().len() > 5);
            assert_eq!(problem.get("request_id").is_some(), status == 500);
            assert!(!problem.to_string().contains("a secret"), "{problem}");
        }
    }

    #[tokio::test]
    async fn headers_and_items_stay() {
        let (response, _) = ask(Method::DELETE, "/v1/faulty", "localhost").await;
        assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
        let (response, problem) = ask(Method::GET, "/v1/faulty", "localhost").await;
        assert_eq!(problem["items"], json!([{"index": 3, "code": "bad", "message": "it is bad"}]));
        assert_eq!(response.headers()[header::CONTENT_LENGTH], problem.to_string().len().to_string());
    }

    #[tokio::test]
    async fn other_routes_keep_their_form() {
        for path in ["/v1x", "/nothing", "/nothing/v1/"] {
            let (response, body) = ask(Method::GET, path, "localhost").await;
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json", "{path}");
            assert_eq!(body["status"], "error", "{path}");
        }
    }
}
