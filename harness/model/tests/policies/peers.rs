//! Whom a rule is about.

use super::*;

/// `getEndpointSelector` in `utils.go`: without a word about namespaces, the policy's own.
#[test]
fn a_namespaced_peer_is_of_the_same_namespace() {
    let text = namespaced("egress:\n- toEndpoints: [{ matchLabels: { app: ledger } }]");
    assert_eq!(egress(&text, &peer("shop", "ledger")), allowed(ONE));
    assert_eq!(egress(&text, &peer("pay", "ledger")), Decision::NotAllowed);
    let text = namespaced("egress:\n- toEndpoints: [{}]");
    assert_eq!(egress(&text, &peer("shop", "ledger")), allowed(ONE));
    assert_eq!(egress(&text, &peer("pay", "ledger")), Decision::NotAllowed);
    assert_eq!(egress(&text, &Identity::Reserved(Reserved::Health)), Decision::NotAllowed);
}

/// The same place, with and without a source before the key.
#[test]
fn a_peer_may_name_its_namespace() {
    for key in ["k8s:io.kubernetes.pod.namespace", "io.kubernetes.pod.namespace"] {
        let text = namespaced(&format!(
            "egress:\n- toEndpoints: [{{ matchLabels: {{ \"{key}\": pay, app: ledger }} }}]"
        ));
        assert_eq!(egress(&text, &peer("pay", "ledger")), allowed(ONE));
        assert_eq!(egress(&text, &peer("shop", "ledger")), Decision::NotAllowed);
    }
}

/// The same place: labels of namespaces free a peer from the policy's own.
#[test]
fn a_peer_may_name_labels_of_its_namespace() {
    let text = namespaced(
        "egress:\n- toEndpoints:\n  \
         - matchLabels: { k8s:io.cilium.k8s.namespace.labels.team: pay }",
    );
    assert_eq!(egress(&text, &peer("pay", "ledger")), allowed(ONE));
    assert_eq!(egress(&text, &peer("shop", "ledger")), Decision::NotAllowed);
}

/// `pkg/k8s/apis/cilium.io/const.go`: the service account is a label.
#[test]
fn a_peer_may_name_its_service_account() {
    let text = namespaced(
        "egress:\n- toEndpoints:\n  \
         - matchLabels: { io.cilium.k8s.policy.serviceaccount: ledger }",
    );
    assert_eq!(egress(&text, &peer("shop", "ledger")), allowed(ONE));
    assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
}

/// `utils.go`: clusterwide, `{}` is any pod, as a namespace is asked for.
#[test]
fn an_empty_clusterwide_peer_is_any_pod() {
    let text = clusterwide("ingress:\n- fromEndpoints: [{}]");
    assert_eq!(ingress(&text, &peer("pay", "ledger")), allowed(WIDE));
    assert_eq!(ingress(&text, &Identity::Reserved(Reserved::World)), Decision::NotAllowed);
    assert_eq!(ingress(&text, &Identity::Reserved(Reserved::Health)), Decision::NotAllowed);
    assert_eq!(ingress(&text, &range("192.0.2.1/32")), Decision::NotAllowed);
}

/// `utils.go`: reserved labels are taken as they are.
#[test]
fn a_peer_may_be_a_reserved_identity() {
    let text =
        namespaced("ingress:\n- fromEndpoints: [{ matchLabels: { \"reserved:health\": \"\" } }]");
    assert_eq!(ingress(&text, &Identity::Reserved(Reserved::Health)), allowed(ONE));
    assert_eq!(ingress(&text, &peer("shop", "web")), Decision::NotAllowed);
}

/// What is outside: with both families each has an identity of its own.
fn worlds() -> [Identity; 3] {
    [Reserved::World, Reserved::WorldIpv4, Reserved::WorldIpv6].map(Identity::Reserved)
}

/// `GetWorldIdentityFromIP` in `pkg/identity/reserved.go`: with both families the range of all
/// addresses of one is the world of that one.
#[test]
fn all_addresses_of_a_family_are_the_world_of_that_family() {
    for (range, selected) in [("0.0.0.0/0", Reserved::WorldIpv4), ("::/0", Reserved::WorldIpv6)] {
        let text = namespaced(&format!("egress:\n- toCIDR: [\"{range}\"]"));
        for world in [Reserved::WorldIpv4, Reserved::WorldIpv6] {
            let passes = egress(&text, &Identity::Reserved(world)) == allowed(ONE);
            assert_eq!(passes, world == selected, "{range}: {world:?}");
        }
    }
}

/// `pkg/policy/api/entity.go`.
#[test]
fn entities_are_what_cilium_says() {
    let pods = peer("pay", "ledger");
    let outside = range("192.0.2.1/32");
    let of = |name| Identity::Reserved(name);
    let cases = [
        ("all", vec![pods.clone(), outside.clone(), of(Reserved::World), of(Reserved::Init)]),
        ("world", [vec![outside.clone()], worlds().to_vec()].concat()),
        ("cluster", vec![pods.clone(), of(Reserved::Host), of(Reserved::Unmanaged)]),
        ("host", vec![of(Reserved::Host)]),
        ("remote-node", vec![of(Reserved::RemoteNode), of(Reserved::KubeApiserver)]),
        ("kube-apiserver", vec![of(Reserved::KubeApiserver)]),
        ("health", vec![of(Reserved::Health)]),
        ("init", vec![of(Reserved::Init)]),
        ("ingress", vec![of(Reserved::Ingress)]),
        ("unmanaged", vec![of(Reserved::Unmanaged)]),
        ("none", vec![]),
    ];
    let everyone: Vec<_> =
        Reserved::ALL.map(Identity::Reserved).into_iter().chain([pods, outside]).collect();
    for (entity, selected) in cases {
        let text = namespaced(&format!("egress:\n- toEntities: [{entity}]"));
        for peer in &selected {
            assert_eq!(egress(&text, peer), allowed(ONE), "{entity}: {peer:?}");
        }
        let count = everyone.iter().filter(|it| egress(&text, it) == allowed(ONE)).count();
        let expected = match entity {
            "all" => everyone.len(),
            "cluster" => everyone.len() - 1 - worlds().len(),
            _ => selected.len(),
        };
        assert_eq!(count, expected, "{entity}");
    }
}

/// `docs security/policy/language`, recorded: ranges match neither pods nor nodes.
#[test]
fn a_range_selects_addresses_outside_the_cluster_only() {
    let text = namespaced("egress:\n- toCIDR: [\"0.0.0.0/0\"]");
    assert_eq!(egress(&text, &range("192.0.2.1/32")), allowed(ONE));
    assert_eq!(egress(&text, &Identity::Reserved(Reserved::World)), allowed(ONE));
    for peer in [peer("pay", "ledger"), Identity::Reserved(Reserved::KubeApiserver)] {
        assert_eq!(egress(&text, &peer), Decision::NotAllowed);
    }
    let text = namespaced("egress:\n- toCIDR: [\"192.0.2.0/24\"]");
    assert_eq!(egress(&text, &range("192.0.2.1/32")), allowed(ONE));
    assert_eq!(egress(&text, &range("192.0.0.0/16")), Decision::NotAllowed);
    assert_eq!(egress(&text, &Identity::Reserved(Reserved::World)), Decision::NotAllowed);
}

/// `CIDRSelector` in `pkg/policy/types/selector.go`: an exception belongs to its own range.
#[test]
fn an_exception_is_not_selected() {
    let text = namespaced(
        "egress:\n- toCIDRSet:\n  \
         - { cidr: 192.0.2.0/24, except: [192.0.2.128/25] }\n  - { cidr: 198.51.100.0/24 }",
    );
    assert_eq!(egress(&text, &range("192.0.2.1/32")), allowed(ONE));
    assert_eq!(egress(&text, &range("192.0.2.200/32")), Decision::NotAllowed);
    assert_eq!(egress(&text, &range("198.51.100.1/32")), allowed(ONE));
    let policy = web(&text);
    let mentioned: Vec<_> = policy.egress.rules[0].peers.cidrs().map(|it| it.to_string()).collect();
    assert_eq!(mentioned, ["192.0.2.0/24", "192.0.2.128/25", "198.51.100.0/24"]);
}

/// Recorded: the metadata address is part of `world`, the nodes are not.
#[test]
fn the_metadata_address_is_part_of_the_world() {
    let text = namespaced("egress:\n- toEntities: [world]");
    assert_eq!(egress(&text, &range("169.254.169.254/32")), allowed(ONE));
    assert_eq!(egress(&text, &Identity::Reserved(Reserved::Host)), Decision::NotAllowed);
}
