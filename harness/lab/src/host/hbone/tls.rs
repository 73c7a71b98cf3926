//! Mutual TLS between proxies of the mesh: version 1.3, HTTP/2 alone, identities instead of names.
//!
//! Follows `src/tls/` of istio/ztunnel: a chain has to lead to the mesh's own authority and to name one SPIFFE identity;
//! whoever opens a tunnel says which identity it has to be, and who accepts one takes any.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, PeerMisbehaved,
    RootCertStore, ServerConfig, SignatureScheme,
};

use ztc_model::policy::mesh::SpiffeId;

use super::error::ProxyError;
use crate::fault::{Fault, Faults};
use crate::mesh::{Certified, Mesh};

/// What a tunnel speaks.
const ALPN: &[u8] = b"h2";

/// Why a pod's proxy cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The mesh's authority cannot be used.
    #[error("cannot verify peers of the mesh")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The certificate or key cannot be used, or TLS has no version 1.3.
    #[error("cannot show a certificate of the mesh")]
    Certificate(#[source] rustls::Error),
}

/// Both sides of TLS of one workload.
pub(in crate::host) struct Tls {
    provider: Arc<CryptoProvider>,
    peers: Arc<dyn ClientCertVerifier>,
    own: Certified,
    server: Arc<ServerConfig>,
    /// Tunnels are opened without it.
    left_out: bool,
    /// Tunnels without it are accepted.
    accepts_clear: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// That of a workload with an identity in a mesh.
    pub(in crate::host) fn of(mesh: &Mesh, identity: &SpiffeId) -> Result<Self, ProxyError> {
        let trust = mesh.trust();
        Ok(Self::new(trust.roots(), trust.issue(identity)?, &mesh.faults)?)
    }

    pub(in crate::host) fn new(
        roots: Arc<RootCertStore>,
        own: Certified,
        faults: &Faults,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let peers = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(TlsError::Verifier)?;
        let clients: Arc<dyn ClientCertVerifier> = if faults.has(Fault::HboneAcceptsAnyCertificate)
        {
            Arc::new(Anybody(Arc::clone(&peers)))
        } else {
            Arc::clone(&peers)
        };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Certificate)?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())
            .map_err(TlsError::Certificate)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        let left_out = faults.has(Fault::HboneInClear);
        let accepts_clear = faults.has(Fault::HboneAcceptsClear);
        Ok(Self { provider, peers, own, server: Arc::new(server), left_out, accepts_clear })
    }

    /// Whether tunnels go without.
    pub(super) const fn is_left_out(&self) -> bool {
        self.left_out
    }

    /// Whether tunnels that come may go without.
    pub(super) const fn accepts_clear(&self) -> bool {
        self.accepts_clear
    }

    /// For tunnels that come.
    pub(in crate::host) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For a tunnel to a peer with this identity.
    pub(in crate::host) fn client(&self, identity: &SpiffeId) -> Result<ClientConfig, TlsError> {
        let chain = Arc::clone(&self.peers);
        let verifier = IdentityVerifier { chain, identity: identity.clone() };
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Certificate)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(vec![self.own.certificate.clone()], self.own.key.clone_key())
            .map_err(TlsError::Certificate)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        // There is no name to ask for.
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        Ok(client)
    }
}

/// The SPIFFE identity that a certificate is for: the only one of its names that is a URI.
pub(in crate::host) fn identity_of(certificate: &CertificateDer<'_>) -> Option<SpiffeId> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_uri_names();
    let name = names.next()?;
    if names.next().is_some() { None } else { name.parse().ok() }
}

/// Lets a peer be who it has to be, and nobody else.
#[derive(Debug)]
struct IdentityVerifier {
    /// Peers of the mesh have no names of hosts, so what is verified of a client is all that there is of a server.
    chain: Arc<dyn ClientCertVerifier>,
    identity: SpiffeId,
}

impl ServerCertVerifier for IdentityVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.chain.verify_client_cert(end_entity, intermediates, now)?;
        if identity_of(end_entity).is_some_and(|it| it == self.identity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
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

/// Lets a client be whoever it says, and nobody: what is broken on purpose.
#[derive(Debug)]
struct Anybody(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
