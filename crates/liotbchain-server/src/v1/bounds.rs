//! How much memory the answers and the compressed bodies of `/v1` take at a time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::load::{Load, Overload};

/// Compressed bodies that are unpacked at a time. Each may become as large as a body may be.
const UNPACKED_MAX: usize = 4;
/// Requests that read blocks at a time. A block may be larger than anybody would like.
const READERS_MAX: usize = 16;
/// Answers up to this size are bounded by the number of connections.
const SMALL_ANSWER: usize = 256 << 10;
/// Larger answers that are kept at a time, until their clients have read them.
const LARGE_ANSWERS_MAX: usize = 16;
/// How long a request waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Why a request did not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Crowded {
    /// Other bodies are being unpacked.
    #[error("{UNPACKED_MAX} other compressed bodies are being unpacked")]
    Unpacking,
    /// Other requests read.
    #[error("{READERS_MAX} other requests read blocks")]
    Reading,
    /// Other clients have not read their large answers yet.
    #[error("{LARGE_ANSWERS_MAX} other clients have not read their large answers yet")]
    Answers,
}

/// Who may take memory now.
pub(crate) struct Bounds {
    unpacking: Arc<Semaphore>,
    /// Unpacked bodies have room of their own: those that wait to be unpacked would keep it from them.
    unpacked: Load,
    readers: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Bounds {
    pub(crate) fn new(body_size_max: usize) -> Self {
        Self {
            unpacking: Arc::new(Semaphore::new(UNPACKED_MAX)),
            unpacked: Load::new(body_size_max),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            answers: Arc::new(Semaphore::new(LARGE_ANSWERS_MAX)),
        }
    }

    /// Waits for the turn to unpack a body.
    ///
    /// # Errors
    ///
    /// [`Crowded::Unpacking`].
    pub(crate) async fn unpack(&self) -> Result<OwnedSemaphorePermit, Crowded> {
        acquire(&self.unpacking).await.ok_or(Crowded::Unpacking)
    }

    /// Makes room for a body that was unpacked, until the permit is dropped. The turn to unpack is kept until then.
    ///
    /// # Errors
    ///
    /// [`Overload::Bodies`].
    pub(crate) async fn unpacked(&self, size: usize) -> Result<Option<OwnedSemaphorePermit>, Overload> {
        self.unpacked.body(Some(size as u64)).await
    }

    /// Waits for the turn to read blocks.
    ///
    /// # Errors
    ///
    /// [`Crowded::Reading`].
    pub(crate) async fn read(&self) -> Result<OwnedSemaphorePermit, Crowded> {
        acquire(&self.readers).await.ok_or(Crowded::Reading)
    }

    /// Makes JSON an answer, if there is room for it until the client has read it.
    ///
    /// # Errors
    ///
    /// [`Crowded::Answers`]; a large answer does not wait, since it is in memory already.
    pub(crate) fn answer(&self, json: Vec<u8>) -> Result<Response, Crowded> {
        let size = json.len();
        let body = if size <= SMALL_ANSWER {
            Body::from(json)
        } else {
            let permit = Arc::clone(&self.answers).try_acquire_owned().map_err(|_| Crowded::Answers)?;
            let json = Bytes::from_owner(Held { json, _permit: permit });
            Body::from_stream(stream::iter([Ok::<_, std::convert::Infallible>(json)]))
        };
        let described = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CONTENT_LENGTH, HeaderValue::from(size)),
        ];
        Ok((described, body).into_response())
    }
}

/// Gives its place back when nobody holds its bytes any more.
struct Held {
    json: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    // None of them is ever closed.
    timeout(WAIT_MAX, Arc::clone(semaphore).acquire_owned()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_waited_for_and_given_back() {
        let bounds = Bounds::new(1 << 20);
        let mut turns = Vec::new();
        while let Ok(turn) = bounds.read().await {
            turns.push(turn);
        }
        assert_eq!(turns.len(), READERS_MAX);
        assert!(bounds.unpack().await.is_ok());
        turns.pop();
        assert!(bounds.read().await.is_ok());
    }

    #[tokio::test]
    async fn large_answers_are_few_and_small_ones_are_not_counted() {
        let bounds = Bounds::new(1 << 20);
        let large = || bounds.answer(vec![b' '; SMALL_ANSWER + 1]);
        let mut kept: Vec<_> = (0..LARGE_ANSWERS_MAX).map(|_| large().unwrap()).collect();
        assert_eq!(large().unwrap_err(), Crowded::Answers);
        let small = bounds.answer(vec![b' '; SMALL_ANSWER]).unwrap();
        assert_eq!(small.headers()[header::CONTENT_LENGTH], SMALL_ANSWER.to_string());
        kept.pop();
        assert_eq!(large().unwrap().headers()[header::CONTENT_LENGTH], (SMALL_ANSWER + 1).to_string());
    }
}
