//! What holds for all policies of the mesh, at a ztunnel and at a waypoint.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use ztc_model::policy::mesh::waypoint::{self, Asked, Named, Request, Token, WaypointPolicies};
use ztc_model::policy::mesh::{Mode, PeerAuthentication, TargetRef};
use ztc_model::policy::{PolicyKind, PolicyRef};

use super::*;

fn namespace() -> impl Strategy<Value = &'static str> {
    select(vec!["bank", "visit", "istio-system"])
}

fn source() -> impl Strategy<Value = String> {
    let lists = vec![
        "principals: [\"*\"]",
        "principals: [cluster.local/ns/bank/sa/teller]",
        "notPrincipals: [\"*/sa/clerk\"]",
        "namespaces: [visit]",
        "notNamespaces: [\"b*\"]",
        "serviceAccounts: [bank/clerk]",
        "ipBlocks: [10.1.0.0/16]",
        "notIpBlocks: [10.1.0.5]",
        "requestPrincipals: [\"*\"]",
    ];
    select(lists).prop_map(|it| format!("{{ source: {{ {it} }} }}"))
}

fn operation() -> impl Strategy<Value = String> {
    let lists = vec![
        "ports: [\"9000\"]",
        "notPorts: [\"8080\"]",
        "methods: [GET]",
        "ports: [\"8080\"], paths: [/a]",
    ];
    select(lists).prop_map(|it| format!("{{ operation: {{ {it} }} }}"))
}

fn condition() -> impl Strategy<Value = String> {
    let conditions = vec![
        "{ key: source.namespace, values: [bank] }",
        "{ key: destination.port, notValues: [\"9000\"] }",
        "{ key: \"request.headers[x]\", values: [ledger] }",
    ];
    select(conditions).prop_map(str::to_owned)
}

fn list(
    name: &'static str,
    parts: impl Strategy<Value = String>,
) -> impl Strategy<Value = Option<String>> {
    let lists = vec(parts, 1..3).prop_map(move |it| format!("{name}: [{}]", it.join(", ")));
    proptest::option::of(lists)
}

fn rule() -> impl Strategy<Value = String> {
    (list("from", source()), list("to", operation()), list("when", condition())).prop_map(
        |(from, to, when)| {
            let parts: Vec<String> = [from, to, when].into_iter().flatten().collect();
            format!("{{ {} }}", parts.join(", "))
        },
    )
}

fn authorization_of(action: &'static str) -> impl Strategy<Value = MeshPolicy> {
    let selector = select(vec![
        "",
        "selector: { matchLabels: { app: ledger } }",
        "selector: { matchLabels: { app: x } }",
    ]);
    (namespace(), selector, vec(rule(), 1..3)).prop_map(move |(namespace, selector, rules)| {
        let spec = format!("{selector}\naction: {action}\nrules: [{}]", rules.join(", "));
        policies(&authorization(namespace, "x", spec.trim_start())).remove(0)
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::Unset, Mode::Disable, Mode::Permissive, Mode::Strict])
}

fn peers_of() -> impl Strategy<Value = MeshPolicy> {
    let ports = proptest::collection::btree_map(select(vec![8080, 9000]), mode(), 0..3);
    (namespace(), any::<bool>(), mode(), ports).prop_map(|(namespace, selects, mode, ports)| {
        MeshPolicy::Peers(PeerAuthentication {
            reference: PolicyRef {
                kind: PolicyKind::PeerAuthentication,
                namespace: Some(namespace.to_owned()),
                name: "modes".to_owned(),
            },
            selector: if selects { labels([("app", "ledger")]) } else { BTreeMap::new() },
            mode,
            ports: if selects { ports } else { BTreeMap::new() },
        })
    })
}

fn policy() -> impl Strategy<Value = MeshPolicy> {
    prop_oneof![
        authorization_of("ALLOW"),
        authorization_of("DENY"),
        authorization_of("AUDIT"),
        peers_of()
    ]
}

/// Policies with names of their own, as objects of a cluster have.
fn set(policy: impl Strategy<Value = MeshPolicy>) -> impl Strategy<Value = Vec<MeshPolicy>> {
    vec(policy, 0..5).prop_map(|mut policies| {
        for (number, policy) in policies.iter_mut().enumerate() {
            let reference = match policy {
                MeshPolicy::Peers(policy) => &mut policy.reference,
                MeshPolicy::Requests(policy) => &mut policy.reference,
                MeshPolicy::Authorization(policy) => &mut policy.reference,
            };
            reference.name = format!("policy-{number}");
        }
        policies
    })
}

fn flow() -> impl Strategy<Value = Connection> {
    let peers = vec![TELLER, CLERK, VISITOR, IN_PLAIN];
    (select(peers), select(vec![8080, 9000])).prop_map(|(peer, port)| connection(peer, port))
}

fn decided(policies: &[MeshPolicy], connection: &Connection) -> Decision {
    let labels = labels([("app", "ledger")]);
    let told = Distributed::of(policies);
    told.of_workload(&Workload { namespace: "bank", labels: &labels }).decide(connection)
}

proptest! {
    #[test]
    fn adding_an_allow_never_lets_pass_what_a_deny_stops(
        policies in set(policy()),
        allow in authorization_of("ALLOW"),
        flow in flow(),
    ) {
        let before = decided(&policies, &flow);
        if matches!(before, Decision::Denied { .. }) {
            let more = [policies, vec![allow]].concat();
            prop_assert_eq!(decided(&more, &flow), before);
        }
    }

    #[test]
    fn adding_a_deny_never_lets_pass_what_was_stopped(
        policies in set(policy()),
        deny in authorization_of("DENY"),
        flow in flow(),
    ) {
        let before = decided(&policies, &flow);
        let more = [policies, vec![deny]].concat();
        if before != Decision::Allowed {
            prop_assert_ne!(decided(&more, &flow), Decision::Allowed);
        }
    }

    #[test]
    fn what_is_not_allowed_needs_an_allow_policy(policies in set(policy()), flow in flow()) {
        let allows = |it: &MeshPolicy| {
            matches!(it, MeshPolicy::Authorization(it) if it.action == ztc_model::policy::mesh::Action::Allow)
        };
        if !policies.iter().any(allows) {
            prop_assert_ne!(decided(&policies, &flow), Decision::NotAllowed);
        }
    }

    #[test]
    fn modes_stop_nobody_with_a_certificate(modes in set(peers_of()), port in select(vec![8080, 9000])) {
        prop_assert_eq!(decided(&modes, &connection(TELLER, port)), Decision::Allowed);
    }

    /// Of authorizations, which have no age that counts.
    #[test]
    fn the_order_of_authorizations_does_not_matter(
        policies in set(prop_oneof![authorization_of("ALLOW"), authorization_of("DENY")]),
        flow in flow(),
    ) {
        let reversed: Vec<MeshPolicy> = policies.iter().rev().cloned().collect();
        prop_assert_eq!(decided(&policies, &flow), decided(&reversed, &flow));
    }

    #[test]
    fn a_policy_is_named_only_if_it_is_there(policies in set(policy()), flow in flow()) {
        let told = Distributed::of(&policies);
        if let Decision::Denied { by } = decided(&policies, &flow) {
            prop_assert!(by.iter().all(|key| told.keys().contains(key)));
            prop_assert!(!by.is_empty());
        }
    }

    #[test]
    fn a_refusal_has_an_error_and_nothing_else_has(policies in set(policy()), flow in flow()) {
        let decision = decided(&policies, &flow);
        prop_assert_eq!(decision.error().is_some(), decision != Decision::Allowed);
    }
}

/// The same policy, bound to the gateway instead of by its selector.
fn bound(policy: &MeshPolicy) -> MeshPolicy {
    let mut policy = policy.clone();
    if let MeshPolicy::Authorization(policy) = &mut policy {
        policy.reference.namespace = Some("bank".to_owned());
        policy.selector.clear();
        policy.target_refs = vec![TargetRef {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            name: "waypoint".to_owned(),
        }];
    }
    policy
}

fn bound_of(policies: &[MeshPolicy], asked: &Asked) -> waypoint::Decision {
    let gateway = Named { namespace: "bank", name: "waypoint" };
    let policies: Vec<MeshPolicy> = policies.iter().map(bound).collect();
    WaypointPolicies::of(&policies, gateway, None).expect("all of it is evaluated").decide(asked)
}

fn asked() -> impl Strategy<Value = Asked> {
    let request =
        (select(vec!["GET", "POST"]), select(vec!["/a", "/b"])).prop_map(|(method, path)| {
            Request {
                method: method.to_owned(),
                path: path.to_owned(),
                host: "ledger".to_owned(),
                headers: BTreeMap::new(),
                token: Token::Absent,
            }
        });
    (flow(), proptest::option::of(request)).prop_map(|(flow, request)| Asked {
        peer: flow.peer,
        source: flow.source,
        destination: flow.destination,
        request,
    })
}

proptest! {
    #[test]
    fn at_a_waypoint_an_allow_never_lets_pass_what_a_deny_stops(
        policies in set(policy()),
        allow in authorization_of("ALLOW"),
        asked in asked(),
    ) {
        let before = bound_of(&policies, &asked);
        if matches!(before, waypoint::Decision::Denied { .. }) {
            let more = [policies, vec![allow]].concat();
            prop_assert_eq!(bound_of(&more, &asked), before);
        }
    }

    #[test]
    fn at_a_waypoint_a_deny_never_lets_pass_what_was_stopped(
        policies in set(policy()),
        deny in authorization_of("DENY"),
        asked in asked(),
    ) {
        let before = bound_of(&policies, &asked);
        let more = [policies, vec![deny]].concat();
        if before != waypoint::Decision::Forwarded {
            prop_assert_ne!(bound_of(&more, &asked), waypoint::Decision::Forwarded);
        }
    }

    #[test]
    fn a_waypoint_answers_whatever_it_stops_and_says_why(policies in set(policy()), asked in asked()) {
        let decision = bound_of(&policies, &asked);
        let is_stopped = decision != waypoint::Decision::Forwarded;
        prop_assert_eq!(decision.status().is_some(), is_stopped);
        prop_assert_eq!(decision.details().is_some(), is_stopped);
    }

    #[test]
    fn a_policy_is_enforced_by_a_ztunnel_or_a_waypoint_and_never_by_both(
        policies in set(policy()),
        flow in flow(),
        asked in asked(),
    ) {
        let gateway = Named { namespace: "bank", name: "waypoint" };
        let unbound = WaypointPolicies::of(&policies, gateway, None).expect("all of it is evaluated");
        prop_assert_eq!(unbound.decide(&asked), waypoint::Decision::Forwarded);
        let only: Vec<MeshPolicy> = policies
            .iter()
            .filter(|it| matches!(it, MeshPolicy::Authorization(_)))
            .map(bound)
            .collect();
        prop_assert_eq!(decided(&only, &flow), Decision::Allowed);
    }
}

#[test]
fn no_policy_stops_nobody() {
    for peer in [TELLER, IN_PLAIN] {
        assert_eq!(decided(&[], &connection(peer, 9000)), Decision::Allowed);
    }
}
