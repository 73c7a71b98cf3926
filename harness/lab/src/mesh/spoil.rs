//! Policies that are got wrong on purpose, before anything is made of them.
//!
//! The model knows no faults; what it read is rewritten here so that it says what a broken ztunnel would have
//! understood.

use ztc_model::policy::mesh::{Action, MeshPolicy, Operation, Rule};

use crate::fault::{Fault, Faults};

/// What ztunnels that are broken in these ways take a policy for; nothing where they do not know it at all.
pub(super) fn spoiled(policy: MeshPolicy, faults: &Faults) -> Option<MeshPolicy> {
    match policy {
        MeshPolicy::Peers(policy) => {
            (!faults.has(Fault::StrictAcceptsPlaintext)).then_some(MeshPolicy::Peers(policy))
        }
        // ztunnels know no tokens.
        MeshPolicy::Requests(policy) => Some(MeshPolicy::Requests(policy)),
        MeshPolicy::Authorization(mut policy) => {
            if policy.action == Action::Deny && faults.has(Fault::ZtunnelIgnoresDeny) {
                return None;
            }
            if faults.has(Fault::ZtunnelIgnoresPort) {
                policy.rules = policy.rules.into_iter().map(without_ports).collect();
            }
            Some(MeshPolicy::Authorization(policy))
        }
    }
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
