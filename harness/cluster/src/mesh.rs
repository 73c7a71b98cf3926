//! Istio's ambient mesh: the ztunnel of each node, listened to and asked what it has realised.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;

use futures_util::future::try_join_all;
use futures_util::io::AsyncRead;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, LogParams};
use serde::Deserialize;
use ztc_engine::fabric::Change;
use ztc_model::suite::Component;
use ztc_model::world;

use crate::admin::{self, AdminError};
use crate::api::{self, ApiError};
use crate::charts::ISTIO;
use crate::daemons::Daemons;

/// Its node proxies.
pub(crate) const ZTUNNELS: Daemons =
    Daemons { namespace: ISTIO, label: "app=ztunnel", what: "the ztunnels" };

/// Why the mesh could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// Its pods could not be listed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Its admin interface does not answer.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// There is no ztunnel on a node.
    #[error("no ztunnel runs on {node}: no pod labelled {} in {ISTIO} is Running there", ZTUNNELS.label)]
    None {
        /// The node.
        node: String,
    },
    /// A waypoint has no pod, or several, of which only one could be listened to.
    #[error("waypoint {waypoint} is served by {pods} pods, and has to be by one")]
    Replicas {
        /// Which.
        waypoint: String,
        /// How many run.
        pods: usize,
    },
    /// Its log could not be had.
    #[error("cannot read the log of {pod}")]
    Log {
        /// Whose.
        pod: String,
        /// Why.
        source: kube::Error,
    },
    /// A dump of its configuration is not as it is known to be.
    #[error("cannot read what {pod} says of its configuration")]
    Dump {
        /// Whose.
        pod: String,
        /// What the decoder says.
        source: serde_json::Error,
    },
}

/// The ztunnels of a cluster.
#[derive(Clone)]
pub(crate) struct Ztunnels {
    client: Client,
}

impl Ztunnels {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// By node, the pods that run now.
    async fn pods(&self) -> Result<BTreeMap<String, String>, ApiError> {
        let running = ZTUNNELS.running(&self.client).await?;
        let named = running.into_iter();
        Ok(named.filter_map(|pod| Some((pod.spec?.node_name?, pod.metadata.name?))).collect())
    }

    /// Restarts the ztunnels of all nodes. Returns what was to be seen of them before.
    pub(crate) async fn restart(&self) -> Result<Change, MeshError> {
        let before = ZTUNNELS.restart(&self.client).await?;
        Ok(Change::Restarted { component: Component::Ztunnel, before })
    }

    /// What of a restart is still to come; nothing when there is a ready ztunnel on each of so many nodes that was not there
    /// before.
    pub(crate) async fn restart_lag(
        &self,
        before: &BTreeSet<String>,
        nodes: usize,
    ) -> Result<Option<String>, MeshError> {
        Ok(ZTUNNELS.restart_lag(&self.client, before, nodes).await?)
    }

    /// The log of the ztunnel on a node from now on, until it ends or the connection breaks.
    pub(crate) async fn log(
        &self,
        node: &str,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, MeshError> {
        let pod = self.pods().await?.remove(node);
        let pod = pod.ok_or_else(|| MeshError::None { node: node.to_owned() })?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), ISTIO);
        log(&pods, pod).await
    }

    /// One look at every ztunnel, by node.
    pub(crate) async fn dumps(&self) -> Result<BTreeMap<String, Dump>, MeshError> {
        let pods = self.pods().await?;
        let dumps = pods.into_iter().map(|(node, pod)| async move {
            let bytes = admin::config_dump(&self.client, ISTIO, &pod).await?;
            let dump = serde_json::from_slice(&bytes);
            let dump = dump.map_err(|source| MeshError::Dump { pod, source })?;
            Ok::<_, MeshError>((node, dump))
        });
        Ok(try_join_all(dumps).await?.into_iter().collect())
    }
}

/// The label by which the pods of a gateway are found.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A waypoint of the world.
#[derive(Clone)]
pub(crate) struct Waypoint {
    client: Client,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for Waypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Waypoint {
    pub(crate) fn new(client: Client, waypoint: &world::Waypoint) -> Self {
        let world::Waypoint { namespace, name, .. } = waypoint;
        Self { client, namespace: namespace.clone(), name: name.clone() }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pods that serve it now.
    async fn running(&self) -> Result<Vec<String>, MeshError> {
        let label = format!("{GATEWAY_NAME}={}", self.name);
        let what = format!("the pods of waypoint {self}");
        let running = api::running_pods(&self.client, &self.namespace, &label, &what).await?;
        Ok(running.into_iter().filter_map(|pod| pod.metadata.name).collect())
    }

    /// The one pod that serves it.
    async fn pod(&self) -> Result<String, MeshError> {
        let running = self.running().await?;
        match running.as_slice() {
            [one] => Ok(one.clone()),
            several => Err(MeshError::Replicas { waypoint: self.to_string(), pods: several.len() }),
        }
    }

    /// Its log from now on, until it ends or the connection breaks.
    pub(crate) async fn log(&self) -> Result<Pin<Box<dyn AsyncRead + Send>>, MeshError> {
        log(&self.pods(), self.pod().await?).await
    }

    /// What it enforces.
    pub(crate) async fn enforced(&self) -> Result<Enforced, MeshError> {
        let pod = self.pod().await?;
        let bytes = admin::listeners(&self.client, &self.namespace, &pod).await?;
        Ok(wanted::enforced_by_listeners(&String::from_utf8_lossy(&bytes)))
    }
}

/// The log of a pod from now on.
async fn log(pods: &Api<Pod>, pod: String) -> Result<Pin<Box<dyn AsyncRead + Send>>, MeshError> {
    let parameters = LogParams { follow: true, tail_lines: Some(0), ..LogParams::default() };
    let log = pods.log_stream(&pod, &parameters).await;
    Ok(Box::pin(log.map_err(|source| MeshError::Log { pod, source })?))
}

/// What a ztunnel says of its configuration (`/config_dump`, `src/admin.rs` of istio/ztunnel), as far as it is
/// needed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Dump {
    /// The policies that it has.
    #[serde(default)]
    pub(crate) policies: Vec<DumpedPolicy>,
    /// The workloads that it knows.
    #[serde(default)]
    pub(crate) workloads: Vec<DumpedWorkload>,
    /// The services that it knows.
    #[serde(default)]
    pub(crate) services: Vec<DumpedService>,
}

/// A service of a ztunnel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct DumpedService {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The waypoint that it is behind.
    #[serde(default)]
    pub(crate) waypoint: Option<DumpedWaypoint>,
}

/// The waypoint of a service or a workload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct DumpedWaypoint {
    /// `namespace/NAME.namespace.svc.cluster.local`.
    #[serde(default)]
    pub(crate) destination: String,
}

/// A policy of a ztunnel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct DumpedPolicy {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// A workload of a ztunnel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DumpedWorkload {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `HBONE` where it is in the mesh.
    #[serde(default)]
    pub(crate) protocol: String,
    /// The policies that select it, `namespace/name`. Those of its whole namespace and of the mesh are not
    /// listed.
    #[serde(default)]
    pub(crate) authorization_policies: BTreeSet<String>,
    /// The waypoint that it is behind.
    #[serde(default)]
    pub(crate) waypoint: Option<DumpedWaypoint>,
}

pub(crate) mod authority;
mod wanted;

pub(crate) use wanted::{Enforced, Enrolled, EnrolledPod, Stored, lag, waypoint_lag};

#[cfg(test)]
mod tests;
