//! What a policy of the mesh is bound to: workloads by their labels, whose ztunnel enforces it, or gateways and services,
//! whose waypoint does.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::yaml::{Diagnostic, Document, Spanned};

/// What a policy is bound to. It is in the policy's own namespace, but for a `GatewayClass`, which has none.
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

/// Istio's own selector of workloads: labels that all have to be there.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadSelector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
}

/// The labels of a selector; none where there is no selector.
///
/// istiod takes a selector without labels for no selector in some places and for one in others: a policy with one has
/// a workload's scope, and no workload refers to it (`convertAuthorizationPolicy` and `buildWorkloadPolicies` in
/// `pilot/pkg/serviceregistry/ambient`).
pub(super) fn selected(
    document: &Document<'_>,
    selector: Option<&Spanned<WorkloadSelector>>,
) -> Result<BTreeMap<String, String>, Box<Diagnostic>> {
    match selector {
        None => Ok(BTreeMap::new()),
        Some(selector) if selector.value.match_labels.is_empty() => Err(document.diagnostic_at(
            selector,
            "a selector without labels: Istio takes it for all workloads in some places and for none in others",
            Some("leave `selector` out for all workloads of the namespace"),
        )),
        Some(selector) => Ok(selector.value.match_labels.clone()),
    }
}

/// What a policy is bound to: one or the other, or neither.
pub(super) struct Binding {
    pub(super) selector: BTreeMap<String, String>,
    pub(super) target_refs: Vec<TargetRef>,
}

/// Groups and kinds that a policy may be bound to (`allowedTargetRefs`); a `ServiceEntry` is in no world.
const KINDS: [(&str, &str); 4] = [
    ("", "Service"),
    ("core", "Service"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// Reads what a policy is bound to ("only one of targetRefs or workloadSelector can be set", `validateOneOfSelectorType`
/// in `pkg/config/validation` of istio/istio).
pub(super) fn bound(
    document: &Document<'_>,
    selector: Option<&Spanned<WorkloadSelector>>,
    target_refs: Option<Spanned<Vec<TargetRef>>>,
) -> Result<Binding, Box<Diagnostic>> {
    let labels = selected(document, selector)?;
    let Some(target_refs) = target_refs.filter(|it| !it.value.is_empty()) else {
        return Ok(Binding { selector: labels, target_refs: Vec::new() });
    };
    if selector.is_some() {
        let message =
            "a policy has a selector or target references, and not both: Istio refuses it";
        return Err(document.diagnostic_at(&target_refs, message, None));
    }
    let is_known = |it: &TargetRef| KINDS.contains(&(it.group.as_str(), it.kind.as_str()));
    if let Some(unknown) = target_refs.value.iter().find(|it| !is_known(it)) {
        let TargetRef { group, kind, .. } = unknown;
        return Err(document.diagnostic_at(
            &target_refs,
            format!("a policy is not bound to a `{kind}` of the group `{group}`"),
            Some("it is to a Service (of the empty group), a Gateway or a GatewayClass (gateway.networking.k8s.io)"),
        ));
    }
    Ok(Binding { selector: labels, target_refs: target_refs.value })
}
