//! Whether every reader of a JSON text sees the same in it.
//!
//! Of a key that stands twice in one object some readers take the first value, others the last. Such a text must not be
//! signed and stored: it would show two people two readings.

use std::{borrow::Cow, collections::HashSet};

use thiserror::Error;

use crate::json_text::{JsonError, Kind, Position, Tokens, ascii_spelling, shorten};

/// How deep lists and objects of a payload may lie within each other.
///
/// Readings are flat; CPython stops at about 1,000 levels, other readers at 128 and less.
pub const JSON_DEPTH_MAX: usize = 100;

/// Why a text may not be taken as sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AmbiguousJson {
    /// The text is not JSON, or too deep.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A key stands twice in one object.
    #[error("the key \"{key}\" stands twice in one object, the second time at {at}")]
    DuplicateKey {
        /// The key in JSON escapes, shortened if it is long.
        key: String,
        /// Where it stands the second time.
        at: Position,
    },
}

/// Checks that every reader of JSON sees the same members in `text`, of at most [`JSON_DEPTH_MAX`] levels.
///
/// Keys are compared as what they stand for: `"a"` and `"\u0061"` are the same key.
///
/// # Errors
///
/// [`AmbiguousJson`].
pub fn check_unambiguous(text: &str) -> Result<(), AmbiguousJson> {
    let mut tokens = Tokens::new(text, JSON_DEPTH_MAX);
    let mut keys = KeyWatch::default();
    while let Some(token) = tokens.next_token()? {
        keys.see(token.kind).map_err(|DuplicateKey { key }| {
            let at = tokens.position(token.start);
            AmbiguousJson::DuplicateKey { key, at }
        })?;
    }
    Ok(())
}

/// A key stands twice in one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateKey {
    /// The key in JSON escapes, shortened if it is long.
    pub key: String,
}

/// Watches the tokens of a text go by for a key that stands twice in one object.
#[derive(Debug, Default)]
pub struct KeyWatch<'a> {
    open: Vec<Keys<'a>>,
}

impl<'a> KeyWatch<'a> {
    /// Takes note of the next token.
    ///
    /// # Errors
    ///
    /// [`DuplicateKey`] where it is a key that its object has already.
    pub fn see(&mut self, kind: Kind<'a>) -> Result<(), DuplicateKey> {
        match kind {
            Kind::ObjectStart => self.open.push(Keys::default()),
            Kind::ObjectEnd => drop(self.open.pop()),
            Kind::Key(content) => {
                let key = ascii_spelling(content);
                let is_new = self.open.last_mut().is_none_or(|keys| keys.insert(key));
                if !is_new {
                    return Err(DuplicateKey { key: shorten(&ascii_spelling(content)) });
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The keys of one object: a few are compared one by one, which is faster than hashing them.
#[derive(Debug, Default)]
struct Keys<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    const FEW: usize = 16;

    /// Returns whether the key is new.
    fn insert(&mut self, key: Cow<'a, str>) -> bool {
        if self.few.contains(&key) || self.many.contains(&key) {
            return false;
        }
        if self.few.len() < Self::FEW {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_duplicate_keys_by_what_they_stand_for() {
        for (text, key, column) in [
            (r#"{"a":1,"a":1}"#, "a", 8),
            (r#"{"a":1,"b":2,"\u0061":3}"#, "a", 14),
            (r#"[{"x":{"é":1,"\u00E9":2}}]"#, r"\u00e9", 14),
            (r#"{"/":1,"\/":2}"#, "/", 8),
            (r#"{"😀":1,"\ud83d\ude00":2}"#, r"\ud83d\ude00", 8),
            (r#"{"\ud83d":1,"\uD83D":2}"#, r"\ud83d", 13),
            (r#"{"":1,"":2}"#, "", 7),
        ] {
            let at = Position { line: 1, column };
            let key = key.to_owned();
            let expected = AmbiguousJson::DuplicateKey { key, at };
            assert_eq!(check_unambiguous(text), Err(expected), "{text}");
        }
        let text = r#"[{"a":{"a":1,"A":2},"b":{"a":1}},{"a":"a"},{"\ud83d":1,"\ude00":2}]"#;
        assert_eq!(check_unambiguous(text), Ok(()));
        let long = "x".repeat(1000);
        let refused = check_unambiguous(&format!("{{\"{long}\":1,\"{long}\":2}}")).unwrap_err();
        assert!(refused.to_string().len() < 150, "{refused}");
    }

    #[test]
    fn refuses_depth_beyond_the_limit() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| format!("{}0{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(check_unambiguous(&nested(JSON_DEPTH_MAX)), Ok(()));
            for depth in [JSON_DEPTH_MAX + 1, 1_000_000] {
                let refused = check_unambiguous(&nested(depth));
                assert!(
                    matches!(refused, Err(AmbiguousJson::Json(JsonError::TooDeep { .. }))),
                    "{refused:?}"
                );
            }
        }
    }
}
