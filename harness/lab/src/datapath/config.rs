//! What is plugged into the switch, and what it is told when it is made.

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use ztc_model::labels::Labels;
use ztc_model::policy::{NamedPorts, Protocol};
use ztc_model::world::PodRef;

use crate::fault::Faults;

/// Where packets enter and leave the switch. Never used twice in the life of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PortId(pub(super) u32);

/// A node, as its index in [`Config::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) usize);

/// What is plugged into a port.
#[derive(Debug, Clone)]
pub(crate) enum Attachment {
    /// A pod: an endpoint, subject to policy.
    Pod {
        /// Its name.
        reference: PodRef,
        /// The node that it is on.
        node: NodeId,
        /// Its addresses, the only ones that it may send from: one of each family at most.
        addresses: Vec<IpAddr>,
        /// The labels of its identity.
        labels: Labels,
        /// The names of its ports.
        named_ports: NamedPorts,
    },
    /// The network namespace of a node, subject to no policy.
    Node {
        /// Which node.
        node: NodeId,
        /// Every address that it answers on: those of [`NodeConfig::addresses`], and those that it
        /// only probes from, such as 169.254.7.127. Nodes may share the latter.
        addresses: Vec<IpAddr>,
    },
    /// A host outside the nodes.
    Outside {
        /// Its addresses, the only ones that it may send from.
        addresses: Vec<IpAddr>,
    },
}

/// What a switch is told when it is made.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The nodes.
    pub(crate) nodes: Vec<NodeConfig>,
    /// The ports of services.
    pub(crate) services: Vec<ServiceVip>,
    /// The ways in which it is broken on purpose.
    pub(crate) faults: Faults,
}

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct NodeConfig {
    /// Its name, as in flow records.
    pub(crate) name: String,
    /// Its addresses, one of each family at most, the first one first: what has the identity `host`
    /// for its own pods and `remote-node` for others.
    pub(crate) addresses: Vec<IpAddr>,
    /// The port of its DNS proxy on these addresses, for UDP and TCP.
    pub(crate) proxy_port: u16,
}

impl NodeConfig {
    /// Its address of the family of another one.
    pub(crate) fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        like(&self.addresses, other)
    }
}

/// The one among addresses that is of the family of another one.
pub(super) fn like(addresses: &[IpAddr], other: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|it| it.is_ipv4() == other.is_ipv4())
}

/// One port of a service.
#[derive(Debug, Clone)]
pub(crate) struct ServiceVip {
    /// The cluster address.
    pub(crate) vip: IpAddr,
    /// The port of the service.
    pub(crate) port: u16,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// The pods behind it. Those that do not exist are passed over until they do.
    pub(crate) backends: Vec<Backend>,
}

/// A pod behind a service.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    /// The pod.
    pub(crate) pod: PodRef,
    /// The port that it serves on.
    pub(crate) port: u16,
}

/// The time of an event, given by the caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For time-outs. It must not run backwards.
    pub(crate) monotonic: Instant,
    /// For records.
    pub(crate) wall: SystemTime,
}

impl Now {
    /// The time of the machine.
    pub(crate) fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}
