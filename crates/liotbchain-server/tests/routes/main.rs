//! The receiver over real sockets, with the stores that need nothing installed. One file a route.

#![allow(clippy::unwrap_used)]

mod chain;
mod door;
mod health;
mod openapi;
mod receive_data;
mod running;
mod signer;
mod start_report;
mod validate;
