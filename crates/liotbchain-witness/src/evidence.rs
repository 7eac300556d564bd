//! What is kept against a log, in the database and as files that can be handed on.
//!
//! Who can make a witness keep something? A fork, two roots of one size, takes the log's key, and the first of them stay.
//! A wrong proof takes none: whoever has a newer checkpoint that the log signed can hand it in with a proof of their own.
//! Such doubts are kept once for each pair of checkpoints, apart from the forks, and make room for newer ones.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use liotbchain_core::{Fork, Note};
use serde::Serialize;

/// Proven forks that are kept of each log; the first stay.
pub const FORKS_MAX: u64 = 1_000;
/// Other pieces of each kind that are kept of each log; the newest stay.
pub const DOUBTS_MAX: u64 = 100;
/// Most bytes of the block in a piece of evidence.
const BLOCK_SIZE_MAX: usize = 256 << 10;

/// What a piece of evidence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceKind {
    /// The log signed two roots of one size.
    Fork,
    /// A proof that did not hold, between two checkpoints that the log signed.
    Doubt,
    /// The chain behind a checkpoint breaks a rule, or is another one.
    Invalid,
}

impl EvidenceKind {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Doubt => "doubt",
            Self::Invalid => "invalid",
        }
    }

    /// Reads its name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Fork, Self::Doubt, Self::Invalid].into_iter().find(|kind| kind.name() == name)
    }
}

/// A piece of evidence that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The log.
    pub origin: String,
    /// What it shows.
    pub kind: EvidenceKind,
    /// Of what was signed.
    pub digest: [u8; 32],
    /// Why it was kept, in words.
    pub reason: String,
    /// The file.
    pub json: String,
}

/// A piece of evidence that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filed {
    /// Counts all of them.
    pub number: u64,
    /// The log.
    pub origin: String,
    /// What it shows.
    pub kind: EvidenceKind,
    /// When it was kept, in seconds since the Unix epoch.
    pub kept_s: u64,
    /// Why, in words.
    pub reason: String,
    /// The pieces that made room for it.
    pub removed: Vec<u64>,
}

/// A file of a chain that does not hold what its log signed.
#[derive(Serialize)]
struct InvalidJson<'a> {
    r#type: &'static str,
    version: u32,
    checkpoint: String,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<&'a str>,
}

impl Evidence {
    /// Returns what two roots of one size show.
    pub fn of_fork(origin: &str, fork: &Fork, size: u64) -> Self {
        let reason = format!("the log signed two roots of size {size}");
        Self::of_pair(EvidenceKind::Fork, origin, fork, reason)
    }

    /// Returns what a proof that does not hold shows.
    pub fn of_doubt(origin: &str, fork: &Fork, reason: String) -> Self {
        Self::of_pair(EvidenceKind::Doubt, origin, fork, reason)
    }

    fn of_pair(kind: EvidenceKind, origin: &str, fork: &Fork, reason: String) -> Self {
        // Signatures and proofs can be written in more ways than one, the texts cannot.
        let digest = digest_of(&[kind.name(), origin, fork.first.text(), fork.second.text()]);
        Self { origin: origin.to_owned(), kind, digest, reason, json: fork.to_json() }
    }

    /// Returns what a chain shows that breaks a rule, or that is not the one that was signed. The block stands in the file
    /// unless it is too large.
    pub fn of_invalid(origin: &str, signed: &Note, reason: String, block: Option<&str>) -> Self {
        let block = block.filter(|block| block.len() <= BLOCK_SIZE_MAX);
        let json = InvalidJson {
            r#type: "invalid",
            version: 1,
            checkpoint: signed.to_string(),
            reason: &reason,
            block,
        };
        let json = serde_json::to_string(&json).expect("a struct of text and numbers is JSON");
        let digest = digest_of(&["invalid", origin, signed.text(), &reason]);
        Self { origin: origin.to_owned(), kind: EvidenceKind::Invalid, digest, reason, json }
    }
}

/// Hashes texts, each with its length before it, so that none can pass for the end of another.
fn digest_of(texts: &[&str]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl Filed {
    /// Returns the name of its file.
    pub fn file_name(&self) -> String {
        file_name(&self.origin, self.number)
    }
}

fn file_name(origin: &str, number: u64) -> String {
    let hash = digest::digest(&digest::SHA256, origin.as_bytes());
    format!("{}-{number}.json", hex::encode(&hash.as_ref()[..8]))
}

/// The folder of the files.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it where it is missing.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self(path.to_owned()))
    }

    /// Returns where a file is.
    pub fn path_of(&self, filed: &Filed) -> PathBuf {
        self.0.join(filed.file_name())
    }

    /// Writes a file that is not there yet, and takes away those that made room for it.
    ///
    /// # Errors
    ///
    /// Where it cannot be written; the database has it all the same, and the next start tries again.
    pub fn write(&self, filed: &Filed, json: &str) -> io::Result<PathBuf> {
        let path = self.path_of(filed);
        if !path.exists() {
            // The name appears with the whole content behind it, or not at all.
            let unfinished = path.with_extension("new");
            let mut file = fs::File::create(&unfinished)?;
            file.write_all(json.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
        }
        for number in &filed.removed {
            match fs::remove_file(self.0.join(file_name(&filed.origin, *number))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(path)
    }
}
