//! What waypoints know: the services behind them, and the policies that are bound to these.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ztc_model::policy::mesh::waypoint::{
    self, Asked, Decision, Named, NotEvaluated, TokenError, WaypointPolicies,
};
use ztc_model::policy::mesh::{JwtRule, MeshPolicy};
use ztc_model::world::WaypointFor;
use ztc_model::ztunnel::HBONE_PORT;

use super::{Directory, Mesh, MeshService, NoUpstream, Route, Workload};
use crate::fault::{Fault, WRONG_NAME};

/// The name of an object in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NamespacedName {
    /// The namespace.
    pub(crate) namespace: String,
    /// The name.
    pub(crate) name: String,
}

impl NamespacedName {
    fn named(&self) -> Named<'_> {
        Named { namespace: &self.namespace, name: &self.name }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a waypoint is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A port of a service behind it.
    Service(MeshService),
    /// A port of a workload behind it, by the workload's own address.
    Workload {
        /// The waypoint.
        gateway: NamespacedName,
        /// The address and port.
        at: SocketAddr,
    },
}

impl Target {
    /// The service, if it is one.
    pub(crate) const fn service(&self) -> Option<&MeshService> {
        match self {
            Self::Service(service) => Some(service),
            Self::Workload { .. } => None,
        }
    }
}

/// What waypoints enforce.
#[derive(Debug, Default)]
pub(super) struct Enforced {
    /// For services.
    services: HashMap<NamespacedName, Arc<WaypointPolicies>>,
    /// For workloads, by waypoint.
    workloads: HashMap<NamespacedName, Arc<WaypointPolicies>>,
}

impl Enforced {
    fn of(&self, target: &Target) -> Option<Arc<WaypointPolicies>> {
        let policies = match target {
            Target::Service(service) => self.services.get(&service.name),
            Target::Workload { gateway, .. } => self.workloads.get(gateway),
        };
        policies.cloned()
    }
}

/// A waypoint that is there.
#[derive(Debug, Clone)]
pub(super) struct Waypoint {
    pub(super) serves: WaypointFor,
    workload: Arc<Workload>,
    addresses: Vec<IpAddr>,
}

impl Mesh {
    /// Says that a waypoint is there, and ready.
    pub(crate) fn add_waypoint(
        &self,
        gateway: NamespacedName,
        addresses: &[IpAddr],
        workload: &Arc<Workload>,
        serves: WaypointFor,
    ) {
        let (workload, addresses) = (Arc::clone(workload), addresses.to_vec());
        let mut directory = self.directory();
        directory.waypoints.insert(gateway, Waypoint { serves, workload, addresses });
        directory.change(&self.faults, |_policies| None);
        drop(directory);
        self.has_news();
    }

    /// Says that it is gone; one that never got ready changes nothing.
    pub(crate) fn remove_waypoint(&self, gateway: &NamespacedName) {
        let mut directory = self.directory();
        if directory.waypoints.remove(gateway).is_some() {
            directory.change(&self.faults, |_policies| None);
            drop(directory);
            self.has_news();
        }
    }

    /// What a waypoint is asked for; nothing where that is not behind this one.
    pub(crate) fn behind(&self, gateway: &NamespacedName, asked: SocketAddr) -> Option<Target> {
        let directory = self.directory();
        if let Some(service) = directory.services.get(&asked) {
            let is_behind = service.waypoint.as_ref() == Some(gateway)
                && directory.serves(gateway, WaypointFor::serves_services);
            return is_behind.then(|| Target::Service(service.clone()));
        }
        let workload = directory.workloads.get(&asked.ip())?;
        let is_behind = workload.waypoint.as_ref() == Some(gateway)
            && directory.serves(gateway, WaypointFor::serves_workloads);
        is_behind.then(|| Target::Workload { gateway: gateway.clone(), at: asked })
    }

    /// Where a waypoint sends what a client asks for.
    pub(crate) fn route_behind(
        &self,
        client: SocketAddr,
        target: &Target,
    ) -> Result<Route, NoUpstream> {
        let directory = self.directory();
        match target {
            Target::Service(service) => directory.backend(client, service),
            Target::Workload { at, .. } => {
                Ok(Route::to(*at, directory.workloads.get(&at.ip()).cloned(), None))
            }
        }
    }

    /// What policy says of a request to a waypoint, or of a connection that is none of HTTP, at a time in seconds since 1970.
    /// The token of a request is looked for here.
    pub(crate) fn judge_at_waypoint(
        &self,
        target: &Target,
        mut asked: Asked,
        now: u64,
    ) -> Decision {
        let policies = self.directory().at_waypoints.of(target);
        let Some(policies) = policies.filter(|_| !self.faults.has(Fault::AllowEverything)) else {
            return Decision::Forwarded;
        };
        let skips_expiry = self.faults.has(Fault::WaypointSkipsExpiry);
        let verify = |rule: &JwtRule, text: &str| match waypoint::verify(rule, text, now) {
            // As if it were long ago.
            Err(TokenError::Expired) if skips_expiry => waypoint::verify(rule, text, 0),
            verified => verified,
        };
        if let Some(request) = &mut asked.request {
            request.token = policies.token(&request.headers, verify);
        }
        match policies.decide(&asked) {
            Decision::Denied { mut by } if self.faults.has(Fault::WrongPolicyName) => {
                WRONG_NAME.clone_into(&mut by.policy.name);
                Decision::Denied { by }
            }
            decision => decision,
        }
    }
}

/// Whether all that a policy says is evaluated by the waypoints that it is bound to.
pub(crate) fn check(policy: &MeshPolicy) -> Result<(), NotEvaluated> {
    let (reference, targets) = match policy {
        MeshPolicy::Authorization(it) => (&it.reference, it.target_refs.as_slice()),
        MeshPolicy::Requests(_) | MeshPolicy::Peers(_) => return Ok(()),
    };
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    // Whether there is one that it is bound to, or will be, does not matter.
    targets.iter().try_for_each(|target| {
        let bound_to = Named { namespace, name: &target.name };
        WaypointPolicies::of([policy], bound_to, Some(bound_to)).map(drop)
    })
}

impl Directory {
    /// Whether a waypoint is there and is for what is asked.
    fn serves(&self, gateway: &NamespacedName, what: impl Fn(WaypointFor) -> bool) -> bool {
        self.waypoints.get(gateway).is_some_and(|it| what(it.serves))
    }

    /// The first address of a waypoint, if it is there and is for what is asked.
    pub(super) fn waypoint_address(
        &self,
        gateway: &NamespacedName,
        what: impl Fn(WaypointFor) -> bool,
    ) -> Option<IpAddr> {
        let waypoint = self.waypoints.get(gateway).filter(|it| what(it.serves))?;
        waypoint.addresses.first().copied()
    }

    /// The way through a waypoint, if there is one.
    pub(super) fn through_waypoint(
        &self,
        asked: SocketAddr,
        gateway: Option<&NamespacedName>,
        service: Option<&MeshService>,
    ) -> Option<Route> {
        let serves = match service {
            Some(_) => WaypointFor::serves_services,
            None => WaypointFor::serves_workloads,
        };
        let waypoint = self.waypoints.get(gateway?).filter(|it| serves(it.serves))?;
        let address = waypoint.addresses.iter().find(|it| it.is_ipv4() == asked.is_ipv4())?;
        Some(Route {
            to: asked,
            tunnel: Some(SocketAddr::new(*address, HBONE_PORT)),
            workload: Some(Arc::clone(&waypoint.workload)),
            service: service.map(|it| it.hostname.clone()),
        })
    }

    /// What waypoints enforce of policies. What is bound to a service is not about workloads, those of the service neither
    /// (`buildWaypointInternal` in `pilot/pkg/networking/core/listener_waypoint.go`).
    pub(super) fn enforced_by_waypoints(
        &self,
        policies: &[&MeshPolicy],
    ) -> Result<Enforced, NotEvaluated> {
        let bound = |gateway: &NamespacedName, service: Option<&NamespacedName>| {
            let service = service.map(NamespacedName::named);
            WaypointPolicies::of(policies.iter().copied(), gateway.named(), service).map(Arc::new)
        };
        let mut enforced = Enforced::default();
        for service in self.services.values() {
            let Some(gateway) = &service.waypoint else { continue };
            if !enforced.services.contains_key(&service.name) {
                let bound = bound(gateway, Some(&service.name))?;
                enforced.services.insert(service.name.clone(), bound);
            }
        }
        for gateway in self.waypoints.keys() {
            enforced.workloads.insert(gateway.clone(), bound(gateway, None)?);
        }
        Ok(enforced)
    }

    /// Whether a principal is that of a waypoint.
    pub(super) fn is_of_a_waypoint(&self, principal: &str) -> bool {
        self.waypoints.values().any(|it| it.workload.identity().principal() == principal)
    }
}
