//! Accepting connections and letting none of them take more than its share.

use std::{future::poll_fn, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use futures_util::FutureExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::ServiceExt;

/// What one connection may take, and how many there may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; one more is answered 503 and closed.
    pub connections_max: usize,
    /// Time for the headers of a request, and between two requests.
    pub header_time: Duration,
    /// Time for the body of a request.
    pub body_time: Duration,
    /// Bytes of a body.
    pub body_size_max: usize,
    /// Time a client may leave what was sent to it unread.
    pub stall_time: Duration,
    /// Time for the requests in flight to end once the server shuts down.
    pub shutdown_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            body_size_max: 8 << 20,
            stall_time: Duration::from_secs(60),
            shutdown_time: Duration::from_secs(10),
        }
    }
}

/// The local address a request arrived at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival(pub SocketAddr);

/// Bytes that a connection buffers, and so the longest headers of a request.
const BUFFER_MAX: usize = 64 << 10;

/// Connections above the limit that are told so at a time; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// Serves a router until `shutdown` ends, then lets the requests in flight end. Never fails: what goes wrong with one
/// connection is that connection's.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let farewells = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                wait_after(&error).await;
                continue;
            }
        };
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            let connection = serve_connection(stream, router.clone(), limits.clone(), stopped.clone());
            connections.spawn(async move {
                connection.await;
                drop(permit);
            });
        } else if let Ok(permit) = Arc::clone(&farewells).try_acquire_owned() {
            tracing::warn!(
                connections_max = limits.connections_max,
                "too many connections: one was turned away"
            );
            connections.spawn(async move {
                turn_away(stream).await;
                drop(permit);
            });
        }
    }
    drop(listener);
    drop(stop);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.shutdown_time, all_ended).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections were cut off: their requests did not end in time"
        );
    }
}

/// Waits where the system is short of something, such as file descriptors: trying again at once would only spin.
async fn wait_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "cannot accept a connection; trying again in a second");
        sleep(Duration::from_secs(1)).await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let Ok(local) = stream.local_addr() else { return };
    if let Err(error) = tune(&stream, &limits) {
        tracing::debug!(%error, "cannot set the options of a connection");
    }
    let header_time = limits.header_time;
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arrival(local));
        request.extensions_mut().insert(limits.clone());
        // Boxed, since a connection that is taken apart at its end must hold futures that can be moved.
        router.clone().oneshot(request).boxed()
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_time)
        .max_buf_size(BUFFER_MAX)
        // A client that ends its side after the request still gets its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(ended),
        _ = stopped.changed() => None,
    };
    let stopping = ended.is_none();
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    let linger_time = if stopping { Duration::from_millis(100) } else { LINGER_TIME };
    linger(connection.into_parts().io.into_inner(), linger_time).await;
}

fn tune(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Closes a connection whose client reads nothing, which would hold its place for ever.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(limits.stall_time))?;
    Ok(())
}

const LINGER_TIME: Duration = Duration::from_secs(2);

/// Ends a connection so that the client gets to read the last answer: a socket closed over unread bytes, such as the
/// rest of a body that was too large, is reset, and a reset can overtake the answer.
async fn linger(mut stream: TcpStream, time: Duration) {
    let drain = async {
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the client was patient or not, the connection is over.
    let _ = timeout(time, drain).await;
}

async fn turn_away(mut stream: TcpStream) {
    let body = "{\"status\":\"error\",\"message\":\"the server has as many connections as it can take: try again in a \
                second\",\"code\":\"overloaded\"}";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    if let Ok(Ok(())) = timeout(LINGER_TIME, stream.write_all(answer.as_bytes())).await {
        linger(stream, LINGER_TIME).await;
    }
}
