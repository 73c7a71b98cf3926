//! The hook where policy is enforced for packets in the original direction.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ztc_model::evidence::{Direction, FlowKey};
use ztc_model::policy::Decision;
use ztc_model::waypoint::CONTROL_PLANE_PORT;
use ztc_wire::AGENT_PORTS;

use crate::fault::{Fault, Faults};

use super::aging::Aging;
use super::config::{NodeId, PortId};
use super::conntrack::Belongs;
use super::packet::Packet;
use super::policy_map::Peer;
use super::record::DropReason;
use super::switch::{Datapath, Visit};

/// The most denied flows whose fate is remembered while the datapath leaks on purpose.
const LEAK_CAPACITY: usize = 1 << 16;
/// For how long: longer than a client tries again.
const LEAK_MEMORY: Duration = Duration::from_mins(2);

/// What becomes of a packet at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Passes,
    /// It goes to the DNS proxy of the node.
    ToProxy,
    /// It is gone.
    Stopped,
}

/// How the hooks are broken on purpose, with what that needs to be remembered.
#[derive(Debug)]
pub(super) struct Sabotage {
    pub(super) faults: Faults,
    last_change: Option<Instant>,
    denied_flows: u32,
    /// Whether a denied flow leaks.
    leaks: Aging<FlowKey, bool>,
    /// The flows of which a packet was dropped.
    dropped: Aging<(Direction, FlowKey), ()>,
}

impl Sabotage {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            faults,
            last_change: None,
            denied_flows: 0,
            leaks: Aging::new(LEAK_CAPACITY),
            dropped: Aging::new(LEAK_CAPACITY),
        }
    }

    /// Notes that a policy has changed.
    pub(super) fn policy_changed(&mut self, now: Instant) {
        self.last_change = Some(now);
    }

    /// Whether the last change has not arrived at the hooks yet.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let delay = self.faults.late_enforcement();
        delay.zip(self.last_change).is_some_and(|(delay, change)| now < change + delay)
    }

    /// Whether a packet of a pod in its node's network vanishes where it leaves: what neither kubelet nor the DNS proxy sends.
    pub(super) fn loses_of_node(&self, flow: FlowKey) -> bool {
        AGENT_PORTS.contains(&flow.source.port())
            && (self.faults.has(Fault::MuteClients) || self.loses_allowed())
    }

    /// Whether a packet vanishes that policy lets pass.
    fn loses_allowed(&self) -> bool {
        self.faults.has(Fault::DropEverything)
    }

    /// Whether what a pod sends on its own account vanishes where it leaves.
    pub(super) fn mutes(&self, flow: FlowKey) -> bool {
        self.faults.has(Fault::MuteClients) && !asks_control_plane(flow)
    }

    /// Whether what a waypoint asks istiod vanishes.
    fn keeps_from_control_plane(&self, flow: FlowKey) -> bool {
        self.faults.has(Fault::IstiodIsAway) && asks_control_plane(flow)
    }

    /// Whether a packet passes that policy drops.
    fn passes_denied(
        &mut self,
        hook: Direction,
        decision: &Decision,
        flow: FlowKey,
        now: Instant,
    ) -> bool {
        let is_egress_deny =
            hook == Direction::Egress && matches!(decision, Decision::Denied { .. });
        self.faults.has(Fault::AllowEverything)
            || (is_egress_deny && self.faults.has(Fault::IgnoreEgressDeny))
            || (hook == Direction::Ingress && self.faults.has(Fault::EgressOnly))
            || (flow.source.is_ipv6() && self.faults.has(Fault::Ipv6Unenforced))
            || (self.faults.has(Fault::FirstPacketLeaks) && self.is_first(hook, flow, now))
            || self.leaks(flow, now)
    }

    /// Whether no packet of a flow was dropped at a hook before.
    fn is_first(&mut self, hook: Direction, flow: FlowKey, now: Instant) -> bool {
        let is_first = self.dropped.get(&(hook, flow), now).is_none();
        self.dropped.insert((hook, flow), (), now, LEAK_MEMORY);
        is_first
    }

    fn leaks(&mut self, flow: FlowKey, now: Instant) -> bool {
        let Some(one_in) = self.faults.leak_one_in() else {
            return false;
        };
        if let Some(leaks) = self.leaks.get(&flow, now) {
            return *leaks;
        }
        self.denied_flows = self.denied_flows.wrapping_add(1);
        let leaks = self.denied_flows.is_multiple_of(one_in.get());
        self.leaks.insert(flow, leaks, now, LEAK_MEMORY);
        leaks
    }
}

/// Whether something goes to istiod, of whom waypoints ask what to do.
fn asks_control_plane(flow: FlowKey) -> bool {
    flow.destination.port() == CONTROL_PLANE_PORT
}

impl Datapath {
    /// Asks the policy of an endpoint about a packet in its original direction, and does what it
    /// says, unless broken on purpose.
    ///
    /// Records as `bpf/bpf_lxc.c` does: a verdict for a new connection and for whatever is denied,
    /// and one more for each packet that is dropped.
    pub(super) fn judge(
        &mut self,
        port: PortId,
        hook: Direction,
        belongs: Belongs,
        visit: &mut Visit,
    ) -> Fate {
        let Some(endpoint) = self.endpoints.get(port) else {
            return Fate::Stopped;
        };
        let (node, enforced) = (endpoint.node, Arc::clone(&endpoint.enforced));
        let revision = endpoint.realised;
        let flow = visit.packet.flow();
        let now = visit.now.monotonic;
        let peer = match hook {
            Direction::Egress => self.peer(flow.destination.ip(), node),
            Direction::Ingress => Peer::nameless(self.repository.identity(flow.source.ip(), node)),
        };
        let policy = enforced.at(hook);
        let entry = policy.lookup(peer, flow.protocol, visit.packet.destination_port());
        let denied = DropReason::of(&entry.decision);
        if denied.is_some() && self.sabotage.is_late(now) {
            return self.pass(node, hook, belongs, visit);
        }
        let recorder = self.recorder(visit.now);
        if policy.is_enforced() && (belongs == Belongs::New || denied.is_some()) {
            visit.flows.push(recorder.policy_verdict(node, hook, &visit.packet, entry, revision));
        }
        if let Some(reason) = denied {
            visit.flows.push(recorder.dropped(node, hook, &visit.packet, reason));
            let passes = self.sabotage.passes_denied(hook, &entry.decision, flow, now)
                || self.is_left_open(now)
                || self.gets_precedence_wrong(port, hook, peer, belongs, &visit.packet);
            return if passes { self.pass(node, hook, belongs, visit) } else { Fate::Stopped };
        }
        // What a node sends to its pods is lost only where policy is enforced, and what waypoints ask of istiod is not:
        // they have to become ready, or no case comes to the point where it has to notice.
        let from_node = hook == Direction::Ingress && self.is_node(node, flow.source.ip());
        let is_needed = (from_node && !policy.is_enforced()) || asks_control_plane(flow);
        let is_lost = self.sabotage.loses_allowed() || self.is_closed(now);
        if (is_lost && !is_needed) || self.sabotage.keeps_from_control_plane(flow) {
            return Fate::Stopped;
        }
        self.pass(node, hook, belongs, visit);
        match entry.decision {
            Decision::Inspected { .. } if hook == Direction::Egress => Fate::ToProxy,
            _ => Fate::Passes,
        }
    }

    /// Whether a packet that policy drops passes on purpose, as it was let pass before or as some rule
    /// allows it.
    fn gets_precedence_wrong(
        &self,
        port: PortId,
        hook: Direction,
        peer: Peer,
        belongs: Belongs,
        packet: &Packet,
    ) -> bool {
        let faults = &self.sabotage.faults;
        if faults.has(Fault::EstablishedNotRechecked) && belongs == Belongs::Established {
            return true;
        }
        let Some(endpoint) = self.endpoints.get(port) else { return false };
        let named = match hook {
            Direction::Egress => self.repository.named(peer),
            Direction::Ingress => &endpoint.named_ports,
        };
        let destination = (packet.flow().protocol, packet.destination_port());
        faults.has(Fault::DenyLosesToAllow)
            && self.repository.allows_somehow(endpoint, hook, (peer.identity, named), destination)
    }

    /// Who an address is to a rule about what is sent to it.
    pub(super) fn peer(&self, address: IpAddr, node: NodeId) -> Peer {
        let identity = self.repository.identity(address, node);
        match self.endpoints.at(address) {
            Some((_, endpoint)) if endpoint.identity == identity => endpoint.as_receiver(),
            _ => Peer::nameless(identity),
        }
    }
}
