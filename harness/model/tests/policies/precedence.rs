//! Which rule wins.

use super::*;

/// `docs security/policy/deny`, recorded: the deny beat an allow of the same /32.
#[test]
fn deny_beats_allow_across_policies() {
    let allow = namespaced("egress:\n- toCIDR: [\"169.254.169.254/32\"]");
    let deny = clusterwide("egressDeny:\n- toCIDR: [\"169.254.169.254/32\"]");
    for text in [format!("{allow}---\n{deny}"), format!("{deny}---\n{allow}")] {
        assert_eq!(egress(&text, &range("169.254.169.254/32")), denied(WIDE));
    }
}

/// `pkg/policy/mapstate.go`: a wide deny covers a narrow allow.
#[test]
fn a_wide_deny_covers_a_narrow_allow() {
    let text = namespaced(
        "egress:\n- toEndpoints: [{ matchLabels: { app: cart } }]\n  \
         toPorts:\n  - ports: [{ port: \"8080\", protocol: TCP }]\n\
         egressDeny:\n- toEntities: [cluster]",
    );
    assert_eq!(egress(&text, &peer("shop", "cart")), denied(ONE));
}

/// `pkg/policy/mapstate.go`: a deny on one port leaves the others.
#[test]
fn a_deny_of_a_port_leaves_the_others() {
    let text = namespaced(
        "egress:\n- toEntities: [all]\n\
         egressDeny:\n- toEntities: [all]\n  toPorts:\n  - ports: [{ port: \"8080\", protocol: TCP }]",
    );
    assert_eq!(egress(&text, &peer("shop", "cart")), denied(ONE));
    assert_eq!(egress_on(&text, &peer("shop", "cart"), Protocol::Tcp, 8081), allowed(ONE));
    assert_eq!(egress_on(&text, &peer("shop", "cart"), Protocol::Udp, 8080), allowed(ONE));
    assert_eq!(egress_on(&text, &peer("shop", "cart"), Protocol::Icmp, 0), allowed(ONE));
}

/// `docs`: all three kinds are in one tier; allowances add up.
#[test]
fn every_policy_that_allows_is_named() {
    let text = format!(
        "{}---\n{}---\n{}",
        namespaced("egress:\n- toEntities: [all]"),
        clusterwide("egress:\n- toEntities: [cluster]"),
        kubernetes("policyTypes: [Egress]\negress: [{}]"),
    );
    let by = [WIDE, ONE, KUBERNETES].map(reference);
    let Decision::Allowed { by: found } = egress(&text, &peer("pay", "ledger")) else {
        panic!("it is allowed");
    };
    assert_eq!(found.len(), 3);
    assert!(by.iter().all(|policy| found.contains(policy)));
    assert!(found.is_sorted());
}
