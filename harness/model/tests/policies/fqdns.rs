//! `toFQDNs`: addresses that were learnt for names.

use std::collections::BTreeSet;

use super::*;

const SHOP: &str = "egress:\n- toFQDNs: [{ matchName: api.zt.test }]\n  toPorts:\n  \
                    - ports: [{ port: \"443\", protocol: TCP }]";

/// An address that was learnt for a name that some `toFQDNs` has these elements for.
fn learnt(rules: &[&str], range: Option<&str>) -> Identity {
    let names: BTreeSet<DnsRule> =
        rules.iter().map(|it| DnsRule::pattern(it).expect("it is a pattern")).collect();
    let names = names.into_iter().map(|rule| match rule {
        DnsRule::MatchPattern(text) if !text.contains('*') => DnsRule::MatchName(text),
        rule => rule,
    });
    let range = range.map(|text| text.parse().expect("it is a range"));
    Identity::Fqdn { names: names.collect(), range }
}

/// `docs security/policy/language` DNS based: allowed are the addresses of the name, on the ports.
#[test]
fn a_learnt_address_is_allowed_on_the_ports_of_its_rule() {
    let api = learnt(&["api.zt.test"], None);
    let text = namespaced(SHOP);
    assert_eq!(egress_on(&text, &api, Protocol::Tcp, 443), allowed(ONE));
    assert_eq!(egress_on(&text, &api, Protocol::Tcp, 80), Decision::NotAllowed);
    let other = learnt(&["other.zt.test"], None);
    assert_eq!(egress_on(&text, &other, Protocol::Tcp, 443), Decision::NotAllowed);
    let unknown = Identity::Reserved(Reserved::World);
    assert_eq!(egress_on(&text, &unknown, Protocol::Tcp, 443), Decision::NotAllowed);
}

/// `pkg/policy/api/fqdn.go` `IdentityLabel`: an element selects by its own label, so that the same
/// text as a name and as a pattern are two elements.
#[test]
fn an_element_selects_what_was_learnt_for_it() {
    let text = namespaced("egress:\n- toFQDNs: [{ matchPattern: \"*.zt.test\" }]");
    assert_eq!(egress(&text, &learnt(&["*.zt.test"], None)), allowed(ONE));
    assert_eq!(egress(&text, &learnt(&["api.zt.test"], None)), Decision::NotAllowed);
    let both = learnt(&["api.zt.test", "*.zt.test"], None);
    assert_eq!(egress(&text, &both), allowed(ONE));
}

/// `docs security/policy/language` DNS based: elements and rules are a union.
#[test]
fn names_of_all_rules_are_allowed() {
    let text = format!(
        "{}---\n{}",
        namespaced("egress:\n- toFQDNs: [{ matchName: a.test }, { matchName: b.test }]"),
        clusterwide("egress:\n- toFQDNs: [{ matchName: c.test }]"),
    );
    assert_eq!(egress(&text, &learnt(&["a.test"], None)), allowed(ONE));
    assert_eq!(egress(&text, &learnt(&["b.test"], None)), allowed(ONE));
    assert_eq!(egress(&text, &learnt(&["c.test"], None)), allowed(WIDE));
}

/// Recorded (surprise 3): a name that resolves to the metadata service is allowed unless its
/// address is denied; a learnt address is still one of its range and of the world.
#[test]
fn a_learnt_address_is_still_in_its_range_and_in_the_world() {
    let metadata = learnt(&["api.zt.test"], Some("169.254.169.254/32"));
    let denied_too = format!(
        "{}---\n{}",
        namespaced("egress:\n- toFQDNs: [{ matchName: api.zt.test }]"),
        clusterwide("egressDeny:\n- toCIDR: [169.254.169.254/32]"),
    );
    assert_eq!(egress(&denied_too, &metadata), denied(WIDE));
    let world = namespaced("egress:\n- toEntities: [world]");
    assert_eq!(egress(&world, &metadata), allowed(ONE));
    let everything = namespaced("egress:\n- toCIDR: [0.0.0.0/0]");
    assert_eq!(egress(&everything, &learnt(&["api.zt.test"], None)), allowed(ONE));
}

/// Recorded (surprise 3) and `docs security/policy/language`: never an address of the cluster.
#[test]
fn names_select_neither_pods_nor_nodes() {
    let text = namespaced("egress:\n- toFQDNs: [{ matchPattern: \"*\" }]");
    assert_eq!(egress(&text, &peer("shop", "web")), Decision::NotAllowed);
    for node in [Reserved::Host, Reserved::RemoteNode, Reserved::KubeApiserver] {
        assert_eq!(egress(&text, &Identity::Reserved(node)), Decision::NotAllowed);
    }
}

/// `pkg/policy/api/rule_validation.go` `sanitize` of an egress rule and of an FQDN selector, and
/// `egressDeny`'s schema, which has no such field.
#[test]
fn broken_names_are_refused() {
    for (spec, message) in [
        (
            "egress:\n- toFQDNs: [{ matchName: a.test }]\n  toCIDR: [10.0.0.0/8]",
            "combining `toCIDR` and `toFQDNs` is not supported yet",
        ),
        (
            "egress:\n- toFQDNs: [{ matchName: a.test }]\n  toEntities: [world]",
            "combining `toEntities` and `toFQDNs` is not supported yet",
        ),
        (
            "egress:\n- toFQDNs: [{ matchName: a.test }]\n  toEndpoints: [{}]",
            "combining `toEndpoints` and `toFQDNs` is not supported yet",
        ),
        (
            "egress:\n- toFQDNs: [{ matchName: a.test, matchPattern: b.test }]",
            "an element of `toFQDNs` has either `matchName` or `matchPattern`",
        ),
        ("egress:\n- toFQDNs: [{ matchName: \"*.b\" }]", "`*` does not belong into a name here"),
        ("egress:\n- toFQDNs: []", "an empty `toFQDNs` is no list of nobody"),
        ("egressDeny:\n- toFQDNs: [{ matchName: a.test }]", "`egressDeny` has no `toFQDNs`"),
        ("ingress:\n- toFQDNs: [{ matchName: a.test }]", "unknown field `toFQDNs`"),
    ] {
        assert_eq!(refusal(&namespaced(spec)), message, "{spec}");
    }
}
