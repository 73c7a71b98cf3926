//! What istiod writes into the status of policies and services.

use ztc_model::condition::{Condition, ConditionType, SERVICE};
use ztc_model::manifest::ObjectRef;
use ztc_model::policy::mesh::waypoint::WAYPOINT_CLASS;
use ztc_model::policy::mesh::{
    AuthorizationPolicy, MeshPolicy, ROOT_NAMESPACE, TargetRef, ztunnel,
};

use super::{Directory, Mesh, MeshService, NamespacedName};
use crate::fault::Fault;

/// A word and a sentence for why a target has no waypoint.
type Unbound = (&'static str, String);

impl Mesh {
    /// The conditions of a policy or a service; nothing where the mesh does not know it.
    pub(crate) fn conditions(&self, object: &ObjectRef) -> Option<Vec<Condition>> {
        let directory = self.directory();
        let told = directory.told_of(object)?;
        let accepts = self.faults.has(Fault::IstiodAcceptsEverything);
        Some(if accepts { told.into_iter().map(accepted).collect() } else { told })
    }
}

/// The condition, as if nothing were amiss.
fn accepted(told: Condition) -> Condition {
    let is_bound = told.about == ConditionType::WaypointBound.name();
    let reason = if is_bound { "WaypointAccepted" } else { "Accepted" };
    Condition { status: true.into(), reason: reason.to_owned(), message: String::new(), ..told }
}

impl Directory {
    fn told_of(&self, object: &ObjectRef) -> Option<Vec<Condition>> {
        if object.kind == SERVICE {
            let name = NamespacedName {
                namespace: object.namespace.clone().unwrap_or_default(),
                name: object.name.clone(),
            };
            let service = self.service(&name)?;
            return Some(self.bound(service).into_iter().collect());
        }
        let policy = self.policies.iter().find(|it| object.names(it.reference()))?;
        Some(match policy {
            MeshPolicy::Authorization(policy) => {
                let at_ztunnel = ztunnel::condition(policy);
                at_ztunnel.into_iter().chain(self.accepted(policy)).collect()
            }
            // istiod says nothing of them.
            MeshPolicy::Peers(_) | MeshPolicy::Requests(_) => Vec::new(),
        })
    }

    fn service(&self, name: &NamespacedName) -> Option<&MeshService> {
        self.services.values().find(|it| it.name == *name)
    }

    /// Whether a service is behind its waypoint (`GetConditions` of `ServiceInfo` in `pilot/pkg/model/service.go` of istio).
    fn bound(&self, service: &MeshService) -> Option<Condition> {
        let gateway = service.waypoint.as_ref()?;
        let (is, reason, message) = match self.unbound(gateway) {
            None => {
                (true, "WaypointAccepted", format!("Successfully attached to waypoint {gateway}"))
            }
            Some((reason, message)) => (false, reason, message),
        };
        Some(Condition::new(ConditionType::WaypointBound, is, reason, message))
    }

    /// Why a service that is put behind a waypoint is not (`fetchWaypointForService` in `ambient/waypoints.go`).
    fn unbound(&self, gateway: &NamespacedName) -> Option<Unbound> {
        match self.waypoints.get(gateway) {
            None => Some(("WaypointIsNotReady", format!("waypoint \"{gateway}\" is not ready"))),
            Some(waypoint) if !waypoint.serves.serves_services() => {
                let message =
                    format!("waypoint \"{gateway}\" does not support traffic to services");
                Some(("UnsupportedTrafficType", message))
            }
            Some(_) => None,
        }
    }

    /// Whether what a policy is bound to has a waypoint (`WaypointPolicyStatusCollection` in `ambient/policies.go`, and
    /// `flattenConditions` in `pilot/pkg/model/service.go`).
    fn accepted(&self, policy: &AuthorizationPolicy) -> Option<Condition> {
        let namespace = policy.reference.namespace.as_deref().unwrap_or_default();
        let targets = policy.target_refs.iter();
        let missing: Vec<Option<Unbound>> =
            targets.map(|target| self.unbound_target(namespace, target)).collect();
        let (is, reason, message) = match missing.as_slice() {
            [] => return None,
            [None] => (true, "Accepted", "bound".to_owned()),
            [Some((reason, message))] => (false, *reason, message.clone()),
            several => match several.iter().filter(|it| it.is_some()).count() {
                0 => (true, "Accepted", String::new()),
                all if all == several.len() => (false, "Invalid", "Invalid targetRefs".to_owned()),
                _ => (true, "PartiallyInvalid", "Invalid targetRefs".to_owned()),
            },
        };
        Some(Condition::new(ConditionType::WaypointAccepted, is, reason, message))
    }

    fn unbound_target(&self, namespace: &str, target: &TargetRef) -> Option<Unbound> {
        let name = NamespacedName { namespace: namespace.to_owned(), name: target.name.clone() };
        let not_found =
            || Some(("TargetNotFound", format!("{} {name} was not found", target.kind)));
        match target.kind.as_str() {
            "GatewayClass" if namespace != ROOT_NAMESPACE => {
                let message =
                    format!("AuthorizationPolicy must be in the root namespace `{ROOT_NAMESPACE}`");
                Some(("Invalid", message))
            }
            "GatewayClass" if target.name == WAYPOINT_CLASS => None,
            "Gateway" if self.waypoints.contains_key(&name) => None,
            SERVICE => match self.service(&name) {
                None => not_found(),
                Some(MeshService { waypoint: Some(gateway), .. })
                    if self.unbound(gateway).is_none() =>
                {
                    None
                }
                Some(_) => {
                    let message = format!("Service {name} is not bound to a waypoint");
                    Some(("AncestorNotBound", message))
                }
            },
            _ => not_found(),
        }
    }
}

/// Whether a gateway can be sent to, which it can be when its pod is ready: what that lacks says why not
/// (`SetProgrammedCondition` in `pilot/pkg/config/kube/gatewaycommon` of istio).
pub(crate) fn programmed(lacks: Option<String>) -> Condition {
    match lacks {
        None => Condition::new(ConditionType::Programmed, true, "Programmed", ""),
        Some(why) => Condition::new(ConditionType::Programmed, false, "AddressNotUsable", why),
    }
}
