//! What lanes rename, what they refuse, and that a policy means the same in each of them.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use ztc_model::dns::DnsRule;
use ztc_model::identity::{Identity, endpoint_labels};
use ztc_model::lane::{Renaming, Unsound, keeps_to_its_lane};
use ztc_model::manifest::{Manifest, manifests};
use ztc_model::policy::{NamedPorts, Protocol, endpoint_policy};
use ztc_model::stimulus::Send;
use ztc_model::suite::{Case, Library, load, world};
use ztc_model::world::World;
use ztc_model::yaml::Source;

const WORLD: &str = "
world: shop
about: Two teams, and a pod in a namespace that every cluster has.
namespaces: [{ name: zt-shop, labels: { team: shop } }, { name: zt-pay }, { name: kube-system }]
pods:
  - { namespace: zt-shop, name: web, node: a, labels: { app: web } }
  - { namespace: zt-shop, name: late, node: a, born: in-a-case }
  - { namespace: kube-system, name: watch, node: a, labels: { app: watch } }
  - namespace: zt-pay
    name: ledger
    node: b
    labels: { app: ledger }
    serves: [{ speaks: http, port: 8080 }, { speaks: tcp, port: 9000 }]
services:
  - { namespace: zt-pay, name: ledger, selector: { app: ledger }, ports: [{ port: 80, targetPort: 8080 }] }
outside: [{ name: api, dns: [api.zt.test], serves: [{ speaks: tcp, port: 9000 }] }]
";

fn shop() -> World {
    world(&Source::new("shop.yaml", WORLD)).unwrap_or_else(|error| panic!("{error}"))
}

fn lane(number: usize) -> Renaming {
    Renaming::of(&shop(), number).expect("the world can be copied")
}

fn manifest(object: &Value) -> Manifest {
    let read = manifests(&Source::new("policy.yaml", object.to_string()));
    read.unwrap_or_else(|error| panic!("{error}")).remove(0)
}

/// A policy for the ledger with this spec.
fn cilium(spec: &Value) -> Manifest {
    let mut object = json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": { "name": "one", "namespace": "zt-pay" },
        "spec": { "endpointSelector": {} },
    });
    for (key, value) in spec.as_object().expect("a spec is an object") {
        object["spec"][key] = value.clone();
    }
    manifest(&object)
}

fn network(spec: &Value) -> Manifest {
    manifest(&json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": "one", "namespace": "zt-pay" },
        "spec": spec,
    }))
}

fn case(policy: &str, expect: &str) -> Case {
    let files = [("policy.yaml".to_owned(), Source::new("policy.yaml", policy))];
    let library = Library {
        worlds: BTreeMap::from([("shop".to_owned(), shop())]),
        manifests: files.into_iter().collect(),
    };
    let text = format!(
        "suite: s\nabout: A.\nworld: shop\nneeds: [cilium, dns-proxy]\ncases:\n\
         - name: one\n  because: It is so.\n  apply: [policy.yaml]\n  expect: [{expect}]\n"
    );
    let suite = load(&Source::new("suite.yaml", text), &library);
    suite.unwrap_or_else(|error| panic!("{error}")).cases.remove(0)
}

const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: deny, namespace: zt-pay, annotations: { note: everything in zt-pay } }
spec: { podSelector: {}, policyTypes: [Ingress] }
";

#[test]
fn a_world_is_copied_with_its_own_namespaces_and_shares_what_is_outside() {
    let copy = lane(2).world(&shop());
    let pods: Vec<String> = copy.pods.iter().map(|pod| pod.reference().to_string()).collect();
    let expected = [
        "zt-shop-lane2/web",
        "zt-shop-lane2/late",
        "kube-system/watch-lane2",
        "zt-pay-lane2/ledger",
    ];
    assert_eq!(pods, expected);
    assert_eq!(copy.world, "shop-lane2");
    assert_eq!(copy.services[0].namespace, "zt-pay-lane2");
    assert_eq!(copy.outside, shop().outside);
    assert_eq!(copy.namespaces[0].labels, shop().namespaces[0].labels);
}

#[test]
fn a_case_asks_the_same_of_the_copy() {
    let expect = "{ from: zt-shop/web, send: 'GET http://ledger.zt-pay/zt-pay', is: denied, by: cilium }, \
                  { from: zt-shop/web, send: 'dns A ledger.zt-pay.svc.cluster.local', is: allowed }";
    let renamed = lane(1).case(&case(DENY, expect)).unwrap();
    let said: Vec<String> =
        renamed.cells.iter().map(|it| format!("{} {}", it.from, it.send)).collect();
    let expected = [
        "zt-shop-lane1/web GET http://ledger.zt-pay-lane1:80/zt-pay",
        "zt-shop-lane1/web dns A ledger.zt-pay-lane1.svc.cluster.local",
    ];
    assert_eq!(said, expected);
    assert_eq!(renamed.cells[0].peers, ["zt-pay-lane1/ledger".to_owned()].into());
    assert_eq!(renamed.world, "shop-lane1");
    let policy = &renamed.apply[0];
    assert_eq!(policy.reference.to_string(), "NetworkPolicy/zt-pay-lane1/deny");
    assert_eq!(policy.object["metadata"]["annotations"]["note"], "everything in zt-pay");
    assert!(format!("{:?}", renamed.cells[0].expected).contains("zt-pay-lane1"));
}

#[test]
fn the_server_names_of_a_policy_are_those_of_the_copy() {
    let text = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: tls, namespace: zt-shop }
spec:
  endpointSelector: {}
  egress:
    - toPorts:
        - ports: [{ port: \"443\" }]
          serverNames: [ledger.zt-pay.svc, api.zt.test]
";
    let read = manifests(&Source::new("tls.yaml", text)).unwrap();
    let renamed = lane(1).manifest(&read[0]).unwrap();
    let names = &renamed.object["spec"]["egress"][0]["toPorts"][0]["serverNames"];
    assert_eq!(names, &serde_json::json!(["ledger.zt-pay-lane1.svc", "api.zt.test"]));
    assert!(renamed.policy.reads_handshakes());
}

#[test]
fn a_stimulus_over_tls_asks_for_the_name_of_the_copy() {
    for (text, renamed) in [
        ("GET https://ledger.zt-pay:8443/", "GET https://ledger.zt-pay-lane1:8443/"),
        ("tls ledger.zt-pay.svc:9443", "tls ledger.zt-pay-lane1.svc:9443"),
        ("tls api.zt.test:9443", "tls api.zt.test:9443"),
    ] {
        let send: Send = text.parse().unwrap();
        assert_eq!(lane(1).send(&send).to_string(), renamed);
    }
}

#[test]
fn outside_hosts_and_addresses_are_the_same_in_every_lane() {
    for text in ["tcp outside/api:9000", "tcp 169.254.169.254:80", "dns A api.zt.test @outside/api"]
    {
        let send: Send = text.parse().unwrap();
        assert_eq!(lane(1).send(&send), send, "{text}");
    }
}

#[test]
fn a_policy_that_reaches_beyond_its_lane_runs_alone() {
    let wide = "
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: { name: wide }
spec: { endpointSelector: {}, ingress: [{}] }
";
    let given = DENY.replace("zt-pay", "kube-system");
    for text in [wide, &given] {
        let case = case(text, "{ from: zt-shop/web, send: 'tcp zt-pay/ledger:9000', is: denied }");
        let refused = keeps_to_its_lane(&case, &shop());
        assert!(matches!(refused, Err(Unsound::Reach { .. })), "{refused:?}");
    }
    let case = case(DENY, "{ from: zt-shop/web, send: 'tcp zt-pay/ledger:9000', is: denied }");
    assert_eq!(keeps_to_its_lane(&case, &shop()), Ok(()));
}

fn dns(rule: &Value) -> Manifest {
    let ports =
        json!([{ "ports": [{ "port": "53", "protocol": "ANY" }], "rules": { "dns": [rule] } }]);
    cilium(&json!({ "egress": [{ "toEntities": ["all"], "toPorts": ports }] }))
}

#[test]
fn a_pattern_that_would_match_only_one_of_the_lanes_is_refused() {
    for pattern in ["*.*-pay.svc.cluster.local", "x.*lane1"] {
        let refused = lane(1).manifest(&dns(&json!({ "matchPattern": pattern })));
        assert!(matches!(refused, Err(Unsound::Name { .. })), "{pattern}: {refused:?}");
    }
    let literal = lane(1).manifest(&dns(&json!({ "matchName": "ledger.zt-pay-lane1" })));
    assert!(matches!(literal, Err(Unsound::Name { .. })), "{literal:?}");
}

#[test]
fn names_in_rules_are_renamed_where_they_say_a_namespace() {
    for (before, after) in [
        ("ledger.zt-pay.svc.cluster.local", "ledger.zt-pay-lane1.svc.cluster.local"),
        ("api.zt.test", "api.zt.test"),
        ("*.zt-pay.zt-shop.svc.cluster.local", "*.zt-pay-lane1.zt-shop-lane1.svc.cluster.local"),
        ("**.svc.cluster.local", "**.svc.cluster.local"),
        // It matches each namespace and each copy.
        ("*.zt-*.svc.cluster.local", "*.zt-*.svc.cluster.local"),
    ] {
        let renamed = lane(1).manifest(&dns(&json!({ "matchPattern": before }))).unwrap();
        let rule = &renamed.object["spec"]["egress"][0]["toPorts"][0]["rules"]["dns"][0];
        assert_eq!(rule["matchPattern"], after);
    }
}

#[test]
fn a_world_whose_names_would_be_ambiguous_has_one_lane() {
    let mut shared = shop();
    "kube-system".clone_into(&mut shared.services[0].namespace);
    assert!(matches!(Renaming::of(&shared, 1), Err(Unsound::SharedService { .. })));
    let mut twice = shop();
    "zt-shop".clone_into(&mut twice.services[0].name);
    assert!(matches!(Renaming::of(&twice, 1), Err(Unsound::Ambiguous { .. })));
    let mut outside = shop();
    outside.outside[0].dns.push("www.zt-pay.test".to_owned());
    assert!(matches!(Renaming::of(&outside, 1), Err(Unsound::Ambiguous { .. })));
}

#[test]
fn a_world_cannot_take_the_name_of_a_copy() {
    let text = WORLD.replace("zt-pay", "zt-shop-lane1");
    let refused = world(&Source::new("shop.yaml", text)).unwrap_err();
    assert_eq!(refused.message, "`zt-shop-lane1` is the name of a copy in a lane");
}

fn word() -> impl Strategy<Value = &'static str> {
    select(vec!["zt-shop", "zt-pay", "zt-pay-lane1", "kube-system", "ledger", "svc", "a"])
}

fn pattern_label() -> impl Strategy<Value = String> {
    prop_oneof![
        word().prop_map(str::to_owned),
        select(vec!["*", "**", "zt-*", "*pay", "l*r", "*-lane1", "*1"]).prop_map(str::to_owned),
    ]
}

fn condition(key: &'static str) -> impl Strategy<Value = Value> {
    let values = vec(select(vec!["zt-shop", "zt-pay", "kube-system"]), 1..3);
    prop_oneof![
        (select(vec!["In", "NotIn"]), values).prop_map(
            move |(operator, values)| json!({ "key": key, "operator": operator, "values": values })
        ),
        select(vec!["Exists", "DoesNotExist"])
            .prop_map(move |operator| json!({ "key": key, "operator": operator })),
    ]
}

const IDENTITY_KEYS: [&str; 4] = [
    "k8s:io.kubernetes.pod.namespace",
    "io.kubernetes.pod.namespace",
    "any:io.kubernetes.pod.namespace",
    "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
];

fn selector(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let labels = prop_oneof![
        Just(json!({})),
        Just(json!({ "app": "web" })),
        (select(keys), select(vec!["zt-shop", "zt-pay", "kube-system"]))
            .prop_map(|(key, namespace)| json!({ key: namespace })),
    ];
    (labels, vec(select(keys).prop_flat_map(condition), 0..2)).prop_map(
        |(labels, expressions)| json!({ "matchLabels": labels, "matchExpressions": expressions }),
    )
}

/// Policies of the ledger's namespace about who may come in.
fn policy() -> impl Strategy<Value = Manifest> {
    let cilium = vec(selector(&IDENTITY_KEYS), 1..3)
        .prop_map(|peers| cilium(&json!({ "ingress": [{ "fromEndpoints": peers }] })));
    let peer =
        (selector(&["kubernetes.io/metadata.name"]), any::<bool>()).prop_map(|(selector, any)| {
            let pods = if any { json!({}) } else { json!({ "matchLabels": { "app": "web" } }) };
            json!({ "namespaceSelector": selector, "podSelector": pods })
        });
    let network = vec(peer, 1..3).prop_map(|peers| {
        network(&json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{ "from": peers }] }))
    });
    prop_oneof![cilium, network]
}

/// Whether each pod of a world may reach each of the others, in the order of the world.
fn decisions(policy: &Manifest, world: &World) -> Vec<Vec<bool>> {
    let labels = |pod: &ztc_model::world::Pod| {
        let namespace = world.namespace(&pod.namespace).expect("it is listed");
        // The copy of a pod in a given namespace has the same labels: only its name differs.
        endpoint_labels(&pod.namespace, &namespace.labels, &pod.service_account, &pod.labels)
    };
    let reach = |to, from| {
        let policies = [policy.policy.clone()];
        let ingress = endpoint_policy(&policies, &labels(to)).ingress;
        let peer = Identity::Endpoint(labels(from));
        let decision = ingress.decide(&peer, Protocol::Tcp, 9000, &NamedPorts::new());
        matches!(decision, ztc_model::policy::Decision::Allowed { .. })
    };
    let pods = &world.pods;
    pods.iter().map(|to| pods.iter().map(|from| reach(to, from)).collect()).collect()
}

proptest! {
    #[test]
    fn a_policy_decides_in_its_lane_what_it_decides_in_the_first(policy in policy(), number in 1..4_usize) {
        let renaming = lane(number);
        let renamed = renaming.manifest(&policy).unwrap();
        let copy = renaming.world(&shop());
        prop_assert_eq!(decisions(&policy, &shop()), decisions(&renamed, &copy));
    }

    #[test]
    fn a_policy_of_a_lane_is_about_no_pod_of_another(policy in policy()) {
        let renamed = lane(1).manifest(&policy).unwrap();
        for other in [shop(), lane(2).world(&shop())] {
            prop_assert!(decisions(&renamed, &other).into_iter().flatten().all(|allowed| allowed));
        }
    }

    #[test]
    fn a_pattern_that_is_renamed_matches_the_renamed_names_and_no_others(
        pattern in vec(pattern_label(), 1..5).prop_map(|labels| labels.join(".")),
        name in vec(select(vec!["zt-shop", "zt-pay", "kube-system", "ledger", "svc", "a"]), 1..5)
            .prop_map(|labels| labels.join(".")),
    ) {
        if let Some(renamed) = lane(1).pattern(&pattern) {
            let before = DnsRule::pattern(&pattern).unwrap().matches(&name);
            let after = DnsRule::pattern(&renamed).unwrap().matches(&lane(1).name(&name));
            prop_assert_eq!(before, after, "{} as {}", pattern, renamed);
        }
    }
}

/// A policy of the mesh for the ledger, with one rule for this source.
fn authorization(source: &Value) -> Manifest {
    manifest(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "one", "namespace": "zt-pay" },
        "spec": { "selector": { "matchLabels": { "app": "ledger" } }, "rules": [{ "from": [{ "source": source }] }] },
    }))
}

#[test]
fn principals_and_namespaces_of_the_mesh_are_renamed() {
    let source = json!({
        "principals": ["cluster.local/ns/zt-shop/sa/web", "cluster.local/ns/elsewhere/sa/zt-shop"],
        "namespaces": ["zt-shop"],
    });
    let renamed = lane(2).manifest(&authorization(&source)).unwrap();
    assert_eq!(
        renamed.object["spec"]["rules"][0]["from"][0]["source"],
        json!({
            "principals": ["cluster.local/ns/zt-shop-lane2/sa/web", "cluster.local/ns/elsewhere/sa/zt-shop"],
            "namespaces": ["zt-shop-lane2"],
        })
    );
    assert_eq!(renamed.reference.namespace.as_deref(), Some("zt-pay-lane2"));
}

#[test]
fn a_principal_with_a_wildcard_may_be_of_another_lane() {
    for source in [
        json!({ "principals": ["cluster.local/ns/zt-shop*"] }),
        json!({ "principals": ["*"] }),
        json!({ "namespaces": ["zt-*"] }),
    ] {
        let refused = lane(1).manifest(&authorization(&source));
        assert!(matches!(refused, Err(Unsound::Name { .. })), "{source}: {refused:?}");
    }
}

#[test]
fn what_is_said_of_tokens_holds_no_namespace() {
    let tokens = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": { "name": "tokens", "namespace": "zt-pay" },
        "spec": {
            "targetRefs": [{ "group": "", "kind": "Service", "name": "ledger" }],
            "jwtRules": [{ "issuer": "https://zt-pay.test", "jwks": "{\"keys\": []}" }],
        },
    });
    let renamed = lane(2).manifest(&manifest(&tokens)).unwrap();
    assert_eq!(renamed.object["spec"], tokens["spec"]);
    assert_eq!(renamed.reference.namespace.as_deref(), Some("zt-pay-lane2"));
    let subjects = json!({ "requestPrincipals": ["https://zt-pay.test/web"] });
    let renamed = lane(2).manifest(&authorization(&subjects)).unwrap();
    assert_eq!(renamed.object["spec"]["rules"][0]["from"][0]["source"], subjects);
}

#[test]
fn a_policy_for_the_whole_mesh_runs_alone() {
    let strict = manifest(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": { "name": "strict", "namespace": "istio-system" },
        "spec": { "mtls": { "mode": "STRICT" } },
    }));
    assert!(matches!(lane(1).manifest(&strict), Err(Unsound::Reach { .. })));
}

#[test]
fn a_world_with_a_pod_in_its_nodes_network_has_no_copies() {
    let text = WORLD.replace("name: web, node: a,", "name: web, node: a, hostNetwork: true,");
    let shop = world(&Source::new("shop.yaml", text)).unwrap_or_else(|error| panic!("{error}"));
    let refused = Renaming::of(&shop, 1);
    assert!(matches!(refused, Err(Unsound::NodeNetwork { .. })), "{refused:?}");
}
