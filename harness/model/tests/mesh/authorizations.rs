//! `AuthorizationPolicy` with a selector or for whole namespaces: what a ztunnel enforces.

use super::*;

const SELECTOR: &str = "selector: { matchLabels: { app: ledger } }\n";

/// A policy of the bank for its ledger.
fn ledger(action: &str, rules: &str) -> String {
    authorization("bank", "one", &format!("{SELECTOR}action: {action}\nrules: {rules}"))
}

fn from(source: &str) -> String {
    format!("[{{ from: [{{ source: {{ {source} }} }}] }}]")
}

fn to(operation: &str) -> String {
    format!("[{{ to: [{{ operation: {{ {operation} }} }}] }}]")
}

fn when(key: &str, values: &str) -> String {
    format!("[{{ when: [{{ key: \"{key}\", {values} }}] }}]")
}

/// Recorded, `istio/03a-l4-allow-principal.txt`.
#[test]
fn where_a_policy_allows_nothing_else_passes() {
    let policy = ledger("ALLOW", &from("principals: [cluster.local/ns/bank/sa/teller]"));
    assert_eq!(decide(&policy, TELLER, 9000), Decision::Allowed);
    assert_eq!(decide(&policy, CLERK, 9000), Decision::NotAllowed);
    assert_eq!(decide(&policy, IN_PLAIN, 9000), Decision::NotAllowed);
    assert_eq!(
        decide(&policy, IN_PLAIN, 9000).error().as_deref(),
        Some("connection closed due to policy rejection: allow policies exist, but none allowed")
    );
}

/// Recorded, `istio/03d-l4-deny-ns.txt`.
#[test]
fn a_deny_that_matches_is_named_and_others_pass() {
    let policy = ledger("DENY", &from("namespaces: [visit]"));
    assert_eq!(decide(&policy, VISITOR, 9000), denied_by("bank/one"));
    assert_eq!(decide(&policy, TELLER, 9000), Decision::Allowed);
    assert_eq!(decide(&policy, IN_PLAIN, 9000), Decision::Allowed);
}

/// `assert_rbac` in `src/state.rs`.
#[test]
fn deny_goes_before_allow() {
    let allow = ledger("ALLOW", &from("principals: [\"*\"]"));
    let deny = authorization(
        "bank",
        "two",
        &format!("action: DENY\nrules: {}", from("principals: [\"*/sa/clerk\"]")),
    );
    let both = allow + &deny;
    assert_eq!(decide(&both, CLERK, 9000), denied_by("bank/two"));
    assert_eq!(decide(&both, TELLER, 9000), Decision::Allowed);
    assert_eq!(decide(&both, IN_PLAIN, 9000), Decision::NotAllowed);
}

/// Recorded, `istio/03g-empty-allow-nothing.txt`; `Authorization::matches` in `src/rbac.rs`: "empty rules".
#[test]
fn a_policy_without_rules_allows_nothing_and_one_with_an_empty_rule_everything() {
    assert_eq!(decide(&authorization("bank", "none", "{}"), TELLER, 9000), Decision::NotAllowed);
    assert!(passes(&authorization("bank", "any", "rules: [{}]"), IN_PLAIN, 9000));
    let deny = authorization("bank", "any", "action: DENY\nrules: [{}]");
    assert_eq!(decide(&deny, TELLER, 9000), denied_by("bank/any"));
}

/// `convertAuthorizationPolicy`: `Scope_NAMESPACE`, `Scope_GLOBAL`; `buildWorkloadPolicies` for the root namespace.
#[test]
fn a_policy_is_about_its_namespace_or_the_mesh_or_whom_it_selects() {
    let of = |namespace: &str, spec: &str| {
        let policy = authorization(namespace, "x", spec);
        decide_at("bank", &policy, &connection(TELLER, 9000)) == Decision::NotAllowed
    };
    assert!(of("bank", "{}"));
    assert!(!of("visit", "{}"));
    assert!(of("istio-system", "{}"));
    assert!(of("bank", "selector: { matchLabels: { app: ledger, tier: back } }"));
    assert!(!of("bank", "selector: { matchLabels: { app: ledger, tier: front } }"));
    assert!(!of("visit", SELECTOR));
    assert!(of("istio-system", SELECTOR));
}

/// `matches_principal` in `src/rbac.rs` compares without the scheme, ztunnel#1901.
#[test]
fn a_principal_with_its_scheme_matches_nobody() {
    let policy =
        ledger("ALLOW", &from("principals: [\"spiffe://cluster.local/ns/bank/sa/teller\"]"));
    assert_eq!(decide(&policy, TELLER, 9000), Decision::NotAllowed);
    let not =
        ledger("DENY", &from("notPrincipals: [\"spiffe://cluster.local/ns/bank/sa/teller\"]"));
    assert_eq!(decide(&not, TELLER, 9000), denied_by("bank/one"));
}

/// `stringToMatch` in `ambient/authorization.go`.
#[test]
fn principals_and_namespaces_match_by_beginning_end_and_presence() {
    for (source, matches, others) in [
        ("principals: [\"cluster.local/ns/bank/sa/te*\"]", TELLER, CLERK),
        ("principals: [\"*/sa/teller\"]", TELLER, CLERK),
        ("principals: [\"*\"]", CLERK, IN_PLAIN),
        ("namespaces: [\"ba*\"]", TELLER, VISITOR),
        ("namespaces: [\"*sit\"]", VISITOR, TELLER),
        ("namespaces: [\"*\"]", VISITOR, IN_PLAIN),
    ] {
        let policy = ledger("ALLOW", &from(source));
        assert!(passes(&policy, matches, 9000), "{source}");
        assert!(!passes(&policy, others, 9000), "{source}");
    }
}

/// `ServiceAccountMatch` in `src/rbac.rs`; `stringToServiceAccountMatch`: without a namespace it is the policy's own.
#[test]
fn service_accounts_are_of_the_policys_namespace_unless_they_name_one() {
    let own = ledger("ALLOW", &from("serviceAccounts: [teller]"));
    assert!(passes(&own, TELLER, 9000));
    assert!(!passes(&own, Some("visit/teller"), 9000));
    let other = ledger("ALLOW", &from("serviceAccounts: [visit/near]"));
    assert!(passes(&other, VISITOR, 9000));
    assert!(!passes(&other, IN_PLAIN, 9000));
}

/// `src/rbac.rs`, its tests `not_namespaces`, `not_principals` and `not_service_accounts`: a peer in plain has none of them.
#[test]
fn what_excludes_an_identity_matches_a_peer_in_plain() {
    for source in [
        "notNamespaces: [visit]",
        "notPrincipals: [\"*/sa/near\"]",
        "notServiceAccounts: [visit/near]",
    ] {
        assert!(passes(&ledger("ALLOW", &from(source)), IN_PLAIN, 9000), "{source}");
        assert!(!passes(&ledger("ALLOW", &from(source)), VISITOR, 9000), "{source}");
        assert_eq!(decide(&ledger("DENY", &from(source)), IN_PLAIN, 9000), denied_by("bank/one"));
    }
}

/// `stringToIP`; recorded, `istio/03c-l4-deny-ipblocks.txt`.
#[test]
fn blocks_of_addresses_are_about_the_source() {
    for (blocks, matches) in [
        ("10.1.0.5", true),
        ("10.1.0.5/24", true),
        ("10.1.0.6", false),
        ("0.0.0.0/0", true),
        ("::/0", false),
    ] {
        let policy = ledger("DENY", &from(&format!("ipBlocks: [\"{blocks}\"]")));
        assert_eq!(!passes(&policy, TELLER, 9000), matches, "{blocks}");
        let not = ledger("DENY", &from(&format!("notIpBlocks: [\"{blocks}\"]")));
        assert_eq!(passes(&not, TELLER, 9000), matches, "{blocks}");
    }
}

#[test]
fn ports_are_those_of_the_workload() {
    let policy = ledger("DENY", &to("ports: [\"9000\"]"));
    assert!(!passes(&policy, TELLER, 9000));
    assert!(passes(&policy, TELLER, 8080));
    let not = ledger("DENY", &to("notPorts: [\"9000\"]"));
    assert!(passes(&not, TELLER, 9000));
    assert!(!passes(&not, TELLER, 8080));
}

/// `l4WhenAttributes` in `ambient/authorization.go`.
#[test]
fn conditions_of_the_connection_are_evaluated() {
    for (key, values) in [
        ("source.ip", "values: [10.1.0.0/16]"),
        ("source.namespace", "values: [bank]"),
        ("source.principal", "values: [cluster.local/ns/bank/sa/teller]"),
        ("destination.ip", "values: [10.1.0.9]"),
        ("destination.port", "values: [\"9000\"]"),
        ("source.namespace", "notValues: [visit]"),
    ] {
        assert!(passes(&ledger("ALLOW", &when(key, values)), TELLER, 9000), "{key} {values}");
    }
    assert!(!passes(
        &ledger("ALLOW", &when("destination.port", "notValues: [\"9000\"]")),
        TELLER,
        9000
    ));
}

/// `Authorization::matches` in `src/rbac.rs`: rules are alternatives, clauses all have to match, and parts of a clause are
/// alternatives.
#[test]
fn any_rule_is_enough_and_a_rule_needs_all_its_clauses() {
    let rules = "[{ from: [{ source: { namespaces: [visit] } }, { source: { principals: [\"*/sa/clerk\"] } }], \
                    to: [{ operation: { ports: [\"9000\"] } }] }, \
                  { to: [{ operation: { ports: [\"8080\"] } }] }]";
    let policy = ledger("ALLOW", rules);
    assert!(passes(&policy, VISITOR, 9000));
    assert!(passes(&policy, CLERK, 9000));
    assert!(!passes(&policy, TELLER, 9000));
    assert!(passes(&policy, TELLER, 8080));
    let both = ledger("ALLOW", &from("namespaces: [bank], notPrincipals: [\"*/sa/clerk\"]"));
    assert!(passes(&both, TELLER, 9000));
    assert!(!passes(&both, CLERK, 9000));
}

/// `handleRule`: "L7 policies never match for ALLOW"; recorded, `istio/03e-selector-allow-l7.txt`.
#[test]
fn an_allow_rule_with_an_attribute_of_http_allows_nothing() {
    for rules in [
        to("methods: [GET]"),
        to("ports: [\"9000\"], notPaths: [/admin]"),
        from("requestPrincipals: [\"*\"]"),
        from("principals: [\"*\"], remoteIpBlocks: [0.0.0.0/0]"),
        when("request.headers[x]", "values: [a]"),
        when("request.auth.claims[iss]", "values: [a]"),
    ] {
        assert_eq!(decide(&ledger("ALLOW", &rules), TELLER, 9000), Decision::NotAllowed, "{rules}");
    }
    let other = "[{ to: [{ operation: { methods: [GET] } }] }, { to: [{ operation: { ports: [\"9000\"] } }] }]";
    assert!(passes(&ledger("ALLOW", other), TELLER, 9000));
}

/// `RbacMatch::is_empty` in `src/rbac.rs`: an empty part is skipped, and all clauses have to match; recorded,
/// `istio/03f-selector-deny-l7.txt`, `istio/03f2-selector-deny-l7-with-from.txt` and `istio/03f4-...`.
#[test]
fn a_deny_rule_with_a_clause_of_nothing_but_http_denies_nothing() {
    for rules in [
        to("methods: [POST]"),
        from("requestPrincipals: [\"*\"]"),
        when("request.headers[x]", "values: [a]"),
        "[{ from: [{ source: { principals: [\"*\"] } }], to: [{ operation: { methods: [POST] } }] }]".to_owned(),
        "[{ from: [{ source: { principals: [\"*\"] } }], when: [{ key: \"request.headers[x]\", values: [a] }] }]".to_owned(),
    ] {
        assert!(passes(&ledger("DENY", &rules), TELLER, 9000), "{rules}");
    }
}

/// `handleRule`: HTTP is left out of a part that has something else as well.
#[test]
fn a_deny_rule_with_something_of_tcp_in_each_clause_denies_more_than_it_says() {
    let port = ledger("DENY", &to("ports: [\"9000\"], methods: [POST]"));
    assert_eq!(decide(&port, TELLER, 9000), denied_by("bank/one"));
    assert!(passes(&port, TELLER, 8080));
    let one_of_two =
        "[{ to: [{ operation: { methods: [POST] } }, { operation: { ports: [\"8080\"] } }] }]";
    assert!(passes(&ledger("DENY", one_of_two), TELLER, 9000));
    assert!(!passes(&ledger("DENY", one_of_two), TELLER, 8080));
}

/// `convertAuthorizationPolicy`: "ztunnel does not support the AUDIT action", "`TargetRef` is not intended for ztunnel",
/// dry-run without `AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY`.
#[test]
fn what_ztunnel_does_not_have_it_does_not_enforce() {
    for spec in [
        "action: AUDIT\nrules: [{}]",
        "targetRefs: [{ kind: Service, group: \"\", name: ledger }]\naction: DENY\nrules: [{}]",
    ] {
        assert!(passes(&authorization("bank", "x", spec), TELLER, 9000), "{spec}");
    }
    let dry = authorization("bank", "x", "action: DENY\nrules: [{}]");
    let dry = dry.replace(
        "namespace: bank }",
        "namespace: bank, annotations: { istio.io/dry-run: \"true\" } }",
    );
    assert!(passes(&dry, TELLER, 9000));
    assert!(!passes(&dry.replace("\"true\"", "\"false\""), TELLER, 9000));
    assert_eq!(
        refusal(&dry.replace("\"true\"", "\"maybe\"")),
        "`maybe` is neither `true` nor `false`"
    );
}

/// Behind a waypoint the peer is the waypoint: recorded, `istio/04d-only-waypoint-identity.txt`.
#[test]
fn a_waypoint_is_a_peer_by_its_own_account() {
    let policy = ledger("ALLOW", &from("principals: [cluster.local/ns/bank/sa/waypoint]"));
    assert!(passes(&policy, Some("bank/waypoint"), 8080));
    assert!(!passes(&policy, TELLER, 8080));
}

/// CUSTOM asks a provider of the mesh's configuration, and Istio refuses it without one (`ValidateAuthorizationPolicy`).
#[test]
fn a_policy_that_asks_somebody_else_is_refused() {
    let custom = authorization("bank", "x", "action: CUSTOM\nrules: [{}]");
    assert_eq!(refusal(&custom), "unknown value `CUSTOM`");
}

/// `allowedTargetRefs` in `pkg/config/validation`.
#[test]
fn a_policy_is_bound_to_what_can_have_a_waypoint() {
    for target in [
        "{ kind: Pod, name: x }",
        "{ kind: Gateway, name: x }",
        "{ kind: Service, group: apps, name: x }",
    ] {
        let policy = authorization("bank", "x", &format!("targetRefs: [{target}]"));
        assert!(refusal(&policy).starts_with("a policy is not bound to a"), "{target}");
    }
}

/// `ValidateAuthorizationPolicy` in `pkg/config/validation`.
#[test]
fn what_istio_refuses_of_rules_is_refused() {
    for (rules, message) in [
        ("[{ from: [{ source: {} }] }]", "a source that says nothing: Istio refuses it"),
        ("[{ to: [{ operation: {} }] }]", "an operation that says nothing: Istio refuses it"),
        (&from("principals: [\"\"]"), "an empty text: Istio refuses it"),
        (
            &from("serviceAccounts: [teller], namespaces: [bank]"),
            "service accounts beside namespaces or principals: Istio refuses them",
        ),
        (
            &from("serviceAccounts: [bank/te*]"),
            "`bank/te*` is no service account; write `ACCOUNT` or `NAMESPACE/ACCOUNT`",
        ),
        (&from("ipBlocks: [10.0.0.0/40]"), "`10.0.0.0/40` is no address and no range of addresses"),
        (&to("ports: [http]"), "`http` is no port"),
        (&when("source.ip", "values: [here]"), "`here` is no address and no range of addresses"),
        (
            &when("source.namespace", ""),
            "a condition on `source.namespace` without values: Istio refuses it",
        ),
        (&when("source.pod", "values: [a]"), "Istio knows no attribute `source.pod`"),
        (&when("request.headers[]", "values: [a]"), "Istio knows no attribute `request.headers[]`"),
        (
            &to("paths: [\"/a/{x}\"]"),
            "`/a/{x}` is no path; `{*}` stands for a part and `{**}` for the last parts",
        ),
        (
            &to("paths: [\"/{**}/{*}\"]"),
            "`/{**}/{*}` is no path; `{*}` stands for a part and `{**}` for the last parts",
        ),
    ] {
        assert_eq!(refusal(&ledger("ALLOW", rules)), message, "{rules}");
    }
    let nothing = authorization("bank", "x", "action: DENY");
    assert_eq!(refusal(&nothing), "a DENY without rules never denies: Istio refuses it");
}
