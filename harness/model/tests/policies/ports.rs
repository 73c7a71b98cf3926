//! Ports of Cilium policies.

use super::*;

/// `pkg/policy/api/l4.go`, and `pkg/policy/rule.go` for ANY.
#[test]
fn ports_are_numbers_names_and_ranges() {
    let text = namespaced(
        "egress:\n- toPorts:\n  - ports:\n    \
         - { port: \"80\", protocol: TCP }\n    \
         - { port: \"1000\", endPort: 1010, protocol: UDP }\n    \
         - { port: Admin, protocol: TCP }\n    \
         - { port: \"53\", protocol: ANY }\n    \
         - { port: \"123\" }",
    );
    let named = NamedPorts::from_iter([((Protocol::Tcp, "admin".to_owned()), 9000)]);
    let policy = web(&text).egress;
    let passes = |protocol, port| {
        policy.decide(&peer("pay", "ledger"), protocol, port, &named) == allowed(ONE)
    };
    for (protocol, port) in [
        (Protocol::Tcp, 80),
        (Protocol::Udp, 1000),
        (Protocol::Udp, 1010),
        (Protocol::Tcp, 9000),
        (Protocol::Tcp, 53),
        (Protocol::Udp, 53),
        (Protocol::Udp, 123),
    ] {
        assert!(passes(protocol, port), "{protocol} {port}");
    }
    for (protocol, port) in [
        (Protocol::Udp, 80),
        (Protocol::Tcp, 81),
        (Protocol::Udp, 1011),
        (Protocol::Tcp, 1005),
        (Protocol::Udp, 9000),
        (Protocol::Icmp, 0),
    ] {
        assert!(!passes(protocol, port), "{protocol} {port}");
    }
}

/// `pkg/policy/api/rule_validation.go`: port 0 is every port of its protocol.
#[test]
fn port_zero_is_every_port() {
    let text = namespaced("egress:\n- toPorts:\n  - ports: [{ port: \"0\", protocol: UDP }]");
    assert_eq!(egress_on(&text, &peer("shop", "cart"), Protocol::Udp, 4711), allowed(ONE));
    assert_eq!(egress_on(&text, &peer("shop", "cart"), Protocol::Tcp, 4711), Decision::NotAllowed);
}

#[test]
fn broken_ports_are_refused() {
    for (port, message) in [
        ("{ port: \"65536\" }", "`65536` is no port"),
        ("{ port: \"010\" }", "`010` is no port"),
        ("{ port: \"-1\" }", "`-1` is no port"),
        ("{ port: \"\" }", "`` is no port"),
        ("{ port: \"80\", endPort: 79 }", "`endPort` 79 is no end for port 80"),
        ("{ port: \"0\", endPort: 79 }", "`endPort` 79 is no end for port 0"),
        ("{ port: web, endPort: 79 }", "a named port has no `endPort`"),
        ("{ port: \"80\", protocol: SCTP }", "protocol `SCTP` is not evaluated"),
    ] {
        let text = namespaced(&format!("egress:\n- toPorts:\n  - ports: [{port}]"));
        assert_eq!(refusal(&text), message);
    }
}

/// `maxPorts` in `pkg/policy/api/rule_validation.go`.
#[test]
fn more_than_forty_ports_are_refused() {
    let ports: Vec<_> = (1..=41).map(|port| format!("{{ port: \"{port}\" }}")).collect();
    let text = namespaced(&format!("egress:\n- toPorts:\n  - ports: [{}]", ports.join(", ")));
    assert_eq!(refusal(&text), "more than 40 ports in one list");
}
