//! Taking a port, or saying what is in the way and what to do about it.

use std::{fmt, fs, io, net::SocketAddr, path::Path};

use tokio::net::TcpListener;

use crate::Edge;

/// Why an address cannot be listened on. `setting` is the setting that names the address.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are the same in each variant")]
pub enum BindError {
    /// Everybody in the network could write.
    #[error(
        "{setting}={address} can be reached from other machines, and no API_TOKEN is set: set API_TOKEN \
         (make one with `openssl rand -hex 24`), or listen on 127.0.0.1"
    )]
    PublicWithoutToken { address: SocketAddr, setting: &'static str },
    /// Another process listens there.
    #[error(
        "{address} is in use{}: stop that program, or set {setting} to another port",
        .holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
    )]
    InUse { address: SocketAddr, setting: &'static str, holder: Option<Holder> },
    /// No network interface of this machine has the address.
    #[error("{address} is not an address of this machine: set {setting} to one that is, such as 127.0.0.1:{}", .address.port())]
    NotOurs { address: SocketAddr, setting: &'static str },
    /// Ports below 1024 are reserved, or a policy forbids it.
    #[error("not permitted to listen on {address}: set {setting} to a port from 1024 up")]
    NotPermitted { address: SocketAddr, setting: &'static str },
    /// Anything else the system says.
    #[error("cannot listen on {address} ({setting}): {source}")]
    Other { address: SocketAddr, setting: &'static str, source: io::Error },
}

/// The process that holds a port.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub process_id: u32,
    /// The short name of its program.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.process_id)
    }
}

impl Edge {
    /// Listens on the address that `setting` names.
    ///
    /// # Errors
    ///
    /// [`BindError`] says what is in the way; an address that other machines reach is refused without a token.
    pub async fn bind(&self, address: SocketAddr, setting: &'static str) -> Result<TcpListener, BindError> {
        if !address.ip().to_canonical().is_loopback() && self.api_token.is_none() {
            return Err(BindError::PublicWithoutToken { address, setting });
        }
        self.bind_open(address, setting).await
    }

    /// Listens on an address that may be public without a token: for a server where requests are authenticated in another
    /// way.
    ///
    /// # Errors
    ///
    /// [`BindError`] says what is in the way.
    pub async fn bind_open(
        &self,
        address: SocketAddr,
        setting: &'static str,
    ) -> Result<TcpListener, BindError> {
        TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => {
                BindError::InUse { address, setting, holder: find_listener(address.port()) }
            }
            io::ErrorKind::AddrNotAvailable => BindError::NotOurs { address, setting },
            io::ErrorKind::PermissionDenied => BindError::NotPermitted { address, setting },
            _ => BindError::Other { address, setting, source },
        })
    }
}

/// Finds the process that listens on a port, where the system has `/proc` and lets us see other people's processes.
pub fn find_listener(port: u16) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines());
    let inodes = lines.filter_map(|line| listening_inode(line, port));
    let sockets: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let process_id = process.file_name().to_str()?.parse().ok()?;
        holds_one(&process.path(), &sockets).then(|| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            Holder { process_id, name: name.trim().to_owned() }
        })
    })
}

/// Reads a line of `/proc/net/tcp`: returns the inode if it is a socket that listens (state 0A) on the port.
fn listening_inode(line: &str, port: u16) -> Option<&str> {
    let mut fields = line.split_ascii_whitespace();
    let (_, local_port) = fields.nth(1)?.rsplit_once(':')?;
    let listens = fields.nth(1)? == "0A";
    (listens && u16::from_str_radix(local_port, 16).ok()? == port).then(|| fields.nth(5)).flatten()
}

fn holds_one(process: &Path, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    let mut targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Token;

    #[tokio::test]
    async fn names_the_process_that_holds_the_port() {
        let edge = Edge::default();
        let held = edge.bind("127.0.0.1:0".parse().unwrap(), "SENDER_LISTEN").await.unwrap();
        let address = held.local_addr().unwrap();
        let error = edge.bind(address, "SENDER_LISTEN").await.unwrap_err();
        let BindError::InUse { holder: Some(holder), .. } = &error else { panic!("{error:?}") };
        assert_eq!(holder.process_id, std::process::id());
        let text = error.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("set SENDER_LISTEN"), "{text}");
        assert!(text.contains(&format!("(process {})", std::process::id())), "{text}");
    }

    #[tokio::test]
    async fn refuses_a_public_address_without_a_token() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let error = Edge::default().bind(address.parse().unwrap(), "RECEIVER_LISTEN").await.unwrap_err();
            assert!(matches!(error, BindError::PublicWithoutToken { .. }), "{address}: {error}");
        }
        let edge = Edge { api_token: Some(Token::new("0123456789abcdef")), ..Edge::default() };
        edge.bind("0.0.0.0:0".parse().unwrap(), "RECEIVER_LISTEN").await.unwrap();
    }

    #[tokio::test]
    async fn refuses_an_address_of_another_machine() {
        let edge = Edge { api_token: Some(Token::new("0123456789abcdef")), ..Edge::default() };
        let error = edge.bind("192.0.2.1:5001".parse().unwrap(), "RECEIVER_LISTEN").await.unwrap_err();
        assert!(matches!(error, BindError::NotOurs { .. }), "{error}");
    }
}
