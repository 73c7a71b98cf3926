//! What holds for all policies, labels and texts.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use ztc_model::dns::DnsRule;
use ztc_model::identity::{Identity, Reserved};
use ztc_model::labels::{ANY, K8S, Labels};
use ztc_model::manifest::manifests;
use ztc_model::policy::{
    Decision, DirectionPolicy, Effect, NamedPorts, Peer, PeerSelector, PolicyKind, PolicyRef,
    PortMatch, PortSelector, Ports, Protocol, Rule,
};
use ztc_model::selector::{Condition, Requirement, Selector};
use ztc_model::yaml::{Source, strict};

fn key() -> impl Strategy<Value = &'static str> {
    select(vec!["app", "team", "tier"])
}

fn value() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn pod() -> impl Strategy<Value = Labels> {
    vec((key(), value()), 0..4).prop_map(|labels| {
        let with = |pod: Labels, (key, value): (&str, String)| pod.with(K8S, key, &value);
        labels.into_iter().fold(Labels::new(), with)
    })
}

fn values() -> impl Strategy<Value = BTreeSet<String>> {
    btree_set(value(), 1..3)
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let condition = prop_oneof![
        values().prop_map(Condition::In),
        values().prop_map(Condition::NotIn),
        Just(Condition::Exists),
        Just(Condition::DoesNotExist),
    ];
    (select(vec![K8S, ANY]), key(), condition)
        .prop_map(|(source, key, condition)| Requirement::new(source, key, condition))
}

fn selector() -> impl Strategy<Value = Selector> {
    vec(requirement(), 0..3).prop_map(Selector::from_iter)
}

/// A range inside 10.0.0.0/8, from few enough that they meet.
fn range() -> impl Strategy<Value = ipnet::IpNet> {
    (0..3_u8, select(vec![8, 16, 24, 32])).prop_map(|(octet, length)| {
        ipnet::IpNet::new([10, octet, octet, octet].into(), length)
            .expect("the lengths are below 33")
            .trunc()
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![
        pod().prop_map(Identity::Endpoint),
        select(Reserved::ALL.to_vec()).prop_map(Identity::Reserved),
        range().prop_map(Identity::Cidr),
        (btree_set(name_rule(), 1..3), proptest::option::of(range()))
            .prop_map(|(names, range)| Identity::Fqdn { names, range }),
    ]
}

fn peers() -> impl Strategy<Value = PeerSelector> {
    let peer = prop_oneof![
        selector().prop_map(Peer::Labels),
        (range(), vec(range(), 0..3)).prop_map(|(range, except)| Peer::Cidr { range, except }),
        name_rule().prop_map(Peer::Fqdn),
    ];
    vec(peer, 1..3).prop_map(PeerSelector::any_of)
}

fn port_of_flow() -> impl Strategy<Value = (Protocol, u16)> {
    let protocols = vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    (select(protocols), select(vec![53, 80, 81]))
}

fn ports() -> impl Strategy<Value = PortSelector> {
    let ports = prop_oneof![
        Just(Ports::All),
        select(vec![53, 80, 81]).prop_map(Ports::One),
        Just(Ports::Range(80, 81)),
        Just(Ports::Named("web".to_owned())),
    ];
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
    let one = (protocol, ports).prop_map(|(protocol, ports)| PortMatch { protocol, ports });
    prop_oneof![Just(PortSelector::All), vec(one, 1..3).prop_map(PortSelector::AnyOf)]
}

fn name_rule() -> impl Strategy<Value = DnsRule> {
    select(vec!["api.zt.test", "*.zt.test", "*"])
        .prop_map(|pattern| DnsRule::pattern(pattern).expect("these are patterns"))
}

fn names() -> impl Strategy<Value = Option<Vec<DnsRule>>> {
    proptest::option::weighted(0.3, vec(name_rule(), 1..3))
}

fn rule(effect: Effect) -> impl Strategy<Value = Rule> {
    (select(vec!["one", "two", "three"]), peers(), ports(), names()).prop_map(
        move |(name, peers, ports, dns)| Rule {
            origin: PolicyRef {
                kind: PolicyKind::CiliumClusterwideNetworkPolicy,
                namespace: None,
                name: name.to_owned(),
            },
            effect,
            peers,
            ports,
            dns: dns.filter(|_| effect == Effect::Allow),
        },
    )
}

fn direction() -> impl Strategy<Value = DirectionPolicy> {
    let rule = prop_oneof![3 => rule(Effect::Allow), 1 => rule(Effect::Deny)];
    (any::<bool>(), any::<bool>(), vec(rule, 0..5)).prop_map(
        |(default_deny, allows_host, rules)| DirectionPolicy { default_deny, allows_host, rules },
    )
}

/// What every flow below is decided by.
fn decide(policy: &DirectionPolicy, peer: &Identity, flow: (Protocol, u16)) -> Decision {
    let named = NamedPorts::from_iter([((Protocol::Tcp, "web".to_owned()), 80)]);
    policy.decide(peer, flow.0, flow.1, &named)
}

fn passes(decision: &Decision) -> bool {
    matches!(decision, Decision::Allowed { .. } | Decision::Inspected { .. })
}

/// Whether a query for a name, sent on such a flow, is answered.
fn lets_name_pass(decision: &Decision, name: &str) -> bool {
    match decision {
        Decision::Allowed { .. } => true,
        Decision::Inspected { dns, .. } => dns.iter().any(|rule| rule.matches(name)),
        Decision::Denied { .. } | Decision::NotAllowed => false,
    }
}

proptest! {
    #[test]
    fn the_order_of_rules_does_not_matter(
        (policy, shuffled) in direction().prop_flat_map(|policy| {
            let shuffled = Just(policy.rules.clone()).prop_shuffle();
            (Just(policy), shuffled)
        }),
        peer in identity(),
        flow in port_of_flow(),
    ) {
        let other = DirectionPolicy { rules: shuffled, ..policy.clone() };
        prop_assert_eq!(decide(&policy, &peer, flow), decide(&other, &peer, flow));
    }

    #[test]
    fn a_deny_rule_wins_wherever_it_stands(
        mut policy in direction(),
        mut deny in rule(Effect::Deny),
        place in 0..6_usize,
        peer in identity(),
        flow in port_of_flow(),
    ) {
        deny.peers = PeerSelector::all();
        deny.ports = PortSelector::All;
        policy.rules.insert(place.min(policy.rules.len()), deny.clone());
        let Decision::Denied { by } = decide(&policy, &peer, flow) else {
            return Err(TestCaseError::fail("it must be denied"));
        };
        prop_assert!(by.contains(&deny.origin));
    }

    #[test]
    fn one_more_allowance_closes_nothing(
        policy in direction(),
        allow in rule(Effect::Allow),
        peer in identity(),
        flow in port_of_flow(),
    ) {
        let mut wider = policy.clone();
        wider.rules.push(Rule { dns: None, ..allow });
        let (before, after) = (decide(&policy, &peer, flow), decide(&wider, &peer, flow));
        for name in ["api.zt.test", "evil.zt.test", "evil.test"] {
            prop_assert!(lets_name_pass(&after, name) || !lets_name_pass(&before, name));
        }
    }

    #[test]
    fn one_more_deny_rule_opens_nothing(
        policy in direction(),
        deny in rule(Effect::Deny),
        peer in identity(),
        flow in port_of_flow(),
    ) {
        let mut narrower = policy.clone();
        narrower.rules.push(deny);
        if !passes(&decide(&policy, &peer, flow)) {
            prop_assert!(!passes(&decide(&narrower, &peer, flow)));
        }
    }

    #[test]
    fn only_default_deny_drops_what_no_rule_is_about(
        policy in direction(),
        peer in identity(),
        flow in port_of_flow(),
    ) {
        if decide(&policy, &peer, flow) == Decision::NotAllowed {
            prop_assert!(policy.default_deny);
        }
    }

    #[test]
    fn what_is_not_in_is_all_but_what_is_in(pod in pod(), key in key(), values in values()) {
        let within = Requirement::new(K8S, key, Condition::In(values.clone()));
        let without = Requirement::new(K8S, key, Condition::NotIn(values));
        prop_assert_ne!(within.matches(&pod), without.matches(&pod));
    }

    #[test]
    fn what_does_not_exist_is_all_but_what_exists(pod in pod(), key in key()) {
        let exists = Requirement::exists(ANY, key);
        let lacks = Requirement::new(ANY, key, Condition::DoesNotExist);
        prop_assert_ne!(exists.matches(&pod), lacks.matches(&pod));
    }

    #[test]
    fn one_more_requirement_selects_no_more(
        selector in selector(),
        requirement in requirement(),
        pod in pod(),
    ) {
        let narrower = selector.clone().and(requirement.clone());
        prop_assert_eq!(
            narrower.matches(&pod),
            selector.matches(&pod) && requirement.matches(&pod)
        );
    }

    #[test]
    fn an_exception_is_never_selected(
        outer in range(),
        except in vec(range(), 1..3),
        address in range(),
    ) {
        let peers = PeerSelector::any_of(vec![Peer::Cidr { range: outer, except: except.clone() }]);
        let selected = peers.selects(&Identity::Cidr(address));
        if except.iter().any(|it| it.contains(&address)) {
            prop_assert!(!selected);
        }
        if selected {
            prop_assert!(outer.contains(&address));
        }
    }

    #[test]
    fn ranges_select_neither_pods_nor_nodes(outer in range(), pod in pod()) {
        let peers = PeerSelector::any_of(vec![Peer::Cidr { range: outer, except: Vec::new() }]);
        prop_assert!(!peers.selects(&Identity::Endpoint(pod)));
        for name in Reserved::ALL {
            prop_assert!(!peers.selects(&Identity::Reserved(name)));
        }
    }

    /// Whatever is allowed to an address of the world or of a range is allowed to it as well when it is
    /// learnt for a name: names only ever add.
    #[test]
    fn learning_an_address_takes_nothing_away(
        peers in peers(),
        range in proptest::option::of(range()),
        names in btree_set(name_rule(), 1..3),
    ) {
        let before = range.map_or(Identity::Reserved(Reserved::World), Identity::Cidr);
        if peers.selects(&before) {
            let learnt = Identity::Fqdn { names, range };
            prop_assert!(peers.selects(&learnt));
        }
    }

    #[test]
    fn a_pattern_without_stars_is_a_name(name in "[a-c]{1,2}(\\.[a-c]{1,2}){0,3}", other in "[a-c.]{1,6}") {
        let pattern = DnsRule::pattern(&name).unwrap();
        let exact = DnsRule::name(&name).unwrap();
        prop_assert!(pattern.matches(&name));
        prop_assert_eq!(pattern.matches(&other), exact.matches(&other));
    }

    #[test]
    fn more_stars_match_no_less(name in "[a-c]{1,2}(\\.[a-c]{1,2}){1,3}") {
        let (_, rest) = name.split_once('.').unwrap();
        for pattern in [format!("*.{rest}"), format!("**.{rest}"), "*".to_owned()] {
            prop_assert!(DnsRule::pattern(&pattern).unwrap().matches(&name), "{}", pattern);
        }
        let below = DnsRule::pattern(&format!("**.{rest}")).unwrap();
        prop_assert!(!below.matches(rest));
    }

    #[test]
    fn names_of_policies_are_read_back(
        kind in select(PolicyKind::ALL.to_vec()),
        namespace in "[a-z]{1,8}",
        name in "[a-z][a-z.-]{0,8}",
    ) {
        let namespace = kind.is_namespaced().then_some(namespace);
        let policy = PolicyRef { kind, namespace, name };
        prop_assert_eq!(policy.to_string().parse(), Ok(policy));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let source = Source::new("x.yaml", text);
        if let Err(diagnostic) = manifests(&source) {
            prop_assert!(diagnostic.to_string().contains("x.yaml:"));
        }
        if let Err(diagnostic) = strict::<serde_json::Value>(&source) {
            prop_assert!(diagnostic.to_string().contains("x.yaml:"));
        }
    }

    #[test]
    fn no_spoilt_policy_makes_the_reader_panic(
        place in 0..POLICY.len(),
        length in 0..8_usize,
        noise in "[ \\n\\t\\r:{}\\[\\]\"'&*!|>%@`#,a-z0-9é\\u{85}\\u{2028}-]{0,6}",
    ) {
        let end = (place + length).min(POLICY.len());
        let mut text = POLICY.to_owned();
        text.replace_range(place..end, &noise);
        if let Err(diagnostic) = manifests(&Source::new("x.yaml", text)) {
            prop_assert!(diagnostic.to_string().contains("x.yaml:"));
        }
    }
}

/// A policy with a little of everything, in plain ASCII.
const POLICY: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: one, namespace: shop, labels: &l { a: b } }
spec:
  description: >-
    Everything at once.
  endpointSelector:
    matchLabels: *l
    matchExpressions: [{ key: app, operator: NotIn, values: [web] }]
  enableDefaultDeny: { ingress: false }
  egress:
    - toEndpoints: [{}]
      toPorts:
        - ports: [{ port: \"53\", protocol: UDP }]
          rules: { dns: [{ matchPattern: \"*\" }] }
    - toCIDRSet: [{ cidr: 10.0.0.0/8, except: [10.1.0.0/16] }]
  ingressDeny:
    - fromEntities: [world]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: two, namespace: shop }
spec:
  podSelector: {}
  ingress: [{ from: [{ podSelector: {} }], ports: [{ port: web }] }]
";

#[test]
fn the_policy_that_is_spoilt_is_good() {
    assert_eq!(manifests(&Source::new("x.yaml", POLICY)).unwrap().len(), 2);
}
