//! What an agent needs to speak TLS, made ready once: whom to believe, and what to show.
//!
//! Every handshake is a whole one, in both directions: a resumed one would show no certificate.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;
use ztc_wire::Certified;

/// Why an agent cannot speak TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate of the authority is none.
    #[error("read the certificate of the authority")]
    Authority(#[source] rustls::Error),
    /// The agent's own certificate or key is none, or one is not for the other.
    #[error("read the agent's certificate and key")]
    Certificate(#[source] rustls::Error),
    /// The library offers no version of TLS.
    #[error("choose versions of TLS")]
    Versions(#[source] rustls::Error),
}

/// Both sides of TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    /// Absent where no authority is known.
    pub(crate) client: Option<Arc<ClientConfig>>,
    /// Absent where there is no certificate to show.
    pub(crate) server: Option<Arc<ServerConfig>>,
}

impl Tls {
    /// From what the agent was told at its start.
    pub(crate) fn new(told: Option<&ztc_wire::Tls>) -> Result<Self, TlsError> {
        let Some(told) = told else { return Ok(Self::default()) };
        Ok(Self {
            client: Some(client(&told.authority.0)?),
            server: told.shows.as_ref().map(server).transpose()?,
        })
    }
}

fn client(authority: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec())).map_err(TlsError::Authority)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn server(own: &Certified) -> Result<Arc<ServerConfig>, TlsError> {
    let certificate = CertificateDer::from(own.certificate.0.clone());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key.0.clone()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(TlsError::Certificate)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
