//! The receiver over real sockets, with the stores that need nothing installed. One file a route.

#![allow(clippy::unwrap_used)]

mod chain;
mod door;
mod events;
mod export;
mod health;
mod openapi;
mod receive_data;
mod running;
mod signer;
mod start_report;
mod v1_blocks;
mod v1_door;
mod v1_keys;
mod v1_status;
mod v1_transactions;
mod validate;
mod validation;
