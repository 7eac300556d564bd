//! The description of the routes: what the handlers say, and an example that really verifies.

use liotbchain_core::{PublicKey, Statement};
use liotbchain_http::Problem;
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, Object, Ref, RefOr, Response, ResponseBuilder, path::Operation,
        schema::Type,
    },
};

use crate::{receive::SignedItem, v1::transactions::NewTransactionJson};

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
        (name = "v1", description = "The interface for programs."),
        (name = "log", description = "The chain as a transparency log, for programs that others wrote."),
    ),
    components(schemas(Problem<'static>)),
    // Its route is one with a wildcard, which the description cannot say.
    paths(crate::tlog::get_tile),
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

/// That text.
const EXAMPLE_TEXT: &str = r#"{"device": "Raspberry Pi 1", "distance": 79, "timestamp": 1795345747.15}"#;

/// Returns a list that the receiver takes as it stands.
pub(crate) fn example_items() -> Vec<SignedItem> {
    let data = serde_json::json!({"device": "Raspberry Pi 1", "distance": 79, "timestamp": 1795345747.15});
    vec![SignedItem {
        data,
        signature: EXAMPLE_SIGNATURE.to_owned(),
        public_key: EXAMPLE_PUBLIC_KEY.to_owned(),
    }]
}

/// Returns transactions that `POST /v1/transactions` takes as they stand: the same statement.
pub(crate) fn example_transactions() -> Vec<NewTransactionJson> {
    vec![NewTransactionJson {
        payload: EXAMPLE_TEXT.to_owned(),
        signature: EXAMPLE_SIGNATURE.to_owned(),
        public_key: Some(EXAMPLE_PUBLIC_KEY.to_owned()),
        key_id: None,
    }]
}

/// Returns the id of its transaction.
pub(crate) fn example_id() -> String {
    let statement =
        Statement { key_id: example_key().key_id(), payload: EXAMPLE_TEXT.to_owned(), signature: vec![] };
    statement.id().to_string()
}

/// Returns the id of its key.
pub(crate) fn example_key_id() -> String {
    example_key().key_id().to_string()
}

fn example_key() -> PublicKey {
    PublicKey::from_pem(EXAMPLE_PUBLIC_KEY).expect("it is of RFC 8032")
}

/// What the door may answer to any request below `/v1`: status, description, and whether only writes are told so.
const COMMON_ANSWERS: [(&str, &str, bool); 5] = [
    ("401", "`unauthorized`: the server asks for a token.", true),
    ("403", "`foreign_origin`: sent by a page of another server.", false),
    ("421", "`unknown_host`: the server is not known by the name in `Host`.", false),
    ("500", "`internal_error`: the server's log has the cause under `request_id`.", false),
    (
        "503",
        "`overloaded`, `store_unavailable` or `chain_moved`: try again after the seconds that `Retry-After` says.",
        false,
    ),
];

/// Adds to every route below `/v1` what the door may answer, unless the route says more of it.
pub(crate) fn add_common_answers(openapi: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut openapi.paths.paths {
        if path.starts_with("/v1/") {
            [&mut item.get, &mut item.head].into_iter().flatten().for_each(|it| add_answers(it, false));
            [&mut item.post, &mut item.put, &mut item.delete]
                .into_iter()
                .flatten()
                .for_each(|it| add_answers(it, true));
        }
    }
}

fn add_answers(operation: &mut Operation, writes: bool) {
    for (status, description, of_writes) in COMMON_ANSWERS {
        if !of_writes || writes {
            let answers = &mut operation.responses.responses;
            answers.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(status, description)));
        }
    }
}

fn problem(status: &str, description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
    let mut answer =
        ResponseBuilder::new().description(description).content("application/problem+json", content);
    let header = |name| {
        let schema = Object::with_type(Type::String);
        (name, HeaderBuilder::new().schema(Some(schema)).build())
    };
    if let Some((name, header)) = match status {
        "401" => Some(header("WWW-Authenticate")),
        "503" => Some(header("Retry-After")),
        _ => None,
    } {
        answer = answer.header(name, header);
    }
    answer.build()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use liotbchain_core::PublicKey;

    use super::*;

    #[test]
    fn example_is_signed_by_the_key_of_rfc_8032() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&EXAMPLE_SEED).unwrap();
        let key = PublicKey::from_pem(EXAMPLE_PUBLIC_KEY).unwrap();
        assert!(key.spki_der().ends_with(pair.public_key().as_ref()));
        assert_eq!(STANDARD.encode(pair.sign(EXAMPLE_TEXT.as_bytes())), EXAMPLE_SIGNATURE);
    }
}
