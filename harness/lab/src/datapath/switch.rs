//! The way of a packet from the port where it enters to the port where it leaves.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use ztc_model::evidence::Direction;
use ztc_model::hubble::Line;
use ztc_model::labels::Labels;
use ztc_model::policy::{Policy, PolicyRef};
use ztc_model::world::PodRef;

use crate::fault::Fault;

use super::capture::{Captures, Leaves};
use super::config::{Attachment, Config, NodeConfig, NodeId, Now, PortId, like};
use super::conntrack::{Belongs, Conntrack};
use super::endpoints::{Endpoint, EndpointState, Endpoints, Enforced};
use super::hooks::{Fate, Sabotage};
use super::packet::{Content, IcmpMessage, Packet, Unreadable};
use super::proxy::{Proxies, Redirect};
use super::record::{DropReason, Recorder};
use super::repository::{Repository, Touched};
use super::restart::Restarted;
use super::service::{Services, Translation};

/// The switch of one cluster.
#[derive(Debug)]
pub(crate) struct Datapath {
    pub(super) nodes: Vec<NodeConfig>,
    pub(super) repository: Repository,
    pub(super) endpoints: Endpoints,
    pub(super) proxies: Proxies,
    pub(super) captures: Captures,
    pub(super) sabotage: Sabotage,
    /// When agents that were restarted are back, or were.
    pub(super) agents_restarted: Option<Restarted>,
    services: Services,
    /// The connections of each node.
    conntracks: Vec<Conntrack>,
    ports: HashMap<PortId, Plugged>,
    /// The port of each node, and the addresses behind it.
    node_ports: Vec<Option<(PortId, Vec<IpAddr>)>>,
    outside: HashMap<IpAddr, PortId>,
    next_port: u32,
    /// The nodes at the edges of whose pods somebody listens.
    tapped: BTreeSet<NodeId>,
}

/// What is plugged into a port, as far as a packet from there needs to know.
#[derive(Debug, Clone, Copy)]
enum Plugged {
    Pod(NodeId),
    Node(NodeId),
    Outside,
}

/// What became of a packet.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// Where it leaves, and its bytes.
    pub(crate) to: Option<(PortId, Vec<u8>)>,
    /// What is on record about it.
    pub(crate) flows: Vec<Line>,
    /// What passed the edges of pods where somebody listens, by the node: between a pod, its ztunnel included, and
    /// its node.
    pub(crate) tapped: Vec<(NodeId, Vec<u8>)>,
}

/// A packet on its way.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) packet: Packet,
    pub(super) now: Now,
    /// The service that the client asked for, where the packet goes to a backend of it.
    pub(super) asked: Option<SocketAddr>,
    pub(super) flows: Vec<Line>,
    pub(super) tapped: Vec<(NodeId, Vec<u8>)>,
}

impl Datapath {
    /// A switch with nothing plugged in, and no policies.
    pub(crate) fn new(config: Config) -> Self {
        let Config { nodes, services, faults } = config;
        let of_node = |(at, node): (usize, &NodeConfig)| {
            node.addresses.clone().into_iter().map(move |it| (it, NodeId(at)))
        };
        let addresses = nodes.iter().enumerate().flat_map(of_node);
        Self {
            repository: Repository::new(addresses, faults.clone()),
            endpoints: Endpoints::default(),
            proxies: Proxies::new(),
            captures: Captures::new(),
            sabotage: Sabotage::new(faults),
            agents_restarted: None,
            services: Services::new(services),
            conntracks: nodes.iter().map(|_| Conntrack::new()).collect(),
            ports: HashMap::new(),
            node_ports: nodes.iter().map(|_| None).collect(),
            outside: HashMap::new(),
            next_port: 0,
            tapped: BTreeSet::new(),
            nodes,
        }
    }

    /// Plugs something in. A pod is subject to the policies there are from its first packet on.
    pub(crate) fn attach(&mut self, attachment: Attachment) -> PortId {
        let port = PortId(self.next_port);
        self.next_port += 1;
        let plugged = match attachment {
            Attachment::Pod { reference, node, addresses, labels, named_ports } => {
                let endpoint = Endpoint {
                    id: port.0 + 1,
                    reference,
                    node,
                    identity: self.repository.add_pod(&addresses, labels),
                    addresses,
                    names: self.repository.names(&named_ports),
                    named_ports,
                    enforced: Enforced::closed(),
                    realised: 0,
                    captured: false,
                    names_captured: false,
                };
                self.endpoints.insert(port, endpoint);
                self.repository.regenerate(&mut self.endpoints);
                Plugged::Pod(node)
            }
            Attachment::Node { node, addresses } => {
                self.node_ports[node.0] = Some((port, addresses));
                Plugged::Node(node)
            }
            Attachment::Outside { addresses } => {
                self.outside.extend(addresses.into_iter().map(|address| (address, port)));
                Plugged::Outside
            }
        };
        self.ports.insert(port, plugged);
        port
    }

    /// Makes a pod another one to the policies: another identity from its next packet on, those of open connections
    /// included. One that is not there has none. Returns the revision in which it has it.
    pub(crate) fn relabel(&mut self, pod: &PodRef, labels: Labels, now: Now) -> u64 {
        let stays = self.sabotage.faults.has(Fault::IdentityNeverChanges);
        let endpoint = self.endpoints.iter_mut().find(|it| it.reference == *pod);
        if let Some(endpoint) = endpoint.filter(|_| !stays) {
            endpoint.identity = self.repository.add_pod(&endpoint.addresses, labels);
        }
        self.sabotage.policy_changed(now.monotonic);
        self.repository.regenerate(&mut self.endpoints);
        self.repository.revision()
    }

    /// Unplugs a port. What is left of its connections is forgotten.
    pub(crate) fn detach(&mut self, port: PortId, now: Now) {
        match self.ports.remove(&port) {
            Some(Plugged::Pod(_)) => {
                let gone = self.endpoints.remove(port);
                for address in gone.map(|it| it.addresses).unwrap_or_default() {
                    if self.endpoints.at(address).is_none() {
                        self.repository.remove_pod(address);
                    }
                    for conntrack in &mut self.conntracks {
                        conntrack.forget(address, now.monotonic);
                    }
                }
            }
            Some(Plugged::Node(node)) => self.node_ports[node.0] = None,
            Some(Plugged::Outside) => self.outside.retain(|_, owner| *owner != port),
            None => {}
        }
    }

    /// Adds a policy or replaces the one of its name; returns the revision that contains it.
    pub(crate) fn apply(&mut self, policy: Policy, now: Now) -> u64 {
        let touched = self.repository.apply(policy);
        self.policies_changed(Some(&touched), now)
    }

    /// Removes a policy; one that does not exist changes nothing. Returns the revision without it.
    pub(crate) fn remove(&mut self, policy: &PolicyRef, now: Now) -> u64 {
        let touched = self.repository.remove(policy);
        self.policies_changed(touched.as_ref(), now)
    }

    /// The revision of the policies.
    pub(crate) fn revision(&self) -> u64 {
        self.repository.revision()
    }

    /// What is enforced for each pod.
    pub(crate) fn endpoints(&self) -> Vec<EndpointState> {
        self.endpoints.states()
    }

    /// From now on what passes the edges of the pods of a node is copied.
    pub(crate) fn listen(&mut self, node: NodeId) {
        if !self.sabotage.faults.has(Fault::CaptureBlind) {
            self.tapped.insert(node);
        }
    }

    /// Copies a packet at the edge of a pod, if somebody listens there.
    fn tap(&self, node: NodeId, visit: &mut Visit) {
        if self.tapped.contains(&node) {
            visit.tapped.push((node, visit.packet.clone().into_bytes()));
        }
    }

    /// Takes a packet in.
    pub(crate) fn forward(&mut self, from: PortId, packet: Vec<u8>, now: Now) -> Forwarded {
        if self.repository.forget_names(now.monotonic) {
            self.repository.regenerate(&mut self.endpoints);
        }
        let Some(plugged) = self.ports.get(&from).copied() else {
            return Forwarded { to: None, flows: Vec::new(), tapped: Vec::new() };
        };
        let packet = match Packet::parse(packet) {
            Ok(packet) => packet,
            Err(reason) => {
                let flows = self.unreadable(from, plugged, reason, now);
                return self.finish(None, flows, Vec::new(), now);
            }
        };
        let mut visit = Visit { packet, now, asked: None, flows: Vec::new(), tapped: Vec::new() };
        let to = match plugged {
            Plugged::Pod(node) => self.pod_sends(from, node, &mut visit),
            Plugged::Node(node) => self.node_sends(node, &mut visit),
            Plugged::Outside => self.outside_sends(from, &mut visit),
        };
        let Visit { packet, flows, tapped, .. } = visit;
        self.finish(to.map(|port| (port, packet.into_bytes())), flows, tapped, now)
    }

    /// Whoever writes records now.
    pub(super) fn recorder(&self, now: Now) -> Recorder<'_> {
        Recorder {
            nodes: &self.nodes,
            repository: &self.repository,
            endpoints: &self.endpoints,
            wrong_policy_name: self.sabotage.faults.has(Fault::WrongPolicyName),
            now: now.wall,
        }
    }

    /// Whether an address is one of the node's own, the source of ambient probes included.
    pub(super) fn is_node(&self, node: NodeId, address: IpAddr) -> bool {
        self.node_ports[node.0].as_ref().is_some_and(|(_, addresses)| addresses.contains(&address))
    }

    /// Lets a packet pass a hook, and remembers its connection.
    pub(super) fn pass(
        &mut self,
        node: NodeId,
        hook: Direction,
        belongs: Belongs,
        visit: &Visit,
    ) -> Fate {
        if belongs == Belongs::New {
            let asked = visit.asked.filter(|_| hook == Direction::Egress);
            self.conntracks[node.0].open(hook, &visit.packet, asked, visit.now.monotonic);
        }
        Fate::Passes
    }

    fn policies_changed(&mut self, touched: Option<&Touched>, now: Now) -> u64 {
        self.sabotage.policy_changed(now.monotonic);
        if let Some(touched) = touched {
            self.repository.regenerate_touched(&mut self.endpoints, touched);
        }
        self.repository.revision()
    }

    fn finish(
        &self,
        to: Option<(PortId, Vec<u8>)>,
        mut flows: Vec<Line>,
        tapped: Vec<(NodeId, Vec<u8>)>,
        now: Now,
    ) -> Forwarded {
        if self.nobody_records(now.monotonic) {
            flows.clear();
        }
        Forwarded { to, flows, tapped }
    }

    /// Whether a pod has an address of the family of another one.
    fn speaks(&self, pod: PortId, other: IpAddr) -> bool {
        self.endpoints.get(pod).is_some_and(|it| like(&it.addresses, other).is_some())
    }

    fn unreadable(&self, port: PortId, from: Plugged, reason: Unreadable, now: Now) -> Vec<Line> {
        let (source, destination, reason) = match reason {
            Unreadable::Malformed => return Vec::new(),
            Unreadable::Fragment(source, destination) => {
                (source, destination, DropReason::Fragment)
            }
            Unreadable::Protocol(source, destination) => {
                (source, destination, DropReason::UnknownL4Protocol)
            }
        };
        let Plugged::Pod(node) = from else {
            return Vec::new();
        };
        let reason =
            if self.speaks(port, source) { reason } else { DropReason::UnsupportedL3Protocol };
        vec![self.recorder(now).unreadable(node, (source, destination), reason)]
    }

    fn pod_sends(&mut self, port: PortId, node: NodeId, visit: &mut Visit) -> Option<PortId> {
        let source = visit.packet.flow().source.ip();
        if self.endpoints.get(port).is_none_or(|it| !it.addresses.contains(&source)) {
            let reason = if self.speaks(port, source) {
                DropReason::InvalidSourceIp
            } else {
                DropReason::UnsupportedL3Protocol
            };
            return self.drop_at_egress(node, visit, reason);
        }
        match self.capture_sent(port, visit) {
            Leaves::Back => return Some(port),
            Leaves::Onwards => {}
            Leaves::Lost => return None,
        }
        self.tap(node, visit);
        let belongs = self.look_up(node, Direction::Egress, visit);
        if matches!(belongs, Belongs::Reply { .. }) {
            return self.deliver(Some(node), visit);
        }
        if self.sabotage.mutes(visit.packet.flow()) {
            return None;
        }
        let belongs = match self.translate(visit) {
            Translation::None => belongs,
            Translation::To(_) => self.look_up(node, Direction::Egress, visit),
            Translation::NoBackend => {
                return self.drop_at_egress(node, visit, DropReason::ServiceBackendNotFound);
            }
        };
        if self.sabotage.faults.has(Fault::CaptureForwardsFromTheNode)
            && self.is_forwarded_query(port, visit.packet.flow())
        {
            self.pass(node, Direction::Egress, belongs, visit);
            return self.deliver(Some(node), visit);
        }
        match self.judge(port, Direction::Egress, belongs, visit) {
            Fate::Passes => self.deliver(Some(node), visit),
            Fate::ToProxy => self.divert_to_proxy(port, node, visit),
            Fate::Stopped => None,
        }
    }

    fn node_sends(&mut self, node: NodeId, visit: &mut Visit) -> Option<PortId> {
        let flow = visit.packet.flow();
        let now = visit.now.monotonic;
        let NodeConfig { addresses, proxy_port, .. } = &self.nodes[node.0];
        if flow.source.port() == *proxy_port
            && addresses.contains(&flow.source.ip())
            && let Some(asked) = self.proxies.asked(flow.protocol, flow.destination, now)
        {
            // The proxy's answer belongs to a connection that the client's egress has let pass.
            visit.packet.set_source(asked);
            return self.endpoints.at(flow.destination.ip()).map(|(port, _)| port);
        }
        if self.sabotage.loses_of_node(flow) {
            return None;
        }
        if let Some(client) = self.proxies.client_of(flow.protocol, flow.source, now) {
            // Policy was asked at the client's egress, when the query was redirected.
            visit.packet.set_source(SocketAddr::new(client, flow.source.port()));
        }
        self.deliver(Some(node), visit)
    }

    fn outside_sends(&mut self, port: PortId, visit: &mut Visit) -> Option<PortId> {
        let flow = visit.packet.flow();
        if self.outside.get(&flow.source.ip()) != Some(&port) {
            // As the reverse path filter of a router would.
            return None;
        }
        self.deliver(None, visit)
    }

    /// Sends a packet to the DNS proxy of its client's node.
    fn divert_to_proxy(&mut self, port: PortId, node: NodeId, visit: &mut Visit) -> Option<PortId> {
        if self.agents_are_away(visit.now.monotonic) {
            return None;
        }
        let flow = visit.packet.flow();
        let proxy_port = self.nodes[node.0].proxy_port;
        let proxy = self.nodes[node.0].address_like(flow.destination.ip())?;
        let redirect = Redirect {
            protocol: flow.protocol,
            endpoint: port,
            client: flow.source,
            server: flow.destination,
            node,
        };
        let asked = visit.asked.unwrap_or(flow.destination);
        self.proxies.redirect(redirect, asked, visit.now.monotonic);
        visit.packet.set_destination(SocketAddr::new(proxy, proxy_port));
        self.node_port(node)
    }

    /// Finds the port of whom a packet is for, past the ingress hook if that is a pod.
    fn deliver(&mut self, from: Option<NodeId>, visit: &mut Visit) -> Option<PortId> {
        let flow = visit.packet.flow();
        if let Some(socket) = self.proxies.socket_for(flow, visit.now.monotonic) {
            visit.packet.set_destination(socket);
            return self.node_with(from, socket.ip());
        }
        let destination = flow.destination.ip();
        match self.endpoints.at(destination) {
            Some((port, endpoint)) => {
                let node = endpoint.node;
                self.enter_pod(port, node, visit)
            }
            None => self
                .node_with(from, destination)
                .or_else(|| self.outside.get(&destination).copied()),
        }
    }

    fn enter_pod(&mut self, port: PortId, node: NodeId, visit: &mut Visit) -> Option<PortId> {
        if self.sabotage.faults.has(Fault::FqdnLearnsWithoutProxy)
            && let Some(answer) = visit.packet.datagram()
        {
            self.learn_unasked(node, answer, visit.now);
        }
        let belongs = self.look_up(node, Direction::Ingress, visit);
        if let Belongs::Reply { asked } = belongs {
            if let Some(asked) = asked {
                untranslate(&mut visit.packet, asked);
            }
            self.tap(node, visit);
            return Some(port);
        }
        match self.judge(port, Direction::Ingress, belongs, visit) {
            Fate::Passes | Fate::ToProxy => {
                self.tap(node, visit);
                self.capture_received(port, visit);
                Some(port)
            }
            Fate::Stopped => None,
        }
    }

    fn look_up(&mut self, node: NodeId, hook: Direction, visit: &Visit) -> Belongs {
        self.conntracks[node.0].look_up(hook, &visit.packet, visit.now.monotonic)
    }

    fn translate(&mut self, visit: &mut Visit) -> Translation {
        let flow = visit.packet.flow();
        let endpoints = &self.endpoints;
        let address_of = |pod: &_| endpoints.address_of(pod, flow.destination.ip());
        let translation = self.services.translate(flow, address_of, visit.now.monotonic);
        if let Translation::To(backend) = translation {
            visit.packet.set_destination(backend);
            visit.asked = Some(flow.destination);
        }
        translation
    }

    fn drop_at_egress(
        &self,
        node: NodeId,
        visit: &mut Visit,
        reason: DropReason,
    ) -> Option<PortId> {
        let record =
            self.recorder(visit.now).dropped(node, Direction::Egress, &visit.packet, reason);
        visit.flows.push(record);
        None
    }

    /// The node that answers on an address: the given one if it does, as nodes may share some.
    fn node_with(&self, preferred: Option<NodeId>, address: IpAddr) -> Option<PortId> {
        let answers = |node: &&Option<(PortId, Vec<IpAddr>)>| {
            node.as_ref().is_some_and(|(_, addresses)| addresses.contains(&address))
        };
        let first = preferred.and_then(|node| self.node_ports.get(node.0)).into_iter();
        let node = first.chain(&self.node_ports).find(answers)?;
        node.as_ref().map(|(port, _)| *port)
    }

    fn node_port(&self, node: NodeId) -> Option<PortId> {
        self.node_ports[node.0].as_ref().map(|(port, _)| *port)
    }
}

/// Lets a reply come from the service that its client asked.
fn untranslate(packet: &mut Packet, asked: SocketAddr) {
    match packet.content() {
        Content::Tcp(_) | Content::Udp => packet.set_source(asked),
        Content::Icmp(IcmpMessage { quoted: Some(quoted), .. }) => {
            // An error of a router on the way is from the router; one of the backend's is from it.
            if packet.flow().source.ip() == quoted.flow.destination.ip() {
                packet.set_source(asked);
            }
            packet.set_quoted_destination(asked);
        }
        Content::Icmp(IcmpMessage { quoted: None, .. }) => {}
    }
}
