//! What policies decide, rule by rule, each with the source of the rule.
//!
//! `pkg/...` is a path in cilium/cilium at version 1.20; "recorded" means that it was seen on a
//! real cluster, Cilium 1.20.2 on Kubernetes 1.36.

mod default_deny;
mod elements;
mod fqdns;
mod icmp;
mod kubernetes;
mod names;
mod peers;
mod ports;
mod precedence;
mod subjects;
#[path = "../support/mod.rs"]
mod support;

use support::{labels, policies, refusal};
use ztc_model::dns::DnsRule;
use ztc_model::identity::{Identity, Reserved, endpoint_labels};
use ztc_model::labels::Labels;
use ztc_model::policy::{
    Decision, EndpointPolicy, NamedPorts, PolicyRef, Protocol, endpoint_policy,
};

/// A pod with `app=APP` in a namespace that is labelled `team=NAMESPACE`.
fn pod(namespace: &str, app: &str) -> Labels {
    endpoint_labels(namespace, &labels([("team", namespace)]), app, &labels([("app", app)]))
}

fn peer(namespace: &str, app: &str) -> Identity {
    Identity::Endpoint(pod(namespace, app))
}

fn range(text: &str) -> Identity {
    Identity::Cidr(text.parse().expect("it is a range"))
}

fn reference(text: &str) -> PolicyRef {
    text.parse().expect("it is a policy")
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
