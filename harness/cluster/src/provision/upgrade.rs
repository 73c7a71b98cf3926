//! A cluster of ours on its way from one set of versions to another, phase by phase.
//!
//! It is made under the lease of the run that uses the cluster. Before anything is replaced the lease says that the cluster is
//! one of the new versions of which these phases are not done yet: whoever comes after a run that was killed half-way finishes
//! it, if it wants those versions, and else takes the cluster down.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, ListParams};
use ztc_engine::wait::{Look, until};
use ztc_model::combination::upgrade::Phase;

use super::steps::{self, Steps, lock};
use super::{ProvisionError, Provisioner};
use crate::charts::MESH_CHARTS;
use crate::docker::Docker;
use crate::fabric::RealCluster;
use crate::kind::Kind;
use crate::lease::State;
use crate::mesh::GATEWAY_NAME;
use crate::preflight::mesh::tag;
use crate::ready::{Hosting, Ready};
use crate::rollout;

/// How long waypoints may take until they are replaced.
const WAYPOINTS: Duration = Duration::from_mins(4);
/// Between two looks at them.
const POLL: Duration = Duration::from_millis(250);

/// The way of a cluster to other versions.
pub struct Upgrade {
    to: Provisioner,
    ready: Arc<Ready>,
    docker: Docker,
    kind: Kind,
    state: Mutex<State>,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("to", &self.to).finish_non_exhaustive()
    }
}

impl RealCluster {
    /// A way to what `to` makes, which has to be of the same name.
    ///
    /// # Errors
    /// When the cluster is none that we made, or what was made of it cannot be read.
    pub async fn upgrade(&self, to: Provisioner) -> Result<Upgrade, ProvisionError> {
        let ready = self.ready();
        let Hosting::Containers(docker) = &ready.outside else {
            return Err(ProvisionError::NotMade { cluster: ready.cluster.clone() });
        };
        if to.cluster() != ready.cluster {
            return Err(ProvisionError::NotMade { cluster: ready.cluster.clone() });
        }
        let kind = Kind::find(&to.tools()).await?;
        let state = ready.lease.state()?.unwrap_or_default();
        Ok(Upgrade { docker: docker.clone(), kind, state: Mutex::new(state), to, ready })
    }
}

impl Upgrade {
    /// Brings the images of the new versions to the nodes, so that nothing waits for them later.
    ///
    /// # Errors
    /// [`ProvisionError`]; the cluster still runs what it ran.
    pub async fn bring_images(&self) -> Result<(), ProvisionError> {
        let steps = self.steps();
        steps.timed(steps::IMAGES, steps.images(&self.ready.nodes)).await
    }

    /// Says in the lease what is to come. The images have to be there.
    ///
    /// # Errors
    /// [`ProvisionError`]; the cluster still runs what it ran.
    pub fn announce(&self, phases: &[Phase]) -> Result<(), ProvisionError> {
        let to_come: BTreeSet<&str> = phases.iter().flat_map(|it| steps_of(*it)).copied().collect();
        let lease = &self.ready.lease;
        let mut state = lock(&self.state);
        // Another way, there or back, may have been gone meanwhile.
        *state = lease.state()?.unwrap_or_default();
        state.contents = self.to.contents()?;
        state.done.retain(|it| !to_come.contains(it.as_str()));
        Ok(lease.note(&state)?)
    }

    /// Goes through one phase, until who is new is ready everywhere.
    ///
    /// # Errors
    /// What failed, and what was seen of the cluster then. What was replaced stays.
    pub async fn make(&self, phase: Phase) -> Result<(), ProvisionError> {
        let (steps, client) = (self.steps(), &self.ready.client);
        for step in steps_of(phase) {
            match phase {
                Phase::GatewayApi => {
                    steps.once(&self.state, step, steps.gateway_api(client)).await?;
                }
                Phase::Cilium => steps.once(&self.state, step, steps.cilium(client)).await?,
                _ => steps.once(&self.state, step, steps.mesh(client, step)).await?,
            }
        }
        match phase {
            Phase::Waypoints => steps.timed("waypoints", self.waypoints(client)).await,
            _ => Ok(()),
        }
    }

    fn steps(&self) -> Steps<'_> {
        Steps { of: &self.to, lease: &self.ready.lease, docker: &self.docker, kind: &self.kind }
    }

    /// Waits until istiod has replaced every waypoint.
    async fn waypoints(&self, client: &Client) -> Result<(), ProvisionError> {
        let Some(mesh) = &self.to.spec.mesh else { return Ok(()) };
        let deployments: Api<Deployment> = Api::all(client.clone());
        until("waypoints of the new version", WAYPOINTS, POLL, || async {
            let listed = deployments.list(&ListParams::default().labels(GATEWAY_NAME)).await;
            let lag = listed.map(|it| it.items.iter().find_map(|it| lags(it, &mesh.istio)));
            Ok(match lag {
                Ok(None) => Look::Met(()),
                Ok(Some(status)) => Look::NotYet { status },
                Err(error) => Look::NotYet { status: ztc_engine::chain(&error) },
            })
        })
        .await?;
        Ok(())
    }
}

/// The steps of a phase, by the names that they have in a lease.
fn steps_of(phase: Phase) -> &'static [&'static str] {
    let [base, istiod, cni, ztunnel] = const { &MESH_CHARTS };
    match phase {
        Phase::GatewayApi => &[steps::GATEWAY_API],
        Phase::Cilium => &[steps::CILIUM],
        Phase::IstioBase => std::slice::from_ref(base),
        Phase::Istiod => std::slice::from_ref(istiod),
        Phase::IstioCni => std::slice::from_ref(cni),
        Phase::Ztunnel => std::slice::from_ref(ztunnel),
        Phase::Waypoints => &[],
    }
}

/// Why a waypoint is not yet one of that version and ready, if it is not.
fn lags(waypoint: &Deployment, version: &str) -> Option<String> {
    let name = waypoint.metadata.name.as_deref().unwrap_or_default();
    let namespace = waypoint.metadata.namespace.as_deref().unwrap_or_default();
    let pod = waypoint.spec.as_ref()?.template.spec.as_ref();
    let image = pod.and_then(|it| it.containers.first()?.image.as_deref()).unwrap_or_default();
    // What follows a version in a tag is a flavour, such as `-distroless`.
    let flavour = tag(image).and_then(|it| it.strip_prefix(version));
    if !flavour.is_some_and(|it| it.is_empty() || it.starts_with('-')) {
        return Some(format!("waypoint {namespace}/{name} is to run {image}"));
    }
    rollout::deployment_lag(waypoint)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn waypoint(image: &str, status: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "name": "waypoint", "namespace": "shop", "generation": 2 },
            "spec": {
                "replicas": 1,
                "selector": {},
                "template": { "spec": { "containers": [{ "name": "istio-proxy", "image": image }] } },
            },
            "status": status,
        }))
        .unwrap()
    }

    fn counts(generation: i64, replicas: u8, updated: u8, available: u8) -> Value {
        json!({
            "observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated,
            "availableReplicas": available,
        })
    }

    #[test]
    fn a_waypoint_is_waited_for_until_all_of_it_is_new() {
        let new = "docker.io/istio/proxyv2:1.31.1-distroless";
        let lag = |image, status| lags(&waypoint(image, &status), "1.31.1");
        assert_eq!(lag(new, counts(2, 1, 1, 1)), None);
        let old = lag("docker.io/istio/proxyv2:1.30.5", counts(2, 1, 1, 1)).unwrap();
        assert_eq!(old, "waypoint shop/waypoint is to run docker.io/istio/proxyv2:1.30.5");
        assert!(lag("docker.io/istio/proxyv2:1.31.10", counts(2, 1, 1, 1)).is_some());
        let going = lag(new, counts(2, 2, 1, 2)).unwrap();
        assert_eq!(going, "deployment waypoint is being replaced: 2 of 1 are available");
    }

    #[test]
    fn every_phase_but_that_of_istiods_own_has_a_step() {
        let all = [Phase::IstioBase, Phase::Istiod, Phase::IstioCni, Phase::Ztunnel];
        let charts: Vec<&str> = all.iter().flat_map(|it| steps_of(*it)).copied().collect();
        assert_eq!(charts, MESH_CHARTS);
        assert!(steps_of(Phase::Waypoints).is_empty());
    }
}
