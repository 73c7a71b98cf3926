//! What a lane of the lab consists of: names, addresses, labels and services of a world.
//!
//! Pure: it says what is to be made and makes nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use ztc_engine::authority::{Authority, AuthorityError};
use ztc_model::identity::endpoint_labels;
use ztc_model::labels::Labels;
use ztc_model::policy::mesh::ROOT_NAMESPACE;
use ztc_model::policy::{NamedPorts, Protocol};
use ztc_model::world::{
    Born, KubeService, NodeSlot, OutsideHost, Pod, PodRef, ServedPort, ServicePort,
    ServiceProtocol, Waypoint, WaypointFor, World,
};
use ztc_wire::{Service, Tls, Zone, ZoneRecord};

use crate::datapath::{Backend, NodeConfig, NodeId, ServiceVip};
use crate::mesh::{MeshService, NamespacedName, Workload};

/// The nodes of every lane, in the order of their ids.
pub(crate) const NODES: [NodeSlot; 2] = [NodeSlot::A, NodeSlot::B];

/// The port of a node's DNS proxy. Cilium takes a random one.
const DNS_PROXY_PORT: u16 = 10053;

/// The address of cluster DNS in clusters made by kubeadm, which kind's are.
pub(crate) const KUBE_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

const DNS_PORT: u16 = 53;

/// The range of the second addresses of nodes. Like those below: a range of RFC 4193 that looks like
/// the first one's, so that a person sees whose an address is.
const NODE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, 0);
/// That of pods.
pub(crate) const POD_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0);
/// That of services.
const SERVICE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0);
/// That of outside hosts: the documentation range of RFC 3849.
const OUTSIDE_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0);

/// The time to live of a service's name: the default of `CoreDNS`' plugin `kubernetes`, seconds.
const SERVICE_TTL: u32 = 5;

/// A lane, before anything of it exists.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The pods by name, cluster DNS among them, present or still to be born.
    pub(crate) pods: BTreeMap<PodRef, PodPlan>,
    /// The outside hosts.
    pub(crate) outside: Vec<OutsidePlan>,
    /// The ports of all services.
    pub(crate) services: Vec<ServiceVip>,
    /// The ports of all services over TCP, as the mesh knows them.
    pub(crate) mesh: Vec<MeshService>,
    /// The names of all services, and their addresses.
    pub(crate) names: Vec<(String, IpAddr)>,
    /// The waypoints.
    pub(crate) waypoints: Vec<WaypointPod>,
    /// The labels of the world's namespaces.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

/// The pod of the control plane.
#[derive(Debug, Clone)]
pub(crate) struct IstiodPod {
    /// Its node.
    pub(crate) node: NodeId,
    /// The labels of its identity.
    pub(crate) labels: Labels,
    /// What the mesh knows of it.
    pub(crate) workload: Arc<Workload>,
}

/// The pod of a waypoint.
#[derive(Debug, Clone)]
pub(crate) struct WaypointPod {
    /// Its gateway.
    pub(crate) gateway: NamespacedName,
    /// What it is asked for.
    pub(crate) serves: WaypointFor,
    /// Its node.
    pub(crate) node: NodeId,
    /// The labels of its identity.
    pub(crate) labels: Labels,
    /// What the mesh knows of it.
    pub(crate) workload: Arc<Workload>,
}

/// A pod.
#[derive(Debug, Clone)]
pub(crate) struct PodPlan {
    /// Its name.
    pub(crate) reference: PodRef,
    /// Its node.
    pub(crate) node: NodeId,
    /// Its own labels.
    pub(crate) own_labels: BTreeMap<String, String>,
    /// The labels of its namespace.
    namespace_labels: BTreeMap<String, String>,
    /// What it runs as.
    service_account: String,
    /// The names of its ports.
    pub(crate) named_ports: NamedPorts,
    /// What its agent serves.
    pub(crate) serve: Vec<Service>,
    /// What its agent needs to speak TLS.
    pub(crate) tls: Option<Tls>,
    /// The port of its readiness probe.
    pub(crate) readiness: Option<u16>,
    /// Whether it is in its node's network.
    pub(crate) host_network: bool,
    /// Whether its ztunnel asks for names on its behalf.
    pub(crate) names_captured: bool,
    /// What the mesh knows of it; nothing of a pod in its node's network.
    pub(crate) workload: Option<Arc<Workload>>,
    /// Whether it is made with the world.
    pub(crate) with_the_world: bool,
}

/// An outside host.
#[derive(Debug, Clone)]
pub(crate) struct OutsidePlan {
    /// Its name in the world.
    pub(crate) name: String,
    /// Its addresses, the first one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// What its agent serves.
    pub(crate) serve: Vec<Service>,
    /// What its agent needs to speak TLS.
    pub(crate) tls: Option<Tls>,
}

/// Why a world does not fit into the lab.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// A range of addresses is used up.
    #[error("no address is left in {network}")]
    Exhausted {
        /// The range.
        network: IpNet,
    },
    /// Two outside hosts have one address.
    #[error("outside hosts {first} and {second} have the same address")]
    SameAddress {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
}

impl Plan {
    /// The plan for a world, with certificates of an authority.
    pub(crate) fn new(world: &World, authority: &Authority) -> Result<Self, PlanError> {
        let outside_addresses = outside_addresses(&world.outside)?;
        let second = second_of_outside(&world.outside, &outside_addresses);
        let mut outside_zone = world.outside_zone(&outside_addresses);
        outside_zone.records.extend(world.outside_zone(&second).records);
        let mut cluster_zone = outside_zone.clone();
        let others = cluster_zone.records.len();
        let mut services = kube_dns_service(&mut cluster_zone);
        let mut vips = AddressPool::of_services();
        let mut mesh = Vec::new();
        for service in &world.services {
            let vip = vips.take()?;
            for vip in both(vip, SERVICE_IPV6) {
                cluster_zone.records.push(service_record(service, vip));
                let ports = service_ports(world, service, vip);
                let all = service.ports.iter().zip(&ports);
                mesh.extend(all.filter_map(|(port, vip)| mesh_service(world, service, port, vip)));
                services.extend(ports);
            }
        }

        let of_services = &cluster_zone.records[others..];
        let names = of_services.iter().map(|it| (it.name.clone(), it.address)).collect();
        let mut pods: BTreeMap<PodRef, PodPlan> = world
            .pods
            .iter()
            .map(|pod| {
                let tls = authority.pod(world, pod)?;
                Ok((pod.reference(), pod_plan(world, pod, &outside_zone, tls)))
            })
            .collect::<Result<_, AuthorityError>>()?;
        let dns = kube_dns_pod(world, cluster_zone);
        pods.insert(dns.reference.clone(), dns);
        let outside = world
            .outside
            .iter()
            .map(|host| {
                let first = outside_addresses.get(&host.name);
                let addresses: Vec<IpAddr> =
                    first.into_iter().chain(second.get(&host.name)).copied().collect();
                Ok(OutsidePlan {
                    name: host.name.clone(),
                    tls: authority.outside(world, host, &addresses)?,
                    addresses,
                    serve: serve(&host.serves, &outside_zone),
                })
            })
            .collect::<Result<_, AuthorityError>>()?;
        let namespaces = world.namespaces.iter().map(|it| (it.name.clone(), it.labels.clone()));
        let plan = Self {
            pods,
            outside,
            services,
            mesh,
            names,
            waypoints: Vec::new(),
            namespaces: namespaces.collect(),
        };
        let waypoints = world.waypoints.iter().map(|it| plan.waypoint(it)).collect();
        Ok(Self { waypoints, ..plan })
    }

    /// Whether some pod of it is enrolled in the mesh.
    pub(crate) fn has_mesh(&self) -> bool {
        self.pods.values().filter_map(|pod| pod.workload.as_ref()).any(|it| it.enrolled)
    }

    /// The labels of a pod's identity that is in a namespace of the world.
    fn identified(&self, workload: &Workload) -> Labels {
        let namespace = &workload.reference.namespace;
        let of_namespace = self.namespaces.get(namespace).cloned().unwrap_or_default();
        endpoint_labels(namespace, &of_namespace, &workload.service_account, &workload.labels)
    }

    /// The pod that istiod makes for a waypoint (`files/waypoint.yaml` of its chart), on the first node. It is not in the
    /// mesh as other pods are: nobody captures what it sends.
    pub(crate) fn waypoint(&self, waypoint: &Waypoint) -> WaypointPod {
        let Waypoint { namespace, name, serves } = waypoint;
        let gateway = NamespacedName { namespace: namespace.clone(), name: name.clone() };
        let own = [
            ("gateway.istio.io/managed", "istio.io-mesh-controller"),
            ("gateway.networking.k8s.io/gateway-class-name", "istio-waypoint"),
            ("gateway.networking.k8s.io/gateway-name", name),
            ("istio.io/dataplane-mode", "none"),
            ("istio.io/waypoint-for", serves.label()),
            ("sidecar.istio.io/inject", "false"),
        ];
        let workload = unmeshed(namespace, &format!("{name}-0"), name, &own);
        let labels = self.identified(&workload);
        let node = node_id(NodeSlot::A);
        WaypointPod { gateway, serves: *serves, node, labels, workload: Arc::new(workload) }
    }

    /// The pod of istiod, on the second node: what waypoints ask of it passes between nodes.
    pub(crate) fn istiod(&self) -> IstiodPod {
        let own = [("app", "istiod"), ("istio", "pilot"), ("istio.io/rev", "default")];
        let workload = unmeshed(ROOT_NAMESPACE, "istiod-0", "istiod", &own);
        let labels = self.identified(&workload);
        IstiodPod { node: node_id(NodeSlot::B), labels, workload: Arc::new(workload) }
    }
}

/// The versions whose behaviour the lab shows, where that has changed between versions.
pub fn versions() -> BTreeMap<String, String> {
    let parts = [("cilium", "1.20.2"), ("istio", "1.31.1")];
    parts.map(|(part, version)| (part.to_owned(), version.to_owned())).into()
}

/// The nodes, as the datapath knows them.
pub(crate) fn node_configs() -> Vec<NodeConfig> {
    NODES
        .into_iter()
        .zip(2..)
        .map(|(slot, host)| NodeConfig {
            name: node_name(slot).to_owned(),
            addresses: both(Ipv4Addr::new(172, 31, 0, host).into(), NODE_IPV6),
            proxy_port: DNS_PROXY_PORT,
        })
        .collect()
}

fn node_name(slot: NodeSlot) -> &'static str {
    match slot {
        NodeSlot::A => "node-a",
        NodeSlot::B => "node-b",
    }
}

fn node_id(slot: NodeSlot) -> NodeId {
    NodeId(match slot {
        NodeSlot::A => 0,
        NodeSlot::B => 1,
    })
}

/// A pod's `resolv.conf`, as kubelet writes it for `dnsPolicy: ClusterFirst`.
pub(crate) fn resolv_conf(namespace: &str) -> String {
    format!(
        "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n\
         nameserver {KUBE_DNS}\n\
         options ndots:5\n"
    )
}

/// Addresses of one range, given out in turn: one that was given back is used again last.
#[derive(Debug)]
pub(crate) struct AddressPool {
    network: Ipv4Net,
    next: usize,
    taken: Vec<IpAddr>,
}

impl AddressPool {
    /// The first hosts of a range are left to gateways and the like.
    const RESERVED: usize = 9;

    fn new(network: [u8; 4], prefix: u8) -> Self {
        let network = Ipv4Net::new_assert(network.into(), prefix);
        Self { network, next: Self::RESERVED, taken: Vec::new() }
    }

    /// The pods of a node.
    pub(crate) fn of_pods(node: usize) -> Self {
        let third = u8::try_from(node).expect("a lane has two nodes");
        Self::new([10, 244, third, 0], 24)
    }

    fn of_services() -> Self {
        let mut pool = Self::new([10, 96, 0, 0], 16);
        pool.taken.push(KUBE_DNS.into());
        pool
    }

    /// The documentation range of RFC 5737: no real host can be meant.
    fn of_outside_hosts() -> Self {
        Self::new([203, 0, 113, 0], 24)
    }

    /// An address that nobody has.
    pub(crate) fn take(&mut self) -> Result<IpAddr, PlanError> {
        let turn = (self.network.hosts().enumerate().skip(self.next))
            .chain(self.network.hosts().enumerate().skip(Self::RESERVED))
            .find(|(_, address)| !self.taken.contains(&IpAddr::V4(*address)));
        let (index, address) =
            turn.ok_or(PlanError::Exhausted { network: IpNet::V4(self.network) })?;
        self.next = index + 1;
        self.taken.push(address.into());
        Ok(address.into())
    }

    /// Gives an address back.
    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.taken.retain(|taken| *taken != address);
    }
}

fn outside_addresses(hosts: &[OutsideHost]) -> Result<BTreeMap<String, IpAddr>, PlanError> {
    let mut pool = AddressPool::of_outside_hosts();
    pool.taken.extend(hosts.iter().filter_map(|host| host.address));
    let mut addresses = BTreeMap::new();
    for host in hosts {
        let address = host.address.map_or_else(|| pool.take(), Ok)?;
        if let Some((first, _)) = addresses.iter().find(|(_, it)| **it == address) {
            return Err(PlanError::SameAddress {
                first: String::clone(first),
                second: host.name.clone(),
            });
        }
        addresses.insert(host.name.clone(), address);
    }
    Ok(addresses)
}

/// An address and a second one of the other family: in the range of its kind, with the last two bytes
/// of the first.
pub(crate) fn both(first: IpAddr, range: Ipv6Addr) -> Vec<IpAddr> {
    let IpAddr::V4(ipv4) = first else { return vec![first] };
    let [.., high, low] = ipv4.octets();
    let mut segments = range.segments();
    (segments[6], segments[7]) = (high.into(), low.into());
    vec![first, Ipv6Addr::from(segments).into()]
}

/// The second addresses of outside hosts. One whose first is fixed has a second only if that is fixed,
/// too: what is special in one family need not be in the other.
fn second_of_outside(
    hosts: &[OutsideHost],
    first: &BTreeMap<String, IpAddr>,
) -> BTreeMap<String, IpAddr> {
    let second = |host: &OutsideHost| match (host.address_ipv6, host.address) {
        (Some(fixed), _) => Some(fixed.into()),
        (None, Some(_)) => None,
        (None, None) => both(first[&host.name], OUTSIDE_IPV6).get(1).copied(),
    };
    hosts.iter().filter_map(|host| Some((host.name.clone(), second(host)?))).collect()
}

fn service_record(service: &KubeService, vip: IpAddr) -> ZoneRecord {
    ZoneRecord { name: hostname(service), address: vip, ttl: SERVICE_TTL }
}

fn hostname(KubeService { namespace, name, .. }: &KubeService) -> String {
    format!("{name}.{namespace}.svc.cluster.local")
}

fn service_ports(world: &World, service: &KubeService, vip: IpAddr) -> Vec<ServiceVip> {
    let ports = service.ports.iter().map(|port: &ServicePort| ServiceVip {
        vip,
        port: port.port,
        protocol: match port.protocol {
            ServiceProtocol::Tcp => Protocol::Tcp,
            ServiceProtocol::Udp => Protocol::Udp,
        },
        backends: world
            .backends(service)
            .map(|pod| Backend {
                pod: pod.reference(),
                port: port.target_port.unwrap_or(port.port),
            })
            .collect(),
    });
    ports.collect()
}

impl PodPlan {
    /// The labels of its identity while it has these labels itself.
    pub(crate) fn identified_by(&self, own_labels: &BTreeMap<String, String>) -> Labels {
        let (namespace, account) = (&self.reference.namespace, &self.service_account);
        endpoint_labels(namespace, &self.namespace_labels, account, own_labels)
    }
}

fn mesh_service(
    world: &World,
    service: &KubeService,
    port: &ServicePort,
    vip: &ServiceVip,
) -> Option<MeshService> {
    let backends = vip.backends.iter().map(|it| (it.pod.clone(), it.port)).collect();
    let named =
        |name: &str| NamespacedName { namespace: service.namespace.clone(), name: name.to_owned() };
    let waypoint = world.use_waypoint(&service.labels, &service.namespace).map(named);
    (vip.protocol == Protocol::Tcp).then(|| MeshService {
        name: named(&service.name),
        hostname: hostname(service),
        at: SocketAddr::new(vip.vip, vip.port),
        is_http: world.speaks_http(service, port),
        waypoint,
        backends,
    })
}

/// A pod of the mesh's own, which is not in it as other pods are.
fn unmeshed(namespace: &str, name: &str, account: &str, labels: &[(&str, &str)]) -> Workload {
    Workload {
        reference: PodRef { namespace: namespace.to_owned(), name: name.to_owned() },
        service_account: account.to_owned(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        enrolled: false,
        waypoint: None,
    }
}

fn pod_plan(world: &World, pod: &Pod, outside: &Zone, tls: Option<Tls>) -> PodPlan {
    let namespace_labels =
        world.namespace(&pod.namespace).map(|it| it.labels.clone()).unwrap_or_default();
    PodPlan {
        reference: pod.reference(),
        node: node_id(pod.node),
        own_labels: pod.labels.clone(),
        namespace_labels,
        service_account: pod.service_account.clone(),
        named_ports: pod.named_ports(),
        serve: serve(&pod.serves, outside),
        tls,
        readiness: pod.readiness,
        host_network: pod.host_network,
        names_captured: world.captures_dns(pod),
        workload: (!pod.host_network).then(|| {
            Arc::new(Workload {
                reference: pod.reference(),
                service_account: pod.service_account.clone(),
                labels: pod.labels.clone(),
                enrolled: world.is_ambient(pod),
                waypoint: world.use_waypoint(&pod.labels, &pod.namespace).map(|name| {
                    NamespacedName { namespace: pod.namespace.clone(), name: name.to_owned() }
                }),
            })
        }),
        with_the_world: pod.born == Born::WithTheWorld,
    }
}

fn serve(served: &[ServedPort], zone: &Zone) -> Vec<Service> {
    served.iter().map(|port| port.service(zone)).collect()
}

/// The names are those of `kubeadm`'s manifests; policies select cluster DNS by them.
fn kube_dns_ref() -> PodRef {
    PodRef { namespace: "kube-system".to_owned(), name: "coredns".to_owned() }
}

fn kube_dns_service(zone: &mut Zone) -> Vec<ServiceVip> {
    let mut ports = Vec::new();
    for vip in both(KUBE_DNS.into(), SERVICE_IPV6) {
        zone.records.push(ZoneRecord {
            name: "kube-dns.kube-system.svc.cluster.local".to_owned(),
            address: vip,
            ttl: SERVICE_TTL,
        });
        ports.extend([Protocol::Udp, Protocol::Tcp].map(|protocol| ServiceVip {
            vip,
            port: DNS_PORT,
            protocol,
            backends: vec![Backend { pod: kube_dns_ref(), port: DNS_PORT }],
        }));
    }
    ports
}

fn kube_dns_pod(world: &World, zone: Zone) -> PodPlan {
    let reference = kube_dns_ref();
    let namespace_labels =
        world.namespace(&reference.namespace).map(|it| it.labels.clone()).unwrap_or_default();
    let names = [(Protocol::Udp, "dns"), (Protocol::Tcp, "dns-tcp")];
    PodPlan {
        own_labels: BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())]),
        namespace_labels,
        service_account: "coredns".to_owned(),
        reference,
        node: node_id(NodeSlot::A),
        named_ports: names
            .map(|(protocol, name)| ((protocol, name.to_owned()), DNS_PORT))
            .into_iter()
            .collect(),
        serve: vec![Service::Dns { port: DNS_PORT, zone }],
        tls: None,
        readiness: None,
        host_network: false,
        names_captured: false,
        workload: None,
        with_the_world: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(world: &World) -> Result<Plan, PlanError> {
        Plan::new(world, &Authority::new([7; 32]).unwrap())
    }

    #[test]
    fn an_address_that_was_given_back_is_used_again_last() {
        let mut pool = AddressPool::of_pods(1);
        let first = pool.take().unwrap();
        assert_eq!(first, IpAddr::from([10, 244, 1, 10]));
        pool.give_back(first);
        assert_ne!(pool.take().unwrap(), first);
        let rest: Vec<_> = std::iter::from_fn(|| pool.take().ok()).collect();
        assert_eq!(rest.last(), Some(&first));
        assert!(matches!(pool.take(), Err(PlanError::Exhausted { .. })));
    }

    #[test]
    fn a_second_address_is_in_its_range_and_ends_as_the_first_does() {
        let pod = both(IpAddr::from([10, 244, 1, 10]), POD_IPV6);
        assert_eq!(pod[1], "fd00:10:244::1:a".parse::<IpAddr>().unwrap());
        let fixed = OutsideHost {
            address_ipv6: Some("fd00:ec2::254".parse().unwrap()),
            ..outside("metadata", Some([169, 254, 169, 254]))
        };
        let hosts = vec![fixed, outside("only", Some([192, 0, 2, 1])), outside("api", None)];
        let plan = plan(&world(hosts)).unwrap();
        let second = |at: usize| plan.outside[at].addresses.get(1).map(ToString::to_string);
        assert_eq!(second(0).as_deref(), Some("fd00:ec2::254"));
        assert_eq!(second(1), None);
        assert_eq!(second(2).as_deref(), Some("2001:db8:113::71:a"));
    }

    #[test]
    fn no_service_gets_the_address_of_cluster_dns() {
        let mut pool = AddressPool::of_services();
        assert!((0..20).all(|_| pool.take().unwrap() != IpAddr::V4(KUBE_DNS)));
    }

    fn outside(name: &str, address: Option<[u8; 4]>) -> OutsideHost {
        OutsideHost {
            name: name.to_owned(),
            address: address.map(IpAddr::from),
            address_ipv6: None,
            dns: vec![format!("{name}.zt.test")],
            aliases: Vec::new(),
            ttl: None,
            serves: Vec::new(),
        }
    }

    fn world(outside: Vec<OutsideHost>) -> World {
        let ledger = KubeService {
            labels: BTreeMap::new(),
            namespace: "zt-pay".to_owned(),
            name: "ledger".to_owned(),
            selector: BTreeMap::new(),
            ports: Vec::new(),
        };
        World {
            waypoints: Vec::new(),
            world: "plan".to_owned(),
            about: "One service.".to_owned(),
            namespaces: Vec::new(),
            pods: Vec::new(),
            services: vec![ledger],
            outside,
            tokens: Vec::new(),
        }
    }

    #[test]
    fn cluster_dns_knows_services_and_outside_hosts() {
        let plan = plan(&world(vec![outside("api", None)])).unwrap();
        let dns = &plan.pods[&kube_dns_ref()];
        let [Service::Dns { port: DNS_PORT, zone }] = dns.serve.as_slice() else {
            panic!("cluster DNS serves {:?}", dns.serve);
        };
        let mut names: Vec<_> = zone.records.iter().map(|it| it.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(
            names,
            [
                "api.zt.test",
                "kube-dns.kube-system.svc.cluster.local",
                "ledger.zt-pay.svc.cluster.local",
            ]
        );
    }

    #[test]
    fn a_fixed_address_is_not_given_to_another_outside_host() {
        let hosts = vec![outside("chosen", None), outside("fixed", Some([203, 0, 113, 10]))];
        let plan = plan(&world(hosts)).unwrap();
        assert_eq!(plan.outside[1].addresses[0], IpAddr::from([203, 0, 113, 10]));
        assert_ne!(plan.outside[0].addresses[0], plan.outside[1].addresses[0]);
    }

    #[test]
    fn two_outside_hosts_with_one_address_are_refused() {
        let hosts = vec![outside("a", Some([192, 0, 2, 1])), outside("b", Some([192, 0, 2, 1]))];
        let refused = plan(&world(hosts));
        assert!(matches!(refused, Err(PlanError::SameAddress { .. })), "{refused:?}");
    }
}
