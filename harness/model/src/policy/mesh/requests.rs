//! `RequestAuthentication`, from manifest to what it says (`security/v1beta1/request_authentication.proto` of
//! istio/api).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::yaml::{Diagnostic, Document, Spanned};

use super::super::object::Object;
use super::super::{Policy, PolicyRef};
use super::MeshPolicy;
use super::binding::{Binding, TargetRef, WorkloadSelector, bound};

/// Whose tokens are believed by the waypoints that it is bound to. A request without a token passes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Its name.
    pub reference: PolicyRef,
    /// The labels of workloads. Nobody in an ambient mesh looks at them: ztunnel knows no tokens, and a waypoint no
    /// selectors (`ShouldAttachPolicy` in `pilot/pkg/model/policyattachment.go` of istio/istio).
    pub selector: BTreeMap<String, String>,
    /// The gateways or services whose waypoint enforces it.
    pub target_refs: Vec<TargetRef>,
    /// Whose tokens.
    pub rules: Vec<JwtRule>,
}

/// An issuer and its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRule {
    /// What the token must say of who made it.
    pub issuer: String,
    /// Whom it must be for: one of them; without any, whomever.
    pub audiences: Vec<String>,
    /// The public keys, as a JSON Web Key Set (RFC 7517).
    pub jwks: String,
    /// The headers in which the token is looked for; without any it is `Authorization`, after `Bearer `.
    pub from_headers: Vec<JwtHeader>,
    /// Whether the server sees the token too.
    pub forward_original_token: bool,
}

/// A header that holds a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtHeader {
    /// Its name, whatever the case.
    pub name: String,
    /// What stands before the token.
    #[serde(default)]
    pub prefix: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    #[serde(default)]
    selector: Option<Spanned<WorkloadSelector>>,
    #[serde(default)]
    target_refs: Option<Spanned<Vec<TargetRef>>>,
    #[serde(default)]
    jwt_rules: Vec<Spanned<RuleSection>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleSection {
    #[serde(default)]
    issuer: Option<Spanned<String>>,
    #[serde(default)]
    audiences: Vec<Spanned<String>>,
    #[serde(default)]
    jwks: Option<Spanned<String>>,
    #[serde(default)]
    jwks_uri: Option<Spanned<String>>,
    #[serde(default)]
    from_headers: Vec<JwtHeader>,
    #[serde(default)]
    forward_original_token: bool,
}

/// Fields that Istio has and that change where a token is looked for or what the server sees of it.
const NOT_EVALUATED: [&str; 6] = [
    "fromCookies",
    "fromParams",
    "outputClaimToHeaders",
    "outputPayloadToHeader",
    "spaceDelimitedClaims",
    "timeout",
];

/// Reads a `RequestAuthentication`.
pub(crate) fn requests(
    document: &Document<'_>,
    reference: &PolicyRef,
) -> Result<Policy, Box<Diagnostic>> {
    let object: Object<Option<Section>> = document.read_manifest(&NOT_EVALUATED)?;
    let Section { selector, target_refs, jwt_rules } = object.spec.unwrap_or_default();
    let Binding { selector, target_refs } = bound(document, selector.as_ref(), target_refs)?;
    let rules = jwt_rules.iter().map(|it| rule(document, it)).collect::<Result<_, _>>()?;
    Ok(Policy::Mesh(MeshPolicy::Requests(RequestAuthentication {
        reference: reference.clone(),
        selector,
        target_refs,
        rules,
    })))
}

/// As `validateJwtRule` in `pkg/config/validation` of istio/istio, but for keys that somebody would have to serve.
fn rule(document: &Document<'_>, rule: &Spanned<RuleSection>) -> Result<JwtRule, Box<Diagnostic>> {
    const NOBODY_SERVES: &str = "nothing in a world serves keys";
    const WRITE_KEYS: &str = "write the public keys as `jwks`";

    if let Some(uri) = &rule.value.jwks_uri {
        let message = format!("this version does not evaluate `jwksUri`: {NOBODY_SERVES}");
        return Err(document.diagnostic_at(uri, message, Some(WRITE_KEYS)));
    }
    let Some(issuer) = rule.value.issuer.as_ref().filter(|it| !it.value.is_empty()) else {
        return Err(document.diagnostic_at(rule, "a rule about tokens names their issuer", None));
    };
    if let Some(empty) = rule.value.audiences.iter().find(|it| it.value.is_empty()) {
        return Err(document.diagnostic_at(empty, "an audience has a name", None));
    }
    let Some(jwks) = &rule.value.jwks else {
        let message = format!("istiod asks the issuer for keys that are not here: {NOBODY_SERVES}");
        return Err(document.diagnostic_at(issuer, message, Some(WRITE_KEYS)));
    };
    if !is_key_set(&jwks.value) {
        let message = "this is no set of JSON Web Keys";
        return Err(document.diagnostic_at(
            jwks,
            message,
            Some(r#"write `{"keys": [{"kty": …}]}`"#),
        ));
    }
    let RuleSection { from_headers, forward_original_token, audiences, .. } = &rule.value;
    Ok(JwtRule {
        issuer: issuer.value.clone(),
        audiences: audiences.iter().map(|it| it.value.clone()).collect(),
        jwks: jwks.value.clone(),
        from_headers: from_headers.clone(),
        forward_original_token: *forward_original_token,
    })
}

/// Whether a text is a set of keys (RFC 7517, section 5).
fn is_key_set(text: &str) -> bool {
    let set: Value = serde_json::from_str(text).unwrap_or_default();
    let keys = set["keys"].as_array();
    keys.is_some_and(|keys| keys.iter().all(|key| key["kty"].is_string()))
}
