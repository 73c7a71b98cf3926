//! `AuthorizationPolicy`, from manifest to what it says (`security/v1beta1/authorization_policy.proto` of
//! istio/api).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::yaml::{Diagnostic, Document, Spanned};

use super::super::object::Object;
use super::super::{Policy, PolicyRef};
use super::MeshPolicy;
use super::binding::{Binding, TargetRef, WorkloadSelector, bound};
use super::validity;

/// Who may do what with the workloads or services that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Its name.
    pub reference: PolicyRef,
    /// The labels of the workloads whose ztunnel enforces it.
    pub selector: BTreeMap<String, String>,
    /// The gateways or services whose waypoint enforces it.
    pub target_refs: Vec<TargetRef>,
    /// What is done with what matches.
    pub action: Action,
    /// The rules: one that matches is enough. Without any the policy never matches.
    pub rules: Vec<Rule>,
    /// Whether it is tried out only, by the annotation `istio.io/dry-run`: it enforces nothing then.
    pub dry_run: bool,
}

/// What is done with what matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// It may pass, and where such a policy is, nothing else may.
    #[default]
    Allow,
    /// It may not.
    Deny,
    /// It is written down. ztunnel has no such action, and a waypoint lets it pass.
    Audit,
}

/// All of its parts have to match.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Who; anybody when absent.
    #[serde(default, deserialize_with = "sources")]
    pub from: Vec<Source>,
    /// What; anything when absent.
    #[serde(default, deserialize_with = "operations")]
    pub to: Vec<Operation>,
    /// Under which conditions.
    #[serde(default)]
    pub when: Vec<Condition>,
}

/// A client: all lists that are there have to match, by one of their entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// Peers by their certificate, without `spiffe://`.
    pub principals: Vec<String>,
    /// None of them.
    pub not_principals: Vec<String>,
    /// Peers by the issuer and subject of their token.
    pub request_principals: Vec<String>,
    /// None of them.
    pub not_request_principals: Vec<String>,
    /// Peers by the namespace of their certificate.
    pub namespaces: Vec<String>,
    /// None of them.
    pub not_namespaces: Vec<String>,
    /// Peers by their service account.
    pub service_accounts: Vec<String>,
    /// None of them.
    pub not_service_accounts: Vec<String>,
    /// Peers by address.
    pub ip_blocks: Vec<String>,
    /// None of them.
    pub not_ip_blocks: Vec<String>,
    /// Peers by the address that a proxy reports.
    pub remote_ip_blocks: Vec<String>,
    /// None of them.
    pub not_remote_ip_blocks: Vec<String>,
}

/// What is done: all lists that are there have to match, by one of their entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Operation {
    /// Hosts of HTTP requests.
    pub hosts: Vec<String>,
    /// None of them.
    pub not_hosts: Vec<String>,
    /// Ports.
    pub ports: Vec<String>,
    /// None of them.
    pub not_ports: Vec<String>,
    /// Methods of HTTP requests.
    pub methods: Vec<String>,
    /// None of them.
    pub not_methods: Vec<String>,
    /// Paths of HTTP requests.
    pub paths: Vec<String>,
    /// None of them.
    pub not_paths: Vec<String>,
}

/// A further attribute.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Its name.
    pub key: String,
    /// Its values: one of them.
    #[serde(default)]
    pub values: Vec<String>,
    /// None of them.
    #[serde(default)]
    pub not_values: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    #[serde(default)]
    selector: Option<Spanned<WorkloadSelector>>,
    #[serde(default)]
    target_refs: Option<Spanned<Vec<TargetRef>>>,
    #[serde(default)]
    action: Option<Spanned<Action>>,
    #[serde(default)]
    rules: Vec<Spanned<Rule>>,
}

/// A list whose entries are wrapped in a field of one name.
fn sources<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Source>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct From {
        #[serde(default)]
        source: Source,
    }
    Ok(Vec::<From>::deserialize(deserializer)?.into_iter().map(|it| it.source).collect())
}

fn operations<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Operation>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct To {
        #[serde(default)]
        operation: Operation,
    }
    Ok(Vec::<To>::deserialize(deserializer)?.into_iter().map(|it| it.operation).collect())
}

/// Reads an `AuthorizationPolicy`.
pub(crate) fn authorization(
    document: &Document<'_>,
    reference: &PolicyRef,
) -> Result<Policy, Box<Diagnostic>> {
    let object: Object<Option<Section>> = document.read_manifest(&[])?;
    let Section { selector, target_refs, action, rules } = object.spec.unwrap_or_default();
    let dry_run = dry_run(document)?;
    let rules = rules.into_iter().map(|it| valid(document, it)).collect::<Result<Vec<_>, _>>()?;
    if let Some(action) = action.as_ref().filter(|it| it.value == Action::Deny)
        && rules.is_empty()
    {
        return Err(document.diagnostic_at(
            action,
            "a DENY without rules never denies: Istio refuses it",
            Some("an empty rule, `{}`, denies everything"),
        ));
    }
    let Binding { selector, target_refs } = bound(document, selector.as_ref(), target_refs)?;
    Ok(Policy::Mesh(MeshPolicy::Authorization(AuthorizationPolicy {
        reference: reference.clone(),
        selector,
        target_refs,
        action: action.map(|it| it.value).unwrap_or_default(),
        rules,
        dry_run,
    })))
}

fn valid(document: &Document<'_>, rule: Spanned<Rule>) -> Result<Rule, Box<Diagnostic>> {
    match validity::rule(&rule.value) {
        Ok(()) => Ok(rule.value),
        Err(message) => Err(document.diagnostic_at(&rule, message, None)),
    }
}

/// The annotation with which a policy is tried out only.
const DRY_RUN: &str = "istio.io/dry-run";

/// Whether a policy is tried out only (`convertAuthorizationPolicy` in `ambient/authorization.go` of istiod, without
/// `AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY`).
fn dry_run(document: &Document<'_>) -> Result<bool, Box<Diagnostic>> {
    #[derive(Deserialize)]
    struct Annotated {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        annotations: Option<BTreeMap<String, Spanned<String>>>,
    }
    let Annotated { metadata } = document.read_manifest(&[])?;
    let annotations = metadata.annotations.unwrap_or_default();
    match annotations.get(DRY_RUN).map(|it| (it, it.value.as_str())) {
        None | Some((_, "" | "false")) => Ok(false),
        Some((_, "true")) => Ok(true),
        Some((at, text)) => {
            let message = format!("`{text}` is neither `true` nor `false`");
            Err(document.diagnostic_at(at, message, None))
        }
    }
}
