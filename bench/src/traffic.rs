//! Requests as lean as can be, since the client shares the machine with what it measures.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time,
};

/// One connection, opened again where the server closes it after each answer, as the Python original's does.
pub struct Connection {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// Sends a request as [`requests`] makes it, and returns the body of an answer of success.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        stream.get_mut().write_all(request).await?;
        let (mut line, mut status, mut length, mut keep) = (String::new(), None, None, true);
        loop {
            line.clear();
            anyhow::ensure!(stream.read_line(&mut line).await? > 0, "the connection was closed");
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            match text.split_once(": ") {
                None => status = text.split(' ').nth(1).map(str::to_owned),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = Some(value.parse()?);
                }
                Some((name, value)) if name.eq_ignore_ascii_case("connection") => {
                    keep = !value.eq_ignore_ascii_case("close");
                }
                Some(_) => {}
            }
        }
        let mut body = vec![0; length.context("an answer without its length")?];
        stream.read_exact(&mut body).await?;
        anyhow::ensure!(
            status.as_deref().is_some_and(|status| status.starts_with('2')),
            "answered {status:?}: {}",
            String::from_utf8_lossy(&body)
        );
        if keep {
            self.stream = Some(stream);
        }
        Ok(body)
    }
}

/// Returns whole requests that post bodies to `/receive_data`.
pub fn requests(address: &str, bodies: Vec<String>) -> Vec<Vec<u8>> {
    requests_to(address, "/receive_data", bodies)
}

/// Returns whole requests that post JSON to a path.
pub fn requests_to(address: &str, path: &str, bodies: Vec<String>) -> Vec<Vec<u8>> {
    let request = |body: String| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    bodies.into_iter().map(request).collect()
}

/// Returns how many readings an answer says are sealed.
pub fn count_sealed(answer: &[u8]) -> usize {
    answer.windows(8).filter(|window| window == b"\"sealed\"").count()
}

/// Sends requests over so many connections, each the next one as soon as it has an answer, and no new one after `limit`.
/// Returns how many were answered and in which time. Every answer passes `check`.
pub async fn send_all(
    address: &str,
    requests: &Arc<Vec<Vec<u8>>>,
    connections: usize,
    limit: Duration,
    check: fn(&[u8]) -> bool,
) -> anyhow::Result<(usize, Duration)> {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let (requests, next) = (Arc::clone(requests), Arc::clone(&next));
        let mut connection = Connection::new(address);
        senders.spawn(async move {
            let mut answered = 0;
            while started.elapsed() < limit
                && let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let answer = connection.send(request).await?;
                anyhow::ensure!(check(&answer), "answered {}", String::from_utf8_lossy(&answer));
                answered += 1;
            }
            anyhow::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(sender) = senders.join_next().await {
        answered += sender??;
    }
    Ok((answered, started.elapsed()))
}

/// Sends a request each `interval` for `span`, or as long as there are some, whether or not the ones before it are
/// answered, as far as the connections go. Every answer says that it is sealed. Returns for each how long after its due
/// time it came.
pub async fn send_at(
    address: &str,
    requests: &Arc<Vec<Vec<u8>>>,
    connections: usize,
    interval: Duration,
    span: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let next = Arc::new(AtomicUsize::new(0));
    // Time to open the connections.
    let start = Instant::now() + Duration::from_millis(100);
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let (requests, next) = (Arc::clone(requests), Arc::clone(&next));
        let mut connection = Connection::new(address);
        senders.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let since_start = interval * number as u32;
                let Some(request) = requests.get(number).filter(|_| since_start < span) else { break };
                let due = start + since_start;
                time::sleep_until(due.into()).await;
                let answer = connection.send(request).await?;
                latencies.push(due.elapsed());
                anyhow::ensure!(
                    count_sealed(&answer) > 0,
                    "not sealed: {}",
                    String::from_utf8_lossy(&answer)
                );
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(sender) = senders.join_next().await {
        latencies.extend(sender??);
    }
    Ok(latencies)
}
