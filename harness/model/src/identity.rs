//! Who a packet is from or for, in Cilium's terms.
//!
//! An identity is a set of labels; policies select identities and never addresses. Which address
//! has which identity is the fabric's to know.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::dns::DnsRule;
use crate::labels::{
    CIDR, CLUSTER, DEFAULT_CLUSTER, FQDN, K8S, Labels, NAMESPACE, NAMESPACE_LABELS, RESERVED,
    SERVICE_ACCOUNT,
};

/// An identity that Cilium numbers itself (`pkg/identity/numericidentity.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reserved {
    /// The node that the endpoint is on.
    Host,
    /// Everything outside the cluster.
    World,
    /// A pod that Cilium does not manage.
    Unmanaged,
    /// Cilium's own health endpoints.
    Health,
    /// An endpoint whose labels are not known yet.
    Init,
    /// Another node.
    RemoteNode,
    /// A node that serves the Kubernetes API.
    KubeApiserver,
    /// Cilium's own ingress proxy.
    Ingress,
    /// Everything outside a cluster of both families that has an address of IPv4; nothing there is
    /// [`Self::World`] (`GetWorldIdentityFromIP` in `pkg/identity/reserved.go`).
    WorldIpv4,
    /// The same with one of IPv6.
    WorldIpv6,
}

impl Reserved {
    /// All of them, by number.
    pub const ALL: [Self; 10] = [
        Self::Host,
        Self::World,
        Self::Unmanaged,
        Self::Health,
        Self::Init,
        Self::RemoteNode,
        Self::KubeApiserver,
        Self::Ingress,
        Self::WorldIpv4,
        Self::WorldIpv6,
    ];

    /// Its numeric identity.
    pub fn number(self) -> u32 {
        match self {
            Self::Host => 1,
            Self::World => 2,
            Self::Unmanaged => 3,
            Self::Health => 4,
            Self::Init => 5,
            Self::RemoteNode => 6,
            Self::KubeApiserver => 7,
            Self::Ingress => 8,
            Self::WorldIpv4 => 9,
            Self::WorldIpv6 => 10,
        }
    }

    /// Its name, which is also the key of its label and that of the entity.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::World => "world",
            Self::Unmanaged => "unmanaged",
            Self::Health => "health",
            Self::Init => "init",
            Self::RemoteNode => "remote-node",
            Self::KubeApiserver => "kube-apiserver",
            Self::Ingress => "ingress",
            Self::WorldIpv4 => "world-ipv4",
            Self::WorldIpv6 => "world-ipv6",
        }
    }
}

/// Who a packet is from or for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// A pod, by its labels.
    Endpoint(Labels),
    /// What Cilium has a number of its own for.
    Reserved(Reserved),
    /// An address outside the cluster that some policy names a range of.
    Cidr(IpNet),
    /// An address outside the cluster that was learnt for a name which some `toFQDNs` is about.
    Fqdn {
        /// The elements of `toFQDNs` that the name matches, of all policies.
        names: BTreeSet<DnsRule>,
        /// The longest of the ranges around it that policies mention, if there is one.
        range: Option<IpNet>,
    },
}

impl Identity {
    /// Who has these labels, as a record has them; nothing where they are of nobody, or of somebody for whom there is no
    /// word here, such as a node that serves the API and is the endpoint's own.
    ///
    /// A name that was learnt has one form in its label, be it a name or a pattern without a star: both are taken.
    pub fn of_labels(labels: &Labels) -> Option<Self> {
        if labels.namespace().is_some() {
            return Some(Self::Endpoint(labels.clone()));
        }
        let ranges = labels.iter().filter(|it| it.source == CIDR);
        let ranges = ranges.filter_map(|it| it.key.replace('-', ":").parse::<IpNet>().ok());
        let range = ranges.max_by_key(IpNet::prefix_len);
        let learnt = labels.iter().filter(|it| it.source == FQDN);
        let forms = |text: &str| [DnsRule::name(text), DnsRule::pattern(text)];
        let names: BTreeSet<DnsRule> = learnt.flat_map(|it| forms(it.key)).flatten().collect();
        if !names.is_empty() {
            return Some(Self::Fqdn { names, range });
        }
        if let Some(range) = range {
            return Some(Self::Cidr(range));
        }
        Reserved::ALL.map(Self::Reserved).into_iter().find(|it| it.view().as_ref() == labels)
    }

    /// The labels that selectors see.
    pub fn labels(&self) -> Labels {
        self.view().into_owned()
    }

    /// The same, borrowed where they are at hand.
    pub(crate) fn view(&self) -> Cow<'_, Labels> {
        Cow::Owned(match self {
            Self::Endpoint(labels) => return Cow::Borrowed(labels),
            // `pkg/identity/numericidentity.go`: the API server's node is a remote node as well.
            Self::Reserved(Reserved::KubeApiserver) => {
                reserved(Reserved::KubeApiserver).with(RESERVED, Reserved::RemoteNode.name(), "")
            }
            Self::Reserved(name) => reserved(*name),
            // `GetCIDRLabels` in `pkg/labels/cidr.go`: the range and the world around it.
            Self::Cidr(range) if range.prefix_len() == 0 => reserved(Reserved::World),
            Self::Cidr(range) => reserved(Reserved::World).with(CIDR, &cidr_key(range), ""),
            // `IdentityLabel` in `pkg/policy/api/fqdn.go`, beside the labels of ranges
            // (`resolveLabels` in `pkg/ipcache/metadata.go`).
            Self::Fqdn { names, range } => {
                let mut labels = range
                    .map_or_else(|| reserved(Reserved::World), |range| Self::Cidr(range).labels());
                for name in names {
                    labels.insert(FQDN, name.text(), "");
                }
                labels
            }
        })
    }
}

fn reserved(name: Reserved) -> Labels {
    Labels::new().with(RESERVED, name.name(), "")
}

/// The key of a CIDR label: colons are illegal in keys, and so is a dash at either end
/// (`getCIDRLabel` in `pkg/labels/cidr.go`).
fn cidr_key(range: &IpNet) -> String {
    let address = range.network().to_string().replace(':', "-");
    let front = if address.starts_with('-') { "0" } else { "" };
    let back = if address.ends_with('-') { "0" } else { "" };
    format!("{front}{address}{back}/{}", range.prefix_len())
}

/// The labels of a pod's identity: its own, its namespace's, its service account, the cluster.
///
/// As in `CiliumIdentity` objects of a cluster whose name is `default`.
pub fn endpoint_labels(
    namespace: &str,
    namespace_labels: &BTreeMap<String, String>,
    service_account: &str,
    pod_labels: &BTreeMap<String, String>,
) -> Labels {
    let mut labels = Labels::new();
    for (key, value) in pod_labels {
        labels.insert(K8S, key, value);
    }
    for (key, value) in namespace_labels {
        labels.insert(K8S, &format!("{NAMESPACE_LABELS}.{key}"), value);
    }
    labels.insert(K8S, &format!("{NAMESPACE_LABELS}.kubernetes.io/metadata.name"), namespace);
    labels
        .with(K8S, CLUSTER, DEFAULT_CLUSTER)
        .with(K8S, SERVICE_ACCOUNT, service_account)
        .with(K8S, NAMESPACE, namespace)
}
