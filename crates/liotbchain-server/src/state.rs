//! What the routes of a receiver share.

use std::{sync::Arc, time::Duration};

use axum::Router;
use liotbchain_core::Policy;
use liotbchain_http::{Edge, Limits};
use liotbchain_node::{CheckpointSigner, Ledger};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    items,
    key_cache::KeyCache,
    load::Load,
    metrics::Metrics,
    router::router,
    v1::{bounds::Bounds, events::Events},
    validate::Validating,
    vouching::Vouching,
};

/// What a receiver is told by its settings.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// Who may talk to it.
    pub edge: Edge,
    /// What one connection may take.
    pub limits: Limits,
    /// Bytes of a payload, at most 65,536.
    pub payload_size_max: usize,
    /// Items in a list.
    pub list_items_max: usize,
    /// How long an answer waits for blocks that the request filled.
    pub seal_wait: Duration,
    /// Signs checkpoints, if anybody does.
    pub signer: Option<CheckpointSigner>,
    /// Which witnesses are asked to cosign them, and how many must have before one is shown.
    pub witnesses: Option<Policy>,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            edge: Edge::default(),
            limits: Limits::default(),
            payload_size_max: 65_536,
            list_items_max: 8_000,
            seal_wait: Duration::from_secs(5),
            signer: None,
            witnesses: None,
        }
    }
}

impl ReceiverConfig {
    pub(crate) fn item_limits(&self) -> items::Limits {
        items::Limits { items_max: self.list_items_max, payload_size_max: self.payload_size_max }
    }
}

/// A receiver of one ledger. Cheap to clone; all clones are one receiver.
#[derive(Clone)]
pub struct Receiver(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) config: ReceiverConfig,
    pub(crate) ledger: Ledger,
    pub(crate) keys: KeyCache,
    pub(crate) load: Load,
    pub(crate) bounds: Bounds,
    pub(crate) validating: Validating,
    pub(crate) events: Events,
    /// Set once the receiver shuts down, for answers that would not end by themselves.
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) metrics: Metrics,
    pub(crate) vouching: Vouching,
    /// Ends with the receiver.
    _counting: JoinSet<()>,
}

impl Receiver {
    /// Makes a receiver. Must be called within a tokio runtime, since a task counts the ledger's blocks.
    pub fn new(config: ReceiverConfig, ledger: Ledger) -> Self {
        let metrics = Metrics::default();
        let mut counting = JoinSet::new();
        counting.spawn(metrics.clone().count_blocks(ledger.subscribe()));
        let connections_max = config.limits.connections_max;
        Self(Arc::new(Shared {
            load: Load::new(config.limits.body_size_max),
            bounds: Bounds::new(config.limits.body_size_max),
            vouching: Vouching::new(config.signer.clone(), config.witnesses.clone()),
            config,
            ledger,
            keys: KeyCache::default(),
            validating: Validating::default(),
            events: Events::new(connections_max),
            stopping: watch::Sender::new(false),
            metrics,
            _counting: counting,
        }))
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }

    /// Ends the answers that would go on for ever. New ones end at once.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// Returns all routes, behind the checks at the door. [`liotbchain_http::serve`] must serve them: it keeps the
    /// limits.
    pub fn router(&self) -> Router {
        router(Arc::clone(&self.0))
    }
}
