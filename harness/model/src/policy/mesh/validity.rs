//! What Istio's webhook refuses of rules (`ValidateAuthorizationPolicy` in `pkg/config/validation/validation.go` and
//! `pkg/config/security/security.go` of istio/istio): a case with it could never be applied.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Condition, Operation, Rule, Source};

/// What is wrong with a rule, in words.
pub(super) fn rule(rule: &Rule) -> Result<(), String> {
    rule.from.iter().try_for_each(source)?;
    rule.to.iter().try_for_each(operation)?;
    rule.when.iter().try_for_each(condition)
}

fn source(source: &Source) -> Result<(), String> {
    if *source == Source::default() {
        return Err("a source that says nothing: Istio refuses it".to_owned());
    }
    let identities =
        [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    let accounts = [&source.service_accounts, &source.not_service_accounts];
    let says = |lists: &[&Vec<String>]| lists.iter().any(|it| !it.is_empty());
    if says(&accounts) && says(&identities) {
        let message = "service accounts beside namespaces or principals: Istio refuses them";
        return Err(message.to_owned());
    }
    let principals = [&source.request_principals, &source.not_request_principals];
    let blocks = [
        &source.ip_blocks,
        &source.not_ip_blocks,
        &source.remote_ip_blocks,
        &source.not_remote_ip_blocks,
    ];
    every(&identities, text)?;
    every(&principals, text)?;
    every(&accounts, account)?;
    every(&blocks, block)
}

fn operation(operation: &Operation) -> Result<(), String> {
    if *operation == Operation::default() {
        return Err("an operation that says nothing: Istio refuses it".to_owned());
    }
    let Operation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths } =
        operation;
    every(&[hosts, not_hosts, methods, not_methods], text)?;
    every(&[ports, not_ports], port)?;
    every(&[paths, not_paths], path)
}

fn condition(condition: &Condition) -> Result<(), String> {
    let Condition { key, values, not_values } = condition;
    if values.is_empty() && not_values.is_empty() {
        return Err(format!("a condition on `{key}` without values: Istio refuses it"));
    }
    let lists = [values, not_values];
    every(&lists, text)?;
    match key.as_str() {
        "source.ip" | "remote.ip" | "destination.ip" => every(&lists, block),
        "destination.port" => every(&lists, port),
        "source.serviceAccount" => every(&lists, account),
        "source.namespace"
        | "source.principal"
        | "source.trustDomain"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter"
        | "connection.sni" => Ok(()),
        key => {
            let of = ["request.headers", "request.auth.claims", "experimental.envoy.filters."];
            let is_named = key.ends_with(']') && key.contains('[') && !key.contains("[]");
            let is_known = is_named && of.iter().any(|it| key.starts_with(it));
            is_known.then_some(()).ok_or_else(|| format!("Istio knows no attribute `{key}`"))
        }
    }
}

fn every(lists: &[&Vec<String>], check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    lists.iter().copied().flatten().try_for_each(|it| check(it))
}

fn text(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("an empty text: Istio refuses it".to_owned()) } else { Ok(()) }
}

fn block(text: &str) -> Result<(), String> {
    let is_one = text.parse::<IpNet>().is_ok() || text.parse::<IpAddr>().is_ok();
    is_one.then_some(()).ok_or_else(|| format!("`{text}` is no address and no range of addresses"))
}

fn port(text: &str) -> Result<(), String> {
    text.parse::<u16>().map(drop).map_err(|_not_one| format!("`{text}` is no port"))
}

fn account(text: &str) -> Result<(), String> {
    let parts = text.split('/').count();
    let is_one = parts <= 2 && !text.contains('*') && text.split('/').all(|it| !it.is_empty());
    is_one.then_some(()).ok_or_else(|| {
        format!("`{text}` is no service account; write `ACCOUNT` or `NAMESPACE/ACCOUNT`")
    })
}

/// Templates are whole parts of a path, and `{**}` is the last (`CheckValidPathTemplate`).
fn path(path: &str) -> Result<(), String> {
    text(path)?;
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = parts.iter().position(|it| *it == "{**}");
    let misplaced = rest.is_some_and(|at| parts.iter().skip(at + 1).any(|it| it.contains('{')));
    let broken = parts.iter().any(|it| !matches!(*it, "{*}" | "{**}") && it.contains(['{', '}']));
    if misplaced || broken {
        return Err(format!(
            "`{path}` is no path; `{{*}}` stands for a part and `{{**}}` for the last parts"
        ));
    }
    Ok(())
}
