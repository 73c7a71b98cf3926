//! Which identity an address has.
//!
//! Source: `pkg/ipcache`. The addresses of pods and nodes are exact; every other address belongs
//! to the longest of the ranges that policies mention, or to the world, unless the node has learnt
//! it for a name that a policy is about. An address that no policy
//! mentions is `world` even if it is special to others, as 169.254.7.127 is.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use ztc_model::identity::Reserved;

use super::config::NodeId;
use super::identity::Number;
use crate::fault::{Fault, Faults};

/// The identities of addresses.
#[derive(Debug, Default)]
pub(super) struct IpCache {
    owners: HashMap<IpAddr, Owner>,
    /// The mentioned ranges by their length, each by its first address.
    ranges: BTreeMap<u8, HashMap<IpAddr, Number>>,
    /// Whether the cluster has addresses of both families.
    dual_stack: bool,
    /// Addresses that a node has learnt for names which policies are about.
    learnt: HashMap<(NodeId, IpAddr), Number>,
    /// Whether policies mention a range of every address of a version, of IPv4 and of IPv6.
    everything: (bool, bool),
    /// Whether ranges, on purpose, select pods and nodes too.
    overrules: (bool, bool),
}

#[derive(Debug, Clone, Copy)]
enum Owner {
    Pod(Number),
    Node(NodeId),
}

impl IpCache {
    /// Of a cluster with one family or with both.
    pub(super) fn new(dual_stack: bool, faults: &Faults) -> Self {
        let has = |fault| faults.has(fault);
        let overrules = (has(Fault::CidrMatchesPods), has(Fault::CidrMatchesHost));
        Self { dual_stack, overrules, ..Self::default() }
    }

    /// Says that a pod with this identity has the address.
    pub(super) fn set_pod(&mut self, address: IpAddr, identity: Number) {
        self.owners.insert(address, Owner::Pod(identity));
    }

    /// Says that a node has the address.
    pub(super) fn set_node(&mut self, address: IpAddr, node: NodeId) {
        self.owners.insert(address, Owner::Node(node));
    }

    /// Forgets whose an address is.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.owners.remove(&address);
    }

    /// Replaces the ranges that policies mention. A range of every address is the world itself
    /// (`pkg/labels/cidr.go`) and is passed over.
    pub(super) fn set_ranges(&mut self, ranges: impl IntoIterator<Item = (IpNet, Number)>) {
        self.ranges.clear();
        self.everything = (false, false);
        for (range, identity) in ranges {
            match range {
                _ if range.prefix_len() > 0 => {
                    let same_length = self.ranges.entry(range.prefix_len()).or_default();
                    same_length.insert(range.network(), identity);
                }
                IpNet::V4(_) => self.everything.0 = true,
                IpNet::V6(_) => self.everything.1 = true,
            }
        }
    }

    /// Replaces the addresses that nodes have learnt for names.
    pub(super) fn set_learnt(&mut self, learnt: HashMap<(NodeId, IpAddr), Number>) {
        self.learnt = learnt;
    }

    /// The identity of an address as a node sees it: a node is `host` to itself and `remote-node`
    /// to others.
    pub(super) fn identity(&self, address: IpAddr, seen_from: NodeId) -> Number {
        match self.owners.get(&address).filter(|owner| !self.is_overruled(address, owner)) {
            Some(Owner::Pod(identity)) => *identity,
            Some(Owner::Node(node)) if *node == seen_from => Reserved::Host.number(),
            Some(Owner::Node(_)) => Reserved::RemoteNode.number(),
            None => {
                let learnt = self.learnt.get(&(seen_from, address)).copied();
                let number = learnt.or_else(|| Some(self.longest(address)?.1));
                number.unwrap_or_else(|| self.world(address).number())
            }
        }
    }

    /// Whether a range, on purpose, takes an address from its owner.
    fn is_overruled(&self, address: IpAddr, owner: &Owner) -> bool {
        let (pods, nodes) = self.overrules;
        let broken = match owner {
            Owner::Pod(_) => pods,
            Owner::Node(_) => nodes,
        };
        let everything = if address.is_ipv4() { self.everything.0 } else { self.everything.1 };
        broken && (everything || self.longest(address).is_some())
    }

    /// Who an address is that nobody mentions.
    fn world(&self, address: IpAddr) -> Reserved {
        match (self.dual_stack, address) {
            (false, _) => Reserved::World,
            (true, IpAddr::V4(_)) => Reserved::WorldIpv4,
            (true, IpAddr::V6(_)) => Reserved::WorldIpv6,
        }
    }

    /// The identities of the ranges, and of what was learnt.
    pub(super) fn outside_identities(&self) -> impl Iterator<Item = Number> {
        self.ranges.values().flat_map(HashMap::values).chain(self.learnt.values()).copied()
    }

    /// The longest range around an address, with its identity.
    pub(super) fn longest(&self, address: IpAddr) -> Option<(IpNet, Number)> {
        self.ranges.iter().rev().find_map(|(length, ranges)| {
            // A length that the address does not have is one of the other version.
            let range = IpNet::new(address, *length).ok()?.trunc();
            Some((range, *ranges.get(&range.network())?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(0);

    fn cache(ranges: &[(&str, Number)]) -> IpCache {
        let mut cache = IpCache::default();
        cache.set_ranges(ranges.iter().map(|(range, number)| (range.parse().unwrap(), *number)));
        cache
    }

    fn identity(cache: &IpCache, address: &str) -> Number {
        cache.identity(address.parse().unwrap(), NODE)
    }

    #[test]
    fn an_address_has_the_identity_of_the_longest_range_around_it() {
        let cache = cache(&[("10.0.0.0/8", 20), ("10.1.0.0/16", 21), ("10.1.2.3/32", 22)]);
        assert_eq!(identity(&cache, "10.9.9.9"), 20);
        assert_eq!(identity(&cache, "10.1.9.9"), 21);
        assert_eq!(identity(&cache, "10.1.2.3"), 22);
    }

    #[test]
    fn an_address_that_no_policy_mentions_is_the_world() {
        // Surprise 13 of the recorded facts: a probe from this address has the identity `world`.
        assert_eq!(identity(&cache(&[]), "169.254.7.127"), 2);
        assert_eq!(identity(&cache(&[("169.254.7.127/32", 20)]), "169.254.7.127"), 20);
        assert_eq!(identity(&cache(&[("0.0.0.0/0", 20)]), "169.254.7.127"), 2);
    }

    #[test]
    fn a_range_selects_neither_pods_nor_nodes() {
        // Surprise 6 of the recorded facts.
        let mut cache = cache(&[("10.0.0.0/8", 20)]);
        cache.set_pod("10.244.0.5".parse().unwrap(), 256);
        cache.set_node("10.89.0.2".parse().unwrap(), NODE);
        cache.set_node("10.89.0.3".parse().unwrap(), NodeId(1));
        assert_eq!(identity(&cache, "10.244.0.5"), 256);
        assert_eq!(identity(&cache, "10.89.0.2"), Reserved::Host.number());
        assert_eq!(identity(&cache, "10.89.0.3"), Reserved::RemoteNode.number());
        cache.forget("10.244.0.5".parse().unwrap());
        assert_eq!(identity(&cache, "10.244.0.5"), 20, "its address is one like others now");
    }

    #[test]
    fn with_both_families_the_world_has_two_identities() {
        let cache = IpCache::new(true, &Faults::default());
        assert_eq!(identity(&cache, "203.0.113.10"), 9);
        assert_eq!(identity(&cache, "2001:db8::1"), 10);
    }

    #[test]
    fn versions_of_ip_do_not_mix() {
        let cache = cache(&[("fd00::/8", 20), ("10.0.0.0/8", 21)]);
        assert_eq!(identity(&cache, "10.0.0.1"), 21);
        assert_eq!(identity(&cache, "fd00::1"), 20);
        assert_eq!(identity(&cache, "2001:db8::1"), 2);
    }
}
