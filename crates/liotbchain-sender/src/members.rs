//! One JSON value read to its end: whether it is unambiguous, and those of its members that the gateway looks at.

use liotbchain_core::transaction::PAYLOAD_SIZE_MAX;

use crate::{
    fault::Fault,
    json_keys::{DuplicateKey, KeyWatch},
    json_text::{JsonError, Kind, Token, Tokens, ascii_spelling, unescape},
    reading::{DeviceName, IDENTITY_SIZE_MAX, READING_DEPTH_MAX},
};

/// Bytes that a member takes beside its key: quotes, colon, a value and a comma.
const MEMBER_SIZE_MIN: usize = 5;
/// Bytes of members after which an item is too large for a record, whoever signs it: a text that is signed, and the four
/// keys around it, written in escapes.
const MEMBERS_SIZE_MAX: usize = PAYLOAD_SIZE_MAX + 1024;

/// A value, and the members that have a meaning where it is an object.
#[derive(Debug, Default)]
pub(crate) struct Members<'a> {
    /// The whole value as it stands there.
    pub(crate) text: &'a str,
    pub(crate) device: Option<Kind<'a>>,
    pub(crate) reading_id: Option<Kind<'a>>,
    pub(crate) counter: Option<Kind<'a>>,
    pub(crate) payload: Option<Kind<'a>>,
    /// As it stands there.
    pub(crate) data: Option<&'a str>,
    pub(crate) signature: Option<Kind<'a>>,
    pub(crate) public_key: Option<Kind<'a>>,
    pub(crate) key_id: Option<Kind<'a>>,
    /// The first key that stands in no item that a device signed.
    pub(crate) beside_signature: Option<&'a str>,
    /// The first byte that lies deeper than a record can hold.
    pub(crate) too_deep: Option<usize>,
}

impl<'a> Members<'a> {
    /// Reads on to the end of the value that `first` begins. A key that stands twice is a fault of the value, and what
    /// follows it is read all the same. Keys are remembered only for as long as the value may still fit into a record:
    /// those of 4 MiB would take ten times as much.
    ///
    /// # Errors
    ///
    /// [`JsonError`], where the rest of the text is at fault.
    pub(crate) fn read(
        text: &'a str,
        tokens: &mut Tokens<'a>,
        first: Token<'a>,
    ) -> Result<Result<Self, Fault>, JsonError> {
        let mut members = Self::default();
        let (mut keys, mut twice) = (Some(KeyWatch::default()), None);
        let mut members_size = 0;
        // The key whose value comes next, and the levels that are open.
        let (mut member, mut depth) = (None, 0_usize);
        let mut token = first;
        loop {
            if let Kind::Key(key) = token.kind {
                members_size += key.len() + MEMBER_SIZE_MIN;
                if members_size > MEMBERS_SIZE_MAX {
                    keys = None;
                }
            }
            if let Some(Err(DuplicateKey { key })) = keys.as_mut().map(|keys| keys.see(token.kind))
                && twice.is_none()
            {
                twice = Some(Fault::DuplicateKey { key, at: tokens.position(token.start) });
            }
            match token.kind {
                Kind::Key(key) if depth == 1 => member = Some((key, None)),
                _ => {
                    if let Some((_, value @ None)) = &mut member {
                        *value = Some(token);
                    }
                    match token.kind {
                        Kind::ObjectStart | Kind::ArrayStart => {
                            depth += 1;
                            if depth > READING_DEPTH_MAX && members.too_deep.is_none() {
                                members.too_deep = Some(token.start);
                            }
                        }
                        Kind::ObjectEnd | Kind::ArrayEnd => depth -= 1,
                        _ => {}
                    }
                }
            }
            if depth == 1
                && let Some((key, Some(value))) = member
                && keys.is_some()
            {
                members.note(key, value.kind, &text[value.start..tokens.offset()]);
                member = None;
            }
            if depth == 0 {
                break;
            }
            match tokens.next_token()? {
                Some(next) => token = next,
                None => break,
            }
        }
        members.text = &text[first.start..tokens.offset()];
        let too_large = keys.is_none().then_some(Fault::ReadingTooLarge { size: members.text.len() });
        Ok(twice.or(too_large).map_or(Ok(members), Err))
    }

    /// Returns whether a device signed the text of `data`, which no record goes around.
    pub(crate) fn is_signed_data(&self) -> bool {
        self.data.is_some() && self.signature.is_some() && self.public_key.is_some()
    }

    fn note(&mut self, key: &'a str, kind: Kind<'a>, text: &'a str) {
        match &*ascii_spelling(key) {
            "payload" => self.payload = Some(kind),
            "data" => self.data = Some(text),
            "signature" => self.signature = Some(kind),
            "public_key" => self.public_key = Some(kind),
            "key_id" => self.key_id = Some(kind),
            other => {
                match other {
                    "device" => self.device = Some(kind),
                    "reading_id" => self.reading_id = Some(kind),
                    "counter" => self.counter = Some(kind),
                    _ => {}
                }
                self.beside_signature.get_or_insert(key);
            }
        }
    }

    /// Returns the name in `device`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] where there is none, or one that is of no use.
    pub(crate) fn device(&self) -> Result<DeviceName, Fault> {
        match self.device {
            None => Err(Fault::MissingDevice),
            Some(Kind::Text(content)) => Ok(DeviceName::new(&unescape(content).ok_or(Fault::DeviceBroken)?)?),
            Some(kind) => Err(Fault::DeviceNotText { got: kind.describe() }),
        }
    }

    /// Returns what the device tells the reading from its others by: `reading_id`, else a whole number in `counter`. A
    /// `counter` of another kind may well be a measurement, and is none.
    ///
    /// # Errors
    ///
    /// [`Fault::ReadingId`] where `reading_id` cannot be meant as one.
    pub(crate) fn identity(&self) -> Result<Option<String>, Fault> {
        let fits = |text: &str| (1..=IDENTITY_SIZE_MAX).contains(&text.len());
        match self.reading_id {
            None | Some(Kind::Literal("null")) => {}
            Some(Kind::Text(content)) => {
                let text = unescape(content).filter(|text| fits(text)).ok_or(Fault::ReadingId)?;
                return Ok(Some(text.into_owned()));
            }
            Some(Kind::Number(number)) if is_whole(number) && fits(number) => {
                return Ok(Some(number.to_owned()));
            }
            Some(_) => return Err(Fault::ReadingId),
        }
        Ok(match self.counter {
            Some(Kind::Number(number)) if is_whole(number) && fits(number) => Some(number.to_owned()),
            _ => None,
        })
    }
}

fn is_whole(number: &str) -> bool {
    !number.contains(['.', 'e', 'E'])
}
