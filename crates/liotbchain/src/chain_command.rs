//! `liotbchain chain …`: looks at the chain in a store, checks it, and moves it. None of these commands makes a chain,
//! but for an import, and all but the import may run beside a receiver.

mod evidence;
mod show;
mod transfer;
mod validate;

pub use show::{shorten, show};
pub use transfer::{export, import};
pub use validate::{ValidatePlan, validate};
