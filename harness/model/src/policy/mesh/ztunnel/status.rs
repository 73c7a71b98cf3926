//! What istiod says of a policy that ztunnel enforces. It is not what ztunnel does.

use crate::condition::{Condition, ConditionType};

use super::super::authorization::{Action, AuthorizationPolicy};
use super::authorization::speaks_http;

/// The condition of a policy without target references; nothing of one that is bound to a waypoint
/// (`convertAuthorizationPolicy` in `ambient/authorization.go` of istiod).
///
/// That a rule with attributes of HTTP is left out, or loses them, is a warning: the policy is accepted, also where nothing
/// of it is left to enforce (`docs/facts.md`, surprise 9).
pub fn condition(policy: &AuthorizationPolicy) -> Option<Condition> {
    let told =
        |is, reason, message| Condition::new(ConditionType::ZtunnelAccepted, is, reason, message);
    let unsupported = |is, message| Some(told(is, "UnsupportedValue", message));
    if policy.dry_run {
        return unsupported(
            false,
            "support for ambient dry-run authorizationPolicies isn't enabled",
        );
    }
    if !policy.target_refs.is_empty() {
        return None;
    }
    match policy.action {
        Action::Audit => unsupported(false, "ztunnel does not support the AUDIT action"),
        Action::Allow | Action::Deny if policy.rules.iter().any(speaks_http) => {
            unsupported(true, "ztunnel does not support HTTP attributes")
        }
        Action::Allow | Action::Deny => Some(told(true, "Accepted", "attached to ztunnel")),
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::manifests;
    use crate::policy::Policy;
    use crate::policy::mesh::MeshPolicy;
    use crate::yaml::Source;

    use super::*;

    /// The condition in a line.
    fn said(annotations: &str, spec: &str) -> Option<String> {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{ name: it, namespace: app{annotations} }}\nspec: {spec}\n"
        );
        let read =
            manifests(&Source::new("it.yaml", text)).unwrap_or_else(|error| panic!("{error}"));
        let Policy::Mesh(MeshPolicy::Authorization(policy)) = &read[0].policy else {
            panic!("{read:?}")
        };
        condition(policy).map(|it| format!("{}={}, {}", it.about, it.status, it.reason))
    }

    /// Each as it was recorded of Istio 1.31 (`03a`, `03e`, `03f` and `03g` of the recordings), or as the source has it.
    #[test]
    fn istiod_accepts_what_ztunnel_enforces_only_in_part() {
        let selects = "selector: { matchLabels: { app: srv } }";
        let by_method = "rules: [{ to: [{ operation: { methods: [GET] } }] }]";
        let accepted = Some("ZtunnelAccepted=True, Accepted".to_owned());
        let warned = Some("ZtunnelAccepted=True, UnsupportedValue".to_owned());
        let refused = Some("ZtunnelAccepted=False, UnsupportedValue".to_owned());
        for (annotations, spec, expected) in [
            ("", "{}".to_owned(), &accepted),
            (
                "",
                format!(
                    "{{ {selects}, rules: [{{ from: [{{ source: {{ principals: [a] }} }}] }}] }}"
                ),
                &accepted,
            ),
            ("", format!("{{ {selects}, {by_method} }}"), &warned),
            ("", format!("{{ {selects}, action: DENY, {by_method} }}"), &warned),
            (
                "",
                "{ rules: [{ when: [{ key: 'request.headers[a]', values: [b] }] }] }".to_owned(),
                &warned,
            ),
            ("", format!("{{ {selects}, action: AUDIT, rules: [{{}}] }}"), &refused),
            (", annotations: { istio.io/dry-run: 'true' }", "{}".to_owned(), &refused),
            ("", "{ targetRefs: [{ kind: Service, name: srv }], rules: [{}] }".to_owned(), &None),
        ] {
            assert_eq!(said(annotations, &spec), *expected, "{spec}");
        }
    }
}
