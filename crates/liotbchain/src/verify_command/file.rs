//! Files on their way in: what kind each is, whether it holds, and whether it fits what is known.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use liotbchain_core::{
    BlockHash, Checkpoint, Fork, Height, TransactionId,
    checkpoint::origin_of,
    export::{self, LINE_SIZE_MAX},
    fork::Verdict,
    hash::Root,
    note::Note,
    policy::Cosigned,
    receipt::{
        FILE_SIZE_MAX, ProofFile, ProvenAnchor, ProvenBlockProof, ProvenConsistency, ProvenKeyHistory,
        ProvenReceipt, Receipt, TLOG_PROOF_FIRST_LINE,
    },
};
use serde::Serialize;

use super::Known;
use crate::failure::Failure;

/// A file as it was read.
pub enum Read {
    /// A proof file, in either form.
    Proof(ProofFile),
    /// A checkpoint alone.
    Checkpoint(Note),
    /// What a witness kept of a log that showed two histories.
    Fork(Fork),
    /// An export, read and checked line by line.
    Export(Result<ProvenExport, String>),
    /// No file that anything here can read.
    Unknown(String),
}

/// What a file proves.
pub enum Proven {
    /// That a transaction stands on a chain.
    Receipt(Box<ProvenReceipt>, Box<Receipt>),
    /// That a block does.
    Block(ProvenBlockProof, Option<Note>),
    /// That these are all transactions of a key.
    KeyHistory(ProvenKeyHistory, Option<Note>),
    /// That one history goes on from another.
    Consistency(ProvenConsistency),
    /// Nothing by itself but what its signatures say.
    Checkpoint(Checkpoint, Note),
    /// That every rule holds from the first block to the last.
    Export(ProvenExport),
    /// That a log signed two histories, if the policy knows its key.
    Fork(Fork),
}

/// A whole chain.
#[derive(Debug, Serialize)]
pub struct ProvenExport {
    pub genesis: BlockHash,
    pub tip: BlockHash,
    pub height: Height,
    pub transactions: u64,
    /// Those whose signature could not be checked.
    pub pruned: u64,
    /// Root over as many blocks as somebody has a checkpoint of, if it has so many, else over all.
    #[serde(skip)]
    pub tree: (u64, Root),
}

/// What is to be said of one file.
#[derive(Serialize)]
pub struct Finding {
    pub file: String,
    /// Whether the file proves what it is for.
    pub holds: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genesis: Option<BlockHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<TransactionId>,
    /// Blocks in the history that the proof ends in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether a log of the policy signed the checkpoint that it ends in.
    pub signed_by_log: bool,
    /// Who cosigned it, of those that the policy names.
    pub cosigned_by: Vec<CosignedJson>,
    /// What a policy's log signed, where the file is evidence of a fork.
    #[serde(skip)]
    pub fork: Option<Verdict>,
    #[serde(skip)]
    pub proven: Option<Proven>,
}

#[derive(Serialize)]
pub struct CosignedJson {
    pub name: String,
    /// Seconds since 1970.
    pub time: u64,
}

/// Reads a text that is not larger than any of ours.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("{} cannot be read: {error}", path.display()));
    let mut text = String::new();
    open(path)?.take(FILE_SIZE_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(path)
        .map_err(|error| Failure::failed(format!("{} cannot be opened: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(opened)))
}

impl Read {
    /// Reads a file. Of an export the root over `size` blocks is kept, if that is given.
    pub fn of(path: &Path, size: Option<u64>) -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::failed(format!("{} cannot be read: {error}", path.display()));
        let mut input = open(path)?;
        let start = input.fill_buf().map_err(failed)?;
        // What an export begins with.
        if is_of_type(start, "chain") {
            return Ok(Self::Export(check_export(input, size)));
        }
        let mut bytes = Vec::new();
        input.take(FILE_SIZE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let Ok(text) = String::from_utf8(bytes) else {
            return Ok(Self::Unknown("it is not UTF-8".to_owned()));
        };
        Ok(if text.starts_with(TLOG_PROOF_FIRST_LINE) {
            match Receipt::parse_tlog_proof(&text) {
                Ok(receipt) => Self::Proof(ProofFile::Receipt(Box::new(receipt))),
                Err(error) => Self::Unknown(error.to_string()),
            }
        } else if is_of_type(text.as_bytes(), "fork") {
            Fork::parse(&text).map_or_else(|error| Self::Unknown(error.to_string()), Self::Fork)
        } else if text.trim_start().starts_with('{') {
            ProofFile::parse(&text).map_or_else(|error| Self::Unknown(error.to_string()), Self::Proof)
        } else {
            let unknown = |error| {
                Self::Unknown(format!("neither a proof file nor an export nor a checkpoint: {error}"))
            };
            text.parse::<Note>().map_or_else(unknown, Self::Checkpoint)
        })
    }

    pub fn verify(self) -> Result<Proven, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        match self {
            Self::Proof(ProofFile::Receipt(receipt)) => match receipt.verify() {
                Ok(proven) => Ok(Proven::Receipt(Box::new(proven), receipt)),
                Err(error) => Err(words(&error)),
            },
            Self::Proof(ProofFile::Block(proof)) => match proof.verify() {
                Ok(proven) => Ok(Proven::Block(proven, proof.anchor.checkpoint)),
                Err(error) => Err(words(&error)),
            },
            Self::Proof(ProofFile::KeyHistory(history)) => match history.verify() {
                Ok(proven) => Ok(Proven::KeyHistory(proven, history.anchor.checkpoint)),
                Err(error) => Err(words(&error)),
            },
            Self::Proof(ProofFile::Consistency(consistency)) => {
                consistency.verify().map(Proven::Consistency).map_err(|error| words(&error))
            }
            Self::Checkpoint(note) => match Checkpoint::of(&note) {
                Ok(checkpoint) => Ok(Proven::Checkpoint(checkpoint, note)),
                Err(error) => Err(words(&error)),
            },
            Self::Export(checked) => checked.map(Proven::Export),
            Self::Fork(fork) => Ok(Proven::Fork(fork)),
            Self::Unknown(reason) => Err(reason),
        }
    }
}

/// Whether the first line of a file is JSON of this type.
fn is_of_type(start: &[u8], kind: &str) -> bool {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    json.is_some_and(|json| json.get("type").is_some_and(|it| it == kind))
}

fn check_export(mut input: Box<dyn BufRead>, size: Option<u64>) -> Result<ProvenExport, String> {
    let mut reader = export::Reader::default();
    let (mut pruned, mut line, mut tree) = (0, 0u64, None);
    loop {
        line += 1;
        let mut text = String::new();
        let read = input.by_ref().take(LINE_SIZE_MAX as u64 + 1).read_line(&mut text);
        match read.map_err(|error| format!("line {line}: {error}"))? {
            0 => break,
            size if size > LINE_SIZE_MAX => return Err(format!("line {line} is longer than any block")),
            _ => {}
        }
        if let export::Read::Block(block) = reader.push(&text).map_err(|error| error.to_string())? {
            let header = block.header();
            if Some(u64::from(header.height)) == size {
                tree = Some((u64::from(header.height), header.history_root));
            }
            pruned += block.transactions().iter().filter(|it| it.statement().is_none()).count() as u64;
        }
    }
    let validator = reader.finish().map_err(|error| error.to_string())?;
    let branch = validator.branch().ok_or("it holds no block")?;
    Ok(ProvenExport {
        genesis: branch.genesis(),
        tip: branch.tip(),
        height: branch.height(),
        transactions: validator.transactions(),
        pruned,
        tree: tree.unwrap_or((branch.history().size(), branch.history_root())),
    })
}

/// Checks that a block is one of those that a known checkpoint could vouch for, and not the one above them.
fn covers(known: &Known, height: Height, anchor: &ProvenAnchor) -> Result<(), String> {
    if known.checkpoint.is_some() && u64::from(height) >= anchor.size {
        return Err(format!(
            "block {height} stands above the history of {} blocks that it ends in, and nothing vouches for it: get a newer file",
            anchor.size
        ));
    }
    Ok(())
}

impl Finding {
    pub fn new(file: String, proven: Result<Proven, String>, known: &Known) -> Self {
        let mut finding = Self {
            file,
            holds: false,
            refused: None,
            kind: None,
            genesis: None,
            transaction: None,
            size: None,
            signed_by_log: false,
            cosigned_by: Vec::new(),
            fork: None,
            proven: None,
        };
        match proven {
            Ok(proven) => {
                finding.refused = finding.look_at(&proven, known).err();
                finding.proven = Some(proven);
            }
            Err(reason) => finding.refused = Some(reason),
        }
        finding.holds = finding.refused.is_none();
        finding
    }

    fn look_at(&mut self, proven: &Proven, known: &Known) -> Result<(), String> {
        match proven {
            Proven::Receipt(proven, receipt) => {
                self.kind = Some("receipt");
                self.transaction = proven.id;
                covers(known, proven.block.height, &proven.anchor)?;
                self.look_at_anchor(proven.genesis, &proven.anchor, receipt.anchor.checkpoint.as_ref(), known)
            }
            Proven::Block(proven, note) => {
                self.kind = Some("block");
                covers(known, proven.block.height, &proven.anchor)?;
                self.look_at_anchor(proven.genesis, &proven.anchor, note.as_ref(), known)
            }
            Proven::KeyHistory(proven, note) => {
                self.kind = Some("key_history");
                covers(known, proven.last.unwrap_or(0), &proven.anchor)?;
                self.look_at_anchor(proven.genesis, &proven.anchor, note.as_ref(), known)
            }
            Proven::Consistency(proven) => {
                self.kind = Some("consistency");
                self.genesis = Some(proven.genesis);
                self.size = Some(proven.to.size);
                // It may be one of several that lead to the checkpoint, but it must not contradict it.
                for anchor in [&proven.from, &proven.to] {
                    known.contradict(proven.genesis, anchor).map_or(Ok(()), Err)?;
                }
                Ok(())
            }
            Proven::Checkpoint(checkpoint, note) => {
                self.kind = Some("checkpoint");
                self.size = Some(checkpoint.size);
                self.check_policy(note, known)?;
                let genesis =
                    checkpoint.origin.strip_prefix("liotbchain/").and_then(|hash| hash.parse().ok());
                let genesis = genesis.filter(|genesis| origin_of(*genesis) == checkpoint.origin);
                let Some(genesis) = genesis else {
                    return match known.genesis.is_some() || known.checkpoint.is_some() {
                        true => Err(format!("it is of another log: {}", checkpoint.origin)),
                        false => Ok(()),
                    };
                };
                self.genesis = Some(genesis);
                let (size, root) = (checkpoint.size, checkpoint.root);
                let anchor = ProvenAnchor { size, root, block: None, checkpoint: Some(checkpoint.clone()) };
                known.refuse(genesis, &anchor).map_or(Ok(()), Err)
            }
            Proven::Fork(fork) => {
                self.kind = Some("fork");
                let origin = Checkpoint::of(&fork.first).map_err(|error| error.to_string())?.origin;
                let Some(policy) = &known.policy else { return Ok(()) };
                let log = policy.logs.iter().find(|log| log.key.name() == origin);
                let log = log.ok_or_else(|| format!("the policy names no log {origin}"))?;
                self.fork = Some(fork.verify(&log.key).map_err(|error| error.to_string())?);
                Ok(())
            }
            Proven::Export(proven) => {
                self.kind = Some("export");
                self.genesis = Some(proven.genesis);
                self.size = Some(u64::from(proven.height) + 1);
                let (size, root) = proven.tree;
                let anchor = ProvenAnchor { size, root, block: None, checkpoint: None };
                known.refuse(proven.genesis, &anchor).map_or(Ok(()), Err)
            }
        }
    }

    fn look_at_anchor(
        &mut self,
        genesis: BlockHash,
        anchor: &ProvenAnchor,
        note: Option<&Note>,
        known: &Known,
    ) -> Result<(), String> {
        self.genesis = Some(genesis);
        self.size = Some(anchor.size);
        if let Some(refusal) = known.refuse(genesis, anchor) {
            return Err(refusal);
        }
        match (note, &known.policy) {
            (Some(note), Some(_)) => self.check_policy(note, known),
            (None, Some(_)) => {
                Err("it ends in a header alone, which nobody signed: the policy asks for a signed checkpoint"
                    .to_owned())
            }
            (_, None) => Ok(()),
        }
    }

    fn check_policy(&mut self, note: &Note, known: &Known) -> Result<(), String> {
        let Some(policy) = &known.policy else { return Ok(()) };
        let vouched = policy.check(note).map_err(|error| error.to_string())?;
        self.signed_by_log = vouched.by_log;
        let cosigned = vouched.cosigned.into_iter();
        self.cosigned_by =
            cosigned.map(|Cosigned { name, time_s }| CosignedJson { name, time: time_s }).collect();
        Ok(())
    }
}
