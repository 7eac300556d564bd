//! A reading that its device signed: `{payload, signature, public_key}`, where `payload` is a string that holds the text
//! that was signed, or `{data, signature, public_key}`, where `data` is a JSON value whose text as it stands in the
//! request was signed.
//!
//! The signature is verified at the door, since nobody is there to hear of a bad one once the receiver finds it. Text and
//! signature are forwarded untouched, so what stands beside them would be lost, and is refused.

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{PublicKey, Statement, VerifiedStatement, transaction::StatementError};

use crate::{
    fault::Fault,
    json_keys::JSON_DEPTH_MAX,
    json_text::{Kind, Tokens, ascii_spelling, shorten, unescape},
    members::Members,
    reading::{Body, DeviceName, Reading},
};

/// Digits of a key's id that name a device which says no name.
const KEY_DIGITS: usize = 16;

/// Verifies signatures of one request. Mostly one device sends a list, and reading its key costs as much as verifying
/// with it.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    latest: Option<(String, PublicKey)>,
}

impl Verifier {
    /// Returns the reading in the members of an object, if a device signed it. The device is the one given, else the
    /// `device` of the text that was signed, else it is named by its key.
    ///
    /// # Errors
    ///
    /// [`Fault`] where it looks signed and cannot be forwarded.
    pub(crate) fn verify(
        &mut self,
        members: &Members<'_>,
        device: Option<&DeviceName>,
    ) -> Result<Option<Reading>, Fault> {
        let Some(signature) = members.signature else { return Ok(None) };
        let Some(public_key) = members.public_key else {
            // A reading may have a `signature` of its own kind, but not all of what the receiver takes.
            let is_named = members.key_id.is_some() && (members.payload.is_some() || members.data.is_some());
            return if is_named { Err(Fault::KeyNotKnown) } else { Ok(None) };
        };
        let pem = decode_public_key(public_key)?;
        if let Some(key) = members.beside_signature {
            return Err(Fault::UnknownKey { key: shorten(&ascii_spelling(key)) });
        }
        if members.key_id.is_some() {
            return Err(Fault::UnknownKey { key: "key_id".to_owned() });
        }
        let payload = match (members.payload, members.data) {
            (Some(payload), None) => decode_payload(payload)?,
            (None, Some(data)) => data.to_owned(),
            (None, None) => return Err(Fault::MissingPayload),
            (Some(_), Some(_)) => return Err(Fault::PayloadAndData),
        };
        let signature = decode_signature(signature)?;
        let key = self.key(pem)?;
        let statement = Statement { key_id: key.key_id(), payload, signature };
        let verified = VerifiedStatement::verify(statement, &key).map_err(|error| match error {
            StatementError::Signature(error) => Fault::Signature(error),
            error => Fault::Statement(error),
        })?;
        let statement = Statement::clone(verified.statement());
        let said = read_payload(&statement.payload)?;
        let device = device.cloned().or_else(|| said.device().ok());
        let device = match device {
            Some(device) => device,
            None => DeviceName::new(&format!("key-{:.KEY_DIGITS$}", key.key_id().to_string()))?,
        };
        let identity = said.identity()?;
        Ok(Some(Reading { device, identity, body: Body::Signed(Box::new(statement), Box::new(key)) }))
    }

    fn key(&mut self, pem: String) -> Result<PublicKey, Fault> {
        if let Some((text, key)) = &self.latest
            && *text == pem
        {
            return Ok(key.clone());
        }
        let key = PublicKey::from_pem(&pem).map_err(Fault::PublicKey)?;
        self.latest = Some((pem, key.clone()));
        Ok(key)
    }
}

/// Reads what was signed, which the receiver takes only if every reader sees the same in it.
fn read_payload(payload: &str) -> Result<Members<'_>, Fault> {
    let mut tokens = Tokens::new(payload, JSON_DEPTH_MAX);
    let mut read = || {
        let Some(first) = tokens.next_token()? else { return Ok(Ok(Members::default())) };
        let members = Members::read(payload, &mut tokens, first)?;
        tokens.next_token()?;
        Ok(members)
    };
    read().map_err(Fault::PayloadNotJson)?
}

fn decode_payload(kind: Kind<'_>) -> Result<String, Fault> {
    let Kind::Text(content) = kind else { return Err(Fault::PayloadNotText { got: kind.describe() }) };
    Ok(unescape(content).ok_or(Fault::PayloadBroken)?.into_owned())
}

fn decode_signature(kind: Kind<'_>) -> Result<Vec<u8>, Fault> {
    let Kind::Text(content) = kind else { return Err(Fault::SignatureNotText { got: kind.describe() }) };
    let text = unescape(content).ok_or(Fault::Base64)?;
    // MIME encoders wrap their lines.
    let text = text.replace(|char: char| char.is_ascii_whitespace(), "");
    STANDARD.decode(text).map_err(|_| Fault::Base64)
}

fn decode_public_key(kind: Kind<'_>) -> Result<String, Fault> {
    let Kind::Text(content) = kind else { return Err(Fault::PublicKeyNotText) };
    let text = unescape(content).ok_or(Fault::PublicKeyNotText)?;
    // The label ends so for PKCS#8, encrypted PKCS#8, PKCS#1, SEC 1 and OpenSSH alike.
    match text.contains("PRIVATE KEY-----") {
        true => Err(Fault::PrivateKeySent),
        false => Ok(text.into_owned()),
    }
}
