//! The charts that a cluster is made of, with their values: for whoever installs them, and for whoever
//! puts them into a bundle.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use ztc_engine::profile::{ClusterSpec, IpFamily, KubeProxy, MeshSpec};

/// The charts of a mesh, in the order in which they are installed.
pub(crate) const MESH_CHARTS: [&str; 4] = ["base", "istiod", "cni", "ztunnel"];

/// The one that has the mesh's resource definitions, and nothing that runs.
pub(crate) const MESH_KINDS: &str = MESH_CHARTS[0];

/// The namespace of the mesh.
pub(crate) const ISTIO: &str = "istio-system";

/// Where charts come from without a bundle.
const CILIUM_CHARTS: &str = "https://helm.cilium.io";
/// The same for Istio's.
const ISTIO_CHARTS: &str = "https://blob.istio.io/istio-release/charts";

/// A chart, and what it is installed with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    /// Its name, in its repository and as a release.
    pub(crate) name: &'static str,
    /// The namespace of its release.
    pub(crate) namespace: &'static str,
    /// Its version.
    pub(crate) version: String,
    /// The repository that has it.
    pub(crate) repository: String,
    /// The profile's values.
    values: Option<PathBuf>,
    /// What follows from the profile.
    own: Value,
}

impl Chart {
    /// Cilium's, for a cluster of that name.
    pub(crate) fn cilium(spec: &ClusterSpec, cluster: &str, profiles: &Path) -> Self {
        Self {
            name: "cilium",
            namespace: crate::cilium::NAMESPACE,
            version: spec.cilium.clone(),
            repository: spec
                .chart_repositories
                .cilium
                .as_deref()
                .unwrap_or(CILIUM_CHARTS)
                .to_owned(),
            values: spec.cilium_values.as_ref().map(|it| profiles.join(it)),
            own: json!({
                "k8sServiceHost": format!("{cluster}-control-plane"),
                "k8sServicePort": 6443,
                "kubeProxyReplacement": spec.kube_proxy == KubeProxy::Replaced,
                "ipv4": { "enabled": spec.ip_family != IpFamily::Ipv6 },
                "ipv6": { "enabled": spec.ip_family != IpFamily::Ipv4 },
            }),
        }
    }

    /// One of [`MESH_CHARTS`].
    pub(crate) fn of_mesh(
        name: &'static str,
        spec: &ClusterSpec,
        mesh: &MeshSpec,
        profiles: &Path,
    ) -> Self {
        let (values, own) = match name {
            "istiod" => (mesh.istiod_values.as_ref(), json!({ "profile": "ambient" })),
            "cni" => (mesh.cni_values.as_ref(), json!({ "profile": "ambient" })),
            "ztunnel" => (mesh.ztunnel_values.as_ref(), json!({})),
            _ => (None, json!({})),
        };
        Self {
            name,
            namespace: ISTIO,
            version: mesh.istio.clone(),
            repository: spec.chart_repositories.istio.as_deref().unwrap_or(ISTIO_CHARTS).to_owned(),
            values: values.map(|it| profiles.join(it)),
            own,
        }
    }

    /// Every chart of a cluster, in the order in which they are installed.
    pub(crate) fn all(spec: &ClusterSpec, cluster: &str, profiles: &Path) -> Vec<Self> {
        let mesh = spec.mesh.iter().flat_map(|mesh| {
            MESH_CHARTS.iter().map(move |name| Self::of_mesh(name, spec, mesh, profiles))
        });
        std::iter::once(Self::cilium(spec, cluster, profiles)).chain(mesh).collect()
    }

    /// How helm is told the place of the chart in its repository.
    pub(crate) fn in_repository(&self) -> Vec<String> {
        let Self { name, version, repository, .. } = self;
        if repository.starts_with("oci://") {
            let whole = format!("{}/{name}", repository.trim_end_matches('/'));
            return vec![whole, "--version".to_owned(), version.clone()];
        }
        [name, "--repo", repository, "--version", version].map(str::to_owned).into()
    }

    /// How helm is told the namespace and the values. They come in this order, the later over the
    /// earlier: the profile's, what follows from the profile, the bundle's. The second are
    /// [`Self::own`], in a file or, as `-`, on standard input.
    pub(crate) fn values(&self, own: PathBuf, of_bundle: Option<PathBuf>) -> Vec<String> {
        let mut arguments = vec!["--namespace".to_owned(), self.namespace.to_owned()];
        let files = self.values.iter().cloned().chain([own]).chain(of_bundle);
        for file in files {
            arguments.extend(["--values".to_owned(), file.display().to_string()]);
        }
        arguments
    }

    /// The values that follow from the profile. JSON is YAML.
    pub(crate) fn own(&self) -> &Value {
        &self.own
    }
}

#[cfg(test)]
mod tests {
    use ztc_engine::profile::ChartRepositories;

    use super::*;
    use crate::kind;

    fn spec() -> ClusterSpec {
        let values = Some("values/cilium.yaml".into());
        ClusterSpec { kube_proxy: KubeProxy::Kept, cilium_values: values, ..kind::sample() }
    }

    fn mesh() -> MeshSpec {
        let (istio, gateway_api) = ("1.31.1".to_owned(), "1.6.1".to_owned());
        MeshSpec { istio, gateway_api, istiod_values: None, cni_values: None, ztunnel_values: None }
    }

    fn names(spec: &ClusterSpec) -> Vec<&'static str> {
        let charts = Chart::all(spec, "ztc-kind", Path::new("clusters"));
        charts.into_iter().map(|it| it.name).collect()
    }

    #[test]
    fn the_mesh_comes_after_the_network_or_not_at_all() {
        assert_eq!(names(&spec()), ["cilium"]);
        let meshed = ClusterSpec { mesh: Some(mesh()), ..spec() };
        assert_eq!(names(&meshed), ["cilium", "base", "istiod", "cni", "ztunnel"]);
    }

    #[test]
    fn a_mirror_is_asked_instead_of_the_projects_and_one_with_images_by_the_whole_name() {
        let mirrors = ChartRepositories {
            cilium: Some("http://mirror.test/charts".to_owned()),
            istio: Some("oci://mirror.test/istio/".to_owned()),
        };
        let spec = ClusterSpec { mesh: Some(mesh()), chart_repositories: mirrors, ..spec() };
        let charts = Chart::all(&spec, "ztc-kind", Path::new("clusters"));
        let asked = charts.iter().map(|it| it.in_repository().join(" ")).collect::<Vec<_>>();
        assert_eq!(asked[0], "cilium --repo http://mirror.test/charts --version 1.20.2");
        assert_eq!(asked[4], "oci://mirror.test/istio/ztunnel --version 1.31.1");
    }

    #[test]
    fn what_follows_from_the_profile_is_over_its_values_and_under_those_of_the_bundle() {
        let cilium = Chart::cilium(&spec(), "ztc-kind", Path::new("clusters"));
        let values =
            cilium.values("own.json".into(), Some("bundle/values/cilium.yaml".into())).join(" ");
        assert_eq!(
            values,
            "--namespace kube-system --values clusters/values/cilium.yaml --values own.json --values \
             bundle/values/cilium.yaml"
        );
        let own = cilium.own();
        assert_eq!(own["k8sServiceHost"], "ztc-kind-control-plane");
        assert_eq!(own["kubeProxyReplacement"], false);
        assert_eq!(
            (&own["ipv4"]["enabled"], &own["ipv6"]["enabled"]),
            (&json!(true), &json!(false))
        );
    }
}
