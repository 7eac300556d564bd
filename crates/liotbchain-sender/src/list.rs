//! A list of signed readings, written down once: a repeated list must be the same bytes, or the receiver would take it
//! for a new one.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::signer::SigningKey;

/// A list as it is posted.
#[derive(Debug, Clone)]
pub(crate) struct List {
    /// Readings in it.
    pub items: usize,
    /// The JSON of the request.
    pub body: Bytes,
}

/// One reading as the receiver takes it. `data` is the signed text itself, not a value that would be written anew.
#[derive(Serialize)]
struct Item<'a> {
    data: Box<RawValue>,
    signature: String,
    public_key: &'a str,
}

impl List {
    /// Signs readings, each a JSON text.
    ///
    /// # Errors
    ///
    /// Where a text is not JSON.
    pub fn sign(readings: Vec<String>, key: &SigningKey) -> Result<Self, serde_json::Error> {
        let public_key = key.public_key().to_pem();
        let items = readings.into_iter().map(|text| {
            let signature = STANDARD.encode(key.sign(text.as_bytes()));
            Ok(Item { data: RawValue::from_string(text)?, signature, public_key: &public_key })
        });
        let items = items.collect::<Result<Vec<_>, serde_json::Error>>()?;
        Ok(Self { items: items.len(), body: serde_json::to_vec(&items)?.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::KeyKind;

    #[test]
    fn sends_the_signed_text_as_it_was_signed() {
        let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
        let text = r#"{"b": 1.50,  "a": "\u00e9"}"#;
        let list = List::sign(vec![text.to_owned(), "1e400".to_owned()], &key).unwrap();
        assert_eq!(list.items, 2);
        let body = std::str::from_utf8(&list.body).unwrap();
        assert!(body.starts_with(&format!(r#"[{{"data":{text},"signature":""#)), "{body}");
        let items: Vec<serde_json::Map<_, _>> = serde_json::from_str(&body.replace("1e400", "0")).unwrap();
        assert_eq!(items[0].keys().collect::<Vec<_>>(), ["data", "public_key", "signature"]);
        let signature = STANDARD.decode(items[0]["signature"].as_str().unwrap()).unwrap();
        assert_eq!(key.public_key().verify(text.as_bytes(), &signature), Ok(()));
        assert_eq!(items[0]["public_key"], key.public_key().to_pem());
    }

    #[test]
    fn refuses_what_is_not_json() {
        let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
        assert!(List::sign(vec!["{".to_owned()], &key).is_err());
    }
}
