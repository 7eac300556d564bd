//! `liotbchain chain …`: looks at the chain in a store, checks it, moves it, and prunes it. None of these commands makes a
//! chain, but for an import. All but import and prune may run beside a receiver; so may prune, on PostgreSQL.

mod evidence;
pub mod prune;
mod show;
mod transfer;
mod validate;

pub use show::{shorten, show};
pub use transfer::{export, import};
pub use validate::{ValidatePlan, validate};
