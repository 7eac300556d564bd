//! Where a walk over the best chain goes on.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use liotbchain_core::{BlockHash, Height};
use serde::Deserialize;
use utoipa::ToSchema;

/// Which way a walk goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Upwards.
    #[default]
    Asc,
    /// Downwards: the newest first.
    Desc,
}

/// The next block of a walk. Its text means nothing to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) order: Order,
    /// Height of the next block.
    pub(crate) next: Height,
    /// Hash that the next block must name as the one below it, going upwards, or that it must have itself, going
    /// downwards. Without it a reorganisation between two pages would go unnoticed.
    pub(crate) pin: BlockHash,
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is none that this server gave: start anew without it")]
pub(crate) struct CursorError;

impl Cursor {
    const SIZE: usize = 1 + 4 + 32;

    pub(crate) fn encode(&self) -> String {
        let order = match self.order {
            Order::Asc => 0,
            Order::Desc => 1,
        };
        let mut bytes = vec![order];
        bytes.extend(self.next.to_be_bytes());
        bytes.extend(self.pin.0);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Cursor::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`CursorError`].
    pub(crate) fn decode(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        let bytes: [u8; Self::SIZE] = bytes.try_into().map_err(|_| CursorError)?;
        let order = match bytes[0] {
            0 => Order::Asc,
            1 => Order::Desc,
            _ => return Err(CursorError),
        };
        let next = std::array::from_fn(|place| bytes[1 + place]);
        let pin = std::array::from_fn(|place| bytes[5 + place]);
        Ok(Self { order, next: Height::from_be_bytes(next), pin: BlockHash(pin) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_wrote(next: u32, pin: [u8; 32], desc: bool) {
            let order = if desc { Order::Desc } else { Order::Asc };
            let cursor = Cursor { order, next, pin: BlockHash(pin) };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }
    }

    #[test]
    fn refuses_what_it_did_not_write() {
        let text = Cursor { order: Order::Asc, next: 7, pin: BlockHash([1; 32]) }.encode();
        for other in ["", "x", "7", &text[1..], &format!("{text}A"), &text.replacen('A', "_", 1)] {
            assert_eq!(Cursor::decode(other), Err(CursorError), "{other}");
        }
    }
}
