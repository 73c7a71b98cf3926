//! What of a world a cell needs.

use std::collections::BTreeSet;

use ztc_model::stimulus::{Peer, Send};
use ztc_model::suite::{Case, Cell, Origin};
use ztc_model::world::{Called, KubeService, OutsideHost, Pod, PodRef, Speaks, Waypoint, World};
use ztc_wire::Family;

use super::Refusal;

/// The part of a world that a cell needs.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) world: &'a World,
    /// The namespaces that have to be made, in the order of the world.
    pub(super) namespaces: Vec<&'a str>,
    pub(super) pods: Vec<&'a Pod>,
    pub(super) services: Vec<&'a KubeService>,
    pub(super) waypoints: Vec<&'a Waypoint>,
    /// The hosts that somebody has to provide.
    pub(super) hosts: Vec<&'a OutsideHost>,
    /// Whether something is sent over IPv6.
    pub(super) over_ipv6: bool,
}

impl<'a> Scene<'a> {
    /// Looks for everything that the stimuli of a cell touch, and that its policies live in or are bound to.
    pub(super) fn of(case: &Case, cell: &Cell, world: &'a World) -> Result<Self, Refusal> {
        let stimuli = [Some(&cell.send), cell.after.as_ref()];
        let (mut pods, mut services, mut hosts) =
            <(BTreeSet<PodRef>, BTreeSet<_>, Vec<_>)>::default();
        if let Origin::Pod(pod) = &cell.from {
            pods.insert(pod.clone());
        }
        for send in stimuli.into_iter().flatten() {
            if matches!(send, Send::UdpFlow(_) | Send::TcpFlow(_)) {
                return Err(Refusal::Flow { send: send.to_string() });
            }
            if matches!(send, Send::Tls(_) | Send::Http { tls: true, .. }) {
                return Err(Refusal::Tls { send: send.to_string() });
            }
            if matches!(send, Send::Hbone(_)) {
                return Err(Refusal::Tunnel { send: send.to_string() });
            }
            for touched in touched(world, send) {
                match touched {
                    Touched::Pod(pod) => {
                        pods.insert(pod.clone());
                    }
                    Touched::Service(service) => {
                        services.insert((&service.namespace, &service.name));
                        pods.extend(world.backends(service).map(Pod::reference));
                    }
                    Touched::Host(host) if !hosts.contains(&host) => hosts.push(host),
                    Touched::Host(_) => {}
                }
            }
        }
        if let Some(pod) = case.create.iter().find(|pod| pods.contains(pod)) {
            return Err(Refusal::Newborn { pod: pod.clone() });
        }
        if let Some(component) = case.restart.first() {
            return Err(Refusal::Restart { component: *component });
        }
        if let Some(change) = case.relabel.iter().find(|it| pods.contains(&it.pod)) {
            return Err(Refusal::Relabelled { pod: change.pod.clone() });
        }
        let pods: Vec<&Pod> =
            world.pods.iter().filter(|it| pods.contains(&it.reference())).collect();
        let serves_dns = |pod: &&&Pod| pod.serves.iter().any(|it| it.speaks == Speaks::Dns);
        if let Some(pod) = pods.iter().find(serves_dns) {
            return Err(Refusal::Server { pod: pod.reference() });
        }
        let of_policies = case.apply.iter().filter_map(|it| it.reference.namespace.as_deref());
        let touched: BTreeSet<&str> = pods
            .iter()
            .map(|it| it.namespace.as_str())
            .chain(services.iter().map(|(namespace, _)| namespace.as_str()))
            .chain(of_policies)
            .collect();
        // A service behind a waypoint may be what a policy is bound to, whoever asks for it.
        let has_waypoint = |service: &&KubeService| {
            touched.contains(service.namespace.as_str()) && world.waypoint_of(service).is_some()
        };
        let is_named = |it: &&KubeService| services.contains(&(&it.namespace, &it.name));
        Ok(Self {
            world,
            namespaces: world.own_namespaces().filter(|it| touched.contains(it)).collect(),
            services: world.services.iter().filter(|it| is_named(it) || has_waypoint(it)).collect(),
            waypoints: world
                .waypoints
                .iter()
                .filter(|it| touched.contains(it.namespace.as_str()))
                .collect(),
            pods,
            hosts,
            over_ipv6: stimuli.into_iter().flatten().any(|it| it.family() == Some(Family::Ipv6)),
        })
    }

    /// The pod of that name, which is part of the scene.
    pub(super) fn pod(&self, reference: &PodRef) -> Option<&'a Pod> {
        self.pods.iter().copied().find(|it| it.reference() == *reference)
    }

    /// Whether something of it is in the ambient mesh.
    pub(super) fn is_meshed(&self) -> bool {
        self.pods.iter().any(|pod| self.world.is_ambient(pod))
    }
}

enum Touched<'a> {
    Pod(PodRef),
    Service(&'a KubeService),
    Host(&'a OutsideHost),
}

/// Whom a stimulus goes to, and whose name it asks for.
fn touched<'a>(world: &'a World, send: &Send) -> Vec<Touched<'a>> {
    let called = |name: &str| match world.called(name) {
        Some(Called::Host(host)) => vec![Touched::Host(host)],
        Some(Called::Service(service)) => vec![Touched::Service(service)],
        None => Vec::new(),
    };
    let mut touched = match send.peer() {
        Some(Peer::Pod(pod)) => vec![Touched::Pod(pod.clone())],
        Some(Peer::Outside(name)) => world.outside(name).map(Touched::Host).into_iter().collect(),
        Some(Peer::Address(address)) => {
            world.outside.iter().filter(|it| it.has(*address)).map(Touched::Host).collect()
        }
        Some(Peer::Name(name)) => called(name),
        None => Vec::new(),
    };
    match send {
        Send::Dns { name, .. } => touched.extend(called(name)),
        Send::Readiness(pod) => touched.push(Touched::Pod(pod.clone())),
        _ => {}
    }
    touched
}
