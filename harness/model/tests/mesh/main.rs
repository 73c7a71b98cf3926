//! What the mesh enforces of its policies, rule by rule, each with the source of the rule.
//!
//! `src/...` is a path in istio/ztunnel and `ambient/...` one below `pilot/pkg/serviceregistry` of istio/istio, both of
//! 2026-08; "recorded" means that it was seen on a real cluster (`docs/facts.md`).

mod authorizations;
mod gateways;
mod laws;
mod modes;
mod requests;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod waypoints;

use std::collections::BTreeMap;

use support::{labels, refusal};
use ztc_model::policy::Policy;
use ztc_model::policy::mesh::MeshPolicy;
use ztc_model::policy::mesh::ztunnel::{Connection, Decision, Distributed, Workload};
use ztc_model::yaml::Source;

/// The policies of a text of manifests, the first one the oldest.
fn policies(text: &str) -> Vec<MeshPolicy> {
    let mesh = |policy| match policy {
        Policy::Mesh(policy) => policy,
        other => panic!("{other:?} is none of the mesh"),
    };
    support::policies(text).into_iter().map(mesh).collect()
}

/// A connection from 10.1.0.5 to 10.1.0.9, by a peer as `NAMESPACE/ACCOUNT` or in plain, to a port.
fn connection(peer: Option<&str>, port: u16) -> Connection {
    let identity = |text: &str| {
        let (namespace, account) = text.split_once('/').expect("it is NAMESPACE/ACCOUNT");
        let uri = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
        uri.parse().expect("it is an identity")
    };
    Connection {
        peer: peer.map(identity),
        source: [10, 1, 0, 5].into(),
        destination: ([10, 1, 0, 9], port).into(),
    }
}

/// What becomes of a connection to the pod `app=ledger` of `bank`.
fn decide(text: &str, peer: Option<&str>, port: u16) -> Decision {
    decide_at("bank", text, &connection(peer, port))
}

/// What becomes of a connection to the pod `app=ledger` of a namespace.
fn decide_at(namespace: &str, text: &str, connection: &Connection) -> Decision {
    let labels = labels([("app", "ledger"), ("tier", "back")]);
    let policies = policies(text);
    let told = Distributed::of(&policies);
    told.of_workload(&Workload { namespace, labels: &labels }).decide(connection)
}

/// Whether it is let through.
fn passes(text: &str, peer: Option<&str>, port: u16) -> bool {
    decide(text, peer, port) == Decision::Allowed
}

/// An `AuthorizationPolicy` of a namespace with a name and a spec, all of it in flow style or indented lines.
fn authorization(namespace: &str, name: &str, spec: &str) -> String {
    let spec = spec.trim_end().replace('\n', "\n  ");
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{ name: {name}, namespace: {namespace} }}\nspec:\n  {spec}\n"
    )
}

/// A `PeerAuthentication` of a namespace with a spec in flow style.
fn peers(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{ name: {name}, namespace: {namespace} }}\nspec: {spec}\n"
    )
}

const TELLER: Option<&str> = Some("bank/teller");
const CLERK: Option<&str> = Some("bank/clerk");
const VISITOR: Option<&str> = Some("visit/near");
const IN_PLAIN: Option<&str> = None;
const STATIC_STRICT: &str = "istio-system/istio_converted_static_strict";

fn denied_by(policy: &str) -> Decision {
    let (namespace, name) = policy.split_once('/').expect("it is NAMESPACE/NAME");
    let key = ztc_model::policy::mesh::ztunnel::PolicyKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    Decision::Denied { by: vec![key] }
}
