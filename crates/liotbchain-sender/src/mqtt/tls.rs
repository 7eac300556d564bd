//! TLS to the broker, by rustls with aws-lc as everywhere else.

use std::{io, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, IpAddr, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Host;

use super::{config::MqttConfigError, fault::MqttFault};

/// Makes what verifies the broker's certificate: against the file's where one is given, else against those that the
/// system trusts.
///
/// # Errors
///
/// [`MqttConfigError`] where there are no certificates.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, MqttConfigError> {
    let roots = match ca_file {
        Some(path) => read_roots(path)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| MqttConfigError::Roots(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn read_roots(path: &Path) -> Result<RootCertStore, MqttConfigError> {
    let wrong = |problem: String| MqttConfigError::CaFile { path: path.to_owned(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it holds no certificate".to_owned())) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, MqttConfigError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    match loaded.errors.first() {
        _ if added > 0 => Ok(roots),
        Some(error) => Err(MqttConfigError::Roots(error.to_string())),
        None => Err(MqttConfigError::Roots("the system has no root certificates".to_owned())),
    }
}

/// Shakes hands.
///
/// # Errors
///
/// [`MqttFault::Tls`] says what to do.
pub(super) async fn connect(
    config: Arc<ClientConfig>,
    host: &Host,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, MqttFault> {
    let name = match host {
        // An address of version 4 comes as text here.
        Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|error| MqttFault::Tls {
            problem: error.to_string(),
            cure: "MQTT_URL must name the host as the broker's certificate does",
        })?,
        Host::Ipv4(address) => ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from(*address))),
        Host::Ipv6(address) => ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from(*address))),
    };
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| explain(&error))
}

fn explain(error: &io::Error) -> MqttFault {
    let tls = error.get_ref().and_then(|source| source.downcast_ref::<Error>());
    let cure = match tls {
        // The other is what an authority of the same name and another key gets.
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "set MQTT_CA_FILE to the certificate that signed the broker's"
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "MQTT_URL must name the host as the broker's certificate does",
        Some(Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => "renew the broker's certificate, or set this machine's clock",
        Some(Error::InvalidCertificate(_)) => "the broker's certificate, or MQTT_CA_FILE, is to be replaced",
        _ => {
            "check that this port of the broker has TLS (usually 8883); without, MQTT_URL begins with mqtt://"
        }
    };
    MqttFault::Tls { problem: error.to_string(), cure }
}
