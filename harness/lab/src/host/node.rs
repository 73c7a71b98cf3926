//! A node: its network namespace, its DNS proxy, and kubelet's probes.

use std::net::IpAddr;

use super::dns_proxy::{self, DnsProxyError};
use super::netns::{NetNs, NetnsError};
use super::pump::{Plug, Pump, PumpError};
use super::runtime_thread::{RuntimeThread, RuntimeThreadError};
use crate::datapath::{Attachment, NodeConfig, NodeId, PROBE_SOURCES};

/// The ports that a node's own sockets take, in the form of `ip_local_port_range` (ip(7)).
///
/// The DNS proxy asks servers from its client's address and its own port, so an agent in that pod
/// must never have the same port open: agents take theirs below this range (`ztc_probe`'s ports), in
/// the network of a node too.
pub(super) const LOCAL_PORTS: &str = "61000 65535";

/// Where they are set, for the network namespace of whoever writes.
pub(super) const LOCAL_PORTS_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Why a node could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// No network namespace.
    #[error("cannot make the network of {node}")]
    Netns {
        /// Which node.
        node: String,
        /// Why.
        source: NetnsError,
    },
    /// It could not be plugged into the switch.
    #[error("cannot plug {node} in")]
    Attach {
        /// Which node.
        node: String,
        /// Why.
        source: PumpError,
    },
    /// Its thread could not be started.
    #[error("cannot start {node}")]
    Thread {
        /// Which node.
        node: String,
        /// Why.
        source: RuntimeThreadError,
    },
    /// Its DNS proxy could not be started.
    #[error("cannot start the DNS proxy of {node}")]
    DnsProxy {
        /// Which node.
        node: String,
        /// Why.
        source: DnsProxyError,
    },
}

/// A node at work.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it is to the datapath.
    pub(crate) config: NodeConfig,
    /// The runtime whose sockets are the node's.
    pub(crate) thread: RuntimeThread,
    /// Its network, which pods with `hostNetwork` share.
    pub(crate) netns: NetNs,
    _plug: Plug,
}

impl Node {
    /// Starts a node. Blocks for some milliseconds.
    pub(crate) fn start(id: NodeId, config: NodeConfig, pump: &Pump) -> Result<Self, NodeError> {
        let node = || config.name.clone();
        let addresses = [&config.addresses[..], &PROBE_SOURCES].concat();
        let (netns, device) = NetNs::create(&addresses)
            .map_err(|source| NodeError::Netns { node: node(), source })?;
        netns
            .set(LOCAL_PORTS_FILE, LOCAL_PORTS)
            .map_err(|source| NodeError::Netns { node: node(), source })?;
        let plug = pump
            .attach(Attachment::Node { node: id, addresses }, device)
            .map_err(|source| NodeError::Attach { node: node(), source })?;
        let thread = RuntimeThread::start(&config.name, Some(&netns))
            .map_err(|source| NodeError::Thread { node: node(), source })?;
        dns_proxy::start(&thread, &netns, &config, pump.switch())
            .map_err(|source| NodeError::DnsProxy { node: node(), source })?;
        Ok(Self { config, thread, netns, _plug: plug })
    }

    /// Where the probes of a pod with this address come from.
    pub(crate) fn probe_source(&self, ambient: bool, pod: IpAddr) -> IpAddr {
        let [ipv4, ipv6] = PROBE_SOURCES;
        match (ambient, pod) {
            (true, IpAddr::V4(_)) => ipv4,
            (true, IpAddr::V6(_)) => ipv6,
            (false, _) => self.config.address_like(pod).unwrap_or(self.config.addresses[0]),
        }
    }
}
