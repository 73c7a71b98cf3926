//! The workloads that cases run against.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::policy::{NamedPorts, Protocol};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ztc_wire::{Service, Zone, ZoneAlias, ZoneRecord};

/// The time to live of an outside host's names, where it says none, in seconds.
const OUTSIDE_TTL: u32 = 30;

/// A world as its file under `suites/worlds/` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct World {
    /// Its name, the same as the file's.
    pub world: String,
    /// What it stands for, one sentence.
    pub about: String,
    /// The namespaces that it makes or, if they exist already, uses.
    pub namespaces: Vec<Namespace>,
    /// The pods. Cluster DNS is the fabric's and is not listed.
    pub pods: Vec<Pod>,
    /// The Kubernetes services.
    #[serde(default)]
    pub services: Vec<KubeService>,
    /// The waypoints: proxies of the mesh that are there before any case.
    #[serde(default)]
    pub waypoints: Vec<Waypoint>,
    /// The hosts outside the nodes.
    #[serde(default)]
    pub outside: Vec<OutsideHost>,
    /// Tokens that requests may carry.
    #[serde(default)]
    pub tokens: Vec<Token>,
}

/// A JSON Web Token that somebody has been given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Token {
    /// Its name, as cases write it after `with token`.
    pub name: String,
    /// What it says, or what is wrong with it.
    pub about: String,
    /// The token as it is sent, after `Authorization: Bearer`.
    pub text: String,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels; `kubernetes.io/metadata.name` is added as Kubernetes does.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// When it is made: one that is born in a case comes and goes with the pods in it.
    #[serde(default)]
    pub born: Born,
}

/// The label by which Istio enrols a namespace or a pod in its ambient mesh.
pub const AMBIENT_LABEL: (&str, &str) = ("istio.io/dataplane-mode", "ambient");

/// The annotation by which a pod says whether its ztunnel takes its DNS queries (istio/istio, `cni/pkg/nodeagent/net.go`).
pub const DNS_CAPTURE: &str = "ambient.istio.io/dns-capture";

/// A pod with a probe agent in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which node it is forced onto.
    pub node: NodeSlot,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its service account.
    #[serde(default = "default_service_account")]
    pub service_account: String,
    /// What it serves.
    #[serde(default)]
    pub serves: Vec<ServedPort>,
    /// Its readiness probe, if it has one: an HTTP GET of `/` on this port.
    #[serde(default)]
    pub readiness: Option<u16>,
    /// Whether it is in its node's network: it has the node's address, and to Cilium it is the node.
    #[serde(default)]
    pub host_network: bool,
    /// Whether its ztunnel takes what it asks of DNS; when absent it is as the mesh is installed, which Istio does with
    /// capture on. For pods of the mesh alone.
    #[serde(default)]
    pub dns_capture: Option<bool>,
    /// When it is made.
    #[serde(default)]
    pub born: Born,
}

fn default_service_account() -> String {
    "default".to_owned()
}

impl Pod {
    /// Its name in cases and reports.
    pub fn reference(&self) -> PodRef {
        PodRef { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// What policies may call its ports.
    pub fn named_ports(&self) -> NamedPorts {
        let named = self.serves.iter().filter_map(|port| Some((port.name.clone()?, port)));
        named
            .flat_map(|(name, served)| {
                let protocols = served.speaks.protocols().iter();
                protocols.map(move |it| ((*it, name.clone()), served.port))
            })
            .collect()
    }
}

/// One of the two nodes that every world spans, so that same-node and other-node paths both exist.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NodeSlot {
    /// The first node.
    A,
    /// The second node.
    B,
}

impl fmt::Display for NodeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// When a pod or a namespace is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Born {
    /// With the world, before any case.
    #[default]
    WithTheWorld,
    /// By a case that lists it, or a pod in it, under `create`, after its policies are enforced.
    InACase,
}

/// A port that a pod or an outside host serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServedPort {
    /// What it speaks.
    pub speaks: Speaks,
    /// The port.
    pub port: u16,
    /// The name of the container port, for named ports in policies.
    #[serde(default)]
    pub name: Option<String>,
}

impl ServedPort {
    /// What an agent serves for it; one that speaks DNS answers for `zone`.
    pub fn service(&self, zone: &Zone) -> Service {
        let port = self.port;
        match self.speaks {
            Speaks::Tcp => Service::Tcp { port },
            Speaks::Udp => Service::Udp { port },
            Speaks::Http => Service::Http { port },
            Speaks::Tls => Service::Tls { port },
            Speaks::Https => Service::Https { port },
            Speaks::Dns => Service::Dns { port, zone: zone.clone() },
        }
    }
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Speaks {
    /// A line with a nonce, echoed with the peer's name, over TCP.
    Tcp,
    /// The same over UDP.
    Udp,
    /// HTTP/1.1.
    Http,
    /// The words of `tcp` inside of TLS.
    Tls,
    /// HTTP/1.1 inside of TLS.
    Https,
    /// DNS over UDP and TCP, for the names of the world's outside hosts.
    Dns,
}

impl Speaks {
    /// Whether it needs a certificate.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }

    /// The protocols that it takes.
    pub const fn protocols(self) -> &'static [Protocol] {
        match self {
            Self::Tcp | Self::Http | Self::Tls | Self::Https => &[Protocol::Tcp],
            Self::Udp => &[Protocol::Udp],
            Self::Dns => &[Protocol::Udp, Protocol::Tcp],
        }
    }
}

/// The label by which a service, or a whole namespace, is put behind a waypoint of its namespace.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";

/// A proxy of the mesh for the workloads of a namespace: a `Gateway` of the class `istio-waypoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Waypoint {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is asked for.
    #[serde(default)]
    pub serves: WaypointFor,
}

impl Waypoint {
    /// Its name in cases and reports.
    pub fn reference(&self) -> PodRef {
        PodRef { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// The traffic that a waypoint is for (`istio.io/waypoint-for`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WaypointFor {
    /// What is sent to services.
    #[default]
    Service,
    /// What is sent to the addresses of workloads.
    Workload,
    /// Both.
    All,
    /// Nothing.
    None,
}

impl WaypointFor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Service, Self::Workload, Self::All, Self::None];

    /// Whether it is asked for what is sent to services.
    pub const fn serves_services(self) -> bool {
        matches!(self, Self::Service | Self::All)
    }

    /// Whether it is asked for what is sent to the addresses of workloads.
    pub const fn serves_workloads(self) -> bool {
        matches!(self, Self::Workload | Self::All)
    }

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

/// A Kubernetes service with a cluster address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The labels of the pods behind it.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// The port of the service.
    pub port: u16,
    /// The port of the pods; the same when absent.
    #[serde(default)]
    pub target_port: Option<u16>,
    /// The protocol.
    #[serde(default)]
    pub protocol: ServiceProtocol,
}

/// The protocol of a service's port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ServiceProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A host outside the nodes: it has no Cilium identity but `world`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutsideHost {
    /// Its name in cases, as `outside/NAME`, and as a peer.
    pub name: String,
    /// Its address, where the world fixes one; the fabric chooses otherwise.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Its second address, of IPv6, where the world fixes one; the fabric chooses otherwise, if it has
    /// IPv6 and the first one is not fixed.
    #[serde(default)]
    pub address_ipv6: Option<Ipv6Addr>,
    /// The names under `zt.test` that resolve to it.
    #[serde(default)]
    pub dns: Vec<String>,
    /// More names under `zt.test`: each is an alias (CNAME) of the first of `dns`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The time to live of its names in seconds, 30 when absent.
    #[serde(default)]
    pub ttl: Option<u32>,
    /// What it serves.
    pub serves: Vec<ServedPort>,
}

impl OutsideHost {
    /// The names that its certificate is for.
    pub fn names(&self) -> Vec<String> {
        self.dns.iter().chain(&self.aliases).cloned().collect()
    }

    /// Whether the world gives it this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.address == Some(address) || self.address_ipv6.map(IpAddr::V6) == Some(address)
    }
}

/// A pod by namespace and name; written `namespace/name`.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<PodRef> for String {
    fn from(pod: PodRef) -> Self {
        pod.to_string()
    }
}

/// A text that is no `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no pod; write `namespace/name`")]
pub struct NotAPod {
    text: String,
}

impl FromStr for PodRef {
    type Err = NotAPod;

    fn from_str(text: &str) -> Result<Self, NotAPod> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(NotAPod { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for PodRef {
    type Error = NotAPod;

    fn try_from(text: String) -> Result<Self, NotAPod> {
        text.parse()
    }
}

/// Namespaces that every cluster has; a world uses them and never makes or deletes them.
const GIVEN_NAMESPACES: [&str; 5] =
    ["default", "kube-system", "kube-public", "kube-node-lease", "istio-system"];

impl OutsideHost {
    /// Whether a name, with or without its last dot, resolves to it, by an alias too.
    pub fn is_called(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.');
        self.dns.iter().chain(&self.aliases).any(|it| it == name)
    }
}

/// Who a name stands for.
#[derive(Debug, Clone, Copy)]
pub enum Called<'a> {
    /// A host outside the nodes.
    Host(&'a OutsideHost),
    /// A service.
    Service(&'a KubeService),
}

impl World {
    /// The namespaces that it makes.
    pub fn own_namespaces(&self) -> impl Iterator<Item = &str> {
        let names = self.namespaces.iter().map(|it| it.name.as_str());
        names.filter(|name| !GIVEN_NAMESPACES.contains(name))
    }

    /// The pod of that name.
    pub fn pod(&self, reference: &PodRef) -> Option<&Pod> {
        self.pods
            .iter()
            .find(|pod| pod.namespace == reference.namespace && pod.name == reference.name)
    }

    /// The namespace of that name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.name == name)
    }

    /// The outside host of that name.
    pub fn outside(&self, name: &str) -> Option<&OutsideHost> {
        self.outside.iter().find(|host| host.name == name)
    }

    /// The service of that name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&KubeService> {
        self.services.iter().find(|service| service.namespace == namespace && service.name == name)
    }

    /// Who a name stands for: `SERVICE.NAMESPACE[.svc[.cluster.local]]`, or a name of an outside host.
    pub fn called(&self, name: &str) -> Option<Called<'_>> {
        let name = name.trim_end_matches('.');
        if let Some(host) = self.outside.iter().find(|host| host.is_called(name)) {
            return Some(Called::Host(host));
        }
        let name = name.strip_suffix(".cluster.local").unwrap_or(name);
        let name = name.strip_suffix(".svc").unwrap_or(name);
        let (service, namespace) = name.split_once('.')?;
        self.service(namespace, service).map(Called::Service)
    }

    /// The pods behind a service, present or still to be born.
    pub fn backends<'a>(&'a self, service: &'a KubeService) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(|pod| {
            pod.namespace == service.namespace
                && service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        })
    }

    /// Whether anybody in it speaks TLS, so that certificates are needed.
    pub fn speaks_tls(&self) -> bool {
        let pods = self.pods.iter().flat_map(|it| &it.serves);
        pods.chain(self.outside.iter().flat_map(|it| &it.serves)).any(|it| it.speaks.is_tls())
    }

    /// The names that the certificate of a pod is for: those of the services in front of it.
    pub fn names_of(&self, pod: &Pod) -> Vec<String> {
        let mine = pod.reference();
        let before = self.services.iter().filter(|service| {
            service.namespace == mine.namespace
                && self.backends(service).any(|it| it.name == mine.name)
        });
        let forms = ["", ".svc", ".svc.cluster.local"];
        before
            .flat_map(|it| forms.map(|form| format!("{}.{}{form}", it.name, it.namespace)))
            .collect()
    }

    /// Whether the pods behind a port of a service speak HTTP there: proxies have to be told.
    pub fn speaks_http(&self, service: &KubeService, port: &ServicePort) -> bool {
        let target = port.target_port.unwrap_or(port.port);
        let ports = self.backends(service).flat_map(|pod| &pod.serves);
        ports.filter(|it| it.port == target).any(|it| it.speaks == Speaks::Http)
    }

    /// The name of the waypoint that is asked for what is sent to a service: the one that it is put behind, by its own label or
    /// its namespace's, where that is there and is for services. Any other is passed by.
    pub fn waypoint_of<'a>(&'a self, service: &'a KubeService) -> Option<&'a str> {
        let name = self.use_waypoint(&service.labels, &service.namespace)?;
        self.serving(name, &service.namespace, WaypointFor::serves_services)
    }

    /// The same for what is sent to a pod's own address.
    pub fn waypoint_of_pod<'a>(&'a self, pod: &'a Pod) -> Option<&'a str> {
        let name = self.use_waypoint(&pod.labels, &pod.namespace)?;
        self.serving(name, &pod.namespace, WaypointFor::serves_workloads)
    }

    /// The name of the waypoint that something with these labels is put behind, by its own label or its namespace's, whether
    /// that is there or not.
    pub fn use_waypoint<'a>(
        &'a self,
        labels: &'a BTreeMap<String, String>,
        namespace: &str,
    ) -> Option<&'a str> {
        let of_namespace = || self.namespace(namespace)?.labels.get(USE_WAYPOINT);
        labels.get(USE_WAYPOINT).or_else(of_namespace).map(String::as_str)
    }

    /// A waypoint, if it is there and is for what is asked.
    fn serving<'a>(
        &'a self,
        name: &'a str,
        namespace: &str,
        serves: impl Fn(WaypointFor) -> bool,
    ) -> Option<&'a str> {
        let is_it = |it: &&Waypoint| it.name == name && it.namespace == namespace;
        self.waypoints.iter().find(is_it).filter(|it| serves(it.serves)).map(|_| name)
    }

    /// The names of the outside hosts; one that has no address here has no name.
    pub fn outside_zone(&self, addresses: &BTreeMap<String, IpAddr>) -> Zone {
        let mut zone = Zone::default();
        for host in &self.outside {
            let Some(address) = addresses.get(&host.name) else { continue };
            let ttl = host.ttl.unwrap_or(OUTSIDE_TTL);
            let record = |name: &String| ZoneRecord { name: name.clone(), address: *address, ttl };
            zone.records.extend(host.dns.iter().map(record));
            let Some(target) = host.dns.first() else { continue };
            let alias =
                |name: &String| ZoneAlias { name: name.clone(), target: target.clone(), ttl };
            zone.aliases.extend(host.aliases.iter().map(alias));
        }
        zone
    }

    /// Whether a ztunnel asks DNS for the pod, if the mesh is installed as Istio does it.
    pub fn captures_dns(&self, pod: &Pod) -> bool {
        self.is_ambient(pod) && pod.dns_capture != Some(false)
    }

    /// Whether the pod is enrolled in the ambient mesh, by its own label or its namespace's. One in
    /// its node's network never is (istio/istio, `cni/pkg/util/podutil.go`, `PodRedirectionEnabled`).
    pub fn is_ambient(&self, pod: &Pod) -> bool {
        if pod.host_network {
            return false;
        }
        let (key, value) = AMBIENT_LABEL;
        let namespace = self.namespace(&pod.namespace);
        let label = pod.labels.get(key).or_else(|| namespace.and_then(|it| it.labels.get(key)));
        label.is_some_and(|mode| mode == value)
    }
}
