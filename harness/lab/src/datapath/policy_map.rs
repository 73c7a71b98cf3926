//! What the policies of one direction of an endpoint say, compiled for every peer there is.
//!
//! Cilium's map has an entry for each peer, protocol and range of ports, with precedences that
//! settle overlaps at each lookup (`pkg/policy/mapstate.go`). Here overlaps are settled when the
//! map is compiled: for each peer and protocol the ports are cut where any rule begins or ends,
//! and each piece has the one decision that the model's matchers come to. A lookup is a hash and a
//! binary search. Peers that the same rules select share their pieces.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ztc_model::identity::{Identity, Reserved};
use ztc_model::policy::{
    Decision, DirectionPolicy, Effect, NamedPorts, PeerSelector, PortMatch, PortSelector, Ports,
    Protocol, Rule,
};

use super::identity::Number;

const PROTOCOLS: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Icmpv6];

/// One set of named ports, as a number.
pub(super) type Names = u32;

/// The number of no names at all, which most peers have.
pub(super) const NO_NAMES: Names = 0;

/// Whom an entry is about: an identity, and what its endpoints call their ports where a rule asks
/// for the ports of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) identity: Number,
    pub(super) names: Names,
}

impl Peer {
    /// One without names, or in a direction where they do not matter.
    pub(super) fn nameless(identity: Number) -> Self {
        Self { identity, names: NO_NAMES }
    }
}

/// A peer with what its numbers stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownPeer<'a> {
    pub(super) peer: Peer,
    pub(super) identity: &'a Identity,
    /// The named ports of the flow's destination: on egress those of the peer, on ingress those of
    /// the endpoint.
    pub(super) named: &'a NamedPorts,
}

/// An entry: what becomes of a flow, and which kind of rule said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) decision: Decision,
    /// `policy_match_type` of a policy-verdict record (`pkg/monitor/datapath_policy.go`).
    pub(super) match_type: Option<u32>,
}

/// The compiled policies of one direction.
#[derive(Debug)]
pub(super) struct PolicyMap {
    /// Whether any policy is about this direction.
    enforced: bool,
    pieces: HashMap<Peer, Arc<Pieces>>,
    /// For a peer that came after the last compilation.
    stranger: Entry,
}

/// For each protocol, in the order of [`PROTOCOLS`]: from which port on which entry holds.
#[derive(Debug, PartialEq, Eq)]
struct Pieces([Vec<(u16, Entry)>; PROTOCOLS.len()]);

/// What decides about all ports of a peer: who it is to rules without ports of their own, and the
/// rules that select it, by index.
type Selected = (bool, Names, Vec<usize>);

impl PolicyMap {
    /// Compiles what policies say about these peers.
    pub(super) fn compile(policy: &DirectionPolicy, peers: &[KnownPeer<'_>]) -> Self {
        let mut shared: HashMap<Selected, Arc<Pieces>> = HashMap::new();
        let mut pieces = HashMap::new();
        for known in peers {
            let selected = selected(policy, known);
            let compiled = shared.entry(selected).or_insert_with_key(|(_, _, rules)| {
                Arc::new(Pieces::compile(policy, rules, known))
            });
            pieces.insert(known.peer, Arc::clone(compiled));
        }
        let enforced = policy.default_deny || !policy.rules.is_empty();
        Self { enforced, pieces, stranger: stranger(policy) }
    }

    /// Whether any policy is about this direction: without one, Cilium writes no verdicts.
    pub(super) fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// What becomes of a flow to or from a peer, on a port of its destination.
    pub(super) fn lookup(&self, peer: Peer, protocol: Protocol, port: u16) -> &Entry {
        self.pieces
            .get(&peer)
            .and_then(|pieces| pieces.lookup(protocol, port))
            .unwrap_or(&self.stranger)
    }
}

fn selected(policy: &DirectionPolicy, known: &KnownPeer<'_>) -> Selected {
    let is_host = *known.identity == Identity::Reserved(Reserved::Host);
    let rules = policy.rules.iter().enumerate();
    let selecting = rules.filter(|(_, rule)| rule.peers.selects(known.identity));
    (is_host, known.peer.names, selecting.map(|(index, _)| index).collect())
}

fn stranger(policy: &DirectionPolicy) -> Entry {
    let decision = if policy.default_deny {
        Decision::NotAllowed
    } else {
        Decision::Allowed { by: Vec::new() }
    };
    Entry { decision, match_type: None }
}

impl Pieces {
    fn compile(policy: &DirectionPolicy, selected: &[usize], known: &KnownPeer<'_>) -> Self {
        let rules: Vec<Rule> = selected.iter().map(|&index| policy.rules[index].clone()).collect();
        let DirectionPolicy { default_deny, allows_host, .. } = *policy;
        let relevant = DirectionPolicy { default_deny, allows_host, rules };
        Self(PROTOCOLS.map(|protocol| {
            let mut pieces: Vec<(u16, Entry)> = Vec::new();
            for port in cuts(&relevant.rules, protocol, known.named) {
                let decision = relevant.decide(known.identity, protocol, port, known.named);
                let match_type =
                    match_type(&relevant.rules, &decision, protocol, port, known.named);
                let entry = Entry { decision, match_type };
                if pieces.last().is_none_or(|(_, last)| *last != entry) {
                    pieces.push((port, entry));
                }
            }
            pieces
        }))
    }

    fn lookup(&self, protocol: Protocol, port: u16) -> Option<&Entry> {
        let index = match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1,
            Protocol::Icmp => 2,
            Protocol::Icmpv6 => 3,
        };
        let pieces = &self.0[index];
        let after = pieces.partition_point(|(first, _)| *first <= port);
        after.checked_sub(1).map(|at| &pieces[at].1)
    }
}

/// The ports at which a rule begins to hold or ceases to, and the first of all.
fn cuts(rules: &[Rule], protocol: Protocol, named: &NamedPorts) -> BTreeSet<u16> {
    let ranges = rules.iter().flat_map(|rule| port_matches(&rule.ports)).filter_map(|ports| {
        match &ports.ports {
            _ if ports.protocol != protocol => None,
            Ports::All => None,
            Ports::One(port) => Some((*port, *port)),
            Ports::Range(first, last) => Some((*first, *last)),
            Ports::Named(name) => named.get(protocol, name).map(|port| (port, port)),
        }
    });
    ranges
        .flat_map(|(first, last)| [Some(first), last.checked_add(1)])
        .flatten()
        .chain([0])
        .collect()
}

fn port_matches(ports: &PortSelector) -> &[PortMatch] {
    match ports {
        PortSelector::All => &[],
        PortSelector::AnyOf(matches) => matches,
    }
}

/// What kind of entry Cilium would have hit: the most specific of those with this effect.
fn match_type(
    rules: &[Rule],
    decision: &Decision,
    protocol: Protocol,
    port: u16,
    named: &NamedPorts,
) -> Option<u32> {
    let effect = match decision {
        Decision::Allowed { .. } | Decision::Inspected { .. } => Effect::Allow,
        Decision::Denied { .. } => Effect::Deny,
        Decision::NotAllowed => return None,
    };
    let everybody = PeerSelector::all();
    rules
        .iter()
        .filter(|rule| rule.effect == effect && rule.ports.selects(protocol, port, named))
        .map(|rule| {
            let anybody = rule.peers == everybody;
            let mut matching =
                port_matches(&rule.ports).iter().filter(|it| it.protocol == protocol);
            match (matching.next().map(|it| &it.ports), anybody) {
                (None, false) => 1,
                (None, true) => 4,
                (Some(Ports::All), false) => 5,
                (Some(Ports::All), true) => 6,
                (Some(_), false) => 2,
                (Some(_), true) => 3,
            }
        })
        // From the most specific on: L3-L4, L3-protocol, L3, L4, protocol, all.
        .min_by_key(|kind| [2, 5, 1, 3, 6, 4].iter().position(|it| it == kind))
}
