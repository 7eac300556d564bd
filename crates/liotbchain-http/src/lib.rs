//! What the receiver and the sender share as HTTP servers, and nothing of what either does.
//!
//! [`Edge::bind`] takes a port or says why not, [`guard`] puts the checks at the door of a router, [`serve`] accepts
//! connections within [`Limits`], [`JsonBody`] reads a request, [`ApiError`] is the one shape of every refusal (and below
//! a path of [`problems_below`] a [`Problem`]), and [`apidocs`] shows the routes in a browser. [`json_text`] reads JSON and
//! keeps its bytes. TLS is left to a proxy in front.

mod apidocs;
mod bind;
mod body;
mod encoding;
mod error;
mod guard;
pub mod json_keys;
pub mod json_text;
mod parameters;
mod problem;
mod serve;

pub use apidocs::apidocs;
pub use bind::{BindError, Holder, find_listener};
pub use body::{JsonBody, is_json, media_type, read_body};
pub use encoding::ContentEncoding;
pub use error::{ApiError, ErrorBody, ItemError};
pub use guard::{Edge, Token, guard};
pub use parameters::{Parameters, bad_query};
pub use problem::{Problem, problems_below};
pub use serve::{Limits, serve};
