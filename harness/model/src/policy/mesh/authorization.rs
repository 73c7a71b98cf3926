//! `AuthorizationPolicy`, from manifest to what it says (`security/v1beta1/authorization_policy.proto` of
//! istio/api).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::yaml::{Diagnostic, Document, Spanned};

use super::super::object::Object;
use super::super::{Policy, PolicyRef};
use super::MeshPolicy;

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
    /// It is written down. ztunnel has no such action.
    Audit,
    /// Somebody else is asked. ztunnel has no such action.
    Custom,
}

/// What a policy is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRef {
    /// The group of its kind; empty for a service.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
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

/// Istio's own selector of workloads: labels that all have to be there.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadSelector {
    #[serde(default)]
    pub(super) match_labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    #[serde(default)]
    selector: Option<WorkloadSelector>,
    #[serde(default)]
    target_refs: Option<Spanned<Vec<TargetRef>>>,
    #[serde(default)]
    action: Action,
    #[serde(default)]
    rules: Vec<Rule>,
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
    if let Some(target_refs) = &target_refs
        && selector.is_some()
    {
        // "only one of targetRefs or workloadSelector can be set" (validateWorkloadSelector).
        return Err(document.diagnostic_at(
            target_refs,
            "a policy has a selector or target references, and not both: Istio refuses it",
            None,
        ));
    }
    Ok(Policy::Mesh(MeshPolicy::Authorization(AuthorizationPolicy {
        reference: reference.clone(),
        selector: selector.map(|it| it.match_labels).unwrap_or_default(),
        target_refs: target_refs.map(|it| it.value).unwrap_or_default(),
        action,
        rules,
    })))
}
