//! What all policies together decide about a flow.

use std::collections::BTreeSet;

use crate::dns::DnsRule;
use crate::identity::{Identity, Reserved};
use crate::labels::Labels;

use super::{NamedPorts, PeerSelector, Policy, PolicyRef, PortSelector, Protocol};

/// What a rule does to what it selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// It lets pass.
    Allow,
    /// It drops, whatever other rules allow.
    Deny,
}

/// One rule of a policy, for one direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// The policy it comes from.
    pub origin: PolicyRef,
    /// What it does.
    pub effect: Effect,
    /// To whom.
    pub peers: PeerSelector,
    /// On which ports.
    pub ports: PortSelector,
    /// For an allow rule: the names that the DNS proxy lets pass, if it has to look.
    pub dns: Option<Vec<DnsRule>>,
}

/// What policies say about one direction of an endpoint.
///
/// Without rules and default-deny it is not enforced, and everything passes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DirectionPolicy {
    /// Whether what no rule allows is dropped.
    pub default_deny: bool,
    /// Whether the endpoint's own node passes default-deny, which it does on ingress for the sake
    /// of kubelet probes (`pkg/policy/repository.go`, `allow-localhost`). A deny rule still wins.
    pub allows_host: bool,
    /// The rules, in no particular order.
    pub rules: Vec<Rule>,
}

/// What policies say about an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// About what it receives.
    pub ingress: DirectionPolicy,
    /// About what it sends.
    pub egress: DirectionPolicy,
}

/// What becomes of a flow in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It passes.
    Allowed {
        /// The policies with a rule that allows it, sorted; none where nothing is enforced, for the
        /// endpoint's own node, and where nothing but allowances without default-deny select it.
        /// Cilium's own record names those of the one map entry that the packet hit.
        by: Vec<PolicyRef>,
    },
    /// It goes to the DNS proxy.
    Inspected {
        /// The policies with a rule that allows it, sorted.
        by: Vec<PolicyRef>,
        /// The names that the proxy lets pass: those that any of these rules matches.
        dns: Vec<DnsRule>,
    },
    /// A deny rule drops it.
    Denied {
        /// The policies with such a rule, sorted.
        by: Vec<PolicyRef>,
    },
    /// Default-deny drops it: nothing allows it.
    NotAllowed,
}

impl DirectionPolicy {
    /// Decides about a flow to or from a peer, on a port of its destination, whose names are given.
    pub fn decide(
        &self,
        peer: &Identity,
        protocol: Protocol,
        port: u16,
        named: &NamedPorts,
    ) -> Decision {
        let labels = peer.view();
        let (allows, denies): (Vec<&Rule>, Vec<&Rule>) = self
            .rules
            .iter()
            .filter(|rule| rule.ports.selects(protocol, port, named))
            .filter(|rule| rule.peers.selects_labelled(peer, &labels))
            .partition(|rule| rule.effect == Effect::Allow);
        if !denies.is_empty() {
            return Decision::Denied { by: origins(&denies) };
        }
        let by = origins(&allows);
        let inspected: BTreeSet<&DnsRule> =
            allows.iter().filter_map(|rule| rule.dns.as_ref()).flatten().collect();
        if inspected.is_empty() {
            if allows.is_empty() && self.default_deny && !self.passes_as_host(peer) {
                return Decision::NotAllowed;
            }
            return Decision::Allowed { by };
        }
        // `createL4Filter` in `pkg/policy/l4.go`: without default-deny in this direction the names
        // get a wildcard, so that a rule that only adds to what is allowed takes nothing away.
        //
        // `mergePortProto` in `pkg/policy/rule.go` and `GeneratePattern` in `pkg/fqdn/dnsproxy`: a
        // rule for this very port without names lets its peers answer every name. One for all
        // ports does not: the redirect is the more specific entry and has the higher precedence
        // (`pkg/policy/types/entry.go`).
        let opens =
            |rule: &&Rule| rule.dns.is_none() && rule.ports.is_exactly(protocol, port, named);
        let dns = if !self.default_deny || allows.iter().any(opens) {
            vec![DnsRule::any()]
        } else {
            inspected.into_iter().cloned().collect()
        };
        Decision::Inspected { by, dns }
    }

    fn passes_as_host(&self, peer: &Identity) -> bool {
        self.allows_host && *peer == Identity::Reserved(Reserved::Host)
    }

    /// Whether the policy that it was read from says anything about this direction.
    fn is_written(&self) -> bool {
        self.default_deny || !self.rules.is_empty()
    }

    fn add(&mut self, other: &Self) {
        self.default_deny |= other.default_deny;
        self.rules.extend(other.rules.iter().cloned());
    }
}

fn origins(rules: &[&Rule]) -> Vec<PolicyRef> {
    let origins: BTreeSet<&PolicyRef> = rules.iter().map(|rule| &rule.origin).collect();
    origins.into_iter().cloned().collect()
}

impl EndpointPolicy {
    /// Adds what another policy says.
    pub(crate) fn add(&mut self, other: &Self) {
        self.ingress.add(&other.ingress);
        self.egress.add(&other.egress);
    }
}

/// What these policies together say about an endpoint with these labels.
///
/// Source: `computePolicyEnforcementAndRules` in `pkg/policy/repository.go`, without the host firewall: a node
/// is subject to no policy, and an endpoint whose labels are not known yet is closed. The enforcement mode is
/// `default` unless one of the policies says `always`.
///
/// Since 1.20.0 the own node passes default-deny only where some policy has an ingress section about the
/// endpoint: in mode `always` kubelet's probes of a pod that no such policy selects are dropped (cilium#48444).
#[expect(single_use_lifetimes, reason = "a lifetime cannot be elided inside `impl Trait`")]
pub fn endpoint_policy<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    subject: &Labels,
) -> EndpointPolicy {
    let mut whole = EndpointPolicy::default();
    if subject.is_reserved(Reserved::Host.name()) {
        return whole;
    }
    let mut has_ingress = false;
    for policy in policies {
        if let Some(part) = policy.select(subject) {
            has_ingress |= !matches!(policy, Policy::Mode(_)) && part.ingress.is_written();
            whole.add(&part);
        }
    }
    whole.ingress.allows_host = whole.ingress.default_deny && has_ingress;
    if subject.is_reserved(Reserved::Init.name()) {
        whole.ingress.default_deny = true;
        whole.egress.default_deny = true;
    }
    whole
}
