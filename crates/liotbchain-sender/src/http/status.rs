//! `GET /status`: what the sender does and has done.

use axum::{Json, extract::State};

use crate::{sender::Sender, status::Status};

/// Shows what the sender does and has done.
#[utoipa::path(get, path = "/status", tag = "operation", responses((status = 200, body = Status)))]
pub(crate) async fn get_status(State(sender): State<Sender>) -> Json<Status> {
    Json(sender.status())
}
