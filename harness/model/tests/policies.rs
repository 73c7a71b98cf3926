//! What policies decide, rule by rule, each with the source of the rule.
//!
//! `pkg/...` is a path in cilium/cilium at version 1.20; "recorded" means that it was seen on a
//! real cluster, Cilium 1.20.2 on Kubernetes 1.36.

use std::collections::BTreeMap;

use ztc_model::dns::DnsRule;
use ztc_model::identity::{Identity, Reserved, endpoint_labels};
use ztc_model::labels::Labels;
use ztc_model::manifest::manifests;
use ztc_model::policy::{
    Decision, EndpointPolicy, NamedPorts, Policy, PolicyRef, Protocol, endpoint_policy,
};
use ztc_model::yaml::Source;

/// The policies of a text of manifests.
fn policies(text: &str) -> Vec<Policy> {
    match manifests(&Source::new("policies.yaml", text)) {
        Ok(manifests) => manifests.into_iter().map(|manifest| manifest.policy).collect(),
        Err(diagnostic) => panic!("{diagnostic}"),
    }
}

/// The message about a text of manifests that must be refused.
fn refusal(text: &str) -> String {
    let refused = manifests(&Source::new("policies.yaml", text));
    refused.expect_err("it must be refused").message
}

fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A pod with `app=APP` in a namespace that is labelled `team=NAMESPACE`.
fn pod(namespace: &str, app: &str) -> Labels {
    endpoint_labels(namespace, &labels([("team", namespace)]), app, &labels([("app", app)]))
}

fn peer(namespace: &str, app: &str) -> Identity {
    Identity::Endpoint(pod(namespace, app))
}

fn range(text: &str) -> Identity {
    Identity::Cidr(text.parse().unwrap())
}

fn reference(text: &str) -> PolicyRef {
    text.parse().unwrap()
}

/// A spec for the pods `app=web` of `shop`.
fn namespaced(spec: &str) -> String {
    let spec = spec.trim_end().replace('\n', "\n  ");
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{ name: one, namespace: shop }}\n\
         spec:\n  endpointSelector: {{ matchLabels: {{ app: web }} }}\n  {spec}\n"
    )
}

/// A spec for every endpoint of the cluster.
fn clusterwide(spec: &str) -> String {
    let spec = spec.trim_end().replace('\n', "\n  ");
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n\
         metadata: {{ name: wide }}\nspec:\n  endpointSelector: {{}}\n  {spec}\n"
    )
}

/// A `NetworkPolicy` for the pods `app=web` of `shop`.
fn kubernetes(spec: &str) -> String {
    let spec = spec.trim_end().replace('\n', "\n  ");
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{ name: one, namespace: shop }}\n\
         spec:\n  podSelector: {{ matchLabels: {{ app: web }} }}\n  {spec}\n"
    )
}

/// What policies say about the pod `app=web` of `shop`.
fn web(text: &str) -> EndpointPolicy {
    endpoint_policy(&policies(text), &pod("shop", "web"))
}

fn egress_on(text: &str, to: &Identity, protocol: Protocol, port: u16) -> Decision {
    web(text).egress.decide(to, protocol, port, &NamedPorts::new())
}

fn egress(text: &str, to: &Identity) -> Decision {
    egress_on(text, to, Protocol::Tcp, 8080)
}

fn ingress(text: &str, from: &Identity) -> Decision {
    web(text).ingress.decide(from, Protocol::Tcp, 8080, &NamedPorts::new())
}

fn allowed(by: &str) -> Decision {
    Decision::Allowed { by: vec![reference(by)] }
}

fn denied(by: &str) -> Decision {
    Decision::Denied { by: vec![reference(by)] }
}

const NOTHING_ENFORCED: Decision = Decision::Allowed { by: Vec::new() };
const ONE: &str = "CiliumNetworkPolicy/shop/one";
const WIDE: &str = "CiliumClusterwideNetworkPolicy/wide";
const KUBERNETES: &str = "NetworkPolicy/shop/one";

mod default_deny {
    use super::*;

    /// `docs security/policy/intro`: without a policy everything passes.
    #[test]
    fn without_policies_nothing_is_enforced() {
        let none = endpoint_policy(&[], &pod("shop", "web"));
        assert_eq!(none, EndpointPolicy::default());
        let decision =
            none.egress.decide(&peer("pay", "ledger"), Protocol::Icmp, 0, &NamedPorts::new());
        assert_eq!(decision, NOTHING_ENFORCED);
    }

    /// `pkg/policy/repository.go`: enforcement is per direction.
    #[test]
    fn a_rule_closes_its_own_direction_only() {
        let text = namespaced("egress:\n- toEntities: [world]");
        assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
        assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
    }

    /// Recorded: `ingress: [{}]` denies everything, `ingress: []` is not enforced.
    #[test]
    fn an_empty_element_denies_all_of_its_direction() {
        let text = namespaced("egress: [{}]");
        assert_eq!(egress(&text, &peer("shop", "web")), Decision::NotAllowed);
        assert_eq!(egress(&text, &range("192.0.2.1/32")), Decision::NotAllowed);
        assert_eq!(ingress(&text, &peer("shop", "web")), NOTHING_ENFORCED);
    }

    /// `pkg/policy/api/rule_validation.go`, recorded with `Valid=False`: no section, no policy.
    #[test]
    fn a_policy_without_an_element_is_refused() {
        for spec in [
            "ingress: []",
            "ingress: []\negress: []\nenableDefaultDeny: { ingress: true, egress: true }",
            "egress:",
            "description: nothing",
        ] {
            assert!(refusal(&namespaced(spec)).starts_with("nothing in `ingress`"), "{spec}");
        }
    }

    /// `pkg/policy/api/rule_validation.go`: an empty list besides a section is no section.
    #[test]
    fn an_empty_list_leaves_its_direction_open() {
        let text = namespaced("ingress: []\negress: [{}]");
        assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
    }

    /// Recorded: a deny-only clusterwide policy revoked all egress of what it selects.
    #[test]
    fn a_lone_deny_rule_flips_its_direction() {
        let deny = "egressDeny:\n- toCIDR: [\"169.254.169.254/32\"]";
        let text = clusterwide(deny);
        assert_eq!(egress(&text, &range("169.254.169.254/32")), denied(WIDE));
        assert_eq!(egress(&text, &peer("shop", "cart")), Decision::NotAllowed);
        assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
    }

    /// Recorded, and `pkg/policy/repository.go`: only rules without default-deny leave all open.
    #[test]
    fn enable_default_deny_takes_the_flip_back() {
        let text = clusterwide(
            "enableDefaultDeny: { egress: false, ingress: false }\n\
             egressDeny:\n- toCIDR: [\"169.254.169.254/32\"]",
        );
        assert_eq!(egress(&text, &range("169.254.169.254/32")), denied(WIDE));
        assert_eq!(egress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
    }

    /// `pkg/policy/repository.go`: one policy that wants default-deny is enough.
    #[test]
    fn default_deny_of_another_policy_stays() {
        let additive =
            clusterwide("enableDefaultDeny: { egress: false }\negress:\n- toEntities: [cluster]");
        let text = format!("{additive}---\n{}", namespaced("egress: [{}]"));
        assert_eq!(egress(&text, &peer("pay", "ledger")), allowed(WIDE));
        assert_eq!(egress(&text, &range("192.0.2.1/32")), Decision::NotAllowed);
    }

    /// `pkg/policy/utils/parserules.go`: `enableDefaultDeny: true` without rules makes no entry.
    #[test]
    fn enable_default_deny_does_nothing_without_rules() {
        let text = namespaced("enableDefaultDeny: { ingress: true }\negress: [{}]");
        assert_eq!(ingress(&text, &peer("shop", "cart")), NOTHING_ENFORCED);
    }

    /// Recorded: the local node passes ingress default-deny, a remote node does not.
    #[test]
    fn the_own_node_passes_ingress_default_deny() {
        let text = namespaced("ingress: [{}]\negress: [{}]");
        assert_eq!(ingress(&text, &Identity::Reserved(Reserved::Host)), NOTHING_ENFORCED);
        assert_eq!(ingress(&text, &Identity::Reserved(Reserved::RemoteNode)), Decision::NotAllowed);
        assert_eq!(egress(&text, &Identity::Reserved(Reserved::Host)), Decision::NotAllowed);
    }

    /// `pkg/policy/repository.go`: the allowance of the own node is of the last tier.
    #[test]
    fn a_deny_rule_closes_the_own_node_out() {
        let text = namespaced("ingressDeny:\n- fromEntities: [host]");
        assert_eq!(ingress(&text, &Identity::Reserved(Reserved::Host)), denied(ONE));
    }

    /// `pkg/policy/repository.go`: without the host firewall a node is subject to nothing.
    #[test]
    fn a_node_is_subject_to_no_policy() {
        let policies = policies(&clusterwide("egress: [{}]"));
        let node = Identity::Reserved(Reserved::Host).labels();
        assert_eq!(endpoint_policy(&policies, &node), EndpointPolicy::default());
    }

    /// `pkg/policy/repository.go`: an endpoint whose labels are not known yet is closed.
    #[test]
    fn an_endpoint_without_labels_is_closed_without_policies() {
        let init = Identity::Reserved(Reserved::Init).labels();
        let policy = endpoint_policy(&[], &init);
        assert!(policy.ingress.default_deny && policy.egress.default_deny);
        assert!(!policy.ingress.allows_host);
    }
}

mod elements {
    use super::*;

    /// `pkg/policy/utils/parserules.go` mergeEndpointSelectors: an empty list selects nobody.
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
        let text =
            namespaced("egress:\n- toEndpoints:\n  toPorts:\n  - ports: [{ port: \"8080\" }]");
        assert_eq!(egress(&text, &range("192.0.2.1/32")), allowed(ONE));
        assert_eq!(
            egress(&namespaced("egress:\n- toEndpoints: null"), &peer("shop", "cart")),
            Decision::NotAllowed
        );
    }

    /// `pkg/policy/rule.go` mergeL4Filter: ports without peers are about everyone.
    #[test]
    fn ports_without_peers_are_about_everyone() {
        let text =
            namespaced("egress:\n- toPorts:\n  - ports: [{ port: \"8080\", protocol: TCP }]");
        for peer in
            [peer("pay", "ledger"), range("192.0.2.1/32"), Identity::Reserved(Reserved::Host)]
        {
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
        assert_eq!(refusal(&text), "`toEndpoints` and `toCIDR` cannot be combined in one element");
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
}

mod subjects {
    use super::*;

    /// `pkg/k8s/apis/cilium.io/utils/utils.go` ParseToCiliumRule: its own namespace only.
    #[test]
    fn a_namespaced_policy_is_about_its_own_namespace() {
        let policies = policies(&namespaced("egress: [{}]"));
        assert!(policies[0].select(&pod("shop", "web")).is_some());
        assert!(policies[0].select(&pod("shop", "cart")).is_none());
        assert!(policies[0].select(&pod("pay", "web")).is_none());
        assert!(!policies[0].is_clusterwide());
    }

    /// The same place: Cilium drops the foreign namespace with a warning in its log.
    #[test]
    fn a_namespaced_policy_about_another_namespace_is_refused() {
        let text = namespaced("egress: [{}]")
            .replace("app: web", "\"k8s:io.kubernetes.pod.namespace\": pay");
        assert_eq!(refusal(&text), "the endpointSelector names another namespace than `shop`");
    }

    /// The same place; devantler-tech/platform#3406 is an outage from it.
    #[test]
    fn a_clusterwide_subject_has_no_implicit_namespace() {
        let not_in = "\
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: { name: wide }
spec:
  endpointSelector:
    matchExpressions:
      - { key: k8s:io.kubernetes.pod.namespace, operator: NotIn, values: [kube-system] }
  egress: [{}]
";
        let wide = policies(not_in);
        assert!(wide[0].is_clusterwide());
        assert!(wide[0].select(&pod("shop", "web")).is_some());
        assert!(wide[0].select(&pod("kube-system", "coredns")).is_none());
        let health = Identity::Reserved(Reserved::Health).labels();
        let ingress = Identity::Reserved(Reserved::Ingress).labels();
        assert!(wide[0].select(&health).is_some());
        assert!(wide[0].select(&ingress).is_some());
        let with_exists = not_in.replace(
            "  egress",
            "      - { key: k8s:io.kubernetes.pod.namespace, operator: Exists }\n  egress",
        );
        assert!(policies(&with_exists)[0].select(&health).is_none());
    }
}

mod peers {
    use super::*;

    /// `utils.go` getEndpointSelector: without a word about namespaces, the policy's own.
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
        let text = namespaced(
            "ingress:\n- fromEndpoints: [{ matchLabels: { \"reserved:health\": \"\" } }]",
        );
        assert_eq!(ingress(&text, &Identity::Reserved(Reserved::Health)), allowed(ONE));
        assert_eq!(ingress(&text, &peer("shop", "web")), Decision::NotAllowed);
    }

    /// `pkg/policy/api/entity.go`.
    #[test]
    fn entities_are_what_cilium_says() {
        let pods = peer("pay", "ledger");
        let outside = range("192.0.2.1/32");
        let of = |name| Identity::Reserved(name);
        let cases = [
            ("all", vec![pods.clone(), outside.clone(), of(Reserved::World), of(Reserved::Init)]),
            ("world", vec![outside.clone(), of(Reserved::World)]),
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
                "cluster" => everyone.len() - 2,
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

    /// `pkg/policy/types/selector.go` CIDRSelector: an exception belongs to its own range.
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
        let mentioned: Vec<_> =
            policy.egress.rules[0].peers.cidrs().map(|it| it.to_string()).collect();
        assert_eq!(mentioned, ["192.0.2.0/24", "192.0.2.128/25", "198.51.100.0/24"]);
    }

    /// Recorded: the metadata address is part of `world`, the nodes are not.
    #[test]
    fn the_metadata_address_is_part_of_the_world() {
        let text = namespaced("egress:\n- toEntities: [world]");
        assert_eq!(egress(&text, &range("169.254.169.254/32")), allowed(ONE));
        assert_eq!(egress(&text, &Identity::Reserved(Reserved::Host)), Decision::NotAllowed);
    }
}

mod precedence {
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
}

mod ports {
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
        assert_eq!(
            egress_on(&text, &peer("shop", "cart"), Protocol::Tcp, 4711),
            Decision::NotAllowed
        );
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

    /// `pkg/policy/api/rule_validation.go` maxPorts.
    #[test]
    fn more_than_forty_ports_are_refused() {
        let ports: Vec<_> = (1..=41).map(|port| format!("{{ port: \"{port}\" }}")).collect();
        let text = namespaced(&format!("egress:\n- toPorts:\n  - ports: [{}]", ports.join(", ")));
        assert_eq!(refusal(&text), "more than 40 ports in one list");
    }
}

mod names {
    use super::*;

    const DNS: &str = "egress:\n- toEndpoints: [{ matchLabels: { app: dns } }]\n  toPorts:\n  \
                       - ports: [{ port: \"53\", protocol: ANY }]\n    \
                       rules: { dns: [{ matchName: api.zt.test }] }";

    fn inspected(by: &[&str], dns: Vec<DnsRule>) -> Decision {
        Decision::Inspected { by: by.iter().map(|it| reference(it)).collect(), dns }
    }

    fn api() -> DnsRule {
        DnsRule::name("api.zt.test").unwrap()
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

    /// `docs security/policy/intro`: default-deny is not what a proxy does.
    #[test]
    fn enable_default_deny_does_not_open_the_proxy() {
        let text = namespaced(&format!("enableDefaultDeny: {{ egress: false }}\n{DNS}"));
        let decision = egress_on(&text, &peer("shop", "dns"), Protocol::Udp, 53);
        assert_eq!(decision, inspected(&[ONE], vec![api()]));
        assert_eq!(egress(&text, &peer("pay", "ledger")), NOTHING_ENFORCED);
    }

    /// `pkg/policy/rule.go` mergePortProto: the names of all policies are allowed.
    #[test]
    fn names_add_up() {
        let wide = clusterwide(
            "egress:\n- toEndpoints: [{ matchLabels: { app: dns } }]\n  toPorts:\n  \
             - ports: [{ port: \"53\", protocol: UDP }]\n    \
             rules: { dns: [{ matchPattern: \"*.zt.test\" }] }",
        );
        let text = format!("{}---\n{wide}", namespaced(DNS));
        let Decision::Inspected { by, dns } =
            egress_on(&text, &peer("shop", "dns"), Protocol::Udp, 53)
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
            (
                "{ port: \"53\", endPort: 54 }",
                "matchName: a.b",
                "DNS rules do not support port ranges",
            ),
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
}

mod kubernetes {
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

    /// `networking.k8s.io/v1` PolicyTypes: ingress always, egress with rules.
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

    /// `networking.k8s.io/v1` NetworkPolicyPeer.
    #[test]
    fn peers_are_pods_namespaces_both_or_ranges() {
        let to =
            |peer: &str| kubernetes(&format!("policyTypes: [Egress]\negress:\n- to: [{peer}]"));
        let ledger = peer("pay", "ledger");
        let text = to("{ namespaceSelector: { matchLabels: { team: pay } } }");
        assert_eq!(egress(&text, &ledger), allowed(KUBERNETES));
        assert_eq!(egress(&text, &peer("shop", "ledger")), Decision::NotAllowed);
        let text =
            to("{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: pay } } }");
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

    /// `networking.k8s.io/v1` NetworkPolicyPort: TCP unless it says otherwise.
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
}
