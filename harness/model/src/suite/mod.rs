//! Suites: cases as they are written, and cases as they can be run.
//!
//! [`mod@file`] is the form of a suite file. [`load()`] checks it against its world and its manifests
//! and expands it; what it returns can be run without a further question.

mod check;
mod conditions;
mod distinct;
pub mod file;
mod gaps;
mod gateways;
mod load;
pub mod matrix;
mod question;
mod relabels;
mod removals;
mod restarts;
mod streams;
mod tunnels;
mod versions;
mod wires;
mod worlds;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::peers;
pub use load::{Library, load, world};
pub use versions::{Part, Versions, is_about_others};

use crate::condition::ExpectedCondition;
use crate::manifest::{Manifest, ObjectRef};
use crate::outcome::Expected;
use crate::stimulus::{Peer, Send};
use crate::world::{OutsideHost, PodRef, World};

/// A suite that can be run.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// The name of the world that its cases run against.
    pub world: String,
    /// What a fabric must have.
    pub needs: BTreeSet<Feature>,
    /// Its cases, in the order in which they are written.
    pub cases: Vec<Case>,
}

/// Something that a fabric may lack.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Cilium's policies.
    Cilium,
    /// Cilium's DNS proxy.
    DnsProxy,
    /// Pods enrolled in Istio's ambient mesh, probed from 169.254.7.127.
    AmbientProbes,
    /// ztunnel: mutual TLS and L4 authorization.
    Ztunnel,
    /// Waypoints: L7 authorization.
    Waypoint,
    /// IPv6 addresses.
    Ipv6,
    /// A metadata service with an address of IPv6 besides.
    Ipv6Metadata,
    /// Addresses that were learnt for a name are forgotten when their time is over, and not minutes
    /// later, with the connections to them.
    FqdnExpiry,
    /// Rules with `serverNames` are enforced, by Cilium's Envoy.
    TlsServerNames,
    /// Ranges of addresses select neither pods nor nodes: `policy-cidr-match-mode` is empty, as it is
    /// by default.
    OutsideCidrs,
    /// Cilium's agents may be restarted, on all nodes.
    AgentRestart,
    /// The API server takes `AdminNetworkPolicy`, `BaselineAdminNetworkPolicy` and `ClusterNetworkPolicy`, which nobody
    /// enforces.
    AdminNetworkPolicy,
    /// What pods send and receive can be captured at their edges.
    Capture,
    /// Cilium's enforcement mode can be changed, for the whole cluster.
    EnforcementMode,
    /// Certificates of the mesh's own authority can be had, for any identity.
    MeshAuthority,
}

impl Feature {
    /// Those that only a cluster with Istio ambient has.
    pub const OF_THE_MESH: [Self; 4] =
        [Self::AmbientProbes, Self::Ztunnel, Self::Waypoint, Self::MeshAuthority];
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cilium => "cilium",
            Self::DnsProxy => "dns-proxy",
            Self::AmbientProbes => "ambient-probes",
            Self::Ztunnel => "ztunnel",
            Self::Waypoint => "waypoint",
            Self::Ipv6 => "ipv6",
            Self::Ipv6Metadata => "ipv6-metadata",
            Self::FqdnExpiry => "fqdn-expiry",
            Self::TlsServerNames => "tls-server-names",
            Self::OutsideCidrs => "outside-cidrs",
            Self::AgentRestart => "agent-restart",
            Self::AdminNetworkPolicy => "admin-network-policy",
            Self::Capture => "capture",
            Self::EnforcementMode => "enforcement-mode",
            Self::MeshAuthority => "mesh-authority",
        })
    }
}

/// Names a case: `suite::case`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct CaseId(String);

impl CaseId {
    /// The case of that name in the suite of that name.
    pub fn new(suite: &str, case: &str) -> Self {
        Self(format!("{suite}::{case}"))
    }

    /// The name of the suite.
    pub fn suite(&self) -> &str {
        self.0.split_once("::").map_or("", |(suite, _)| suite)
    }

    /// The name of the case.
    pub fn name(&self) -> &str {
        self.0.split_once("::").map_or(&self.0, |(_, case)| case)
    }

    /// Both.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A documented hole that a case shows on purpose: its flows get through, and are expected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// What gets through, and past what, in one sentence.
    pub what: String,
    /// The case that shows how it is closed; absent where nothing closes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<CaseId>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.closed_by {
            Some(case) => write!(f, "{} Closed by {case}.", self.what),
            None => write!(f, "{} No case closes it.", self.what),
        }
    }
}

/// A case that can be run.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name.
    pub id: CaseId,
    /// Why its expectations should hold.
    pub because: String,
    /// The hole that it shows, if it shows one.
    pub gap: Option<Gap>,
    /// The world that it runs against.
    pub world: String,
    /// The versions that it is about.
    pub versions: Versions,
    /// What to apply, in this order.
    pub apply: Vec<Manifest>,
    /// What to take away again once everything is enforced.
    pub remove: Vec<ObjectRef>,
    /// Pods that get other labels then.
    pub relabel: Vec<Relabelled>,
    /// What is restarted then.
    pub restart: Vec<Component>,
    /// Pods to make after the policies are enforced.
    pub create: Vec<PodRef>,
    /// What to send and what to expect of it.
    pub cells: Vec<Cell>,
    /// What controllers are expected to say of policies and services meanwhile.
    pub conditions: Vec<ExpectedCondition>,
    /// The file that it is written in.
    pub file: String,
    /// The line that it begins at.
    pub line: usize,
}

impl Case {
    /// Whether a flow is watched from before the first policy on. Each policy is then enforced before the next
    /// one is applied: their order is what the case is about.
    pub fn watches_a_stream(&self) -> bool {
        self.cells.iter().any(|cell| cell.expected.is_stream())
    }

    /// Whether it is about more than the namespaces that its world makes: by a policy, or as it restarts something.
    pub fn reaches_beyond(&self, world: &World) -> bool {
        if !self.restart.is_empty() {
            return true;
        }
        let own: BTreeSet<&str> = world.own_namespaces().collect();
        let mut namespaces = self.apply.iter().map(|it| it.reference.namespace.as_deref());
        namespaces.any(|namespace| namespace.is_none_or(|it| !own.contains(it)))
    }

    /// The outside hosts that it sends to, or whose names it asks for.
    pub fn outside_hosts<'a>(&self, world: &'a World) -> BTreeSet<&'a str> {
        let meant = |send: &Send, host: &OutsideHost| {
            let by_peer = match send.peer() {
                Some(Peer::Outside(name)) => *name == host.name,
                Some(Peer::Address(address)) => host.has(*address),
                Some(Peer::Name(name)) => host.is_called(name),
                Some(Peer::Pod(_)) | None => false,
            };
            by_peer || matches!(send, Send::Dns { name, .. } if host.is_called(name))
        };
        let hosts = world.outside.iter();
        hosts
            .filter(|host| {
                let mut sent =
                    self.cells.iter().flat_map(|cell| [Some(&cell.send), cell.after.as_ref()]);
                sent.any(|send| send.is_some_and(|send| meant(send, host)))
            })
            .map(|host| host.name.as_str())
            .collect()
    }
}

/// What enforces policies, and can be restarted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// The agents of Cilium, on all nodes at once. What they have put into the datapath goes on without them; the DNS
    /// proxy and the records do not.
    Cilium,
    /// The ztunnels, on all nodes at once. Every connection that they carry ends; of policies they know nothing until
    /// istiod has told them again.
    Ztunnel,
}

impl Component {
    /// What a fabric needs to restart it.
    pub fn feature(self) -> Feature {
        match self {
            Self::Cilium => Feature::AgentRestart,
            Self::Ztunnel => Feature::Ztunnel,
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cilium => "cilium",
            Self::Ztunnel => "ztunnel",
        })
    }
}

/// A pod that gets other labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relabelled {
    /// Which.
    pub pod: PodRef,
    /// All labels that it has from then on, but those that the fabric gives to everything.
    pub labels: BTreeMap<String, String>,
}

/// One stimulus from one source, and what is expected of it.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Who sends.
    pub from: Origin,
    /// What.
    pub send: Send,
    /// What has to get through first, under the policies.
    pub after: Option<Send>,
    /// What is expected.
    pub expected: Expected,
    /// The names that may answer; empty when the world cannot tell.
    pub peers: BTreeSet<String>,
    /// Who must get through at the same moment, where no earlier moment can be the control.
    pub twin: Option<PodRef>,
    /// Of what is refused whatever policies say: what differs from it in one attribute and must get through at the same time.
    pub beside: Option<Send>,
    /// The line of the expectation.
    pub line: usize,
}

/// Who sends a stimulus.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The agent in a pod.
    Pod(PodRef),
    /// Kubelet, on the node of the pod that it probes.
    Kubelet,
}

/// The word for kubelet after `from:`.
pub const KUBELET: &str = "kubelet";

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => pod.fmt(f),
            Self::Kubelet => f.write_str(KUBELET),
        }
    }
}
