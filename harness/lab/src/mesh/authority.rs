//! The authority of a mesh: certificates with SPIFFE identities, as istiod issues them.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use ztc_model::policy::mesh::SpiffeId;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshAuthorityError {
    /// The authority could not be made.
    #[error("cannot make the authority of the mesh")]
    Make(#[source] rcgen::Error),
    /// Its certificate cannot be believed.
    #[error("cannot believe the authority of the mesh")]
    Believe(#[source] rustls::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate for {identity}")]
    Issue {
        /// For whom.
        identity: SpiffeId,
        /// Why.
        source: rcgen::Error,
    },
}

/// The authority of one lane: its ztunnels believe it, and nobody else.
pub(crate) struct MeshAuthority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

/// A certificate and its key.
pub(crate) struct Certified {
    /// The certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// Its key.
    pub(crate) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for MeshAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshAuthority").finish_non_exhaustive()
    }
}

impl MeshAuthority {
    /// A new one.
    pub(crate) fn new() -> Result<Self, MeshAuthorityError> {
        let key = KeyPair::generate().map_err(MeshAuthorityError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).map_err(MeshAuthorityError::Make)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).map_err(MeshAuthorityError::Believe)?;
        Ok(Self { issuer: Issuer::new(params, key), roots: Arc::new(roots) })
    }

    /// Whom workloads believe.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// A certificate for an identity, which is all that it names.
    pub(crate) fn issue(&self, identity: &SpiffeId) -> Result<Certified, MeshAuthorityError> {
        let issue = || {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = params.signed_by(&key, &self.issuer)?;
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            Ok(Certified { certificate: certificate.der().clone(), key })
        };
        let failed = |source| MeshAuthorityError::Issue { identity: identity.clone(), source };
        issue().map_err(failed)
    }
}
