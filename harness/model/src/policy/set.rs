//! Policies as they were read.

use crate::labels::Labels;
use crate::selector::Selector;
use crate::world::Waypoint;

use super::mesh::MeshPolicy;
use super::{EndpointPolicy, PolicyRef};

/// A policy of one of the kinds that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// A `NetworkPolicy`.
    Network(Specs),
    /// A `CiliumNetworkPolicy`.
    Cilium(Specs),
    /// A `CiliumClusterwideNetworkPolicy`.
    Clusterwide(Specs),
    /// The enforcement mode `always`, of a `CiliumNodeConfig`.
    Mode(Specs),
    /// A policy of the mesh, which Cilium does not know.
    Mesh(MeshPolicy),
    /// A `Gateway` that is a waypoint: it is no policy, and others are bound to it.
    Gateway {
        /// Its name.
        reference: PolicyRef,
        /// The waypoint.
        waypoint: Waypoint,
    },
    /// A policy of a kind that nobody enforces, whatever it says.
    Unenforced(PolicyRef),
}

/// What a policy says: one spec or more, which add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specs {
    /// Its name.
    pub reference: PolicyRef,
    /// Its specs.
    pub specs: Vec<Spec>,
    /// Whether some rule has `serverNames`: it allows no more than the connections whose TLS handshake
    /// asks for one of them, which is not in the rules here. Who decides by rules alone must not take it.
    pub reads_handshakes: bool,
}

/// Whom a spec is about, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The endpoints it selects.
    pub subject: Selector,
    /// What it says about them.
    pub policy: EndpointPolicy,
}

impl Policy {
    /// Its name.
    pub fn reference(&self) -> PolicyRef {
        match self {
            Self::Network(it) | Self::Cilium(it) | Self::Clusterwide(it) | Self::Mode(it) => {
                it.reference.clone()
            }
            Self::Mesh(policy) => policy.reference().clone(),
            Self::Gateway { reference, .. } | Self::Unenforced(reference) => reference.clone(),
        }
    }

    /// Whether its rules allow less than they say, for what a TLS handshake asks for.
    pub const fn reads_handshakes(&self) -> bool {
        match self {
            Self::Network(it) | Self::Cilium(it) | Self::Clusterwide(it) => it.reads_handshakes,
            Self::Mode(_) | Self::Mesh(_) | Self::Gateway { .. } | Self::Unenforced(_) => false,
        }
    }

    /// Whether it is about the whole cluster.
    pub fn is_clusterwide(&self) -> bool {
        match self {
            Self::Clusterwide(_) | Self::Mode(_) | Self::Unenforced(_) => true,
            Self::Mesh(policy) => policy.is_meshwide(),
            Self::Network(_) | Self::Cilium(_) | Self::Gateway { .. } => false,
        }
    }

    /// What it says to Cilium.
    pub fn specs(&self) -> &[Spec] {
        match self {
            Self::Network(it) | Self::Cilium(it) | Self::Clusterwide(it) | Self::Mode(it) => {
                &it.specs
            }
            Self::Mesh(_) | Self::Gateway { .. } | Self::Unenforced(_) => &[],
        }
    }

    /// What it alone says about an endpoint with these labels, if it selects it.
    pub fn select(&self, subject: &Labels) -> Option<EndpointPolicy> {
        let mut selected = self
            .specs()
            .iter()
            .filter(|spec| spec.subject.matches(subject))
            .map(|spec| &spec.policy);
        let mut whole = selected.next()?.clone();
        selected.for_each(|part| whole.add(part));
        Some(whole)
    }
}
