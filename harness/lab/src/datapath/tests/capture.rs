//! What goes to the ztunnel of a pod, and what comes back from it.

use std::collections::HashMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use ztc_model::ztunnel::HBONE_PORT;
use ztc_wire::AGENT_PORTS;

use super::super::NodeId;
use super::super::capture::{Captor, Captured, INBOUND_PORT, NAMES_PORT, OUTBOUND_PORT};
use super::cluster::{AMBIENT_PROBE, CART, Cluster, DNS_VIP, LEDGER, LEDGER_VIP, VENDOR, WEB, at};
use super::packets::{ends, syn, syn_ack, udp};

/// A port that agents send from.
const AGENT: u16 = 40_000;
/// A port that ztunnel's sockets send from.
const ZTUNNEL: u16 = 61_234;

const DEFAULT_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: default-deny, namespace: zt-pay }
spec: { podSelector: {}, policyTypes: [Ingress] }
";

/// A cluster in which the web, the cart and the ledger are in the mesh.
fn mesh() -> Cluster {
    let mut cluster = Cluster::new();
    for pod in ["web", "cart", "ledger"] {
        let port = cluster.port(pod);
        cluster.datapath.capture(port);
    }
    cluster
}

#[test]
fn what_a_pod_of_the_mesh_sends_goes_to_its_ztunnel_and_is_answered_by_whom_it_asked() {
    let mut cluster = mesh();
    let (client, asked) = (at(WEB, AGENT), at(LEDGER_VIP, 80));
    let (to, packet) = cluster.send("web", syn(client, asked)).unwrap();
    let (peer, ztunnel) = ends(&packet);
    assert_eq!((to, ztunnel), ("web", at(WEB, OUTBOUND_PORT)));
    let captured = cluster.datapath.captured(cluster.port("web"), peer, cluster.now);
    assert_eq!(captured, Some(Captured { by: Captor::Outbound, client, asked }));

    let (to, packet) = cluster.send("web", syn_ack(ztunnel, peer)).unwrap();
    assert_eq!((to, ends(&packet)), ("web", (asked, client)));
    assert!(cluster.recorded().is_empty(), "Cilium has seen none of it");
}

#[test]
fn what_a_ztunnel_sends_goes_on_and_its_answer_comes_to_it() {
    let mut cluster = mesh();
    let (ztunnel, tunnel) = (at(WEB, ZTUNNEL), at(LEDGER, 15_008));
    let (to, packet) = cluster.send("web", syn(ztunnel, tunnel)).unwrap();
    assert_eq!((to, ends(&packet)), ("ledger", (ztunnel, tunnel)));
    let (to, packet) = cluster.send("ledger", syn_ack(tunnel, ztunnel)).unwrap();
    assert_eq!((to, ends(&packet)), ("web", (tunnel, ztunnel)));
}

#[test]
fn what_comes_in_plain_goes_to_the_ztunnel_and_is_answered_by_the_pod() {
    let mut cluster = mesh();
    let (client, asked) = (at(VENDOR, AGENT), at(LEDGER, 8080));
    let (to, packet) = cluster.send("vendor", syn(client, asked)).unwrap();
    let (peer, ztunnel) = ends(&packet);
    assert_eq!((to, ztunnel), ("ledger", at(LEDGER, INBOUND_PORT)));
    let captured = cluster.datapath.captured(cluster.port("ledger"), peer, cluster.now);
    assert_eq!(captured, Some(Captured { by: Captor::Inbound, client, asked }));

    let (to, packet) = cluster.send("ledger", syn_ack(ztunnel, peer)).unwrap();
    assert_eq!((to, ends(&packet)), ("vendor", (asked, client)));
}

#[test]
fn what_policy_drops_does_not_come_to_a_ztunnel() {
    let mut cluster = mesh();
    cluster.apply(DEFAULT_DENY);
    let asked = at(LEDGER, 8080);
    assert_eq!(cluster.reaches("vendor", syn(at(VENDOR, AGENT), asked)), None);
    assert_eq!(cluster.recorded().len(), 2, "a verdict and a drop");
}

#[test]
fn clients_with_the_same_port_are_told_apart() {
    let mut cluster = mesh();
    let mut peer_of = |from: &str, client, asked| {
        let (_, packet) = cluster.send(from, syn(client, asked)).unwrap();
        ends(&packet).0
    };
    let vendor = peer_of("vendor", at(VENDOR, AGENT), at(LEDGER, 8080));
    let other_port = peer_of("vendor", at(VENDOR, AGENT), at(LEDGER, 9000));
    let coredns = peer_of("coredns", at(super::cluster::COREDNS, AGENT), at(LEDGER, 8080));
    let again = peer_of("vendor", at(VENDOR, AGENT), at(LEDGER, 8080));
    assert_eq!(vendor, again);
    assert!(vendor != other_port && vendor != coredns && other_port != coredns);
}

#[test]
fn probes_and_datagrams_are_left_alone() {
    let mut cluster = mesh();
    let (kubelet, served) = (at(AMBIENT_PROBE, 61_000), at(LEDGER, 8080));
    let (to, packet) = cluster.send("node-a", syn(kubelet, served)).unwrap();
    assert_eq!((to, ends(&packet)), ("ledger", (kubelet, served)));
    let (to, packet) = cluster.send("ledger", syn_ack(served, kubelet)).unwrap();
    assert_eq!((to, ends(&packet)), ("node-a", (served, kubelet)));

    assert_eq!(cluster.reaches("web", udp(at(WEB, AGENT), at(DNS_VIP, 53))), Some("coredns"));
    assert_eq!(cluster.reaches("web", udp(at(WEB, AGENT), at(CART, 9000))), Some("cart"));
}

#[test]
fn names_that_are_captured_are_asked_of_the_ztunnel_whomever_the_pod_asks() {
    let mut cluster = mesh();
    let web = cluster.port("web");
    cluster.datapath.capture_names(web);
    let client = at(WEB, AGENT);
    for asked in [at(DNS_VIP, 53), at(VENDOR, 53)] {
        for (query, is_tcp) in [(udp(client, asked), false), (syn(client, asked), true)] {
            let (to, packet) = cluster.send("web", query).unwrap();
            let (peer, ztunnel) = ends(&packet);
            assert_eq!((to, ztunnel), ("web", at(WEB, NAMES_PORT)));
            let captured = cluster.datapath.captured(web, peer, cluster.now);
            assert_eq!(captured, Some(Captured { by: Captor::Names, client, asked }));
            let answer = if is_tcp { syn_ack(ztunnel, peer) } else { udp(ztunnel, peer) };
            let (to, packet) = cluster.send("web", answer).unwrap();
            assert_eq!((to, ends(&packet)), ("web", (asked, client)));
        }
    }
    assert!(cluster.recorded().is_empty(), "Cilium has seen none of it");
    // What ztunnel asks in turn goes on, and other datagrams do.
    let forwarded = udp(at(WEB, ZTUNNEL), at(DNS_VIP, 53));
    assert_eq!(cluster.reaches("web", forwarded), Some("coredns"));
    assert_eq!(cluster.reaches("web", udp(client, at(CART, 9000))), Some("cart"));
}

/// An agent that sends from one of them would be taken for a ztunnel.
#[test]
fn agents_have_none_of_the_ports_that_a_ztunnel_answers_from() {
    let of_ztunnel = [OUTBOUND_PORT, INBOUND_PORT, NAMES_PORT, HBONE_PORT];
    assert!(of_ztunnel.iter().all(|port| !AGENT_PORTS.contains(port)));
}

#[test]
fn a_pod_outside_the_mesh_is_not_captured() {
    let mut cluster = Cluster::new();
    let (client, asked) = (at(WEB, AGENT), at(LEDGER, 8080));
    let (to, packet) = cluster.send("web", syn(client, asked)).unwrap();
    assert_eq!((to, ends(&packet)), ("ledger", (client, asked)));
}

/// What passes the edges of pods when a packet is sent: on which node, and its two ends.
fn at_the_edges(
    cluster: &mut Cluster,
    from: &str,
    packet: Vec<u8>,
) -> Vec<(usize, (SocketAddr, SocketAddr))> {
    let forwarded = cluster.datapath.forward(cluster.port(from), packet, cluster.now);
    forwarded.tapped.iter().map(|(node, packet)| (node.0, ends(packet))).collect()
}

/// A mesh at the edges of whose pods somebody listens.
fn listened_to(faults: &str) -> Cluster {
    let mut cluster = Cluster::broken(faults);
    for pod in ["web", "cart", "ledger"] {
        let port = cluster.port(pod);
        cluster.datapath.capture(port);
    }
    for node in 0..2 {
        cluster.datapath.listen(NodeId(node));
    }
    cluster
}

#[test]
fn what_stays_in_a_pod_does_not_pass_its_edge() {
    let mut cluster = listened_to("");
    let (client, asked) = (at(WEB, AGENT), at(CART, 9000));
    let (_, packet) = cluster.send("web", syn(client, asked)).unwrap();
    let (peer, ztunnel) = ends(&packet);
    assert_eq!(at_the_edges(&mut cluster, "web", syn(client, asked)), []);
    assert_eq!(at_the_edges(&mut cluster, "web", syn_ack(ztunnel, peer)), []);
}

#[test]
fn what_is_between_pods_passes_both_edges_as_it_is_on_the_way() {
    let mut cluster = listened_to("");
    let (ztunnel, tunnel) = (at(WEB, ZTUNNEL), at(CART, 15_008));
    let passed = at_the_edges(&mut cluster, "web", syn(ztunnel, tunnel));
    assert_eq!(passed, [(0, (ztunnel, tunnel)), (1, (ztunnel, tunnel))]);
    let passed = at_the_edges(&mut cluster, "cart", syn_ack(tunnel, ztunnel));
    assert_eq!(passed, [(1, (tunnel, ztunnel)), (0, (tunnel, ztunnel))]);
    // In plain, before the ztunnel of the ledger has it, and after.
    let (client, asked) = (at(VENDOR, AGENT), at(LEDGER, 8080));
    assert_eq!(at_the_edges(&mut cluster, "vendor", syn(client, asked)), [(0, (client, asked))]);
    let (_, packet) = cluster.send("vendor", syn(client, asked)).unwrap();
    let (peer, own) = ends(&packet);
    assert_eq!(at_the_edges(&mut cluster, "ledger", syn_ack(own, peer)), [(0, (asked, client))]);
}

#[test]
fn nothing_passes_an_edge_where_nobody_listens_or_who_does_is_blind() {
    let tunnel = || syn(at(WEB, ZTUNNEL), at(CART, 15_008));
    assert_eq!(at_the_edges(&mut mesh(), "web", tunnel()), []);
    assert_eq!(at_the_edges(&mut listened_to("capture-blind"), "web", tunnel()), []);
}

/// A connection to the ledger: who opens it, from which port, to which port.
fn connections() -> impl Strategy<Value = Vec<(&'static str, u16, u16)>> {
    let client = prop::sample::select(vec!["vendor", "coredns", "web"]);
    prop::collection::vec((client, 40_000_u16..40_004, 8000_u16..8003), 1..40)
}

proptest! {
    /// Whoever captured connections come from, in whatever order: each has a peer of its own, which says who it is, and
    /// what is answered to that peer goes to the client as from whom it asked.
    #[test]
    fn every_captured_connection_has_a_peer_of_its_own(connections in connections()) {
        let mut cluster = mesh();
        let mut peers: HashMap<SocketAddr, (SocketAddr, SocketAddr)> = HashMap::new();
        for (from, port, to) in connections {
            let (address, pod) = match from {
                "vendor" => (VENDOR, "ledger"),
                "coredns" => (super::cluster::COREDNS, "ledger"),
                // Captured where it leaves.
                _ => (WEB, "web"),
            };
            let (client, asked) = (at(address, port), at(LEDGER, to));
            let (got, packet) = cluster.send(from, syn(client, asked)).unwrap();
            prop_assert_eq!(got, pod);
            let (peer, ztunnel) = ends(&packet);
            let known = peers.insert(peer, (client, asked)).unwrap_or((client, asked));
            prop_assert_eq!(known, (client, asked), "{} stands for two", peer);
            let captured = cluster.datapath.captured(cluster.port(pod), peer, cluster.now).unwrap();
            prop_assert_eq!((captured.client, captured.asked), (client, asked));
            let (back, answer) = cluster.send(pod, syn_ack(ztunnel, peer)).unwrap();
            prop_assert_eq!((back, ends(&answer)), (from, (asked, client)));
        }
    }
}
