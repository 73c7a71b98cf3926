//! The waypoints that are there: those of the world, and those that a case makes and takes away again.

use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use ztc_engine::fabric::{Change, WaypointState};
use ztc_model::condition::{self, ConditionType};
use ztc_model::manifest::ObjectRef;
use ztc_model::policy::PolicyKind;
use ztc_model::world::{self, PodRef, WaypointFor, World};

use super::RealLane;
use crate::api;
use crate::fabric::ClusterError;
use crate::mesh::{GATEWAY_NAME, Waypoint};
use crate::pods;

/// A gateway as the API server has it.
pub(super) struct Gateway {
    uid: String,
    waypoint: world::Waypoint,
    /// Whether istiod sends to it (`len(gateway.Status.Addresses) == 0` in `ambient/waypoints.go`).
    has_addresses: bool,
    is_programmed: bool,
}

impl Gateway {
    /// What there is to know of one in a namespace; nothing of one that is going away.
    fn of(object: &DynamicObject) -> Option<Self> {
        let metadata = &object.metadata;
        if metadata.deletion_timestamp.is_some() {
            return None;
        }
        let status = &object.data["status"];
        let label = metadata.labels.as_ref().and_then(|it| it.get("istio.io/waypoint-for"));
        let serves =
            WaypointFor::ALL.into_iter().find(|it| Some(it.label()) == label.map(String::as_str));
        Some(Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            waypoint: world::Waypoint {
                namespace: metadata.namespace.clone()?,
                name: metadata.name.clone()?,
                serves: serves.unwrap_or_default(),
            },
            has_addresses: status["addresses"].as_array().is_some_and(|it| !it.is_empty()),
            is_programmed: condition::holds(
                &api::written(&object.data),
                ConditionType::Programmed.name(),
            ),
        })
    }
}

impl RealLane {
    /// The gateways in the namespaces of the world.
    pub(super) async fn gateways(&self) -> Result<Vec<Gateway>, ClusterError> {
        let kind = PolicyKind::Gateway;
        let all = api::all(&self.ready.client, kind.api_version(), kind.name()).await?;
        let is_ours = |it: &&DynamicObject| {
            let namespace = it.metadata.namespace.as_deref();
            namespace.is_some_and(|it| self.world.namespace(it).is_some())
        };
        Ok(all.iter().filter(is_ours).filter_map(Gateway::of).collect())
    }

    /// The world with the waypoints that istiod sends to at the moment.
    pub(super) fn with_waypoints(&self, gateways: &[Gateway]) -> World {
        let there = gateways.iter().filter(|it| it.has_addresses);
        let waypoints = there.map(|it| it.waypoint.clone()).collect();
        World { waypoints, ..(*self.world).clone() }
    }

    /// A waypoint of the world that is not there.
    pub(super) fn missing_waypoint(&self, gateways: &[Gateway]) -> Option<String> {
        let is_there = |wanted: &&world::Waypoint| {
            gateways
                .iter()
                .any(|it| it.has_addresses && it.waypoint.reference() == wanted.reference())
        };
        let missing = self.world.waypoints.iter().find(|it| !is_there(it))?;
        Some(format!("waypoint {} has never been ready", missing.reference()))
    }

    /// What of changes to gateways is still to come.
    pub(super) async fn gateway_lag(
        &self,
        gateways: &[Gateway],
        changes: &[&Change],
    ) -> Result<Option<String>, ClusterError> {
        for change in changes {
            let lag = match change {
                Change::Added { object, uid } if is_gateway(object) => {
                    self.made_lag(gateways, &named(object), uid).await?
                }
                Change::Removed { object, uid } if is_gateway(object) => {
                    self.gone_lag(gateways, &named(object), uid).await?
                }
                _ => None,
            };
            if lag.is_some() {
                return Ok(lag);
            }
        }
        Ok(None)
    }

    async fn made_lag(
        &self,
        gateways: &[Gateway],
        name: &PodRef,
        uid: &str,
    ) -> Result<Option<String>, ClusterError> {
        let found = gateways.iter().find(|it| it.uid == uid);
        let Some(Gateway { has_addresses, is_programmed, waypoint, .. }) = found else {
            return Ok(Some(format!("there is no Gateway {name}")));
        };
        match self.waypoint_state(name).await? {
            None => return Ok(Some(format!("waypoint {name} has no pod"))),
            Some(WaypointState { ready: false, message, .. }) => {
                let why = message.unwrap_or_default();
                return Ok(Some(format!("the pod of waypoint {name} is not Ready: {why}")));
            }
            Some(_) => {}
        }
        if !has_addresses || !is_programmed {
            return Ok(Some(format!("Gateway {name} is not Programmed")));
        }
        let waypoint = Waypoint::new(self.ready.client.clone(), waypoint);
        let heard = self.observers.hear_waypoint(waypoint);
        Ok((!heard).then(|| format!("the log of waypoint {name} is not heard yet")))
    }

    async fn gone_lag(
        &self,
        gateways: &[Gateway],
        name: &PodRef,
        uid: &str,
    ) -> Result<Option<String>, ClusterError> {
        if gateways.iter().any(|it| it.uid == uid) {
            return Ok(Some(format!("Gateway {name} still exists")));
        }
        // One of the same name would find the old pod. It may have been made again already.
        let is_made_again = gateways.iter().any(|it| it.waypoint.reference() == *name);
        let is_left = !is_made_again && !self.pods_of(name).await?.is_empty();
        Ok(is_left.then(|| format!("the pod of waypoint {name} still exists")))
    }

    async fn pods_of(&self, waypoint: &PodRef) -> Result<Vec<Pod>, ClusterError> {
        let label = format!("{GATEWAY_NAME}={}", waypoint.name);
        let what = format!("the pods of waypoint {waypoint}");
        Ok(api::pods(&self.ready.client, &waypoint.namespace, &label, &what).await?)
    }

    /// What kubelet says of the pod of a waypoint.
    pub(super) async fn waypoint_state(
        &self,
        waypoint: &PodRef,
    ) -> Result<Option<WaypointState>, ClusterError> {
        let all = self.pods_of(waypoint).await?;
        let living = all.iter().find(|it| it.metadata.deletion_timestamp.is_none());
        Ok(living.map(|pod| {
            let readiness = pods::readiness(pod);
            let addresses = pods::address(pod).into_iter().chain(pods::second_address(pod));
            WaypointState {
                ready: readiness.ready,
                message: readiness.message,
                addresses: addresses.collect(),
            }
        }))
    }
}

/// Whether an object is a gateway.
pub(super) fn is_gateway(object: &ObjectRef) -> bool {
    object.kind == PolicyKind::Gateway.name()
}

/// The name of the waypoint that a gateway is.
pub(super) fn named(object: &ObjectRef) -> PodRef {
    let namespace = object.namespace.clone().unwrap_or_default();
    PodRef { namespace, name: object.name.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn gateway(status: &Value) -> Option<Gateway> {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {
                "name": "waypoint",
                "namespace": "app",
                "uid": "u",
                "labels": { "istio.io/waypoint-for": "all" },
            },
            "status": status,
        });
        Gateway::of(&serde_json::from_value(object).unwrap())
    }

    /// The status of a waypoint that was ready, as istiod wrote it, and of one before that.
    #[test]
    fn a_gateway_is_a_waypoint_once_it_has_addresses() {
        let recorded = json!({
            "addresses": [{ "type": "IPAddress", "value": "10.96.14.226" }],
            "conditions": [
                { "type": "Accepted", "status": "True", "reason": "Accepted" },
                { "type": "Programmed", "status": "True", "reason": "Programmed" },
            ],
        });
        let made = gateway(&recorded).unwrap();
        assert!(made.has_addresses && made.is_programmed);
        assert_eq!(made.waypoint.serves, WaypointFor::All);
        let unknown = json!({ "type": "Programmed", "status": "Unknown", "reason": "Pending" });
        let early = gateway(&json!({ "conditions": [unknown] })).unwrap();
        assert!(!early.has_addresses && !early.is_programmed);
    }
}
