//! `liotbchain receiver`: takes readings until it is asked to stop.

use std::net::SocketAddr;

use liotbchain_core::{Difficulty, Policy};
use liotbchain_http::{Edge, Limits, Token};
use liotbchain_node::{CheckpointSigner, Ledger, LedgerConfig};
use liotbchain_server::{ReceiverConfig, StartReport, start_report};
use tokio::net::TcpListener;

use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use crate::open_files;
use crate::opening::open_store;
use crate::operator_key;
use crate::output::{say, warn};
use crate::settings::{LogFormat, Settings};
use crate::stop::Stop;

/// Serves a chain until somebody asks to stop.
///
/// # Errors
///
/// Where it cannot start. Once it runs it goes on: while the store is away, requests are told so.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let receiver = OpenReceiver::open(settings, edge(settings)).await?;
    let stop =
        Stop::on_signal().map_err(|error| Failure::failed(format!("no signal can be caught: {error}")))?;
    let report = receiver.report().await;
    match (settings.log_format, &settings.log_file) {
        (LogFormat::Text, None) => tell(&report),
        // The log tells the warnings here too.
        (LogFormat::Text, Some(_)) => {
            report.lines.iter().for_each(say);
            report.log();
        }
        (LogFormat::Json, _) => report.log(),
    }
    let OpenReceiver { _data_dir, listener, config, ledger, .. } = receiver;
    let asked = async {
        stop.asked().await;
        tracing::info!("stopping: no new requests, those in flight are answered");
    };
    liotbchain_server::serve(config, ledger.clone(), listener, asked).await;
    ledger.shutdown().await;
    tracing::info!(height = ledger.status().height, pending = ledger.status().pending, "stopped");
    Ok(())
}

/// A receiver that has all it needs and is not served yet. Its ledger is to be shut down.
pub struct OpenReceiver {
    /// Taken as long as the receiver lives.
    pub _data_dir: DataDir,
    pub listener: TcpListener,
    pub address: SocketAddr,
    pub config: ReceiverConfig,
    pub ledger: Ledger,
}

impl OpenReceiver {
    /// Takes folder and port, opens the store and its chain, or makes a chain.
    pub async fn open(settings: &Settings, edge: Edge) -> Result<Self, Failure> {
        let data_dir = DataDir::take(&settings.data_dir)?;
        let holder = data_dir.holder()?;
        // Before the chain: a port that is taken must not leave a new chain behind.
        let listener = edge.bind(settings.receiver_listen, "RECEIVER_LISTEN").await?;
        let address = listener.local_addr().unwrap_or(settings.receiver_listen);
        let mut config = receiver_config(settings, edge);
        (config.signer, config.witnesses) = (Some(signer(settings)?), witnesses(settings)?);
        let store = open_store(settings).await?;
        let ledger = match Ledger::open(store.clone(), ledger_config(settings, holder)).await {
            Ok(ledger) => ledger,
            Err(error) => {
                store.close().await;
                return Err(error.into());
            }
        };
        Ok(Self { _data_dir: data_dir, listener, address, config, ledger })
    }

    /// Returns what there is to say at the start.
    pub async fn report(&self) -> StartReport {
        let mut report = start_report(&self.ledger, self.address).await;
        if let Some(signer) = &self.config.signer {
            report.lines.push(format!("log key     {}", signer.key(self.ledger.genesis())));
        }
        report
    }
}

/// Tells people what there is to say at the start.
pub fn tell(report: &StartReport) {
    report.lines.iter().for_each(say);
    report.warnings.iter().for_each(|warning| warn(warning, None));
}

/// Returns who may use a server.
pub fn edge(settings: &Settings) -> Edge {
    Edge {
        allowed_hosts: settings.allowed_hosts.clone().unwrap_or_default(),
        api_token: settings.api_token.as_ref().map(|token| Token::new(token.reveal())),
    }
}

/// Returns what signs checkpoints.
fn signer(settings: &Settings) -> Result<CheckpointSigner, Failure> {
    let key = operator_key::load_or_create(settings)?;
    let public_key = key.public_key().clone();
    CheckpointSigner::new(public_key, move |text| key.sign(text))
        .map_err(|error| Failure::failed(error.to_string()))
}

/// Returns which witnesses are asked to cosign.
fn witnesses(settings: &Settings) -> Result<Option<Policy>, Failure> {
    let Some(path) = &settings.witness_policy else { return Ok(None) };
    let named = || format!("WITNESS_POLICY: {}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("{} cannot be read: {error}", named())))?;
    let policy =
        Policy::parse(&text).map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", named())))?;
    Ok(Some(policy))
}

fn receiver_config(settings: &Settings, edge: Edge) -> ReceiverConfig {
    ReceiverConfig {
        edge,
        limits: Limits {
            connections_max: open_files::make_room(settings.connections_max),
            body_size_max: settings.body_size_max,
            ..Limits::default()
        },
        payload_size_max: settings.payload_size_max,
        list_items_max: settings.list_items_max,
        seal_wait: settings.seal_wait,
        signer: None,
        witnesses: None,
    }
}

fn ledger_config(settings: &Settings, holder: String) -> LedgerConfig {
    LedgerConfig {
        transactions_per_block: settings.transactions_per_block,
        difficulty: Difficulty::new(settings.difficulty.into())
            .expect("the table of settings has the same range"),
        nonce_limit: settings.nonce_limit,
        mining_threads: settings.mining_threads,
        block_max_age: settings.block_max_age,
        pending_max: settings.pending_max,
        network: settings.network_name.clone(),
        holder,
        ..LedgerConfig::default()
    }
}
