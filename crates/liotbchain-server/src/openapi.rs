//! The description of the routes: what the handlers say, and an example that really verifies.

use utoipa::OpenApi;

use crate::receive::SignedItem;

/// What stands above the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "liotbchain receiver",
        description = "Takes lists of signed items, mines them into blocks, and shows the chain.",
    ),
    tags(
        (name = "chain", description = "Items in, blocks out."),
        (name = "operation", description = "For those who watch the process."),
    ),
)]
struct Description;

pub(crate) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// The key of RFC 8032, section 7.1, test 1. Everybody has its private half: it is for examples only.
pub(crate) const EXAMPLE_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";

/// Its private half, for tests.
#[cfg(test)]
pub(crate) const EXAMPLE_SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44,
    0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

/// The signature of the example, over the text that Python's `json.dumps` gives: pages that show the example write it
/// with other white space.
const EXAMPLE_SIGNATURE: &str =
    "0yTNkOInubxCMqpQiYwKgpXEb44Xctb0vZvcmQHHsv06oeZCesBROTa6s1/YudKlWieElOAMlnQiuMdgvsWoCg==";

/// Returns a list that the receiver takes as it stands.
pub(crate) fn example_items() -> Vec<SignedItem> {
    let data = serde_json::json!({"device": "Raspberry Pi 1", "distance": 79, "timestamp": 1795345747.15});
    vec![SignedItem {
        data,
        signature: EXAMPLE_SIGNATURE.to_owned(),
        public_key: EXAMPLE_PUBLIC_KEY.to_owned(),
    }]
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use liotbchain_core::PublicKey;

    use super::*;

    const EXAMPLE_TEXT: &str = r#"{"device": "Raspberry Pi 1", "distance": 79, "timestamp": 1795345747.15}"#;

    #[test]
    fn example_is_signed_by_the_key_of_rfc_8032() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&EXAMPLE_SEED).unwrap();
        let key = PublicKey::from_pem(EXAMPLE_PUBLIC_KEY).unwrap();
        assert!(key.spki_der().ends_with(pair.public_key().as_ref()));
        assert_eq!(STANDARD.encode(pair.sign(EXAMPLE_TEXT.as_bytes())), EXAMPLE_SIGNATURE);
    }
}
