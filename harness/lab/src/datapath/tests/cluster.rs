//! Two nodes, four pods, two outside hosts and three services.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ztc_model::hubble::Line;
use ztc_model::identity::endpoint_labels;
use ztc_model::manifest::manifests;
use ztc_model::policy::{NamedPorts, Policy, Protocol};
use ztc_model::yaml::Source;

use super::super::{
    Attachment, Backend, Config, Datapath, NodeConfig, NodeId, Now, PortId, ServiceVip,
};
use crate::fault::Faults;

pub(super) const NODE_A: &str = "10.89.0.2";
pub(super) const NODE_B: &str = "10.89.0.3";
pub(super) const PROXY_PORT: u16 = 10053;
/// On node A.
pub(super) const WEB: &str = "10.244.0.10";
/// On node A. Its port 8080 is named `http`.
pub(super) const LEDGER: &str = "10.244.0.12";
/// On node B.
pub(super) const CART: &str = "10.244.1.11";
/// On node B.
pub(super) const COREDNS: &str = "10.244.1.53";
pub(super) const VENDOR: &str = "203.0.113.10";
pub(super) const METADATA: &str = "169.254.169.254";
/// Where probes of ambient pods come from, on either node.
pub(super) const AMBIENT_PROBE: &str = "169.254.7.127";
/// Port 80 is the ledger's 8080.
pub(super) const LEDGER_VIP: &str = "10.96.0.20";
/// Port 53 is that of cluster DNS.
pub(super) const DNS_VIP: &str = "10.96.0.10";
/// Nobody is behind it.
pub(super) const EMPTY_VIP: &str = "10.96.0.30";

/// The cluster, and all records so far.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) datapath: Datapath,
    pub(super) now: Now,
    pub(super) flows: Vec<Line>,
    ports: Vec<(&'static str, PortId)>,
}

/// An address and a port.
pub(super) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn pod(
    namespace: &str,
    name: &str,
    node: usize,
    address: &str,
    labels: &[(&str, &str)],
) -> Attachment {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let labels = labels.iter().map(own).collect();
    let namespace_labels = [("team".to_owned(), namespace.to_owned())].into();
    Attachment::Pod {
        reference: format!("{namespace}/{name}").parse().unwrap(),
        node: NodeId(node),
        addresses: address.split(' ').map(|it| it.parse().unwrap()).collect(),
        labels: endpoint_labels(namespace, &namespace_labels, "default", &labels),
        named_ports: match name {
            "ledger" => [((Protocol::Tcp, "http".to_owned()), 8080)].into_iter().collect(),
            _ => NamedPorts::new(),
        },
    }
}

fn service(vip: &str, port: u16, protocol: Protocol, behind: &[(&str, u16)]) -> ServiceVip {
    let backend = |(pod, port): &(&str, u16)| Backend { pod: pod.parse().unwrap(), port: *port };
    let backends = behind.iter().map(backend).collect();
    ServiceVip { vip: vip.parse().unwrap(), port, protocol, backends }
}

impl Cluster {
    /// A cluster without policies.
    pub(super) fn new() -> Self {
        Self::broken("")
    }

    /// The same, broken in these ways.
    pub(super) fn broken(faults: &str) -> Self {
        let node = |name: &str, address: &str| NodeConfig {
            name: name.to_owned(),
            addresses: vec![address.parse().unwrap()],
            proxy_port: PROXY_PORT,
        };
        let faults: Faults = faults.parse().unwrap();
        let datapath = Datapath::new(Config {
            nodes: vec![node("node-a", NODE_A), node("node-b", NODE_B)],
            services: vec![
                service(LEDGER_VIP, 80, Protocol::Tcp, &[("zt-pay/ledger", 8080)]),
                service(DNS_VIP, 53, Protocol::Udp, &[("kube-system/coredns", 53)]),
                service(DNS_VIP, 53, Protocol::Tcp, &[("kube-system/coredns", 53)]),
                service(EMPTY_VIP, 80, Protocol::Tcp, &[("zt-pay/not-there", 80)]),
            ],
            faults,
        });
        let mut cluster = Self { datapath, now: Now::read(), flows: Vec::new(), ports: Vec::new() };
        cluster.plug_in();
        cluster
    }

    fn plug_in(&mut self) {
        let node = |node: usize, address: &str| Attachment::Node {
            node: NodeId(node),
            addresses: vec![address.parse().unwrap(), AMBIENT_PROBE.parse().unwrap()],
        };
        let outside =
            |address: &str| Attachment::Outside { addresses: vec![address.parse().unwrap()] };
        for (name, attachment) in [
            ("node-a", node(0, NODE_A)),
            ("node-b", node(1, NODE_B)),
            ("web", pod("zt-shop", "web", 0, WEB, &[("app", "web")])),
            ("ledger", pod("zt-pay", "ledger", 0, LEDGER, &[("app", "ledger")])),
            ("cart", pod("zt-shop", "cart", 1, CART, &[("app", "cart")])),
            ("coredns", pod("kube-system", "coredns", 1, COREDNS, &[("k8s-app", "kube-dns")])),
            ("vendor", outside(VENDOR)),
            ("metadata", outside(METADATA)),
        ] {
            let port = self.datapath.attach(attachment);
            self.ports.push((name, port));
        }
    }

    /// Plugs in a copy of the pod `cart`, with its labels, at another address.
    pub(super) fn attach_second_cart(&mut self, address: &str) {
        let attachment = pod("zt-shop", "cart-2", 1, address, &[("app", "cart")]);
        let port = self.datapath.attach(attachment);
        self.ports.push(("cart-2", port));
    }

    /// Applies manifests.
    pub(super) fn apply(&mut self, manifest: &str) -> u64 {
        let read = manifests(&Source::new("test.yaml", manifest)).unwrap_or_else(|error| {
            panic!("{error:?}");
        });
        for manifest in read {
            self.datapath.apply(manifest.policy, self.now);
        }
        self.datapath.revision()
    }

    /// Applies a policy of Cilium's under another name.
    pub(super) fn apply_as(&mut self, name: &str, policy: &Policy) {
        let Policy::Cilium(mut specs) = policy.clone() else { panic!("not one of Cilium's") };
        specs.reference.name = name.to_owned();
        self.datapath.apply(Policy::Cilium(specs), self.now);
    }

    /// Removes a policy.
    pub(super) fn remove(&mut self, policy: &str) {
        self.datapath.remove(&policy.parse().unwrap(), self.now);
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall += time;
    }

    pub(super) fn port(&self, name: &str) -> PortId {
        self.ports.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// Sends a packet; returns who gets it, and what.
    pub(super) fn send(&mut self, from: &str, packet: Vec<u8>) -> Option<(&'static str, Vec<u8>)> {
        let forwarded = self.datapath.forward(self.port(from), packet, self.now);
        self.flows.extend(forwarded.flows);
        let (port, bytes) = forwarded.to?;
        let (name, _) = self.ports.iter().find(|(_, known)| *known == port).unwrap();
        Some((name, bytes))
    }

    /// Sends a packet; returns who gets it.
    pub(super) fn reaches(&mut self, from: &str, packet: Vec<u8>) -> Option<&'static str> {
        self.send(from, packet).map(|(name, _)| name)
    }

    /// What is on record since the last call: kind and number of the event, direction, reason.
    pub(super) fn recorded(&mut self) -> Vec<String> {
        self.flows.drain(..).map(|line| summarise(&line)).collect()
    }
}

fn summarise(line: &Line) -> String {
    let flow = &line.flow;
    let by: Vec<&str> =
        flow.allowed_by().chain(flow.denied_by()).map(|policy| policy.name.as_str()).collect();
    let kind = match flow.event_type.unwrap().kind {
        1 => "drop",
        5 => "verdict",
        129 => "l7",
        _ => "other",
    };
    let reason = flow.drop_reason_desc.clone().unwrap_or_else(|| format!("{:?}", flow.verdict));
    let direction = format!("{:?}", flow.traffic_direction.unwrap()).to_lowercase();
    format!("{} {kind} {direction} {reason} [{}]", line.node_name, by.join(" "))
}

/// Whether an address is one of the cluster's, of either version.
pub(super) fn parse(address: &str) -> IpAddr {
    address.parse().unwrap()
}
