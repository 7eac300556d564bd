//! Public keys and what they signed: RSA (PSS), P-256 (ECDSA) and Ed25519.
//!
//! A key is its SubjectPublicKeyInfo in canonical DER, so that one key has one id. A DER reader that is strict and an
//! encoding back that must give the same bytes decide what is canonical.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PSS_2048_8192_SHA256, RsaPssSaltLength,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use curve25519_dalek::edwards::CompressedEdwardsY;
use spki::{
    ObjectIdentifier, SubjectPublicKeyInfoRef,
    der::{Decode, Encode, asn1::AnyRef},
};

use crate::hash::{KeyId, sha256};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// What a key is for: one algorithm each, so that no message can choose a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PSS with SHA-256 and MGF1-SHA-256, salt of 32 bytes or as long as fits.
    RsaPss {
        /// Bits of the modulus.
        bits: usize,
    },
    /// ECDSA over P-256 with SHA-256, strict DER.
    EcdsaP256,
    /// Ed25519, RFC 8032, one signature at a time.
    Ed25519,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaPss { bits } => write!(f, "RSA-{bits}"),
            Self::EcdsaP256 => f.write_str("P-256"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

/// Why bytes are not a public key of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// A private key was sent where a public one belongs.
    #[error(
        "a private key was given where a public key belongs: give the public key, and treat this private key as exposed"
    )]
    Private,
    /// No PEM block of a public key.
    #[error(
        "not a PEM public key: expected text between -----BEGIN PUBLIC KEY----- and -----END PUBLIC KEY-----"
    )]
    NotPem,
    /// The PEM block holds something other than base64.
    #[error("the PEM public key is not valid base64")]
    NotBase64,
    /// Not a SubjectPublicKeyInfo in DER.
    #[error("the public key is not a SubjectPublicKeyInfo in DER: {0}")]
    NotDer(spki::der::ErrorKind),
    /// The same key can be written in fewer or other bytes.
    #[error("the public key is not in canonical DER")]
    NotCanonical,
    /// Another algorithm.
    #[error("algorithm {0} is not supported: expected RSA, P-256 or Ed25519")]
    Algorithm(ObjectIdentifier),
    /// An elliptic curve other than P-256.
    #[error("the elliptic curve is not supported: expected P-256 (prime256v1)")]
    Curve,
    /// The modulus is too short, too long, or of a length that is no whole number of bytes.
    #[error("RSA modulus of {bits} bits: expected 2048 to 8192, a multiple of 8")]
    RsaBits {
        /// Bits of the modulus.
        bits: usize,
    },
    /// The public exponent is even, too small or too large.
    #[error("RSA exponent is out of range: expected an odd number from 65537 to 2^33 - 1")]
    RsaExponent,
    /// The point is compressed, at infinity, or of the wrong length.
    #[error("the P-256 point is not in uncompressed form: expected 65 bytes that start with 04")]
    PointForm,
    /// The bytes are no point of the curve.
    #[error("the public key is no point of its curve")]
    NotOnCurve,
    /// The point is of small order: it verifies signatures that nobody made.
    #[error("the Ed25519 key is of small order")]
    SmallOrder,
    /// The signature library refuses the key.
    #[error("the public key is not usable")]
    Unusable,
}

/// A signature is not of this payload by this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify under this {algorithm} key")]
pub struct SignatureError {
    /// What kind of key it was checked with.
    pub algorithm: Algorithm,
}

/// A public key that passed every check, ready to verify with. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    key_id: KeyId,
    spki: Vec<u8>,
    algorithm: Algorithm,
    /// For an RSA key with the longest salt that fits, which Python's `MAX_LENGTH` gives.
    parsed: ParsedPublicKey,
    /// For an RSA key, the other length of salt.
    digest_salt: Option<DigestSalt>,
}

/// The same RSA key with a salt as long as the digest.
///
/// The library verifies one length of salt at a time, and a key is used by one program, which always takes the same.
/// The length that was good last is therefore tried first, so that a signature costs one verification, not two.
#[derive(Default)]
struct DigestSalt {
    /// Made when it is first needed, since most keys need one of the two; none where the library refuses the key.
    parsed: OnceLock<Option<ParsedPublicKey>>,
    is_usual: AtomicBool,
}

impl DigestSalt {
    fn verify(&self, inner: &Inner, payload: &[u8], signature: &[u8]) -> bool {
        let digest_salt = || {
            let parse = || ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &inner.spki).ok();
            self.parsed
                .get_or_init(parse)
                .as_ref()
                .is_some_and(|it| it.verify_sig(payload, signature).is_ok())
        };
        let max_salt = || inner.parsed.verify_sig(payload, signature).is_ok();
        let is_usual = self.is_usual.load(Ordering::Relaxed);
        let usual = if is_usual { digest_salt() } else { max_salt() };
        if usual {
            return true;
        }
        let unusual = if is_usual { max_salt() } else { digest_salt() };
        if unusual {
            self.is_usual.store(!is_usual, Ordering::Relaxed);
        }
        unusual
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.0.algorithm, self.0.key_id)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key_id == other.0.key_id
    }
}

impl Eq for PublicKey {}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in canonical DER.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] says which rule of the format the key breaks.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let info = SubjectPublicKeyInfoRef::from_der(spki).map_err(not_der)?;
        if info.to_der().map_err(not_der)? != spki {
            return Err(PublicKeyError::NotCanonical);
        }
        let parameters = info.algorithm.parameters;
        let key = info.subject_public_key.as_bytes().ok_or(PublicKeyError::NotCanonical)?;
        let algorithm = match info.algorithm.oid {
            RSA_ENCRYPTION => check_rsa(parameters, key)?,
            EC_PUBLIC_KEY => check_p256(parameters, key)?,
            ED25519_OID => check_ed25519(parameters, key)?,
            other => return Err(PublicKeyError::Algorithm(other)),
        };
        let parse = |algorithm: &'static dyn signature::VerificationAlgorithm| {
            ParsedPublicKey::new(algorithm, spki).map_err(|_| match info.algorithm.oid {
                RSA_ENCRYPTION => PublicKeyError::Unusable,
                _ => PublicKeyError::NotOnCurve,
            })
        };
        let (parsed, digest_salt) = match algorithm {
            Algorithm::RsaPss { .. } => (parse(&RSA_PSS_MAX_SALT)?, Some(DigestSalt::default())),
            Algorithm::EcdsaP256 => (parse(&ECDSA_P256_SHA256_ASN1)?, None),
            Algorithm::Ed25519 => (parse(&ED25519)?, None),
        };
        let key_id = KeyId(sha256(&[spki]));
        Ok(Self(Arc::new(Inner { key_id, spki: spki.to_vec(), algorithm, parsed, digest_salt })))
    }

    /// Reads the first public key of a PEM text: `PUBLIC KEY`, or PKCS#1's `RSA PUBLIC KEY`.
    ///
    /// Line ends may be LF, CRLF or missing, and text around the block is passed over, since the clients of the Python
    /// original may send all of these.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] says what is wrong with text or key.
    pub fn from_pem(pem: &str) -> Result<Self, PublicKeyError> {
        if let Some(der) = pem_block(pem, "PUBLIC KEY")? {
            return Self::from_spki_der(&der);
        }
        if let Some(der) = pem_block(pem, "RSA PUBLIC KEY")? {
            let algorithm =
                spki::AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) };
            let subject_public_key = spki::der::asn1::BitStringRef::from_bytes(&der).map_err(not_der)?;
            let info = SubjectPublicKeyInfoRef { algorithm, subject_public_key };
            return Self::from_spki_der(&info.to_der().map_err(not_der)?);
        }
        Err(if pem.contains("PRIVATE KEY-----") { PublicKeyError::Private } else { PublicKeyError::NotPem })
    }

    /// Returns the key's id.
    pub fn key_id(&self) -> KeyId {
        self.0.key_id
    }

    /// Returns the SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki
    }

    /// Returns what the key is for.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Returns the key as PEM, in lines of 64 characters, with a line end after the last.
    pub fn to_pem(&self) -> String {
        let text = STANDARD.encode(&self.0.spki);
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = after;
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        pem
    }

    /// Verifies a signature over a payload.
    ///
    /// # Errors
    ///
    /// [`SignatureError`] where it is not of this payload by this key.
    pub fn verify(&self, payload: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let inner = &self.0;
        let good = match &inner.digest_salt {
            Some(digest_salt) => digest_salt.verify(inner, payload, signature),
            None => inner.parsed.verify_sig(payload, signature).is_ok(),
        };
        if good { Ok(()) } else { Err(SignatureError { algorithm: inner.algorithm }) }
    }
}

static RSA_PSS_MAX_SALT: signature::RsaParameters =
    RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

fn not_der(error: spki::der::Error) -> PublicKeyError {
    PublicKeyError::NotDer(error.kind())
}

fn check_rsa(parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<Algorithm, PublicKeyError> {
    if parameters != Some(AnyRef::NULL) {
        return Err(PublicKeyError::NotCanonical);
    }
    let rsa = pkcs1::RsaPublicKeyRef::from_der(key).map_err(not_der)?;
    if rsa.to_der().map_err(not_der)? != key {
        return Err(PublicKeyError::NotCanonical);
    }
    let modulus = rsa.modulus.as_bytes();
    let leading_zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - leading_zeros;
    if !(2048..=8192).contains(&bits) || !bits.is_multiple_of(8) {
        return Err(PublicKeyError::RsaBits { bits });
    }
    let exponent = rsa.public_exponent.as_bytes();
    if exponent.len() > 8 {
        return Err(PublicKeyError::RsaExponent);
    }
    let exponent = exponent.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    if exponent.is_multiple_of(2) || !(65_537..1 << 33).contains(&exponent) {
        return Err(PublicKeyError::RsaExponent);
    }
    Ok(Algorithm::RsaPss { bits })
}

fn check_p256(parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<Algorithm, PublicKeyError> {
    let curve = parameters.ok_or(PublicKeyError::Curve)?.decode_as::<ObjectIdentifier>();
    if curve != Ok(PRIME256V1) {
        return Err(PublicKeyError::Curve);
    }
    if key.len() != 65 || key[0] != 4 {
        return Err(PublicKeyError::PointForm);
    }
    Ok(Algorithm::EcdsaP256)
}

fn check_ed25519(parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<Algorithm, PublicKeyError> {
    // RFC 8410, section 3: the parameters must be absent.
    if parameters.is_some() {
        return Err(PublicKeyError::NotCanonical);
    }
    let encoded = CompressedEdwardsY::from_slice(key).map_err(|_| PublicKeyError::NotOnCurve)?;
    let point = encoded.decompress().ok_or(PublicKeyError::NotOnCurve)?;
    if point.is_small_order() {
        return Err(PublicKeyError::SmallOrder);
    }
    if point.compress() != encoded {
        return Err(PublicKeyError::NotCanonical);
    }
    Ok(Algorithm::Ed25519)
}

/// Returns the bytes of the first PEM block of this label.
fn pem_block(text: &str, label: &str) -> Result<Option<Vec<u8>>, PublicKeyError> {
    let Some((_, after)) = text.split_once(&format!("-----BEGIN {label}-----")) else {
        return Ok(None);
    };
    let Some((body, _)) = after.split_once(&format!("-----END {label}-----")) else {
        return Err(PublicKeyError::NotPem);
    };
    let body: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    STANDARD.decode(body).map(Some).map_err(|_| PublicKeyError::NotBase64)
}

#[cfg(test)]
mod tests;
