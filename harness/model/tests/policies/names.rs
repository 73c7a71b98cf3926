//! Rules for names, and the DNS proxy.

use super::*;

const DNS: &str = "egress:\n- toEndpoints: [{ matchLabels: { app: dns } }]\n  toPorts:\n  \
                   - ports: [{ port: \"53\", protocol: ANY }]\n    \
                   rules: { dns: [{ matchName: api.zt.test }] }";

fn inspected(by: &[&str], dns: Vec<DnsRule>) -> Decision {
    Decision::Inspected { by: by.iter().map(|it| reference(it)).collect(), dns }
}

fn api() -> DnsRule {
    DnsRule::name("api.zt.test").expect("it is a name")
}

/// `docs security/policy/language` DNS.
#[test]
fn queries_go_to_the_proxy() {
    let to = peer("shop", "dns");
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let decision = egress_on(&namespaced(DNS), &to, protocol, 53);
        assert_eq!(decision, inspected(&[ONE], vec![api()]));
    }
    assert_eq!(egress_on(&namespaced(DNS), &to, Protocol::Udp, 54), Decision::NotAllowed);
    let other = peer("shop", "web");
    assert_eq!(egress_on(&namespaced(DNS), &other, Protocol::Udp, 53), Decision::NotAllowed);
}

/// `createL4Filter` in `pkg/policy/l4.go` of 1.20, and seen on a real cluster: names get a wildcard
/// where no policy denies by default. The documents (`security/policy/intro`) still say otherwise.
#[test]
fn names_are_narrowed_only_where_egress_is_denied_by_default() {
    let additive = namespaced(&format!("enableDefaultDeny: {{ egress: false }}\n{DNS}"));
    let dns = peer("shop", "dns");
    let decision = egress_on(&additive, &dns, Protocol::Udp, 53);
    assert_eq!(decision, inspected(&[ONE], vec![DnsRule::any()]));
    assert_eq!(egress(&additive, &peer("pay", "ledger")), NOTHING_ENFORCED);

    let denied = format!("{additive}---\n{}", clusterwide("egress: [{}]"));
    let Decision::Inspected { dns, .. } = egress_on(&denied, &dns, Protocol::Udp, 53) else {
        panic!("it is inspected");
    };
    assert_eq!(dns, [api()]);
}

/// `mergePortProto` in `pkg/policy/rule.go`: the names of all policies are allowed.
#[test]
fn names_add_up() {
    let wide = clusterwide(
        "egress:\n- toEndpoints: [{ matchLabels: { app: dns } }]\n  toPorts:\n  \
         - ports: [{ port: \"53\", protocol: UDP }]\n    \
         rules: { dns: [{ matchPattern: \"*.zt.test\" }] }",
    );
    let text = format!("{}---\n{wide}", namespaced(DNS));
    let Decision::Inspected { by, dns } = egress_on(&text, &peer("shop", "dns"), Protocol::Udp, 53)
    else {
        panic!("it is inspected");
    };
    assert_eq!(by.len(), 2);
    assert_eq!(dns, [api(), DnsRule::pattern("*.zt.test").unwrap()]);
}

/// `pkg/policy/rule.go` appendL7WildcardRule: an allowance of the very port without names lets
/// all of them pass.
#[test]
fn a_plain_rule_for_the_same_port_allows_every_name() {
    let wide = clusterwide("egress:\n- toPorts:\n  - ports: [{ port: \"53\", protocol: UDP }]");
    let text = format!("{}---\n{wide}", namespaced(DNS));
    let to = peer("shop", "dns");
    assert_eq!(
        egress_on(&text, &to, Protocol::Udp, 53),
        inspected(&[ONE, WIDE], vec![DnsRule::any()]),
    );
    assert_eq!(egress_on(&text, &to, Protocol::Tcp, 53), inspected(&[ONE], vec![api()]));
}

/// `pkg/policy/types/entry.go`: a redirect has precedence over the wider allowance.
#[test]
fn a_plain_rule_for_all_ports_opens_no_name() {
    let wide = clusterwide("egress:\n- toEntities: [all]");
    let text = format!("{}---\n{wide}", namespaced(DNS));
    let decision = egress_on(&text, &peer("shop", "dns"), Protocol::Udp, 53);
    assert_eq!(decision, inspected(&[ONE, WIDE], vec![api()]));
}

/// `docs security/policy/deny`: denies come before the proxy.
#[test]
fn a_denied_server_is_not_asked() {
    let text = namespaced(&format!("{DNS}\negressDeny:\n- toEndpoints: [{{}}]"));
    assert_eq!(egress_on(&text, &peer("shop", "dns"), Protocol::Udp, 53), denied(ONE));
}

/// `pkg/policy/api/rule_validation.go`.
#[test]
fn broken_rules_for_names_are_refused() {
    for (ports, rules, message) in [
        ("", "matchName: a.b", "DNS rules need the port of the DNS server"),
        ("{ port: \"0\" }", "matchName: a.b", "DNS rules need a port other than 0"),
        ("{ port: \"53\", endPort: 54 }", "matchName: a.b", "DNS rules do not support port ranges"),
        (
            "{ port: \"53\" }",
            "matchName: a.b, matchPattern: \"*\"",
            "a DNS rule has either `matchName` or `matchPattern`",
        ),
        ("{ port: \"53\" }", "", "a DNS rule has either `matchName` or `matchPattern`"),
        ("{ port: \"53\" }", "matchName: \"*.b\"", "`*` does not belong into a name here"),
    ] {
        let text = namespaced(&format!(
            "egress:\n- toPorts:\n  - ports: [{ports}]\n    rules: {{ dns: [{{ {rules} }}] }}"
        ));
        assert_eq!(refusal(&text), message);
    }
    let ingress = namespaced(&DNS.replace("egress:", "ingress:").replace("toE", "fromE"));
    assert_eq!(refusal(&ingress), "DNS rules are not allowed on ingress");
    let empty = namespaced(&DNS.replace("dns: [{ matchName: api.zt.test }]", "dns: []"));
    assert_eq!(refusal(&empty), "`rules` without names restrict nothing");
}
