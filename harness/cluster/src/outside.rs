//! The hosts outside the nodes: containers on the network of the nodes, with a zone of their names.
//!
//! A host with a fixed link-local address, such as a metadata service, is reached over a route in each
//! node's own network namespace. This machine itself has no such route and sends nothing there.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use sha2::{Digest, Sha256};
use ztc_engine::authority::{Authority, AuthorityError};
use ztc_engine::wait::{Look, WaitError, until};
use ztc_model::world::{OutsideHost, World};
use ztc_wire::{AGENT_ENV, AgentConfig, Service, Tls, Zone};

use crate::api::{ApiError, MANAGER};
use crate::bundle::hex;
use crate::docker::{Docker, DockerError, Host};
use crate::refusal::Refusal;

/// The label of our containers: the cluster that they belong to.
pub(crate) const CLUSTER: &str = "ztc.dev/cluster";
/// The label that tells whether a container is still the one that is wanted.
const CONTENTS: &str = "ztc.dev/contents";
/// The label that tells the address of a host on the nodes' network.
const ADDRESS: &str = "ztc.dev/address";

/// The zone of outside hosts. `test` is reserved for this (RFC 6761).
const ZONE: &str = "zt.test";

/// The lines between which our part of cluster DNS' configuration stands.
const BEGIN: &str = "# Made by ztc, and taken away by `ztc down`:";
const END: &str = "# End of what ztc made.";

/// The namespace and the name of cluster DNS, as kubeadm installs it.
const DNS: (&str, &str) = ("kube-system", "coredns");

/// How long cluster DNS may take to start again.
const DNS_CEILING: Duration = Duration::from_mins(2);

/// Between two looks at it.
const POLL: Duration = Duration::from_millis(250);

/// How many addresses a cluster's outside may take.
const BLOCK: u32 = 64;

/// Why there is no outside.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// Docker refused.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The range of the nodes' network is used up.
    #[error("the range {range} of the nodes' network has no room for {hosts} hosts outside")]
    NoRoom {
        /// The range.
        range: Ipv4Net,
        /// How many hosts are wanted.
        hosts: usize,
    },
    /// A host's fixed address cannot be had.
    #[error(
        "the outside host {host} cannot have the address {address}: only link-local ones can be routed to it"
    )]
    Address {
        /// Which.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// A node has the address of an outside host itself.
    #[error(
        "node {node} has {address} on an interface of its own ({interface}), so Cilium takes it for the host and no \
         CIDR rule matches it; remove it there"
    )]
    OnANode {
        /// Which.
        node: String,
        /// The address.
        address: IpAddr,
        /// What `ip address` says.
        interface: String,
    },
    /// Cluster DNS could not be told of the zone.
    #[error("cannot tell cluster DNS ({}/{}) of the zone {ZONE}", DNS.0, DNS.1)]
    ClusterDns(#[source] Refusal),
    /// Cluster DNS has no configuration that is known.
    #[error("the ConfigMap {}/{} has no Corefile: the zone {ZONE} cannot be added", DNS.0, DNS.1)]
    NoCorefile,
    /// Cluster DNS does not answer.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] ApiError),
}

fn cluster_dns(error: kube::Error) -> OutsideError {
    OutsideError::ClusterDns(error.into())
}

/// What the outside hosts of a world are made of.
pub(crate) struct Outside<'a> {
    pub(crate) docker: &'a Docker,
    pub(crate) client: &'a Client,
    /// The cluster that they belong to.
    pub(crate) cluster: &'a str,
    /// The containers of its nodes.
    pub(crate) nodes: &'a [String],
    /// The reference of the probe's image.
    pub(crate) image: &'a str,
    /// Whether its pods have addresses of both families.
    pub(crate) dual_stack: bool,
    /// Where certificates come from.
    pub(crate) authority: &'a Authority,
}

/// The outside hosts of a world, at work.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// The addresses by which pods reach them.
    pub(crate) addresses: BTreeMap<String, IpAddr>,
    /// Their second addresses, where the cluster has both families.
    pub(crate) second: BTreeMap<String, IpAddr>,
    /// Their names.
    pub(crate) zone: Zone,
}

impl Outside<'_> {
    /// Makes what is not there yet as it has to be.
    pub(crate) async fn bring_up(&self, world: &World) -> Result<Hosts, OutsideError> {
        let (range, second) = self.docker.ranges().await?;
        let second = second.filter(|_| self.dual_stack);
        let plan = Plan::new(world, (range, second), self.cluster, self.authority)?;
        for host in &plan.hosts {
            self.require(host).await?;
        }
        for (address, via) in &plan.routes {
            self.route(*address, *via).await?;
        }
        self.forward(plan.zone_server).await?;
        Ok(Hosts { addresses: plan.addresses, second: plan.second, zone: plan.zone })
    }

    /// A container with this agent in it, which is there already or is made.
    async fn require(&self, planned: &PlannedHost) -> Result<(), OutsideError> {
        let name = format!("{}-outside-{}", self.cluster, planned.name);
        let config = planned.config.to_json().expect("an agent's configuration has text keys");
        let contents = format!("{} {} {:?} {config}", self.image, planned.address, planned.second);
        let contents = hex(&Sha256::digest(contents.as_bytes()));
        if self.docker.running_label(&name, CONTENTS).await.as_ref() == Some(&contents) {
            return Ok(());
        }
        self.docker.remove(&name).await?;
        self.vacate(planned.address).await?;
        let labels = HashMap::from([
            (ADDRESS.to_owned(), planned.address.to_string()),
            (CLUSTER.to_owned(), self.cluster.to_owned()),
            (CONTENTS.to_owned(), contents),
        ]);
        let host = Host {
            name,
            image: self.image.to_owned(),
            environment: vec![format!("{AGENT_ENV}={config}")],
            labels,
            address: planned.address,
            second: planned.second,
            link_local: planned.link_local,
        };
        Ok(self.docker.start(&host).await?)
    }

    /// Hosts of another world stay until somebody needs their addresses.
    async fn vacate(&self, address: Ipv4Addr) -> Result<(), OutsideError> {
        let ours = format!("{}-outside-", self.cluster);
        for name in self.docker.labelled(&format!("{ADDRESS}={address}")).await? {
            if name.starts_with(&ours) {
                self.docker.remove(&name).await?;
            }
        }
        Ok(())
    }

    /// A route in the network namespace of each node. An address that a node itself has would have
    /// another identity (Cilium takes it for `host`), and is refused.
    async fn route(&self, address: Ipv4Addr, via: Ipv4Addr) -> Result<(), OutsideError> {
        let (to, via) = (format!("{address}/32"), via.to_string());
        for node in self.nodes {
            let own = ["ip", "-oneline", "address", "show", "to", &to];
            let own = self.docker.exec(node, &own).await?;
            // Docker writes its own troubles to the same stream.
            if own.contains(&format!("inet {address}/")) {
                let interface = own.split_whitespace().nth(1).unwrap_or_default().to_owned();
                let address = address.into();
                return Err(OutsideError::OnANode { node: node.clone(), address, interface });
            }
            self.docker.exec(node, &["ip", "route", "replace", &to, "via", &via]).await?;
        }
        Ok(())
    }

    /// Has cluster DNS ask our server for the names of our zone.
    async fn forward(&self, server: Ipv4Addr) -> Result<(), OutsideError> {
        let (namespace, name) = DNS;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let map = maps.get(name).await.map_err(cluster_dns)?;
        let corefile =
            map.data.as_ref().and_then(|it| it.get("Corefile")).ok_or(OutsideError::NoCorefile)?;
        let wanted = with_zone(corefile, server);
        if wanted != *corefile {
            self.restart_dns(&maps, &wanted).await?;
        }
        Ok(dns_ready(self.client).await?)
    }

    async fn restart_dns(&self, maps: &Api<ConfigMap>, corefile: &str) -> Result<(), OutsideError> {
        let (namespace, name) = DNS;
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..Default::default() };
        let patch = Patch::Merge(json!({ "data": { "Corefile": corefile } }));
        maps.patch(name, &parameters, &patch).await.map_err(cluster_dns)?;
        // CoreDNS would see a changed file in a minute or two; new pods read it at once.
        let digest = hex(&Sha256::digest(corefile.as_bytes()));
        let annotations = json!({ "ztc.dev/corefile": digest });
        let patch = Patch::Merge(
            json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } }),
        );
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        deployments.patch(name, &parameters, &patch).await.map(drop).map_err(cluster_dns)
    }
}

/// Waits until cluster DNS answers, with the configuration that it has now.
///
/// # Errors
/// When it does not, or is scaled to nothing.
pub(crate) async fn dns_ready(client: &Client) -> Result<(), WaitError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), DNS.0);
    until("cluster DNS", DNS_CEILING, POLL, || async {
        match deployments.get(DNS.1).await {
            Ok(deployment) => dns(&deployment),
            Err(error) => Ok(Look::NotYet { status: ztc_engine::chain(&Refusal::from(error)) }),
        }
    })
    .await
}

/// Whether cluster DNS answers, with the configuration that it has now.
fn dns(deployment: &Deployment) -> Result<Look<()>, String> {
    let wanted = deployment.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1);
    if wanted == 0 {
        let (namespace, name) = DNS;
        return Err(format!(
            "it is scaled to 0; `kubectl -n {namespace} scale deployment {name} --replicas 2` starts it"
        ));
    }
    let status = deployment.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= deployment.metadata.generation;
    let (updated, available) =
        (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    // Old pods that still end are asked no more than new ones that start.
    if seen && updated >= wanted && available >= wanted && status.replicas <= Some(wanted) {
        return Ok(Look::Met(()));
    }
    let status = format!("{available} of {wanted} pods are available, {updated} of them new");
    Ok(Look::NotYet { status })
}

/// Cluster DNS' configuration with our zone in it, in place of one that stood there before.
fn with_zone(corefile: &str, server: Ipv4Addr) -> String {
    let theirs = without_zone(corefile);
    let theirs = theirs.trim_end();
    // Names are not kept longer than their own time to live, and a failure not at all.
    format!("{theirs}\n{BEGIN}\n{ZONE}:53 {{\n    errors\n    forward . {server}\n}}\n{END}\n")
}

/// Cluster DNS' configuration as it was before.
fn without_zone(corefile: &str) -> String {
    match (corefile.split_once(BEGIN), corefile.split_once(END)) {
        (Some((before, _)), Some((_, after))) => {
            format!("{before}{}", after.trim_start_matches('\n'))
        }
        _ => corefile.to_owned(),
    }
}

/// Everything that is to be made. Pure.
#[derive(Debug)]
struct Plan {
    hosts: Vec<PlannedHost>,
    /// Link-local addresses, and over which address of the nodes' network they are reached.
    routes: Vec<(Ipv4Addr, Ipv4Addr)>,
    zone: Zone,
    zone_server: Ipv4Addr,
    addresses: BTreeMap<String, IpAddr>,
    second: BTreeMap<String, IpAddr>,
}

#[derive(Debug)]
struct PlannedHost {
    name: String,
    address: Ipv4Addr,
    second: Option<Ipv6Addr>,
    link_local: Option<Ipv4Addr>,
    config: AgentConfig,
}

impl Plan {
    /// Hosts have a second address where a range of IPv6 is given, unless their first one is fixed.
    fn new(
        world: &World,
        (range, range6): (Ipv4Net, Option<Ipv6Net>),
        cluster: &str,
        authority: &Authority,
    ) -> Result<Self, OutsideError> {
        let hosts = world.outside.len();
        let mut free = block(range, cluster);
        let mut take = || free.next().ok_or(OutsideError::NoRoom { range, hosts });
        let zone_server = take()?;
        let (mut placed, mut routes, mut addresses) = (Vec::new(), Vec::new(), BTreeMap::new());
        for host in &world.outside {
            let own = take()?;
            let link_local = link_local(host)?;
            routes.extend(link_local.map(|it| (it, own)));
            addresses.insert(host.name.clone(), link_local.unwrap_or(own).into());
            placed.push((host, own, link_local));
        }
        let second_of = |own: Ipv4Addr| range6.map(|range| beside(range, own));
        let second: BTreeMap<String, IpAddr> = placed
            .iter()
            .filter(|(_, _, link_local)| link_local.is_none())
            .filter_map(|(host, own, _)| Some((host.name.clone(), second_of(*own)?.into())))
            .collect();
        let mut zone = world.outside_zone(&addresses);
        zone.records.extend(world.outside_zone(&second).records);
        let agent = |name: &str, serve: Vec<Service>, tls: Option<Tls>| AgentConfig {
            name: format!("outside/{name}"),
            socket: "/run/ztc-agent.sock".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            serve,
            tls,
            first: Vec::new(),
        };
        let mut hosts = Vec::new();
        for (host, address, link_local) in placed {
            let serve = host.serves.iter().map(|port| port.service(&zone)).collect();
            let known = [addresses.get(&host.name), second.get(&host.name)];
            let known: Vec<IpAddr> = known.into_iter().flatten().copied().collect();
            let tls = authority.outside(world, host, &known)?;
            let config = agent(&host.name, serve, tls);
            let second = second_of(address).filter(|_| link_local.is_none());
            hosts.push(PlannedHost {
                name: host.name.clone(),
                address,
                second,
                link_local,
                config,
            });
        }
        hosts.push(PlannedHost {
            name: "zone-server".to_owned(),
            address: zone_server,
            second: None,
            link_local: None,
            config: agent("zone-server", vec![Service::Dns { port: 53, zone: zone.clone() }], None),
        });
        Ok(Self { hosts, routes, zone, zone_server, addresses, second })
    }
}

fn link_local(host: &OutsideHost) -> Result<Option<Ipv4Addr>, OutsideError> {
    match host.address {
        None => Ok(None),
        Some(IpAddr::V4(address)) if address.is_link_local() => Ok(Some(address)),
        Some(address) => Err(OutsideError::Address { host: host.name.clone(), address }),
    }
}

/// The address of IPv6 that ends as one of IPv4 does.
fn beside(range: Ipv6Net, own: Ipv4Addr) -> Ipv6Addr {
    (u128::from(range.network()) | u128::from(u32::from(own))).into()
}

/// The addresses for a cluster's outside, at the end of the range: Docker gives its own from the
/// beginning. Several clusters on one network have different blocks, by their names.
fn block(range: Ipv4Net, cluster: &str) -> impl Iterator<Item = Ipv4Addr> {
    let size = 1_u32 << (32 - u32::from(range.prefix_len()));
    let blocks = (size / 2 / BLOCK).max(1);
    let digest = Sha256::digest(cluster.as_bytes());
    let chosen = u32::from(digest[0]) % blocks;
    let end = u32::from(range.broadcast()).saturating_sub(chosen * BLOCK);
    let first = u32::from(range.network()) + size / 2;
    (1..BLOCK).map(move |it| end.saturating_sub(it)).filter(move |it| *it >= first).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COREFILE: &str =
        ".:53 {\n    errors\n    kubernetes cluster.local\n    forward . /etc/resolv.conf\n}\n";
    const SERVER: Ipv4Addr = Ipv4Addr::new(172, 30, 255, 1);

    fn range() -> Ipv4Net {
        "172.30.0.0/16".parse().unwrap()
    }

    fn world(outside: &str) -> World {
        let text =
            format!("world: w\nabout: An outside.\nnamespaces: []\npods: []\noutside: {outside}\n");
        ztc_model::suite::world(&ztc_model::yaml::Source::new("w.yaml", text)).unwrap()
    }

    fn plan(world: &World, range: Ipv4Net) -> Result<Plan, OutsideError> {
        plan_of_both(world, range, None)
    }

    fn plan_of_both(
        world: &World,
        range: Ipv4Net,
        range6: Option<Ipv6Net>,
    ) -> Result<Plan, OutsideError> {
        Plan::new(world, (range, range6), "ztc-kind", &Authority::new([7; 32]).unwrap())
    }

    #[test]
    fn a_host_that_speaks_tls_has_the_same_certificate_in_each_run() {
        let world =
            world("[{ name: api, dns: [api.zt.test], serves: [{ speaks: https, port: 443 }] }]");
        let shows = || {
            let plan = plan(&world, range()).unwrap();
            plan.hosts[0].config.tls.clone().unwrap().shows.unwrap()
        };
        assert_eq!(shows(), shows());
    }

    #[test]
    fn the_zone_comes_after_what_was_there_and_goes_without_a_trace() {
        let with = with_zone(COREFILE, SERVER);
        assert!(with.starts_with(COREFILE) && with.contains("forward . 172.30.255.1"), "{with}");
        assert_eq!(without_zone(&with), COREFILE);
    }

    fn deployment(wanted: i32, status: &serde_json::Value) -> Deployment {
        let spec = json!({ "replicas": wanted, "selector": {}, "template": {} });
        let metadata = json!({ "generation": 3 });
        let object = json!({ "metadata": metadata, "spec": spec, "status": status });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn cluster_dns_answers_when_all_its_pods_are_new_and_available() {
        let status = |generation, old| {
            json!({
                "observedGeneration": generation, "replicas": 2 + old, "updatedReplicas": 2,
                "availableReplicas": 2 + old,
            })
        };
        assert!(matches!(dns(&deployment(2, &status(3, 0))), Ok(Look::Met(()))));
        for late in [status(2, 0), status(3, 1), json!({ "observedGeneration": 3 })] {
            assert!(matches!(dns(&deployment(2, &late)), Ok(Look::NotYet { .. })));
        }
    }

    #[test]
    fn cluster_dns_that_is_scaled_to_nothing_is_not_waited_for() {
        let error = dns(&deployment(0, &json!({ "observedGeneration": 3 }))).unwrap_err();
        assert!(error.contains("scale deployment coredns --replicas 2"), "{error}");
    }

    #[test]
    fn a_zone_that_stood_there_before_is_replaced() {
        let once = with_zone(COREFILE, SERVER);
        assert_eq!(with_zone(&once, SERVER), once);
        let moved = with_zone(&once, Ipv4Addr::new(172, 30, 255, 9));
        assert_eq!(moved.matches("zt.test").count(), 1, "{moved}");
    }

    #[test]
    fn a_metadata_service_is_routed_to_and_named_by_its_own_address() {
        let world = world(
            "[{ name: metadata, address: 169.254.169.254, serves: [{ speaks: http, port: 80 }] }, \
              { name: api, dns: [api.zt.test], serves: [] }]",
        );
        let plan = plan(&world, range()).unwrap();
        let metadata = Ipv4Addr::new(169, 254, 169, 254);
        assert_eq!(plan.addresses["metadata"], IpAddr::from(metadata));
        let host = plan.hosts.iter().find(|it| it.name == "metadata").unwrap();
        assert_eq!(plan.routes, [(metadata, host.address)]);
        assert_eq!(plan.zone.records[0].address, plan.addresses["api"]);
    }

    #[test]
    fn no_two_hosts_have_one_address_and_all_are_in_the_upper_half() {
        let plan = plan(&world("[{ name: a, serves: [] }, { name: b, serves: [] }]"), range());
        let addresses: Vec<u32> = plan.unwrap().hosts.iter().map(|it| it.address.into()).collect();
        let middle = u32::from(Ipv4Addr::new(172, 30, 128, 0));
        assert!(addresses.iter().all(|it| *it > middle), "{addresses:?}");
        assert!(addresses[0] != addresses[1] && addresses[1] != addresses[2], "{addresses:?}");
    }

    #[test]
    fn a_fixed_address_that_is_not_link_local_is_refused() {
        let world = world("[{ name: api, address: 192.0.2.1, serves: [] }]");
        assert!(matches!(plan(&world, range()), Err(OutsideError::Address { .. })));
    }

    #[test]
    fn a_small_range_has_room_for_few() {
        let plan = plan(&world("[{ name: a, serves: [] }]"), "10.0.0.0/30".parse().unwrap());
        assert!(matches!(plan, Err(OutsideError::NoRoom { .. })), "{plan:?}");
    }

    #[test]
    fn hosts_of_a_cluster_with_both_families_have_a_second_address_and_a_record_of_it() {
        let world = world(
            "[{ name: metadata, address: 169.254.169.254, serves: [] }, \
              { name: api, dns: [api.zt.test], serves: [] }]",
        );
        let range6 = "fd00:31::/64".parse().unwrap();
        let plan = plan_of_both(&world, range(), Some(range6)).unwrap();
        let api = plan.hosts.iter().find(|it| it.name == "api").unwrap();
        let second = api.second.unwrap();
        assert!(range6.contains(&second), "{second}");
        assert_eq!(plan.second, BTreeMap::from([("api".to_owned(), second.into())]));
        let named: Vec<IpAddr> = plan.zone.records.iter().map(|it| it.address).collect();
        assert_eq!(named, [api.address.into(), IpAddr::from(second)]);
    }
}
