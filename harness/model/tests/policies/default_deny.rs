//! When a direction is closed, and what opens it again.

use super::*;

/// `docs security/policy/intro`: without a policy everything passes.
#[test]
fn without_policies_nothing_is_enforced() {
    let none = endpoint_policy(&[], &pod("shop", "web"));
    assert_eq!(none, EndpointPolicy::default());
    let decision =
        none.egress.decide(&peer("pay", "ledger"), Protocol::Icmp, 0, &NamedPorts::new());
    assert_eq!(decision, NOTHING_ENFORCED);
}

/// `pkg/policy/repository.go`: enforcement is per direction.
#[test]
fn a_rule_closes_its_own_direction_only() {
    let text = namespaced("egress:\n- toEntities: [world]");
    assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
    assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
}

/// Recorded: `ingress: [{}]` denies everything, `ingress: []` is not enforced.
#[test]
fn an_empty_element_denies_all_of_its_direction() {
    let text = namespaced("egress: [{}]");
    assert_eq!(egress(&text, &peer("shop", "web")), Decision::NotAllowed);
    assert_eq!(egress(&text, &range("192.0.2.1/32")), Decision::NotAllowed);
    assert_eq!(ingress(&text, &peer("shop", "web")), NOTHING_ENFORCED);
}

/// `pkg/policy/api/rule_validation.go`, recorded with `Valid=False`: no section, no policy.
#[test]
fn a_policy_without_an_element_is_refused() {
    for spec in [
        "ingress: []",
        "ingress: []\negress: []\nenableDefaultDeny: { ingress: true, egress: true }",
        "egress:",
        "description: nothing",
    ] {
        assert!(refusal(&namespaced(spec)).starts_with("nothing in `ingress`"), "{spec}");
    }
}

/// `pkg/policy/api/rule_validation.go`: an empty list besides a section is no section.
#[test]
fn an_empty_list_leaves_its_direction_open() {
    let text = namespaced("ingress: []\negress: [{}]");
    assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
}

/// Recorded: a deny-only clusterwide policy revoked all egress of what it selects.
#[test]
fn a_lone_deny_rule_flips_its_direction() {
    let deny = "egressDeny:\n- toCIDR: [\"169.254.169.254/32\"]";
    let text = clusterwide(deny);
    assert_eq!(egress(&text, &range("169.254.169.254/32")), denied(WIDE));
    assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
    assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
}

/// Recorded, and `pkg/policy/repository.go`: only rules without default-deny leave all open.
#[test]
fn enable_default_deny_takes_the_flip_back() {
    let text = clusterwide(
        "enableDefaultDeny: { egress: false, ingress: false }\n\
         egressDeny:\n- toCIDR: [\"169.254.169.254/32\"]",
    );
    assert_eq!(egress(&text, &range("169.254.169.254/32")), denied(WIDE));
    assert_eq!(egress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
}

/// `pkg/policy/repository.go`: one policy that wants default-deny is enough.
#[test]
fn default_deny_of_another_policy_stays() {
    let additive =
        clusterwide("enableDefaultDeny: { egress: false }\negress:\n- toEntities: [cluster]");
    let text = format!("{additive}---\n{}", namespaced("egress: [{}]"));
    assert_eq!(egress(&text, &peer("pay", "ledger")), allowed(WIDE));
    assert_eq!(egress(&text, &range("192.0.2.1/32")), Decision::NotAllowed);
}

/// `pkg/policy/utils/parserules.go`: `enableDefaultDeny: true` without rules makes no entry.
#[test]
fn enable_default_deny_does_nothing_without_rules() {
    let text = namespaced("enableDefaultDeny: { ingress: true }\negress: [{}]");
    assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
}

/// Recorded: the local node passes ingress default-deny, a remote node does not.
#[test]
fn the_own_node_passes_ingress_default_deny() {
    let text = namespaced("ingress: [{}]\negress: [{}]");
    assert_eq!(ingress(&text, &Identity::Reserved(Reserved::Host)), NOTHING_ENFORCED);
    assert_eq!(ingress(&text, &Identity::Reserved(Reserved::RemoteNode)), Decision::NotAllowed);
    assert_eq!(egress(&text, &Identity::Reserved(Reserved::Host)), Decision::NotAllowed);
}

/// `pkg/policy/repository.go`: the allowance of the own node is of the last tier.
#[test]
fn a_deny_rule_closes_the_own_node_out() {
    let text = namespaced("ingressDeny:\n- fromEntities: [host]");
    assert_eq!(ingress(&text, &Identity::Reserved(Reserved::Host)), denied(ONE));
}

/// `pkg/policy/repository.go`: without the host firewall a node is subject to nothing.
#[test]
fn a_node_is_subject_to_no_policy() {
    let policies = policies(&clusterwide("egress: [{}]"));
    let node = Identity::Reserved(Reserved::Host).labels();
    assert_eq!(endpoint_policy(&policies, &node), EndpointPolicy::default());
}

/// The mode `always`, as `kubectl apply` takes it.
const ALWAYS: &str = "apiVersion: cilium.io/v2\nkind: CiliumNodeConfig\n\
                      metadata: { name: always, namespace: kube-system }\n\
                      spec: { nodeSelector: {}, defaults: { enable-policy: always } }\n";

/// `computePolicyEnforcementAndRules` in `pkg/policy/repository.go`: every endpoint, in both directions.
#[test]
fn always_closes_what_no_policy_selects() {
    for flow in [peer("shop", "cart"), range("192.0.2.1/32")] {
        assert_eq!(ingress(ALWAYS, &flow), Decision::NotAllowed);
        assert_eq!(egress(ALWAYS, &flow), Decision::NotAllowed);
    }
    let node = Identity::Reserved(Reserved::Host).labels();
    assert_eq!(endpoint_policy(&policies(ALWAYS), &node), EndpointPolicy::default());
}

/// The same: what a policy allows passes as ever.
#[test]
fn always_takes_no_allowance_away() {
    let text = format!("{ALWAYS}---\n{}", namespaced("egress:\n- toEntities: [world]"));
    assert_eq!(egress(&text, &range("192.0.2.1/32")), allowed(ONE));
    assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
}

/// cilium#48444, seen on 1.20.2 (`docs/facts.md`, surprise 17).
#[test]
fn under_always_the_own_node_passes_only_where_a_policy_has_an_ingress_section() {
    let host = Identity::Reserved(Reserved::Host);
    let with = |spec: &str| ingress(&format!("{ALWAYS}---\n{}", namespaced(spec)), &host);
    assert_eq!(ingress(ALWAYS, &host), Decision::NotAllowed);
    assert_eq!(with("egress:\n- toEntities: [world]"), Decision::NotAllowed);
    assert_eq!(with("ingress: [{}]"), NOTHING_ENFORCED);
    let additive = "enableDefaultDeny: { ingress: false }\ningress:\n- fromEntities: [world]";
    assert_eq!(with(additive), NOTHING_ENFORCED);
}

/// Half a cluster in another mode, another key or another mode is nothing that is evaluated.
#[test]
fn a_configuration_of_nodes_that_says_anything_else_is_refused() {
    let refused = |from: &str, to: &str| refusal(&ALWAYS.replace(from, to));
    assert!(refused("always }", "never }").contains("enforcement mode `never`"));
    assert!(refused("enable-policy: always", "debug: true").contains("debug"));
    assert!(refused("{}", "{ matchLabels: { a: b } }").contains("matchLabels"));
    assert!(refused("kube-system", "shop").contains("outside of kube-system"));
}

/// `pkg/policy/repository.go`: an endpoint whose labels are not known yet is closed.
#[test]
fn an_endpoint_without_labels_is_closed_without_policies() {
    let init = Identity::Reserved(Reserved::Init).labels();
    let policy = endpoint_policy(&[], &init);
    assert!(policy.ingress.default_deny && policy.egress.default_deny);
    assert!(!policy.ingress.allows_host);
}
