//! A network between the store and its server that breaks where a test wants it to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Passes bytes on to a server, until a message goes by after which no answer comes back any more.
pub struct Wire {
    pub port: u16,
    armed: Arc<AtomicBool>,
}

impl Wire {
    /// Listens on a free port. Once armed, every connection that sends `word` gets that far and hears nothing after it.
    pub async fn to(server_port: u16, word: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let armed = Arc::new(AtomicBool::new(false));
        let arm = Arc::clone(&armed);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
                tokio::spawn(pass(client, server, word, Arc::clone(&arm)));
            }
        });
        Self { port, armed }
    }

    pub fn arm(&self, on: bool) {
        self.armed.store(on, Ordering::SeqCst);
    }
}

async fn pass(client: TcpStream, server: TcpStream, word: &'static [u8], armed: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let deaf = Arc::new(AtomicBool::new(false));
    let hears = Arc::clone(&deaf);
    let back = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            if !hears.load(Ordering::SeqCst) && to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
        let sent = &buffer[..count];
        if armed.load(Ordering::SeqCst) && sent.windows(word.len()).any(|window| window == word) {
            deaf.store(true, Ordering::SeqCst);
        }
        if to_server.write_all(sent).await.is_err() {
            break;
        }
    }
    back.abort();
}
