//! `GET /v1/status`: what this receiver is and what it is at.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use liotbchain_core::{BlockHash, Height, SealRule, TimestampMs};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{health::sealing_name, state::Shared};

/// What this receiver is and what it is at.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct StatusJson {
    /// Version of the program.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Name of the network.
    #[schema(example = "liotbchain")]
    network: String,
    /// Hash of the genesis block: the network's identity.
    #[schema(value_type = String)]
    genesis: BlockHash,
    /// What holds on the whole network.
    rules: RulesJson,
    /// Height of the best chain.
    #[schema(value_type = u64)]
    height: Height,
    /// Hash of its last block.
    #[schema(value_type = String)]
    tip: BlockHash,
    /// The key that verifies this receiver's checkpoints, as programs for transparency logs read it; not there where it signs
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "liotbchain/<genesis hash>+5f2c9a01+AdcKa…")]
    log_key: Option<String>,
    /// Transactions that wait.
    pending: u64,
    /// What sealing is at: `idle`, `working`, `mining_failed`, `store_down`, or `elsewhere`, where another receiver on
    /// the same store seals.
    #[schema(example = "idle")]
    sealing: &'static str,
    /// Where the chain is kept.
    store: String,
    /// What this receiver chose.
    settings: SettingsJson,
    /// What it takes at once.
    limits: LimitsJson,
    /// Its clock, in milliseconds since 1970.
    #[schema(value_type = u64)]
    time_ms: TimestampMs,
}

/// What the genesis block says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rules)]
struct RulesJson {
    /// When a block is made: `on_count`, when enough transactions wait.
    #[schema(value_type = String, example = "on_count")]
    seal: SealRule,
    /// The least leading zero hexadecimal digits of a block's hash.
    difficulty: u8,
    /// Whether transactions without a signature are allowed.
    unsigned: bool,
    /// When the network was made, in milliseconds since 1970.
    #[schema(value_type = u64)]
    timestamp_ms: TimestampMs,
}

/// What a receiver chose.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Settings)]
struct SettingsJson {
    /// Transactions of a full block.
    #[schema(value_type = u64)]
    transactions_per_block: u32,
    /// Leading zero hexadecimal digits of the blocks to come.
    difficulty: u8,
    /// Attempts before mining a block is given up for now.
    nonce_limit: u64,
    /// Seconds that an answer waits for its blocks at most.
    seal_wait: f64,
}

/// What a receiver takes at once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReceiverLimits)]
struct LimitsJson {
    /// Bytes of a body, unpacked.
    body_size_max: usize,
    /// Transactions of a list.
    list_items_max: usize,
    /// Bytes of a payload.
    payload_size_max: usize,
    /// Transactions that may wait; above it new ones are refused.
    pending_max: u64,
}

/// Returns what this receiver is and what it is at. Asks nobody: it answers while the store is away.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "get_status",
    tag = "v1",
    responses((
        status = OK,
        description = "The state as of now.",
        body = StatusJson,
        headers(
            ("Accept-Encoding" = String, description = "What `POST /v1/transactions` reads: `gzip, zstd`."),
            ("Cache-Control" = String, description = "`no-store`."),
        ),
    )),
)]
pub(crate) async fn get_status(State(shared): State<Arc<Shared>>) -> Response {
    let (ledger, config) = (&shared.ledger, &shared.config);
    let (rules, chosen, now) = (ledger.rules(), ledger.config(), ledger.status());
    let status = StatusJson {
        version: env!("CARGO_PKG_VERSION"),
        network: rules.network.clone(),
        genesis: ledger.genesis(),
        rules: RulesJson {
            seal: rules.seal,
            difficulty: rules.difficulty.digits(),
            unsigned: rules.unsigned,
            timestamp_ms: rules.timestamp_ms,
        },
        height: now.height,
        tip: now.tip,
        log_key: shared.vouching.log_key(ledger).map(|key| key.to_string()),
        pending: now.pending,
        sealing: sealing_name(&now.sealing),
        store: ledger.store().location(),
        settings: SettingsJson {
            transactions_per_block: chosen.transactions_per_block,
            difficulty: chosen.difficulty.digits(),
            nonce_limit: chosen.nonce_limit,
            seal_wait: config.seal_wait.as_secs_f64(),
        },
        limits: LimitsJson {
            body_size_max: config.limits.body_size_max,
            list_items_max: config.list_items_max,
            payload_size_max: config.payload_size_max,
            pending_max: chosen.pending_max,
        },
        time_ms: now_ms(),
    };
    // As RFC 9110, section 12.5.3, lets a server say what may be sent to it compressed.
    let headers = [(header::ACCEPT_ENCODING, "gzip, zstd"), (header::CACHE_CONTROL, "no-store")];
    (headers, Json(status)).into_response()
}

/// A clock before 1970 is as wrong as one that says 1970.
fn now_ms() -> TimestampMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as TimestampMs)
}
