//! Policies that are got wrong on purpose, before anything is compiled from them.
//!
//! The model knows no faults; what it read is rewritten here so that it says what a broken Cilium would
//! have understood.

use ztc_model::labels::NAMESPACE;
use ztc_model::policy::{
    DirectionPolicy, EndpointPolicy, Peer, PeerSelector, Policy, Rule, Spec, Specs,
};
use ztc_model::selector::{Condition, Requirement, Selector};

use crate::fault::{Fault, Faults};

/// What a lab that is broken in these ways takes a policy for.
pub(super) fn spoiled(policy: Policy, faults: &Faults) -> Policy {
    let policy = if faults.has(Fault::NotInSkipsMissingKey) {
        with_specs(policy, |specs| specs.into_iter().map(asking_for_keys).collect())
    } else {
        policy
    };
    let policy = if faults.has(Fault::ModeIgnored) && matches!(policy, Policy::Mode(_)) {
        with_specs(policy, |_| Vec::new())
    } else {
        policy
    };
    if faults.has(Fault::FqdnLeaksNamespace) {
        with_specs(policy, |specs| {
            let leaks: Vec<Spec> = specs.iter().filter_map(leak_of_names).collect();
            [specs, leaks].concat()
        })
    } else {
        policy
    }
}

fn with_specs(policy: Policy, change: impl FnOnce(Vec<Spec>) -> Vec<Spec>) -> Policy {
    let changed = |it: Specs| Specs { specs: change(it.specs), ..it };
    match policy {
        Policy::Network(specs) => Policy::Network(changed(specs)),
        Policy::Cilium(specs) => Policy::Cilium(changed(specs)),
        Policy::Clusterwide(specs) => Policy::Clusterwide(changed(specs)),
        Policy::Mode(specs) => Policy::Mode(changed(specs)),
        Policy::Mesh(policy) => Policy::Mesh(policy),
        other @ (Policy::Gateway { .. } | Policy::Unenforced(_)) => other,
    }
}

/// The same with every `NotIn` asking that there is such a label.
fn asking_for_keys(spec: Spec) -> Spec {
    let Spec { subject, policy: EndpointPolicy { ingress, egress } } = spec;
    let direction = |mut policy: DirectionPolicy| {
        for rule in &mut policy.rules {
            let parts = rule.peers.parts().iter().cloned().map(|part| match part {
                Peer::Labels(selector) => Peer::Labels(with_keys(&selector)),
                part @ (Peer::Cidr { .. } | Peer::Fqdn(_)) => part,
            });
            rule.peers = PeerSelector::any_of(parts.collect());
        }
        policy
    };
    let policy = EndpointPolicy { ingress: direction(ingress), egress: direction(egress) };
    Spec { subject: with_keys(&subject), policy }
}

fn with_keys(selector: &Selector) -> Selector {
    let not_in = |it: &&Requirement| matches!(it.condition, Condition::NotIn(_));
    let keys = selector.requirements().filter(not_in);
    let keys = keys.map(|it| Requirement::exists(&it.source, &it.key));
    selector.requirements().cloned().chain(keys).collect()
}

/// The rules for names of a spec for the pods of every namespace, and nothing else of it.
fn leak_of_names(spec: &Spec) -> Option<Spec> {
    let names = |rule: &&Rule| rule.peers.names().next().is_some();
    let rules: Vec<Rule> = spec.policy.egress.rules.iter().filter(names).cloned().collect();
    if rules.is_empty() {
        return None;
    }
    let elsewhere = spec.subject.requirements().filter(|it| it.key != NAMESPACE).cloned();
    let egress = DirectionPolicy { rules, ..DirectionPolicy::default() };
    let policy = EndpointPolicy { egress, ..EndpointPolicy::default() };
    Some(Spec { subject: elsewhere.collect(), policy })
}
