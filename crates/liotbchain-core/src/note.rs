//! Signed notes: text under the signatures of named keys, as [c2sp.org/signed-note](https://c2sp.org/signed-note) has them.
//!
//! ```text
//! what is signed
//!
//! — example.org/log Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeO…
//! ```
//!
//! Two kinds of key sign: that of a log over the text, and that of a cosigner over the text with a time
//! ([c2sp.org/tlog-cosignature](https://c2sp.org/tlog-cosignature)), both with Ed25519. No private key is ever seen here.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    hash::sha256,
    key::{Algorithm, PublicKey, PublicKeyError},
};

/// Most bytes of a note. Post-quantum signatures, which are passed over here, take nearly 5 kB each.
pub const NOTE_SIZE_MAX: usize = 128 << 10;
/// Most signatures of a note.
pub const SIGNATURES_MAX: usize = 64;
/// Most bytes of a key's name.
pub const NAME_SIZE_MAX: usize = 255;

/// Bytes of an Ed25519 signature.
const SIGNATURE_SIZE: usize = 64;
/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410, section 4).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a text is no signed note, or no key of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// More bytes or signatures than any note needs.
    #[error("the note has more than {NOTE_SIZE_MAX} bytes or {SIGNATURES_MAX} signatures")]
    TooLarge,
    /// Not a text, an empty line and signature lines.
    #[error("not a signed note: expected a text, an empty line, and lines of signatures, each ended by LF")]
    Form,
    /// A control character.
    #[error("the note holds a control character")]
    Control,
    /// A signature line that is none.
    #[error("line {line} of the signatures: expected \"— NAME BASE64\"")]
    SignatureLine {
        /// Counted from 1.
        line: usize,
    },
    /// A name that a key cannot have.
    #[error(
        "the name of a key must have 1 to {NAME_SIZE_MAX} bytes, and no space, plus or control character"
    )]
    Name,
    /// A text that is no verifier key.
    #[error("not a verifier key: expected NAME+HASH+BASE64")]
    Key,
    /// The hash in a verifier key is not that of its name and key.
    #[error("the verifier key says the hash {got}: its name and key give {expected}")]
    KeyHash {
        /// What stands there, in hexadecimal.
        got: String,
        /// What should.
        expected: String,
    },
    /// A key of a kind that nobody here verifies with.
    #[error("the verifier key is of type {0}: expected 1 (Ed25519) or 4 (Ed25519 cosignature)")]
    KeyType(u8),
    /// The key itself is not usable.
    #[error(transparent)]
    PublicKey(#[from] PublicKeyError),
    /// The note has no signature by a key.
    #[error("not signed by {0}")]
    NotSigned(String),
    /// A signature in the name of a key is not that key's.
    #[error(
        "the signature in the name of {0} does not verify: the note was changed, or the key is another one"
    )]
    BadSignature(String),
}

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteKeyKind {
    /// The text: a log's own key.
    Log,
    /// The text with a time: a witness's key.
    Cosigner,
}

impl NoteKeyKind {
    fn type_byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Cosigner => 4,
        }
    }
}

/// A named public key that verifies notes. Its text, `NAME+HASH+BASE64`, is called vkey in the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    kind: NoteKeyKind,
    key_hash: [u8; 4],
    public_key: PublicKey,
}

impl NoteKey {
    /// Names an Ed25519 key.
    ///
    /// # Errors
    ///
    /// [`NoteError::Name`], or [`NoteError::Key`] for a key of another algorithm.
    pub fn new(name: &str, kind: NoteKeyKind, public_key: PublicKey) -> Result<Self, NoteError> {
        check_name(name)?;
        if public_key.algorithm() != Algorithm::Ed25519 {
            return Err(NoteError::Key);
        }
        let raw = raw_key(&public_key);
        let hash = sha256(&[name.as_bytes(), b"\n", &[kind.type_byte()], raw]);
        let key_hash = [hash[0], hash[1], hash[2], hash[3]];
        Ok(Self { name: name.to_owned(), kind, key_hash, public_key })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what the key signs.
    pub fn kind(&self) -> NoteKeyKind {
        self.kind
    }

    /// Returns the public key without its name.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Returns the signature line's content for a signature by this key: of [`Note::text`] by a log, of
    /// [`cosigned_message`] at a time by a cosigner.
    pub fn signature(&self, time_s: Option<u64>, signature: &[u8]) -> NoteSignature {
        let time = time_s.map(u64::to_be_bytes);
        let bytes = time.iter().flatten().chain(signature).copied().collect();
        NoteSignature { name: self.name.clone(), key_hash: self.key_hash, bytes }
    }

    fn owns(&self, signature: &NoteSignature) -> bool {
        signature.name == self.name && signature.key_hash == self.key_hash
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.kind.type_byte()];
        key.extend(raw_key(&self.public_key));
        write!(f, "{}+{}+{}", self.name, hex::encode(self.key_hash), STANDARD.encode(key))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        // The key's base64 may hold a plus, the name may not.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let key = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
        let (kind, raw) = match key.split_first().ok_or(NoteError::Key)? {
            (1, raw) => (NoteKeyKind::Log, raw),
            (4, raw) => (NoteKeyKind::Cosigner, raw),
            (other, _) => return Err(NoteError::KeyType(*other)),
        };
        if raw.len() != 32 {
            return Err(NoteError::Key);
        }
        let key = Self::new(name, kind, PublicKey::from_spki_der(&[&ED25519_PREFIX, raw].concat())?)?;
        let expected = hex::encode(key.key_hash);
        if hash != expected {
            // Nobody needs more of a wrong hash than its beginning.
            return Err(NoteError::KeyHash { got: hash.chars().take(8).collect(), expected });
        }
        Ok(key)
    }
}

/// Returns the 32 bytes of an Ed25519 key, which its SubjectPublicKeyInfo ends with.
fn raw_key(public_key: &PublicKey) -> &[u8] {
    let spki = public_key.spki_der();
    &spki[spki.len() - 32..]
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let is_bad = |character: char| character.is_whitespace() || character.is_control() || character == '+';
    if name.is_empty() || name.len() > NAME_SIZE_MAX || name.contains(is_bad) {
        return Err(NoteError::Name);
    }
    Ok(())
}

/// One signature of a note, by whoever has the name and key that it states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    key_hash: [u8; 4],
    bytes: Vec<u8>,
}

impl NoteSignature {
    /// Returns the name that it states.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
        check_name(name).ok()?;
        let signature = STANDARD.decode(signature).ok()?;
        let (key_hash, bytes) = signature.split_first_chunk()?;
        if bytes.is_empty() {
            return None;
        }
        Some(Self { name: name.to_owned(), key_hash: *key_hash, bytes: bytes.to_vec() })
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "— {} {}", self.name, STANDARD.encode([&self.key_hash[..], &self.bytes].concat()))
    }
}

/// A text with signatures, none of which is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// Puts a signature under a text, which must end with LF.
    pub fn new(text: String, signature: NoteSignature) -> Self {
        Self { text, signatures: vec![signature] }
    }

    /// Returns the text, with the LF at its end: what a log signs.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the signatures, verified or not.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature, unless it is there or there are [`SIGNATURES_MAX`].
    pub fn add(&mut self, signature: NoteSignature) {
        if self.signatures.len() < SIGNATURES_MAX && !self.signatures.contains(&signature) {
            self.signatures.push(signature);
        }
    }

    /// Verifies that a log signed.
    ///
    /// # Errors
    ///
    /// [`NoteError::NotSigned`], [`NoteError::BadSignature`].
    pub fn verify(&self, key: &NoteKey) -> Result<(), NoteError> {
        let mut signatures = self.signatures.iter().filter(|it| key.owns(it)).peekable();
        if key.kind != NoteKeyKind::Log || signatures.peek().is_none() {
            return Err(NoteError::NotSigned(key.name.clone()));
        }
        let is_good = |it: &NoteSignature| key.public_key.verify(self.text.as_bytes(), &it.bytes).is_ok();
        if signatures.all(is_good) { Ok(()) } else { Err(NoteError::BadSignature(key.name.clone())) }
    }

    /// Verifies that a cosigner signed, and returns when it says it did, in seconds since the Unix epoch. Of several
    /// signatures the latest counts.
    ///
    /// # Errors
    ///
    /// [`NoteError::NotSigned`], [`NoteError::BadSignature`].
    pub fn verify_cosignature(&self, key: &NoteKey) -> Result<u64, NoteError> {
        let mut latest = None;
        for signature in self.signatures.iter().filter(|it| key.owns(it)) {
            let bad = || NoteError::BadSignature(key.name.clone());
            let (time_s, rest) = signature.bytes.split_first_chunk().ok_or_else(bad)?;
            let time_s = u64::from_be_bytes(*time_s);
            let message = cosigned_message(time_s, &self.text);
            if rest.len() != SIGNATURE_SIZE
                || time_s > i64::MAX as u64
                || key.public_key.verify(message.as_bytes(), rest).is_err()
            {
                return Err(bad());
            }
            latest = latest.max(Some(time_s));
        }
        latest
            .filter(|_| key.kind == NoteKeyKind::Cosigner)
            .ok_or_else(|| NoteError::NotSigned(key.name.clone()))
    }
}

/// Returns what a cosigner signs at a time, in seconds since the Unix epoch.
pub fn cosigned_message(time_s: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

/// Reads lines of signatures, as a witness answers with them.
///
/// # Errors
///
/// [`NoteError::TooLarge`], [`NoteError::Form`], [`NoteError::SignatureLine`].
pub fn parse_signatures(text: &str) -> Result<Vec<NoteSignature>, NoteError> {
    if text.len() > NOTE_SIZE_MAX {
        return Err(NoteError::TooLarge);
    }
    let lines = text.strip_suffix('\n').ok_or(NoteError::Form)?.split('\n');
    let parse = |(line, text)| NoteSignature::parse(text).ok_or(NoteError::SignatureLine { line });
    let signatures: Vec<_> =
        (1..).zip(lines).take(SIGNATURES_MAX + 1).map(parse).collect::<Result<_, _>>()?;
    if signatures.len() > SIGNATURES_MAX { Err(NoteError::TooLarge) } else { Ok(signatures) }
}

impl FromStr for Note {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_SIZE_MAX {
            return Err(NoteError::TooLarge);
        }
        if note.contains(|character: char| character < ' ' && character != '\n') {
            return Err(NoteError::Control);
        }
        // The signatures stand behind the last empty line; the text keeps the LF of its last line.
        let end = note.rfind("\n\n").ok_or(NoteError::Form)? + 1;
        let signatures = parse_signatures(&note[end + 1..])?;
        Ok(Self { text: note[..end].to_owned(), signatures })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification of Go's module checksum database, whose key and note are public.
    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
                           then you don't know what your problem is.\n\n\
                           — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn verifies_a_published_note() {
        let note: Note = GO_NOTE.parse().unwrap();
        let key: NoteKey = GO_KEY.parse().unwrap();
        note.verify(&key).unwrap();
        assert_eq!(note.to_string(), GO_NOTE);
        assert_eq!(key.to_string(), GO_KEY);
    }

    #[test]
    fn refuses_mutants_of_a_published_note() {
        let key: NoteKey = GO_KEY.parse().unwrap();
        let changed: Note = GO_NOTE.replace("answer", "Answer").parse().unwrap();
        assert_eq!(changed.verify(&key), Err(NoteError::BadSignature("PeterNeumann".into())));
        let longer: Note = GO_NOTE.replace("is.\n\n", "is.\nAnd more.\n\n").parse().unwrap();
        assert!(longer.verify(&key).is_err());
        let renamed: Note = GO_NOTE.replace("— Peter", "— Paul").parse().unwrap();
        assert_eq!(renamed.verify(&key), Err(NoteError::NotSigned("PeterNeumann".into())));
        let other_hash: Note = GO_NOTE.replace("x08go", "x18go").parse().unwrap();
        assert_eq!(other_hash.verify(&key), Err(NoteError::NotSigned("PeterNeumann".into())));
        // A good and a bad signature by one key: the note is not to be trusted.
        let signature = GO_NOTE.lines().last().unwrap();
        let twice = format!("{GO_NOTE}{}\n", signature.replace("ZJkuBS", "AJkuBS"));
        assert!(twice.parse::<Note>().unwrap().verify(&key).is_err());
    }

    #[test]
    fn refuses_what_is_no_note() {
        for (text, error) in [
            ("", NoteError::Form),
            ("a\n", NoteError::Form),
            ("a\n\n", NoteError::Form),
            ("a\n\n— b AAAAAAA=", NoteError::Form),
            ("a\r\n\n— b AAAAAAA=\n", NoteError::Control),
            ("a\n\n- b AAAAAAA=\n", NoteError::SignatureLine { line: 1 }),
            ("a\n\n— b AAAAAAA=\n— b+c AAAAAAA=\n", NoteError::SignatureLine { line: 2 }),
            ("a\n\n— b AAAA\n", NoteError::SignatureLine { line: 1 }),
            ("a\n\n— b AAAAAA==\n", NoteError::SignatureLine { line: 1 }),
            ("a\n\n— b AAAAAAB=\n", NoteError::SignatureLine { line: 1 }),
            ("a\n\n—  AAAAAAA=\n", NoteError::SignatureLine { line: 1 }),
        ] {
            assert_eq!(text.parse::<Note>(), Err(error), "{text:?}");
        }
        let many = format!("a\n\n{}", "— b AAAAAAA=\n".repeat(SIGNATURES_MAX + 1));
        assert_eq!(many.parse::<Note>(), Err(NoteError::TooLarge));
        assert_eq!("a".repeat(NOTE_SIZE_MAX + 1).parse::<Note>(), Err(NoteError::TooLarge));
    }

    #[test]
    fn refuses_keys_that_are_none() {
        for (text, error) in [
            ("PeterNeumann", NoteError::Key),
            ("PeterNeumann+c74f20a3", NoteError::Key),
            ("PeterNeumann+c74f20a3+", NoteError::Key),
            ("PeterNeumann+c74f20a3+ARpc", NoteError::Key),
            ("+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", NoteError::Name),
            ("Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", NoteError::Name),
            ("PeterNeumann+c74f20a3+Bhpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", NoteError::KeyType(6)),
            (
                "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                NoteError::KeyHash { got: "c74f20a4".into(), expected: "c74f20a3".into() },
            ),
        ] {
            assert_eq!(text.parse::<NoteKey>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_cosigner_is_no_log_and_a_log_no_cosigner() {
        let note: Note = GO_NOTE.parse().unwrap();
        let log: NoteKey = GO_KEY.parse().unwrap();
        let cosigner = NoteKey::new("PeterNeumann", NoteKeyKind::Cosigner, log.public_key.clone()).unwrap();
        assert!(note.verify(&cosigner).is_err());
        assert!(note.verify_cosignature(&log).is_err());
        assert_ne!(cosigner.key_hash, log.key_hash);
    }
}
