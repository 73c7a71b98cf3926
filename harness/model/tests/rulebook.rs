//! Which rules decided, by what real clusters have on record (`tests/facts/`).
//!
//! The policies have the names that the records have, and rules that fit them.

use std::sync::Arc;

use ztc_model::evidence::{Did, Evidence};
use ztc_model::hubble;
use ztc_model::manifest::{ObjectRef, manifests};
use ztc_model::outcome::{EnforcementPoint, Expected};
use ztc_model::ruling::{Part, Rulebook, Ruling};
use ztc_model::suite::{Case, CaseId, Cell, Origin, Relabelled, Versions, world};
use ztc_model::world::World;
use ztc_model::yaml::Source;
use ztc_model::{waypoint, ztunnel};

const POLICY_VERDICT: &str = include_str!("facts/hubble-policy-verdict.jsonl");
const IMDS_DENY: &str = include_str!("facts/hubble-imds-deny.jsonl");
const DNS_REFUSED: &str = include_str!("facts/hubble-dns-refused.jsonl");
const ZTUNNEL: &str = include_str!("facts/ztunnel.jsonl");
const WAYPOINT: &str = include_str!("facts/waypoint.jsonl");

const WORLD: &str = "
world: bench
about: As the clusters were that the records are from.
namespaces:
  - { name: tenant-a }
  - { name: tenant-b }
  - { name: app, labels: { istio.io/dataplane-mode: ambient } }
pods:
  - { namespace: tenant-a, name: client, node: a, labels: { app: client } }
  - { namespace: tenant-b, name: server, node: b, labels: { app: server } }
  - { namespace: app, name: cli, node: a, labels: { app: cli }, serviceAccount: cli }
  - { namespace: app, name: srv, node: b, labels: { app: srv }, serviceAccount: srv, serves: [{ speaks: http, port: 8080 }] }
services:
  - { namespace: app, name: srv, selector: { app: srv }, ports: [{ port: 8080 }] }
";

const CILIUM: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: { name: deny-imds }
spec:
  endpointSelector: {}
  enableDefaultDeny: { ingress: false, egress: false }
  egressDeny:
    - toCIDR: [10.0.0.0/8]
    - toCIDR: [169.254.169.254/32]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: allow-client, namespace: tenant-b }
spec:
  endpointSelector: { matchLabels: { app: server } }
  ingress:
    - fromEntities: [host]
    - fromEndpoints:
        - matchLabels: { app: client, "k8s:io.kubernetes.pod.namespace": tenant-a }
      toPorts: [{ ports: [{ port: "8080", protocol: TCP }] }]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: names, namespace: tenant-a }
spec:
  endpointSelector: { matchLabels: { app: client } }
  egress:
    - toEndpoints: [{ matchLabels: { k8s-app: kube-dns, "k8s:io.kubernetes.pod.namespace": kube-system } }]
      toPorts:
        - ports: [{ port: "53", protocol: ANY }]
          rules: { dns: [{ matchName: api.zt.test }] }
"#;

const MESH: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: deny-ip, namespace: app }
spec:
  selector: { matchLabels: { app: srv } }
  action: DENY
  rules:
    - from: [{ source: { ipBlocks: [192.0.2.0/24] } }]
    - from: [{ source: { ipBlocks: [10.244.0.0/16] } }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: wp-deny, namespace: app }
spec:
  targetRefs: [{ kind: Service, group: core, name: srv }]
  action: DENY
  rules:
    - to: [{ operation: { paths: [/admin/*] } }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: wp-allow, namespace: app }
spec:
  targetRefs: [{ kind: Service, group: core, name: srv }]
  rules:
    - to: [{ operation: { methods: [PUT] } }]
    - to: [{ operation: { methods: [GET] } }]
";

fn bench() -> World {
    world(&Source::new("bench.yaml", WORLD)).unwrap_or_else(|it| panic!("{it}"))
}

fn case(policies: &str) -> Case {
    let apply = manifests(&Source::new("policies.yaml", policies));
    Case {
        id: CaseId::new("facts", "recorded"),
        because: String::new(),
        gap: None,
        world: "bench".to_owned(),
        versions: Versions::default(),
        apply: apply.unwrap_or_else(|it| panic!("{it}")),
        remove: Vec::new(),
        relabel: Vec::new(),
        restart: Vec::new(),
        create: Vec::new(),
        cells: Vec::new(),
        conditions: Vec::new(),
        file: String::new(),
        line: 1,
    }
}

fn cell(from: &str) -> Cell {
    Cell {
        from: Origin::Pod(from.parse().expect("it is a pod")),
        send: "tcp tenant-b/server:8080".parse().expect("it can be sent"),
        after: None,
        expected: Expected::Allowed { via: None, wire: None },
        peers: std::iter::empty().collect(),
        twin: None,
        beside: None,
        line: 1,
    }
}

fn told(rulings: &[Ruling]) -> Vec<String> {
    let tell = |ruling: &Ruling| {
        let places = |places: &[_]| {
            let places: Vec<String> = places.iter().map(ToString::to_string).collect();
            places.join(", ")
        };
        let part = match &ruling.part {
            Part::Rules(rules) => places(rules),
            Part::Isolation { whom, at } => format!("{whom} by {}", places(at.as_slice())),
            Part::Names(lists) => format!("not in {}", places(lists)),
        };
        format!("{} {part}, by {}", ruling.policy.name, ruling.by)
    };
    rulings.iter().map(tell).collect()
}

/// What is told of each record of a flow, each once, in order.
fn of_packets(case: &Case, lines: &str) -> Vec<String> {
    let (world, cell) = (bench(), cell("tenant-a/client"));
    let rulebook = Rulebook::of(case, case, &world);
    let records = lines.lines().filter_map(|line| match hubble::read(line) {
        Ok(hubble::Record::Flow(line)) => Evidence::from_hubble(&Arc::from(line)),
        _ => None,
    });
    let mut told: Vec<String> =
        records.flat_map(|it| told(&rulebook.rulings(&cell, &it))).collect();
    told.sort();
    told.dedup();
    told
}

#[test]
fn a_policy_that_hubble_names_has_its_rule_from_the_model() {
    assert_eq!(
        of_packets(&case(CILIUM), IMDS_DENY),
        ["deny-imds spec.egressDeny[1], by the model"]
    );
    assert_eq!(
        of_packets(&case(CILIUM), POLICY_VERDICT),
        [
            "allow-client spec.ingress[1], by the model",
            "allow-client tenant-b/server by spec.endpointSelector, by the model"
        ]
    );
}

#[test]
fn a_name_that_is_refused_is_in_no_list() {
    assert_eq!(
        of_packets(&case(CILIUM), DNS_REFUSED),
        ["names not in spec.egress[0].toPorts[0].rules.dns, by the model"]
    );
    let let_pass = CILIUM.replace("api.zt.test", "evil.zt.test");
    assert_eq!(of_packets(&case(&let_pass), DNS_REFUSED), [""; 0], "the model does not agree");
}

#[test]
fn in_a_lane_policies_are_called_as_they_are_written() {
    let (here, world, cell) = (case(CILIUM), bench(), cell("tenant-a/client"));
    let written = case(&CILIUM.replace("tenant-b", "tenant"));
    let rulebook = Rulebook::of(&here, &written, &world);
    let Some(Ok(hubble::Record::Flow(line))) = POLICY_VERDICT.lines().nth(1).map(hubble::read)
    else {
        panic!("it is a flow");
    };
    let evidence = Evidence::from_hubble(&Arc::from(line)).expect("it says something");
    let rulings = rulebook.rulings(&cell, &evidence);
    assert_eq!(rulings.len(), 1);
    assert_eq!(rulings[0].policy.to_string(), "CiliumNetworkPolicy/tenant/allow-client");
}

/// Where somebody else's rule decided, where the model does not agree, and where a policy is gone, nobody knows.
#[test]
fn what_is_not_known_is_not_said() {
    let other = CILIUM.replace("name: deny-imds", "name: another");
    assert_eq!(of_packets(&case(&other), IMDS_DENY), [""; 0]);
    let other = CILIUM.replace("169.254.169.254/32", "169.254.0.0/32");
    assert_eq!(of_packets(&case(&other), IMDS_DENY), [""; 0]);
    let mut gone = case(CILIUM);
    gone.remove = gone.apply.iter().map(|it| it.reference.clone()).collect::<Vec<ObjectRef>>();
    assert_eq!(of_packets(&gone, POLICY_VERDICT), [""; 0]);
}

/// The records of ztunnel about which a ruling is asked for.
fn of_connections(case: &Case) -> Vec<String> {
    let (world, cell) = (bench(), cell("app/cli"));
    let rulebook = Rulebook::of(case, case, &world);
    let lines = ZTUNNEL.lines().filter_map(|line| ztunnel::read(line).ok().flatten());
    let records = lines.map(|line| Evidence::from_ztunnel(&Arc::new(line), "node"));
    let denied = records.filter(|it| matches!(it.did, Did::DenyByRule { .. }));
    denied.flat_map(|it| told(&rulebook.rulings(&cell, &it))).collect()
}

#[test]
fn a_policy_that_ztunnel_names_has_its_rule_from_the_model() {
    let rule = "deny-ip spec.rules[1], by the model";
    assert_eq!(of_connections(&case(MESH)), [rule, rule]);
    let mut relabelled = case(MESH);
    let pod = "app/srv".parse().expect("it is a pod");
    relabelled.relabel.push(Relabelled { pod, labels: [].into() });
    assert_eq!(of_connections(&relabelled), [""; 0], "nobody knows which labels it had");
}

#[test]
fn a_rule_that_a_waypoint_names_is_the_word_of_its_log() {
    let (world, cell, case) = (bench(), cell("app/cli"), case(MESH));
    let rulebook = Rulebook::of(&case, &case, &world);
    let lines = WAYPOINT.lines().filter_map(|line| waypoint::read(line).ok().flatten());
    let records = lines.map(|line| Evidence::from_waypoint(&Arc::new(line), "app/waypoint"));
    let of_requests: Vec<Evidence> =
        records.filter(|it| it.point == EnforcementPoint::Waypoint).collect();
    let told = |is_it: &dyn Fn(&Did) -> bool| {
        let records = of_requests.iter().filter(|it| is_it(&it.did));
        let mut told: Vec<String> =
            records.flat_map(|it| told(&rulebook.rulings(&cell, it))).collect();
        told.sort();
        told.dedup();
        told
    };
    assert_eq!(
        told(&|did| matches!(did, Did::DenyByRule { .. })),
        ["wp-deny spec.rules[0], by the log"]
    );
    assert_eq!(
        told(&|did| matches!(did, Did::DenyByDefault { .. })),
        ["wp-allow app/srv by spec.targetRefs, by the model"]
    );
    assert_eq!(
        told(&|did| matches!(did, Did::Allow { .. })),
        ["wp-allow spec.rules[1], by the model"]
    );
}
