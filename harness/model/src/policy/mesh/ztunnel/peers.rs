//! What istiod makes of the `PeerAuthentication`s for ztunnel, which has no such kind (`convertPeerAuthentication` and
//! `convertedSelectorPeerAuthentications` in `pilot/pkg/serviceregistry/ambient/authorization.go`).
//!
//! The two are written apart there and do not always agree: a workload may refer to a policy that was never made.
//! ztunnel skips what it does not know, so that nothing is refused. Both are followed to the letter.

use std::collections::BTreeMap;

use crate::policy::Effect;

use super::super::text::TextMatch;
use super::super::{CONVERTED_PEERS, Mode, PeerAuthentication, ROOT_NAMESPACE, STATIC_STRICT};
use super::rbac::{Authorization, Match, Scope, Values};
use super::{PolicyKey, Workload, is_within};

/// The ones that count for the workloads of a namespace: of each level the oldest.
struct Levels<'a> {
    mesh: Option<&'a PeerAuthentication>,
    namespace: Option<&'a PeerAuthentication>,
}

impl<'a> Levels<'a> {
    /// Of policies in the order in which they were made.
    fn of(peers: &'a [PeerAuthentication], namespace: &str) -> Self {
        let oldest = |of: &str| peers.iter().find(|it| it.selector.is_empty() && is_in(it, of));
        let inner = if namespace == ROOT_NAMESPACE { None } else { oldest(namespace) };
        Self { mesh: oldest(ROOT_NAMESPACE), namespace: inner }
    }

    fn is_mesh(&self, mode: Mode) -> bool {
        self.mesh.is_some_and(|it| it.mode == mode)
    }

    fn is_namespace(&self, mode: Mode) -> bool {
        self.namespace.is_some_and(|it| it.mode == mode)
    }

    /// Whether the mode of the mesh reaches the namespace.
    fn mesh_reaches(&self) -> bool {
        self.namespace.is_none_or(|it| it.mode == Mode::Unset)
    }

    fn is_strict(&self) -> bool {
        self.is_namespace(Mode::Strict) || (self.mesh_reaches() && self.is_mesh(Mode::Strict))
    }
}

/// The keys that a workload refers to for the sake of its modes; there may be no policy of that key.
///
/// The mode of the mesh, then of the namespace, then of the workload: one that is not set changes nothing.
/// Policies are in the order in which they were made, and the oldest of a level counts.
pub(super) fn references(
    peers: &[PeerAuthentication],
    workload: &Workload<'_>,
) -> Option<PolicyKey> {
    let Workload { namespace, labels } = *workload;
    let above = Levels::of(peers, namespace).is_strict();
    let selects = |it: &&PeerAuthentication| {
        is_in(it, namespace) && !it.selector.is_empty() && is_within(&it.selector, labels)
    };
    let own = peers.iter().find(selects).filter(|_| namespace != ROOT_NAMESPACE);
    let Some(own) = own else {
        return above.then(static_strict);
    };
    let has = |modes: &[Mode]| own.ports.values().any(|mode| modes.contains(mode));
    let (strict, differs) = match own.mode {
        Mode::Strict => (true, has(&[Mode::Permissive, Mode::Disable])),
        // A port with DISABLE does not count here.
        Mode::Unset if above => (true, has(&[Mode::Permissive])),
        Mode::Permissive | Mode::Disable | Mode::Unset => (false, has(&[Mode::Strict])),
    };
    // A policy with a port that differs stands for the whole workload: the static one beside it would be too much.
    if differs { Some(key(own)) } else { strict.then(static_strict) }
}

/// All policies that istiod makes: the static one, which it makes where there is any `PeerAuthentication`, and one for
/// each that has a port which differs from the rest.
pub(super) fn converted(peers: &[PeerAuthentication]) -> Vec<Authorization> {
    let strict = (!peers.is_empty()).then(|| deny(static_strict(), vec![vec![vec![in_plain()]]]));
    strict.into_iter().chain(peers.iter().filter_map(|it| of_ports(it, peers))).collect()
}

/// What the modes of ports become: a DENY of peers in plain, on those ports or on all but those.
fn of_ports(own: &PeerAuthentication, peers: &[PeerAuthentication]) -> Option<Authorization> {
    let key = key(own);
    if key.namespace == ROOT_NAMESPACE || own.selector.is_empty() || own.ports.is_empty() {
        return None;
    }
    let levels = Levels::of(peers, &key.namespace);
    let on = |port: u16| Values { one_of: vec![port], none_of: Vec::new() };
    let but = |port: u16| Values { one_of: Vec::new(), none_of: vec![port] };
    let mut clauses = Vec::new();
    let mut rules = Vec::new();
    let mut exempts = false;
    if own.mode == Mode::Strict {
        clauses.push(vec![in_plain()]);
    }
    for (port, mode) in &own.ports {
        match mode {
            Mode::Strict if !strict_above(own, &levels) => {
                rules.push(vec![vec![Match { ports: on(*port), ..in_plain() }]]);
            }
            Mode::Permissive | Mode::Disable if has_to_exempt(own, &levels) => {
                exempts = true;
                clauses.push(vec![Match { ports: but(*port), ..Match::default() }]);
            }
            Mode::Unset | Mode::Strict | Mode::Permissive | Mode::Disable => {}
        }
    }
    if own.mode == Mode::Strict && !exempts {
        return None;
    }
    if levels.is_strict() && exempts {
        clauses.push(vec![in_plain()]);
    }
    if !clauses.is_empty() {
        rules.push(clauses);
    }
    (!rules.is_empty()).then(|| deny(key, rules))
}

/// Whether istiod takes a port with STRICT to be refused by another policy anyway. It asks for the mesh's mode without
/// looking at that of the workload: one that is PERMISSIVE is refused by none, and neither is its port with STRICT.
fn strict_above(own: &PeerAuthentication, levels: &Levels<'_>) -> bool {
    own.mode == Mode::Strict
        || (own.mode == Mode::Unset && levels.is_namespace(Mode::Strict))
        || (levels.mesh_reaches() && levels.is_mesh(Mode::Strict))
}

/// Whether a port that accepts peers in plain is an exception. Under a policy of the namespace without a mode istiod
/// does not look at the mesh's.
fn has_to_exempt(own: &PeerAuthentication, levels: &Levels<'_>) -> bool {
    match own.mode {
        Mode::Strict => true,
        Mode::Permissive | Mode::Disable => false,
        Mode::Unset => {
            levels.is_namespace(Mode::Strict)
                || (levels.namespace.is_none() && levels.is_mesh(Mode::Strict))
        }
    }
}

fn deny(key: PolicyKey, rules: Vec<super::rbac::Rule>) -> Authorization {
    Authorization {
        key,
        scope: Scope::Referring,
        selector: BTreeMap::new(),
        effect: Effect::Deny,
        rules,
    }
}

/// A peer without any principal.
fn in_plain() -> Match {
    let none = Values { one_of: Vec::new(), none_of: vec![TextMatch::Present] };
    Match { principals: none, ..Match::default() }
}

fn static_strict() -> PolicyKey {
    PolicyKey { namespace: ROOT_NAMESPACE.to_owned(), name: STATIC_STRICT.to_owned() }
}

fn key(policy: &PeerAuthentication) -> PolicyKey {
    let PolicyKey { namespace, name } = PolicyKey::from(&policy.reference);
    PolicyKey { namespace, name: format!("{CONVERTED_PEERS}{name}") }
}

fn is_in(policy: &PeerAuthentication, namespace: &str) -> bool {
    policy.reference.namespace.as_deref() == Some(namespace)
}
