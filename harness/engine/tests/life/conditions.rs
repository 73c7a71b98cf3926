//! Cases that expect something of what controllers say.

use std::time::Duration;

use ztc_model::verdict::Verdict;

use crate::fake::{Bench, Script};

const SAYS_IT_IS_ACCEPTED: &str = r#"
- name: says-it-is-accepted
  because: istiod says so.
  apply: [allow-shop.yaml]
  expect: [{ from: shop/web, send: "tcp pay/vault:9001", is: allowed }]
  conditions: [{ of: allow-shop, type: ZtunnelAccepted, status: "True" }]
"#;

fn saying(told: Option<(Duration, bool)>) -> Bench {
    Bench::new(Script { told, ..Script::default() })
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_comes_late_is_waited_for() {
    let report = saying(Some((Duration::from_millis(700), true))).run(SAYS_IT_IS_ACCEPTED).await;
    assert_eq!(report.verdict, Verdict::Pass);
    let [condition] = report.conditions.as_slice() else { panic!("{report:?}") };
    assert_eq!(condition.object, "AuthorizationPolicy/pay/allow-shop");
    assert_eq!(condition.expected, "ZtunnelAccepted=True");
    let found = condition.found.as_ref().unwrap();
    assert_eq!(found.to_string(), "ZtunnelAccepted=True: as the script says");
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_says_otherwise_fails_a_case_whose_flows_are_as_expected() {
    let report = saying(Some((Duration::ZERO, false))).run(SAYS_IT_IS_ACCEPTED).await;
    assert_eq!(report.cells[0].verdict, Verdict::Pass);
    assert_eq!(
        report.verdict.to_string(),
        "wrong-condition: AuthorizationPolicy/pay/allow-shop should say ZtunnelAccepted=True, and says \
         ZtunnelAccepted=False: as the script says"
    );
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_nobody_writes_fails_the_case() {
    let report = saying(None).run(SAYS_IT_IS_ACCEPTED).await;
    assert_eq!(
        report.verdict.to_string(),
        "wrong-condition: AuthorizationPolicy/pay/allow-shop should say ZtunnelAccepted=True, and says no \
         ZtunnelAccepted"
    );
    assert!(report.conditions[0].found.is_none());
}

#[tokio::test(start_paused = true)]
async fn where_the_case_cannot_begin_nobody_is_asked() {
    let script = Script { audit: true, ..Script::default() };
    let report = Bench::new(script).run(SAYS_IT_IS_ACCEPTED).await;
    assert_eq!(report.verdict.word(), "inconclusive");
    assert_eq!(report.conditions[0].verdict.word(), "inconclusive");
}
