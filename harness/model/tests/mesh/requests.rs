//! `RequestAuthentication`: whose tokens are believed.

use super::*;
use ztc_model::policy::mesh::{JwtHeader, RequestAuthentication};

/// A `RequestAuthentication` of the bank with a spec in flow style.
fn requests(spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{ name: tokens, namespace: bank }}\nspec: {spec}\n"
    )
}

/// One for the service `vault` with one rule.
fn with_rule(rule: &str) -> String {
    requests(&format!(
        "{{ targetRefs: [{{ kind: Service, group: \"\", name: vault }}], jwtRules: [{{ {rule} }}] }}"
    ))
}

const KEYS: &str = r#"'{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b"}]}'"#;

fn read(text: &str) -> RequestAuthentication {
    match policies(text).remove(0) {
        MeshPolicy::Requests(policy) => policy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_issuer_and_its_keys_are_read() {
    let policy = read(&with_rule(&format!("issuer: bank, audiences: [vault], jwks: {KEYS}")));
    assert_eq!(policy.target_refs[0].name, "vault");
    assert_eq!(policy.rules[0].issuer, "bank");
    assert_eq!(policy.rules[0].audiences, ["vault"]);
    assert!(!policy.rules[0].forward_original_token);
    let elsewhere =
        "fromHeaders: [{ name: x-token, prefix: \"Token \" }], forwardOriginalToken: true";
    let policy = read(&with_rule(&format!("issuer: bank, jwks: {KEYS}, {elsewhere}")));
    let header = JwtHeader { name: "x-token".to_owned(), prefix: "Token ".to_owned() };
    assert_eq!(policy.rules[0].from_headers, [header]);
    assert!(policy.rules[0].forward_original_token);
}

#[test]
fn keys_that_somebody_would_have_to_serve_are_refused() {
    for rule in ["issuer: bank, jwksUri: https://bank.test/keys", "issuer: bank"] {
        assert!(refusal(&with_rule(rule)).ends_with("nothing in a world serves keys"), "{rule}");
    }
}

/// `validateJwtRule`.
#[test]
fn what_istio_refuses_of_a_rule_is_refused() {
    for (rule, message) in [
        (format!("jwks: {KEYS}"), "a rule about tokens names their issuer"),
        (format!("issuer: \"\", jwks: {KEYS}"), "a rule about tokens names their issuer"),
        (format!("issuer: bank, audiences: [\"\"], jwks: {KEYS}"), "an audience has a name"),
        ("issuer: bank, jwks: nonsense".to_owned(), "this is no set of JSON Web Keys"),
        ("issuer: bank, jwks: '{\"keys\":[{}]}'".to_owned(), "this is no set of JSON Web Keys"),
    ] {
        assert_eq!(refusal(&with_rule(&rule)), message, "{rule}");
    }
}

#[test]
fn where_else_a_token_may_be_is_not_evaluated() {
    for field in ["fromParams: [token]", "fromCookies: [token]", "outputPayloadToHeader: x"] {
        let said = refusal(&with_rule(&format!("issuer: bank, jwks: {KEYS}, {field}")));
        assert!(said.starts_with("this version does not evaluate"), "{said}");
    }
}

#[test]
fn a_policy_has_a_selector_or_references_and_not_both() {
    let both = "{ selector: { matchLabels: { app: vault } }, targetRefs: [{ kind: Service, group: \"\", name: vault }] }";
    assert!(refusal(&requests(both)).starts_with("a policy has a selector or target references"));
}

#[test]
fn a_ztunnel_knows_nothing_of_tokens() {
    assert!(passes(&with_rule(&format!("issuer: bank, jwks: {KEYS}")), IN_PLAIN, 8080));
}
