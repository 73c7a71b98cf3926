//! Who a peer of the mesh is.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The scheme of a SPIFFE identity. Policies are written without it.
pub(super) const SCHEME: &str = "spiffe://";

/// The trust domain of a mesh that is given no other (`meshConfig.trustDomain` of Istio).
pub const TRUST_DOMAIN: &str = "cluster.local";

/// The identity in a certificate of the mesh: `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`
/// (`src/identity/manager.rs` of istio/ztunnel).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The trust domain, [`TRUST_DOMAIN`] unless the mesh is given another.
    pub trust_domain: String,
    /// The namespace.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
}

/// A text that is no identity of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{text}` is no identity of the mesh; one is written `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`"
)]
pub struct NotASpiffeId {
    text: String,
}

impl SpiffeId {
    /// That of a workload in a mesh with the [`TRUST_DOMAIN`] that it has by default.
    pub fn of(namespace: &str, service_account: &str) -> Self {
        Self {
            trust_domain: TRUST_DOMAIN.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        }
    }

    /// What policies call a principal: the identity without its scheme.
    pub fn principal(&self) -> String {
        let Self { trust_domain, namespace, service_account } = self;
        format!("{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.principal())
    }
}

impl FromStr for SpiffeId {
    type Err = NotASpiffeId;

    fn from_str(text: &str) -> Result<Self, NotASpiffeId> {
        let wrong = || NotASpiffeId { text: text.to_owned() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        match rest.split('/').collect::<Vec<_>>().as_slice() {
            [trust_domain, "ns", namespace, "sa", service_account] => Ok(Self {
                trust_domain: (*trust_domain).to_owned(),
                namespace: (*namespace).to_owned(),
                service_account: (*service_account).to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_is_written() {
        let text = "spiffe://cluster.local/ns/zt-bank/sa/teller";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.principal(), "cluster.local/ns/zt-bank/sa/teller");
    }

    #[test]
    fn what_is_no_identity_of_the_mesh_is_refused() {
        for text in
            ["", "cluster.local/ns/a/sa/b", "spiffe://cluster.local/ns/a", "spiffe://d/a/b/sa/c"]
        {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
