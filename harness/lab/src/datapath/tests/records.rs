//! What records look like, against lines recorded on a real cluster.

use std::sync::Arc;

use ztc_model::evidence::{Did, Direction, Evidence};
use ztc_model::hubble::{Icmp, L4, Line, Record, read};
use ztc_model::outcome::EnforcementPoint;
use ztc_model::policy::Protocol;

use super::cluster::{CART, Cluster, DNS_VIP, LEDGER, METADATA, NODE_B, WEB, at};
use super::packets::{ping, syn, udp};
use super::policies::{BLOCK_METADATA, LEDGER_FROM_WEB, WEB_DNS};

/// `facts/cilium/hubble-imds-deny.jsonl`, the policy verdict, without the fields that the lab
/// leaves out: MAC addresses, labels of the node, and the log text of the policy.
const DENY_VERDICT: &str = r#"{"flow":{"time":"2026-11-23T23:08:00.107955136Z","verdict":"DROPPED","drop_reason":181,"IP":{"source":"10.244.1.135","destination":"169.254.169.254","ipVersion":"IPv4"},"l4":{"TCP":{"source_port":57780,"destination_port":80,"flags":{"SYN":true}}},"source":{"ID":2476,"identity":2243,"cluster_name":"default","namespace":"tenant-d","labels":["k8s:app=client"],"pod_name":"client"},"destination":{"identity":16777218,"labels":["cidr:169.254.169.254/32","reserved:world"]},"Type":"L3_L4","node_name":"ztc-bench-worker","event_type":{"type":5},"traffic_direction":"EGRESS","policy_match_type":1,"drop_reason_desc":"POLICY_DENY","Summary":"TCP Flags: SYN","egress_denied_by":[{"name":"deny-imds","labels":["k8s:io.cilium.k8s.policy.derived-from=CiliumClusterwideNetworkPolicy","k8s:io.cilium.k8s.policy.name=deny-imds"],"revision":"11","kind":"CiliumClusterwideNetworkPolicy"}]},"node_name":"ztc-bench-worker","time":"2026-11-23T23:08:00.107955136Z"}"#;

fn recorded(line: &str) -> Line {
    match read(line).unwrap() {
        Record::Flow(line) => *line,
        other => panic!("{other:?}"),
    }
}

/// The lab's record of the same.
fn denied() -> Line {
    let mut cluster = Cluster::new();
    cluster.apply(BLOCK_METADATA);
    cluster.send("web", syn(at(WEB, 57_780), at(METADATA, 80)));
    cluster.flows.swap_remove(0)
}

#[test]
fn a_record_has_what_a_recorded_one_has() {
    let (real, lab) = (recorded(DENY_VERDICT).flow, denied().flow);
    assert_eq!(lab.verdict, real.verdict);
    assert_eq!(lab.drop_reason, real.drop_reason);
    assert_eq!(lab.drop_reason_desc, real.drop_reason_desc);
    assert_eq!(lab.l4, real.l4);
    assert_eq!(lab.kind, real.kind);
    assert_eq!(lab.event_type, real.event_type);
    assert_eq!(lab.traffic_direction, real.traffic_direction);
    assert_eq!(lab.policy_match_type, real.policy_match_type);
    assert_eq!(lab.is_reply, real.is_reply);
    assert_eq!(lab.summary, real.summary);
    let (real, lab) = (real.destination.unwrap(), lab.destination.unwrap());
    assert_eq!(lab.labels, real.labels);
    assert_eq!((lab.id, lab.cluster_name), (real.id, real.cluster_name));
}

#[test]
fn a_record_of_an_echo_request_has_its_type_and_opens_a_flow_without_ports() {
    let mut cluster = Cluster::new();
    cluster.apply(BLOCK_METADATA);
    cluster.send("web", ping(at(WEB, 0), at(METADATA, 0)));
    let line = Arc::new(cluster.flows.swap_remove(0));
    let icmpv4 = Some(Icmp { kind: 8, code: 0 });
    assert_eq!(line.flow.l4, Some(L4 { icmpv4, ..L4::default() }));
    assert_eq!(line.flow.summary, "ICMPv4 EchoRequest");
    let evidence = Evidence::from_hubble(&line).unwrap();
    assert_eq!(evidence.did, Did::DenyByRule { direction: Direction::Egress });
    assert_eq!(evidence.flow.protocol, Protocol::Icmp);
    assert_eq!((evidence.flow.source, evidence.flow.destination), (at(WEB, 0), at(METADATA, 0)));
}

#[test]
fn a_record_names_the_policy_with_its_revision() {
    let (real, lab) = (recorded(DENY_VERDICT).flow, denied().flow);
    let (real, lab) = (&real.egress_denied_by[0], &lab.egress_denied_by[0]);
    assert_eq!(lab.kind, real.kind);
    assert_eq!(lab.name, "block-metadata");
    assert_eq!(lab.revision, "2");
    let names = |labels: &[String]| -> Vec<String> {
        labels.iter().map(|label| label.split('=').next().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&lab.labels), names(&real.labels));
}

#[test]
fn times_have_nanoseconds_in_both_places() {
    let line = denied();
    assert_eq!(line.time, line.flow.time);
    assert_eq!(line.time.len(), "2026-11-23T23:08:00.107955136Z".len());
}

#[test]
fn an_allowance_by_peer_and_port_says_so() {
    // `facts/cilium/hubble-policy-verdict.jsonl`.
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    cluster.send("web", syn(at(WEB, 4000), at(LEDGER, 8080)));
    let flow = &cluster.flows[0].flow;
    assert_eq!(flow.policy_match_type, Some(2));
    assert_eq!(flow.is_reply, Some(false));
}

#[test]
fn endpoints_have_numbers_on_their_own_node_alone() {
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    cluster.send("cart", syn(at(CART, 4000), at(LEDGER, 8080)));
    let flow = &cluster.flows[0].flow;
    assert_eq!(flow.source.as_ref().unwrap().id, None);
    assert!(flow.destination.as_ref().unwrap().id.is_some());
    assert_eq!(flow.source.as_ref().unwrap().pod_name, "cart");
}

#[test]
fn another_node_is_on_record_by_its_reserved_name() {
    let mut cluster = Cluster::new();
    cluster.apply(LEDGER_FROM_WEB);
    cluster.send("node-b", syn(at(NODE_B, 4000), at(LEDGER, 8080)));
    let source = cluster.flows[0].flow.source.clone().unwrap();
    assert_eq!(
        (source.identity, source.labels),
        (Some(6), vec!["reserved:remote-node".to_owned()])
    );
}

#[test]
fn records_are_evidence_of_what_was_done() {
    let mut cluster = Cluster::new();
    cluster.apply(BLOCK_METADATA);
    cluster.apply(WEB_DNS);
    cluster.send("web", syn(at(WEB, 4000), at(METADATA, 80)));
    cluster.send("web", syn(at(WEB, 4000), at(LEDGER, 80)));
    cluster.send("web", udp(at(WEB, 4000), at(DNS_VIP, 53)));
    let deeds: Vec<Did> = cluster
        .flows
        .drain(..)
        .map(|line| Evidence::from_hubble(&Arc::new(line)).unwrap().did)
        .collect();
    let direction = Direction::Egress;
    assert_eq!(
        deeds,
        [
            Did::DenyByRule { direction },
            Did::DenyByRule { direction },
            Did::DenyByDefault { direction },
            Did::DenyByDefault { direction },
            Did::Allow { direction },
        ]
    );
}

#[test]
fn a_refused_name_is_evidence_of_the_proxy() {
    // `facts/cilium/hubble-dns-refused.jsonl`.
    let mut cluster = Cluster::new();
    cluster.apply(WEB_DNS);
    let client = at(WEB, 4000);
    cluster.send("web", udp(client, at(DNS_VIP, 53)));
    let redirect = cluster.datapath.redirected(Protocol::Udp, client, cluster.now).unwrap();
    let qtypes = ["A".to_owned()];
    let verdict = cluster.datapath.judge_query(&redirect, "evil.example", &qtypes, cluster.now);
    let line = Arc::new(verdict.flow.unwrap());
    assert_eq!(line.flow.summary, "DNS Query evil.example. A");
    assert_eq!(line.flow.drop_reason, None);
    let evidence = Evidence::from_hubble(&line).unwrap();
    assert_eq!(evidence.point, EnforcementPoint::DnsProxy);
    assert_eq!(evidence.did, Did::RefuseName { name: "evil.example.".to_owned() });
    assert_eq!(evidence.flow.source, client);
}
