//! What recorded dumps of ztunnels say, held against policies.

use std::collections::BTreeMap;

use ztc_model::manifest::manifests;
use ztc_model::policy::Policy;
use ztc_model::policy::mesh::waypoint::Named;
use ztc_model::world::PodRef;
use ztc_model::yaml::Source;

use super::*;

/// What a ztunnel of 1.31 answered, cut to what is read here and to the workloads of one namespace.
const DUMP: &str = r#"{
  "policies": [
    { "action": "Deny", "dryRun": false, "name": "istio_converted_static_strict", "namespace": "istio-system",
      "rules": [[[{ "notPrincipals": [{ "Presence": [] }] }]]], "scope": "WorkloadSelector" },
    { "action": "Allow", "dryRun": false, "name": "allow-teller", "namespace": "zt-bank",
      "rules": [[[{ "principals": [{ "Exact": "cluster.local/ns/zt-bank/sa/teller" }] }]]], "scope": "WorkloadSelector" },
    { "action": "Deny", "dryRun": false, "name": "deny-clerk", "namespace": "zt-bank", "rules": [], "scope": "Namespace" }
  ],
  "workloads": [
    { "name": "ledger", "namespace": "zt-bank", "protocol": "HBONE", "serviceAccount": "ledger",
      "authorizationPolicies": ["zt-bank/allow-teller", "istio-system/istio_converted_static_strict"] },
    { "name": "teller", "namespace": "zt-bank", "protocol": "HBONE", "serviceAccount": "teller",
      "authorizationPolicies": ["istio-system/istio_converted_static_strict"] },
    { "name": "coredns", "namespace": "kube-system", "protocol": "TCP" }
  ]
}"#;

const STRICT: &str = r"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: zt-bank }
spec: { mtls: { mode: STRICT } }
";
const ALLOW: &str = r"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: allow-teller, namespace: zt-bank }
spec:
  selector: { matchLabels: { app: ledger } }
  rules: [{ from: [{ source: { principals: [cluster.local/ns/zt-bank/sa/teller] } }] }]
";
const DENY: &str = r"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: deny-clerk, namespace: zt-bank }
spec: { action: DENY, rules: [{ from: [{ source: { principals: [cluster.local/ns/zt-bank/sa/clerk] } }] }] }
";

fn dump() -> Dump {
    serde_json::from_str(DUMP).unwrap()
}

/// These policies, one younger than the other.
fn stored(texts: &[&str]) -> Vec<Stored> {
    let read = |(age, text): (usize, &&str)| {
        let manifests = manifests(&Source::new("policy.yaml", *text)).unwrap();
        let Policy::Mesh(policy) = manifests[0].policy.clone() else { panic!("{manifests:?}") };
        Stored { policy, created: format!("2026-11-24T00:00:{age:02}Z") }
    };
    texts.iter().enumerate().map(read).collect()
}

fn enrolled() -> Enrolled {
    let pod = |name: &str| {
        let reference = PodRef { namespace: "zt-bank".to_owned(), name: name.to_owned() };
        let labels = BTreeMap::from([("app".to_owned(), name.to_owned())]);
        (reference, EnrolledPod { labels, waypoint: None })
    };
    Enrolled { pods: BTreeMap::from([pod("ledger"), pod("teller")]), services: Vec::new() }
}

/// The lag of a waypoint that has one service behind it.
fn at_waypoint(service: &str, enforced: &Enforced, texts: &[&str]) -> Option<String> {
    let named = |name| Named { namespace: "zt-bank", name };
    waypoint_lag(named("waypoint"), &[named(service)], enforced, &stored(texts))
}

fn lagging(texts: &[&str], change: impl FnOnce(&mut Dump)) -> Option<String> {
    let mut dump = dump();
    change(&mut dump);
    lag(&dump, &stored(texts), &enrolled())
}

#[test]
fn a_ztunnel_that_has_what_is_stored_lags_in_nothing() {
    assert_eq!(lagging(&[STRICT, ALLOW, DENY], |_| {}), None);
}

#[test]
fn a_policy_that_is_not_there_yet_is_lacked() {
    let said =
        lagging(&[STRICT, ALLOW, DENY], |dump| dump.policies.retain(|it| it.name != "deny-clerk"));
    assert_eq!(said.as_deref(), Some("lacks policy zt-bank/deny-clerk"));
}

#[test]
fn a_policy_that_was_deleted_is_there_still() {
    let said = lagging(&[STRICT, ALLOW], |_| {});
    assert_eq!(said.as_deref(), Some("still has policy zt-bank/deny-clerk"));
}

/// A ztunnel that has a policy and not yet the reference to it lets everything pass.
#[test]
fn a_policy_that_no_workload_refers_to_yet_is_not_applied() {
    let said = lagging(&[STRICT, ALLOW, DENY], |dump| {
        dump.workloads[0].authorization_policies.remove("zt-bank/allow-teller");
    });
    assert_eq!(said.as_deref(), Some("does not apply zt-bank/allow-teller to zt-bank/ledger"));
}

#[test]
fn strict_is_realised_where_every_workload_refers_to_it() {
    let said =
        lagging(&[STRICT, ALLOW, DENY], |dump| dump.workloads[1].authorization_policies.clear());
    assert_eq!(
        said.as_deref(),
        Some("does not apply istio-system/istio_converted_static_strict to zt-bank/teller")
    );
    let said = lagging(&[ALLOW, DENY], |_| {});
    assert_eq!(
        said.as_deref(),
        Some("still applies istio-system/istio_converted_static_strict to zt-bank/ledger")
    );
}

#[test]
fn the_oldest_of_a_level_counts_and_the_closer_level_wins() {
    let permissive = STRICT.replace("STRICT", "PERMISSIVE").replace("default", "younger");
    assert_eq!(lagging(&[STRICT, &permissive, ALLOW, DENY], |_| {}), None);
    assert!(lagging(&[&permissive, STRICT, ALLOW, DENY], |_| {}).is_some());
    let meshwide = permissive.replace("zt-bank", "istio-system");
    assert_eq!(lagging(&[&meshwide, STRICT, ALLOW, DENY], |_| {}), None);
    let unset = STRICT.replace("STRICT", "UNSET");
    let meshwide = STRICT.replace("zt-bank", "istio-system");
    assert_eq!(lagging(&[&unset, &meshwide, ALLOW, DENY], |_| {}), None);
}

#[test]
fn a_policy_of_a_waypoint_is_nothing_to_a_ztunnel() {
    let bound = DENY
        .replace("deny-clerk", "bound")
        .replace("action: DENY", "targetRefs: [{ kind: Service, name: ledger }], action: DENY");
    assert_eq!(lagging(&[STRICT, ALLOW, DENY, &bound], |_| {}), None);
}

#[test]
fn a_workload_that_is_not_known_to_be_in_the_mesh_is_waited_for() {
    let said =
        lagging(&[STRICT, ALLOW, DENY], |dump| dump.workloads[0].protocol = "TCP".to_owned());
    assert_eq!(said.as_deref(), Some("does not know that workload zt-bank/ledger is in the mesh"));
    let said = lagging(&[STRICT, ALLOW, DENY], |dump| dump.workloads.clear());
    assert_eq!(said.as_deref(), Some("does not know workload zt-bank/ledger"));
}

#[test]
fn a_mode_of_a_port_has_a_policy_of_its_own_in_place_of_the_static_one() {
    let ported = r#"
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: open-9000, namespace: zt-bank }
spec:
  selector: { matchLabels: { app: ledger } }
  portLevelMtls: { "9000": { mode: PERMISSIVE } }
"#;
    let open = "zt-bank/converted_peer_authentication_open-9000";
    let refer = |dump: &mut Dump, to: &[&str]| {
        let references = to.iter().map(ToString::to_string);
        dump.workloads[0].authorization_policies = references.collect();
    };
    let allow = "zt-bank/allow-teller";
    assert_eq!(lagging(&[STRICT, ported, ALLOW, DENY], |it| refer(it, &[allow, open])), None);
    assert_eq!(
        lagging(&[STRICT, ported, ALLOW, DENY], |_| {}).as_deref(),
        Some("does not apply zt-bank/converted_peer_authentication_open-9000 to zt-bank/ledger")
    );
}

#[test]
fn a_service_is_behind_the_waypoint_that_it_is_put_behind() {
    let service = |waypoint: Option<&str>| {
        ("zt-bank".to_owned(), "ledger".to_owned(), waypoint.map(str::to_owned))
    };
    let look = |dump: &Dump, waypoint| {
        let enrolled = Enrolled { services: vec![service(waypoint)], ..Enrolled::default() };
        lag(dump, &stored(&[STRICT, ALLOW, DENY]), &enrolled)
    };
    let mut dump = dump();
    assert_eq!(look(&dump, None).as_deref(), Some("does not know service zt-bank/ledger"));
    dump.services.push(DumpedService {
        namespace: "zt-bank".to_owned(),
        name: "ledger".to_owned(),
        waypoint: Some(DumpedWaypoint {
            destination: "zt-bank/waypoint.zt-bank.svc.cluster.local".to_owned(),
        }),
    });
    assert_eq!(look(&dump, Some("waypoint")), None);
    assert_eq!(
        look(&dump, None).as_deref(),
        Some("still has service zt-bank/ledger behind a waypoint")
    );
    assert!(look(&dump, Some("other")).is_some());
}

#[test]
fn the_rules_in_a_waypoints_listeners_are_its_policies() {
    let listeners = r#"{ "policies": { "ns[zt-bank]-policy[get-only]-rule[0]": {}, "ns[zt-bank]-policy[get-only]-rule[1]": {} } }"#;
    let enforced = wanted::enforced_by_listeners(listeners);
    assert_eq!(enforced.policies, BTreeSet::from(["zt-bank/get-only".to_owned()]));
    let bound = ALLOW.replace("allow-teller", "get-only").replace(
        "selector: { matchLabels: { app: ledger } }",
        "targetRefs: [{ kind: Service, name: ledger }]",
    );
    let look = |texts: &[&str], enforced: &Enforced| at_waypoint("ledger", enforced, texts);
    assert_eq!(look(&[&bound, DENY], &enforced), None);
    assert_eq!(look(&[DENY], &enforced).as_deref(), Some("still has policy zt-bank/get-only"));
    let nothing = Enforced::default();
    assert_eq!(look(&[&bound], &nothing).as_deref(), Some("lacks policy zt-bank/get-only"));
}

#[test]
fn the_issuers_in_a_waypoints_listeners_are_those_that_it_believes() {
    let listeners =
        r#"{ "providers": { "origins-0": { "issuer": "https://bank.test/", "forward": true } } }"#;
    let enforced = wanted::enforced_by_listeners(listeners);
    assert_eq!(enforced.issuers, BTreeSet::from(["https://bank.test/".to_owned()]));
    let bound = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: { name: tokens, namespace: zt-bank }
spec:
  targetRefs: [{ kind: Service, group: "", name: vault }]
  jwtRules: [{ issuer: "https://bank.test/", jwks: '{"keys": []}' }]
"#;
    let look = |texts: &[&str], enforced: &Enforced| at_waypoint("vault", enforced, texts);
    assert_eq!(look(&[bound], &enforced), None);
    assert_eq!(look(&[], &enforced).as_deref(), Some("still has issuer https://bank.test/"));
    let nothing = Enforced::default();
    assert_eq!(look(&[bound], &nothing).as_deref(), Some("lacks issuer https://bank.test/"));
    let elsewhere = bound.replace("zt-bank", "zt-visit");
    assert_eq!(look(&[&elsewhere], &nothing), None);
    assert_eq!(at_waypoint("ledger", &nothing, &[bound]), None, "it is not behind this one");
    // By its labels it is bound to no waypoint.
    let selecting = bound.replace(
        r#"targetRefs: [{ kind: Service, group: "", name: vault }]"#,
        "selector: { matchLabels: { app: vault } }",
    );
    assert_eq!(look(&[&selecting], &nothing), None);
}
