//! Which rules of a policy decide about a packet.

#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use support::labels;
use ztc_model::evidence::Direction;
use ztc_model::identity::{Identity, Reserved, endpoint_labels};
use ztc_model::manifest::{Manifest, manifests};
use ztc_model::place::{Place, Step};
use ztc_model::policy::mesh::waypoint::{
    Asked, Claims, Named, NotEvaluated, Request, WaypointPolicies,
};
use ztc_model::policy::mesh::ztunnel::{Connection, Workload};
use ztc_model::policy::mesh::{AuthorizationPolicy, MeshPolicy};
use ztc_model::policy::{Decision, NamedPorts, Policy, Protocol};
use ztc_model::ruling::{Dissected, Packet, rules_for_connection, rules_for_request};
use ztc_model::yaml::Source;

fn manifest(text: &str) -> Manifest {
    let read = manifests(&Source::new("policy.yaml", text));
    read.unwrap_or_else(|diagnostic| panic!("{diagnostic}")).remove(0)
}

fn pod(namespace: &str, app: &str) -> Identity {
    Identity::Endpoint(endpoint_labels(namespace, &BTreeMap::new(), app, &labels([("app", app)])))
}

/// A packet to or from the pod `app=ledger` of `pay`.
fn packet(direction: Direction, peer: Identity, port: u16) -> Packet {
    Packet {
        direction,
        subject: pod("pay", "ledger").labels(),
        whom: "pay/ledger".to_owned(),
        peer,
        protocol: Protocol::Tcp,
        port,
        named: NamedPorts::from_iter([((Protocol::Tcp, "admin".to_owned()), 9000)]),
        name: None,
    }
}

fn range(text: &str) -> Identity {
    Identity::Cidr(text.parse().expect("it is a range"))
}

fn from(peer: Identity, port: u16) -> Packet {
    packet(Direction::Ingress, peer, port)
}

fn to(peer: Identity, port: u16) -> Packet {
    packet(Direction::Egress, peer, port)
}

fn written(places: &[Place]) -> Vec<String> {
    places.iter().map(ToString::to_string).collect()
}

fn allowing(text: &str, packet: &Packet) -> Vec<String> {
    written(&Dissected::of(&manifest(text)).allowing(packet))
}

fn denying(text: &str, packet: &Packet) -> Vec<String> {
    written(&Dissected::of(&manifest(text)).denying(packet))
}

const KUBERNETES: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: ledger, namespace: pay }
spec:
  podSelector: { matchLabels: { app: ledger } }
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: shop } } }]
      ports: [{ port: 8080 }]
    - from: [{ podSelector: {} }]
    - ports: [{ port: admin }, { port: 8080 }]
  egress:
    - to: [{ ipBlock: { cidr: 10.0.0.0/8, except: [10.1.0.0/16] } }]
";

#[test]
fn every_rule_of_kubernetes_that_matches_is_named() {
    let allowed = |peer, port| allowing(KUBERNETES, &from(peer, port));
    assert_eq!(allowed(pod("shop", "web"), 8080), ["spec.ingress[0]", "spec.ingress[2]"]);
    assert_eq!(allowed(pod("pay", "vault"), 443), ["spec.ingress[1]"]);
    assert_eq!(allowed(pod("shop", "web"), 9000), ["spec.ingress[2]"], "by the name of the port");
    assert_eq!(allowed(pod("shop", "web"), 443), [""; 0]);
}

#[test]
fn a_rule_is_one_of_its_direction() {
    let out = |text: &str| allowing(KUBERNETES, &to(range(text), 8080));
    assert_eq!(out("10.2.0.0/16"), ["spec.egress[0]"]);
    assert_eq!(out("10.1.0.0/16"), [""; 0], "it is left out");
}

#[test]
fn a_policy_about_others_has_no_rule_that_matches() {
    let elsewhere = KUBERNETES.replace("app: ledger", "app: vault");
    assert_eq!(allowing(&elsewhere, &from(pod("pay", "vault"), 8080)), [""; 0]);
}

const CILIUM: &str = r#"
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: { name: wide }
specs:
  - endpointSelector: { matchLabels: { app: vault } }
    ingress: [{ fromEntities: [all] }]
  - endpointSelector: { matchLabels: { "k8s:io.kubernetes.pod.namespace": pay } }
    enableDefaultDeny: { egress: false }
    egress:
      - toEntities: [cluster]
        toPorts:
          - ports: [{ port: "8080" }]
          - ports: [{ port: "9000", endPort: 9010 }, { port: "8080" }]
    egressDeny:
      - toCIDR: [10.0.0.0/8]
        toPorts: [{ ports: [{ port: "9000" }] }]
      - toCIDR: [169.254.169.254/32]
"#;

#[test]
fn rules_of_cilium_are_told_by_spec_element_and_entry_of_ports() {
    let allowed = |port| allowing(CILIUM, &to(pod("shop", "web"), port));
    let one = "specs[1].egress[0].toPorts[0]";
    let other = "specs[1].egress[0].toPorts[1]";
    assert_eq!(allowed(8080), [one, other]);
    assert_eq!(allowed(9005), [other]);
    assert_eq!(allowed(443), [""; 0]);
}

#[test]
fn deny_rules_are_told_apart_from_allow_rules() {
    let metadata = range("169.254.169.254/32");
    assert_eq!(denying(CILIUM, &to(metadata.clone(), 9000)), ["specs[1].egressDeny[1]"]);
    assert_eq!(allowing(CILIUM, &to(metadata, 9000)), [""; 0]);
    let inside = range("10.0.0.0/8");
    assert_eq!(denying(CILIUM, &to(inside.clone(), 9000)), ["specs[1].egressDeny[0]"]);
    assert_eq!(denying(CILIUM, &to(inside, 9001)), [""; 0]);
}

#[test]
fn of_rules_with_server_names_nothing_is_said() {
    let text = r#"
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: tls, namespace: pay }
spec:
  endpointSelector: {}
  egress:
    - toEntities: [world]
      toPorts: [{ ports: [{ port: "443" }], serverNames: [api.zt.test] }]
    - toEntities: [all]
      toPorts: [{ ports: [{ port: "443" }] }]
"#;
    let packet = to(Identity::Reserved(Reserved::World), 443);
    assert_eq!(allowing(text, &packet), ["spec.egress[1]"]);
}

/// As records have them (`tests/facts/`), be they of a name that was learnt or of a range.
#[test]
fn who_has_some_labels_is_known_again() {
    let known = [
        pod("pay", "ledger"),
        Identity::Reserved(Reserved::World),
        Identity::Reserved(Reserved::WorldIpv6),
        Identity::Reserved(Reserved::Host),
        Identity::Reserved(Reserved::KubeApiserver),
        range("169.254.169.254/32"),
        range("2001:db8::/32"),
        range("::1/128"),
    ];
    for identity in known {
        assert_eq!(Identity::of_labels(&identity.labels()), Some(identity));
    }
    let both = ["reserved:host", "reserved:kube-apiserver"].into_iter().collect();
    assert_eq!(Identity::of_labels(&both), None, "there is no word for both");
    assert_eq!(Identity::of_labels(&std::iter::empty().collect()), None);
}

const AUTHORIZATION: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: ledger, namespace: bank }
spec:
  selector: { matchLabels: { app: ledger } }
  rules:
    - from: [{ source: { principals: [cluster.local/ns/bank/sa/teller] } }]
    - to: [{ operation: { methods: [GET] } }]
    - from: [{ source: { namespaces: [bank] } }]
      to: [{ operation: { ports: ["9000"] } }]
"#;

fn authorization(text: &str) -> AuthorizationPolicy {
    match manifest(text).policy {
        Policy::Mesh(MeshPolicy::Authorization(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

fn at_ztunnel(policy: &AuthorizationPolicy, account: &str, port: u16) -> Vec<String> {
    let labels = labels([("app", "ledger")]);
    let workload = Workload { namespace: "bank", labels: &labels };
    let connection = Connection {
        peer: format!("spiffe://cluster.local/ns/bank/sa/{account}").parse().ok(),
        source: [10, 0, 1, 5].into(),
        destination: ([10, 0, 2, 7], port).into(),
    };
    written(&rules_for_connection(policy, &workload, &connection))
}

/// An ALLOW rule about HTTP is left out at ztunnel, and keeps its number.
#[test]
fn rules_at_ztunnel_keep_the_numbers_that_they_are_written_with() {
    let policy = authorization(AUTHORIZATION);
    assert_eq!(at_ztunnel(&policy, "teller", 8080), ["spec.rules[0]"]);
    assert_eq!(at_ztunnel(&policy, "teller", 9000), ["spec.rules[0]", "spec.rules[2]"]);
    assert_eq!(at_ztunnel(&policy, "clerk", 8080), [""; 0]);
    let elsewhere = authorization(&AUTHORIZATION.replace("app: ledger", "app: vault"));
    assert_eq!(at_ztunnel(&elsewhere, "teller", 9000), [""; 0], "it is about somebody else");
    let deny = authorization(&AUTHORIZATION.replace("  rules:", "  action: DENY\n  rules:"));
    assert_eq!(at_ztunnel(&deny, "clerk", 9000), ["spec.rules[2]"]);
}

fn at_waypoint(policy: &AuthorizationPolicy, method: &str) -> Result<Vec<String>, NotEvaluated> {
    let headers = BTreeMap::new();
    let token = WaypointPolicies::default().token(&headers, |_, _| Ok(Claims::new()));
    let asked = Asked {
        peer: "spiffe://cluster.local/ns/bank/sa/clerk".parse().ok(),
        source: [10, 0, 1, 5].into(),
        destination: ([10, 96, 0, 7], 80).into(),
        request: Some(Request {
            method: method.to_owned(),
            path: "/gold?all".to_owned(),
            host: "ledger.bank".to_owned(),
            headers,
            token,
        }),
    };
    let named = |name| Named { namespace: "bank", name };
    let rules = rules_for_request(policy, (named("waypoint"), Some(named("ledger"))), &asked);
    rules.map(|it| written(&it))
}

#[test]
fn rules_at_a_waypoint_are_asked_about_the_request() {
    let bound = "targetRefs: [{ kind: Service, group: core, name: ledger }]";
    let text = AUTHORIZATION.replace("selector: { matchLabels: { app: ledger } }", bound);
    assert_eq!(at_waypoint(&authorization(&text), "GET").unwrap(), ["spec.rules[1]"]);
    assert_eq!(at_waypoint(&authorization(&text), "POST").unwrap(), [""; 0]);
    let elsewhere = text.replace("name: ledger }]", "name: vault }]");
    assert_eq!(at_waypoint(&authorization(&elsewhere), "GET").unwrap(), [""; 0]);
    let deny = text.replace("  rules:", "  action: DENY\n  rules:");
    assert_eq!(at_waypoint(&authorization(&deny), "GET").unwrap(), ["spec.rules[1]"]);
    let unknown = text.replace("namespaces: [bank]", "remoteIpBlocks: [10.0.0.0/8]");
    assert!(at_waypoint(&authorization(&unknown), "GET").is_err(), "not all of it is evaluated");
}

fn peers(to: &'static str) -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        select(vec!["web", "vault", "ledger"]).prop_map(move |app| {
            let key = format!("{to}Endpoints");
            json!({ key: [{ "matchLabels": { "app": app } }] })
        }),
        select(vec!["world", "cluster", "all", "none"])
            .prop_map(move |entity| json!({ format!("{to}Entities"): [entity] })),
        Just(json!({ format!("{to}CIDR"): ["10.0.0.0/8"] })),
    ]
}

fn ports() -> impl Strategy<Value = Value> {
    let port = select(vec!["0", "80", "81", "admin"]);
    let list = vec(port, 1..3).prop_map(
        |list| json!({ "ports": list.iter().map(|it| json!({ "port": it })).collect::<Vec<_>>() }),
    );
    vec(list, 0..3).prop_map(Value::Array)
}

fn rule(to: &'static str) -> impl Strategy<Value = Value> {
    (peers(to), ports()).prop_map(|(mut rule, ports)| {
        if ports.as_array().is_some_and(|it| !it.is_empty()) {
            rule["toPorts"] = ports;
        }
        rule
    })
}

fn cilium() -> impl Strategy<Value = Value> {
    let rules = |to| vec(rule(to), 0..3);
    let default_deny = proptest::option::of(any::<bool>());
    (rules("from"), rules("from"), rules("to"), rules("to"), default_deny).prop_map(
        |(ingress, ingress_deny, egress, egress_deny, default_deny)| {
            json!({
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": { "name": "one", "namespace": "pay" },
                "spec": {
                    "endpointSelector": {},
                    "enableDefaultDeny": { "ingress": default_deny, "egress": default_deny },
                    "ingress": ingress, "ingressDeny": ingress_deny,
                    "egress": egress, "egressDeny": egress_deny,
                }
            })
        },
    )
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let peer = prop_oneof![
        (select(vec!["pay", "shop"]), select(vec!["web", "vault"]))
            .prop_map(|(namespace, app)| pod(namespace, app)),
        Just(Identity::Reserved(Reserved::World)),
        Just(range("10.0.0.0/8")),
    ];
    let direction = select(vec![Direction::Ingress, Direction::Egress]);
    (direction, peer, select(vec![80, 81, 443, 9000]))
        .prop_map(|(direction, peer, port)| packet(direction, peer, port))
}

/// The object without what is at these places, the last first so that the others keep their numbers.
fn without(object: &Value, places: &[Place]) -> Value {
    let mut object = object.clone();
    let mut places = places.to_vec();
    places.sort();
    for place in places.iter().rev() {
        let (last, way) = place.steps().split_last().expect("a rule is somewhere");
        let at = way.iter().fold(&mut object, |at, step| match step {
            Step::Field(name) => &mut at[name],
            Step::Entry(index) => &mut at[index],
        });
        if let (Step::Entry(index), Some(list)) = (last, at.as_array_mut()) {
            list.remove(*index);
            // A rule whose last port goes is about all of them.
            if list.is_empty() && way.last() == Some(&Step::Field("toPorts".to_owned())) {
                let rule: Place = way[..way.len() - 1].iter().cloned().collect();
                object = without(&object, &[rule]);
            }
        }
    }
    object
}

/// What one policy decides; nothing where it enforces nothing.
fn decided(object: &Value, packet: &Packet) -> Option<Decision> {
    let read = manifests(&Source::new("policy.yaml", object.to_string()));
    packet.decided_alone_by(&read.ok()?.remove(0).policy)
}

proptest! {
    /// It is denied by the rules that are said to deny it, and by no other.
    #[test]
    fn without_the_deny_rules_that_are_named_it_is_not_denied(object in cilium(), packet in any_packet()) {
        let Ok(manifests) = manifests(&Source::new("policy.yaml", object.to_string())) else {
            return Ok(());
        };
        let denying = Dissected::of(&manifests[0]).denying(&packet);
        let denied = |object: &Value| matches!(decided(object, &packet), Some(Decision::Denied { .. }));
        prop_assert_eq!(denied(&object), !denying.is_empty());
        prop_assert!(!denied(&without(&object, &denying)), "{:?}", denying);
        if let [_, rest @ ..] = denying.as_slice() {
            prop_assert!(denied(&without(&object, rest)), "one of {:?} is enough", denying);
        }
    }

    /// It is allowed by the rules that are said to allow it, and by no other. Where another rule keeps the endpoint isolated
    /// it is then stopped.
    #[test]
    fn without_the_allow_rules_that_are_named_nothing_allows_it(object in cilium(), packet in any_packet()) {
        let Ok(manifests) = manifests(&Source::new("policy.yaml", object.to_string())) else {
            return Ok(());
        };
        let dissected = Dissected::of(&manifests[0]);
        prop_assume!(dissected.denying(&packet).is_empty());
        let allowing = dissected.allowing(&packet);
        let by_rule = |decision: &Option<Decision>| {
            matches!(decision, Some(Decision::Allowed { by }) if !by.is_empty())
        };
        prop_assert_eq!(by_rule(&decided(&object, &packet)), !allowing.is_empty());
        let less = without(&object, &allowing);
        let after = decided(&less, &packet);
        prop_assert!(!by_rule(&after), "{:?}", allowing);
        let list = match packet.direction { Direction::Ingress => "ingress", Direction::Egress => "egress" };
        let remains = |list: &str| less["spec"][list].as_array().is_some_and(|it| !it.is_empty());
        let isolates = less["spec"]["enableDefaultDeny"][list] != json!(false)
            && (remains(list) || remains(&format!("{list}Deny")));
        if isolates {
            prop_assert_eq!(after, Some(Decision::NotAllowed));
        }
    }
}
