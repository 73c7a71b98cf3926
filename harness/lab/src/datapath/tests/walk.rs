//! Which packets get where.

use std::time::Duration;

use smoltcp::wire::TcpControl;
use ztc_model::manifest::manifests;
use ztc_model::yaml::Source;

use super::cluster::{
    AMBIENT_PROBE, CART, COREDNS, Cluster, DNS_VIP, EMPTY_VIP, LEDGER, LEDGER_VIP, METADATA,
    NODE_A, NODE_B, VENDOR, WEB, at, parse,
};
use super::packets::{data, ends, ping, pong, port_unreachable, quoted, syn, syn_ack, tcp, udp};
use super::policies::{BLOCK_METADATA, LEDGER_FROM_WEB, SHOP_DEFAULT_DENY};
use crate::datapath::endpoints::PolicyEnabled;

const DENIED_INGRESS: [&str; 2] =
    ["node-a verdict ingress POLICY_DENIED []", "node-a drop ingress POLICY_DENIED []"];
const DENIED_EGRESS: [&str; 2] =
    ["node-a verdict egress POLICY_DENIED []", "node-a drop egress POLICY_DENIED []"];

#[test]
fn without_policies_everybody_reaches_everybody() {
    let mut cluster = Cluster::new();
    for (from, source) in [("web", WEB), ("node-b", NODE_B), ("vendor", VENDOR)] {
        assert_eq!(cluster.reaches(from, syn(at(source, 4000), at(LEDGER, 8080))), Some("ledger"));
    }
    for (to, address) in [("cart", CART), ("vendor", VENDOR), ("node-a", NODE_A)] {
        assert_eq!(cluster.reaches("web", syn(at(WEB, 4001), at(address, 8080))), Some(to));
    }
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4002), at("198.51.100.1", 80))), None);
    assert_eq!(cluster.recorded(), [""; 0], "where nothing is enforced nothing is on record");
}

#[test]
fn what_no_rule_allows_is_dropped_at_the_destination() {
    // `docs/facts.md`: a default-deny names no policy.
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    assert_eq!(cluster.reaches("cart", syn(at(CART, 4000), at(LEDGER, 8080))), None);
    assert_eq!(cluster.recorded(), DENIED_INGRESS);
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(LEDGER, 8081))), None);
    assert_eq!(cluster.recorded(), DENIED_INGRESS);
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(LEDGER, 8080))), Some("ledger"));
    assert_eq!(cluster.recorded(), ["node-a verdict ingress Forwarded [ledger-from-web]"]);
}

#[test]
fn what_no_rule_allows_out_is_dropped_at_the_source() {
    let mut cluster = Cluster::new();
    cluster.apply(SHOP_DEFAULT_DENY);
    assert_eq!(cluster.reaches("web", udp(at(WEB, 4000), at(COREDNS, 53))), None);
    assert_eq!(cluster.recorded(), DENIED_EGRESS);
}

#[test]
fn a_deny_rule_is_named_by_the_verdict_alone() {
    // `facts/cilium/hubble-imds-deny.jsonl`.
    let mut cluster = Cluster::new();
    cluster.apply(BLOCK_METADATA);
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(METADATA, 80))), None);
    assert_eq!(
        cluster.recorded(),
        ["node-a verdict egress POLICY_DENY [block-metadata]", "node-a drop egress POLICY_DENY []",]
    );
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(VENDOR, 80))), Some("vendor"));
}

#[test]
fn a_connection_has_one_verdict_and_its_replies_pass() {
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    cluster.apply(SHOP_DEFAULT_DENY);
    cluster.apply(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web-out, namespace: zt-shop }
spec: { podSelector: { matchLabels: { app: web } }, policyTypes: [Egress], egress: [{}] }
",
    );
    let (web, ledger) = (at(WEB, 4000), at(LEDGER, 8080));
    assert_eq!(cluster.reaches("web", syn(web, ledger)), Some("ledger"));
    assert_eq!(
        cluster.recorded(),
        [
            "node-a verdict egress Forwarded [web-out]",
            "node-a verdict ingress Forwarded [ledger-from-web]",
        ]
    );
    assert_eq!(cluster.reaches("ledger", syn_ack(ledger, web)), Some("web"));
    assert_eq!(cluster.reaches("web", data(web, ledger)), Some("ledger"));
    assert_eq!(cluster.reaches("ledger", data(ledger, web)), Some("web"));
    assert_eq!(cluster.recorded(), [""; 0]);
    let unasked = data(at(LEDGER, 8081), web);
    assert_eq!(cluster.reaches("ledger", unasked), None, "it answers nothing");
}

#[test]
fn policy_is_asked_about_established_connections_too() {
    // `docs/architecture.md`: only replies and related packets pass on the entry.
    let mut cluster = Cluster::new();
    let (cart, ledger) = (at(CART, 4000), at(LEDGER, 8080));
    cluster.reaches("cart", syn(cart, ledger));
    assert_eq!(cluster.reaches("cart", data(cart, ledger)), Some("ledger"));
    cluster.apply(LEDGER_FROM_WEB);
    assert_eq!(cluster.reaches("cart", data(cart, ledger)), None);
    assert_eq!(cluster.recorded(), DENIED_INGRESS);
    assert_eq!(cluster.reaches("ledger", data(ledger, cart)), Some("cart"), "it is a reply");
    cluster.remove("CiliumNetworkPolicy/zt-pay/ledger-from-web");
    assert_eq!(cluster.reaches("cart", data(cart, ledger)), Some("ledger"));
}

#[test]
fn a_pod_sends_from_its_own_address_only() {
    let mut cluster = Cluster::new();
    for stolen in [LEDGER, AMBIENT_PROBE, NODE_A, VENDOR] {
        assert_eq!(cluster.reaches("web", syn(at(stolen, 4000), at(CART, 80))), None);
        assert_eq!(cluster.recorded(), ["node-a drop egress INVALID_SOURCE_IP []"]);
    }
    assert_eq!(cluster.reaches("web", syn(at("fe80::1", 4000), at("fe80::2", 80))), None);
    assert_eq!(cluster.recorded(), ["node-a drop egress UNSUPPORTED_L3_PROTOCOL []"]);
}

#[test]
fn an_outside_host_sends_from_its_own_address_only() {
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    assert_eq!(cluster.reaches("vendor", syn(at(WEB, 4000), at(LEDGER, 8080))), None);
}

#[test]
fn a_node_reaches_its_own_pods_and_no_others() {
    // `allow-localhost=auto`; surprise 6 of the recorded facts.
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    let probe = |from| syn(at(from, 4000), at(LEDGER, 8080));
    assert_eq!(cluster.reaches("node-a", probe(NODE_A)), Some("ledger"));
    let answer = syn_ack(at(LEDGER, 8080), at(NODE_A, 4000));
    assert_eq!(cluster.reaches("ledger", answer), Some("node-a"));
    cluster.recorded();
    assert_eq!(cluster.reaches("node-b", probe(NODE_B)), None);
    assert_eq!(cluster.recorded(), DENIED_INGRESS);
}

#[test]
fn an_ambient_probe_is_the_world_until_a_range_allows_it() {
    // Surprise 13 of the recorded facts.
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    let probe = || syn(at(AMBIENT_PROBE, 4000), at(LEDGER, 8080));
    assert_eq!(cluster.reaches("node-a", probe()), None);
    let line = cluster.flows.last().unwrap();
    assert_eq!(line.flow.source.as_ref().unwrap().identity, Some(2));
    cluster.apply(
        "
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: { name: allow-probes }
spec:
  endpointSelector: {}
  enableDefaultDeny: { ingress: false, egress: false }
  ingress: [{ fromCIDR: [169.254.7.127/32] }]
",
    );
    assert_eq!(cluster.reaches("node-a", probe()), Some("ledger"));
    let answer = syn_ack(at(LEDGER, 8080), at(AMBIENT_PROBE, 4000));
    assert_eq!(cluster.reaches("ledger", answer), Some("node-a"), "its own node, not the other");
}

#[test]
fn a_service_is_translated_before_policy_is_asked_and_its_replies_come_from_it() {
    // Surprise 7 of the recorded facts: rules are about the backend's port.
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    let (web, vip) = (at(WEB, 4000), at(LEDGER_VIP, 80));
    let (to, packet) = cluster.send("web", syn(web, vip)).unwrap();
    assert_eq!((to, ends(&packet)), ("ledger", (web, at(LEDGER, 8080))));
    let (to, packet) = cluster.send("ledger", syn_ack(at(LEDGER, 8080), web)).unwrap();
    assert_eq!((to, ends(&packet)), ("web", (vip, web)));
    let (_, packet) = cluster.send("web", data(web, vip)).unwrap();
    assert_eq!(ends(&packet), (web, at(LEDGER, 8080)));
    assert_eq!(cluster.recorded().len(), 1, "one verdict for one connection");
}

#[test]
fn a_service_without_a_backend_drops() {
    let mut cluster = Cluster::new();
    for (vip, port) in [(EMPTY_VIP, 80), (LEDGER_VIP, 81)] {
        assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(vip, port))), None);
        assert_eq!(cluster.recorded(), ["node-a drop egress SERVICE_BACKEND_NOT_FOUND []"]);
    }
}

#[test]
fn an_icmp_error_about_a_connection_passes_and_speaks_of_what_the_client_asked() {
    let mut cluster = Cluster::new();
    cluster.apply(SHOP_DEFAULT_DENY);
    cluster.apply(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: web-out, namespace: zt-shop }
spec:
  endpointSelector: { matchLabels: { app: web } }
  egress: [{ toPorts: [{ ports: [{ port: '53', protocol: UDP }] }] }]
",
    );
    let (web, vip) = (at(WEB, 4000), at(DNS_VIP, 53));
    let (_, packet) = cluster.send("web", udp(web, vip)).unwrap();
    let (to, error) = cluster.send("coredns", port_unreachable(&packet)).unwrap();
    assert_eq!(to, "web");
    assert_eq!(ends(&error).0.ip(), vip.ip());
    assert_eq!(quoted(&error), (web, vip));
    let stray = port_unreachable(&udp(at(WEB, 4001), at(COREDNS, 53)));
    assert_eq!(cluster.reaches("coredns", stray), None, "about nothing that was sent");
}

#[test]
fn an_echo_is_answered_where_only_requests_may_leave() {
    let mut cluster = Cluster::new();
    cluster.apply(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: out, namespace: zt-shop }
spec: { podSelector: {}, policyTypes: [Ingress, Egress], egress: [{}] }
",
    );
    let (web, ledger) = (at(WEB, 0), at(LEDGER, 0));
    assert_eq!(cluster.reaches("ledger", ping(ledger, web)), None);
    assert_eq!(cluster.reaches("web", ping(web, ledger)), Some("ledger"));
    assert_eq!(cluster.reaches("ledger", pong(ledger, web)), Some("web"));
    assert_eq!(cluster.reaches("ledger", ping(ledger, web)), None, "a request is no reply");
}

#[test]
fn a_closed_connection_is_forgotten_soon_and_its_ports_can_be_used_again() {
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    let (web, ledger) = (at(WEB, 4000), at(LEDGER, 8080));
    cluster.send("web", syn(web, ledger));
    cluster.send("ledger", tcp(ledger, web, TcpControl::Rst, true));
    assert_eq!(cluster.recorded().len(), 1);
    cluster.send("web", syn(web, ledger));
    assert_eq!(cluster.recorded().len(), 1, "a SYN opens it again");
    cluster.send("web", tcp(web, ledger, TcpControl::Fin, true));
    cluster.send("ledger", tcp(ledger, web, TcpControl::Fin, true));
    cluster.wait(Duration::from_secs(11));
    cluster.send("web", data(web, ledger));
    assert_eq!(cluster.recorded().len(), 1, "it is not known any more");
}

#[test]
fn a_new_pod_is_subject_to_policy_from_its_first_packet_on() {
    // Surprise 8 of the recorded facts.
    let mut cluster = Cluster::new();
    cluster.apply(SHOP_DEFAULT_DENY);
    cluster.attach_second_cart("10.244.1.12");
    let packet = syn(at("10.244.1.12", 4000), at(LEDGER, 8080));
    assert_eq!(cluster.reaches("cart-2", packet), None);
}

#[test]
fn a_pod_that_has_the_address_of_another_inherits_nothing() {
    let mut cluster = Cluster::new();
    let (cart, ledger) = (at(CART, 4000), at(LEDGER, 8080));
    assert_eq!(cluster.reaches("cart", syn(cart, ledger)), Some("ledger"));
    let port = cluster.port("cart");
    cluster.datapath.detach(port, cluster.now);
    assert_eq!(cluster.reaches("cart", syn(cart, ledger)), None, "it is unplugged");
    assert_eq!(cluster.reaches("ledger", data(ledger, cart)), None, "nobody is there");
    cluster.apply(SHOP_DEFAULT_DENY);
    cluster.attach_second_cart(CART);
    assert_eq!(cluster.reaches("ledger", data(ledger, cart)), None, "it asked for nothing");
}

#[test]
fn endpoints_tell_what_is_enforced_for_them() {
    let mut cluster = Cluster::new();
    let before = cluster.datapath.revision();
    let revision = cluster.apply(LEDGER_FROM_WEB);
    assert_eq!(revision, before + 1);
    cluster.attach_second_cart("10.244.1.12");
    let states = cluster.datapath.endpoints();
    assert!(states.iter().all(|state| state.realised == revision));
    let state = |name: &str| states.iter().find(|it| it.reference.name == name).unwrap();
    assert_eq!(state("ledger").policy_enabled, PolicyEnabled::Ingress);
    assert_eq!(state("web").policy_enabled, PolicyEnabled::None);
    assert_eq!(state("cart").identity, state("cart-2").identity);
    assert_ne!(state("cart").identity, state("web").identity);
}

/// Each of them compiled for everybody, and all addresses mapped anew, would take minutes.
#[test]
fn ten_thousand_policies_of_others_touch_nobody() {
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    let strangers = LEDGER_FROM_WEB.replace("app: ledger", "app: stranger");
    let strangers = manifests(&Source::new("test.yaml", strangers)).unwrap().remove(0).policy;
    for number in 0..10_000 {
        cluster.apply_as(&format!("strangers-{number}"), &strangers);
    }
    let revision = cluster.datapath.revision();
    let states = cluster.datapath.endpoints();
    assert!(states.iter().all(|state| state.realised == revision));
    let ledger = at(LEDGER, 8080);
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), ledger)), Some("ledger"));
    assert_eq!(cluster.reaches("cart", syn(at(CART, 4000), ledger)), None);
    cluster.remove("CiliumNetworkPolicy/zt-pay/ledger-from-web");
    assert_eq!(cluster.reaches("cart", syn(at(CART, 4001), ledger)), Some("ledger"));
}

#[test]
fn a_removed_policy_that_does_not_exist_is_no_new_revision() {
    let mut cluster = Cluster::new();
    let before = cluster.datapath.revision();
    cluster.remove("NetworkPolicy/zt-shop/default-deny");
    assert_eq!(cluster.datapath.revision(), before);
}

#[test]
fn a_range_and_its_exception_are_told_apart() {
    let mut cluster = Cluster::new();
    cluster.apply(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: out, namespace: zt-shop }
spec:
  endpointSelector: {}
  egress: [{ toCIDRSet: [{ cidr: 0.0.0.0/0, except: [169.254.0.0/16] }] }]
",
    );
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(VENDOR, 80))), Some("vendor"));
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(METADATA, 80))), None);
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(LEDGER, 80))), None, "a pod");
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(NODE_B, 80))), None, "a node");
}

#[test]
fn fragments_and_unknown_protocols_are_dropped_on_record() {
    let mut cluster = Cluster::new();
    let mut fragment = udp(at(WEB, 4000), at(CART, 80));
    fragment[6] |= 0x20;
    assert_eq!(cluster.reaches("web", fragment), None);
    let mut sctp = udp(at(WEB, 4000), at(CART, 80));
    sctp[9] = 132;
    assert_eq!(cluster.reaches("web", sctp), None);
    assert_eq!(
        cluster.recorded(),
        [
            "node-a drop egress FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND []",
            "node-a drop egress UNKNOWN_L4_PROTOCOL []",
        ]
    );
}

#[test]
fn version_six_is_switched_like_version_four() {
    let mut cluster = Cluster::new();
    let (one, two) = ("fd00:244::1", "fd00:244::2");
    cluster.attach_second_cart(one);
    let asker = cluster.datapath.endpoints().last().unwrap().port;
    cluster.attach_second_cart(two);
    let packet = syn(at(one, 4000), at(two, 80));
    let forwarded = cluster.datapath.forward(asker, packet, cluster.now);
    let (_, bytes) = forwarded.to.unwrap();
    assert_eq!(ends(&bytes).1.ip(), parse(two));
}

#[test]
fn the_name_of_a_port_is_that_of_the_destination_in_both_directions() {
    let mut cluster = Cluster::new();
    cluster.apply(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: out, namespace: zt-shop }
spec:
  endpointSelector: {}
  egress: [{ toPorts: [{ ports: [{ port: http, protocol: TCP }] }] }]
",
    );
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(LEDGER, 8080))), Some("ledger"));
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(LEDGER, 8081))), None);
    assert_eq!(cluster.reaches("web", syn(at(WEB, 4000), at(CART, 8080))), None, "no such name");
}

#[test]
fn a_pod_sends_from_either_of_its_addresses_and_from_no_other() {
    let mut cluster = Cluster::new();
    cluster.attach_second_cart("10.244.1.20 fd00::20");
    for (from, to) in [("10.244.1.20", VENDOR), ("fd00::20", "2001:db8::1")] {
        cluster.send("cart-2", syn(at(from, 40_000), at(to, 80)));
        assert_eq!(cluster.recorded(), [""; 0], "{from}");
    }
    cluster.send("cart-2", syn(at("fd00::21", 40_000), at("2001:db8::1", 80)));
    assert_eq!(cluster.recorded(), ["node-b drop egress INVALID_SOURCE_IP []"]);
}
