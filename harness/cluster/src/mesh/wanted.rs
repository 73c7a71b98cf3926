//! What a ztunnel must have, given the policies that the API server holds. Pure.
//!
//! Follows `ambient/authorization.go` and `ambient/policies.go` of istiod: policies of a namespace or of the mesh are
//! known by being there, those with a selector by the workloads that refer to them, and `STRICT` by a static
//! policy that a workload refers to.

use std::collections::{BTreeMap, BTreeSet};

use ztc_model::policy::mesh::{
    Action, AuthorizationPolicy, MeshPolicy, Mode, PeerAuthentication, ROOT_NAMESPACE,
};
use ztc_model::world::PodRef;

use super::{Dump, DumpedWorkload};

/// The reference to what `STRICT` becomes.
const STRICT: &str = "istio-system/istio_converted_static_strict";

/// How the names of policies begin that istiod makes of others.
const CONVERTED: [&str; 2] = ["istio_converted_", "converted_peer_authentication_"];

/// The protocol of a workload that is in the mesh.
const HBONE: &str = "HBONE";

/// A policy that the API server holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) policy: MeshPolicy,
    /// When it was made, in RFC 3339: the oldest of a level counts.
    pub(crate) created: String,
}

/// What a ztunnel lacks of the policies that are stored, or still has of those that are not, in words; nothing
/// when it is as it must be. `pods` are those in the mesh, with their labels.
pub(crate) fn lag(
    dump: &Dump,
    stored: &[Stored],
    pods: &BTreeMap<PodRef, BTreeMap<String, String>>,
) -> Option<String> {
    policies_lag(dump, stored)
        .or_else(|| pods.iter().find_map(|(pod, labels)| workload_lag(dump, stored, pod, labels)))
}

fn policies_lag(dump: &Dump, stored: &[Stored]) -> Option<String> {
    let wanted: BTreeSet<String> = enforced(stored).map(named).collect();
    let is_converted = |name: &str| CONVERTED.iter().any(|it| name.starts_with(it));
    let has: BTreeSet<String> = dump
        .policies
        .iter()
        .filter(|it| !is_converted(&it.name))
        .map(|it| format!("{}/{}", it.namespace, it.name))
        .collect();
    let lacks = wanted.difference(&has).next().map(|it| format!("lacks policy {it}"));
    lacks.or_else(|| has.difference(&wanted).next().map(|it| format!("still has policy {it}")))
}

fn workload_lag(
    dump: &Dump,
    stored: &[Stored],
    pod: &PodRef,
    labels: &BTreeMap<String, String>,
) -> Option<String> {
    let is_it = |it: &&DumpedWorkload| it.namespace == pod.namespace && it.name == pod.name;
    let Some(workload) = dump.workloads.iter().find(is_it) else {
        return Some(format!("does not know workload {pod}"));
    };
    if workload.protocol != HBONE {
        return Some(format!("does not know that workload {pod} is in the mesh"));
    }
    let selecting = enforced(stored).filter(|policy| {
        let namespace = policy.reference.namespace.as_deref();
        let reaches = namespace == Some(&pod.namespace) || namespace == Some(ROOT_NAMESPACE);
        reaches && !policy.selector.is_empty() && is_within(&policy.selector, labels)
    });
    let mut wanted: BTreeSet<String> = selecting.map(named).collect();
    let peers = effective(stored, pod, labels);
    if peers.strict {
        wanted.insert(STRICT.to_owned());
    }
    wanted.extend(peers.by_port.clone());
    let refers = &workload.authorization_policies;
    // Whether the static policy stands beside one with modes of ports depends on these modes.
    let counts = |it: &&String| peers.by_port.is_none() || it.as_str() != STRICT;
    let lacks = wanted.difference(refers).find(counts);
    let lacks = lacks.map(|it| format!("does not apply {it} to {pod}"));
    let still = || refers.difference(&wanted).find(counts);
    lacks.or_else(|| still().map(|it| format!("still applies {it} to {pod}")))
}

/// The policies that a ztunnel enforces: neither those of waypoints nor those with an action that it does not
/// have.
fn enforced(stored: &[Stored]) -> impl Iterator<Item = &AuthorizationPolicy> {
    stored.iter().filter_map(|it| match &it.policy {
        MeshPolicy::Authorization(policy)
            if policy.target_refs.is_empty()
                && matches!(policy.action, Action::Allow | Action::Deny) =>
        {
            Some(policy)
        }
        _ => None,
    })
}

fn named(policy: &AuthorizationPolicy) -> String {
    let namespace = policy.reference.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", policy.reference.name)
}

/// What the modes for a pod become.
struct Effective {
    /// Whether it refers to the static policy.
    strict: bool,
    /// The policy that its modes of ports become.
    by_port: Option<String>,
}

/// The mode of the mesh, then of the namespace, then of the workload; the oldest of each level counts, and one
/// that is not set changes nothing.
fn effective(stored: &[Stored], pod: &PodRef, labels: &BTreeMap<String, String>) -> Effective {
    let oldest = |of: &dyn Fn(&PeerAuthentication) -> bool| {
        let those = stored.iter().filter_map(|it| match &it.policy {
            MeshPolicy::Peers(policy) if of(policy) => Some((&it.created, policy)),
            _ => None,
        });
        those.min_by_key(|(created, _)| *created).map(|(_, policy)| policy)
    };
    let is_in = |policy: &PeerAuthentication, namespace: &str| {
        policy.reference.namespace.as_deref() == Some(namespace)
    };
    let mesh = oldest(&|it| it.selector.is_empty() && is_in(it, ROOT_NAMESPACE));
    let namespace = oldest(&|it| {
        it.selector.is_empty() && pod.namespace != ROOT_NAMESPACE && is_in(it, &pod.namespace)
    });
    let workload = oldest(&|it| {
        !it.selector.is_empty() && is_in(it, &pod.namespace) && is_within(&it.selector, labels)
    });
    let modes = [mesh, namespace, workload].into_iter().flatten().map(|it| it.mode);
    let mode = modes.filter(|mode| *mode != Mode::Unset).last();
    let by_port = workload
        .filter(|it| !it.ports.is_empty())
        .map(|it| format!("{}/converted_peer_authentication_{}", pod.namespace, it.reference.name));
    Effective { strict: mode == Some(Mode::Strict), by_port }
}

fn is_within(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
