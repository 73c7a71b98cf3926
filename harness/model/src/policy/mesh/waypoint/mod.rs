//! What a waypoint decides about a request, or about a connection that is none of HTTP, by what istiod makes of the
//! policies that are bound to it.
//!
//! Tokens are looked at first, then DENY policies, then ALLOW policies. Where a rule names its source as `authz/...`, that
//! is a path below `pilot/pkg/security` of istio/istio of 2026-08-22, version 1.31 and what follows it; the matching
//! itself is Envoy's (`source/extensions/filters/common/rbac`).

mod rbac;
mod signature;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::policy::PolicyRef;
use crate::waypoint::{DENIED, TOKEN_REFUSED};

use super::spiffe::SpiffeId;
use super::{Action, AuthorizationPolicy, JwtRule, MeshPolicy, ROOT_NAMESPACE, TargetRef};

pub use signature::verify;
pub use token::{Claims, Found, Token, TokenError};

/// The class of the gateways that are waypoints.
pub const WAYPOINT_CLASS: &str = "istio-waypoint";

/// A gateway or a service by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// What reaches a waypoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Who asks, by the certificate of its ztunnel.
    pub peer: Option<SpiffeId>,
    /// From which address.
    pub source: IpAddr,
    /// For which address and port: the service's own.
    pub destination: SocketAddr,
    /// The request; none on a port that is not known to be one of HTTP.
    pub request: Option<Request>,
}

/// A request of HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path, with the query.
    pub path: String,
    /// The host that it names, with the port if it names one.
    pub host: String,
    /// Its headers, by names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What was found of its token ([`WaypointPolicies::token`]).
    pub token: Token,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes on to the server.
    Forwarded,
    /// Its token is not believed.
    TokenRefused {
        /// Why.
        why: TokenError,
    },
    /// A DENY rule matches: the first by name of those that do.
    Denied {
        /// The rule.
        by: RuleName,
    },
    /// There are ALLOW policies and no rule of them matches.
    NotAllowed,
}

impl Decision {
    /// The status with which a request is answered; none where it goes on.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Forwarded => None,
            Self::TokenRefused { why } => Some(why.status()),
            Self::Denied { .. } | Self::NotAllowed => Some(403),
        }
    }

    /// What the waypoint's log says of it (`response_code_details`, or why the connection was closed).
    pub fn details(&self) -> Option<String> {
        match self {
            Self::Forwarded => None,
            Self::TokenRefused { why } => {
                Some(format!("{TOKEN_REFUSED}{}}}", why.to_string().replace(' ', "_")))
            }
            Self::Denied { by } => Some(format!("{DENIED}{by}]")),
            Self::NotAllowed => Some(format!("{DENIED}none]")),
        }
    }
}

/// A rule of a policy, as istiod calls it (`policyName` in `authz/builder/builder.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleName {
    /// The policy.
    pub policy: PolicyRef,
    /// Which of its rules, from 0.
    pub rule: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.policy.namespace.as_deref().unwrap_or_default();
        write!(f, "ns[{namespace}]-policy[{}]-rule[{}]", self.policy.name, self.rule)
    }
}

/// A policy that says what is not evaluated here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{policy}: `{attribute}` is not evaluated for waypoints")]
pub struct NotEvaluated {
    /// The policy.
    pub policy: PolicyRef,
    /// What it says.
    pub attribute: String,
}

/// The policies that a waypoint enforces for one service, or for workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaypointPolicies {
    authorizations: Vec<AuthorizationPolicy>,
    tokens: Vec<JwtRule>,
}

impl WaypointPolicies {
    /// Those that are bound to the gateway, to its class or to the service: policies with a selector never are
    /// (`ShouldAttachPolicy` in `pilot/pkg/model/policyattachment.go`). One that is tried out only does nothing, and an
    /// AUDIT stops nobody.
    ///
    /// # Errors
    /// At the first policy that says what is not evaluated.
    #[expect(single_use_lifetimes, reason = "a lifetime cannot be elided inside `impl Trait`")]
    pub fn of<'a>(
        policies: impl IntoIterator<Item = &'a MeshPolicy>,
        gateway: Named<'_>,
        service: Option<Named<'_>>,
    ) -> Result<Self, NotEvaluated> {
        let mut bound = Self::default();
        let is_bound = |reference: &PolicyRef, refs: &[TargetRef]| {
            refs.iter().any(|it| binds(reference, it, gateway, service))
        };
        for policy in policies {
            match policy {
                MeshPolicy::Authorization(it)
                    if is_bound(&it.reference, &it.target_refs)
                        && it.action != Action::Audit
                        && !it.dry_run =>
                {
                    rbac::evaluable(it)?;
                    bound.authorizations.push(it.clone());
                }
                MeshPolicy::Requests(it) if is_bound(&it.reference, &it.target_refs) => {
                    bound.tokens.extend(it.rules.iter().cloned());
                }
                MeshPolicy::Authorization(_) | MeshPolicy::Requests(_) | MeshPolicy::Peers(_) => {}
            }
        }
        Ok(bound)
    }

    /// What is found of a request's token, by who verifies one for an issuer.
    pub fn token(
        &self,
        headers: &BTreeMap<String, String>,
        verify: impl Fn(&JwtRule, &str) -> Result<Claims, TokenError>,
    ) -> Token {
        let found = self.tokens.iter().map(|rule| match token::in_headers(rule, headers) {
            None => Found::Missing,
            Some(text) => verify(rule, text).map_or_else(Found::Refused, Found::Believed),
        });
        Token::of(found.collect())
    }

    /// Decides about a request or a connection.
    pub fn decide(&self, asked: &Asked) -> Decision {
        if let Some(Request { token: Token::Refused(why), .. }) = &asked.request
            && !self.tokens.is_empty()
        {
            return Decision::TokenRefused { why: why.clone() };
        }
        let of = |action: Action| self.authorizations.iter().filter(move |it| it.action == action);
        let denying = of(Action::Deny).flat_map(|policy| rbac::matching(policy, asked));
        // Envoy has rules in the order of their names and stops at the first.
        if let Some(by) = denying.min_by_key(RuleName::to_string) {
            return Decision::Denied { by };
        }
        let mut allowing = of(Action::Allow).peekable();
        let allows = |policy| rbac::matching(policy, asked).next().is_some();
        if allowing.peek().is_none() || allowing.any(allows) {
            Decision::Forwarded
        } else {
            Decision::NotAllowed
        }
    }
}

/// Whether a policy is bound to a gateway, to its class, or to one of the services behind it.
pub fn is_bound(policy: &MeshPolicy, gateway: Named<'_>, services: &[Named<'_>]) -> bool {
    let (reference, refs) = match policy {
        MeshPolicy::Authorization(it) => (&it.reference, &it.target_refs),
        MeshPolicy::Requests(it) => (&it.reference, &it.target_refs),
        MeshPolicy::Peers(_) => return false,
    };
    let to = |service| refs.iter().any(|it| binds(reference, it, gateway, service));
    to(None) || services.iter().any(|service| to(Some(*service)))
}

/// Whether a reference binds its policy to what is asked.
fn binds(
    policy: &PolicyRef,
    target: &TargetRef,
    gateway: Named<'_>,
    service: Option<Named<'_>>,
) -> bool {
    let namespace = policy.namespace.as_deref().unwrap_or_default();
    let is = |it: Named<'_>| namespace == it.namespace && target.name == it.name;
    match target.kind.as_str() {
        "Service" => service.is_some_and(is),
        "Gateway" => is(gateway),
        "GatewayClass" => namespace == ROOT_NAMESPACE && target.name == WAYPOINT_CLASS,
        _ => false,
    }
}
