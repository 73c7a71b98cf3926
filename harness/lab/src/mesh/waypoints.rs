//! What waypoints know: the services behind them, and the policies that are bound to these.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ztc_model::policy::mesh::waypoint::{
    self, Asked, Decision, Named, NotEvaluated, TokenError, WaypointPolicies,
};
use ztc_model::policy::mesh::{JwtRule, MeshPolicy};
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

/// A waypoint that is there.
#[derive(Debug, Clone)]
pub(super) struct Waypoint {
    workload: Arc<Workload>,
    addresses: Vec<IpAddr>,
}

impl Mesh {
    /// Says that a waypoint is there.
    pub(crate) fn add_waypoint(
        &self,
        gateway: NamespacedName,
        addresses: &[IpAddr],
        workload: &Arc<Workload>,
    ) {
        let waypoint = Waypoint { workload: Arc::clone(workload), addresses: addresses.to_vec() };
        self.directory().waypoints.insert(gateway, waypoint);
        self.add(addresses, workload);
    }

    /// Whether all that a policy says is evaluated by the waypoints that it is bound to.
    pub(crate) fn check(&self, policy: &MeshPolicy) -> Result<(), NotEvaluated> {
        self.directory().enforced_by_waypoints(&[policy]).map(drop)
    }

    /// The port of a service that a waypoint is asked for; nothing where it is not behind this one.
    pub(crate) fn behind(
        &self,
        gateway: &NamespacedName,
        asked: SocketAddr,
    ) -> Option<MeshService> {
        let directory = self.directory();
        let service = directory.services.get(&asked)?;
        (service.waypoint.as_ref() == Some(gateway)).then(|| service.clone())
    }

    /// Where a waypoint sends what a client asks of a service.
    pub(crate) fn route_behind(
        &self,
        client: SocketAddr,
        service: &MeshService,
    ) -> Result<Route, NoUpstream> {
        self.directory().backend(client, service)
    }

    /// What policy says of a request to the waypoint of a service, or of a connection that is none of HTTP, at a time in
    /// seconds since 1970. The token of a request is looked for here.
    pub(crate) fn judge_at_waypoint(
        &self,
        service: &MeshService,
        mut asked: Asked,
        now: u64,
    ) -> Decision {
        let policies = self.directory().of_services.get(&service.name).cloned();
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

impl Directory {
    /// The way to the waypoint that a service is behind, if it is behind one.
    pub(super) fn through_waypoint(
        &self,
        asked: SocketAddr,
        service: &MeshService,
    ) -> Option<Route> {
        let waypoint = self.waypoints.get(service.waypoint.as_ref()?)?;
        let address = waypoint.addresses.iter().find(|it| it.is_ipv4() == asked.is_ipv4())?;
        Some(Route {
            to: asked,
            tunnel: Some(SocketAddr::new(*address, HBONE_PORT)),
            workload: Some(Arc::clone(&waypoint.workload)),
            service: Some(service.hostname.clone()),
        })
    }

    /// What waypoints enforce of policies, by service.
    pub(super) fn enforced_by_waypoints(
        &self,
        policies: &[&MeshPolicy],
    ) -> Result<HashMap<NamespacedName, Arc<WaypointPolicies>>, NotEvaluated> {
        let mut enforced = HashMap::new();
        for service in self.services.values() {
            let Some(gateway) = &service.waypoint else { continue };
            if enforced.contains_key(&service.name) {
                continue;
            }
            let bound = WaypointPolicies::of(
                policies.iter().copied(),
                gateway.named(),
                Some(service.name.named()),
            )?;
            enforced.insert(service.name.clone(), Arc::new(bound));
        }
        Ok(enforced)
    }

    /// Whether a principal is that of a waypoint.
    pub(super) fn is_of_a_waypoint(&self, principal: &str) -> bool {
        self.waypoints.values().any(|it| it.workload.identity().principal() == principal)
    }
}
