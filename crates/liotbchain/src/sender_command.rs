//! `liotbchain sender`: a gateway that takes the readings of devices and sends them to a receiver; and `sender check`,
//! which tests all that it depends on.

mod check;

use liotbchain_core::KeyId;
use liotbchain_sender::mqtt::MqttConfig;
use liotbchain_sender::{ForwardConfig, KEY_FILE, Receiver, SenderConfig, SenderOptions, SigningKey};
use url::Host;

use crate::Failure;
use crate::output::warn;
use crate::receiver_command::edge;
use crate::settings::Settings;
use crate::stop::Stop;

pub use check::check;

/// Runs the sender until somebody asks to stop.
///
/// # Errors
///
/// Where it cannot start. A receiver or a broker that is away is no reason.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    warn_of_open_tokens(settings);
    let stop =
        Stop::on_signal().map_err(|error| Failure::failed(format!("no signal can be caught: {error}")))?;
    let key = SigningKey::load_or_create(&settings.data_dir.join(KEY_FILE), settings.sender_key)?;
    let options = SenderOptions {
        data_dir: settings.data_dir.clone(),
        forward: forward(settings)?,
        outbox: settings.outbox,
        mqtt: mqtt(settings, key.public_key().key_id())?,
        key,
    };
    let config = SenderConfig {
        options,
        listen: settings.sender_listen,
        edge: edge(settings),
        connections_max: settings.connections_max,
    };
    let asked = async {
        stop.asked().await;
        tracing::info!("stopping: what is on its way is waited for");
    };
    liotbchain_sender::run(config, asked).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Says where a secret can be read on the way.
fn warn_of_open_tokens(settings: &Settings) {
    let is_open = |url: &&url::Url| url.scheme() == "http" && !is_loopback(url.host());
    if settings.receiver_token.is_some()
        && let Some(url) = settings.receiver_urls.iter().find(is_open)
    {
        let warning = format!("RECEIVER_TOKEN goes to {url} without encryption: whoever listens can use it");
        warn(&warning, Some("put a proxy with TLS before the receiver, and https:// into RECEIVER_URL"));
    }
}

/// Returns where readings go.
fn forward(settings: &Settings) -> Result<ForwardConfig, Failure> {
    let token = settings.receiver_token.as_ref().map(|token| token.reveal());
    let receivers = settings.receiver_urls.iter().map(|url| Receiver::new(url.clone(), token));
    Ok(ForwardConfig {
        receivers: receivers.collect::<Result<_, _>>()?,
        protocol: settings.receiver_protocol,
    })
}

/// Returns where readings come from beside HTTP, for a sender with this key.
fn mqtt(settings: &Settings, key_id: KeyId) -> Result<Option<MqttConfig>, Failure> {
    Ok(settings.mqtt.as_ref().map(|mqtt| mqtt.of_sender(key_id)).transpose()?)
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
