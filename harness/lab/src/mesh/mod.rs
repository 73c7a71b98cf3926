//! What all ztunnels and waypoints of a lane know: workloads, services and policies, as istiod tells them.
//!
//! It does no I/O, and must not know sockets or packets. It says where a connection leads and whether policy
//! allows it, and in which words a proxy tells of it; what the mesh's policies mean is the model's.

mod access_log;
mod authority;
mod conditions;
mod discovery;
mod names;
mod request_log;
mod spoil;
mod waypoints;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use ztc_model::policy::PolicyRef;
use ztc_model::policy::mesh::ztunnel::{self, Connection, Decision, Distributed, PolicyKey};
use ztc_model::policy::mesh::{CONVERTED_PEERS, MeshPolicy, STATIC_STRICT, SpiffeId};
use ztc_model::world::PodRef;
use ztc_model::ztunnel::HBONE_PORT;

use crate::fault::{Fault, Faults, WRONG_NAME};

pub(crate) use access_log::{AccessLog, Early, End};
pub(crate) use authority::{Certified, Trust, TrustError};
pub(crate) use conditions::programmed;
pub(crate) use discovery::{ADDRESS_TYPE, AUTHORIZATION_TYPE, Told, uid};
pub(crate) use names::KnownName;
pub(crate) use request_log::{Outcome, RequestLog};
pub(crate) use waypoints::{NamespacedName, Target, check};

/// The name of a cluster that is not told its own.
const CLUSTER: &str = "Kubernetes";

/// How long it takes from the restart of ztunnels until all of them are ready.
const ROLLOUT: Duration = Duration::from_millis(200);

/// A pod, as the mesh knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Its name.
    pub(crate) reference: PodRef,
    /// Its service account.
    pub(crate) service_account: String,
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether it is enrolled, so that it is reached through a tunnel.
    pub(crate) enrolled: bool,
    /// The waypoint that it is put behind, whether that is there or not.
    pub(crate) waypoint: Option<NamespacedName>,
}

impl Workload {
    /// Its name in certificates.
    pub(crate) fn identity(&self) -> SpiffeId {
        SpiffeId::of(&self.reference.namespace, &self.service_account)
    }
}

/// One port of a service, as the mesh knows it.
#[derive(Debug, Clone)]
pub(crate) struct MeshService {
    /// The service.
    pub(crate) name: NamespacedName,
    /// Its full name.
    pub(crate) hostname: String,
    /// Its address and port.
    pub(crate) at: SocketAddr,
    /// Whether it is known to be HTTP.
    pub(crate) is_http: bool,
    /// The waypoint that it is put behind, whether that is there or not.
    pub(crate) waypoint: Option<NamespacedName>,
    /// The pods behind it, and the port that each serves on.
    pub(crate) backends: Vec<(PodRef, u16)>,
}

/// Where what a pod asks for leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// The workload's own address and port, or what was asked for where that is none of the mesh's or leads through a
    /// waypoint.
    pub(crate) to: SocketAddr,
    /// Where the tunnel to it ends, if it is in one.
    pub(crate) tunnel: Option<SocketAddr>,
    /// The workload at that end, if it is one.
    pub(crate) workload: Option<Arc<Workload>>,
    /// The name of the service that was asked for.
    pub(crate) service: Option<String>,
}

impl Route {
    /// To an address, which may be a workload's.
    fn to(to: SocketAddr, workload: Option<Arc<Workload>>, service: Option<String>) -> Self {
        let enrolled = workload.as_ref().is_some_and(|it| it.enrolled);
        let tunnel = enrolled.then(|| SocketAddr::new(to.ip(), HBONE_PORT));
        Self { to, tunnel, workload, service }
    }
}

/// A service has nobody behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no healthy upstream: {service}")]
pub(crate) struct NoUpstream {
    service: String,
}

/// The mesh of a lane.
#[derive(Debug)]
pub(crate) struct Mesh {
    directory: Mutex<Directory>,
    /// The last revision of the policies that has a policy of the mesh changed.
    revision: watch::Sender<u64>,
    /// Counts what is to be told to ztunnels that are processes of their own.
    generation: watch::Sender<u64>,
    /// When ztunnels were restarted last, on all nodes at once, and for how long they forgot who is STRICT.
    restarted: watch::Sender<Option<(Instant, Duration)>>,
    trust: Trust,
    pub(crate) faults: Faults,
}

#[derive(Debug, Default)]
struct Directory {
    workloads: HashMap<IpAddr, Arc<Workload>>,
    services: HashMap<SocketAddr, MeshService>,
    /// The addresses of all services by their full names.
    names: HashMap<String, Vec<IpAddr>>,
    waypoints: HashMap<NamespacedName, waypoints::Waypoint>,
    /// The oldest first: of policies that say the same, it counts.
    policies: Vec<MeshPolicy>,
    /// What ztunnels are told of them.
    distributed: Distributed,
    /// What open connections are held against since the last change.
    held_against: Distributed,
    /// What waypoints enforce.
    at_waypoints: waypoints::Enforced,
}

impl Mesh {
    /// A mesh with services, and nobody in it yet.
    pub(crate) fn new(
        services: impl IntoIterator<Item = MeshService>,
        names: impl IntoIterator<Item = (String, IpAddr)>,
        faults: Faults,
    ) -> Result<Self, TrustError> {
        let services = services.into_iter().map(|service| (service.at, service)).collect();
        let mut addresses: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for (name, address) in names {
            addresses.entry(name).or_default().push(address);
        }
        Ok(Self {
            directory: Mutex::new(Directory { services, names: addresses, ..Directory::default() }),
            revision: watch::Sender::new(0),
            generation: watch::Sender::new(0),
            restarted: watch::Sender::new(None),
            trust: Trust::new()?,
            faults,
        })
    }

    /// Who issues the certificates of its workloads.
    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Says that a workload has these addresses.
    pub(crate) fn add(&self, addresses: &[IpAddr], workload: &Arc<Workload>) {
        let mut directory = self.directory();
        for address in addresses {
            directory.workloads.insert(*address, Arc::clone(workload));
        }
        drop(directory);
        self.has_news();
    }

    /// Says that nobody has these addresses any more.
    pub(crate) fn remove(&self, addresses: &[IpAddr]) {
        self.directory().workloads.retain(|address, _| !addresses.contains(address));
        self.has_news();
    }

    fn has_news(&self) {
        self.generation.send_modify(|it| *it += 1);
    }

    /// The workload with an address.
    pub(crate) fn workload(&self, address: IpAddr) -> Option<Arc<Workload>> {
        self.directory().workloads.get(&address).cloned()
    }

    /// The name of a service of which a workload serves this port.
    pub(crate) fn service_of(&self, workload: &PodRef, port: u16) -> Option<String> {
        let directory = self.directory();
        let serves = |it: &&MeshService| {
            it.backends.iter().any(|(pod, serves)| pod == workload && *serves == port)
        };
        let mut names: Vec<&str> =
            directory.services.values().filter(serves).map(|it| it.hostname.as_str()).collect();
        names.sort_unstable();
        names.first().map(|it| (*it).to_owned())
    }

    /// Where what a client asks for leads.
    pub(crate) fn route(&self, client: SocketAddr, asked: SocketAddr) -> Result<Route, NoUpstream> {
        let directory = self.directory();
        let Some(service) = directory.services.get(&asked) else {
            let workload = directory.workloads.get(&asked.ip()).cloned();
            let gateway = workload.as_ref().and_then(|it| it.waypoint.as_ref());
            let gateway = gateway.filter(|_| !self.faults.has(Fault::WaypointForServicesAlone));
            let through = directory.through_waypoint(asked, gateway, None);
            return Ok(through.unwrap_or_else(|| Route::to(asked, workload, None)));
        };
        let gateway = service.waypoint.as_ref();
        match directory.through_waypoint(asked, gateway, Some(service)) {
            Some(route) => Ok(route),
            None => directory.backend(client, service),
        }
    }

    /// Adds a policy that was [checked](check), or replaces the one of its name, at a revision of the policies.
    pub(crate) fn apply(&self, policy: MeshPolicy, revision: u64) {
        let reference = policy.reference().clone();
        self.directory().change(&self.faults, |policies| {
            if let Some(known) = policies.iter_mut().find(|it| *it.reference() == reference) {
                *known = policy;
                return None;
            }
            let late = is_referred_to(&policy).then_some(reference);
            policies.push(policy);
            late
        });
        self.revision.send_replace(revision);
        self.has_news();
    }

    /// Removes a policy, at a revision of the policies; one that does not exist changes nothing.
    pub(crate) fn withdraw(&self, policy: &PolicyRef, revision: u64) {
        let is_known = |it: &MeshPolicy| it.reference() == policy;
        if self.directory().policies.iter().any(is_known) {
            self.directory().change(&self.faults, |policies| {
                policies.retain(|it| !is_known(it));
                None
            });
            self.revision.send_replace(revision);
            self.has_news();
        }
    }

    /// What policy says of a connection to a workload that is about to open.
    pub(crate) fn judge(&self, server: &Workload, connection: &Connection) -> Decision {
        self.decide(&self.directory().distributed, server, connection)
    }

    /// What policy says of one that is open, when a policy has changed.
    ///
    /// ztunnel looks at its open connections when a policy comes. That a workload refers to it, which it does by a
    /// selector or by its mode, comes by another message, and then nobody looks (`PolicyWatcher` in
    /// `src/proxy/connection_manager.rs`, and surprise 14 of `docs/facts.md`).
    pub(crate) fn judge_again(&self, server: &Workload, connection: &Connection) -> Decision {
        if self.faults.has(Fault::OpenConnectionsKept) {
            return Decision::Allowed;
        }
        self.decide(&self.directory().held_against, server, connection)
    }

    fn decide(&self, told: &Distributed, server: &Workload, connection: &Connection) -> Decision {
        if self.faults.has(Fault::AllowEverything) {
            return Decision::Allowed;
        }
        let workload =
            ztunnel::Workload { namespace: &server.reference.namespace, labels: &server.labels };
        let decision = told.of_workload(&workload).decide(connection);
        match decision {
            Decision::Denied { by } if self.forgets_strict() && by.iter().all(is_of_peers) => {
                Decision::Allowed
            }
            Decision::Denied { by } if self.faults.has(Fault::WrongPolicyName) => {
                Decision::Denied { by: by.into_iter().map(misnamed).collect() }
            }
            decision => decision,
        }
    }

    /// Restarts the ztunnels of all nodes.
    ///
    /// As in a rollout, who comes takes over from who goes, and accepts at once; connections end, and so does what was kept
    /// of tunnels and names. They are broken in these ways, as far as it shows then.
    pub(crate) fn restart_ztunnels(&self, as_broken: &Faults, now: Instant) {
        self.restarted.send_replace(Some((now, as_broken.forgets_strict().unwrap_or_default())));
    }

    /// Is told of restarts from now on.
    pub(crate) fn restarts(&self) -> watch::Receiver<Option<(Instant, Duration)>> {
        self.restarted.subscribe()
    }

    /// Whether ztunnels are not all ready again after a restart.
    pub(crate) fn ztunnels_restart(&self) -> bool {
        self.restarted.borrow().is_some_and(|(at, _)| at.elapsed() < ROLLOUT)
    }

    /// Whether ztunnels are so newly back that they do not know yet who must not be spoken to in plain.
    fn forgets_strict(&self) -> bool {
        self.restarted.borrow().is_some_and(|(at, time)| at.elapsed() < time)
    }

    /// The last revision at which a policy of the mesh has changed.
    pub(crate) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// The same, as it changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// How often there was something to tell, as it changes.
    pub(crate) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        // It is whole whenever the lock is free.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// Of the pods behind a service the one for a client: by the client's port, so that clients spread.
    fn backend(&self, client: SocketAddr, service: &MeshService) -> Result<Route, NoUpstream> {
        let mut there: Vec<(SocketAddr, &Arc<Workload>)> = self
            .workloads
            .iter()
            .filter(|(address, _)| address.is_ipv4() == service.at.is_ipv4())
            .filter_map(|(address, workload)| {
                let serves = |(pod, _): &&(PodRef, u16)| *pod == workload.reference;
                let (_, port) = service.backends.iter().find(serves)?;
                Some((SocketAddr::new(*address, *port), workload))
            })
            .collect();
        there.sort_unstable_by_key(|(to, _)| *to);
        let turn = usize::from(client.port()).checked_rem(there.len());
        let chosen = turn.and_then(|turn| there.get(turn));
        let hostname = service.hostname.clone();
        let (to, workload) = chosen.ok_or_else(|| NoUpstream { service: hostname.clone() })?;
        Ok(Route::to(*to, Some(Arc::clone(workload)), Some(hostname)))
    }

    /// Changes the policies; `change` returns the one that workloads do not refer to yet.
    fn change(
        &mut self,
        faults: &Faults,
        change: impl FnOnce(&mut Vec<MeshPolicy>) -> Option<PolicyRef>,
    ) {
        let late = change(&mut self.policies);
        let is_of_a_waypoint = |principal: &str| self.is_of_a_waypoint(principal);
        let spoiled = |it: &MeshPolicy| spoil::spoiled(it.clone(), faults, is_of_a_waypoint);
        let known: Vec<MeshPolicy> = self.policies.iter().filter_map(spoiled).collect();
        let in_time = known.iter().filter(|it| Some(it.reference()) != late.as_ref());
        let held_against = Distributed::of(in_time);
        let at_waypoints = self.enforced_by_waypoints(&known.iter().collect::<Vec<_>>());
        self.held_against = held_against;
        self.distributed = Distributed::of(&known);
        self.at_waypoints = at_waypoints.expect("a policy is checked before it is applied");
    }
}

/// Whether ztunnels know whom a policy is about by the workloads alone, which refer to it.
fn is_referred_to(policy: &MeshPolicy) -> bool {
    match policy {
        MeshPolicy::Peers(_) => true,
        MeshPolicy::Requests(_) => false,
        MeshPolicy::Authorization(policy) => !policy.selector.is_empty(),
    }
}

/// Whether istiod has made it up out of `PeerAuthentication`.
fn is_of_peers(policy: &PolicyKey) -> bool {
    policy.name == STATIC_STRICT || policy.name.starts_with(CONVERTED_PEERS)
}

/// Another name than the right one, for a policy that somebody has written: what istiod makes up stays.
fn misnamed(policy: PolicyKey) -> PolicyKey {
    if is_of_peers(&policy) { policy } else { PolicyKey { name: WRONG_NAME.to_owned(), ..policy } }
}

#[cfg(test)]
mod tests;
