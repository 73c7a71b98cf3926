//! `NetworkPolicy`.

use super::*;

/// `networking.k8s.io/v1`: a policy without rules denies what its types name.
#[test]
fn a_policy_without_rules_denies_its_directions() {
    let text = kubernetes("policyTypes: [Ingress, Egress]");
    assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
    assert_eq!(ingress(&text, &peer("shop", "cart")), Decision::NotAllowed);
    let text = kubernetes("policyTypes: [Egress]");
    assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
    assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
}

/// `PolicyTypes` of `networking.k8s.io/v1`: ingress always, egress with rules.
#[test]
fn types_follow_from_rules_when_they_are_not_given() {
    let text = kubernetes("ingress: []");
    assert_eq!(ingress(&text, &peer("shop", "cart")), Decision::NotAllowed);
    assert_eq!(egress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
    let text = kubernetes("egress:\n- to: [{ podSelector: {} }]");
    assert_eq!(ingress(&text, &peer("shop", "cart")), Decision::NotAllowed);
    assert_eq!(egress(&text, &peer("shop", "cart")), allowed(KUBERNETES));
    assert_eq!(egress(&text, &peer("pay", "cart")), Decision::NotAllowed);
}

/// Kubernetes ignores such rules, `pkg/k8s/network_policy.go` does not.
#[test]
fn rules_for_a_direction_that_is_left_out_are_refused() {
    assert_eq!(
        refusal(&kubernetes("policyTypes: [Ingress]\negress: [{}]")),
        "rules for a direction that `policyTypes` leaves out: `egress`"
    );
}

/// `NetworkPolicyPeer` of `networking.k8s.io/v1`.
#[test]
fn peers_are_pods_namespaces_both_or_ranges() {
    let to = |peer: &str| kubernetes(&format!("policyTypes: [Egress]\negress:\n- to: [{peer}]"));
    let ledger = peer("pay", "ledger");
    let text = to("{ namespaceSelector: { matchLabels: { team: pay } } }");
    assert_eq!(egress(&text, &ledger), allowed(KUBERNETES));
    assert_eq!(egress(&text, &peer("shop", "ledger")), Decision::NotAllowed);
    let text = to("{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: pay } } }");
    assert_eq!(egress(&text, &ledger), allowed(KUBERNETES));
    let text = to("{ namespaceSelector: { matchLabels: { team: pay } }, \
         podSelector: { matchLabels: { app: ledger } } }");
    assert_eq!(egress(&text, &ledger), allowed(KUBERNETES));
    assert_eq!(egress(&text, &peer("pay", "cart")), Decision::NotAllowed);
    let text = to("{ namespaceSelector: {} }");
    assert_eq!(egress(&text, &ledger), allowed(KUBERNETES));
    assert_eq!(egress(&text, &Identity::Reserved(Reserved::Health)), Decision::NotAllowed);
    let text = to("{ ipBlock: { cidr: 192.0.2.0/24, except: [192.0.2.9/32] } }");
    assert_eq!(egress(&text, &range("192.0.2.1/32")), allowed(KUBERNETES));
    assert_eq!(egress(&text, &range("192.0.2.9/32")), Decision::NotAllowed);
    let text = to("{ ipBlock: { cidr: 0.0.0.0/0 } }");
    assert_eq!(egress(&text, &ledger), Decision::NotAllowed);
}

#[test]
fn peers_that_are_both_or_nothing_are_refused() {
    for peer in ["{}", "{ podSelector: {}, ipBlock: { cidr: 192.0.2.0/24 } }"] {
        let text = kubernetes(&format!("ingress:\n- from: [{peer}]"));
        assert!(refusal(&text).starts_with("a peer is either"), "{peer}");
    }
}

/// `NetworkPolicyPort` of `networking.k8s.io/v1`: TCP unless it says otherwise.
#[test]
fn ports_are_numbers_names_and_ranges() {
    let text = kubernetes(
        "policyTypes: [Egress]\negress:\n- ports:\n  - { port: 80 }\n  \
         - { port: 1000, endPort: 1010 }\n  - { port: admin }\n  - { protocol: UDP }",
    );
    let named = NamedPorts::from_iter([((Protocol::Tcp, "admin".to_owned()), 9000)]);
    let policy = web(&text).egress;
    let passes = |protocol, port| {
        policy.decide(&peer("pay", "ledger"), protocol, port, &named) == allowed(KUBERNETES)
    };
    assert!([80, 1000, 1010, 9000].into_iter().all(|port| passes(Protocol::Tcp, port)));
    assert!(!passes(Protocol::Tcp, 1011));
    assert!(passes(Protocol::Udp, 4711));
    assert!(!passes(Protocol::Icmp, 0));
}

#[test]
fn broken_ports_are_refused() {
    for (port, message) in [
        ("{ port: 0 }", "`0` is no port"),
        ("{ port: 70000 }", "`70000` is no port"),
        ("{ port: \"80\" }", "`80` is no name of a port"),
        ("{ port: 80, endPort: 79 }", "`endPort` is before `port`"),
        ("{ port: web, endPort: 79 }", "`endPort` needs a `port` that is a number"),
        ("{ endPort: 79 }", "`endPort` needs a `port` that is a number"),
        ("{ port: 80, protocol: SCTP }", "protocol `SCTP` is not evaluated"),
    ] {
        assert_eq!(refusal(&kubernetes(&format!("ingress:\n- ports: [{port}]"))), message);
    }
}
