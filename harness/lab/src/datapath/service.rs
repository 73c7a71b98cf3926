//! Services: an address and port that stand for those of some pod.
//!
//! Follows `bpf/lib/lb.h` for clients in pods: the destination is replaced before policy is asked,
//! so policy sees the backend and its port. What takes the reply back is in the connection's
//! entry.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ztc_model::evidence::FlowKey;
use ztc_model::policy::Protocol;
use ztc_model::world::PodRef;

use super::aging::Aging;
use super::config::{Backend, ServiceVip};

/// The most choices remembered.
const CAPACITY: usize = 1 << 16;
/// How long the choice of a backend is kept for packets from the same port: as long as a
/// connection without replies is.
const CHOICE: Duration = Duration::from_mins(1);

/// The services of the cluster.
#[derive(Debug)]
pub(super) struct Services {
    vips: HashSet<IpAddr>,
    ports: HashMap<(Protocol, SocketAddr), Vec<Backend>>,
    chosen: Aging<FlowKey, SocketAddr>,
}

/// What a destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Translation {
    /// No service.
    None,
    /// A service, and here is who answers for it.
    To(SocketAddr),
    /// A service, and nobody answers for it.
    NoBackend,
}

impl Services {
    pub(super) fn new(services: Vec<ServiceVip>) -> Self {
        let vips = services.iter().map(|service| service.vip).collect();
        let ports = services.into_iter().map(|service| {
            let address = SocketAddr::new(service.vip, service.port);
            ((service.protocol, address), service.backends)
        });
        Self { vips, ports: ports.collect(), chosen: Aging::new(CAPACITY) }
    }

    /// Finds who answers for the destination of a flow. Packets of one flow find the same backend
    /// as long as it is there.
    pub(super) fn translate(
        &mut self,
        flow: FlowKey,
        address_of: impl Fn(&PodRef) -> Option<IpAddr>,
        now: Instant,
    ) -> Translation {
        if !self.vips.contains(&flow.destination.ip()) {
            return Translation::None;
        }
        let Some(backends) = self.ports.get(&(flow.protocol, flow.destination)) else {
            return Translation::NoBackend;
        };
        let present = || {
            backends
                .iter()
                .filter_map(|backend| Some((address_of(&backend.pod)?, backend.port)))
                .filter(|(address, _)| address.is_ipv4() == flow.destination.is_ipv4())
                .map(SocketAddr::from)
        };
        if let Some(chosen) = self.chosen.get_mut(&flow, now)
            && present().any(|backend| backend == chosen.value)
        {
            chosen.expires = now + CHOICE;
            return Translation::To(chosen.value);
        }
        let Some(choice) = pick(&present().collect::<Vec<_>>(), flow) else {
            return Translation::NoBackend;
        };
        self.chosen.insert(flow, choice, now, CHOICE);
        Translation::To(choice)
    }
}

/// Any of them, by a hash of the flow, so that clients spread.
fn pick(present: &[SocketAddr], flow: FlowKey) -> Option<SocketAddr> {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(flow);
    let index = hash.checked_rem(present.len() as u64)?;
    present.get(usize::try_from(index).ok()?).copied()
}
