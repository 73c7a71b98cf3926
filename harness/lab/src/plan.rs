//! What a lane of the lab consists of: names, addresses, labels and services of a world.
//!
//! Pure: it says what is to be made and makes nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use ztc_model::identity::endpoint_labels;
use ztc_model::labels::Labels;
use ztc_model::policy::{NamedPorts, Protocol};
use ztc_model::world::{
    Born, KubeService, NodeSlot, OutsideHost, Pod, PodRef, ServedPort, ServicePort,
    ServiceProtocol, Speaks, World,
};
use ztc_wire::{Service, Zone, ZoneRecord};

use crate::datapath::{Backend, NodeConfig, NodeId, ServiceVip};

/// The nodes of every lane, in the order of their ids.
pub(crate) const NODES: [NodeSlot; 2] = [NodeSlot::A, NodeSlot::B];

/// The port of a node's DNS proxy. Cilium takes a random one.
const DNS_PROXY_PORT: u16 = 10053;

/// The address of cluster DNS in clusters made by kubeadm, which kind's are.
const KUBE_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

const DNS_PORT: u16 = 53;

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
}

/// A pod.
#[derive(Debug, Clone)]
pub(crate) struct PodPlan {
    /// Its name.
    pub(crate) reference: PodRef,
    /// Its node.
    pub(crate) node: NodeId,
    /// The labels of its identity.
    pub(crate) labels: Labels,
    /// The names of its ports.
    pub(crate) named_ports: NamedPorts,
    /// What its agent serves.
    pub(crate) serve: Vec<Service>,
    /// The port of its readiness probe.
    pub(crate) readiness: Option<u16>,
    /// Whether it is enrolled in the ambient mesh.
    pub(crate) ambient: bool,
    /// Whether it is made with the world.
    pub(crate) with_the_world: bool,
}

/// An outside host.
#[derive(Debug, Clone)]
pub(crate) struct OutsidePlan {
    /// Its name in the world.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: IpAddr,
    /// What its agent serves.
    pub(crate) serve: Vec<Service>,
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
}

impl Plan {
    /// The plan for a world.
    pub(crate) fn new(world: &World) -> Result<Self, PlanError> {
        let outside_addresses = outside_addresses(&world.outside)?;
        let outside_zone = world.outside_zone(&outside_addresses);
        let mut cluster_zone = outside_zone.clone();
        let mut services = kube_dns_service(&mut cluster_zone);
        let mut vips = AddressPool::of_services();
        for service in &world.services {
            let vip = vips.take()?;
            cluster_zone.records.push(service_record(service, vip));
            services.extend(service_ports(world, service, vip));
        }

        let mut pods: BTreeMap<PodRef, PodPlan> = world
            .pods
            .iter()
            .map(|pod| (pod.reference(), pod_plan(world, pod, &outside_zone)))
            .collect();
        let dns = kube_dns_pod(world, cluster_zone);
        pods.insert(dns.reference.clone(), dns);
        let outside = world
            .outside
            .iter()
            .map(|host| OutsidePlan {
                name: host.name.clone(),
                address: outside_addresses[&host.name],
                serve: serve(&host.serves, &outside_zone),
            })
            .collect();
        Ok(Self { pods, outside, services })
    }
}

/// The nodes, as the datapath knows them.
pub(crate) fn node_configs() -> Vec<NodeConfig> {
    NODES
        .into_iter()
        .zip(2..)
        .map(|(slot, host)| NodeConfig {
            name: node_name(slot).to_owned(),
            address: Ipv4Addr::new(172, 31, 0, host).into(),
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

fn service_record(service: &KubeService, vip: IpAddr) -> ZoneRecord {
    let KubeService { namespace, name, .. } = service;
    ZoneRecord {
        name: format!("{name}.{namespace}.svc.cluster.local"),
        address: vip,
        ttl: SERVICE_TTL,
    }
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

fn pod_plan(world: &World, pod: &Pod, outside: &Zone) -> PodPlan {
    let namespace_labels =
        world.namespace(&pod.namespace).map(|it| it.labels.clone()).unwrap_or_default();
    PodPlan {
        reference: pod.reference(),
        node: node_id(pod.node),
        labels: endpoint_labels(
            &pod.namespace,
            &namespace_labels,
            &pod.service_account,
            &pod.labels,
        ),
        named_ports: named_ports(&pod.serves),
        serve: serve(&pod.serves, outside),
        readiness: pod.readiness,
        ambient: world.is_ambient(pod),
        with_the_world: pod.born == Born::WithTheWorld,
    }
}

fn named_ports(served: &[ServedPort]) -> NamedPorts {
    let named = served.iter().filter_map(|port| Some((port.name.clone()?, port)));
    named
        .flat_map(|(name, served)| {
            protocols(served.speaks).iter().map(move |it| ((*it, name.clone()), served.port))
        })
        .collect()
}

fn protocols(speaks: Speaks) -> &'static [Protocol] {
    match speaks {
        Speaks::Tcp | Speaks::Http => &[Protocol::Tcp],
        Speaks::Udp => &[Protocol::Udp],
        Speaks::Dns => &[Protocol::Udp, Protocol::Tcp],
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
    zone.records.push(ZoneRecord {
        name: "kube-dns.kube-system.svc.cluster.local".to_owned(),
        address: KUBE_DNS.into(),
        ttl: SERVICE_TTL,
    });
    let ports = [Protocol::Udp, Protocol::Tcp].map(|protocol| ServiceVip {
        vip: KUBE_DNS.into(),
        port: DNS_PORT,
        protocol,
        backends: vec![Backend { pod: kube_dns_ref(), port: DNS_PORT }],
    });
    ports.into()
}

fn kube_dns_pod(world: &World, zone: Zone) -> PodPlan {
    let reference = kube_dns_ref();
    let namespace_labels =
        world.namespace(&reference.namespace).map(|it| it.labels.clone()).unwrap_or_default();
    let own_labels = BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())]);
    let names = [(Protocol::Udp, "dns"), (Protocol::Tcp, "dns-tcp")];
    PodPlan {
        labels: endpoint_labels(&reference.namespace, &namespace_labels, "coredns", &own_labels),
        reference,
        node: node_id(NodeSlot::A),
        named_ports: names
            .map(|(protocol, name)| ((protocol, name.to_owned()), DNS_PORT))
            .into_iter()
            .collect(),
        serve: vec![Service::Dns { port: DNS_PORT, zone }],
        readiness: None,
        ambient: false,
        with_the_world: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn no_service_gets_the_address_of_cluster_dns() {
        let mut pool = AddressPool::of_services();
        assert!((0..20).all(|_| pool.take().unwrap() != IpAddr::V4(KUBE_DNS)));
    }

    fn outside(name: &str, address: Option<[u8; 4]>) -> OutsideHost {
        OutsideHost {
            name: name.to_owned(),
            address: address.map(IpAddr::from),
            dns: vec![format!("{name}.zt.test")],
            aliases: Vec::new(),
            ttl: None,
            serves: Vec::new(),
        }
    }

    fn world(outside: Vec<OutsideHost>) -> World {
        let ledger = KubeService {
            namespace: "zt-pay".to_owned(),
            name: "ledger".to_owned(),
            selector: BTreeMap::new(),
            ports: Vec::new(),
        };
        World {
            world: "plan".to_owned(),
            about: "One service.".to_owned(),
            namespaces: Vec::new(),
            pods: Vec::new(),
            services: vec![ledger],
            outside,
        }
    }

    #[test]
    fn cluster_dns_knows_services_and_outside_hosts() {
        let plan = Plan::new(&world(vec![outside("api", None)])).unwrap();
        let dns = &plan.pods[&kube_dns_ref()];
        let [Service::Dns { port: DNS_PORT, zone }] = dns.serve.as_slice() else {
            panic!("cluster DNS serves {:?}", dns.serve);
        };
        let mut names: Vec<_> = zone.records.iter().map(|it| it.name.as_str()).collect();
        names.sort_unstable();
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
        let plan = Plan::new(&world(hosts)).unwrap();
        assert_eq!(plan.outside[1].address, IpAddr::from([203, 0, 113, 10]));
        assert_ne!(plan.outside[0].address, plan.outside[1].address);
    }

    #[test]
    fn two_outside_hosts_with_one_address_are_refused() {
        let hosts = vec![outside("a", Some([192, 0, 2, 1])), outside("b", Some([192, 0, 2, 1]))];
        let refused = Plan::new(&world(hosts));
        assert!(matches!(refused, Err(PlanError::SameAddress { .. })), "{refused:?}");
    }
}
