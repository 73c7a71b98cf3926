//! What an agent needs to speak TLS, made ready once: whom to believe, and what to show.
//!
//! Every handshake is a whole one, in both directions: a resumed one would show no certificate.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerMisbehaved, RootCertStore,
    ServerConfig, SignatureScheme,
};
use thiserror::Error;
use ztc_wire::{Certified, Papers};

/// Why an agent cannot speak TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate of the authority is none.
    #[error("read the certificate of the authority")]
    Authority(#[source] rustls::Error),
    /// The agent's own certificate or key is none, or one is not for the other.
    #[error("read the agent's certificate and key")]
    Certificate(#[source] rustls::Error),
    /// Nobody can be verified with the authority's certificate.
    #[error("verify peers by the certificate of the authority")]
    Verifier(#[source] VerifierBuilderError),
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

fn roots(authority: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec())).map_err(TlsError::Authority)?;
    Ok(roots)
}

fn client(authority: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = roots(authority)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn server(own: &Certified) -> Result<Arc<ServerConfig>, TlsError> {
    let (certificate, key) = shown(own);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(TlsError::Certificate)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn shown(own: &Certified) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from(own.certificate.0.clone());
    (certificate, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.key.0.clone())))
}

/// What a client of a tunnel of the mesh speaks: TLS 1.3 alone, HTTP/2 alone, no name asked for.
pub(crate) fn tunnels(papers: &Papers) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(default_provider());
    let roots = Arc::new(roots(&papers.authority.0)?);
    let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(TlsError::Verifier)?;
    let verifier = Arc::new(Peer { chain, identity: papers.peer.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &papers.shows {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let (certificate, key) = shown(own);
            builder.with_client_auth_cert(vec![certificate], key).map_err(TlsError::Certificate)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Lets the peer of a tunnel be who it has to be, and nobody else.
#[derive(Debug)]
struct Peer {
    /// Peers of the mesh have no names of hosts, so what is verified of a client is all that there is of a server.
    chain: Arc<dyn ClientCertVerifier>,
    identity: String,
}

impl ServerCertVerifier for Peer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_error| CertificateError::BadEncoding)?;
        let presented: Vec<String> = certificate.valid_uri_names().map(str::to_owned).collect();
        // One that is for several is nobody's.
        if presented == [self.identity.as_str()] {
            return Ok(ServerCertVerified::assertion());
        }
        let expected = server_name.to_owned();
        Err(CertificateError::NotValidForNameContext { expected, presented }.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SelectedUnofferedCipherSuite.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
