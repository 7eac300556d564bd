//! `liotbchain demo`: receiver, sender and simulated devices in one process, and each block as it is mined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use liotbchain_core::{BlockHash, Height, Target, TimestampMs};
use liotbchain_http::{Edge, Limits};
use liotbchain_node::{Ledger, SealedBlock, now_ms};
use liotbchain_sender::{
    ForwardConfig, Job, KEY_FILE, Protocol, Receiver, Sender, SenderOptions, SigningKey,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use url::Url;

use crate::Failure;
use crate::chain_command::shorten;
use crate::output::{print, print_json_line, say, warn};
use crate::program::Program;
use crate::receiver_command::{OpenReceiver, edge, tell};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::utc::Utc;

/// Seconds between two lists of readings, each of which fills a block.
const INTERVAL_S: f64 = 2.0;

/// Runs the demo until somebody asks to stop.
///
/// # Errors
///
/// Where it cannot start, or nobody reads any more what it shows.
pub async fn run(settings: &Settings, program: &Program, json: bool) -> Result<(), Failure> {
    let key = SigningKey::load_or_create(&settings.data_dir.join(KEY_FILE), settings.sender_key)?;
    let listener = edge(settings).bind(settings.sender_listen, "SENDER_LISTEN").await?;
    let receiver = OpenReceiver::open(settings, receiver_edge(settings)).await?;
    let ledger = receiver.ledger.clone();
    let ran = run_open(settings, program, json, receiver, listener, key).await;
    ledger.shutdown().await;
    ran?;
    let (height, store) = (ledger.status().height, ledger.store().location());
    if json {
        return print_json_line(&Event::Stop { height, store });
    }
    say(format_args!("stopped at block {height}; the chain is kept in {store}, the next start goes on"));
    Ok(())
}

/// The sender in this process must reach the receiver, whatever names are allowed beside.
fn receiver_edge(settings: &Settings) -> Edge {
    let mut edge = edge(settings);
    if !edge.allowed_hosts.is_empty() {
        edge.allowed_hosts.push(loopback(settings.receiver_listen).ip().to_string());
    }
    edge
}

async fn run_open(
    settings: &Settings,
    program: &Program,
    json: bool,
    receiver: OpenReceiver,
    listener: TcpListener,
    key: SigningKey,
) -> Result<(), Failure> {
    let ledger = receiver.ledger.clone();
    let stop =
        Stop::on_signal().map_err(|error| Failure::failed(format!("no signal can be caught: {error}")))?;
    let receiver_url = format!("http://{}", loopback(receiver.address));
    let sender_url = format!("http://{}", loopback(listener.local_addr().unwrap_or(settings.sender_listen)));
    let start = Start {
        receiver: receiver_url.clone(),
        sender: sender_url,
        key_id: key.public_key().key_id().to_string(),
        algorithm: key.public_key().algorithm().to_string(),
        store: ledger.store().location(),
        network: ledger.rules().network.clone(),
        genesis: ledger.genesis(),
        height: ledger.status().height,
        pending: ledger.status().pending,
        difficulty: ledger.config().difficulty.digits(),
        expected_attempts: expected_attempts(&ledger),
    };
    let report = receiver.report().await;
    if json {
        report.warnings.iter().for_each(|warning| warn(warning, None));
        print_json_line(&Event::Start(start))?;
    } else {
        tell(&report);
        start.tell(program);
    }

    let token = settings.api_token.as_ref().map(|token| token.reveal());
    let url = Url::parse(&receiver_url).expect("an address and a port are a URL");
    let options = SenderOptions {
        data_dir: settings.data_dir.clone(),
        key,
        forward: ForwardConfig { receivers: vec![Receiver::new(url, token)?], protocol: Protocol::V1 },
        outbox: settings.outbox,
        mqtt: None,
    };
    let sender = Sender::open(options).await?;
    let limits = Limits {
        connections_max: settings.connections_max,
        body_size_max: liotbchain_sender::BODY_SIZE_MAX,
        ..Limits::default()
    };
    // The receiver goes on until the sender's last readings are answered.
    let (open, closed) = watch::channel(());
    let until_closed = |mut closed: watch::Receiver<()>| async move { _ = closed.changed().await };
    let OpenReceiver { _data_dir, listener: receiver_listener, config, .. } = receiver;
    let routes = liotbchain_sender::router(sender.clone(), edge(settings));
    let serving = [
        tokio::spawn(liotbchain_server::serve(
            config,
            ledger.clone(),
            receiver_listener,
            until_closed(closed.clone()),
        )),
        tokio::spawn(liotbchain_http::serve(listener, routes, limits, until_closed(closed))),
    ];

    let blocks = ledger.subscribe();
    sender.start(job(settings));
    let shown = tokio::select! {
        shown = show_blocks(blocks, json) => shown,
        () = stop.asked() => {
            if !json {
                say("stopping: what is on its way is waited for; Ctrl-C again ends at once");
            }
            Ok(())
        }
    };
    sender.close().await;
    drop(open);
    for server in serving {
        // A server that panicked has already said so.
        _ = server.await;
    }
    shown
}

/// Makes lists that fill a block, so that there is something to see.
fn job(settings: &Settings) -> Job {
    let items = u64::from(settings.transactions_per_block).min(settings.list_items_max as u64);
    Job::new(items, INTERVAL_S).expect("the settings allow no more items in a list than a job does")
}

/// Returns by what address this machine itself reaches a server.
fn loopback(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, address.port()).into()
}

fn expected_attempts(ledger: &Ledger) -> f64 {
    let target = Target::from_bits(ledger.config().difficulty.bits());
    target.expect("the bits of a difficulty encode a target").expected_attempts()
}

/// Shows blocks as they come. Ends only where they cannot be shown.
async fn show_blocks(mut blocks: broadcast::Receiver<SealedBlock>, json: bool) -> Result<(), Failure> {
    loop {
        match blocks.recv().await {
            Ok(block) if json => print_json_line(&Event::block(&block))?,
            Ok(block) => print(&line(&block, now_ms()))?,
            Err(RecvError::Lagged(missed)) => say(format_args!("{missed} more blocks, too fast to show")),
            // The ledger lives longer than this.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn line(block: &SealedBlock, now_ms: TimestampMs) -> String {
    let SealedBlock { height, hash, transactions, attempts } = block;
    let noun = if *transactions == 1 { "transaction " } else { "transactions" };
    let (hash, time) = (shorten(hash), Utc(now_ms).time_of_day());
    format!("block {height:>6}  {hash}  {transactions:>4} {noun}  {attempts:>8} attempts  {time}\n")
}

/// What a program is told, an object a line.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    Start(Start),
    Block { height: Height, hash: BlockHash, transactions: usize, attempts: u64, timestamp_ms: TimestampMs },
    Stop { height: Height, store: String },
}

impl Event {
    fn block(block: &SealedBlock) -> Self {
        let SealedBlock { height, hash, transactions, attempts } = *block;
        Self::Block { height, hash, transactions, attempts, timestamp_ms: now_ms() }
    }
}

#[derive(Serialize)]
struct Start {
    receiver: String,
    sender: String,
    key_id: String,
    algorithm: String,
    store: String,
    network: String,
    genesis: BlockHash,
    height: Height,
    pending: u64,
    difficulty: u8,
    expected_attempts: f64,
}

impl Start {
    /// Says what the receiver's own report does not.
    fn tell(&self, program: &Program) {
        let Self { receiver, sender, key_id, algorithm, height, .. } = self;
        say(format_args!("sender      {sender} (to try out: {sender}/apidocs/)"));
        say(format_args!("key         {algorithm} {key_id}"));
        say("");
        say(format_args!("look        curl {receiver}/get_chain"));
        say(format_args!("validate    {}", program.command("chain validate")));
        say(format_args!("export      {}", program.command("chain export --out chain.ndjson")));
        say("stop        Ctrl-C; the next start goes on");
        say("");
        match height {
            0 => say("a new chain begins:"),
            height => say(format_args!("the chain goes on after block {height}:")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_blocks_are_aligned() {
        let block = |height, transactions, attempts| {
            let hash = BlockHash([0xab; 32]);
            line(&SealedBlock { height, hash, transactions, attempts }, 1_795_355_762_000)
        };
        assert_eq!(
            block(7, 1, 391),
            "block      7  abababababababab…     1 transaction        391 attempts  13:56:02Z\n"
        );
        assert_eq!(block(7, 1, 391).len(), block(123_456, 8_000, 10_000_000).len());
    }

    #[test]
    fn reaches_a_server_on_every_network_by_loopback() {
        let shown = |text: &str| loopback(text.parse().unwrap()).to_string();
        assert_eq!(shown("0.0.0.0:5001"), "127.0.0.1:5001");
        assert_eq!(shown("[::]:5001"), "[::1]:5001");
        assert_eq!(shown("10.0.0.7:5001"), "10.0.0.7:5001");
    }
}
