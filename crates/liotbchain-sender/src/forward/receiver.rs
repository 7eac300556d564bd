//! Where readings go.

use reqwest::{Url, header::HeaderValue};

/// Where readings go. The token shows in no `Debug` and no log.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub(super) url: Url,
    pub(crate) authorization: Option<HeaderValue>,
}

/// Why a receiver cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The address is of no HTTP server.
    #[error("{0} is not the address of a receiver: expected http:// or https:// in RECEIVER_URL")]
    Url(Url),
    /// The token does not fit into a header.
    #[error("RECEIVER_TOKEN holds characters that no HTTP header can carry: expected visible ASCII")]
    Token,
    /// There is no address.
    #[error("RECEIVER_URL names no receiver: set it to the address of one, such as http://127.0.0.1:5001")]
    None,
    /// The HTTP client cannot be made, for want of certificates for example.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Receiver {
    /// Names a receiver by its base address, and the `API_TOKEN` it asks for.
    ///
    /// # Errors
    ///
    /// [`ReceiverError`] says what is wrong with either.
    pub fn new(url: Url, token: Option<&str>) -> Result<Self, ReceiverError> {
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(ReceiverError::Url(url));
        }
        let authorization = token.map(|token| {
            let mut value =
                HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ReceiverError::Token)?;
            value.set_sensitive(true);
            Ok::<_, ReceiverError>(value)
        });
        Ok(Self { url, authorization: authorization.transpose()? })
    }

    /// Returns the base address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn is_on_this_machine(&self) -> bool {
        match self.url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}
