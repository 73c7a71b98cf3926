//! Whether the mesh has realised what the API server holds for a world.

use std::sync::Arc;

use kube::api::DynamicObject;
use ztc_engine::fabric::{Change, FabricError};
use ztc_engine::mesh_authority::MeshAuthority;
use ztc_model::manifest::manifests;
use ztc_model::policy::mesh::ROOT_NAMESPACE;
use ztc_model::policy::mesh::waypoint::Named;
use ztc_model::policy::{Policy, PolicyKind};
use ztc_model::world::{Pod, World};
use ztc_model::yaml::Source;

use crate::api;
use crate::fabric::ClusterError;
use crate::mesh::{Enrolled, EnrolledPod, Stored, Waypoint, authority, lag, waypoint_lag};

use super::RealLane;

impl RealLane {
    /// What the ztunnels lack of the policies that the API server has, or have too much.
    pub(super) async fn mesh_lag(
        &self,
        changes: &[&Change],
    ) -> Result<Option<String>, ClusterError> {
        let Some(ztunnels) = &self.ztunnels else {
            return Ok(None);
        };
        let gateways = self.gateways().await?;
        if let Some(status) = self.missing_waypoint(&gateways) {
            return Ok(Some(status));
        }
        if let Some(status) = self.gateway_lag(&gateways, changes).await? {
            return Ok(Some(status));
        }
        let world = self.with_waypoints(&gateways);
        let is_ours = |namespace: &str| {
            namespace == ROOT_NAMESPACE || self.world.namespace(namespace).is_some()
        };
        let mut stored = Vec::new();
        for kind in PolicyKind::ALL.into_iter().filter(|kind| kind.is_of_the_mesh()) {
            let all = api::all(&self.ready.client, kind.api_version(), kind.name()).await?;
            // Other lanes come and go meanwhile, and what others have is not read.
            for object in
                all.iter().filter(|it| it.metadata.namespace.as_deref().is_some_and(is_ours))
            {
                stored.extend(as_stored(kind, object)?);
            }
        }
        let enrolled = self.enrolled(&world);
        let mut dumps = ztunnels.dumps().await?;
        for dump in dumps.values_mut() {
            dump.policies.retain(|it| is_ours(&it.namespace));
        }
        let late = dumps.iter().find_map(|(node, dump)| {
            let lag = lag(dump, &stored, &enrolled)?;
            Some(format!("the ztunnel on {node} {lag}"))
        });
        if late.is_some() {
            return Ok(late);
        }
        for waypoint in &world.waypoints {
            let gateway = Named { namespace: &waypoint.namespace, name: &waypoint.name };
            let services = services_behind(&world, gateway);
            let waypoint = Waypoint::new(self.ready.client.clone(), waypoint);
            let enforced = waypoint.enforced().await?;
            if let Some(lag) = waypoint_lag(gateway, &services, &enforced, &stored) {
                return Ok(Some(format!("waypoint {waypoint} {lag}")));
            }
        }
        Ok(None)
    }

    /// The authority of the mesh, read anew.
    pub(super) async fn authority(&self) -> Result<Arc<MeshAuthority>, FabricError> {
        let authority = authority::of_istiod(&self.client).await;
        let failed =
            |error: authority::AuthorityError| FabricError::MeshAuthority { source: error.into() };
        authority.map(Arc::new).map_err(failed)
    }

    /// What of the world is in the mesh at the moment.
    fn enrolled(&self, world: &World) -> Enrolled {
        let World { pods, services, .. } = world;
        let pods = pods.iter().filter(|pod| world.is_ambient(pod));
        let pods = pods.filter(|pod| self.pods.get(&pod.reference()).is_some());
        let services = services.iter().map(|it| {
            let waypoint = world.waypoint_of(it).map(str::to_owned);
            (it.namespace.clone(), it.name.clone(), waypoint)
        });
        let enrolled = |pod: &Pod| EnrolledPod {
            labels: pod.labels.clone(),
            waypoint: world.waypoint_of_pod(pod).map(str::to_owned),
        };
        Enrolled {
            pods: pods.map(|pod| (pod.reference(), enrolled(pod))).collect(),
            services: services.collect(),
        }
    }
}

/// The services that a waypoint is asked for.
fn services_behind<'a>(world: &'a World, gateway: Named<'_>) -> Vec<Named<'a>> {
    let behind = world.services.iter().filter(|it| {
        it.namespace == gateway.namespace && world.waypoint_of(it) == Some(gateway.name)
    });
    behind.map(|it| Named { namespace: &it.namespace, name: &it.name }).collect()
}

/// A policy of the mesh as the API server has it.
fn as_stored(kind: PolicyKind, object: &DynamicObject) -> Result<Option<Stored>, ClusterError> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let manifest = serde_json::json!({
        "apiVersion": kind.api_version(),
        "kind": kind.name(),
        "metadata": {
            "name": name,
            "namespace": object.metadata.namespace,
            "annotations": object.metadata.annotations,
        },
        "spec": object.data.get("spec").cloned().unwrap_or_default(),
    });
    let told =
        format!("{kind} {}/{name}", object.metadata.namespace.as_deref().unwrap_or_default());
    let read = manifests(&Source::new(&told, manifest.to_string()))
        .map_err(|source| ClusterError::Stored { policy: told, source })?;
    let created = object.metadata.creation_timestamp.as_ref();
    let created = created.map(|it| it.0.to_string()).unwrap_or_default();
    Ok(read.into_iter().find_map(|it| match it.policy {
        Policy::Mesh(policy) => Some(Stored { policy, created: created.clone() }),
        _ => None,
    }))
}
