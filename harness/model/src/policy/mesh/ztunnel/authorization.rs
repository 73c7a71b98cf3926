//! What istiod makes of an `AuthorizationPolicy` for ztunnel (`convertAuthorizationPolicy` and `handleRule` in
//! `pilot/pkg/serviceregistry/ambient/authorization.go`).

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::policy::Effect;

use super::super::text::TextMatch;
use super::super::{
    Action, AuthorizationPolicy, Condition, Operation, ROOT_NAMESPACE, Source, authorization,
};
use super::PolicyKey;
use super::rbac::{Account, Authorization, Match, Rule, Scope, Values};

/// What ztunnel is told of a policy; nothing of one that is a waypoint's, that is tried out only, or whose action
/// ztunnel does not have.
pub(super) fn converted(policy: &AuthorizationPolicy) -> Option<Authorization> {
    let effect = match policy.action {
        Action::Allow => Effect::Allow,
        Action::Deny => Effect::Deny,
        Action::Audit => return None,
    };
    if policy.dry_run || !policy.target_refs.is_empty() {
        return None;
    }
    let key = PolicyKey::from(&policy.reference);
    let scope = match (policy.selector.is_empty(), key.namespace == ROOT_NAMESPACE) {
        (false, _) => Scope::Referring,
        (true, true) => Scope::Mesh,
        (true, false) => Scope::Namespace,
    };
    let rules = policy.rules.iter().filter_map(|rule| rule_of(rule, effect, &key.namespace));
    let rules = rules.collect();
    Some(Authorization { key, scope, selector: policy.selector.clone(), effect, rules })
}

/// What remains of a rule at ztunnel, which knows nothing of HTTP.
///
/// An ALLOW rule with an attribute of HTTP is left out, so that it allows nothing. Of a DENY rule such attributes
/// are left out one by one: a part of which nothing is left stays as an empty one, which never matches. So a rule
/// that has a clause of nothing but HTTP denies nothing, and one that has something of TCP in each denies more
/// than it says.
fn rule_of(rule: &authorization::Rule, effect: Effect, namespace: &str) -> Option<Rule> {
    if speaks_http(rule) && effect == Effect::Allow {
        return None;
    }
    let to = rule.to.iter().map(operation).collect();
    let from = rule.from.iter().map(|it| source(it, namespace)).collect();
    let clauses = [to, from].into_iter().filter(|clause: &Vec<Match>| !clause.is_empty());
    Some(clauses.chain(rule.when.iter().map(|it| vec![condition(it)])).collect())
}

/// Whether a rule has an attribute of HTTP, of which ztunnel knows nothing.
pub(super) fn speaks_http(rule: &authorization::Rule) -> bool {
    rule.to.iter().any(is_of_http)
        || rule.from.iter().any(is_of_requests)
        || rule.when.iter().any(|it| !TCP_CONDITIONS.contains(&it.key.as_str()))
}

/// Keys of conditions that are about the connection (`l4WhenAttributes`).
const TCP_CONDITIONS: [&str; 5] =
    ["source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port"];

fn is_of_http(operation: &Operation) -> bool {
    let Operation {
        hosts,
        not_hosts,
        ports: _,
        not_ports: _,
        methods,
        not_methods,
        paths,
        not_paths,
    } = operation;
    [hosts, not_hosts, methods, not_methods, paths, not_paths].into_iter().any(|it| !it.is_empty())
}

fn is_of_requests(source: &Source) -> bool {
    let lists = [
        &source.remote_ip_blocks,
        &source.not_remote_ip_blocks,
        &source.request_principals,
        &source.not_request_principals,
    ];
    lists.into_iter().any(|it| !it.is_empty())
}

fn operation(operation: &Operation) -> Match {
    Match { ports: parsed(&operation.ports, &operation.not_ports), ..Match::default() }
}

fn source(source: &Source, namespace: &str) -> Match {
    let account = |text: &String| {
        let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
        Account { namespace: namespace.to_owned(), name: name.to_owned() }
    };
    Match {
        namespaces: texts(&source.namespaces, &source.not_namespaces),
        accounts: Values {
            one_of: source.service_accounts.iter().map(account).collect(),
            none_of: source.not_service_accounts.iter().map(account).collect(),
        },
        principals: texts(&source.principals, &source.not_principals),
        sources: ranges(&source.ip_blocks, &source.not_ip_blocks),
        ..Match::default()
    }
}

fn condition(condition: &Condition) -> Match {
    let Condition { key, values, not_values } = condition;
    let nothing = Match::default();
    match key.as_str() {
        "source.ip" => Match { sources: ranges(values, not_values), ..nothing },
        "source.namespace" => Match { namespaces: texts(values, not_values), ..nothing },
        "source.principal" => Match { principals: texts(values, not_values), ..nothing },
        "destination.ip" => Match { destinations: ranges(values, not_values), ..nothing },
        "destination.port" => Match { ports: parsed(values, not_values), ..nothing },
        _ => nothing,
    }
}

fn texts(one_of: &[String], none_of: &[String]) -> Values<TextMatch> {
    let read = |texts: &[String]| texts.iter().map(|it| TextMatch::read(it)).collect();
    Values { one_of: read(one_of), none_of: read(none_of) }
}

/// Ranges, or addresses that stand for themselves alone; what is neither is passed over (`stringToIP`).
fn ranges(one_of: &[String], none_of: &[String]) -> Values<IpNet> {
    let read = |texts: &[String]| {
        let read =
            |text: &String| text.parse().ok().or(text.parse::<IpAddr>().ok().map(IpNet::from));
        texts.iter().filter_map(read).collect()
    };
    Values { one_of: read(one_of), none_of: read(none_of) }
}

/// Numbers; what is none is passed over (`stringToPort`).
fn parsed<T: FromStr>(one_of: &[String], none_of: &[String]) -> Values<T> {
    let read = |texts: &[String]| texts.iter().filter_map(|it| it.parse().ok()).collect();
    Values { one_of: read(one_of), none_of: read(none_of) }
}
