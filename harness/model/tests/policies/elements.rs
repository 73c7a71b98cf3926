//! What an element of a section selects.

use super::*;

/// `mergeEndpointSelectors` in `pkg/policy/utils/parserules.go`: an empty list selects nobody.
#[test]
fn an_element_with_an_empty_list_selects_nobody() {
    for spec in [
        "egress:\n- toEndpoints: []",
        "egress:\n- toEndpoints: []\n  toPorts:\n  - ports: [{ port: \"8080\" }]",
        "egress:\n- toEntities: []\n  toEndpoints: [{}]",
        "egress:\n- toCIDR: []",
        "egress:\n- toCIDRSet: []",
    ] {
        assert_eq!(egress(&namespaced(spec), &peer("shop", "cart")), Decision::NotAllowed);
    }
}

/// The same place: null is absent in Go, so that the element is `{}`, or its ports alone.
#[test]
fn an_element_with_a_null_list_does_not_ask_for_peers() {
    let text = namespaced("egress:\n- toEndpoints:\n  toPorts:\n  - ports: [{ port: \"8080\" }]");
    assert_eq!(egress(&text, &range("192.0.2.1/32")), allowed(ONE));
    assert_eq!(
        egress(&namespaced("egress:\n- toEndpoints: null"), &peer("shop", "cart")),
        Decision::NotAllowed
    );
}

/// `pkg/policy/rule.go` mergeL4Filter: ports without peers are about everyone.
#[test]
fn ports_without_peers_are_about_everyone() {
    let text = namespaced("egress:\n- toPorts:\n  - ports: [{ port: \"8080\", protocol: TCP }]");
    for peer in [peer("pay", "ledger"), range("192.0.2.1/32"), Identity::Reserved(Reserved::Host)] {
        assert_eq!(egress(&text, &peer), allowed(ONE));
        assert_eq!(egress_on(&text, &peer, Protocol::Tcp, 8081), Decision::NotAllowed);
    }
}

/// `pkg/policy/rule.go` mergeL4Filter: an entry of `toPorts` without ports adds nothing, and an
/// empty `toPorts` is none.
#[test]
fn an_entry_without_ports_allows_none() {
    let text = namespaced("egress:\n- toEntities: [all]\n  toPorts: [{}]");
    assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
    let text = namespaced("egress:\n- toEntities: [all]\n  toPorts: []");
    assert_eq!(egress(&text, &peer("shop", "cart")), allowed(ONE));
}

/// `pkg/policy/api/rule_validation.go`: one kind of peers an element.
#[test]
fn two_kinds_of_peers_in_one_element_are_refused() {
    let text = namespaced("egress:\n- toEndpoints: [{}]\n  toCIDR: [\"192.0.2.0/24\"]");
    assert_eq!(refusal(&text), "combining `toEndpoints` and `toCIDR` is not supported yet");
}

/// `pkg/k8s/apis/cilium.io/v2`: `specs` and `spec` add up.
#[test]
fn all_specs_of_a_policy_add_up() {
    let text = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: one, namespace: shop }
specs:
- endpointSelector: {}
  egress: [{ toEntities: [world] }]
- endpointSelector: { matchLabels: { app: web } }
  ingress: [{}]
";
    assert_eq!(egress(text, &range("192.0.2.1/32")), allowed(ONE));
    assert_eq!(ingress(text, &peer("shop", "cart")), Decision::NotAllowed);
    let cart = endpoint_policy(&policies(text), &pod("shop", "cart"));
    assert!(!cart.ingress.default_deny && cart.egress.default_deny);
}
