//! Flows of which every stimulus counts, and policies that are taken away again.

use std::time::Duration;

use ztc_model::verdict::Verdict;

use crate::fake::{Bench, Script, Stop};

/// A flow that a policy stops until it is taken away again.
fn paused(expectation: &str) -> String {
    format!(
        r#"
- name: paused
  because: The policy is there for a while.
  apply: [default-deny.yaml, second-deny.yaml]
  remove: [default-deny]
  expect: [{{ from: shop/web, send: "udp pay/vault:9000", {expectation} }}]
"#
    )
}

const INTERRUPTED: &str = "is: interrupted, by: cilium, as: default-deny, policy: default-deny";
const THROUGHOUT: &str = "is: allowed, throughout: true";

/// Two policies deny the same, and one of them is taken away again.
const STILL_DENIED: &str = r#"
- name: still-denied
  because: The second one denies it, too.
  apply: [default-deny.yaml, second-deny.yaml]
  remove: [default-deny]
  expect: [{ from: shop/web, send: "tcp pay/vault:9000", is: denied, by: cilium, policy: second-deny }]
"#;

fn both_deny() -> Script {
    let second = Stop { policy: "second-deny", ..Stop::default() };
    Script { stops: vec![Stop::default(), second], ..Script::default() }
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_of_a_stream_is_counted_and_timed() {
    let cell = Bench::new(Script::default()).cell(&paused(INTERRUPTED)).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    let loss = cell.loss.expect("a stream");
    // The second policy is applied and realised in the meantime, and the first one then taken away: 40 ms, and
    // the looks in between.
    assert!((20..100).contains(&loss.for_ms), "{loss:?}");
    assert!(loss.lost > 2 && loss.sent > loss.lost + 20, "{loss:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_loses_something_is_not_allowed_throughout() {
    let cell = Bench::new(Script::default()).cell(&paused(THROUGHOUT)).await;
    let said = cell.verdict.to_string();
    assert!(said.starts_with("fail-closed: "), "{said}");
    assert!(said.ends_with("cilium on node-b: denied at ingress: nothing allows it"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_loses_nothing_is_not_interrupted() {
    let unenforced = || Script { enforced_after: None, ..Script::default() };
    let cell = Bench::new(unenforced()).cell(&paused(THROUGHOUT)).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert_eq!(cell.loss.map(|it| (it.lost, it.for_ms)), Some((0, 0)));
    let cell = Bench::new(unenforced()).cell(&paused(INTERRUPTED)).await;
    assert_eq!(cell.verdict.word(), "fail-open");
}

#[tokio::test(start_paused = true)]
async fn each_policy_of_a_stream_waits_for_the_one_before_it() {
    let bench = Bench::new(Script {
        realised_after: Some(Duration::from_millis(300)),
        ..Script::default()
    });
    let cell = bench.cell(&paused(INTERRUPTED)).await;
    assert!(cell.loss.is_some_and(|loss| loss.for_ms >= 300), "{:?}", cell.loss);
}

#[tokio::test(start_paused = true)]
async fn what_two_policies_deny_stays_denied_when_one_is_taken_away() {
    let bench = Bench::new(both_deny());
    let cell = bench.cell(STILL_DENIED).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert_eq!(
        bench.clusters()[0].network.log()[..4],
        ["apply default-deny", "apply second-deny", "delete default-deny", "delete second-deny"]
    );
    assert!(bench.clusters()[0].network.applied().is_empty());
}

/// The proof is that of the policy that is left: where it does nothing, nothing is denied.
#[tokio::test(start_paused = true)]
async fn a_policy_that_never_denied_by_itself_is_found_out() {
    let cell = Bench::new(Script::default()).cell(STILL_DENIED).await;
    assert_eq!(cell.verdict.word(), "fail-open");
}

#[tokio::test(start_paused = true)]
async fn a_leak_while_a_policy_is_taken_away_is_one() {
    let leaks = |_, in_force: Duration| (5..15).contains(&in_force.as_millis());
    let cell = Bench::new(Script { leaks, ..both_deny() }).cell(STILL_DENIED).await;
    assert_eq!(cell.verdict.word(), "fail-open");
}
