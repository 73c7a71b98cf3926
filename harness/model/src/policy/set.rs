//! Policies as they were read.

use crate::labels::Labels;
use crate::selector::Selector;

use super::{EndpointPolicy, PolicyRef};

/// A policy of one of the kinds that are evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// A `NetworkPolicy`.
    Network(Specs),
    /// A `CiliumNetworkPolicy`.
    Cilium(Specs),
    /// A `CiliumClusterwideNetworkPolicy`.
    Clusterwide(Specs),
}

/// What a policy says: one spec or more, which add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specs {
    /// Its name.
    pub reference: PolicyRef,
    /// Its specs.
    pub specs: Vec<Spec>,
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
        self.specs().reference.clone()
    }

    /// Whether it is about the whole cluster.
    pub fn is_clusterwide(&self) -> bool {
        matches!(self, Self::Clusterwide(_))
    }

    /// What it says.
    pub fn specs(&self) -> &Specs {
        match self {
            Self::Network(specs) | Self::Cilium(specs) | Self::Clusterwide(specs) => specs,
        }
    }

    /// What it alone says about an endpoint with these labels, if it selects it.
    pub fn select(&self, subject: &Labels) -> Option<EndpointPolicy> {
        let mut selected = self
            .specs()
            .specs
            .iter()
            .filter(|spec| spec.subject.matches(subject))
            .map(|spec| &spec.policy);
        let mut whole = selected.next()?.clone();
        selected.for_each(|part| whole.add(part));
        Some(whole)
    }
}
