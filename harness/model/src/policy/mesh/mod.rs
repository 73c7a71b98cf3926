//! The policies of Istio's ambient mesh, as they are written and as they are enforced.
//!
//! Read and refused field by field, as those of Cilium are. What they say is not what they do: [`ztunnel`] knows
//! TCP alone, and a [`waypoint`] only what is bound to it.

mod authorization;
mod binding;
mod gateway;
mod peers;
mod requests;
mod spiffe;
mod text;
mod validity;
pub mod waypoint;
pub mod ztunnel;

pub use authorization::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};
pub use binding::TargetRef;
pub use peers::{Mode, PeerAuthentication};
pub use requests::{JwtHeader, JwtRule, RequestAuthentication};
pub use spiffe::{NotASpiffeId, SpiffeId, TRUST_DOMAIN};

pub(crate) use authorization::authorization;
pub(crate) use gateway::gateway;
pub(crate) use peers::peers;
pub(crate) use requests::requests;

use super::PolicyRef;

/// Istio's root namespace: a policy in it without a selector is about the whole mesh.
pub const ROOT_NAMESPACE: &str = "istio-system";

/// What `STRICT` becomes in the root namespace: workloads refer to it, and it does not say which policy asks for it
/// (`ambient/authorization.go` of istiod).
pub const STATIC_STRICT: &str = "istio_converted_static_strict";

/// How the name begins of what a `PeerAuthentication` with modes for ports becomes.
pub const CONVERTED_PEERS: &str = "converted_peer_authentication_";

/// A policy of one of the kinds of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshPolicy {
    /// Who may speak in plain.
    Peers(PeerAuthentication),
    /// Whose tokens are believed.
    Requests(RequestAuthentication),
    /// Who may do what.
    Authorization(AuthorizationPolicy),
}

impl MeshPolicy {
    /// Its name.
    pub fn reference(&self) -> &PolicyRef {
        match self {
            Self::Peers(policy) => &policy.reference,
            Self::Requests(policy) => &policy.reference,
            Self::Authorization(policy) => &policy.reference,
        }
    }

    /// Whether it is about workloads of all namespaces.
    pub fn is_meshwide(&self) -> bool {
        self.reference().namespace.as_deref() == Some(ROOT_NAMESPACE)
    }
}
