//! The authority of a lane's mesh, and who believes it.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use ztc_engine::mesh_authority::{MeshAuthority, MeshAuthorityError};
use ztc_model::policy::mesh::SpiffeId;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The authority could not be made, or a certificate of its.
    #[error(transparent)]
    Authority(#[from] MeshAuthorityError),
    /// Its certificate cannot be believed.
    #[error("cannot believe the authority of the mesh")]
    Believe(#[source] rustls::Error),
}

/// What one lane's proxies believe, and nobody else does.
pub(crate) struct Trust {
    authority: Arc<MeshAuthority>,
    roots: Arc<RootCertStore>,
}

/// A certificate and its key.
pub(crate) struct Certified {
    /// The certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// Its key.
    pub(crate) key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// In a new authority.
    pub(crate) fn new() -> Result<Self, TrustError> {
        let authority = Arc::new(MeshAuthority::new()?);
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from(authority.certificate().0.clone());
        roots.add(certificate).map_err(TrustError::Believe)?;
        Ok(Self { authority, roots: Arc::new(roots) })
    }

    /// The authority.
    pub(crate) fn authority(&self) -> Arc<MeshAuthority> {
        Arc::clone(&self.authority)
    }

    /// Whom workloads believe.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// A certificate for an identity, which is all that it names.
    pub(crate) fn issue(&self, identity: &SpiffeId) -> Result<Certified, TrustError> {
        let issued = self.authority.issue(identity, None)?;
        let certificate = CertificateDer::from(issued.certificate.0);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(issued.key.0));
        Ok(Certified { certificate, key })
    }
}
