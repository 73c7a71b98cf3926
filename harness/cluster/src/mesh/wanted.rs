//! What a ztunnel must have, given the policies that the API server holds. Pure.
//!
//! Policies of a namespace or of the mesh are known by being there, those with a selector by the workloads that refer
//! to them, and `STRICT` by a static policy that a workload refers to.

use std::collections::{BTreeMap, BTreeSet};

use ztc_model::policy::mesh::waypoint::{Named, is_bound};
use ztc_model::policy::mesh::ztunnel::{Distributed, PolicyKey, Workload};
use ztc_model::policy::mesh::{CONVERTED_PEERS, MeshPolicy};
use ztc_model::world::PodRef;

use super::{Dump, DumpedWaypoint, DumpedWorkload};

/// How the names of policies begin that istiod makes of others.
const CONVERTED: [&str; 2] = ["istio_converted_", CONVERTED_PEERS];

/// The protocol of a workload that is in the mesh.
const HBONE: &str = "HBONE";

/// A policy that the API server holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) policy: MeshPolicy,
    /// When it was made, in RFC 3339: the oldest of a level counts.
    pub(crate) created: String,
}

/// What of a world is in the mesh.
#[derive(Debug, Clone, Default)]
pub(crate) struct Enrolled {
    /// Pods.
    pub(crate) pods: BTreeMap<PodRef, EnrolledPod>,
    /// Services, as namespace and name, with the name of the waypoint that they are behind.
    pub(crate) services: Vec<(String, String, Option<String>)>,
}

/// What of a pod its ztunnels have to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct EnrolledPod {
    /// Its labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// The name of the waypoint that it is behind.
    pub(crate) waypoint: Option<String>,
}

/// What a ztunnel lacks of the policies that are stored, or still has of those that are not, in words; nothing
/// when it is as it must be.
pub(crate) fn lag(dump: &Dump, stored: &[Stored], enrolled: &Enrolled) -> Option<String> {
    let Enrolled { pods, services } = enrolled;
    let told = told(stored);
    policies_lag(dump, &told)
        .or_else(|| pods.iter().find_map(|(name, pod)| workload_lag(dump, &told, name, pod)))
        .or_else(|| services.iter().find_map(|service| service_lag(dump, service)))
}

/// What a waypoint has in its listeners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Enforced {
    /// The policies whose rules it has, `namespace/name`.
    pub(crate) policies: BTreeSet<String>,
    /// The issuers whose tokens it believes.
    pub(crate) issuers: BTreeSet<String>,
}

/// What a waypoint, with these services behind it, lacks or still has. Only policies with rules can be told, and of two
/// that believe one issuer not which of them is there.
pub(crate) fn waypoint_lag(
    gateway: Named<'_>,
    services: &[Named<'_>],
    enforced: &Enforced,
    stored: &[Stored],
) -> Option<String> {
    let mut wanted = Enforced::default();
    let bound = stored.iter().filter(|it| is_bound(&it.policy, gateway, services));
    for Stored { policy, .. } in bound {
        match policy {
            MeshPolicy::Authorization(it) if !it.rules.is_empty() => {
                wanted.policies.insert(PolicyKey::from(&it.reference).to_string());
            }
            MeshPolicy::Requests(it) => {
                wanted.issuers.extend(it.rules.iter().map(|rule| rule.issuer.clone()));
            }
            MeshPolicy::Authorization(_) | MeshPolicy::Peers(_) => {}
        }
    }
    let lag = |what: &str, has: &BTreeSet<String>, wanted: &BTreeSet<String>| {
        let lacks = wanted.difference(has).next().map(|it| format!("lacks {what} {it}"));
        lacks.or_else(|| has.difference(wanted).next().map(|it| format!("still has {what} {it}")))
    };
    lag("policy", &enforced.policies, &wanted.policies)
        .or_else(|| lag("issuer", &enforced.issuers, &wanted.issuers))
}

/// What the listeners of a waypoint enforce: istiod calls a rule `ns[NAMESPACE]-policy[NAME]-rule[N]`, and the filter
/// that looks at tokens has an `issuer` for each provider (`convertToEnvoyJwtConfig` in
/// `pilot/pkg/security/authn/policy_applier.go`).
pub(crate) fn enforced_by_listeners(listeners: &str) -> Enforced {
    let rules = listeners.split("\"ns[").skip(1);
    let named = rules.filter_map(|rule| {
        let (namespace, rest) = rule.split_once("]-policy[")?;
        let (name, _) = rest.split_once("]-rule[")?;
        Some(format!("{namespace}/{name}"))
    });
    let issuers = listeners.split("\"issuer\"").skip(1).filter_map(|rest| {
        let value = rest.trim_start().strip_prefix(':')?;
        serde_json::Deserializer::from_str(value).into_iter().next()?.ok()
    });
    Enforced { policies: named.collect(), issuers: issuers.collect() }
}

fn service_lag(
    dump: &Dump,
    (namespace, name, waypoint): &(String, String, Option<String>),
) -> Option<String> {
    let service = dump.services.iter().find(|it| it.namespace == *namespace && it.name == *name);
    let Some(service) = service else {
        return Some(format!("does not know service {namespace}/{name}"));
    };
    let what = format!("service {namespace}/{name}");
    behind_lag(&what, namespace, service.waypoint.as_ref(), waypoint.as_deref())
}

/// What a ztunnel does not know of the waypoint that something is behind.
fn behind_lag(
    what: &str,
    namespace: &str,
    has: Option<&DumpedWaypoint>,
    waypoint: Option<&str>,
) -> Option<String> {
    let has = has.map(|it| it.destination.as_str());
    let wanted = waypoint.map(|it| format!("{namespace}/{it}.{namespace}.svc.cluster.local"));
    (has != wanted.as_deref()).then(|| match waypoint {
        Some(waypoint) => format!("does not know that {what} is behind waypoint {waypoint}"),
        None => format!("still has {what} behind a waypoint"),
    })
}

fn policies_lag(dump: &Dump, told: &Distributed) -> Option<String> {
    let is_converted = |name: &str| CONVERTED.iter().any(|it| name.starts_with(it));
    let wanted: BTreeSet<String> =
        told.keys().iter().filter(|it| !is_converted(&it.name)).map(ToString::to_string).collect();
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
    told: &Distributed,
    pod: &PodRef,
    enrolled: &EnrolledPod,
) -> Option<String> {
    let EnrolledPod { labels, waypoint } = enrolled;
    let is_it = |it: &&DumpedWorkload| it.namespace == pod.namespace && it.name == pod.name;
    let Some(workload) = dump.workloads.iter().find(is_it) else {
        return Some(format!("does not know workload {pod}"));
    };
    if workload.protocol != HBONE {
        return Some(format!("does not know that workload {pod} is in the mesh"));
    }
    let references = told.references(&Workload { namespace: &pod.namespace, labels });
    let wanted: BTreeSet<String> = references.iter().map(ToString::to_string).collect();
    let refers = &workload.authorization_policies;
    let lacks = wanted.difference(refers).next();
    let lacks = lacks.map(|it| format!("does not apply {it} to {pod}"));
    let still = || refers.difference(&wanted).next();
    let what = format!("workload {pod}");
    lacks.or_else(|| still().map(|it| format!("still applies {it} to {pod}"))).or_else(|| {
        behind_lag(&what, &pod.namespace, workload.waypoint.as_ref(), waypoint.as_deref())
    })
}

/// What istiod tells ztunnels of what is stored.
fn told(stored: &[Stored]) -> Distributed {
    let mut by_age: Vec<&Stored> = stored.iter().collect();
    by_age.sort_by(|one, other| one.created.cmp(&other.created));
    Distributed::of(by_age.into_iter().map(|it| &it.policy))
}
