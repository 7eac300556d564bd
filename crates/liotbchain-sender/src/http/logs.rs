//! `GET /logs`: what becomes of readings, as server-sent events.
//!
//! All clients share one ring of the latest outcomes. Who falls behind by more than it holds is told how many were
//! missed; so nothing is queued for anybody, however slow.

use std::{convert::Infallible, fmt::Write, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use liotbchain_core::{BlockHash, Height, TransactionId};
use liotbchain_http::{ApiError, ErrorBody, Parameters, bad_query};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{
        OwnedSemaphorePermit,
        broadcast::{
            Receiver,
            error::{RecvError, TryRecvError},
        },
        watch,
    },
    time::sleep,
};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use crate::{
    journal::{Fate, Outcome},
    reading::DeviceName,
};

/// Most clients at a time.
pub(super) const CLIENTS_MAX: usize = 64;
/// Outcomes that a client is told at a time.
const PAGE_OUTCOMES: usize = 256;
/// A comment goes out when nothing else did for so long, so that proxies keep the connection and a dead one shows.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What a client waits that was turned away.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The first bytes: a browser that lost the connection comes back after a second.
const OPENING: &str = "retry: 1000\n\n";

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogParameters {
    /// Name of the device whose readings are followed; all where none is named.
    #[param(nullable = false)]
    device: Option<String>,
}

/// Data of the event `outcome`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutcomeEvent<'a> {
    /// When it became known, in milliseconds since the Unix epoch by the sender's clock.
    timestamp_ms: u64,
    /// Whose reading it is.
    device: &'a str,
    /// Id of its record, as the device was answered; on the chain it is the transaction's.
    #[schema(value_type = String)]
    id: TransactionId,
    /// `queued`: on the sender's disk. `duplicate`: sent again by the device, there is one record. `pending`: stored by
    /// the receiver, waits for a block. `sealed`: in a block. `set_aside`: refused by the receiver for good.
    #[schema(example = "sealed")]
    fate: &'static str,
    /// Height of the block, where it is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    height: Option<Height>,
    /// Hash of the block, where it is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    block_hash: Option<BlockHash>,
    /// What the receiver said, where it is set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Data of the event `missed`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MissedEvent {
    /// Outcomes that this client was too slow for, those of other devices among them.
    missed: u64,
}

impl<'a> OutcomeEvent<'a> {
    fn new(outcome: &'a Outcome) -> Self {
        let Outcome { timestamp_ms, device, id, fate } = outcome;
        let (height, block_hash, reason) = match fate {
            Fate::Sealed { height, block_hash } => (Some(*height), Some(*block_hash), None),
            Fate::SetAside { reason } => (None, None, Some(reason.as_str())),
            Fate::Queued | Fate::Duplicate | Fate::Pending => (None, None, None),
        };
        let fate = fate.name();
        Self {
            timestamp_ms: *timestamp_ms,
            device: device.as_str(),
            id: *id,
            fate,
            height,
            block_hash,
            reason,
        }
    }
}

/// Follows what becomes of readings, from now on.
///
/// Server-sent events, as a browser's `EventSource` or `curl -N` reads them: an `outcome` for each thing that happens to
/// a reading, and `missed` where the client was too slow for some. A comment every 15 seconds keeps the connection.
#[utoipa::path(
    get,
    path = "/logs",
    tag = "readings",
    params(LogParameters),
    responses(
        (
            status = 200,
            description = "Events, until either side ends it. Their data is JSON: OutcomeEvent, MissedEvent.",
            body = String,
            content_type = "text/event-stream",
        ),
        (status = 400, description = "`bad_query`.", body = ErrorBody),
        (status = 503, description = "`too_many_followers`: 64 clients follow already.", body = ErrorBody),
    ),
)]
pub(crate) async fn get_logs(
    State(shared): State<Shared>,
    Parameters(parameters): Parameters<LogParameters>,
) -> Result<Response, ApiError> {
    let device = parameters.device.as_deref().map(DeviceName::new).transpose();
    let device = device.map_err(|error| bad_query(&error.to_string()))?;
    let permit = Arc::clone(&shared.followers).try_acquire_owned().map_err(|_| turned_away())?;
    let (outcomes, closing) = shared.sender.outcomes();
    let follower = Follower { outcomes, closing, device, opening: Some(OPENING), _permit: permit };
    let body = stream::unfold(follower, async |mut follower| {
        let text = follower.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), follower))
    });
    let described = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Asks nginx not to collect what it passes on.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((described, Body::from_stream(body)).into_response())
}

/// One that follows.
struct Follower {
    outcomes: Receiver<Outcome>,
    closing: watch::Receiver<bool>,
    device: Option<DeviceName>,
    opening: Option<&'static str>,
    /// Makes room for another in the end.
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// Waits for what there is to tell next. None once the sender ends.
    async fn next(&mut self) -> Option<String> {
        if let Some(opening) = self.opening.take() {
            return Some(opening.to_owned());
        }
        let keep_alive = sleep(KEEP_ALIVE);
        tokio::pin!(keep_alive);
        loop {
            let first = tokio::select! {
                _ = self.closing.wait_for(|closing| *closing) => return None,
                () = &mut keep_alive => return Some(":\n\n".to_owned()),
                first = self.outcomes.recv() => first,
            };
            let mut text = String::new();
            match first {
                Ok(outcome) => self.tell(&outcome, &mut text),
                Err(RecvError::Lagged(missed)) => event("missed", &MissedEvent { missed }, &mut text),
                Err(RecvError::Closed) => return None,
            }
            for _ in 1..PAGE_OUTCOMES {
                match self.outcomes.try_recv() {
                    Ok(outcome) => self.tell(&outcome, &mut text),
                    Err(TryRecvError::Lagged(missed)) => event("missed", &MissedEvent { missed }, &mut text),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if !text.is_empty() {
                return Some(text);
            }
        }
    }

    fn tell(&self, outcome: &Outcome, text: &mut String) {
        if self.device.as_ref().is_none_or(|device| *device == outcome.device) {
            event("outcome", &OutcomeEvent::new(outcome), text);
        }
    }
}

fn event(name: &str, data: &impl Serialize, text: &mut String) {
    let data = serde_json::to_string(data).expect("a struct of text and numbers is JSON");
    write!(text, "event: {name}\ndata: {data}\n\n").expect("a String takes any text");
}

fn turned_away() -> ApiError {
    let message = "as many clients as there may be follow the log: try again later, or ask /status";
    ApiError::failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_followers",
        message,
        &"a client of /logs was turned away",
    )
    .with_retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::journal::Journal;

    fn outcome(device: &str, fate: Fate) -> Outcome {
        Outcome {
            timestamp_ms: 7,
            device: DeviceName::new(device).unwrap(),
            id: TransactionId([0xab; 32]),
            fate,
        }
    }

    async fn follower(journal: &Journal, device: Option<&str>) -> (Follower, watch::Sender<bool>) {
        let (close, closing) = watch::channel(false);
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let device = device.map(|name| DeviceName::new(name).unwrap());
        let outcomes = journal.subscribe();
        let mut follower = Follower { outcomes, closing, device, opening: Some(OPENING), _permit: permit };
        assert_eq!(follower.next().await.unwrap(), OPENING);
        (follower, close)
    }

    #[tokio::test]
    async fn an_event_says_whose_reading_which_one_and_what_happened() {
        let journal = Journal::default();
        let (mut follower, _close) = follower(&journal, None).await;
        let sealed = Fate::Sealed { height: 9, block_hash: BlockHash([0xcd; 32]) };
        journal.note([outcome("a \"b\"", Fate::Queued), outcome("c", sealed)]);
        let id = "ab".repeat(32);
        let first = format!(r#"{{"timestamp_ms":7,"device":"a \"b\"","id":"{id}","fate":"queued"}}"#);
        let hash = "cd".repeat(32);
        let second = format!(
            r#"{{"timestamp_ms":7,"device":"c","id":"{id}","fate":"sealed","height":9,"block_hash":"{hash}"}}"#
        );
        let expected = format!("event: outcome\ndata: {first}\n\nevent: outcome\ndata: {second}\n\n");
        assert_eq!(follower.next().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn the_owner_of_a_device_hears_of_that_alone() {
        let journal = Journal::default();
        let (mut follower, _close) = follower(&journal, Some("mine")).await;
        let refused = |device: &str| outcome(device, Fate::SetAside { reason: "not\nthis".to_owned() });
        journal.note([outcome("other", Fate::Queued), refused("mine"), refused("other")]);
        let text = follower.next().await.unwrap();
        assert_eq!(text.matches("event: ").count(), 1);
        assert!(text.contains(r#""fate":"set_aside","reason":"not\nthis""#), "{text}");
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_how_much_was_missed() {
        let journal = Journal::default();
        let (mut follower, _close) = follower(&journal, None).await;
        journal.note((0..5000).map(|_| outcome("a", Fate::Pending)));
        let text = follower.next().await.unwrap();
        assert!(text.starts_with("event: missed\ndata: {\"missed\":904}\n\nevent: outcome\n"), "{text}");
        assert_eq!(text.matches("event: outcome").count(), PAGE_OUTCOMES - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_nothing_is_told_so_and_the_end_of_the_sender_ends_it() {
        let journal = Journal::default();
        let (mut follower, close) = follower(&journal, None).await;
        assert_eq!(follower.next().await.unwrap(), ":\n\n");
        close.send_replace(true);
        assert_eq!(follower.next().await, None);
    }
}
