//! `icmps` of Cilium policies.

use super::*;

const CART: fn() -> Identity = || peer("shop", "cart");

/// `pkg/policy/api/icmp.go`: the family is IPv4 unless it says otherwise, and a type is matched as
/// a port is.
#[test]
fn a_type_is_allowed_and_no_other_message() {
    for kind in ["8", "EchoRequest", "Echo"] {
        let text = namespaced(&format!("egress:\n- icmps:\n  - fields: [{{ type: {kind} }}]"));
        assert_eq!(egress_on(&text, &CART(), Protocol::Icmp, 8), allowed(ONE));
        assert_eq!(egress_on(&text, &CART(), Protocol::Icmp, 13), Decision::NotAllowed);
        assert_eq!(egress_on(&text, &CART(), Protocol::Icmpv6, 128), Decision::NotAllowed);
        assert_eq!(egress_on(&text, &CART(), Protocol::Tcp, 8), Decision::NotAllowed);
    }
}

#[test]
fn each_family_has_its_own_rule() {
    let text = namespaced(
        "egress:\n- icmps:\n  - fields: [{ family: IPv6, type: EchoRequest }, { family: IPv4, type: 11 }]",
    );
    assert_eq!(egress_on(&text, &CART(), Protocol::Icmpv6, 128), allowed(ONE));
    assert_eq!(egress_on(&text, &CART(), Protocol::Icmp, 11), allowed(ONE));
    assert_eq!(egress_on(&text, &CART(), Protocol::Icmp, 8), Decision::NotAllowed);
}

#[test]
fn an_icmp_deny_rule_denies_the_message_and_nothing_else() {
    let text = namespaced(
        "egress:\n- toEntities: [all]\negressDeny:\n- icmps:\n  - fields: [{ type: 8 }]",
    );
    assert_eq!(egress_on(&text, &CART(), Protocol::Icmp, 8), denied(ONE));
    assert_eq!(egress_on(&text, &CART(), Protocol::Tcp, 8), allowed(ONE));
}

/// `mergeL4Filter` in `pkg/policy/rule.go`: an entry without fields adds nothing, and an empty list
/// is none.
#[test]
fn an_entry_without_fields_allows_no_message() {
    let text = namespaced("egress:\n- toEntities: [all]\n  icmps: [{}]");
    assert_eq!(egress_on(&text, &CART(), Protocol::Icmp, 8), Decision::NotAllowed);
    let text = namespaced("egress:\n- toEntities: [all]\n  icmps: []");
    assert_eq!(egress_on(&text, &CART(), Protocol::Icmp, 8), allowed(ONE));
}

#[test]
fn broken_icmp_rules_are_refused() {
    for (rule, message) in [
        ("fields: [{ type: 0 }]", "type 0 of ICMP is not evaluated"),
        ("fields: [{ type: 256 }]", "`256` is no type of ICMP that is evaluated"),
        ("fields: [{ type: Pong }]", "`Pong` is no type of ICMP that is evaluated"),
        ("fields: [{ type: PacketTooBig }]", "`PacketTooBig` is no type of ICMP that is evaluated"),
        ("fields: [{ family: IPv5, type: 8 }]", "`IPv5` is no family of ICMP"),
    ] {
        let text = namespaced(&format!("egress:\n- icmps: [{{ {rule} }}]"));
        assert_eq!(refusal(&text), message);
    }
    let text = namespaced(
        "egress:\n- toPorts:\n  - ports: [{ port: \"80\" }]\n  icmps:\n  - fields: [{ type: 8 }]",
    );
    assert_eq!(refusal(&text), "`icmps` and `toPorts` cannot be combined in one element");
}
