//! A witness: cosigns the checkpoints of logs whose history only grows, by the protocol of
//! [c2sp.org/tlog-witness](https://c2sp.org/tlog-witness), and keeps the evidence where one does not.
//!
//! [`run`] is the whole program with its HTTP interface. A cosignature states that of this log no other history was
//! cosigned here, and where blocks are checked too that each of them holds every rule. It says nothing of what the
//! readings mean.
//!
//! Requests carry no token: the protocol has none, and what is taken is what a log signed that the operator named.

mod copy;
mod evidence;
mod follow;
mod http;
mod remote;
mod state;
mod submission;
mod witness;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use liotbchain_core::{
    BlockHash, NoteKey, NoteKeyKind, Policy, checkpoint::origin_of, note::NoteError, policy::PolicyError,
};
use liotbchain_http::{BindError, Edge, Limits, serve};
use liotbchain_sender::{KeyKind, SignerError, SigningKey};
use liotbchain_store::{OpenOptions, Store, StoreError, sqlite::SqliteStore};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};
use url::Url;

use crate::{copy::Copy, evidence::Folder, remote::Remote, state::State};

pub use evidence::{DOUBTS_MAX, EvidenceKind, FORKS_MAX, Filed};
pub use http::router;
pub use state::StateError;
pub use submission::BODY_SIZE_MAX;
pub use witness::{Counts, Log, Refusal, Witness};

/// The file of the key, in the data folder.
pub const KEY_FILE: &str = "witness_key.pem";
/// The file of the state, beside it.
pub const STATE_FILE: &str = "witness.db";
/// The folder of evidence, beside both.
const EVIDENCE_FOLDER: &str = "evidence";
/// Most bytes of a policy.
const POLICY_SIZE_MAX: u64 = 256 << 10;

/// What a witness needs to know.
#[derive(Debug)]
pub struct WitnessConfig {
    /// Where key, state and evidence are. Nobody else may use it at the same time.
    pub data_dir: PathBuf,
    /// The file that says which logs are followed.
    pub policy: PathBuf,
    /// The name of the key; without one it is made of the key.
    pub name: Option<String>,
    /// Whether blocks are checked too.
    pub validate: bool,
    /// How often the public checkpoints are looked at.
    pub poll: Duration,
    /// Who may use the HTTP interface. Its token is not asked for.
    pub edge: Edge,
    /// Connections that it takes at a time.
    pub connections_max: usize,
}

/// Why a witness cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The address is not to be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The key is not to be had.
    #[error(transparent)]
    Key(#[from] SignerError),
    /// The key's name cannot be one.
    #[error("WITNESS_NAME: {0}")]
    Name(NoteError),
    /// There is a key, and no state.
    #[error(
        "{key} is there, and {state} beside it is not: without knowing what it cosigned before, this key could cosign a fork"
    )]
    StateMissing {
        /// The key.
        key: String,
        /// The state.
        state: String,
    },
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The folder of evidence cannot be made.
    #[error("{path} cannot be made: {error}")]
    Folder {
        /// The folder.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// The policy cannot be read.
    #[error("WITNESS_POLICY={path} cannot be read: {error}")]
    PolicyFile {
        /// The file.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// The policy is none.
    #[error("WITNESS_POLICY={path}: {error}")]
    Policy {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: PolicyError,
    },
    /// The policy names no log.
    #[error("WITNESS_POLICY={0} names no log")]
    NoLog(String),
    /// An address that is none.
    #[error("WITNESS_POLICY: the address {url:?} of {origin} is no http:// or https:// address")]
    Address {
        /// The log.
        origin: String,
        /// What stands there.
        url: String,
    },
    /// Blocks are to be checked that are not to be had.
    #[error(
        "WITNESS_VALIDATE is set, and {0} is no chain with an address: its blocks cannot be checked, and a witness states \
         the same of all its logs"
    )]
    NotCheckable(String),
    /// A copy cannot be used.
    #[error("the copy of {origin}: {error}")]
    Copy {
        /// The log.
        origin: String,
        /// Why.
        error: StoreError,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Witness {
    /// Reads the policy, opens the state, the copies and the key, or makes them.
    ///
    /// # Errors
    ///
    /// [`WitnessError`].
    pub async fn open(config: &WitnessConfig) -> Result<Self, WitnessError> {
        let data_dir = &config.data_dir;
        let mut logs = read_logs(read_policy(&config.policy)?)?;
        if config.validate {
            logs.iter().try_for_each(|log| genesis_of(log).map(|_| ()))?;
        }
        let (key_file, state_file) = (data_dir.join(KEY_FILE), data_dir.join(STATE_FILE));
        if key_file.exists() && !state_file.exists() {
            let [key, state] = [key_file, state_file].map(|path| path.display().to_string());
            return Err(WitnessError::StateMissing { key, state });
        }
        // The state first: a key without one is refused above.
        let state = State::open(&state_file)?;
        let key = SigningKey::load_or_create(&key_file, KeyKind::Ed25519)?;
        let name = config.name.clone().unwrap_or_else(|| default_name(&key));
        let note_key = NoteKey::new(&name, NoteKeyKind::Cosigner, key.public_key().clone());
        let note_key = note_key.map_err(WitnessError::Name)?;
        let folder = data_dir.join(EVIDENCE_FOLDER);
        let path = folder.display().to_string();
        let folder = Folder::open(&folder).map_err(|error| WitnessError::Folder { path, error })?;
        if config.validate {
            for log in &mut logs {
                log.copy = Some(open_copy(data_dir, log).await?);
            }
        }
        let witness = Self::new(key, note_key, logs, state, folder);
        witness.complete_files().await;
        Ok(witness)
    }
}

fn default_name(key: &SigningKey) -> String {
    let key_id = key.public_key().key_id().to_string();
    format!("liotbchain-witness/{}", &key_id[..16])
}

fn read_policy(path: &Path) -> Result<Policy, WitnessError> {
    let shown = || path.display().to_string();
    let read = || -> io::Result<String> {
        if path.metadata()?.len() > POLICY_SIZE_MAX {
            return Err(io::Error::other(format!("it is larger than {POLICY_SIZE_MAX} bytes")));
        }
        std::fs::read_to_string(path)
    };
    let text = read().map_err(|error| WitnessError::PolicyFile { path: shown(), error })?;
    let policy = Policy::parse(&text).map_err(|error| WitnessError::Policy { path: shown(), error })?;
    if policy.logs.is_empty() {
        return Err(WitnessError::NoLog(shown()));
    }
    Ok(policy)
}

/// Puts the lines of one origin together: a log may have several keys.
fn read_logs(policy: Policy) -> Result<Vec<Log>, WitnessError> {
    let mut logs: Vec<Log> = Vec::new();
    for party in policy.logs {
        let origin = party.name;
        let remote = match party.url.filter(|_| !logs.iter().any(|log| log.origin == origin)) {
            None => None,
            Some(url) => Some(Remote::new(parse_url(&origin, &url)?)?),
        };
        match logs.iter_mut().find(|log| log.origin == origin) {
            Some(log) => log.keys.push(party.key),
            None => logs.push(Log { origin, keys: vec![party.key], remote, copy: None }),
        }
    }
    Ok(logs)
}

fn parse_url(origin: &str, url: &str) -> Result<Url, WitnessError> {
    let parsed =
        Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    parsed.ok_or_else(|| WitnessError::Address { origin: origin.to_owned(), url: url.to_owned() })
}

/// Returns which chain a log is of, and where its blocks are.
fn genesis_of(log: &Log) -> Result<(BlockHash, Remote), WitnessError> {
    let origin = &log.origin;
    let genesis = origin.strip_prefix("liotbchain/").and_then(|hash| hash.parse::<BlockHash>().ok());
    // A hash can be written in capitals too, an origin cannot.
    let genesis = genesis.filter(|genesis| origin_of(*genesis) == *origin).zip(log.remote.clone());
    genesis.ok_or_else(|| WitnessError::NotCheckable(origin.clone()))
}

async fn open_copy(data_dir: &Path, log: &Log) -> Result<Copy, WitnessError> {
    let origin = &log.origin;
    let (genesis, remote) = genesis_of(log)?;
    let path = data_dir.join(format!("witness-{genesis}.db"));
    let opened = SqliteStore::open(&path, &OpenOptions::default()).await;
    let store = opened.map_err(|error| WitnessError::Copy { origin: origin.clone(), error })?;
    let store: Arc<dyn Store> = Arc::new(store);
    Ok(Copy::new(store, remote, genesis))
}

/// Takes an address. No token is needed on a public one, since the protocol has none.
///
/// # Errors
///
/// [`BindError`].
pub async fn bind(edge: &Edge, address: SocketAddr) -> Result<TcpListener, BindError> {
    edge.bind_open(address, "WITNESS_LISTEN").await
}

/// Runs a witness until `shutdown` ends; requests in flight are then answered.
pub async fn run(
    witness: Witness,
    listener: TcpListener,
    config: WitnessConfig,
    shutdown: impl Future<Output = ()>,
) {
    let mut followers = JoinSet::new();
    for place in (0..witness.logs().len()).filter(|place| witness.logs()[*place].remote.is_some()) {
        followers.spawn(follow::follow(witness.clone(), place, config.poll));
    }
    let limits = Limits {
        connections_max: config.connections_max,
        body_size_max: BODY_SIZE_MAX,
        // Longer than a chain is checked for one request.
        shutdown_time: Duration::from_secs(30),
        ..Limits::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = serve(listener, router(witness.clone(), config.edge), limits, async { _ = stopped.await });
    let closer = async {
        shutdown.await;
        drop(stop);
    };
    tokio::join!(server, closer);
    followers.shutdown().await;
    witness.close().await;
}
