//! `AuthorizationPolicy`: which of its rules match a connection at ztunnel, or a request at a waypoint.
//!
//! A policy is asked with one of its rules at a time, and without any, which tells whether it is about the workload or the
//! service at all.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::place::Place;
use crate::policy::mesh::waypoint::{self, Asked, Named, Request, WaypointPolicies};
use crate::policy::mesh::ztunnel::{self, Connection, Distributed, Workload};
use crate::policy::mesh::{Action, AuthorizationPolicy, MeshPolicy, Rule, Source, SpiffeId};
use crate::waypoint::Line as WaypointLine;
use crate::world::{Called, KubeService, PodRef, World};
use crate::ztunnel::{Line as ZtunnelLine, Side};

/// The connection of a line that the server's ztunnel wrote; nothing where that does not say whom it was for.
pub(super) fn connection(line: &ZtunnelLine) -> Option<Connection> {
    if line.direction != Side::Inbound {
        return None;
    }
    let destination: SocketAddr = match &line.target {
        Some(target) => target.parse().ok()?,
        None => line.destination,
    };
    let peer = line.principal.as_ref().map(|it| it.parse::<SpiffeId>()).transpose().ok()?;
    Some(Connection { peer, source: line.source.ip(), destination })
}

/// The pod that a line names as its server.
pub(super) fn server(line: &ZtunnelLine) -> Option<PodRef> {
    let named = |key: &str| line.other.get(key)?.as_str().map(str::to_owned);
    Some(PodRef { namespace: named("dst.namespace")?, name: named("dst.workload")? })
}

/// The rules of a policy that match a connection to a workload, at its ztunnel.
pub fn rules_for_connection(
    policy: &AuthorizationPolicy,
    workload: &Workload<'_>,
    connection: &Connection,
) -> Vec<Place> {
    let decide = |policy: &AuthorizationPolicy| {
        let policy = MeshPolicy::Authorization(policy.clone());
        Distributed::of([&policy]).of_workload(workload).decide(connection)
    };
    let matches = |alone: &AuthorizationPolicy| match alone.action {
        Action::Allow => decide(alone) == ztunnel::Decision::Allowed,
        Action::Deny => matches!(decide(alone), ztunnel::Decision::Denied { .. }),
        Action::Audit => false,
    };
    // What is about others lets pass without any rule, too.
    let concerns = policy.action == Action::Deny
        || decide(&with(policy, Vec::new())) == ztunnel::Decision::NotAllowed;
    if concerns { rules(policy, matches) } else { Vec::new() }
}

/// The rules of a policy that match what reaches a waypoint for a service, or for workloads.
///
/// # Errors
/// Where the policy says what is not evaluated.
pub fn rules_for_request(
    policy: &AuthorizationPolicy,
    (gateway, service): (Named<'_>, Option<Named<'_>>),
    asked: &Asked,
) -> Result<Vec<Place>, waypoint::NotEvaluated> {
    let decide = |policy: &AuthorizationPolicy| {
        let policy = MeshPolicy::Authorization(policy.clone());
        WaypointPolicies::of([&policy], gateway, service).map(|it| it.decide(asked))
    };
    let concerns = match policy.action {
        Action::Allow => decide(&with(policy, Vec::new()))? == waypoint::Decision::NotAllowed,
        Action::Deny => true,
        Action::Audit => false,
    };
    // Whether everything can be evaluated is said of the whole.
    decide(policy)?;
    let matches = |alone: &AuthorizationPolicy| match decide(alone) {
        Ok(waypoint::Decision::Forwarded) => alone.action == Action::Allow,
        Ok(waypoint::Decision::Denied { .. }) => true,
        _ => false,
    };
    Ok(if concerns { rules(policy, matches) } else { Vec::new() })
}

/// The places of the rules with which alone a policy does something.
fn rules(
    policy: &AuthorizationPolicy,
    matches: impl Fn(&AuthorizationPolicy) -> bool,
) -> Vec<Place> {
    let rules = policy.rules.iter().enumerate();
    let alone = rules.filter(|(_, rule)| matches(&with(policy, vec![Rule::clone(rule)])));
    alone.map(|(index, _)| rule(index)).collect()
}

fn with(policy: &AuthorizationPolicy, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy { rules, ..policy.clone() }
}

/// The place of a rule by its number.
pub(super) fn rule(index: usize) -> Place {
    Place::root().field("spec").field("rules").entry(index)
}

/// Whether a policy asks about nothing but what a waypoint's log has of a request: it has neither headers nor tokens.
pub(super) fn asks_what_is_logged(policy: &AuthorizationPolicy) -> bool {
    policy.rules.iter().all(|rule| {
        let of_tokens = |it: &Source| {
            !it.request_principals.is_empty() || !it.not_request_principals.is_empty()
        };
        rule.when.is_empty() && !rule.from.iter().any(of_tokens)
    })
}

/// The service that a request names as its host.
pub(super) fn service<'a>(line: &WaypointLine, world: &'a World) -> Option<&'a KubeService> {
    let authority = line.authority.as_deref()?;
    let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
    match world.called(name)? {
        Called::Service(service) => Some(service),
        Called::Host(_) => None,
    }
}

/// What a request asked of a waypoint, as its log has it, of a pod of the mesh.
pub(super) fn asked(line: &WaypointLine, client: &PodRef, world: &World) -> Option<Asked> {
    let pod = world.pod(client).filter(|pod| world.is_ambient(pod))?;
    let headers = BTreeMap::new();
    let token = WaypointPolicies::default().token(&headers, |_, _| Ok(waypoint::Claims::new()));
    let request = Request {
        method: line.method.clone()?,
        path: line.path.clone()?,
        host: line.authority.clone()?,
        headers,
        token,
    };
    Some(Asked {
        peer: Some(SpiffeId::of(&pod.namespace, &pod.service_account)),
        source: line.downstream_remote_address.ip(),
        destination: line.downstream_local_address,
        request: Some(request),
    })
}
