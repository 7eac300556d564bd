//! The five kinds of hash, each a type of its own, so that none can be taken for another.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

/// Returns SHA-256 of the parts joined together.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A text that is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: expected 64 hexadecimal digits, got {length} characters")]
pub struct ParseHashError {
    /// How many characters the text has.
    pub length: usize,
}

/// Writes a hash in hexadecimal without allocating: every answer to a list holds two a transaction.
fn with_digits<T>(hash: &[u8; 32], write: impl FnOnce(&str) -> T) -> T {
    let mut digits = [0; 64];
    hex::encode_to_slice(hash, &mut digits).expect("32 bytes are 64 digits");
    write(std::str::from_utf8(&digits).expect("hexadecimal digits are ASCII"))
}

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// 32 zero bytes.
            pub const ZERO: Self = Self([0; 32]);

            /// Returns the bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                with_digits(&self.0, |digits| f.write_str(digits))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseHashError;

            fn from_str(text: &str) -> Result<Self, ParseHashError> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| ParseHashError { length: text.chars().count() })?;
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                with_digits(&self.0, |digits| serializer.serialize_str(digits))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                // One hash has one text where programs write it; people may type capitals.
                if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(serde::de::Error::custom("a hash is written in lower case"));
                }
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hash_type!(
    /// Names a block: SHA-256 of its header.
    BlockHash
);
hash_type!(
    /// Names a transaction, whoever signed it and however often.
    TransactionId
);
hash_type!(
    /// Names a public key: SHA-256 of its SubjectPublicKeyInfo in DER. Zero where a transaction is unsigned.
    KeyId
);
hash_type!(
    /// Stands for payload and signature in a Merkle leaf, so that both can be dropped later.
    ContentHash
);
hash_type!(
    /// Root of a Merkle tree.
    Root
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_upper_case_is_read() {
        let hash = BlockHash([0xab; 32]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
    }

    #[test]
    fn refuses_text_of_another_length() {
        assert_eq!("ab".parse::<BlockHash>(), Err(ParseHashError { length: 2 }));
        assert!("zz".repeat(32).parse::<BlockHash>().is_err());
    }
}
