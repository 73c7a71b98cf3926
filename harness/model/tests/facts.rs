//! The model against records of a real cluster: Cilium 1.20.2 on Kubernetes 1.36.3.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use ztc_model::evidence::Evidence;
use ztc_model::hubble::{self, Flow, FlowKind, FlowVerdict, Line, NamedPolicy, Record};
use ztc_model::identity::{Identity, Reserved, endpoint_labels};
use ztc_model::labels::{CIDR, Labels};
use ztc_model::policy::Protocol;
use ztc_model::{waypoint, ztunnel};

const DROPPED: &str = include_str!("facts/hubble-dropped.jsonl");
const FORWARDED: &str = include_str!("facts/hubble-forwarded.jsonl");
const POLICY_VERDICT: &str = include_str!("facts/hubble-policy-verdict.jsonl");
const IMDS_DENY: &str = include_str!("facts/hubble-imds-deny.jsonl");
const DNS: &str = include_str!("facts/hubble-dns.jsonl");
const DNS_REFUSED: &str = include_str!("facts/hubble-dns-refused.jsonl");
const ZTUNNEL: &str = include_str!("facts/ztunnel.jsonl");
const WAYPOINT: &str = include_str!("facts/waypoint.jsonl");
const IDENTITIES: &str = include_str!("facts/ciliumidentities.json");

fn lines(file: &str) -> Vec<Line> {
    let read = |line| match hubble::read(line) {
        Ok(Record::Flow(line)) => *line,
        other => panic!("{line}: {other:?}"),
    };
    file.lines().map(read).collect()
}

fn flows(file: &str) -> Vec<Flow> {
    lines(file).into_iter().map(|line| line.flow).collect()
}

/// Asserts that everything in the one is in the other.
fn assert_within(written: &Value, recorded: &Value, path: &str) {
    match (written, recorded) {
        (Value::Object(written), Value::Object(recorded)) => {
            for (key, value) in written {
                let path = format!("{path}.{key}");
                let found = recorded.get(key);
                assert_within(value, found.unwrap_or_else(|| panic!("{path} is invented")), &path);
            }
        }
        _ => assert_eq!(written, recorded, "{path}"),
    }
}

#[test]
fn every_recorded_line_is_written_back_under_the_same_names() {
    let mut count = 0;
    for file in [DROPPED, FORWARDED, POLICY_VERDICT, IMDS_DENY, DNS, DNS_REFUSED] {
        for (text, line) in file.lines().zip(lines(file)) {
            let written = serde_json::to_value(&line).unwrap();
            assert_within(&written, &serde_json::from_str(text).unwrap(), "");
            assert_eq!(serde_json::from_value::<Line>(written).unwrap(), line);
            count += 1;
        }
    }
    assert_eq!(count, 53);
}

#[test]
fn a_default_deny_drop_names_no_policy() {
    for flow in flows(DROPPED) {
        assert_eq!(flow.verdict, FlowVerdict::Dropped);
        assert_eq!(flow.drop_reason, Some(hubble::POLICY_DENIED));
        assert_eq!(flow.drop_reason_desc.as_deref(), Some("POLICY_DENIED"));
        assert_eq!(flow.denied_by().count() + flow.allowed_by().count(), 0);
    }
}

#[test]
fn a_deny_rule_is_named_by_the_policy_verdict_and_not_by_the_drop() {
    let [verdict, drop] = flows(IMDS_DENY).try_into().unwrap();
    assert_eq!(verdict.event_type.unwrap().kind, hubble::EVENT_POLICY_VERDICT);
    assert_eq!(verdict.drop_reason, Some(hubble::POLICY_DENY));
    let named: Vec<_> = verdict.denied_by().filter_map(NamedPolicy::reference).collect();
    assert_eq!(named, ["CiliumClusterwideNetworkPolicy/deny-imds".parse().unwrap()]);
    assert_eq!(drop.event_type.unwrap().kind, hubble::EVENT_DROP);
    assert_eq!(drop.event_type.unwrap().sub_type, Some(hubble::POLICY_DENY));
    assert_eq!(drop.denied_by().count(), 0);
    let l4 = drop.l4.unwrap();
    assert_eq!(l4.ports(), Some((Protocol::Tcp, 57780, 80)));
    assert!(l4.tcp.unwrap().flags.unwrap().syn);
}

#[test]
fn an_allowance_is_named_as_the_model_names_it() {
    let flow = flows(POLICY_VERDICT).into_iter().find(|it| it.allowed_by().count() > 0).unwrap();
    let recorded = flow.allowed_by().next().unwrap();
    let policy = "CiliumNetworkPolicy/tenant-b/allow-client".parse().unwrap();
    assert_eq!(recorded.reference(), Some(policy));
    let mut written = NamedPolicy::new(&recorded.reference().unwrap(), 6);
    written.labels.extend(recorded.labels.iter().filter(|it| it.contains(".uid=")).cloned());
    assert_eq!(written, *recorded);
}

#[test]
fn a_refused_name_is_a_dropped_message_without_a_reason() {
    let mut names = Vec::new();
    for flow in flows(DNS_REFUSED).into_iter().filter(|it| it.verdict == FlowVerdict::Dropped) {
        assert_eq!((flow.kind, flow.drop_reason), (FlowKind::L7, None));
        assert_eq!(flow.event_type.unwrap().kind, hubble::EVENT_L7);
        names.push(flow.l7.unwrap().dns.unwrap().query);
    }
    assert!(names.contains(&"evil.zt.test.".to_owned()));
}

#[test]
fn fields_of_newer_versions_are_skipped() {
    let line = r#"{"flow":{"verdict":"PONDERED","Type":"L9","novelty":{"a":[1]},
        "l4":{"SCTP":{"source_port":1}},"traffic_direction":"SIDEWAYS","l7":{"type":"HINT"}},
        "node_name":"n","time":"t","novelty":1}"#;
    let Ok(Record::Flow(line)) = hubble::read(line) else { panic!("it is a flow") };
    assert_eq!(line.flow.verdict, FlowVerdict::VerdictUnknown);
    assert_eq!(line.flow.kind, FlowKind::Unknown);
    assert_eq!(line.flow.l4.unwrap().ports(), None);
}

#[test]
fn lost_records_are_told_apart_from_flows() {
    let lost = r#"{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"7"}}"#;
    assert_eq!(hubble::read(lost).unwrap(), Record::Lost(7));
    let node = r#"{"node_status":{"state_change":"NODE_CONNECTED"},"node_name":"n"}"#;
    assert_eq!(hubble::read(node).unwrap(), Record::Other);
    assert!(hubble::read("level=warn msg=\"no json\"").is_err());
}

#[derive(Deserialize)]
struct Identities {
    items: Vec<CiliumIdentity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct CiliumIdentity {
    security_labels: BTreeMap<String, String>,
}

/// The labels of recorded identities, without those that Cilium generates from named ports.
fn recorded_identities() -> Vec<Labels> {
    let list: Identities = serde_json::from_str(IDENTITIES).expect("the record is JSON");
    let labels = |identity: &CiliumIdentity| {
        let texts = identity.security_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let texts: Vec<_> = texts.filter(|it| !it.starts_with("gen:")).collect();
        texts.iter().map(String::as_str).collect()
    };
    list.items.iter().map(labels).collect()
}

#[test]
fn endpoint_labels_are_those_of_recorded_identities() {
    let client = endpoint_labels(
        "tenant-a",
        &BTreeMap::from([("zt".to_owned(), "bench".to_owned())]),
        "default",
        &BTreeMap::from([("app".to_owned(), "client".to_owned())]),
    );
    assert!(recorded_identities().contains(&client), "{client:?}");
}

#[test]
fn an_address_outside_has_the_recorded_labels() {
    let recorded = flows(IMDS_DENY)[0].destination.clone().unwrap().labels;
    let identity = Identity::Cidr("169.254.169.254/32".parse().unwrap());
    assert_eq!(identity.labels().to_strings(), recorded);
}

/// `pkg/labels/cidr.go`: no colons, no dash at either end, and nothing but the world for /0.
#[test]
fn labels_of_ranges_are_legal_keys() {
    let key = |range: &str| {
        let labels = Identity::Cidr(range.parse().unwrap()).labels();
        labels.iter().find(|it| it.source == CIDR).map(|it| it.key.to_owned())
    };
    assert_eq!(key("::1/128").as_deref(), Some("0--1/128"));
    assert_eq!(key("2001:db8::/32").as_deref(), Some("2001-db8--0/32"));
    assert_eq!(key("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
    assert_eq!(key("0.0.0.0/0"), None);
}

/// `pkg/identity/numericidentity.go`.
#[test]
fn reserved_identities_are_numbered_from_one() {
    let numbers: Vec<_> = Reserved::ALL.into_iter().map(Reserved::number).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
}

/// `decodeICMPv4` in `pkg/hubble/parser/threefour`: a type and a code, and no identifier. A zero is
/// left out in this form of JSON, so that an echo reply of ICMP has an empty object.
#[test]
fn an_echo_request_opens_a_flow_without_ports_and_its_reply_opens_none() {
    let ports = |l4| serde_json::from_value::<hubble::L4>(l4).unwrap().ports();
    for (l4, expected) in [
        (serde_json::json!({ "ICMPv4": { "type": 8 } }), Some((Protocol::Icmp, 0, 0))),
        (serde_json::json!({ "ICMPv6": { "type": 128 } }), Some((Protocol::Icmpv6, 0, 0))),
        (serde_json::json!({ "ICMPv4": {} }), None),
        (serde_json::json!({ "ICMPv6": { "type": 129 } }), None),
        (serde_json::json!({ "ICMPv4": { "type": 3, "code": 13 } }), None),
    ] {
        assert_eq!(ports(l4.clone()), expected, "{l4}");
        let written = serde_json::from_value::<hubble::L4>(l4.clone()).unwrap();
        assert_eq!(serde_json::to_value(written).unwrap(), l4);
    }
}

#[test]
fn what_ztunnel_did_is_read_from_its_access_log() {
    let told: Vec<String> = ZTUNNEL
        .lines()
        .filter_map(|line| ztunnel::read(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .map(|line| {
            let evidence = Evidence::from_ztunnel(&Arc::new(line), "worker");
            let ztc_model::evidence::FlowKey { source, destination, .. } = evidence.flow;
            let policies: Vec<String> = evidence.policies.iter().map(ToString::to_string).collect();
            let tunnel = if evidence.is_of_a_tunnel() { ", a tunnel" } else { "" };
            format!("{source} to {destination}{tunnel}: {} {}", evidence.did, policies.join(", "))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_line_of_the_access_log_is_kept_as_it_was_written() {
    for text in ZTUNNEL.lines() {
        if let Some(line) = ztunnel::read(text).unwrap() {
            let recorded: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(&line).unwrap(), recorded, "{text}");
        }
    }
}

#[test]
fn a_log_that_is_not_json_is_an_error() {
    assert!(ztunnel::read("2026-11-24T00:00:00Z\tinfo\taccess\tconnection complete").is_err());
}

#[test]
fn what_a_waypoint_did_is_read_from_its_access_log() {
    let told: Vec<String> = WAYPOINT
        .lines()
        .filter_map(|line| waypoint::read(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .map(|line| {
            let evidence = Evidence::from_waypoint(&Arc::new(line), "app/waypoint");
            let ztc_model::evidence::FlowKey { source, destination, .. } = evidence.flow;
            let policies: Vec<String> = evidence.policies.iter().map(ToString::to_string).collect();
            format!("{source} to {destination}: {} {}", evidence.did, policies.join(", "))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn what_else_a_waypoint_writes_is_passed_over() {
    let line = "2026-11-25T00:03:00.385323Z\tinfo\tEnvoy proxy is ready";
    assert_eq!(waypoint::read(line).unwrap(), None);
    assert!(waypoint::read(r#"{"response_code":200}"#).is_err());
}
