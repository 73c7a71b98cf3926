//! The policies of the cluster, the identities that there are, and how both become what is
//! enforced.
//!
//! A pod can bring an identity that policies of others select, and a policy can mention ranges or names that
//! become identities to all others: such a change compiles anew what all endpoints enforce. Any other policy
//! touches whom it selects and nobody else, or thousands of them could not be applied one after the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use ztc_model::dns::DnsRule;
use ztc_model::evidence::Direction;
use ztc_model::identity::{Identity, Reserved};
use ztc_model::labels::Labels;
use ztc_model::policy::{
    Decision, DirectionPolicy, Effect, NamedPorts, PeerSelector, Policy, PolicyRef, Protocol,
    endpoint_policy,
};
use ztc_model::selector::Selector;

use super::config::NodeId;
use super::endpoints::{Endpoint, Endpoints, Enforced};
use super::identity::{Identities, Number};
use super::ipcache::IpCache;
use super::names::{Lesson, Names as LearntNames};
use super::policy_map::{KnownPeer, Names, Peer, PolicyMap};
use super::spoil::spoiled;
use crate::fault::{Fault, Faults};

/// What a change of policies changes.
#[derive(Debug)]
pub(super) struct Touched {
    /// Whom the policies select that came, went or were replaced.
    subjects: Vec<Selector>,
    /// Whether they mention ranges or names, which are identities to everybody.
    addresses: bool,
}

impl Touched {
    fn by(policy: &Policy) -> Self {
        let rules = policy
            .specs()
            .iter()
            .flat_map(|spec| spec.policy.ingress.rules.iter().chain(&spec.policy.egress.rules));
        let mentions =
            |peers: &PeerSelector| peers.cidrs().next().is_some() || peers.names().next().is_some();
        let addresses = rules.map(|rule| &rule.peers).any(mentions);
        Self { subjects: policy.specs().iter().map(|it| it.subject.clone()).collect(), addresses }
    }

    fn add(&mut self, other: Self) {
        self.subjects.extend(other.subjects);
        self.addresses |= other.addresses;
    }
}

/// Policies and identities.
#[derive(Debug)]
pub(super) struct Repository {
    policies: BTreeMap<PolicyRef, Policy>,
    revision: u64,
    identities: Identities,
    ipcache: IpCache,
    /// What the DNS proxies have seen answers for.
    learnt: LearntNames,
    /// The sets of named ports by their numbers.
    named_ports: Vec<NamedPorts>,
    faults: Faults,
}

/// The maps of one revision, by what is compiled: most endpoints share them. A map depends on the endpoint's own ports
/// where these are what a sender sends to.
#[derive(Debug, Default)]
struct Compiled {
    ingress: HashMap<(DirectionPolicy, Names), Arc<PolicyMap>>,
    egress: HashMap<DirectionPolicy, Arc<PolicyMap>>,
}

impl Repository {
    /// No policies, and no addresses but those of the nodes.
    pub(super) fn new(nodes: impl IntoIterator<Item = (IpAddr, NodeId)>, faults: Faults) -> Self {
        let nodes: Vec<(IpAddr, NodeId)> = nodes.into_iter().collect();
        let has = |ipv4| nodes.iter().any(|(address, _)| address.is_ipv4() == ipv4);
        let mut ipcache = IpCache::new(has(true) && has(false), &faults);
        for (address, node) in nodes {
            ipcache.set_node(address, node);
        }
        Self {
            policies: BTreeMap::new(),
            // As in Cilium, where an agent without policies is at 1.
            revision: 1,
            identities: Identities::new(),
            ipcache,
            learnt: LearntNames::default(),
            // The first is that of `NO_NAMES`.
            named_ports: vec![NamedPorts::new()],
            faults,
        }
    }

    /// The revision of the policies.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Adds a policy or replaces the one of its name.
    pub(super) fn apply(&mut self, policy: Policy) -> Touched {
        let policy = spoiled(policy, &self.faults);
        let mut touched = Touched::by(&policy);
        if let Some(replaced) = self.policies.insert(policy.reference(), policy) {
            touched.add(Touched::by(&replaced));
        }
        self.revise(&touched);
        touched
    }

    /// Removes a policy; one that does not exist changes nothing.
    pub(super) fn remove(&mut self, policy: &PolicyRef) -> Option<Touched> {
        let touched = Touched::by(&self.policies.remove(policy)?);
        self.revise(&touched);
        Some(touched)
    }

    fn revise(&mut self, touched: &Touched) {
        if touched.addresses {
            self.map_addresses();
        }
        self.revision += 1;
    }

    /// Gives addresses to a pod; returns the number of its identity.
    pub(super) fn add_pod(&mut self, addresses: &[IpAddr], labels: Labels) -> Number {
        let identity = self.identities.number(&Identity::Endpoint(labels));
        for address in addresses {
            self.ipcache.set_pod(*address, identity);
        }
        identity
    }

    /// Takes an address from a pod.
    pub(super) fn remove_pod(&mut self, address: IpAddr) {
        self.ipcache.forget(address);
    }

    /// Learns from an answer that the proxy of a node passes on; says whether what is enforced has to
    /// be compiled anew.
    pub(super) fn learn(&mut self, node: NodeId, lesson: &Lesson, now: Instant) -> bool {
        let is_new = self.learnt.learn(node, lesson, now);
        if is_new {
            self.map_names();
        }
        is_new
    }

    /// Forgets the names whose time is over; says whether there were any.
    pub(super) fn forget_names(&mut self, now: Instant) -> bool {
        let were_some = !self.faults.has(Fault::FqdnIgnoresTtl) && self.learnt.forget(now);
        if were_some {
            self.map_names();
        }
        were_some
    }

    /// Forgets all names; says whether there were any.
    pub(super) fn forget_all_names(&mut self) -> bool {
        let were_some = self.learnt.forget_all();
        if were_some {
            self.map_names();
        }
        were_some
    }

    /// The number of a set of named ports.
    pub(super) fn names(&mut self, named: &NamedPorts) -> Names {
        let known = self.named_ports.iter().position(|it| it == named);
        let index = known.unwrap_or_else(|| {
            self.named_ports.push(named.clone());
            self.named_ports.len() - 1
        });
        Names::try_from(index).expect("there are far fewer endpoints than numbers")
    }

    /// The identity of an address as a node sees it.
    pub(super) fn identity(&self, address: IpAddr, seen_from: NodeId) -> Number {
        self.ipcache.identity(address, seen_from)
    }

    /// The labels of an identity, as in records.
    pub(super) fn labels(&self, identity: Number) -> Vec<String> {
        let identity = self.identities.get(identity);
        identity.map(|it| it.labels().to_strings()).unwrap_or_default()
    }

    /// Compiles the policies for all endpoints.
    pub(super) fn regenerate(&self, endpoints: &mut Endpoints) {
        self.regenerate_where(endpoints, |_| true);
    }

    /// Compiles the policies for whom a change touches. The others are at the new revision as they are.
    pub(super) fn regenerate_touched(&self, endpoints: &mut Endpoints, touched: &Touched) {
        self.regenerate_where(endpoints, |labels| {
            touched.addresses || touched.subjects.iter().any(|it| it.matches(labels))
        });
    }

    fn regenerate_where(&self, endpoints: &mut Endpoints, touched: impl Fn(&Labels) -> bool) {
        let peers = self.peers(endpoints);
        let mut compiled = Compiled::default();
        for endpoint in endpoints.iter_mut() {
            endpoint.realised = self.revision;
            let labels = self.identities.get(endpoint.identity).map(Identity::labels);
            if touched(&labels.unwrap_or_default()) {
                endpoint.enforced = Arc::new(self.compile(endpoint, &peers, &mut compiled));
            }
        }
    }

    /// Whether some rule allows a flow to or from an identity, whatever deny rules say of it. For a lab
    /// that gets the precedence of deny rules wrong.
    pub(super) fn allows_somehow(
        &self,
        endpoint: &Endpoint,
        hook: Direction,
        (peer, named): (Number, &NamedPorts),
        (protocol, port): (Protocol, u16),
    ) -> bool {
        let labels = self.identities.get(endpoint.identity).map(Identity::labels);
        let policy = endpoint_policy(self.policies.values(), &labels.unwrap_or_default());
        let mut policy = match hook {
            Direction::Ingress => policy.ingress,
            Direction::Egress => policy.egress,
        };
        policy.default_deny = true;
        policy.rules.retain(|rule| rule.effect == Effect::Allow);
        let decide = |peer: &Identity| policy.decide(peer, protocol, port, named);
        self.identities.get(peer).is_some_and(|peer| decide(peer) != Decision::NotAllowed)
    }

    /// The names of the ports of a peer.
    pub(super) fn named(&self, peer: Peer) -> &NamedPorts {
        &self.named_ports[peer.names as usize]
    }

    fn compile(
        &self,
        endpoint: &Endpoint,
        peers: &BTreeSet<Peer>,
        compiled: &mut Compiled,
    ) -> Enforced {
        let labels = self.identities.get(endpoint.identity).map(Identity::labels);
        let policy = endpoint_policy(self.policies.values(), &labels.unwrap_or_default());
        let ingress = compiled.ingress.entry((policy.ingress, endpoint.names));
        let ingress = ingress.or_insert_with_key(|(policy, _)| {
            Arc::new(PolicyMap::compile(policy, &self.senders(peers, &endpoint.named_ports)))
        });
        let egress = compiled.egress.entry(policy.egress).or_insert_with_key(|policy| {
            Arc::new(PolicyMap::compile(policy, &self.receivers(peers)))
        });
        Enforced { ingress: Arc::clone(ingress), egress: Arc::clone(egress) }
    }

    /// Who may send to an endpoint with these ports.
    fn senders<'a>(&'a self, peers: &BTreeSet<Peer>, named: &'a NamedPorts) -> Vec<KnownPeer<'a>> {
        let senders: BTreeSet<Number> = peers.iter().map(|peer| peer.identity).collect();
        let known = |number| Some((Peer::nameless(number), self.identities.get(number)?));
        let known = senders.into_iter().filter_map(known);
        known.map(|(peer, identity)| KnownPeer { peer, identity, named }).collect()
    }

    /// Who may be sent to.
    fn receivers(&self, peers: &BTreeSet<Peer>) -> Vec<KnownPeer<'_>> {
        let known = |peer: &Peer| {
            let identity = self.identities.get(peer.identity)?;
            Some(KnownPeer { peer: *peer, identity, named: self.named(*peer) })
        };
        peers.iter().filter_map(known).collect()
    }

    /// Everybody that a packet can come from or go to at the moment.
    fn peers(&self, endpoints: &Endpoints) -> BTreeSet<Peer> {
        let reserved = Reserved::ALL.into_iter().map(|name| Peer::nameless(name.number()));
        let outside = self.ipcache.outside_identities().map(Peer::nameless);
        let pods = endpoints.iter().map(Endpoint::as_receiver);
        reserved.chain(outside).chain(pods).collect()
    }

    /// Makes identities of the ranges that policies mention, those that they leave out too, and of
    /// what was learnt for the names that they are about.
    fn map_addresses(&mut self) {
        let ranges: BTreeSet<IpNet> = self
            .peer_selectors()
            .flat_map(PeerSelector::cidrs)
            .map(|range| range.trunc())
            .collect();
        let numbered: Vec<(IpNet, Number)> = ranges
            .into_iter()
            .map(|range| (range, self.identities.number(&Identity::Cidr(range))))
            .collect();
        self.ipcache.set_ranges(numbered);
        self.map_names();
    }

    /// Makes an identity of each set of names that an address was learnt for, as policies are about
    /// them (`deriveLabelsForName` in `pkg/fqdn/namemanager/manager.go`). An address with none of
    /// these stays what it is.
    fn map_names(&mut self) {
        let rules: BTreeSet<DnsRule> =
            self.peer_selectors().flat_map(PeerSelector::names).cloned().collect();
        let mut learnt = HashMap::new();
        for (node, address, names) in self.learnt.iter() {
            let names: Vec<&str> = names.collect();
            let about = |rule: &&DnsRule| names.iter().any(|name| rule.matches(name));
            let names: BTreeSet<DnsRule> = rules.iter().filter(about).cloned().collect();
            if !names.is_empty() {
                let range = self.ipcache.longest(address).map(|(range, _)| range);
                let number = self.identities.number(&Identity::Fqdn { names, range });
                learnt.insert((node, address), number);
            }
        }
        self.ipcache.set_learnt(learnt);
    }

    /// Whom the rules of all policies are about.
    fn peer_selectors(&self) -> impl Iterator<Item = &PeerSelector> {
        let specs = self.policies.values().flat_map(Policy::specs);
        let rules = specs
            .flat_map(|spec| spec.policy.ingress.rules.iter().chain(&spec.policy.egress.rules));
        rules.map(|rule| &rule.peers)
    }
}
