//! What is bound to waypoints, and what they enforce of it. `authz/...` is a path below `pilot/pkg/security` of
//! istio/istio.

use serde_json::json;
use ztc_model::policy::mesh::JwtRule;
use ztc_model::policy::mesh::waypoint::{
    Asked, Claims, Decision, Named, NotEvaluated, Request, Token, TokenError, WaypointPolicies,
};

use super::*;

const WAYPOINT: Named<'_> = Named { namespace: "bank", name: "waypoint" };
const VAULT: Named<'_> = Named { namespace: "bank", name: "vault" };

/// A request from the teller for the vault.
fn request(method: &str, path: &str) -> Asked {
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        host: "vault.bank".to_owned(),
        headers: BTreeMap::new(),
        token: Token::Absent,
    };
    Asked { request: Some(request), ..tcp() }
}

/// A connection that is none of HTTP, from the teller to port 80 of the vault.
fn tcp() -> Asked {
    let connection = connection(TELLER, 80);
    Asked {
        peer: connection.peer,
        source: connection.source,
        destination: connection.destination,
        request: None,
    }
}

fn get() -> Asked {
    request("GET", "/gold")
}

/// The same request with a change.
fn with(mut asked: Asked, change: impl FnOnce(&mut Request)) -> Asked {
    change(asked.request.as_mut().expect("it is a request"));
    asked
}

fn by(peer: Option<&str>, asked: Asked) -> Asked {
    Asked { peer: connection(peer, 80).peer, ..asked }
}

fn claims(claims: serde_json::Value) -> Claims {
    serde_json::from_value(claims).expect("claims are an object")
}

fn believed(of: serde_json::Value) -> Asked {
    with(get(), |it| it.token = Token::Believed(claims(of)))
}

fn enforced(text: &str) -> Result<WaypointPolicies, NotEvaluated> {
    WaypointPolicies::of(&policies(text), WAYPOINT, Some(VAULT))
}

fn decide(text: &str, asked: &Asked) -> Decision {
    enforced(text).expect("all of it is evaluated").decide(asked)
}

/// A policy for the vault.
fn vault(action: &str, rules: &str) -> String {
    let bound = "targetRefs: [{ kind: Service, group: \"\", name: vault }]";
    authorization("bank", "one", &format!("{bound}\naction: {action}\nrules: {rules}"))
}

fn allows(rules: &str, asked: &Asked) -> bool {
    match decide(&vault("ALLOW", rules), asked) {
        Decision::Forwarded => true,
        Decision::NotAllowed => false,
        other => panic!("{other:?}"),
    }
}

fn to(operation: &str) -> String {
    format!("[{{ to: [{{ operation: {{ {operation} }} }}] }}]")
}

fn from(source: &str) -> String {
    format!("[{{ from: [{{ source: {{ {source} }} }}] }}]")
}

fn when(key: &str, values: &str) -> String {
    format!("[{{ when: [{{ key: \"{key}\", {values} }}] }}]")
}

/// Recorded, `istio/04b-waypoint-l7-allow.txt`.
#[test]
fn a_method_that_no_policy_allows_is_answered_with_403_and_names_no_rule() {
    let policy = vault("ALLOW", &to("methods: [GET]"));
    assert_eq!(decide(&policy, &get()), Decision::Forwarded);
    let denied = decide(&policy, &request("POST", "/gold"));
    assert_eq!(denied, Decision::NotAllowed);
    assert_eq!(denied.status(), Some(403));
    assert_eq!(denied.details().as_deref(), Some("rbac_access_denied_matched_policy[none]"));
}

/// Recorded, `istio/04c-waypoint-l7-deny.txt`.
#[test]
fn a_deny_names_the_rule_that_matched() {
    let policy = vault("DENY", &to("paths: [\"/admin*\"]"));
    let denied = decide(&policy, &request("GET", "/admin/keys"));
    assert_eq!(
        denied.details().as_deref(),
        Some("rbac_access_denied_matched_policy[ns[bank]-policy[one]-rule[0]]")
    );
    assert_eq!(denied.status(), Some(403));
    assert_eq!(decide(&policy, &get()), Decision::Forwarded);
}

#[test]
fn deny_goes_before_allow_and_the_first_rule_by_name_is_named() {
    let both = vault("ALLOW", "[{}]")
        + &vault("DENY", "[{}]").replace("name: one", "name: two")
        + &vault("DENY", "[{}]").replace("name: one", "name: first");
    let Decision::Denied { by } = decide(&both, &get()) else { panic!("it is denied") };
    assert_eq!(by.to_string(), "ns[bank]-policy[first]-rule[0]");
}

/// `ShouldAttachPolicy` in `pilot/pkg/model/policyattachment.go`.
#[test]
fn policies_are_bound_to_a_service_a_gateway_or_the_class_and_never_by_labels() {
    const GATEWAY: &str = "gateway.networking.k8s.io";
    let of = |namespace: &str, kind: &str, group: &str, name: &str| {
        let target = format!("targetRefs: [{{ kind: {kind}, group: \"{group}\", name: {name} }}]");
        let policy = authorization(namespace, "x", &target);
        decide(&policy, &get()) == Decision::NotAllowed
    };
    assert!(of("bank", "Service", "", "vault"));
    assert!(!of("bank", "Service", "", "ledger"));
    assert!(!of("visit", "Service", "", "vault"));
    assert!(of("bank", "Gateway", GATEWAY, "waypoint"));
    assert!(!of("visit", "Gateway", GATEWAY, "waypoint"));
    assert!(!of("bank", "Gateway", GATEWAY, "other"));
    assert!(of("istio-system", "GatewayClass", GATEWAY, "istio-waypoint"));
    assert!(!of("bank", "GatewayClass", GATEWAY, "istio-waypoint"));
    for spec in ["{}", "selector: { matchLabels: { app: vault } }"] {
        let policy = authorization("bank", "x", spec);
        assert_eq!(decide(&policy, &get()), Decision::Forwarded, "{spec}");
    }
    let service =
        authorization("bank", "x", "targetRefs: [{ kind: Service, group: \"\", name: vault }]");
    let for_workloads = WaypointPolicies::of(&policies(&service), WAYPOINT, None).unwrap();
    assert_eq!(for_workloads.decide(&get()), Decision::Forwarded);
}

/// `PathMatcher` in `authz/matcher`, and `PathTemplateMatcher`.
#[test]
fn paths_match_whole_by_their_ends_and_by_templates_and_without_the_query() {
    for (path, matches, others) in [
        ("/gold", vec!["/gold", "/gold?of=all"], vec!["/gold/", "/golden"]),
        ("/admin/*", vec!["/admin/", "/admin/keys"], vec!["/admin", "/administration"]),
        ("*.txt", vec!["/a.txt"], vec!["/a.txt/b"]),
        ("/a/{*}/c", vec!["/a/b/c"], vec!["/a/c", "/a//c", "/a/b/b/c"]),
        ("/a/{**}", vec!["/a/b", "/a/b/c", "/a/"], vec!["/a", "/b/a"]),
        ("/gold", vec!["/x/../gold", "/./gold", "\\\\gold", "/x/%2e%2e/gold"], vec!["/../gol"]),
    ] {
        let rules = to(&format!("paths: [\"{path}\"]"));
        for text in matches {
            assert!(allows(&rules, &request("GET", &text.replace("\\\\", "\\"))), "{path} {text}");
        }
        for text in others {
            assert!(!allows(&rules, &request("GET", text)), "{path} {text}");
        }
    }
}

/// `HostMatcher` in `authz/matcher/header.go` ignores the case; the port is part of the host.
#[test]
fn hosts_match_without_their_case_and_with_their_port() {
    let named = |host: &str| with(get(), |it| host.clone_into(&mut it.host));
    let rules = to("hosts: [vault.bank, \"vault.bank:*\"]");
    assert!(allows(&rules, &named("VAULT.bank")));
    assert!(allows(&rules, &named("vault.bank:80")));
    assert!(!allows(&rules, &named("vault.bank.svc.cluster.local")));
    assert!(!allows(&to("notHosts: [\"*.bank\"]"), &named("vault.bank")));
}

#[test]
fn ports_are_those_of_the_service() {
    assert!(allows(&to("ports: [\"80\"]"), &get()));
    assert!(!allows(&to("ports: [\"8080\"]"), &get()));
}

/// `srcPrincipalGenerator` and `srcNamespaceGenerator`; recorded, `istio/04d-only-waypoint-identity.txt`.
#[test]
fn the_waypoint_sees_who_asks() {
    for (source, is_met, is_not) in [
        ("principals: [cluster.local/ns/bank/sa/teller]", TELLER, CLERK),
        ("principals: [\"*/sa/teller\"]", TELLER, CLERK),
        ("principals: [\"*\"]", CLERK, IN_PLAIN),
        ("notPrincipals: [\"*/sa/clerk\"]", IN_PLAIN, CLERK),
        ("namespaces: [bank]", TELLER, VISITOR),
        ("namespaces: [\"ba*\"]", TELLER, VISITOR),
        ("namespaces: [\"b*k\"]", TELLER, VISITOR),
        ("serviceAccounts: [teller]", TELLER, CLERK),
        ("serviceAccounts: [visit/near]", VISITOR, TELLER),
    ] {
        assert!(allows(&from(source), &by(is_met, get())), "{source}");
        assert!(!allows(&from(source), &by(is_not, get())), "{source}");
    }
    assert!(!allows(&from("principals: [\"spiffe://cluster.local/ns/bank/sa/teller\"]"), &get()));
    assert!(allows(&from("ipBlocks: [10.1.0.0/16]"), &get()));
}

/// `HeaderMatcher` in `authz/matcher/header.go`.
#[test]
fn headers_match_by_their_value_and_a_star_is_a_header_that_is_there() {
    let sent = |value: &str| {
        with(get(), |it| drop(it.headers.insert("x-of".to_owned(), value.to_owned())))
    };
    assert!(allows(&when("request.headers[X-Of]", "values: [\"go*\"]"), &sent("gold")));
    assert!(!allows(&when("request.headers[X-Of]", "values: [\"go*\"]"), &sent("silver")));
    assert!(allows(&when("request.headers[x-of]", "values: [\"*\"]"), &sent("")));
    assert!(!allows(&when("request.headers[x-of]", "values: [\"*\"]"), &get()));
    assert!(allows(&when("request.headers[x-of]", "notValues: [gold]"), &get()));
}

/// `requestPrincipalGenerator`; recorded, `istio/04e-jwt.txt`: without a token no principal matches.
#[test]
fn principals_of_requests_are_issuer_and_subject() {
    let token = believed(json!({ "iss": "https://bank.test", "sub": "teller" }));
    for (text, is_met) in [
        ("https://bank.test/teller", true),
        ("https://bank.test/clerk", false),
        ("https://bank.test/*", true),
        ("https://bank.test/te*", true),
        ("*/teller", true),
        ("*.test/teller", true),
        ("*.test/clerk", false),
        ("*", true),
        ("teller", false),
        ("*ller", true),
    ] {
        let rules = from(&format!("requestPrincipals: [\"{text}\"]"));
        assert_eq!(allows(&rules, &token), is_met, "{text}");
        assert!(!allows(&rules, &get()), "{text}");
        let not = from(&format!("notRequestPrincipals: [\"{text}\"]"));
        assert_eq!(allows(&not, &token), !is_met, "{text}");
        assert!(allows(&not, &get()), "{text}");
    }
}

/// `MetadataListValueMatcherForJWTClaims` and `buildSpaceDelimitedClaims`.
#[test]
fn claims_match_as_a_text_or_in_a_list_and_below_others() {
    let token = believed(json!({
        "role": "auditor", "groups": ["read", "write"], "scope": "open close",
        "of": { "branch": "north" }, "level": 3, "aud": "vault", "azp": "app",
    }));
    for (key, value, is_met) in [
        ("request.auth.claims[role]", "auditor", true),
        ("request.auth.claims[role]", "aud*", true),
        ("request.auth.claims[role]", "teller", false),
        ("request.auth.claims[groups]", "write", true),
        ("request.auth.claims[groups]", "admin", false),
        ("request.auth.claims[scope]", "close", true),
        ("request.auth.claims[scope]", "open close", false),
        ("request.auth.claims[of][branch]", "north", true),
        ("request.auth.claims[of][other]", "north", false),
        ("request.auth.claims[level]", "3", false),
        ("request.auth.audiences", "vault", true),
        ("request.auth.presenter", "app", true),
        ("request.auth.principal", "*", false),
    ] {
        let rules = when(key, &format!("values: [\"{value}\"]"));
        assert_eq!(allows(&rules, &token), is_met, "{key} {value}");
        assert!(!allows(&rules, &get()), "{key} {value}");
    }
}

/// `checkError` in `authz/model/model.go`; recorded, `istio/04b-waypoint-l7-allow.txt` for the TCP port.
#[test]
fn on_what_is_none_of_http_an_allow_with_http_allows_nothing_and_a_deny_denies_more() {
    for rules in [
        to("methods: [GET]"),
        from("requestPrincipals: [\"*\"]"),
        when("request.headers[x]", "values: [a]"),
    ] {
        assert!(!allows(&rules, &tcp()), "{rules}");
        let denied = decide(&vault("DENY", &rules), &tcp());
        assert!(matches!(denied, Decision::Denied { .. }), "{rules}");
    }
    assert!(allows(&from("principals: [\"*\"]"), &tcp()));
    let other_port = to("ports: [\"443\"], methods: [GET]");
    assert_eq!(decide(&vault("DENY", &other_port), &tcp()), Decision::Forwarded);
}

#[test]
fn what_enforces_nothing_lets_pass() {
    assert_eq!(decide(&vault("AUDIT", "[{}]"), &get()), Decision::Forwarded);
    let dry = vault("DENY", "[{}]").replace(
        "namespace: bank }",
        "namespace: bank, annotations: { istio.io/dry-run: \"true\" } }",
    );
    assert_eq!(decide(&dry, &get()), Decision::Forwarded);
}

#[test]
fn what_is_not_evaluated_is_told() {
    for rules in [
        from("remoteIpBlocks: [10.0.0.0/8]"),
        when("connection.sni", "values: [a]"),
        when("source.trustDomain", "values: [a]"),
        when("request.headers[:authority]", "values: [a]"),
        when("experimental.envoy.filters.a.b[c]", "values: [a]"),
    ] {
        assert!(enforced(&vault("ALLOW", &rules)).is_err(), "{rules}");
    }
}

/// A `RequestAuthentication` for the vault with these rules about tokens, each for an issuer and with more fields.
fn tokens(rules: &[(&str, &str)]) -> String {
    let rules: Vec<String> = rules
        .iter()
        .map(|(issuer, more)| format!("{{ issuer: {issuer}, jwks: '{{\"keys\":[]}}'{more} }}"))
        .collect();
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{ name: tokens, namespace: bank }}\n\
         spec: {{ targetRefs: [{{ kind: Service, group: \"\", name: vault }}], jwtRules: [{}] }}\n",
        rules.join(", ")
    )
}

/// Verifies a token that is the name of its issuer, or of what is wrong with it.
fn verify(rule: &JwtRule, text: &str) -> Result<Claims, TokenError> {
    match text {
        "expired" => Err(TokenError::Expired),
        issuer if issuer == rule.issuer => Ok(claims(json!({ "iss": issuer, "sub": "teller" }))),
        _ => Err(TokenError::Issuer),
    }
}

/// What becomes of a request with headers, of which the token is looked at.
fn with_headers(text: &str, headers: &[(&str, &str)]) -> Decision {
    let policies = enforced(text).expect("all of it is evaluated");
    let asked = with(get(), |it| {
        it.headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        it.token = policies.token(&it.headers, verify);
    });
    policies.decide(&asked)
}

fn refused(why: TokenError) -> Decision {
    Decision::TokenRefused { why }
}

/// `convertToEnvoyJwtConfig` in `authn/policy_applier.go`; recorded, `istio/04e-jwt.txt`.
#[test]
fn a_token_has_to_be_believed_if_there_is_one() {
    let text = tokens(&[("bank", "")]);
    assert_eq!(with_headers(&text, &[]), Decision::Forwarded);
    assert_eq!(with_headers(&text, &[("authorization", "Bearer bank")]), Decision::Forwarded);
    let expired = with_headers(&text, &[("authorization", "Bearer expired")]);
    assert_eq!(expired, refused(TokenError::Expired));
    assert_eq!(expired.status(), Some(401));
    assert_eq!(expired.details().as_deref(), Some("jwt_authn_access_denied{Jwt_is_expired}"));
    assert_eq!(
        with_headers(&text, &[("authorization", "Bearer other")]),
        refused(TokenError::Issuer)
    );
    assert_eq!(with_headers(&text, &[("authorization", "Basic bank")]), Decision::Forwarded);
}

/// `Filter::onComplete` in Envoy's `jwt_authn/filter.cc`.
#[test]
fn a_token_for_somebody_else_is_forbidden_and_others_are_unauthorized() {
    assert_eq!(refused(TokenError::Audience).status(), Some(403));
    for why in [TokenError::Form, TokenError::Algorithm, TokenError::Issuer, TokenError::Signature]
    {
        assert_eq!(refused(why).status(), Some(401));
    }
}

#[test]
fn a_policy_that_asks_for_a_principal_makes_tokens_necessary() {
    let text = tokens(&[("bank", "")]) + &vault("ALLOW", &from("requestPrincipals: [bank/teller]"));
    assert_eq!(with_headers(&text, &[]), Decision::NotAllowed);
    assert_eq!(with_headers(&text, &[("authorization", "Bearer bank")]), Decision::Forwarded);
    assert_eq!(
        with_headers(&text, &[("authorization", "Bearer expired")]),
        refused(TokenError::Expired)
    );
}

#[test]
fn one_rule_that_believes_is_enough() {
    let text = tokens(&[("bank", ""), ("visit", "")]);
    for issuer in ["bank", "visit"] {
        let header = format!("Bearer {issuer}");
        assert_eq!(with_headers(&text, &[("authorization", &header)]), Decision::Forwarded);
    }
    assert_eq!(
        with_headers(&text, &[("authorization", "Bearer other")]),
        refused(TokenError::Issuer)
    );
    assert_eq!(with_headers(&text, &[]), Decision::Forwarded);
}

#[test]
fn a_token_is_looked_for_where_the_rule_says() {
    let text = tokens(&[("bank", ", fromHeaders: [{ name: X-Token, prefix: \"T \" }]")])
        + &vault("ALLOW", &from("requestPrincipals: [\"*\"]"));
    assert_eq!(with_headers(&text, &[("x-token", "T bank")]), Decision::Forwarded);
    assert_eq!(with_headers(&text, &[("authorization", "Bearer bank")]), Decision::NotAllowed);
    assert_eq!(with_headers(&text, &[("x-token", "bank")]), Decision::NotAllowed);
}

#[test]
fn without_a_rule_nobody_looks_at_tokens() {
    let text = vault("ALLOW", &from("requestPrincipals: [\"*\"]"));
    assert_eq!(with_headers(&text, &[("authorization", "Bearer bank")]), Decision::NotAllowed);
    assert_eq!(with_headers("", &[("authorization", "Bearer expired")]), Decision::Forwarded);
    let selecting = tokens(&[("bank", "")]).replace(
        "targetRefs: [{ kind: Service, group: \"\", name: vault }]",
        "selector: { matchLabels: { app: vault } }",
    );
    assert_eq!(
        with_headers(&selecting, &[("authorization", "Bearer expired")]),
        Decision::Forwarded
    );
}
