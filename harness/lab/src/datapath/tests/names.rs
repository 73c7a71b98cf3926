//! The way of DNS queries through the proxy of a node, whose part the tests play.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ztc_model::policy::Protocol;

use super::cluster::{
    CART, COREDNS, Cluster, DNS_VIP, LEDGER, METADATA, NODE_A, PROXY_PORT, VENDOR, WEB, at,
};
use super::packets::{data, ends, syn, syn_ack, udp};
use super::policies::{BLOCK_METADATA, DNS_DEFAULT_DENY, SHOP_DEFAULT_DENY, WEB_DNS, WEB_FQDNS};
use crate::datapath::{NodeId, Redirect};

/// The web's query to this server reaches the proxy, which learns who asks whom.
fn redirected(cluster: &mut Cluster, server: SocketAddr) -> Redirect {
    let (web, proxy) = (at(WEB, 4000), at(NODE_A, PROXY_PORT));
    let (to, packet) = cluster.send("web", udp(web, server)).unwrap();
    assert_eq!((to, ends(&packet)), ("node-a", (web, proxy)));
    cluster.datapath.redirected(Protocol::Udp, web, cluster.now).unwrap()
}

fn judged(cluster: &Cluster, redirect: &Redirect, name: &str) -> bool {
    let verdict = cluster.datapath.judge_query(redirect, name, &["A".to_owned()], cluster.now);
    verdict.allowed
}

#[test]
fn a_query_goes_to_the_proxy_of_its_own_node_and_the_answer_comes_from_whom_it_asked() {
    for server in [at(DNS_VIP, 53), at(COREDNS, 53)] {
        let mut cluster = Cluster::new();
        cluster.apply(WEB_DNS);
        let redirect = redirected(&mut cluster, server);
        assert_eq!(redirect.server, at(COREDNS, 53), "after translation of services");
        assert_eq!(redirect.client, at(WEB, 4000));
        assert_eq!(cluster.recorded(), ["node-a verdict egress Redirected [web-dns]"]);
        let answer = udp(at(NODE_A, PROXY_PORT), at(WEB, 4000));
        let (to, packet) = cluster.send("node-a", answer).unwrap();
        assert_eq!((to, ends(&packet)), ("web", (server, at(WEB, 4000))));
        assert_eq!(cluster.recorded(), [""; 0]);
    }
}

#[test]
fn a_whole_connection_goes_to_the_proxy() {
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    let (web, vip, proxy) = (at(WEB, 4000), at(DNS_VIP, 53), at(NODE_A, PROXY_PORT));
    for packet in [syn(web, vip), data(web, vip)] {
        let (to, packet) = cluster.send("web", packet).unwrap();
        assert_eq!((to, ends(&packet)), ("node-a", (web, proxy)));
        let (to, packet) = cluster.send("node-a", syn_ack(proxy, web)).unwrap();
        assert_eq!((to, ends(&packet)), ("web", (vip, web)));
    }
    assert_eq!(cluster.recorded().len(), 1);
}

#[test]
fn the_proxy_asks_the_server_in_the_name_of_the_client() {
    // Transparent mode: `dnsproxy-enable-transparent-mode` of the recorded configuration.
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    let redirect = redirected(&mut cluster, at(DNS_VIP, 53));
    let (socket, wire) = (at(NODE_A, 5000), at(WEB, 5000));
    cluster.datapath.begin_upstream(&redirect, socket, cluster.now);
    let (to, packet) = cluster.send("node-a", udp(socket, at(COREDNS, 53))).unwrap();
    assert_eq!((to, ends(&packet)), ("coredns", (wire, at(COREDNS, 53))));
    let (to, packet) = cluster.send("coredns", udp(at(COREDNS, 53), wire)).unwrap();
    assert_eq!((to, ends(&packet)), ("node-a", (at(COREDNS, 53), socket)));
    assert_eq!(cluster.recorded().len(), 1, "the redirection alone");
}

#[test]
fn a_closed_socket_of_the_proxy_still_says_goodbye_in_the_name_of_the_client() {
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    let redirect = redirected(&mut cluster, at(DNS_VIP, 53));
    let socket = at(NODE_A, 5000);
    cluster.datapath.begin_upstream(&redirect, socket, cluster.now);
    cluster.datapath.end_upstream(Protocol::Udp, socket, cluster.now);
    let source = |cluster: &mut Cluster| {
        let (_, packet) = cluster.send("node-a", udp(socket, at(COREDNS, 53))).unwrap();
        ends(&packet).0
    };
    assert_eq!(source(&mut cluster), at(WEB, 5000));
    cluster.wait(Duration::from_secs(11));
    assert_eq!(source(&mut cluster), socket, "it is the node's own again");
}

#[test]
fn the_ingress_of_the_server_is_asked_about_what_the_proxy_sends() {
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    cluster.apply(DNS_DEFAULT_DENY);
    let redirect = redirected(&mut cluster, at(DNS_VIP, 53));
    let socket = at(NODE_A, 5000);
    cluster.datapath.begin_upstream(&redirect, socket, cluster.now);
    cluster.recorded();
    assert_eq!(cluster.reaches("node-a", udp(socket, at(COREDNS, 53))), None);
    let source = cluster.flows[0].flow.source.clone().unwrap();
    assert_eq!(source.pod_name, "web", "the client is on record, not the node");
    assert_eq!(
        cluster.recorded(),
        ["node-b verdict ingress POLICY_DENIED []", "node-b drop ingress POLICY_DENIED []",]
    );
}

#[test]
fn names_pass_that_a_rule_matches() {
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    let redirect = redirected(&mut cluster, at(DNS_VIP, 53));
    assert!(judged(&cluster, &redirect, "api.zt.test."));
    assert!(!judged(&cluster, &redirect, "evil.example."));
}

#[test]
fn a_query_is_judged_by_the_policy_of_its_moment() {
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    let redirect = redirected(&mut cluster, at(DNS_VIP, 53));
    cluster.remove("CiliumNetworkPolicy/zt-shop/web-dns");
    assert!(judged(&cluster, &redirect, "evil.example."), "nothing is enforced");
    let port = cluster.port("web");
    cluster.datapath.detach(port, cluster.now);
    assert!(!judged(&cluster, &redirect, "api.zt.test."), "nobody asks");
}

#[test]
fn what_is_no_query_to_an_allowed_server_does_not_reach_the_proxy() {
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    assert_eq!(cluster.reaches("web", udp(at(WEB, 4000), at(LEDGER, 53))), None);
    assert_eq!(cluster.reaches("cart", udp(at(CART, 4000), at(DNS_VIP, 53))), Some("coredns"));
    assert_eq!(cluster.datapath.redirected(Protocol::Udp, at(CART, 4000), cluster.now), None);
}

/// An answer with these addresses, each for ten seconds.
fn answer(name: &str, rcode: ResponseCode, addresses: &[&str]) -> Message {
    let name: Name = name.parse().unwrap();
    let mut message = Message::new(1, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name.clone(), RecordType::A));
    message.metadata.response_code = rcode;
    for address in addresses {
        let data = RData::A(A(address.parse().unwrap()));
        message.add_answer(Record::from_rdata(name.clone(), 10, data));
    }
    message
}

#[test]
fn answers_are_on_record_as_hubble_has_them() {
    // `facts/cilium/hubble-dns.jsonl`.
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    let redirect = redirected(&mut cluster, at(DNS_VIP, 53));
    let mut summary = |answer: &Message| {
        let line = cluster.datapath.answer_seen(&redirect, answer, cluster.now).unwrap();
        assert_eq!(line.flow.is_reply, Some(true));
        assert_eq!(line.flow.source.unwrap().pod_name, "coredns");
        line.flow.summary
    };
    assert_eq!(
        summary(&answer("api.zt.test.", ResponseCode::NoError, &["172.30.0.3"])),
        "DNS Answer \"172.30.0.3\" TTL: 10 (Proxy api.zt.test. A)"
    );
    assert_eq!(
        summary(&answer("api.zt.test.cluster.local.", ResponseCode::NXDomain, &[])),
        "DNS Answer RCode: Non-Existent Domain TTL: 4294967295 (Proxy api.zt.test.cluster.local. A)"
    );
    assert_eq!(
        summary(&answer("api.zt.test.", ResponseCode::NoError, &[])),
        "DNS Answer  TTL: 4294967295 (Proxy api.zt.test. A)"
    );
}

/// A cluster where the web may ask, and may open connections to what it asked for by name.
pub(super) fn with_names(faults: &str) -> (Cluster, Redirect) {
    let mut cluster = Cluster::broken(faults);
    cluster.apply(WEB_DNS);
    cluster.apply(WEB_FQDNS);
    let redirect = redirected(&mut cluster, at(DNS_VIP, 53));
    (cluster, redirect)
}

/// The proxy passes an answer on.
pub(super) fn answered(cluster: &mut Cluster, redirect: &Redirect, name: &str, address: &str) {
    let answer = answer(name, ResponseCode::NoError, &[address]);
    cluster.datapath.answer_seen(redirect, &answer, cluster.now);
}

pub(super) fn web_reaches(cluster: &mut Cluster, server: SocketAddr) -> bool {
    cluster.reaches("web", syn(at(WEB, 4001), server)).is_some()
}

#[test]
fn an_address_is_allowed_once_the_proxy_has_seen_it_for_an_allowed_name() {
    let (mut cluster, redirect) = with_names("");
    assert!(!web_reaches(&mut cluster, at(VENDOR, 443)));
    answered(&mut cluster, &redirect, "other.zt.test.", VENDOR);
    assert!(!web_reaches(&mut cluster, at(VENDOR, 443)), "it is another name's");
    answered(&mut cluster, &redirect, "API.zt.test.", VENDOR);
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)));
    assert!(!web_reaches(&mut cluster, at(VENDOR, 80)), "the rule has ports");
    assert!(!web_reaches(&mut cluster, at(METADATA, 443)), "it was learnt for nobody");
}

#[test]
fn what_is_learnt_is_on_record_with_its_names() {
    let (mut cluster, redirect) = with_names("");
    answered(&mut cluster, &redirect, "a.vendor.test.", VENDOR);
    cluster.flows.clear();
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)));
    let destination = cluster.flows[0].flow.destination.clone().unwrap();
    assert_eq!(destination.labels, ["fqdn:*.vendor.test", "reserved:world"]);
    assert_eq!(cluster.recorded(), ["node-a verdict egress Forwarded [web-fqdns]"]);
}

/// `RegisterFQDNSelector` in `pkg/fqdn/namemanager/manager.go`: a new selector finds old names.
#[test]
fn a_policy_that_comes_later_finds_what_was_learnt_before() {
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    let redirect = redirected(&mut cluster, at(DNS_VIP, 53));
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    assert!(!web_reaches(&mut cluster, at(VENDOR, 443)));
    cluster.apply(WEB_FQDNS);
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)));
    cluster.remove("CiliumNetworkPolicy/zt-shop/web-fqdns");
    assert!(!web_reaches(&mut cluster, at(VENDOR, 443)));
}

#[test]
fn a_learnt_address_is_forgotten_when_its_time_is_over() {
    let (mut cluster, redirect) = with_names("");
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    cluster.wait(Duration::from_secs(5));
    answered(&mut cluster, &redirect, "a.vendor.test.", VENDOR);
    cluster.wait(Duration::from_secs(6));
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)), "the second name still holds");
    cluster.wait(Duration::from_secs(5));
    assert!(!web_reaches(&mut cluster, at(VENDOR, 443)));
}

#[test]
fn everything_learnt_is_forgotten_on_demand_and_can_be_learnt_again() {
    let (mut cluster, redirect) = with_names("");
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    cluster.datapath.forget_names();
    assert!(!web_reaches(&mut cluster, at(VENDOR, 443)));
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)));
}

/// Names are the agent's, and there is an agent a node (`docs security/policy/language`).
#[test]
fn names_are_learnt_by_the_node_of_who_asked() {
    let (mut cluster, redirect) = with_names("");
    let everybody = WEB_FQDNS.replace("{ matchLabels: { app: web } }", "{}");
    cluster.apply(&everybody);
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    assert!(web_reaches(&mut cluster, at(VENDOR, 443)));
    let from_other_node = syn(at(CART, 4001), at(VENDOR, 443));
    assert_eq!(cluster.reaches("cart", from_other_node), None);
}

/// Surprise 3 of the recorded facts.
#[test]
fn a_name_opens_no_pod_and_no_denied_address() {
    let (mut cluster, redirect) = with_names("");
    answered(&mut cluster, &redirect, "api.zt.test.", LEDGER);
    assert!(!web_reaches(&mut cluster, at(LEDGER, 443)));
    answered(&mut cluster, &redirect, "api.zt.test.", METADATA);
    assert!(web_reaches(&mut cluster, at(METADATA, 443)));
    cluster.apply(BLOCK_METADATA);
    assert!(!web_reaches(&mut cluster, at(METADATA, 443)));
}

#[test]
fn a_broken_proxy_learns_too_much_for_too_long_or_for_too_many() {
    let reaches = |cluster: &mut Cluster, from: &str, address: &str| {
        cluster.reaches(from, syn(at(address, 4001), at(VENDOR, 443))).is_some()
    };
    let (mut cluster, redirect) = with_names("fqdn-ignores-ttl");
    answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
    cluster.wait(Duration::from_hours(1));
    assert!(reaches(&mut cluster, "web", WEB));

    let (mut cluster, _) = with_names("fqdn-learns-without-proxy");
    let answer = answer("api.zt.test.", ResponseCode::NoError, &[VENDOR]).to_vec().unwrap();
    cluster.datapath.learn_unasked(NodeId(0), &answer, cluster.now);
    assert!(reaches(&mut cluster, "web", WEB));

    for (faults, leaks) in [("", false), ("fqdn-leaks-namespace", true)] {
        let (mut cluster, redirect) = with_names(faults);
        let ledger = SHOP_DEFAULT_DENY.replace("zt-shop", "zt-pay");
        cluster.apply(&ledger);
        cluster.apply(&WEB_FQDNS.replace("{ matchLabels: { app: web } }", "{}"));
        answered(&mut cluster, &redirect, "api.zt.test.", VENDOR);
        assert_eq!(reaches(&mut cluster, "ledger", LEDGER), leaks, "{faults}");
    }
}
