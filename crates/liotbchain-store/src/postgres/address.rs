//! What `DATABASE_URL` says of a PostgreSQL server, or of several.

use std::{error::Error, net::IpAddr, path::Path, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

use super::password::Passwords;
use crate::StoreError;

const PORT: u16 = 5432;

/// Where Debian's packages, and most others, put the server's socket.
const SOCKET_DIR: &str = "/var/run/postgresql";

/// libpq's options that the client library does not know. Only names in this list are repeated in an error: any other
/// word may be a part of a password that was not quoted.
const UNKNOWN_OPTIONS: [&str; 12] = [
    "client_encoding",
    "gssencmode",
    "krbsrvname",
    "passfile",
    "require_auth",
    "requirepeer",
    "service",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "sslrootcert",
];

/// The servers to try, in this order.
#[derive(Debug)]
pub(super) struct Address {
    /// One each.
    pub servers: Vec<Server>,
    /// Hosts, ports, database and user.
    pub location: String,
    /// Whether to use TLS.
    pub ssl_mode: SslMode,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    /// Host and port.
    pub name: String,
    /// How to connect. It holds the password, which its `Debug` hides.
    pub config: Config,
}

impl Address {
    /// Parses a URL or libpq's `key=value` pairs. Without a host it is the socket of this machine's server.
    ///
    /// # Errors
    ///
    /// [`StoreError::Config`], whose text repeats nothing that may be a password.
    pub fn parse(database_url: &str, passwords: &Passwords, timeout: Duration) -> Result<Self, StoreError> {
        let mut parsed: Config = database_url.parse().map_err(|error| unreadable(&error))?;
        if parsed.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
            return Err(refused("it asks for a read-only server", "take target_session_attrs=read-only out"));
        }
        if parsed.get_hosts().is_empty() {
            let mut hosts: Vec<_> = parsed.get_hostaddrs().iter().map(ToString::to_string).collect();
            if hosts.is_empty() {
                hosts.push(if Path::new(SOCKET_DIR).is_dir() { SOCKET_DIR } else { "localhost" }.to_owned());
            }
            for host in hosts {
                parsed.host(host);
            }
        }
        // The parser ends the password at the first '@': what is left of it must not be shown as a host.
        let is_torn = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if parsed.get_hosts().iter().any(is_torn) {
            return Err(refused(
                "a host holds an '@'",
                "write the password with %40 for '@' (percent-encoding)",
            ));
        }
        Self::split(&parsed, passwords, timeout)
    }

    /// Makes a configuration of one host each, so that each gets a time limit of its own: a server whose machine takes
    /// the connection but whose process is stuck must not keep the next one from being tried.
    fn split(parsed: &Config, passwords: &Passwords, timeout: Duration) -> Result<Self, StoreError> {
        let (hosts, addresses, ports) = (parsed.get_hosts(), parsed.get_hostaddrs(), parsed.get_ports());
        if !addresses.is_empty() && addresses.len() != hosts.len() {
            return Err(refused("it has not one hostaddr a host", "give as many, or none"));
        }
        if ports.len() > 1 && ports.len() != hosts.len() {
            return Err(refused("it has not one port a host", "give one port for all, or one each"));
        }
        // TLS is for networks; the server offers none on a socket.
        let only_sockets = hosts.iter().all(|host| matches!(host, Host::Unix(_)));
        let ssl_mode = if only_sockets { SslMode::Disable } else { parsed.get_ssl_mode() };

        let mut servers = Vec::with_capacity(hosts.len());
        for (place, host) in hosts.iter().enumerate() {
            let port = *ports.get(place).or(ports.first()).unwrap_or(&PORT);
            let mut config = without_hosts(parsed, timeout);
            config.ssl_mode(ssl_mode).port(port);
            let name = match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            };
            match host {
                Host::Tcp(name) => config.host(name),
                Host::Unix(folder) => config.host_path(folder),
            };
            if let Some(address) = addresses.get(place) {
                config.hostaddr(*address);
            }
            passwords.complete(&mut config);
            servers.push(Server { name, config });
        }
        let location = location(&servers, parsed, addresses);
        Ok(Self { servers, location, ssl_mode })
    }
}

fn location(servers: &[Server], parsed: &Config, addresses: &[IpAddr]) -> String {
    let names = servers.iter().enumerate().map(|(place, server)| match addresses.get(place) {
        Some(address) if !server.name.contains(&address.to_string()) => {
            format!("{} ({address})", server.name)
        }
        _ => server.name.clone(),
    });
    let names = names.collect::<Vec<_>>().join(",");
    let user = parsed.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    let database = parsed.get_dbname().map(|database| format!("/{database}")).unwrap_or_default();
    format!("postgres://{user}{names}{database}")
}

/// Copies everything but hosts, addresses and ports, and fills in what makes a dead connection show.
fn without_hosts(parsed: &Config, timeout: Duration) -> Config {
    let mut config = Config::new();
    if let Some(user) = parsed.get_user() {
        config.user(user);
    }
    if let Some(password) = parsed.get_password() {
        config.password(password);
    }
    if let Some(database) = parsed.get_dbname() {
        config.dbname(database);
    }
    if let Some(options) = parsed.get_options() {
        config.options(options);
    }
    config
        .application_name(parsed.get_application_name().unwrap_or("liotbchain"))
        .ssl_negotiation(parsed.get_ssl_negotiation())
        .channel_binding(parsed.get_channel_binding())
        // All that this store does needs a server that can be written.
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .connect_timeout(parsed.get_connect_timeout().copied().unwrap_or(timeout).min(timeout))
        .tcp_user_timeout(parsed.get_tcp_user_timeout().copied().unwrap_or(timeout))
        .keepalives(parsed.get_keepalives())
        // The library's default of two hours is the kernel's: far longer than firewalls remember a connection.
        .keepalives_idle(parsed.get_keepalives_idle().min(Duration::from_secs(60)))
        .keepalives_interval(parsed.get_keepalives_interval().unwrap_or(Duration::from_secs(10)))
        .keepalives_retries(parsed.get_keepalives_retries().unwrap_or(3));
    config
}

fn unreadable(error: &tokio_postgres::Error) -> StoreError {
    let reason = error.source().map(ToString::to_string).unwrap_or_default();
    let option = reason.split('`').nth(1).unwrap_or_default();
    let cure =
        "write postgres://USER:PASSWORD@HOST:PORT/DATABASE, or host=… port=… dbname=… user=… password='…'";
    if reason.starts_with("invalid value for option") && option == "sslmode" {
        let cure = "use sslmode=disable, prefer or require (which checks the certificate and the host name)";
        refused("its sslmode is not known", cure)
    } else if reason.starts_with("invalid value for option") {
        refused(&format!("the value of its option {option} is not valid"), cure)
    } else if UNKNOWN_OPTIONS.contains(&option) {
        let cure = "take it out; root certificates are those of the system, or of SSL_CERT_FILE";
        refused(&format!("its option {option} is not supported"), cure)
    } else {
        refused("it cannot be read", cure)
    }
}

fn refused(reason: &str, cure: &str) -> StoreError {
    StoreError::Config {
        problem: format!("DATABASE_URL names no PostgreSQL server: {reason}"),
        cure: cure.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, StoreError> {
        Address::parse(text, &Passwords::default(), Duration::from_secs(10))
    }

    fn refusal(text: &str) -> (String, String) {
        match parse(text) {
            Err(StoreError::Config { problem, cure }) => (problem, cure),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn shows_where_it_is_without_the_password() {
        for (text, shown) in [
            ("postgres://pi:geheim@db.local/chain", "postgres://pi@db.local:5432/chain"),
            ("postgresql://pi:geheim@h1:5433,h2/chain", "postgres://pi@h1:5433,h2:5432/chain"),
            ("host=h1,h2 port=6000 user=pi password='ge heim'", "postgres://pi@h1:6000,h2:6000"),
            ("postgres://pi@[::1]:5433/chain?password=geheim", "postgres://pi@[::1]:5433/chain"),
            ("host=db hostaddr=10.0.0.1 dbname=chain", "postgres://db:5432 (10.0.0.1)/chain"),
            ("hostaddr=10.0.0.1 dbname=chain", "postgres://10.0.0.1:5432/chain"),
            ("postgres://%2Ftmp%2Fsocket:5433/chain", "postgres:///tmp/socket:5433/chain"),
        ] {
            let address = parse(text).unwrap();
            assert_eq!(address.location, shown, "{text}");
            assert!(!format!("{address:?}").contains("heim"), "{text}");
        }
    }

    #[test]
    fn tries_several_hosts_one_by_one_and_asks_each_for_writes() {
        let address =
            parse("postgres://pi:geheim@h1,h2/chain?target_session_attrs=any&connect_timeout=99").unwrap();
        for (server, name) in address.servers.iter().zip(["h1:5432", "h2:5432"]) {
            assert_eq!(server.name, name);
            assert_eq!(server.config.get_hosts().len(), 1);
            assert_eq!(server.config.get_password(), Some(&b"geheim"[..]));
            assert_eq!(server.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
            assert_eq!(server.config.get_connect_timeout(), Some(&Duration::from_secs(10)));
        }
    }

    #[test]
    fn takes_this_machines_server_where_no_host_is_named() {
        let address = parse("dbname=chain").unwrap();
        let expected = if Path::new(SOCKET_DIR).is_dir() { SOCKET_DIR } else { "localhost" };
        assert_eq!(address.location, format!("postgres://{expected}:5432/chain"));
    }

    #[test]
    fn uses_no_tls_on_a_socket() {
        assert_eq!(parse("host=/tmp sslmode=require").unwrap().ssl_mode, SslMode::Disable);
        assert_eq!(parse("host=h sslmode=require").unwrap().ssl_mode, SslMode::Require);
        assert_eq!(parse("host=h").unwrap().ssl_mode, SslMode::Prefer);
    }

    #[test]
    fn refusals_say_what_is_wrong_and_repeat_no_password() {
        for (text, word) in [
            ("host=h sslmode=verify-full password=geheim", "sslmode"),
            ("postgres://pi:geheim@h:70000/chain", "port"),
            ("postgres://pi:geheim@h/chain?sslrootcert=/ca.pem", "sslrootcert"),
            ("host=h password=ge geheim=x", "read"),
            ("host=h password='geheim", "read"),
            ("postgres://pi:ge@heim@h/chain", "'@'"),
            ("host=h1,h2 port=1,2,3 password=geheim", "port"),
            ("host=h1,h2 hostaddr=10.0.0.1 password=geheim", "hostaddr"),
            ("host=h target_session_attrs=read-only password=geheim", "read-only"),
        ] {
            let (problem, cure) = refusal(text);
            assert!(problem.contains(word), "{text}: {problem}");
            assert!(
                !problem.contains("heim") && !cure.contains("heim") && !cure.is_empty(),
                "{text}: {problem}"
            );
        }
    }
}
