//! `liotbchain sender`: simulated devices that send to a receiver when they are told to.

use liotbchain_sender::{Receiver, SenderConfig};
use url::Host;

use crate::Failure;
use crate::output::warn;
use crate::receiver_command::edge;
use crate::settings::Settings;
use crate::stop::Stop;

/// Runs the sender until somebody asks to stop.
///
/// # Errors
///
/// Where it cannot start. A receiver that is away is no reason.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let token = settings.receiver_token.as_ref();
    if token.is_some()
        && settings.receiver_url.scheme() == "http"
        && !is_loopback(settings.receiver_url.host())
    {
        let warning = format!(
            "RECEIVER_TOKEN goes to {} without encryption: whoever listens can use it",
            settings.receiver_url
        );
        warn(&warning, Some("put a proxy with TLS before the receiver, and https:// into RECEIVER_URL"));
    }
    let config = SenderConfig {
        data_dir: settings.data_dir.clone(),
        key_kind: settings.sender_key,
        receiver: Receiver::new(settings.receiver_url.clone(), token.map(|token| token.reveal()))?,
        listen: settings.sender_listen,
        edge: edge(settings),
        connections_max: settings.connections_max,
    };
    let stop =
        Stop::on_signal().map_err(|error| Failure::failed(format!("no signal can be caught: {error}")))?;
    let asked = async {
        stop.asked().await;
        tracing::info!("stopping: the list on its way is waited for");
    };
    liotbchain_sender::run(config, asked).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Tells whether a host is this machine.
pub fn is_loopback(host: Option<Host<&str>>) -> bool {
    match host {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn knows_which_hosts_are_this_machine() {
        let here = |url: &str| is_loopback(Url::parse(url).unwrap().host());
        for url in ["http://127.0.0.1:5001", "http://localhost", "http://a.localhost:1", "http://[::1]:5001"]
        {
            assert!(here(url), "{url}");
        }
        for url in ["http://10.0.0.1:5001", "http://localhost.example.org", "http://[2001:db8::1]"] {
            assert!(!here(url), "{url}");
        }
    }
}
