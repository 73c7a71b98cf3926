//! What ztunnel is told, and when it matches (`src/rbac.rs` of istio/ztunnel).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::Effect;

use super::super::spiffe::SpiffeId;
use super::super::text::TextMatch;
use super::{Connection, PolicyKey};

/// A policy of ztunnel's: an `AuthorizationPolicy` of its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// What it is called.
    pub key: PolicyKey,
    /// Whom it is about.
    pub scope: Scope,
    /// The labels of the workloads that are made to refer to it, where it has any.
    pub(super) selector: BTreeMap<String, String>,
    /// What it does with what it matches.
    pub effect: Effect,
    /// One that matches is enough; without any the policy never matches.
    pub rules: Vec<Rule>,
}

/// Whom a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All workloads.
    Mesh,
    /// The workloads of its namespace.
    Namespace,
    /// The workloads that refer to it by its key.
    Referring,
}

/// All clauses have to match. Without any it always does.
pub type Rule = Vec<Clause>;

/// One part of it is enough. A clause without any always matches, and one whose parts are all empty never.
pub type Clause = Vec<Match>;

/// All its attributes have to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// The client's namespace.
    pub namespaces: Values<TextMatch>,
    /// The client's service account.
    pub accounts: Values<Account>,
    /// The client's identity, without `spiffe://`.
    pub principals: Values<TextMatch>,
    /// The client's address.
    pub sources: Values<IpNet>,
    /// The workload's address.
    pub destinations: Values<IpNet>,
    /// The workload's port.
    pub ports: Values<u16>,
}

/// The values of one attribute: one of the first, if there are any, and none of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values<T> {
    /// One of these, if there are any.
    pub one_of: Vec<T>,
    /// And none of these.
    pub none_of: Vec<T>,
}

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { one_of: Vec::new(), none_of: Vec::new() }
    }
}

impl<T> Values<T> {
    fn is_empty(&self) -> bool {
        self.one_of.is_empty() && self.none_of.is_empty()
    }

    fn admit(&self, is_it: impl Fn(&T) -> bool) -> bool {
        (self.one_of.is_empty() || self.one_of.iter().any(&is_it))
            && !self.none_of.iter().any(is_it)
    }
}

impl Authorization {
    /// Whether some rule of it is about a connection.
    pub(super) fn matches(&self, connection: &Connection) -> bool {
        let clause_matches =
            |clause: &Clause| clause.is_empty() || clause.iter().any(|it| it.matches(connection));
        self.rules.iter().any(|rule| rule.iter().all(clause_matches))
    }
}

impl Match {
    /// What the empty one would be about is nothing: it is skipped.
    fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.accounts.is_empty()
            && self.principals.is_empty()
            && self.sources.is_empty()
            && self.destinations.is_empty()
            && self.ports.is_empty()
    }

    /// A peer without a certificate has the empty namespace and no principal, which `none_of` admits.
    fn matches(&self, connection: &Connection) -> bool {
        let Connection { peer, source, destination } = connection;
        let namespace = peer.as_ref().map_or("", |peer| peer.namespace.as_str());
        let principal = peer.as_ref().map(SpiffeId::principal);
        let contains = |address: IpAddr| move |range: &IpNet| range.contains(&address);
        !self.is_empty()
            && self.destinations.admit(contains(destination.ip()))
            && self.sources.admit(contains(*source))
            && self.ports.admit(|port| *port == destination.port())
            && self.accounts.admit(|account| peer.as_ref().is_some_and(|peer| account.is_of(peer)))
            && self.principals.admit(|text| principal.as_ref().is_some_and(|it| text.matches(it)))
            && self.namespaces.admit(|text| text.matches(namespace))
    }
}

impl Account {
    /// Whatever the trust domain.
    fn is_of(&self, peer: &SpiffeId) -> bool {
        self.namespace == peer.namespace && self.name == peer.service_account
    }
}
