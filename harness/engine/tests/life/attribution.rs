//! Denied, but by somebody else.

use ztc_model::verdict::Verdict;

use crate::DENIED;
use crate::fake::{Bench, Fate, Record, Script, Stop};

/// A denied flow, by Cilium, because a deny rule of `deny-web` matches.
const BY_RULE: &str = r#"
- name: denied-by-a-rule
  because: A deny rule matches.
  apply: [deny-web.yaml]
  expect: [{ from: shop/web, send: "tcp pay/vault:9000", is: denied, by: cilium, as: explicit-deny }]
"#;

#[tokio::test(start_paused = true)]
async fn a_deny_rule_that_is_named_by_its_record_passes() {
    let cell = recorded("deny-web", Record::DenyRule("CiliumNetworkPolicy/pay/deny-web"))
        .cell(BY_RULE)
        .await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert_eq!(cell.evidence[0].policies, ["CiliumNetworkPolicy/pay/deny-web"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_names_another_policy_is_wrong_policy() {
    let cell =
        recorded("deny-web", Record::DenyRule("CiliumNetworkPolicy/pay/older")).cell(BY_RULE).await;
    assert_eq!(
        cell.verdict.to_string(),
        "wrong-policy: CiliumNetworkPolicy/pay/deny-web should have stopped it, \
         the record names CiliumNetworkPolicy/pay/older"
    );
}

#[tokio::test(start_paused = true)]
async fn a_default_deny_where_a_deny_rule_is_expected_is_wrong_layer() {
    let cell = recorded("deny-web", Record::DefaultDeny).cell(BY_RULE).await;
    assert_eq!(
        cell.verdict.to_string(),
        "wrong-layer: cilium as explicit-deny should have stopped it, \
         cilium on node-b: denied at ingress: nothing allows it did"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deny_rule_where_a_default_deny_is_expected_is_wrong_layer() {
    let cell = recorded("default-deny", Record::DenyRule("CiliumNetworkPolicy/pay/older"))
        .cell(DENIED)
        .await;
    assert_eq!(
        cell.verdict.to_string(),
        "wrong-layer: cilium as default-deny should have stopped it, cilium on node-b: \
         denied at ingress by a deny rule of CiliumNetworkPolicy/pay/older did"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_name_where_cilium_is_expected_is_wrong_layer() {
    let cell = recorded("default-deny", Record::NameRefused).cell(DENIED).await;
    assert_eq!(
        cell.verdict.to_string(),
        "wrong-layer: cilium should have stopped it, \
         dns-proxy on node-b: refused the query for vault.pay. did"
    );
}

/// A denied flow of the mesh.
const BY_PRINCIPAL: &str = r#"
- name: denied-by-principal
  because: A rule names the principal of web.
  apply: [deny-principal.yaml]
  expect: [{ from: shop/web, send: "tcp pay/vault:9000", is: denied, by: ztunnel, as: explicit-deny }]
"#;

/// Which of a client's connections a tunnel carries is not known, so its record says who denies, and the wait
/// for each connection ends by the client's own word.
#[tokio::test(start_paused = true)]
async fn a_record_of_a_tunnel_attributes_and_settles_nothing() {
    let cell = closed(Record::TunnelDenied("pay/deny-principal")).cell(BY_PRINCIPAL).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert_eq!(cell.evidence[0].policies, ["AuthorizationPolicy/pay/deny-principal"]);
    assert_eq!((cell.settled_by_evidence, cell.settle_median_us), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_tunnel_that_names_another_policy_is_wrong_policy() {
    let cell = closed(Record::TunnelDenied("pay/older")).cell(BY_PRINCIPAL).await;
    assert_eq!(
        cell.verdict.to_string(),
        "wrong-policy: AuthorizationPolicy/pay/deny-principal should have stopped it, \
         the record names AuthorizationPolicy/pay/older"
    );
}

#[tokio::test(start_paused = true)]
async fn strict_where_a_rule_is_expected_is_wrong_layer() {
    let strict = "istio-system/istio_converted_static_strict";
    let cell = closed(Record::TunnelDenied(strict)).cell(BY_PRINCIPAL).await;
    assert_eq!(
        cell.verdict.to_string(),
        "wrong-layer: ztunnel as explicit-deny should have stopped it, \
         ztunnel on node-b: refused a peer that speaks in plain did"
    );
}

/// The client's ztunnel does not know why the server's refuses.
#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_refused_settles_and_names_no_policy() {
    let cell = closed(Record::TunnelRefused).cell(BY_PRINCIPAL).await;
    assert_eq!(
        cell.verdict.to_string(),
        "inconclusive: no evidence: no record of ztunnel names the policy of the deny rule"
    );
    assert_eq!((cell.settled_by_evidence, cell.settled_by_time_out), (cell.samples, 0));
}

/// A policy that closes the connection with this record.
fn closed(record: Record) -> Bench {
    let stop = Stop {
        policy: "deny-principal",
        fate: Fate::Close,
        record: Some(record),
        ..Stop::default()
    };
    Bench::new(Script { stops: vec![stop], ..Script::default() })
}

/// A policy that stops the flow with this record.
fn recorded(policy: &'static str, record: Record) -> Bench {
    let stop = Stop { policy, record: Some(record), ..Stop::default() };
    Bench::new(Script { stops: vec![stop], ..Script::default() })
}
