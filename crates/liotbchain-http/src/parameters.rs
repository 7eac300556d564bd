//! The query of a request, read strictly: a slip in a name must not go unnoticed.

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::ApiError;

/// The parameters that stand behind the `?`.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(bad_query(&rejection.body_text())),
        }
    }
}

/// Refuses a query, of which this is wrong.
pub fn bad_query(what: &str) -> ApiError {
    let message = format!("{what}; /apidocs/ shows the parameters of this route");
    ApiError::refusal(StatusCode::BAD_REQUEST, "bad_query", message)
}
