//! TLS to the server, by rustls with aws-lc, for each `sslmode`:
//!
//! - `disable`: no TLS.
//! - `prefer` (the default): TLS where the server offers it. Nothing is verified, as in libpq: whoever can pose as the
//!   server can as well say that it offers none, so that a check would only refuse honest servers with a certificate of
//!   their own, which Debian's PostgreSQL has from the start.
//! - `require`: TLS, with a certificate for this host name that leads to a root that the operating system trusts
//!   (`SSL_CERT_FILE` or `SSL_CERT_DIR` name others). That is more than libpq's `require`: it is its `verify-full`.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::StoreError;

/// Returns what makes TLS connections in this mode.
///
/// # Errors
///
/// [`StoreError::Config`] where the certificates of the system cannot be read.
pub(super) fn connector(mode: SslMode) -> Result<MakeRustlsConnect, StoreError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let config = if mode == SslMode::Require {
        builder.with_root_certificates(system_roots()?).with_no_client_auth()
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth()
    };
    Ok(MakeRustlsConnect::new(config))
}

fn system_roots() -> Result<RootCertStore, StoreError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    match loaded.errors.first() {
        _ if added > 0 => Ok(roots),
        Some(error) => Err(unusable(error)),
        None => Err(unusable(&"the system has no root certificates")),
    }
}

fn unusable(reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Config {
        problem: format!("TLS to PostgreSQL cannot be set up: {reason}"),
        cure: "install the package ca-certificates, or set SSL_CERT_FILE to a file of root certificates"
            .to_owned(),
    }
}

/// Takes any certificate, but holds the server to its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
