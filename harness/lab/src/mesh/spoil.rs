//! Policies that are got wrong on purpose, before anything is made of them.
//!
//! The model knows no faults; what it read is rewritten here so that it says what a broken ztunnel or waypoint would
//! have understood.

use ztc_model::policy::mesh::{Action, AuthorizationPolicy, MeshPolicy, Operation, Rule};

use crate::fault::{Fault, Faults};

/// What ztunnels and waypoints that are broken in these ways take a policy for; nothing where they do not know it at
/// all. `is_of_a_waypoint` knows the principals of waypoints.
pub(super) fn spoiled(
    policy: MeshPolicy,
    faults: &Faults,
    is_of_a_waypoint: impl Fn(&str) -> bool,
) -> Option<MeshPolicy> {
    match policy {
        MeshPolicy::Peers(policy) => {
            (!faults.has(Fault::StrictAcceptsPlaintext)).then_some(MeshPolicy::Peers(policy))
        }
        // What is got wrong of tokens is got wrong when one is looked at.
        MeshPolicy::Requests(policy) => Some(MeshPolicy::Requests(policy)),
        MeshPolicy::Authorization(mut policy) => {
            let is_of_waypoints = !policy.target_refs.is_empty();
            let is_unknown = (faults.has(Fault::ZtunnelIgnoresDeny)
                && policy.action == Action::Deny)
                || (faults.has(Fault::PodIpSkipsHardening)
                    && is_for_waypoints_alone(&policy, is_of_a_waypoint));
            if is_unknown && !is_of_waypoints {
                return None;
            }
            if faults.has(Fault::ZtunnelIgnoresPort) && !is_of_waypoints {
                policy.rules = policy.rules.into_iter().map(without_ports).collect();
            }
            if faults.has(Fault::WaypointIgnoresMethod) && is_of_waypoints {
                policy.rules = policy.rules.into_iter().map(without_methods).collect();
            }
            Some(MeshPolicy::Authorization(policy))
        }
    }
}

/// Whether a policy lets nobody pass but waypoints.
fn is_for_waypoints_alone(
    policy: &AuthorizationPolicy,
    is_of_a_waypoint: impl Fn(&str) -> bool,
) -> bool {
    let mut sources = policy.rules.iter().flat_map(|rule| &rule.from).peekable();
    policy.action == Action::Allow
        && sources.peek().is_some()
        && sources.all(|it| {
            !it.principals.is_empty() && it.principals.iter().all(|it| is_of_a_waypoint(it))
        })
}

/// The same rule about every method.
fn without_methods(mut rule: Rule) -> Rule {
    for operation in &mut rule.to {
        operation.methods.clear();
        operation.not_methods.clear();
    }
    rule.to.retain(|operation| *operation != Operation::default());
    rule
}

/// The same rule about every port. What is said of ports alone is not said at all then: an operation without
/// attributes would match nothing.
fn without_ports(mut rule: Rule) -> Rule {
    for operation in &mut rule.to {
        operation.ports.clear();
        operation.not_ports.clear();
    }
    rule.to.retain(|operation| *operation != Operation::default());
    rule
}
