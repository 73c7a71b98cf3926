//! `CiliumNodeConfig` as far as it says whom policies are enforced for: the enforcement mode `always`.

use serde::Deserialize;
use serde_json::Value;

use super::{DirectionPolicy, EndpointPolicy, Policy, PolicyRef, Spec, Specs};
use crate::yaml::{Diagnostic, Document, Spanned};

/// Where Cilium's agents look for their configuration.
const NAMESPACE: &str = "kube-system";

/// The mode in which every endpoint is isolated, whether a policy selects it or not.
const ALWAYS: &str = "always";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Spanned<Value>,
    spec: NodeConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeConfig {
    #[serde(rename = "nodeSelector")]
    _node_selector: NodeSelector,
    defaults: Defaults,
}

/// Every node: half a cluster in another mode is nobody's intent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSelector {}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Defaults {
    enable_policy: Spanned<String>,
}

/// Reads a `CiliumNodeConfig` of all nodes that says `enable-policy: always`, and nothing else.
///
/// In that mode both directions of every endpoint are enforced (`computePolicyEnforcementAndRules` in
/// `pkg/policy/repository.go`), as if a policy without rules selected it.
pub(crate) fn node_config(
    document: &Document<'_>,
    reference: &PolicyRef,
) -> Result<Policy, Box<Diagnostic>> {
    let object: Object = document.read_manifest(&[])?;
    if reference.namespace.as_deref() != Some(NAMESPACE) {
        let message = format!("agents read no CiliumNodeConfig outside of {NAMESPACE}");
        return Err(document.diagnostic_at(&object.metadata, message, None));
    }
    let mode = &object.spec.defaults.enable_policy;
    if mode.value != ALWAYS {
        let message =
            format!("this version does not evaluate the enforcement mode `{}`", mode.value);
        let help = "`always` is; `default` is what a cluster has without this";
        return Err(document.diagnostic_at(mode, message, Some(help)));
    }
    let isolated = DirectionPolicy { default_deny: true, ..DirectionPolicy::default() };
    let policy = EndpointPolicy { ingress: isolated.clone(), egress: isolated };
    let specs = vec![Spec { subject: std::iter::empty().collect(), policy }];
    Ok(Policy::Mode(Specs { reference: reference.clone(), specs, reads_handshakes: false }))
}
