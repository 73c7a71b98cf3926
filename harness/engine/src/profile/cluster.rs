//! What a profile says of a real cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use ztc_model::combination::Combination;
use ztc_model::suite::Part;

/// A real cluster: its versions, and how it is put together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// The version of Kubernetes, such as `1.36.3`. It is compared with what the API server says.
    pub kubernetes: String,
    /// The image of the nodes; that of a bundle, else `kindest/node` in the version above.
    #[serde(default)]
    pub node_image: Option<String>,
    /// How long nobody may use the cluster before it is deleted, minutes; 0 keeps it.
    #[serde(default = "an_hour")]
    pub idle_minutes: u64,
    /// How many nodes, at least 2: paths on the same and on another node both have to exist.
    pub nodes: usize,
    /// The families of addresses.
    pub ip_family: IpFamily,
    /// Who serves the addresses of services.
    pub kube_proxy: KubeProxy,
    /// The version of Cilium, such as `1.20.2`.
    pub cilium: String,
    /// Values for Cilium's chart, a file beside the profile's.
    #[serde(default)]
    pub cilium_values: Option<PathBuf>,
    /// Files of resource definitions that it gets besides, beside the profile's: kinds that the API server then takes, and
    /// that nobody need know.
    #[serde(default)]
    pub definitions: Vec<PathBuf>,
    /// Istio ambient; none where the cluster has no mesh.
    #[serde(default)]
    pub mesh: Option<MeshSpec>,
    /// Where charts come from, where it is not where their projects publish them: mirrors.
    #[serde(default)]
    pub chart_repositories: ChartRepositories,
}

impl ClusterSpec {
    /// The versions of its parts, by part.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let Self { kubernetes, cilium, mesh, .. } = self;
        let mesh = mesh
            .iter()
            .flat_map(|mesh| [("istio", &mesh.istio), ("gateway-api", &mesh.gateway_api)]);
        let parts = [("kubernetes", kubernetes), ("cilium", cilium)].into_iter().chain(mesh);
        parts.map(|(part, version)| (part.to_owned(), version.clone())).collect()
    }

    /// The same cluster of other versions: it has no mesh where they have none. An image of its nodes is of one version
    /// of Kubernetes, so that it has kind's for another one. Nothing if they have a mesh and it has none, whose values
    /// nobody then knows.
    #[must_use]
    pub fn of_versions(self, versions: &Combination) -> Option<Self> {
        let version = |part: Part| versions.version(part);
        let mesh = match (version(Part::Istio), version(Part::GatewayApi), self.mesh) {
            (Some(istio), Some(gateway_api), Some(mesh)) => {
                Some(MeshSpec { istio, gateway_api, ..mesh })
            }
            (Some(_), _, None) => return None,
            _ => None,
        };
        let kubernetes = version(Part::Kubernetes)?;
        Some(Self {
            node_image: self.node_image.filter(|_| kubernetes == self.kubernetes),
            kubernetes,
            cilium: version(Part::Cilium)?,
            mesh,
            ..self
        })
    }
}

/// Repositories of charts, as helm takes them: `https://HOST/PATH`, or `oci://HOST/PATH` without the chart's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChartRepositories {
    /// That of the chart `cilium`.
    #[serde(default)]
    pub cilium: Option<String>,
    /// That of the charts `base`, `istiod`, `cni` and `ztunnel`.
    #[serde(default)]
    pub istio: Option<String>,
}

const fn an_hour() -> u64 {
    60
}

/// Istio ambient in a real cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshSpec {
    /// The version of Istio.
    pub istio: String,
    /// The version of the Gateway API's resource definitions.
    pub gateway_api: String,
    /// Values for istiod's chart, a file beside the profile's.
    #[serde(default)]
    pub istiod_values: Option<PathBuf>,
    /// Values for the chart of the CNI plugin, a file beside the profile's.
    #[serde(default)]
    pub cni_values: Option<PathBuf>,
    /// Values for the chart of ztunnel, a file beside the profile's.
    #[serde(default)]
    pub ztunnel_values: Option<PathBuf>,
}

/// The families of addresses that pods and services have, in the words of kind's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IpFamily {
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
    /// Both.
    Dual,
}

impl IpFamily {
    /// The word of kind's configuration for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        }
    }
}

/// Who serves the addresses of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KubeProxy {
    /// kube-proxy.
    Kept,
    /// Cilium, and no kube-proxy is installed.
    Replaced,
}
