//! The key that signs readings: made once, kept in a file only its owner can read, used ever after.
//!
//! The file is PKCS#8 PEM, so `openssl pkey -in sender_key.pem -pubout` shows the public key. A damaged file is never
//! overwritten: whoever signs with another key is another sender to everybody who reads the chain.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    error::Unspecified,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PSS_SHA256, RsaKeyPair,
        RsaPssSaltLength, RsaSignatureEncoding,
    },
};
use liotbchain_core::{PublicKey, PublicKeyError};
use pem_rfc7468::LineEnding;

/// Name of the key file in the data folder.
pub const KEY_FILE: &str = "sender_key.pem";

const PEM_LABEL: &str = "PRIVATE KEY";
/// The longest key that may sign, RSA-8192, takes 6.4 KB of PEM.
const KEY_FILE_SIZE_MAX: u64 = 16 << 10;

/// The longest salt that fits: 222 bytes for 2048 bits. It is the one the Python original sends.
static RSA_PSS_MAX_SALT: RsaSignatureEncoding = RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// What kind of key signs. `Display` and `FromStr` use the words of the setting `SENDER_KEY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519, RFC 8032.
    Ed25519,
    /// RSASSA-PSS with SHA-256; 2048 bits when made here. The only kind the Python original's receiver takes.
    Rsa,
    /// ECDSA over P-256 with SHA-256.
    P256,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
            Self::P256 => "p256",
        })
    }
}

/// A text that names no kind of key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such kind of key: expected ed25519, rsa or p256, got {0}")]
pub struct ParseKeyKindError(String);

impl FromStr for KeyKind {
    type Err = ParseKeyKindError;

    fn from_str(text: &str) -> Result<Self, ParseKeyKindError> {
        match text {
            "ed25519" => Ok(Self::Ed25519),
            "rsa" => Ok(Self::Rsa),
            "p256" => Ok(Self::P256),
            _ => Err(ParseKeyKindError(text.to_owned())),
        }
    }
}

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "path and source are what they say")]
pub enum SignerError {
    /// The folder of the key file cannot be made.
    #[error(
        "cannot make the folder {folder} for the sender's key: {source}; set DATA_DIR to a folder you may write in"
    )]
    Folder { folder: PathBuf, source: io::Error },
    /// The key file cannot be read.
    #[error("cannot read the sender's key {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// The key file cannot be written.
    #[error("cannot write the sender's key {path}: {source}; set DATA_DIR to a folder you may write in")]
    Write { path: PathBuf, source: io::Error },
    /// The file holds no key that can sign.
    #[error(
        "{path} is not a usable private key: {fault}; it is left as it is. Put it back from a copy, or move it away \
         and a new key is made, under which this sender is a new one to everybody"
    )]
    Damaged { path: PathBuf, fault: KeyFault },
    /// The file holds a key of another kind than the settings ask for.
    #[error(
        "{path} holds a key of kind {found}, and SENDER_KEY asks for {wanted}: set SENDER_KEY={found}, or move the \
         file away and a new key is made, under which this sender is a new one to everybody"
    )]
    OtherKind { path: PathBuf, found: KeyKind, wanted: KeyKind },
    /// There is a key already where one was to be made.
    #[error("{path} exists and is left as it is: move it away to make a new key")]
    Exists { path: PathBuf },
    /// The system has no random numbers, or no memory.
    #[error("cannot make a key: the signature library gave no reason")]
    Generate,
}

/// What is wrong with the text of a private key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// More than any key needs.
    #[error("it is larger than {KEY_FILE_SIZE_MAX} bytes")]
    TooLarge,
    /// No PEM text.
    #[error("it is not PEM ({0})")]
    NotPem(pem_rfc7468::Error),
    /// Another PEM block: an encrypted or older form of key, or no private key at all.
    #[error(
        "it holds a PEM block {0:?} instead of {PEM_LABEL:?} (`openssl pkcs8 -topk8 -nocrypt` converts older forms)"
    )]
    Label(String),
    /// The DER in it is broken, or of a kind that nobody here signs with.
    #[error("it is not an unencrypted PKCS#8 key of Ed25519, RSA or P-256")]
    NotPkcs8,
    /// A key whose public half a chain would refuse.
    #[error("no chain takes its public key: {0}")]
    Refused(PublicKeyError),
}

/// A private key that signs, with its public half.
pub struct SigningKey {
    pair: Pair,
    public_key: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public_key)
    }
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// [`SignerError::Generate`] where the signature library fails.
    pub fn generate(kind: KeyKind) -> Result<Self, SignerError> {
        let pair = match kind {
            KeyKind::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519),
            KeyKind::Rsa => RsaKeyPair::generate(KeySize::Rsa2048).map(Pair::Rsa),
            KeyKind::P256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Pair::P256),
        };
        let pair = pair.map_err(|_| SignerError::Generate)?;
        Self::new(pair).map_err(|_| SignerError::Generate)
    }

    /// Reads a key from its PEM text.
    ///
    /// # Errors
    ///
    /// [`KeyFault`] says what is wrong with it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyFault> {
        let (label, der) = pem_rfc7468::decode_vec(pem.trim_ascii()).map_err(KeyFault::NotPem)?;
        if label != PEM_LABEL {
            return Err(KeyFault::Label(label.to_owned()));
        }
        let pair = Ed25519KeyPair::from_pkcs8(&der)
            .map(Pair::Ed25519)
            .or_else(|_| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).map(Pair::P256))
            .or_else(|_| RsaKeyPair::from_pkcs8(&der).map(Pair::Rsa))
            .map_err(|_| KeyFault::NotPkcs8)?;
        Self::new(pair)
    }

    fn new(pair: Pair) -> Result<Self, KeyFault> {
        let spki: Result<PublicKeyX509Der<'static>, Unspecified> = match &pair {
            Pair::Ed25519(pair) => pair.public_key().as_der(),
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::P256(pair) => pair.public_key().as_der(),
        };
        let spki = spki.map_err(|_| KeyFault::NotPkcs8)?;
        let public_key = PublicKey::from_spki_der(spki.as_ref()).map_err(KeyFault::Refused)?;
        Ok(Self { pair, public_key })
    }

    /// Reads the key of a file, and warns where others than its owner may read it too.
    ///
    /// # Errors
    ///
    /// [`SignerError::Read`] or [`SignerError::Damaged`].
    pub fn load(path: &Path) -> Result<Self, SignerError> {
        let pem = read_bounded(path).map_err(|source| SignerError::Read { path: path.to_owned(), source })?;
        warn_if_shared(path);
        let key = pem.ok_or(KeyFault::TooLarge).and_then(|pem| Self::from_pem(&pem));
        key.map_err(|fault| SignerError::Damaged { path: path.to_owned(), fault })
    }

    /// Makes a key and its file, which must not exist yet.
    ///
    /// # Errors
    ///
    /// [`SignerError::Exists`] where there is one, others where it cannot be made.
    pub fn create(path: &Path, kind: KeyKind) -> Result<Self, SignerError> {
        let key = Self::generate(kind)?;
        key.save(path)?;
        Ok(key)
    }

    /// Reads the key of a file, or makes one if there is no file. Of two who do this at the same moment both get the
    /// same key.
    ///
    /// # Errors
    ///
    /// [`SignerError::OtherKind`] where the file's key is not of this kind, others where it cannot be read or made.
    pub fn load_or_create(path: &Path, kind: KeyKind) -> Result<Self, SignerError> {
        let key = match Self::load(path) {
            Err(SignerError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                match Self::create(path, kind) {
                    Err(SignerError::Exists { .. }) => Self::load(path)?,
                    created => created?,
                }
            }
            loaded => loaded?,
        };
        if key.kind() == kind {
            return Ok(key);
        }
        Err(SignerError::OtherKind { path: path.to_owned(), found: key.kind(), wanted: kind })
    }

    /// Writes the key to a file that does not exist yet. The name appears with the whole content behind it or not at
    /// all, and is on the disk when this returns.
    fn save(&self, path: &Path) -> Result<(), SignerError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        make_private_folder(folder)
            .map_err(|source| SignerError::Folder { folder: folder.to_owned(), source })?;
        let pem = self.to_pem()?;
        let write = || -> Result<(), io::Error> {
            // Made with mode 0600.
            let mut file = tempfile::Builder::new().prefix(".sender_key").tempfile_in(folder)?;
            file.write_all(pem.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist_noclobber(path).map_err(|error| error.error)?;
            // The name is on the disk once its folder is.
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SignerError::Exists { path: path.to_owned() },
            _ => SignerError::Write { path: path.to_owned(), source },
        })
    }

    /// Returns the key as PKCS#8 PEM. This is the secret itself.
    fn to_pem(&self) -> Result<String, SignerError> {
        let der = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map(|document| document.as_ref().to_vec()),
            Pair::P256(pair) => pair.to_pkcs8v1().map(|document| document.as_ref().to_vec()),
            Pair::Rsa(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair).map(|der| der.as_ref().to_vec()),
        };
        let der = der.map_err(|_| SignerError::Generate)?;
        pem_rfc7468::encode_string(PEM_LABEL, LineEnding::LF, &der).map_err(|_| SignerError::Generate)
    }

    /// Returns what kind of key it is.
    pub fn kind(&self) -> KeyKind {
        match self.pair {
            Pair::Ed25519(_) => KeyKind::Ed25519,
            Pair::Rsa(_) => KeyKind::Rsa,
            Pair::P256(_) => KeyKind::P256,
        }
    }

    /// Returns the public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Signs a payload. RSA and P-256 draw random numbers, so two signatures of one payload differ.
    pub fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(payload).map(|signature| signature.as_ref().to_vec()),
            Pair::P256(pair) => pair.sign(&random, payload).map(|signature| signature.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PSS_MAX_SALT, &random, payload, &mut signature).map(|()| signature)
            }
        };
        signature.expect("a key that was made or checked at reading signs any payload while there is memory")
    }
}

fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(KEY_FILE_SIZE_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= KEY_FILE_SIZE_MAX).then_some(bytes))
}

#[cfg(unix)]
fn make_private_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_private_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(unix)]
fn warn_if_shared(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        tracing::warn!(
            "the private key {path} has mode {mode:04o}, so others can read or change it: chmod 600 {path}"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_: &Path) {}

#[cfg(test)]
mod tests;
