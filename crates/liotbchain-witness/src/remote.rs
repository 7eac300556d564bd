//! What a witness asks of the receiver behind a log. Nothing that comes from there is trusted, or read without end.

use std::{error::Error, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{
    Bits, Block, BlockHash, Content, ContentHash, Header, Height, KeyId, PublicKey, Root, Statement,
    Transaction,
    note::NOTE_SIZE_MAX,
    receipt::{Consistency, ProofFile},
};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use url::{Host, Url};

/// Time for one answer, whole.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// Bytes of a page of blocks: a receiver ends a page at 128 KiB, but for its last block.
const PAGE_SIZE_MAX: usize = 64 << 20;
/// Bytes of a key: the longest PEM text is 2 kB.
const KEY_SIZE_MAX: usize = 16 << 10;
/// Bytes of a proof of consistency with what it ends in.
const PROOF_SIZE_MAX: usize = 2 * NOTE_SIZE_MAX + (64 << 10);

/// Why a receiver gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No answer came.
    #[error("{url} does not answer: {cause}")]
    Away {
        /// What was asked for.
        url: Url,
        /// What the system says.
        cause: String,
    },
    /// Another answer.
    #[error("{url} answers {status}")]
    Status {
        /// What was asked for.
        url: Url,
        /// The status.
        status: StatusCode,
    },
    /// An answer without end.
    #[error("{url} answers with more than {size_max} bytes")]
    TooLarge {
        /// What was asked for.
        url: Url,
        /// What is read of it.
        size_max: usize,
    },
    /// Another thing than what was asked for.
    #[error("{url} answers with something else: {reason}")]
    Form {
        /// What was asked for.
        url: Url,
        /// What is wrong with it.
        reason: String,
    },
}

/// A receiver.
#[derive(Debug, Clone)]
pub struct Remote {
    client: Client,
    url: Url,
}

#[derive(Deserialize)]
struct PageJson {
    blocks: Vec<BlockJson>,
}

#[derive(Deserialize)]
struct BlockJson {
    version: u16,
    prev_block_hash: BlockHash,
    transactions_root: Root,
    history_root: Root,
    height: Height,
    timestamp_ms: u64,
    bits: u32,
    nonce: u32,
    transactions: Vec<TransactionJson>,
}

#[derive(Deserialize)]
struct TransactionJson {
    key_id: KeyId,
    sequence: u64,
    payload: Option<String>,
    signature: Option<String>,
    content_hash: Option<ContentHash>,
}

#[derive(Deserialize)]
struct KeyJson {
    public_key: String,
}

impl TryFrom<BlockJson> for Block {
    type Error = &'static str;

    fn try_from(json: BlockJson) -> Result<Self, &'static str> {
        if json.version != Header::VERSION {
            return Err("a header of another version");
        }
        let transactions = json.transactions.into_iter().map(|it| {
            let key_id = it.key_id;
            let content = match (it.payload, it.signature, it.content_hash) {
                (Some(payload), Some(signature), None) => {
                    let signature = STANDARD.decode(signature).map_err(|_| "a signature is not base64")?;
                    Content::Full(Statement { key_id, payload, signature }.into())
                }
                (None, None, Some(content_hash)) => Content::Pruned { key_id, content_hash },
                _ => return Err("a transaction is neither whole nor pruned"),
            };
            Ok(Transaction { sequence: it.sequence, content })
        });
        let transactions = transactions.collect::<Result<_, _>>()?;
        let BlockJson { prev_block_hash, transactions_root, history_root, height, timestamp_ms, .. } = json;
        let (bits, nonce) = (Bits(json.bits), json.nonce);
        let header =
            Header { prev_block_hash, transactions_root, history_root, height, timestamp_ms, bits, nonce };
        Ok(Self { header, transactions })
    }
}

impl Remote {
    /// Sets up the way to a receiver.
    ///
    /// # Errors
    ///
    /// Where the system has no certificates, for example.
    pub fn new(url: Url) -> Result<Self, reqwest::Error> {
        let mut client = Client::builder()
            .user_agent(concat!("liotbchain-witness/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .timeout(ANSWER_TIME)
            // The policy says where to ask, and nobody else.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never());
        if is_on_this_machine(&url) {
            client = client.no_proxy();
        }
        Ok(Self { client: client.build()?, url })
    }

    /// Returns where it is.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns blocks from a height upwards, at most `limit`; none where there is none yet.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub async fn blocks(&self, from: Height, limit: u32) -> Result<Vec<Block>, RemoteError> {
        let mut url = self.below(&["v1", "blocks"]);
        url.query_pairs_mut()
            .append_pair("from", &from.to_string())
            .append_pair("limit", &limit.to_string())
            .append_pair("include", "transactions");
        let page: PageJson = self.json(url.clone(), PAGE_SIZE_MAX).await?;
        let blocks = page.blocks.into_iter().map(Block::try_from).collect::<Result<Vec<_>, _>>();
        blocks.map_err(|reason| RemoteError::Form { url, reason: reason.to_owned() })
    }

    /// Returns a public key.
    ///
    /// # Errors
    ///
    /// [`RemoteError`], also where it is another key than was asked for.
    pub async fn key(&self, key_id: KeyId) -> Result<PublicKey, RemoteError> {
        let url = self.below(&["v1", "keys", &key_id.to_string()]);
        let json: KeyJson = self.json(url.clone(), KEY_SIZE_MAX).await?;
        let key = PublicKey::from_pem(&json.public_key).map_err(|error| error.to_string());
        match key {
            Ok(key) if key.key_id() == key_id => Ok(key),
            Ok(key) => Err(RemoteError::Form { url, reason: format!("key {}", key.key_id()) }),
            Err(reason) => Err(RemoteError::Form { url, reason }),
        }
    }

    /// Returns the text of the newest checkpoint; none where the receiver makes none.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub async fn checkpoint(&self) -> Result<Option<String>, RemoteError> {
        let url = self.below(&["checkpoint"]);
        let Some(bytes) = self.get(url.clone(), NOTE_SIZE_MAX).await? else { return Ok(None) };
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|error| RemoteError::Form { url, reason: error.to_string() })
    }

    /// Returns the proof that leads from one size to another; none where the receiver makes none.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub async fn consistency(&self, from: u64, to: u64) -> Result<Option<Consistency>, RemoteError> {
        let mut url = self.below(&["v1", "proofs", "consistency"]);
        url.query_pairs_mut().append_pair("from", &from.to_string()).append_pair("to", &to.to_string());
        let Some(bytes) = self.get(url.clone(), PROOF_SIZE_MAX).await? else { return Ok(None) };
        let read = std::str::from_utf8(&bytes).map_err(|error| error.to_string());
        match read.and_then(|text| ProofFile::parse(text).map_err(|error| error.to_string())) {
            Ok(ProofFile::Consistency(consistency)) => Ok(Some(*consistency)),
            Ok(_) => Err(RemoteError::Form { url, reason: "another kind of proof".to_owned() }),
            Err(reason) => Err(RemoteError::Form { url, reason }),
        }
    }

    fn below(&self, words: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(words);
        }
        url
    }

    async fn json<T: DeserializeOwned>(&self, url: Url, size_max: usize) -> Result<T, RemoteError> {
        let status = StatusCode::NOT_FOUND;
        let bytes = self.get(url.clone(), size_max).await?;
        let bytes = bytes.ok_or_else(|| RemoteError::Status { url: url.clone(), status })?;
        serde_json::from_slice(&bytes).map_err(|error| RemoteError::Form { url, reason: error.to_string() })
    }

    /// Returns the body of a 200, none for a 404.
    async fn get(&self, url: Url, size_max: usize) -> Result<Option<Vec<u8>>, RemoteError> {
        let away = |error: reqwest::Error| RemoteError::Away { url: url.clone(), cause: root_cause(&error) };
        let mut answer = self.client.get(url.clone()).send().await.map_err(away)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(RemoteError::Status { url, status }),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > size_max {
                return Err(RemoteError::TooLarge { url, size_max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }
}

fn is_on_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Returns the innermost error, which says what the system said.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
