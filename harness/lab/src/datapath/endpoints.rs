//! The pods that are plugged in, and what is enforced for each.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ztc_model::evidence::Direction;
use ztc_model::policy::{DirectionPolicy, NamedPorts};
use ztc_model::world::PodRef;

use super::config::{NodeId, PortId, like};
use super::identity::Number;
use super::policy_map::{Names, Peer, PolicyMap};

/// What can be told of an endpoint, as `cilium endpoint list` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointState {
    /// Its port.
    pub(crate) port: PortId,
    /// Its pod.
    pub(crate) reference: PodRef,
    /// Its node.
    pub(crate) node: NodeId,
    /// The number of its identity.
    pub(crate) identity: u32,
    /// The policy revision that is enforced for it.
    pub(crate) realised: u64,
    /// The directions in which policy is enforced.
    pub(crate) policy_enabled: PolicyEnabled,
}

/// The directions in which policy is enforced for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyEnabled {
    /// None: everything passes.
    None,
    /// What it receives.
    Ingress,
    /// What it sends.
    Egress,
    /// Both.
    Both,
}

/// A pod with what is enforced for it.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its number in records. Cilium's are drawn at random for each node.
    pub(super) id: u32,
    pub(super) reference: PodRef,
    pub(super) node: NodeId,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) identity: Number,
    pub(super) named_ports: NamedPorts,
    /// The number of `named_ports`.
    pub(super) names: Names,
    pub(super) enforced: Arc<Enforced>,
    /// The policy revision that is enforced.
    pub(super) realised: u64,
    /// Whether its connections go to a ztunnel.
    pub(super) captured: bool,
    /// Whether the names that it asks for do.
    pub(super) names_captured: bool,
}

/// What is enforced for an endpoint. Endpoints of which policies say the same share their maps.
#[derive(Debug)]
pub(super) struct Enforced {
    pub(super) ingress: Arc<PolicyMap>,
    pub(super) egress: Arc<PolicyMap>,
}

impl Endpoint {
    /// Who it is to a rule about what is sent to it.
    pub(super) fn as_receiver(&self) -> Peer {
        Peer { identity: self.identity, names: self.names }
    }
}

impl Enforced {
    /// What is enforced for one that no policy was compiled for yet: nothing passes.
    pub(super) fn closed() -> Arc<Self> {
        let closed = DirectionPolicy { default_deny: true, ..DirectionPolicy::default() };
        let map = || Arc::new(PolicyMap::compile(&closed, &[]));
        Arc::new(Self { ingress: map(), egress: map() })
    }

    pub(super) fn at(&self, hook: Direction) -> &PolicyMap {
        match hook {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    fn policy_enabled(&self) -> PolicyEnabled {
        match (self.ingress.is_enforced(), self.egress.is_enforced()) {
            (false, false) => PolicyEnabled::None,
            (true, false) => PolicyEnabled::Ingress,
            (false, true) => PolicyEnabled::Egress,
            (true, true) => PolicyEnabled::Both,
        }
    }
}

/// The endpoints by port, by address and by name.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    ports: BTreeMap<PortId, Endpoint>,
    addresses: HashMap<IpAddr, PortId>,
    names: HashMap<PodRef, PortId>,
}

impl Endpoints {
    pub(super) fn insert(&mut self, port: PortId, endpoint: Endpoint) {
        for address in &endpoint.addresses {
            self.addresses.insert(*address, port);
        }
        self.names.insert(endpoint.reference.clone(), port);
        self.ports.insert(port, endpoint);
    }

    /// Takes an endpoint out. Another that has its address or name by now keeps it.
    pub(super) fn remove(&mut self, port: PortId) -> Option<Endpoint> {
        let endpoint = self.ports.remove(&port)?;
        self.addresses.retain(|_, owner| *owner != port);
        self.names.retain(|_, owner| *owner != port);
        Some(endpoint)
    }

    pub(super) fn get(&self, port: PortId) -> Option<&Endpoint> {
        self.ports.get(&port)
    }

    pub(super) fn get_mut(&mut self, port: PortId) -> Option<&mut Endpoint> {
        self.ports.get_mut(&port)
    }

    pub(super) fn at(&self, address: IpAddr) -> Option<(PortId, &Endpoint)> {
        let port = *self.addresses.get(&address)?;
        Some((port, self.ports.get(&port)?))
    }

    /// The address of a pod that is of the family of another one.
    pub(super) fn address_of(&self, name: &PodRef, other: IpAddr) -> Option<IpAddr> {
        let port = self.names.get(name)?;
        like(&self.ports.get(port)?.addresses, other)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.ports.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        self.ports.values_mut()
    }

    pub(super) fn states(&self) -> Vec<EndpointState> {
        let state = |(port, endpoint): (&PortId, &Endpoint)| EndpointState {
            port: *port,
            reference: endpoint.reference.clone(),
            node: endpoint.node,
            identity: endpoint.identity,
            realised: endpoint.realised,
            policy_enabled: endpoint.enforced.policy_enabled(),
        };
        self.ports.iter().map(state).collect()
    }
}
