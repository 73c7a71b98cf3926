//! What ztunnel decides about a connection, by what istiod tells it of the policies.
//!
//! ztunnel decides at the server alone, about TCP alone, when a connection opens, and again about open ones when a
//! policy changes. Its own words are fewer than those of the kinds: istiod converts. Where a rule names its source
//! as `src/...`, that is a path in istio/ztunnel of 2026-08-20, and `ambient/...` one below
//! `pilot/pkg/serviceregistry` of istio/istio of 2026-08-22: version 1.31 and what follows it.

mod authorization;
mod peers;
mod rbac;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::policy::{Effect, PolicyRef};
use crate::ztunnel::{DENIED_BY, NONE_ALLOWED, REJECTION};

use super::spiffe::SpiffeId;
use super::{MeshPolicy, PeerAuthentication};

pub use super::text::TextMatch;
pub use rbac::{Account, Authorization, Clause, Match, Rule, Scope, Values};
pub use status::condition;

/// A workload of the mesh that is connected to.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The labels of its pod.
    pub labels: &'a BTreeMap<String, String>,
}

/// A connection as the server's ztunnel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Who connects, by its certificate; nobody that is known for one that speaks in plain. Behind a waypoint it is
    /// the waypoint.
    pub peer: Option<SpiffeId>,
    /// From which address.
    pub source: IpAddr,
    /// To which of the workload's addresses and ports: that which the tunnel asks for, not HBONE's own port.
    pub destination: SocketAddr,
}

/// A policy as ztunnel knows and names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// Its namespace; the root namespace for what `STRICT` becomes.
    pub namespace: String,
    /// Its name, which is that of an `AuthorizationPolicy` or one that istiod made up.
    pub name: String,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<&PolicyRef> for PolicyKey {
    fn from(policy: &PolicyRef) -> Self {
        let namespace = policy.namespace.clone().unwrap_or_default();
        Self { namespace, name: policy.name.clone() }
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is let through.
    Allowed,
    /// DENY policies match it.
    Denied {
        /// Those that do, sorted; at least one. ztunnel stops at the first that it comes to, in no order, and names it.
        by: Vec<PolicyKey>,
    },
    /// There are ALLOW policies and none of them matches it.
    NotAllowed,
}

impl Decision {
    /// The `error` of the line in ztunnel's access log; none where the connection is let through
    /// (`AuthorizationRejectionError` in `src/proxy.rs`).
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Allowed => None,
            Self::Denied { by } => {
                let by = by.first().map(PolicyKey::to_string).unwrap_or_default();
                Some(format!("{REJECTION}{DENIED_BY}{by}"))
            }
            Self::NotAllowed => Some(format!("{REJECTION}{NONE_ALLOWED}")),
        }
    }
}

/// What istiod tells all ztunnels of the policies of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Distributed {
    told: Vec<Authorization>,
    peers: Vec<PeerAuthentication>,
}

impl Distributed {
    /// Of all policies there are, in the order in which they were made: of two `PeerAuthentication`s of one level the
    /// older counts (`getOldestPeerAuthn` in `ambient/authorization.go`).
    #[expect(single_use_lifetimes, reason = "a lifetime cannot be elided inside `impl Trait`")]
    pub fn of<'a>(policies: impl IntoIterator<Item = &'a MeshPolicy>) -> Self {
        let (mut told, mut peers) = (Vec::new(), Vec::new());
        for policy in policies {
            match policy {
                MeshPolicy::Authorization(policy) => told.extend(authorization::converted(policy)),
                MeshPolicy::Peers(policy) => peers.push(policy.clone()),
                // ztunnel knows nothing of requests.
                MeshPolicy::Requests(_) => {}
            }
        }
        told.extend(peers::converted(&peers));
        Self { told, peers }
    }

    /// The keys of all policies that a ztunnel has then.
    pub fn keys(&self) -> BTreeSet<&PolicyKey> {
        self.told.iter().map(|it| &it.key).collect()
    }

    /// All policies that a ztunnel has then.
    pub fn told(&self) -> &[Authorization] {
        &self.told
    }

    /// The keys of the policies that a workload refers to; there may be none of that key.
    ///
    /// Source: `buildWorkloadPolicies` in `ambient/workloads.go`: policies of its own namespace and of the root
    /// namespace, if their selector is within its labels, and what its modes become.
    pub fn references(&self, workload: &Workload<'_>) -> BTreeSet<PolicyKey> {
        let reaches = |key: &PolicyKey| {
            key.namespace == workload.namespace || key.namespace == super::ROOT_NAMESPACE
        };
        let selects = |it: &&Authorization| {
            let selector = &it.selector;
            reaches(&it.key) && !selector.is_empty() && is_within(selector, workload.labels)
        };
        let selecting = self.told.iter().filter(selects).map(|it| it.key.clone());
        selecting.chain(peers::references(&self.peers, workload)).collect()
    }

    /// What of it is about one workload. What the workload refers to and is not there is skipped
    /// (`assert_rbac` in `src/state.rs`).
    pub fn of_workload(&self, workload: &Workload<'_>) -> WorkloadPolicies {
        let references = self.references(workload);
        let is_about_it = |it: &&Authorization| match it.scope {
            Scope::Mesh => true,
            Scope::Namespace => it.key.namespace == workload.namespace,
            Scope::Referring => references.contains(&it.key),
        };
        WorkloadPolicies(self.told.iter().filter(is_about_it).cloned().collect())
    }
}

/// The policies that are about one workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadPolicies(Vec<Authorization>);

impl WorkloadPolicies {
    /// Decides about a connection to the workload: DENY goes before ALLOW, and without any ALLOW policy what is not
    /// denied passes (`assert_rbac` in `src/state.rs`).
    pub fn decide(&self, connection: &Connection) -> Decision {
        let of = |effect: Effect| self.0.iter().filter(move |it| it.effect == effect);
        let denied = of(Effect::Deny).filter(|it| it.matches(connection));
        let by: BTreeSet<&PolicyKey> = denied.map(|it| &it.key).collect();
        if !by.is_empty() {
            return Decision::Denied { by: by.into_iter().cloned().collect() };
        }
        let mut allowing = of(Effect::Allow).peekable();
        if allowing.peek().is_none() || allowing.any(|it| it.matches(connection)) {
            Decision::Allowed
        } else {
            Decision::NotAllowed
        }
    }
}

/// Whether a selector selects a pod with these labels.
fn is_within(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
