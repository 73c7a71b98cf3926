//! Whom a policy is about.

use super::*;

/// `ParseToCiliumRule` in `pkg/k8s/apis/cilium.io/utils/utils.go`: its own namespace only.
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
    let text =
        namespaced("egress: [{}]").replace("app: web", "\"k8s:io.kubernetes.pod.namespace\": pay");
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
