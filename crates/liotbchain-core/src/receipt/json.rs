//! The proof files' JSON: hashes that name something in hexadecimal, those of a path in base64.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{Anchor, BlockProof, Consistency, Entry, FILE_SIZE_MAX, KeyHistory, Path, ProvenBlock, Receipt};
use crate::{
    Height,
    checkpoint::parse_hash,
    codec::DecodeError,
    export::{LineTransaction, parse_header},
    hash::{BlockHash, KeyId},
    key::{PublicKey, PublicKeyError},
    note::{Note, NoteError},
    object::{Object, object, objects, present},
};

/// A proof file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofFile {
    /// That one transaction stands on a chain.
    Receipt(Box<Receipt>),
    /// That one block does.
    Block(Box<BlockProof>),
    /// That these are all transactions of a key.
    KeyHistory(Box<KeyHistory>),
    /// That a later history begins with an earlier one.
    Consistency(Box<Consistency>),
}

/// Why a text is no proof file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Larger than any proof needs to be.
    #[error("larger than {FILE_SIZE_MAX} bytes")]
    TooLarge,
    /// Not the JSON of a proof file.
    #[error("not a proof file: {0}")]
    Json(String),
    /// Another version of the format.
    #[error("version {got} of the proof file: expected 1")]
    Version {
        /// The version found.
        got: u32,
    },
    /// A header is not 118 bytes in hexadecimal, or of another version.
    #[error("header: {0}")]
    Header(#[from] DecodeError),
    /// A transaction is neither whole nor pruned.
    #[error("a transaction needs payload and signature in base64, or content_hash and pruned")]
    Transaction,
    /// The public key is not usable, or not written as the format writes it.
    #[error("public_key: {0}")]
    PublicKey(#[from] PublicKeyError),
    /// The public key is written in another way than the format writes it.
    #[error("public_key must be PEM in lines of 64 characters, with LF at their ends and nothing around it")]
    PublicKeyText,
    /// The checkpoint is no signed note.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] NoteError),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum FileJson<'a> {
    Receipt {
        version: u32,
        genesis: BlockHash,
        #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        public_key: Option<Cow<'a, str>>,
        #[serde(borrow, deserialize_with = "object")]
        block: BlockJson<'a>,
        #[serde(borrow, deserialize_with = "object")]
        anchor: AnchorJson<'a>,
    },
    Block {
        version: u32,
        genesis: BlockHash,
        #[serde(borrow, deserialize_with = "object")]
        block: BlockJson<'a>,
        #[serde(borrow, deserialize_with = "object")]
        anchor: AnchorJson<'a>,
    },
    KeyHistory {
        version: u32,
        genesis: BlockHash,
        key_id: KeyId,
        #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        public_key: Option<Cow<'a, str>>,
        from: Height,
        to: Height,
        #[serde(borrow, deserialize_with = "objects")]
        blocks: Vec<BlockJson<'a>>,
        #[serde(borrow, deserialize_with = "object")]
        anchor: AnchorJson<'a>,
    },
    Consistency {
        version: u32,
        genesis: BlockHash,
        #[serde(borrow, deserialize_with = "object")]
        from: AnchorJson<'a>,
        #[serde(borrow, deserialize_with = "object")]
        to: AnchorJson<'a>,
        path: Vec<Base64>,
        #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
        header_path: Option<Vec<Base64>>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnchorJson<'a> {
    size: u64,
    genesis_path: Vec<Base64>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    header: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockJson<'a> {
    #[serde(borrow)]
    header: Cow<'a, str>,
    transactions: u32,
    #[serde(borrow, deserialize_with = "objects")]
    entries: Vec<EntryJson<'a>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    history_path: Option<Vec<Base64>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryJson<'a> {
    position: u32,
    path: Vec<Base64>,
    #[serde(borrow, deserialize_with = "object")]
    transaction: LineTransaction<'a>,
}

/// A hash of a path.
#[derive(Debug)]
struct Base64([u8; 32]);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        parse_hash(&text).map(Self).ok_or_else(|| D::Error::custom("a hash of a path is 32 bytes in base64"))
    }
}

fn to_base64(path: &[[u8; 32]]) -> Vec<Base64> {
    path.iter().copied().map(Base64).collect()
}

fn to_path(path: Vec<Base64>) -> Path {
    path.into_iter().map(|Base64(hash)| hash).collect()
}

impl<'a> From<&'a Anchor> for AnchorJson<'a> {
    fn from(anchor: &'a Anchor) -> Self {
        Self {
            size: anchor.size,
            genesis_path: to_base64(&anchor.genesis_path),
            header: anchor.header.as_ref().map(|header| hex::encode(header.encode()).into()),
            checkpoint: anchor.checkpoint.as_ref().map(|note| note.to_string().into()),
        }
    }
}

impl TryFrom<AnchorJson<'_>> for Anchor {
    type Error = FileError;

    fn try_from(json: AnchorJson<'_>) -> Result<Self, FileError> {
        Ok(Self {
            size: json.size,
            genesis_path: to_path(json.genesis_path),
            header: json.header.map(|text| parse_header(&text)).transpose()?,
            checkpoint: json.checkpoint.map(|text| text.parse::<Note>()).transpose()?,
        })
    }
}

impl<'a> From<&'a ProvenBlock> for BlockJson<'a> {
    fn from(block: &'a ProvenBlock) -> Self {
        let entries = block.entries.iter().map(|entry| EntryJson {
            position: entry.position,
            path: to_base64(&entry.path),
            transaction: (&entry.transaction).into(),
        });
        Self {
            header: hex::encode(block.header.encode()).into(),
            transactions: block.transactions,
            entries: entries.collect(),
            history_path: block.history_path.as_deref().map(to_base64),
        }
    }
}

impl TryFrom<BlockJson<'_>> for ProvenBlock {
    type Error = FileError;

    fn try_from(json: BlockJson<'_>) -> Result<Self, FileError> {
        let entries = json.entries.into_iter().map(|entry| {
            let transaction = entry.transaction.into_transaction().ok_or(FileError::Transaction)?;
            Ok(Entry { position: entry.position, path: to_path(entry.path), transaction })
        });
        Ok(Self {
            header: parse_header(&json.header)?,
            transactions: json.transactions,
            entries: entries.collect::<Result<_, FileError>>()?,
            history_path: json.history_path.map(to_path),
        })
    }
}

fn to_pem(key: Option<&PublicKey>) -> Option<Cow<'static, str>> {
    key.map(|key| key.to_pem().into())
}

fn parse_pem(pem: Option<Cow<'_, str>>) -> Result<Option<PublicKey>, FileError> {
    let Some(pem) = pem else { return Ok(None) };
    let key = PublicKey::from_pem(&pem)?;
    if key.to_pem() == pem { Ok(Some(key)) } else { Err(FileError::PublicKeyText) }
}

impl ProofFile {
    /// Returns the JSON, in one line.
    pub fn to_json(&self) -> String {
        let json = match self {
            Self::Receipt(receipt) => FileJson::Receipt {
                version: 1,
                genesis: receipt.genesis,
                public_key: to_pem(receipt.public_key.as_ref()),
                block: (&receipt.block).into(),
                anchor: (&receipt.anchor).into(),
            },
            Self::Block(proof) => FileJson::Block {
                version: 1,
                genesis: proof.genesis,
                block: (&proof.block).into(),
                anchor: (&proof.anchor).into(),
            },
            Self::KeyHistory(history) => FileJson::KeyHistory {
                version: 1,
                genesis: history.genesis,
                key_id: history.key_id,
                public_key: to_pem(history.public_key.as_ref()),
                from: history.from,
                to: history.to,
                blocks: history.blocks.iter().map(BlockJson::from).collect(),
                anchor: (&history.anchor).into(),
            },
            Self::Consistency(consistency) => FileJson::Consistency {
                version: 1,
                genesis: consistency.genesis,
                from: (&consistency.from).into(),
                to: (&consistency.to).into(),
                path: to_base64(&consistency.path),
                header_path: consistency.header_path.as_deref().map(to_base64),
            },
        };
        serde_json::to_string(&json).expect("structs of text and numbers are JSON")
    }

    /// Reads a proof file. Nothing of it is checked but its form.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub fn parse(text: &str) -> Result<Self, FileError> {
        if text.len() > FILE_SIZE_MAX {
            return Err(FileError::TooLarge);
        }
        let Object(json) = serde_json::from_str::<Object<FileJson<'_>>>(text)
            .map_err(|error| FileError::Json(error.to_string()))?;
        Ok(match json {
            FileJson::Receipt { version: 1, genesis, public_key, block, anchor } => {
                let (block, anchor) = (block.try_into()?, anchor.try_into()?);
                Self::Receipt(Receipt { genesis, public_key: parse_pem(public_key)?, block, anchor }.into())
            }
            FileJson::Block { version: 1, genesis, block, anchor } => {
                let (block, anchor) = (block.try_into()?, anchor.try_into()?);
                Self::Block(BlockProof { genesis, block, anchor }.into())
            }
            FileJson::KeyHistory { version: 1, genesis, key_id, public_key, from, to, blocks, anchor } => {
                let public_key = parse_pem(public_key)?;
                let blocks: Result<_, _> = blocks.into_iter().map(ProvenBlock::try_from).collect();
                let (blocks, anchor) = (blocks?, anchor.try_into()?);
                Self::KeyHistory(KeyHistory { genesis, key_id, public_key, from, to, blocks, anchor }.into())
            }
            FileJson::Consistency { version: 1, genesis, from, to, path, header_path } => {
                let (from, to, path) = (from.try_into()?, to.try_into()?, to_path(path));
                let header_path = header_path.map(to_path);
                Self::Consistency(Consistency { genesis, from, to, path, header_path }.into())
            }
            FileJson::Receipt { version: got, .. }
            | FileJson::Block { version: got, .. }
            | FileJson::KeyHistory { version: got, .. }
            | FileJson::Consistency { version: got, .. } => return Err(FileError::Version { got }),
        })
    }
}
