//! The query of a request, read strictly: a slip in a name must not go unnoticed.

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, request::Parts},
};
use liotbchain_http::ApiError;
use serde::de::DeserializeOwned;

/// The parameters that stand behind the `?`.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(bad_query(&rejection.body_text())),
        }
    }
}

/// Refuses a query.
pub(super) fn bad_query(what: &str) -> ApiError {
    let message = format!("{what}; /apidocs/ shows the parameters of this route");
    ApiError::refusal(StatusCode::BAD_REQUEST, "bad_query", message)
}
