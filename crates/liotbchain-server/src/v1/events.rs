//! `GET /v1/events`: what happens to the chain, as server-sent events.
//!
//! A client is no more than a cursor: the last block that it was told. When the ledger changed it looks what stands above
//! its cursor and reads no more than a page of it, and only when there is room for it on the way to the client. So
//! nothing is queued for anybody, however slow, and a client that comes back goes on from any block.

mod recent;

use std::{fmt::Write, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use liotbchain_core::{BlockHash, Header, Height, TimestampMs, codec::decode_header_bytes};
use liotbchain_http::{ApiError, Parameters, Problem};
use liotbchain_node::LedgerStatus;
use liotbchain_store::{Store, StoreError, StoredBlock};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
};
use utoipa::{IntoParams, ToSchema};

use self::recent::{Above, Recent};
use crate::{error::ServerError, state::Shared};

/// Most clients, whatever the number of connections.
const CLIENTS_MAX: usize = 256;
/// Blocks that a client is told at a time.
const PAGE_BLOCKS: usize = 16;
/// How long a client may go without being up to date before it is told the newest block alone.
const BEHIND_MAX: Duration = Duration::from_secs(2);
/// Between two updates of a client that is behind, and between two counts of pending transactions.
const SLOW_PAUSE: Duration = Duration::from_millis(500);
/// Between two looks of a client that is not: a busy ledger changes thousands of times a second.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// After the store failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// A comment goes out when nothing else did for so long, so that proxies keep the connection and a dead one shows.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What browsers wait before they come back.
const BROWSER_RETRY: Duration = Duration::from_secs(1);
/// What a client waits that was turned away.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What all clients share.
pub(crate) struct Events {
    clients: Arc<Semaphore>,
    recent: Recent,
}

impl Events {
    pub(crate) fn new(connections_max: usize) -> Self {
        // Other requests need connections, too.
        let clients = (connections_max / 4).clamp(1, CLIENTS_MAX);
        Self { clients: Arc::new(Semaphore::new(clients)), recent: Recent::default() }
    }
}

/// A block, by which a client goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    height: Height,
    hash: BlockHash,
}

impl Cursor {
    /// Reads an event's id.
    fn parse(id: &str) -> Option<Self> {
        let (height, hash) = id.split_once('-')?;
        let cursor = Self { height: height.parse().ok()?, hash: hash.parse().ok()? };
        // One spelling: what we wrote.
        (cursor.to_string() == id).then_some(cursor)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.height, self.hash)
    }
}

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventParameters {
    /// Id of the last event that was received, for those who cannot send the header, which comes first.
    last_event_id: Option<String>,
}

/// Data of the event `status`, the first one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusEvent {
    /// Hash of the genesis block: the network's identity.
    #[schema(value_type = String)]
    genesis: BlockHash,
    /// Height of the last block.
    #[schema(value_type = u64)]
    height: Height,
    /// Its hash.
    #[schema(value_type = String)]
    tip: BlockHash,
    /// Transactions that wait to be mined.
    pending: u64,
}

/// Data of the event `block`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlockEvent {
    /// The block's height.
    #[schema(value_type = u64)]
    height: Height,
    /// The block's hash.
    #[schema(value_type = String)]
    hash: BlockHash,
    /// Hash of the block below.
    #[schema(value_type = String)]
    prev_block_hash: BlockHash,
    /// Milliseconds since 1970, by the clock of whoever made the block.
    #[schema(value_type = u64)]
    timestamp_ms: TimestampMs,
    /// How many transactions it holds.
    transaction_count: usize,
    /// Blocks passed over since the last event, because the client was behind.
    skipped: u64,
}

impl BlockEvent {
    fn of(stored: &StoredBlock, skipped: u64) -> Self {
        let header = &stored.block.header;
        Self {
            height: header.height,
            hash: stored.hash,
            prev_block_hash: header.prev_block_hash,
            timestamp_ms: header.timestamp_ms,
            transaction_count: stored.block.transactions.len(),
            skipped,
        }
    }

    fn cursor(&self) -> Cursor {
        Cursor { height: self.height, hash: self.hash }
    }

    fn text(&self) -> String {
        event("block", Some(self.cursor()), self)
    }
}

/// Data of the event `pending`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PendingEvent {
    /// Transactions that wait to be mined.
    pending: u64,
}

/// Data of the event `reorganisation`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReorganisationEvent {
    /// The last block that the client knows and that is still on the chain; the blocks above it follow as events.
    common_ancestor: BlockName,
    /// How many of the blocks that the client was told are not on the chain any more.
    disconnected: u64,
    /// The chain's last block now.
    tip: BlockName,
}

/// A block by both of its names.
#[derive(Debug, Serialize, ToSchema)]
struct BlockName {
    /// Its height.
    #[schema(value_type = u64)]
    height: Height,
    /// Its hash.
    #[schema(value_type = String)]
    hash: BlockHash,
}

/// Follows the chain.
///
/// Server-sent events, as a browser's `EventSource` reads them: first `status`, then a `block` for each that is added,
/// `pending` when the number of transactions that wait changed, and `reorganisation` when blocks were taken off the
/// chain. The id of an event is the last block told, as `<height>-<hash>`; who gives one gets all blocks since.
///
/// A client that cannot keep up for two seconds is told the newest block alone, at most twice a second; `skipped` says
/// how many blocks were passed over. A comment every 15 seconds keeps the connection.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "get_events",
    tag = "v1",
    params(
        EventParameters,
        (
            "Last-Event-ID" = Option<String>,
            Header,
            description = "Id of the last event that was received. A browser sends it by itself when it comes back.",
        ),
    ),
    responses(
        (
            status = OK,
            description = "Events, until either side ends it. Their data is JSON: StatusEvent, BlockEvent, PendingEvent, \
                           ReorganisationEvent.",
            body = String,
            content_type = "text/event-stream",
        ),
        (
            status = BAD_REQUEST,
            description = "The id is none of ours, or of no block that was ever on this chain; or `bad_query`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = SERVICE_UNAVAILABLE,
            description = "As many clients as there may be follow already: `too_many_event_clients`. Or the store does not \
                           answer.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
pub(crate) async fn get_events(
    State(shared): State<Arc<Shared>>,
    Parameters(parameters): Parameters<EventParameters>,
    headers: HeaderMap,
) -> Result<Response, ServerError> {
    let last_event = last_event(&headers, parameters.last_event_id.as_deref())?;
    let permit = Arc::clone(&shared.events.clients).try_acquire_owned().map_err(|_| turned_away())?;
    if let Some(cursor) = last_event {
        check_known(shared.ledger.store().as_ref(), cursor).await?;
    }
    let client = Client::new(shared, permit, last_event);
    let body = stream::unfold(client, async |mut client| {
        let text = client.next().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), client))
    });
    let described = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Asks nginx not to collect what it passes on.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((described, Body::from_stream(body)).into_response())
}

/// One that follows. Its memory does not depend on what it missed.
struct Client {
    shared: Arc<Shared>,
    changes: watch::Receiver<()>,
    stopping: watch::Receiver<bool>,
    /// The last block that it was told.
    cursor: Cursor,
    /// The count that it was told last, and when it may be told another.
    pending: u64,
    pending_from: Instant,
    /// What it is told before anything else.
    opening: Option<String>,
    /// Up to this height it is told every block, since it asked for them.
    resumed_to: Height,
    /// Since when there is a block that it was not told.
    behind_since: Option<Instant>,
    is_slow: bool,
    /// When it may look again.
    look_from: Instant,
    /// Makes room for another client in the end.
    _permit: OwnedSemaphorePermit,
}

impl Client {
    fn new(shared: Arc<Shared>, permit: OwnedSemaphorePermit, last_event: Option<Cursor>) -> Self {
        let changes = shared.ledger.changes();
        let LedgerStatus { height, tip, pending, .. } = shared.ledger.status();
        let now = Instant::now();
        let here = Cursor { height, hash: tip };
        let status = StatusEvent { genesis: shared.ledger.genesis(), height, tip, pending };
        // A client that goes on has not been told of the tip: its id stays what it was.
        let id = last_event.is_none().then_some(here);
        let retry = BROWSER_RETRY.as_millis();
        Self {
            changes,
            stopping: shared.stopping.subscribe(),
            cursor: last_event.unwrap_or(here),
            pending,
            pending_from: now + SLOW_PAUSE,
            opening: Some(format!("retry: {retry}\n\n{}", event("status", id, &status))),
            resumed_to: if last_event.is_some() { height } else { 0 },
            behind_since: None,
            is_slow: false,
            look_from: now,
            _permit: permit,
            shared,
        }
    }

    /// Waits for what there is to tell next. None once the server shuts down.
    async fn next(&mut self) -> Option<String> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        let keep_alive = Instant::now() + KEEP_ALIVE;
        loop {
            tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                () = sleep_until(self.look_from.min(keep_alive)) => {}
            }
            // Before the look: what changes during it is seen by the next.
            self.changes.mark_unchanged();
            match self.look().await {
                Ok(text) if !text.is_empty() => return Some(text),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "GET /v1/events waits for the store");
                    self.shared.metrics.count_store_error();
                    self.look_from = Instant::now() + RETRY_PAUSE;
                    self.behind_since.get_or_insert(self.look_from);
                }
            }
            if Instant::now() >= keep_alive {
                return Some(":\n\n".to_owned());
            }
            let again = self.look_again().min(keep_alive);
            tokio::select! {
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                // The ledger lives as long as `self`.
                _ = self.changes.changed() => {}
                () = sleep_until(again) => {}
            }
        }
    }

    /// Returns when there is something to look for though nothing changes.
    fn look_again(&self) -> Instant {
        if self.behind_since.is_some() {
            self.look_from.max(Instant::now() + SLOW_PAUSE)
        } else if self.shared.ledger.status().pending != self.pending {
            self.pending_from
        } else {
            Instant::now() + KEEP_ALIVE
        }
    }

    /// Returns what is new, as far as it is told now.
    async fn look(&mut self) -> Result<String, StoreError> {
        let status = self.shared.ledger.status();
        let mut text = String::new();
        if status.tip == self.cursor.hash {
            self.behind_since = None;
        } else {
            self.look_for_blocks(&status, &mut text).await?;
        }
        let now = Instant::now();
        self.look_from = match (self.is_slow, self.behind_since) {
            (true, _) => now + SLOW_PAUSE,
            (false, None) => now + LOOK_PAUSE,
            // There are more.
            (false, Some(_)) if !text.is_empty() => now,
            (false, Some(_)) => now + LOOK_PAUSE,
        };
        if status.pending != self.pending && now >= self.pending_from {
            (self.pending, self.pending_from) = (status.pending, now + SLOW_PAUSE);
            text.push_str(&event("pending", None, &PendingEvent { pending: status.pending }));
        }
        Ok(text)
    }

    async fn look_for_blocks(&mut self, status: &LedgerStatus, text: &mut String) -> Result<(), StoreError> {
        let now = Instant::now();
        let behind_since = *self.behind_since.get_or_insert(now);
        if self.cursor.height < self.resumed_to {
            self.behind_since = Some(now);
        } else if now - behind_since > BEHIND_MAX {
            self.is_slow = true;
        }
        let is_far = status.height.saturating_sub(self.cursor.height) as usize > PAGE_BLOCKS;
        if self.is_slow && is_far {
            return self.tell_newest(status, text).await;
        }
        self.is_slow = false;
        let store = self.shared.ledger.store();
        match self.shared.events.recent.above(store.as_ref(), self.cursor).await? {
            Above::Blocks(blocks) => {
                for block in blocks {
                    text.push_str(&block.text);
                    self.cursor = block.cursor;
                }
            }
            Above::Nothing | Above::Elsewhere => self.tell_reorganisation(status, text).await?,
        }
        if self.cursor.hash == status.tip {
            self.behind_since = None;
        }
        Ok(())
    }

    /// Goes to the tip, over all that stands between.
    async fn tell_newest(&mut self, status: &LedgerStatus, text: &mut String) -> Result<(), StoreError> {
        self.tell_reorganisation(status, text).await?;
        let newest = self.shared.ledger.store().blocks(status.height, 1, 1).await?;
        if let Some(newest) = newest.first()
            && newest.block.header.height > self.cursor.height
        {
            let height = newest.block.header.height;
            let newest = BlockEvent::of(newest, u64::from(height - self.cursor.height - 1));
            text.push_str(&newest.text());
            self.cursor = newest.cursor();
            self.behind_since = None;
        }
        Ok(())
    }

    /// Goes back to the last block that is still on the chain, where the last one told is not.
    async fn tell_reorganisation(
        &mut self,
        status: &LedgerStatus,
        text: &mut String,
    ) -> Result<(), StoreError> {
        let store = self.shared.ledger.store();
        let mut hash = self.cursor.hash;
        let mut disconnected = 0;
        let height = loop {
            if let Some(height) = store.height_of(hash).await? {
                break height;
            }
            // Missing only where the chain moved between the two reads: the next look finds it.
            let Some(header) = side_header(store.as_ref(), hash).await? else { return Ok(()) };
            hash = header.prev_block_hash;
            disconnected += 1;
        };
        if disconnected > 0 {
            self.cursor = Cursor { height, hash };
            let tip = BlockName { height: status.height, hash: status.tip };
            let common_ancestor = BlockName { height, hash };
            let data = ReorganisationEvent { common_ancestor, disconnected, tip };
            text.push_str(&event("reorganisation", Some(self.cursor), &data));
        }
        Ok(())
    }
}

/// Returns the header of a block that was taken off the chain.
async fn side_header(store: &dyn Store, hash: BlockHash) -> Result<Option<Header>, StoreError> {
    let Some(bytes) = store.side_block(hash).await? else { return Ok(None) };
    let header = decode_header_bytes(bytes.get(..Header::SIZE).unwrap_or_default());
    header.map(Some).map_err(|error| StoreError::Corrupt(format!("side block {hash}: {error}")))
}

fn event(name: &str, id: Option<Cursor>, data: &impl Serialize) -> String {
    let mut text = String::new();
    if let Some(id) = id {
        writeln!(text, "id: {id}").expect("a String takes any text");
    }
    let data = serde_json::to_string(data).expect("a struct of text and numbers is JSON");
    write!(text, "event: {name}\ndata: {data}\n\n").expect("a String takes any text");
    text
}

/// Reads the id of the last event, from the header or else from the query.
fn last_event(headers: &HeaderMap, parameter: Option<&str>) -> Result<Option<Cursor>, ApiError> {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let Some(id) = header.or(parameter).filter(|id| !id.is_empty()) else { return Ok(None) };
    Cursor::parse(id).map(Some).ok_or_else(|| {
        let message = "the id of the last event is none of ours: send it as it was received, <height>-<hash>, or none to \
                       start at the tip";
        ApiError::refusal(StatusCode::BAD_REQUEST, "malformed_event_id", message)
    })
}

async fn check_known(store: &dyn Store, cursor: Cursor) -> Result<(), ServerError> {
    let height = match store.height_of(cursor.hash).await? {
        Some(height) => Some(height),
        None => side_header(store, cursor.hash).await?.map(|header| header.height),
    };
    if height == Some(cursor.height) {
        return Ok(());
    }
    let message = "the id of the last event names no block that was ever on this chain: send none to start at the tip, \
                   and read what is missing from /v1/blocks";
    Err(ApiError::refusal(StatusCode::BAD_REQUEST, "unknown_event_id", message).into())
}

fn turned_away() -> ServerError {
    let message = "as many clients as there may be follow the events: try again later, or ask /v1/status";
    let error = ApiError::failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "too_many_event_clients",
        message,
        &"a client was turned away",
    );
    error.with_retry_after(RETRY_AFTER).into()
}

#[cfg(test)]
mod tests {
    use liotbchain_core::VerifiedStatement;
    use liotbchain_node::{Ledger, LedgerConfig};
    use liotbchain_store::{NewTransaction, memory::MemoryStore};
    use serde_json::{Value, json};

    use super::*;
    use crate::{Receiver, ReceiverConfig};

    async fn receiver() -> Arc<Shared> {
        let config = LedgerConfig { transactions_per_block: 1, unsigned: true, ..LedgerConfig::default() };
        let ledger = Ledger::open(Arc::new(MemoryStore::default()), config).await.unwrap();
        Receiver::new(ReceiverConfig::default(), ledger).shared()
    }

    async fn seal(shared: &Shared, blocks: u8) {
        let height = shared.ledger.status().height;
        let statement = |place| {
            VerifiedStatement::unsigned("1".to_owned(), [height as u8, place].repeat(8).try_into().unwrap())
        };
        let transactions = (0..blocks)
            .map(|place| NewTransaction { statement: statement(place).unwrap(), public_key: None })
            .collect();
        shared.ledger.submit(transactions, Duration::from_secs(60)).await.unwrap();
        assert_eq!(shared.ledger.status().height, height + u32::from(blocks));
    }

    async fn client(shared: &Arc<Shared>, last_event: Option<Cursor>) -> Client {
        let permit = Arc::clone(&shared.events.clients).try_acquire_owned().unwrap();
        let mut client = Client::new(Arc::clone(shared), permit, last_event);
        assert!(client.next().await.unwrap().contains("event: status"));
        client
    }

    /// Returns height and number of blocks skipped of each block told next.
    async fn blocks(client: &mut Client) -> Vec<(u64, u64)> {
        loop {
            let text = client.next().await.unwrap();
            let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
            let data = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
            let number = |event: &Value, name: &str| event[name].as_u64().unwrap();
            let blocks = data.filter(|event| event["skipped"].is_u64());
            let blocks: Vec<_> =
                blocks.map(|event| (number(&event, "height"), number(&event, "skipped"))).collect();
            if !blocks.is_empty() {
                return blocks;
            }
        }
    }

    fn all(heights: std::ops::RangeInclusive<u64>) -> Vec<(u64, u64)> {
        heights.map(|height| (height, 0)).collect()
    }

    #[tokio::test]
    async fn a_client_that_cannot_keep_up_is_told_the_newest_block_until_it_can() {
        let shared = receiver().await;
        let mut client = client(&shared, None).await;
        seal(&shared, 100).await;
        assert_eq!(blocks(&mut client).await, all(1..=16));
        // Only now there is room for more on its way.
        tokio::time::pause();
        tokio::time::advance(BEHIND_MAX * 2).await;
        tokio::time::resume();
        assert_eq!(blocks(&mut client).await, [(100, 83)]);
        seal(&shared, 20).await;
        assert_eq!(blocks(&mut client).await, [(120, 19)]);
        // Few enough for one update.
        seal(&shared, 16).await;
        assert_eq!(blocks(&mut client).await, all(121..=136));
        seal(&shared, 20).await;
        assert_eq!(blocks(&mut client).await, all(137..=152));
    }

    #[tokio::test]
    async fn a_client_that_goes_on_is_told_all_it_missed_however_slow_it_is() {
        let shared = receiver().await;
        let genesis = Cursor { height: 0, hash: shared.ledger.genesis() };
        seal(&shared, 64).await;
        let mut client = client(&shared, Some(genesis)).await;
        for first in [1, 17, 33, 49] {
            assert_eq!(blocks(&mut client).await, all(first..=first + 15));
            tokio::time::pause();
            tokio::time::advance(BEHIND_MAX * 2).await;
            tokio::time::resume();
        }
    }

    #[tokio::test]
    async fn a_client_that_hears_nothing_is_told_so() {
        let shared = receiver().await;
        let mut client = client(&shared, None).await;
        tokio::time::pause();
        assert_eq!(client.next().await.unwrap(), ":\n\n");
    }

    #[test]
    fn an_id_has_one_spelling() {
        let hash = "ab".repeat(32);
        assert!(Cursor::parse(&format!("7-{hash}")).is_some());
        for id in [
            "",
            "7",
            "7-",
            &format!("07-{hash}"),
            &format!("+7-{hash}"),
            &format!("7-{}", hash.to_uppercase()),
        ] {
            assert!(Cursor::parse(id).is_none(), "{id}");
        }
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        let cursor = Cursor { height: 7, hash: BlockHash([0xab; 32]) };
        let text = event("pending", Some(cursor), &json!({"text": "a\nb"}));
        let expected = format!("id: 7-{}\nevent: pending\ndata: {{\"text\":\"a\\nb\"}}\n\n", "ab".repeat(32));
        assert_eq!(text, expected);
    }
}
