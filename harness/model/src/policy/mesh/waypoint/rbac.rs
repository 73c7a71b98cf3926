//! When a rule matches (`authz/model/model.go` and `authz/model/generator.go`).
//!
//! On a connection that is none of HTTP, an ALLOW rule with an attribute of HTTP is left out whole, and of a DENY rule
//! such attributes are left out, so that it denies more than it says (`checkError`).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::super::text::{TextMatch, glob};
use super::super::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};
use super::token::Claims;
use super::{Asked, NotEvaluated, Request, RuleName};

/// The rules of a policy that match.
pub(super) fn matching<'a>(
    policy: &'a AuthorizationPolicy,
    asked: &'a Asked,
) -> impl Iterator<Item = RuleName> + 'a {
    let is_left_out =
        |rule: &Rule| asked.request.is_none() && policy.action == Action::Allow && is_of_http(rule);
    let rules = policy.rules.iter().enumerate();
    let matching =
        rules.filter(move |(_, rule)| !is_left_out(rule) && matches(policy, rule, asked));
    matching.map(|(rule, _)| RuleName { policy: policy.reference.clone(), rule })
}

/// Whether everything that a policy says can be evaluated.
pub(super) fn evaluable(policy: &AuthorizationPolicy) -> Result<(), NotEvaluated> {
    let wrong = |attribute: &str| {
        Err(NotEvaluated { policy: policy.reference.clone(), attribute: attribute.to_owned() })
    };
    for rule in &policy.rules {
        // What a proxy before the waypoint reported is not known here.
        let by_report =
            |it: &Source| !(it.remote_ip_blocks.is_empty() && it.not_remote_ip_blocks.is_empty());
        if rule.from.iter().any(by_report) {
            return wrong("remoteIpBlocks");
        }
        if let Some(it) = rule.when.iter().find(|it| Attribute::of(&it.key).is_none()) {
            return wrong(&it.key);
        }
    }
    Ok(())
}

fn is_of_http(rule: &Rule) -> bool {
    let lists = |it: &Operation| {
        let all =
            [&it.hosts, &it.not_hosts, &it.methods, &it.not_methods, &it.paths, &it.not_paths];
        all.into_iter().any(|it| !it.is_empty())
    };
    let principals =
        |it: &Source| !(it.request_principals.is_empty() && it.not_request_principals.is_empty());
    rule.to.iter().any(lists)
        || rule.from.iter().any(principals)
        || rule.when.iter().any(|it| it.key.starts_with("request."))
}

fn matches(policy: &AuthorizationPolicy, rule: &Rule, asked: &Asked) -> bool {
    let namespace = policy.reference.namespace.as_deref().unwrap_or_default();
    (rule.from.is_empty() || rule.from.iter().any(|it| is_from(it, namespace, asked)))
        && (rule.to.is_empty() || rule.to.iter().any(|it| is_to(it, asked)))
        && rule.when.iter().all(|it| is_met(it, namespace, asked))
}

/// One of the first, if there are any, and none of the others.
fn admit(one_of: &[String], none_of: &[String], is_it: impl Fn(&str) -> bool) -> bool {
    (one_of.is_empty() || one_of.iter().any(|it| is_it(it))) && !none_of.iter().any(|it| is_it(it))
}

fn is_from(source: &Source, namespace: &str, asked: &Asked) -> bool {
    let Source { principals, not_principals, namespaces, not_namespaces, .. } = source;
    let Source { service_accounts, not_service_accounts, ip_blocks, not_ip_blocks, .. } = source;
    admit(principals, not_principals, |it| is_principal(it, asked))
        && admit(namespaces, not_namespaces, |it| is_of_namespace(it, asked))
        && admit(service_accounts, not_service_accounts, |it| is_account(it, namespace, asked))
        && admit(ip_blocks, not_ip_blocks, |it| is_in_block(it, asked.source))
        && asked.request.as_ref().is_none_or(|request| {
            let (one_of, none_of) = (&source.request_principals, &source.not_request_principals);
            admit(one_of, none_of, |it| is_request_principal(it, request.token.claims()))
        })
}

fn is_to(operation: &Operation, asked: &Asked) -> bool {
    let port = |it: &str| it.parse() == Ok(asked.destination.port());
    admit(&operation.ports, &operation.not_ports, port)
        && asked.request.as_ref().is_none_or(|request| {
            let Operation { hosts, not_hosts, methods, not_methods, paths, not_paths, .. } =
                operation;
            let host = request.host.to_ascii_lowercase();
            let path = normalized(&request.path);
            admit(hosts, not_hosts, |it| is_text(&it.to_ascii_lowercase(), Some(&host)))
                && admit(methods, not_methods, |it| is_text(it, Some(&request.method)))
                && admit(paths, not_paths, |it| is_path(it, &path))
        })
}

/// What conditions are about.
enum Attribute<'a> {
    SourceIp,
    Namespace,
    Account,
    Principal,
    DestinationIp,
    DestinationPort,
    RequestPrincipal,
    /// A claim, by the names that lead to it.
    Claim(Vec<&'a str>),
    Header(&'a str),
}

impl<'a> Attribute<'a> {
    /// Reads a key; none where it is one that is not evaluated.
    fn of(key: &'a str) -> Option<Self> {
        Some(match key {
            "source.ip" => Self::SourceIp,
            "source.namespace" => Self::Namespace,
            "source.serviceAccount" => Self::Account,
            "source.principal" => Self::Principal,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Claim(vec!["aud"]),
            "request.auth.presenter" => Self::Claim(vec!["azp"]),
            key => return Self::named(key),
        })
    }

    /// Of the keys with names in brackets.
    fn named(key: &'a str) -> Option<Self> {
        if let Some(names) = key.strip_prefix("request.auth.claims") {
            return Some(Self::Claim(bracketed(names)?.split("][").collect()));
        }
        let name = bracketed(key.strip_prefix("request.headers")?)?;
        // Those with a colon are parts of the request, of which policies speak otherwise.
        (!name.starts_with(':')).then_some(Self::Header(name))
    }
}

fn bracketed(text: &str) -> Option<&str> {
    text.strip_prefix('[')?.strip_suffix(']')
}

fn is_met(condition: &Condition, namespace: &str, asked: &Asked) -> bool {
    let Condition { key, values, not_values } = condition;
    let request = asked.request.as_ref();
    let claims = request.and_then(|it| it.token.claims());
    let Some(attribute) = Attribute::of(key) else { return false };
    if request.is_none() && key.starts_with("request.") {
        return true;
    }
    admit(values, not_values, |it| match &attribute {
        Attribute::SourceIp => is_in_block(it, asked.source),
        Attribute::DestinationIp => is_in_block(it, asked.destination.ip()),
        Attribute::DestinationPort => it.parse() == Ok(asked.destination.port()),
        Attribute::Namespace => is_of_namespace(it, asked),
        Attribute::Account => is_account(it, namespace, asked),
        Attribute::Principal => is_principal(it, asked),
        Attribute::RequestPrincipal => is_request_principal(it, claims),
        Attribute::Claim(names) => has_claim(it, names, claims),
        Attribute::Header(name) => is_text(it, request.and_then(|it| header(it, name))),
    })
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(&name.to_ascii_lowercase()).map(String::as_str)
}

/// `HeaderMatcher` in `authz/matcher/header.go`: a star alone is a header that is there, and be it empty.
fn is_text(pattern: &str, text: Option<&str>) -> bool {
    text.is_some_and(|text| pattern == "*" || TextMatch::read(pattern).matches(text))
}

/// `srcPrincipalGenerator`: without the scheme, which is put before it.
fn is_principal(pattern: &str, asked: &Asked) -> bool {
    asked.peer.as_ref().is_some_and(|peer| TextMatch::read(pattern).matches(&peer.principal()))
}

/// `srcNamespaceGenerator`: anywhere in the identity, and a star stands for anything, slashes too.
fn is_of_namespace(pattern: &str, asked: &Asked) -> bool {
    asked.peer.as_ref().is_some_and(|peer| glob(&format!("*/ns/{pattern}/*"), &peer.to_string()))
}

/// `serviceAccountRegex`: without a namespace it is one of the policy's own.
fn is_account(text: &str, namespace: &str, asked: &Asked) -> bool {
    let (namespace, account) = text.split_once('/').unwrap_or((namespace, text));
    let peer = asked.peer.as_ref();
    peer.is_some_and(|it| it.namespace == namespace && it.service_account == account)
}

fn is_in_block(text: &str, address: IpAddr) -> bool {
    let range = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    range.is_some_and(|range| range.contains(&address))
}

/// `requestPrincipalGenerator`: issuer and subject around the last slash, with a star at one end.
fn is_request_principal(text: &str, claims: Option<&Claims>) -> bool {
    let claim = |name: &str| claims.and_then(|it| it.get(name)).and_then(Value::as_str);
    let (Some(issuer), Some(subject)) = (claim("iss"), claim("sub")) else {
        return false;
    };
    let any = |text: &str| !text.is_empty();
    let (text, parts) = (text, text.rsplit_once('/'));
    match (parts, text.strip_prefix('*'), text.strip_suffix('*')) {
        (_, Some(""), _) => any(issuer) && any(subject),
        (Some((of, who)), Some(_), _) => TextMatch::read(of).matches(issuer) && subject == who,
        (None, Some(who), _) => any(issuer) && subject.ends_with(who),
        (Some((of, who)), None, Some(_)) => issuer == of && TextMatch::read(who).matches(subject),
        (None, None, Some(of)) => issuer.starts_with(of) && any(subject),
        (Some((of, who)), None, None) => issuer == of && subject == who,
        (None, None, None) => issuer == text && subject.is_empty(),
    }
}

/// `MetadataListValueMatcherForJWTClaims`: a claim that is a text, or a list with it. Scopes and permissions are lists of
/// words (`buildSpaceDelimitedClaims` in `pilot/pkg/security/authn/policy_applier.go`).
fn has_claim(pattern: &str, names: &[&str], claims: Option<&Claims>) -> bool {
    let (Some(claims), [first, rest @ ..]) = (claims, names) else {
        return false;
    };
    let inner = |value: Option<&'_ Value>, name: &&str| value.and_then(|it| it.get(*name)).cloned();
    let found = rest.iter().fold(claims.get(*first).cloned(), |it, name| inner(it.as_ref(), name));
    let pattern = TextMatch::read(pattern);
    let is_it = |value: &Value| value.as_str().is_some_and(|text| pattern.matches(text));
    match found {
        Some(Value::String(words))
            if rest.is_empty() && matches!(*first, "scope" | "permission") =>
        {
            words.split(' ').any(|word| pattern.matches(word))
        }
        Some(Value::Array(list)) => list.iter().any(is_it),
        Some(value) => is_it(&value),
        None => false,
    }
}

/// `pathGenerator`: templates (`{*}` for a part, `{**}` for all that follows) or a star at one end.
fn is_path(pattern: &str, path: &str) -> bool {
    const REST: &str = "{**}";
    const PART: &str = "{*}";

    if !pattern.contains(REST) && !pattern.contains(PART) {
        return TextMatch::read(pattern).matches(path);
    }
    let mut parts = path.split('/');
    for wanted in pattern.split('/') {
        match (wanted, parts.next()) {
            (REST, Some(_)) => return true,
            (PART, Some(part)) if !part.is_empty() => {}
            (wanted, Some(part)) if wanted == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

/// The path that policies see: without the query, and with dots resolved and backslashes turned, as a mesh does unless it
/// is told otherwise (`pathNormalization: BASE`).
fn normalized(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default().replace('\\', "/");
    let mut parts: Vec<&str> = Vec::new();
    let mut all = path.split('/').peekable();
    while let Some(part) = all.next() {
        let is_last = all.peek().is_none();
        match part.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." if is_last => parts.push(""),
            "." => {}
            ".." => {
                if parts.len() > 1 {
                    parts.pop();
                }
                if is_last {
                    parts.push("");
                }
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}
