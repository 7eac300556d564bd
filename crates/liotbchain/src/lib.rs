//! A blockchain for signed readings, or for anything else that is text: use it without a server.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use liotbchain::{Blockchain, Options};
//!
//! let chain = Blockchain::open("memory:", Options { unsigned: true, ..Options::default() }).await?;
//! chain.add(r#"{"from":"Alice","to":"Bob","hours":2}"#).await?;
//! chain.mine().await?;
//! assert_eq!(chain.height(), 1);
//! assert!(chain.validate().await?.fault.is_none());
//! # Ok::<(), liotbchain::Error>(()) }).unwrap();
//! ```
//!
//! `memory:` keeps nothing; `sqlite:FILE` and `postgres://…` keep everything that [`Blockchain::add`] acknowledged.
//! Whoever holds an [export](Blockchain::export) can check the chain alone: the format is `docs/chain-format.md`.

mod blockchain;

pub use blockchain::{Blockchain, Error, Options};
pub use liotbchain_core::{
    self as core, Block, BlockHash, Difficulty, Header, Height, KeyId, PublicKey, Rules, Transaction,
    TransactionId,
};
pub use liotbchain_node::{
    self as node, Acknowledgement, Fault, SealedBlock, Submission, TransferProgress, Transferred, Validation,
};
pub use liotbchain_sender::signer::{self, SigningKey};
pub use liotbchain_store::{self as store, NewTransaction, Place, Status, StoreError};
