use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::{Map, json};

use super::places::{places, without};
use super::*;
use crate::manifest::manifests;
use crate::place::{Place, Step};
use crate::suite::{Library, load, world};
use crate::yaml::Source;

const FILE: &str = "suites/l9/shop.yaml";

fn read(text: &str) -> Vec<Manifest> {
    manifests(&Source::new(FILE, text)).unwrap()
}

/// The mutants of a policy, a line each, without what their names have in common.
fn told(text: &str) -> String {
    let policies = read(text);
    let lines = policies.iter().flat_map(|it| of_policy(it, policies.len() == 1)).map(|mutant| {
        let name = mutant.name.strip_prefix("l9::shop.yaml: ").unwrap().to_owned();
        match mutant.left {
            Left::Nothing | Left::Less(_) => name,
            Left::Refused(why) => format!("{name}, refused: {why}"),
            Left::Equivalent(why) => format!("{name}, equivalent: {why}"),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_mutants_of_a_policy_of_cilium() {
    insta::assert_snapshot!(told(
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: shop, namespace: shop }
spec:
  endpointSelector: {}
  ingress: []
  egress:
    - toEndpoints: [{ matchLabels: { app: a } }, { matchLabels: { app: b } }]
      toPorts:
        - ports: [{ port: \"53\", protocol: UDP }, { port: \"53\", protocol: TCP }]
          rules: { dns: [{ matchPattern: \"*\" }, { matchName: a.test }] }
    - toFQDNs: [{ matchName: a.test }]
      toPorts: [{ ports: [{ port: \"80\" }] }, { ports: [{ port: \"80\" }] }]
    - toCIDRSet: [{ cidr: 10.0.0.0/8, except: [10.1.0.0/16] }]
    - toEntities: [world]
    - icmps: [{ fields: [{ type: 8, family: IPv4 }, { type: EchoRequest, family: IPv6 }] }]
"
    ));
}

#[test]
fn the_mutants_of_a_policy_of_kubernetes() {
    insta::assert_snapshot!(told(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: shop, namespace: shop }
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - { podSelector: { matchLabels: { app: a } }, namespaceSelector: {} }
        - ipBlock: { cidr: 10.0.0.0/8, except: [10.1.0.0/16] }
      ports: [{ port: 80 }, { port: 443 }]
  egress:
    - {}
"
    ));
}

#[test]
fn the_mutants_of_policies_of_the_mesh() {
    insta::assert_snapshot!(told(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: shop, namespace: shop }
spec:
  action: DENY
  rules:
    - from: [{ source: { principals: [a, b], notNamespaces: [c] } }]
      to: [{ operation: { ports: [\"80\"] } }]
      when: [{ key: source.ip, values: [10.0.0.0/8] }]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: shop, namespace: shop }
spec:
  selector: { matchLabels: { app: a } }
  mtls: { mode: STRICT }
  portLevelMtls: { \"80\": { mode: PERMISSIVE } }
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: shop, namespace: shop }
spec:
  jwtRules:
    - { issuer: a, jwks: '{\"keys\":[]}', audiences: [b], fromHeaders: [{ name: c }] }
"
    ));
}

#[test]
fn the_last_rule_is_refused_where_nothing_would_be_enforced() {
    insta::assert_snapshot!(told(
        "
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: { name: shop }
spec: { endpointSelector: {}, ingress: [{}] }
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: shop, namespace: shop }
spec: { action: DENY, rules: [{}] }
"
    ));
}

const WORLD: &str = "
world: shop
about: Two pods.
namespaces: [{ name: shop }]
pods:
  - { namespace: shop, name: web, node: a, labels: { app: web }, serves: [{ speaks: tcp, port: 80 }] }
  - { namespace: shop, name: api, node: b, labels: { app: api }, serves: [{ speaks: tcp, port: 80 }] }
";

const SUITE: &str = "
suite: l9
about: What may pass.
world: shop
needs: [cilium]
cases:
  - name: closed
    because: Nothing is allowed.
    apply: [open.yaml, closed.yaml]
    remove: [open]
    expect: [{ from: shop/web, send: tcp shop/api:80, is: denied, by: cilium, as: default-deny, policy: closed }]
  - name: open
    because: Everything is allowed.
    apply: [open.yaml]
    expect: [{ from: shop/web, send: tcp shop/api:80, is: allowed }]
  - { name: broken, because: It is invalid., apply: [{ file: broken.yaml, is: invalid }], expect: [{ from: shop/api, send: tcp shop/web:80, is: allowed }] }
";

fn policy(name: &str, spec: &str) -> (String, Source) {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {spec}\n"
    );
    (format!("{name}.yaml"), Source::new(format!("suites/l9/{name}.yaml"), text))
}

fn cases() -> Vec<Case> {
    let shop = world(&Source::new("shop.yaml", WORLD)).unwrap();
    let library = Library {
        worlds: [("shop".to_owned(), shop)].into(),
        manifests: [
            policy("open", "{ endpointSelector: {}, ingress: [{ fromEntities: [all] }] }"),
            policy("closed", "{ endpointSelector: {}, ingress: [{}], egress: [{}] }"),
            policy("broken", "{ endpointSelector: {}, ingress: [{ fromCIDR: [10.0.0.0/8], fromEntities: [all] }] }"),
        ]
        .into(),
    };
    load(&Source::new("suite.yaml", SUITE), &library).unwrap_or_else(|it| panic!("{it}")).cases
}

#[test]
fn every_policy_has_its_mutants_once_whoever_applies_it() {
    let cases = cases();
    let names: Vec<String> = mutants(&cases).into_iter().map(|it| it.name).collect();
    assert_eq!(
        names,
        [
            "l9::broken.yaml: deleted",
            "l9::broken.yaml: spec.ingress[0] deleted",
            "l9::broken.yaml: spec.ingress[0].fromEntities deleted",
            "l9::broken.yaml: spec.ingress[0].fromCIDR deleted",
            "l9::closed.yaml: deleted",
            "l9::closed.yaml: spec.ingress[0] deleted",
            "l9::closed.yaml: spec.egress[0] deleted",
            "l9::open.yaml: deleted",
            "l9::open.yaml: spec.ingress[0] deleted",
        ]
    );
}

fn named(cases: &[Case], name: &str) -> Mutant {
    mutants(cases).into_iter().find(|it| it.name == format!("l9::{name} deleted")).unwrap()
}

#[test]
fn what_cilium_does_not_take_has_mutants_that_it_takes() {
    let cases = cases();
    let whole = named(&cases, "broken.yaml:");
    assert!(matches!(whole.left, Left::Equivalent(why) if why.starts_with("Cilium does not take")));
    let Left::Less(less) = named(&cases, "broken.yaml: spec.ingress[0].fromCIDR").left else {
        panic!("what is left of it is valid");
    };
    assert_eq!(less.invalid, None);
    assert_eq!(less.policy.specs().len(), 1);
    let none = named(&cases, "broken.yaml: spec.ingress[0]");
    assert!(
        matches!(none.left, Left::Equivalent(why) if why.contains("either: nothing in `ingress`"))
    );
}

#[test]
fn a_case_with_a_mutant_differs_in_its_policy_alone() {
    let cases = cases();
    let [closed, open, _] = cases.as_slice() else { panic!("three cases") };
    let gone = named(&cases, "open.yaml:");
    let with = gone.in_case(closed).unwrap();
    assert_eq!(with.apply, closed.apply[1..]);
    assert!(with.remove.is_empty(), "what is not there is not taken away");
    assert_eq!(with.cells.len(), closed.cells.len());
    let less = named(&cases, "closed.yaml: spec.egress[0]");
    assert!(less.in_case(open).is_none(), "it applies another policy");
    let with = less.in_case(closed).unwrap();
    assert_eq!(with.apply[0], closed.apply[0]);
    assert_eq!(with.apply[1].object["spec"]["egress"], json!([]));
    assert_eq!(with.apply[1].object["spec"]["ingress"], json!([{}]));
    assert_eq!(with.remove, closed.remove);
}

#[test]
fn a_case_that_is_about_the_policy_is_asked_first() {
    let cases = cases();
    let order = |name: &str| -> Vec<String> {
        let mutant = named(&cases, name);
        mutant.candidates(&cases).iter().map(|it| it.id.name().to_owned()).collect()
    };
    assert_eq!(order("closed.yaml:"), ["closed"]);
    assert_eq!(order("open.yaml:"), ["open", "closed"], "the one that applies nothing else");
}

/// A list with fewer and more entries.
fn list(entry: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    vec(entry, 0..3).prop_map(Value::from)
}

/// A mapping with some of these fields.
fn fields(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Value> {
    let most = fields.len();
    subsequence(fields, 0..=most).prop_flat_map(|fields| {
        let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
        values.prop_map(move |values| {
            let names = names.iter().map(|it| (*it).to_owned());
            Value::from(names.zip(values).collect::<Map<_, _>>())
        })
    })
}

/// Something shaped as a spec of Cilium's; most of it would be refused.
fn object() -> impl Strategy<Value = Value> {
    let scalar = || (0..3_u8).prop_map(|it| json!(it.to_string()));
    let scalars = || list(scalar()).boxed();
    let ports = || {
        let dns = fields(vec![("dns", scalars())]).boxed();
        list(fields(vec![("ports", scalars()), ("rules", dns)])).boxed()
    };
    let ranges = || list(fields(vec![("cidr", scalar().boxed()), ("except", scalars())])).boxed();
    let rules = move || {
        list(fields(vec![
            ("fromEndpoints", scalars()),
            ("toCIDRSet", ranges()),
            ("toFQDNs", scalars()),
            ("toPorts", ports()),
            ("other", scalars()),
        ]))
        .boxed()
    };
    let spec = move || {
        fields(vec![
            ("endpointSelector", scalar().boxed()),
            ("ingress", rules()),
            ("egressDeny", rules()),
        ])
        .boxed()
    };
    fields(vec![("spec", spec()), ("specs", list(spec()).boxed())])
}

/// The object with something put back where it was taken away.
fn put_back(less: &Value, place: &Place, gone: Value) -> Value {
    let (last, way) = place.steps().split_last().unwrap();
    let mut object = less.clone();
    let mut at = &mut object;
    for step in way {
        at = match step {
            Step::Field(name) => &mut at[name],
            Step::Entry(index) => &mut at[index],
        };
    }
    match last {
        Step::Field(name) => drop(at.as_object_mut().unwrap().insert(name.clone(), gone)),
        Step::Entry(index) => at.as_array_mut().unwrap().insert(*index, gone),
    }
    object
}

proptest! {
    #[test]
    fn something_is_gone_and_nothing_else_has_changed(object in object()) {
        for path in places(PolicyKind::CiliumNetworkPolicy, &object) {
            let less = without(&object, &path).unwrap();
            prop_assert_ne!(&less, &object);
            let gone = path.of(&object).unwrap().clone();
            prop_assert_eq!(put_back(&less, &path, gone), object.clone());
        }
    }

    #[test]
    fn no_two_places_are_written_alike(object in object()) {
        let places = places(PolicyKind::CiliumNetworkPolicy, &object);
        let mut names: Vec<String> = places.iter().map(ToString::to_string).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), all);
    }

    /// Whatever else the object has: who selects its subjects, and how, is not touched.
    #[test]
    fn only_what_rules_are_made_of_goes(object in object()) {
        for path in places(PolicyKind::CiliumNetworkPolicy, &object) {
            let text = path.to_string();
            prop_assert!(!text.ends_with("endpointSelector") && !text.ends_with("other"), "{}", text);
            prop_assert!(path.steps().last() != Some(&Step::Field("cidr".to_owned())), "{}", text);
        }
    }
}
