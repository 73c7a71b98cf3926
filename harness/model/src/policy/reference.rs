//! Names of policies.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds of policies that are known.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `cilium.io/v2`, in a namespace.
    CiliumNetworkPolicy,
    /// `cilium.io/v2`, for the whole cluster.
    CiliumClusterwideNetworkPolicy,
    /// `cilium.io/v2`, how Cilium's agents are configured: which pods policies are enforced for.
    CiliumNodeConfig,
    /// `security.istio.io/v1`: who may speak in plain.
    PeerAuthentication,
    /// `security.istio.io/v1`: whose tokens are believed.
    RequestAuthentication,
    /// `security.istio.io/v1`: who may do what.
    AuthorizationPolicy,
    /// `gateway.networking.k8s.io/v1`: a waypoint, to which policies are bound.
    Gateway,
    /// `policy.networking.k8s.io/v1alpha1`, which Cilium does not know (cilium#23380).
    AdminNetworkPolicy,
    /// The same, below all others.
    BaselineAdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`, which Cilium enforces since 1.20 where it is told to
    /// (`k8sClusterNetworkPolicy.enabled`).
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NetworkPolicy,
        Self::CiliumNetworkPolicy,
        Self::CiliumClusterwideNetworkPolicy,
        Self::CiliumNodeConfig,
        Self::PeerAuthentication,
        Self::RequestAuthentication,
        Self::AuthorizationPolicy,
        Self::Gateway,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
        Self::ClusterNetworkPolicy,
    ];

    /// Its name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::CiliumNodeConfig => "CiliumNodeConfig",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::Gateway => "Gateway",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// Its group and version in a manifest.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::CiliumNetworkPolicy
            | Self::CiliumClusterwideNetworkPolicy
            | Self::CiliumNodeConfig => "cilium.io/v2",
            Self::PeerAuthentication | Self::RequestAuthentication | Self::AuthorizationPolicy => {
                "security.istio.io/v1"
            }
            Self::Gateway => "gateway.networking.k8s.io/v1",
            Self::AdminNetworkPolicy | Self::BaselineAdminNetworkPolicy => {
                "policy.networking.k8s.io/v1alpha1"
            }
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        }
    }

    /// Whether the mesh enforces it, and not Cilium.
    pub fn is_of_the_mesh(self) -> bool {
        matches!(
            self,
            Self::PeerAuthentication | Self::RequestAuthentication | Self::AuthorizationPolicy
        )
    }

    /// Whether nobody enforces it: to Cilium, as it is installed by default, and to the mesh it does not exist.
    pub fn is_unenforced(self) -> bool {
        matches!(
            self,
            Self::AdminNetworkPolicy
                | Self::BaselineAdminNetworkPolicy
                | Self::ClusterNetworkPolicy
        )
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(self) -> bool {
        self != Self::CiliumClusterwideNetworkPolicy && !self.is_unenforced()
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy by kind, namespace and name; written `NetworkPolicy/zt-pay/default-deny` or
/// `CiliumClusterwideNetworkPolicy/block-metadata`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PolicyRef {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace, for kinds that have one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl From<PolicyRef> for String {
    fn from(policy: PolicyRef) -> Self {
        policy.to_string()
    }
}

/// A text that names no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no policy; write `KIND/namespace/name`, such as `NetworkPolicy/zt-pay/default-deny`, \
     or `CiliumClusterwideNetworkPolicy/name`"
)]
pub struct NotAPolicy {
    text: String,
}

impl FromStr for PolicyRef {
    type Err = NotAPolicy;

    fn from_str(text: &str) -> Result<Self, NotAPolicy> {
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        let kind = PolicyKind::ALL.into_iter().find(|candidate| candidate.name() == kind);
        let parts: Vec<&str> = rest.split('/').collect();
        match (kind, parts.as_slice()) {
            _ if parts.contains(&"") => None,
            (Some(kind), [namespace, name]) if kind.is_namespaced() => Some(Self {
                kind,
                namespace: Some((*namespace).to_owned()),
                name: (*name).to_owned(),
            }),
            (Some(kind), [name]) if !kind.is_namespaced() => {
                Some(Self { kind, namespace: None, name: (*name).to_owned() })
            }
            _ => None,
        }
        .ok_or_else(|| NotAPolicy { text: text.to_owned() })
    }
}

impl TryFrom<String> for PolicyRef {
    type Error = NotAPolicy;

    fn try_from(text: String) -> Result<Self, NotAPolicy> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_written_with_its_namespace_if_it_has_one() {
        for text in [
            "NetworkPolicy/zt-pay/default-deny",
            "CiliumNetworkPolicy/zt-pay/dns",
            "AuthorizationPolicy/zt-pay/allow-web",
            "CiliumClusterwideNetworkPolicy/block-metadata",
        ] {
            assert_eq!(text.parse::<PolicyRef>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_text_that_names_no_policy_is_refused() {
        for text in [
            "",
            "NetworkPolicy/default-deny",
            "NetworkPolicy//default-deny",
            "NetworkPolicy/a/b/c",
            "CiliumClusterwideNetworkPolicy/zt-pay/block-metadata",
            "AdminNetworkPolicy/a/b",
            "GlobalNetworkPolicy/a",
        ] {
            assert!(text.parse::<PolicyRef>().is_err(), "{text}");
        }
    }
}
