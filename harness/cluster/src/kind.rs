//! Clusters that the `kind` command makes: their configuration, and the command itself.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use ztc_engine::profile::{ClusterSpec, KubeProxy};

use crate::program::{Program, ProgramError};

/// The first version with everything that is asked of it: `--retain` with a configuration on standard
/// input, and nodes of Kubernetes 1.33 and later.
const OLDEST: (u32, u32) = (0, 27);

/// How long making the nodes may take. On two cores it takes 40 s.
const CREATE: Duration = Duration::from_mins(10);
/// How long anything else may take.
const CEILING: Duration = Duration::from_mins(2);

/// The command, with the names of clusters. It is never told to be quiet: it then keeps its errors to itself, too.
#[derive(Debug, Clone)]
pub(crate) struct Kind(Program);

impl Kind {
    /// The command in a folder of tools, or on `PATH`.
    pub(crate) async fn find(tools: &Path) -> Result<Self, ProgramError> {
        Program::find("kind", tools)?.require(&["version"], OLDEST).await.map(Self)
    }

    /// The clusters that there are, ours or not.
    pub(crate) async fn clusters(&self) -> Result<Vec<String>, ProgramError> {
        let clusters = self.0.run(&["get", "clusters"], CEILING).await?;
        Ok(words(&clusters))
    }

    /// The nodes of a cluster: the names of their containers, sorted.
    pub(crate) async fn nodes(&self, cluster: &str) -> Result<Vec<String>, ProgramError> {
        let get = ["get", "nodes", "--name", cluster];
        let mut nodes = words(&self.0.run(&get, CEILING).await?);
        nodes.sort();
        Ok(nodes)
    }

    /// Makes a cluster of a configuration and writes the file that leads to it. Nodes are not
    /// awaited: without a network they do not get ready. The lock is held by whoever makes it.
    pub(crate) async fn create(
        &self,
        cluster: &str,
        config: &Path,
        kubeconfig: &Path,
        lock: File,
    ) -> Result<(), ProgramError> {
        let config = config.display().to_string();
        let kubeconfig = kubeconfig.display().to_string();
        let create = [
            "create",
            "cluster",
            "--name",
            cluster,
            "--config",
            &config,
            "--kubeconfig",
            &kubeconfig,
            "--wait",
            "0s",
            "--retain",
        ];
        self.0.run_holding(lock, &create, CREATE).await.map(drop)
    }

    /// Deletes a cluster; one that does not exist is no error.
    pub(crate) async fn delete(
        &self,
        cluster: &str,
        kubeconfig: &Path,
    ) -> Result<(), ProgramError> {
        let kubeconfig = kubeconfig.display().to_string();
        let delete = ["delete", "cluster", "--name", cluster, "--kubeconfig", &kubeconfig];
        self.0.run(&delete, CEILING).await.map(drop)
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The name of the cluster of a profile.
pub(crate) fn cluster_name(profile: &str) -> String {
    format!("ztc-{profile}")
}

/// The image of the nodes that a profile wants: its own, or kind's in the version of Kubernetes.
pub(crate) fn node_image(spec: &ClusterSpec) -> String {
    spec.node_image.clone().unwrap_or_else(|| format!("kindest/node:v{}", spec.kubernetes))
}

/// The configuration of a cluster in the words of kind (`kind.x-k8s.io/v1alpha4`), with what a
/// bundle needs merged into it.
///
/// No network is installed, as Cilium is one, and no kube-proxy where Cilium replaces it.
pub(crate) fn config(spec: &ClusterSpec, node_image: Option<&str>, bundle: Option<Value>) -> Value {
    let roles = std::iter::once("control-plane").chain(std::iter::repeat("worker"));
    let nodes: Vec<Value> = roles
        .take(spec.nodes)
        .map(|role| match node_image {
            Some(image) => json!({ "role": role, "image": image }),
            None => json!({ "role": role }),
        })
        .collect();
    let mut config = json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": { "disableDefaultCNI": true, "ipFamily": spec.ip_family.word() },
        "nodes": nodes,
    });
    if spec.kube_proxy == KubeProxy::Replaced {
        config["networking"]["kubeProxyMode"] = "none".into();
    }
    if let Some(bundle) = bundle {
        merge(&mut config, bundle);
    }
    config
}

/// Merges one document over another: maps by their keys, anything else as a whole.
pub(crate) fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// A cluster of two nodes without a mesh, for the tests of this crate.
#[cfg(test)]
pub(crate) fn sample() -> ClusterSpec {
    ClusterSpec {
        kubernetes: "1.36.3".to_owned(),
        node_image: None,
        idle_minutes: 0,
        nodes: 2,
        ip_family: ztc_engine::profile::IpFamily::Ipv4,
        kube_proxy: KubeProxy::Replaced,
        cilium: "1.20.2".to_owned(),
        cilium_values: None,
        definitions: Vec::new(),
        mesh: None,
        chart_repositories: ztc_engine::profile::ChartRepositories::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_one_control_plane_and_no_network() {
        let config = config(&sample(), Some("node:v1"), None);
        assert_eq!(config["nodes"][0], json!({ "role": "control-plane", "image": "node:v1" }));
        assert_eq!(config["nodes"][1]["role"], "worker");
        assert_eq!(config["nodes"].as_array().unwrap().len(), 2);
        assert_eq!(config["networking"]["disableDefaultCNI"], true);
        assert_eq!(config["networking"]["kubeProxyMode"], "none");
    }

    #[test]
    fn what_a_bundle_needs_is_merged_and_takes_nothing_away() {
        let bundle =
            json!({ "networking": { "podSubnet": "10.1.0.0/16" }, "kubeadmConfigPatches": ["x"] });
        let config = config(&sample(), None, Some(bundle));
        assert_eq!(config["networking"]["podSubnet"], "10.1.0.0/16");
        assert_eq!(config["networking"]["ipFamily"], "ipv4");
        assert_eq!(config["kubeadmConfigPatches"], json!(["x"]));
    }
}
