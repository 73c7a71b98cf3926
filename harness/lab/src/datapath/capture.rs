//! The datapath's side of ztunnel: which packets of a pod of the mesh go to the sockets of its proxies.
//!
//! In a cluster this is done by rules in the pod's own network namespace (istio/istio,
//! `cni/pkg/iptables/testdata/default.golden`), before Cilium sees what the pod sends and after it has let pass
//! what the pod receives. The lab has no netfilter, so the switch does it at the same places: it gives a captured
//! packet an invented peer and a port of ztunnel, and takes both back from what is answered. Who a proxy really
//! talks to is in the table.
//!
//! What the rules tell by a mark, that a socket is ztunnel's, the lab tells by its port: agents send from
//! [`AGENT_PORTS`], and ztunnel's sockets in a pod take theirs above.
//!
//! What a pod sends to port 53, of whomever, goes to ztunnel's DNS server if the pod's names are captured; else the
//! datagrams are left alone, and TCP goes where all TCP does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ztc_model::evidence::FlowKey;
use ztc_model::policy::Protocol;
use ztc_model::ztunnel::HBONE_PORT;
use ztc_wire::AGENT_PORTS;

use super::aging::Aging;
use super::config::{Now, PortId};
use super::switch::{Datapath, Visit};
use crate::fault::Fault;

/// The port on which a pod's ztunnel accepts what the pod sends (ztunnel's `ARCHITECTURE.md`).
pub(crate) const OUTBOUND_PORT: u16 = 15_001;

/// The port on which it accepts what comes to the pod in plain.
pub(crate) const INBOUND_PORT: u16 = 15_006;

/// The port on which it is asked for names, over UDP and TCP.
pub(crate) const NAMES_PORT: u16 = 15_053;

/// Where kubelet's probes of pods of the mesh come from, by family: they are never captured
/// (`cni/pkg/iptables/testdata/hostprobe.golden`).
pub(crate) const PROBE_SOURCES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 7, 127)),
    IpAddr::V6(Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff)),
];

const DNS_PORT: u16 = 53;

/// The most connections remembered. Less than there are ports, so that an invented peer always finds one.
const CAPACITY: usize = 1 << 15;

/// How long one is remembered without a packet.
const IDLE: Duration = Duration::from_mins(5);

/// The sockets of a ztunnel to which packets are brought that were for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Captor {
    /// For what the pod sends.
    Outbound,
    /// For what comes to the pod in plain.
    Inbound,
    /// For the names that the pod asks for.
    Names,
}

impl Captor {
    const fn port(self) -> u16 {
        match self {
            Self::Outbound => OUTBOUND_PORT,
            Self::Inbound => INBOUND_PORT,
            Self::Names => NAMES_PORT,
        }
    }
}

/// A connection of a pod that ended up at one of ztunnel's proxies, or its queries that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Captured {
    /// At which.
    pub(crate) by: Captor,
    /// Who opened it.
    pub(crate) client: SocketAddr,
    /// Whom the client asked for: a service, a workload or a resolver.
    pub(crate) asked: SocketAddr,
}

/// The captured connections of all pods.
#[derive(Debug)]
pub(super) struct Captures {
    /// The invented peer of a connection.
    peers: Aging<(PortId, FlowKey), SocketAddr>,
    /// The connection of an invented peer.
    connections: Aging<(PortId, SocketAddr), Captured>,
}

/// What becomes of a packet of a captured pod where it leaves.
pub(super) enum Leaves {
    /// It stays in the pod.
    Back,
    /// It goes on.
    Onwards,
    /// It is gone.
    Lost,
}

impl Captures {
    pub(super) fn new() -> Self {
        Self { peers: Aging::new(CAPACITY), connections: Aging::new(CAPACITY) }
    }

    /// The peer that stands for a connection, invented where it is a new one: with the client's port, or the next
    /// one that is free.
    fn peer_of(&mut self, pod: PortId, by: Captor, flow: FlowKey, now: Instant) -> SocketAddr {
        let known = self.peers.get(&(pod, flow), now).copied();
        let mut peer = known.unwrap_or_else(|| invented(by, flow.source));
        if known.is_none() {
            while self.connections.get(&(pod, peer), now).is_some() {
                peer.set_port(peer.port().checked_add(1).unwrap_or(1));
            }
        }
        let captured = Captured { by, client: flow.source, asked: flow.destination };
        self.peers.insert((pod, flow), peer, now, IDLE);
        self.connections.insert((pod, peer), captured, now, IDLE);
        peer
    }

    /// The connection of an invented peer of a pod.
    fn connection(&self, pod: PortId, peer: SocketAddr, now: Instant) -> Option<Captured> {
        self.connections.get(&(pod, peer), now).copied()
    }
}

/// An address that nobody has: link-local, or of the range that Istio has its own from.
fn invented(by: Captor, client: SocketAddr) -> SocketAddr {
    let last = match by {
        Captor::Outbound => 1,
        Captor::Inbound => 2,
        Captor::Names => 3,
    };
    let address = match client {
        SocketAddr::V4(_) => Ipv4Addr::new(169, 254, 15, last).into(),
        SocketAddr::V6(_) => Ipv6Addr::new(0xfd16, 0x9254, 0x15, 0, 0, 0, 0, last.into()).into(),
    };
    SocketAddr::new(address, client.port())
}

impl Datapath {
    /// From now on a pod's connections go to its ztunnel, which listens.
    pub(crate) fn capture(&mut self, pod: PortId) {
        if let Some(endpoint) = self.endpoints.get_mut(pod) {
            endpoint.captured = true;
        }
    }

    /// What the peer of a socket of a pod's ztunnel really wants, by its address as ztunnel sees it.
    pub(crate) fn captured(&self, pod: PortId, peer: SocketAddr, now: Now) -> Option<Captured> {
        self.captures.connection(pod, peer, now.monotonic)
    }

    /// From now on so do the names that it asks for.
    pub(crate) fn capture_names(&mut self, pod: PortId) {
        if let Some(endpoint) = self.endpoints.get_mut(pod) {
            endpoint.names_captured = true;
        }
    }

    /// Takes what a captured pod sends: to its ztunnel, or from it to whom it really talks to.
    pub(super) fn capture_sent(&mut self, pod: PortId, visit: &mut Visit) -> Leaves {
        let flow = visit.packet.flow();
        if !self.is_captured(pod) {
            return Leaves::Onwards;
        }
        let now = visit.now.monotonic;
        if let Some(captured) = self.captures.connection(pod, flow.destination, now) {
            visit.packet.set_source(captured.asked);
            visit.packet.set_destination(captured.client);
            return match captured.by {
                Captor::Outbound | Captor::Names => Leaves::Back,
                Captor::Inbound => Leaves::Onwards,
            };
        }
        let Some(by) = self.captor_of(pod, flow).filter(|_| !is_of_ztunnel(flow)) else {
            return Leaves::Onwards;
        };
        if self.sabotage.faults.has(Fault::MuteClients) {
            return Leaves::Lost;
        }
        self.hand_over(pod, by, visit);
        Leaves::Back
    }

    /// Who takes what a captured pod sends, if somebody does.
    fn captor_of(&self, pod: PortId, flow: FlowKey) -> Option<Captor> {
        let asks_for_a_name = self.is_captured_query(pod, flow);
        match flow.protocol {
            Protocol::Tcp | Protocol::Udp if asks_for_a_name => Some(Captor::Names),
            Protocol::Tcp if !self.is_of_kubelet(flow.destination.ip()) => Some(Captor::Outbound),
            _ => None,
        }
    }

    /// Whether it is a query that a pod's ztunnel puts to a server for it.
    pub(super) fn is_forwarded_query(&self, pod: PortId, flow: FlowKey) -> bool {
        is_of_ztunnel(flow) && self.is_captured_query(pod, flow)
    }

    fn is_captured_query(&self, pod: PortId, flow: FlowKey) -> bool {
        flow.destination.port() == DNS_PORT
            && self.endpoints.get(pod).is_some_and(|it| it.names_captured)
    }

    /// Hands what has come to a captured pod in plain to its ztunnel.
    pub(super) fn capture_received(&mut self, pod: PortId, visit: &mut Visit) {
        let flow = visit.packet.flow();
        let is_left_alone =
            flow.destination.port() == HBONE_PORT || self.is_of_kubelet(flow.source.ip());
        let is_connection = flow.protocol == Protocol::Tcp;
        if is_connection && self.is_captured(pod) && !is_left_alone {
            self.hand_over(pod, Captor::Inbound, visit);
        }
    }

    fn hand_over(&mut self, pod: PortId, by: Captor, visit: &mut Visit) {
        let flow = visit.packet.flow();
        let peer = self.captures.peer_of(pod, by, flow, visit.now.monotonic);
        let address = match by {
            Captor::Outbound | Captor::Names => flow.source.ip(),
            Captor::Inbound => flow.destination.ip(),
        };
        visit.packet.set_source(peer);
        visit.packet.set_destination(SocketAddr::new(address, by.port()));
    }

    fn is_of_kubelet(&self, address: IpAddr) -> bool {
        PROBE_SOURCES.contains(&address) && !self.sabotage.faults.has(Fault::ZtunnelCapturesProbes)
    }

    fn is_captured(&self, pod: PortId) -> bool {
        self.endpoints.get(pod).is_some_and(|it| it.captured)
    }
}

/// Whether a ztunnel in the pod sends it: the ports that it listens on are none of an agent's.
fn is_of_ztunnel(flow: FlowKey) -> bool {
    !AGENT_PORTS.contains(&flow.source.port())
}
