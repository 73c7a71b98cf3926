//! Worlds that do not come up.

use futures_util::future::join_all;
use tokio::time::Instant;
use ztc_engine::event::CaseReport;
use ztc_engine::profile::{LaneKind, Lanes};
use ztc_model::suite::Case;

use crate::fake::{Bench, CEILING, Script, cases};

/// Four cases of one world.
fn four() -> Vec<Case> {
    let case = |number| {
        format!(
            r#"
- name: case-{number}
  because: Nothing allows it.
  apply: [default-deny.yaml]
  expect: [{{ from: {from}, send: "tcp pay/vault:{port}", is: {is} }}]
"#,
            from = if number % 2 == 0 { "shop/web" } else { "shop/cart" },
            port = if number < 3 { 9000 } else { 9001 },
            is = if number < 3 { "denied" } else { "allowed" },
        )
    };
    cases(&(1..=4).map(case).collect::<String>())
}

fn stillborn() -> Script {
    Script { stillborn: Some("a pod is not Ready"), ..Script::default() }
}

fn one_lane() -> Lanes {
    Lanes { count: 1, each: LaneKind::Cluster }
}

/// Runs the cases one after the other.
async fn in_turn(bench: &Bench, cases: &[Case]) -> Vec<CaseReport> {
    let mut reports = Vec::new();
    for case in cases {
        reports.push(bench.runner.run(case).await.expect("nobody interrupts"));
    }
    reports
}

#[tokio::test(start_paused = true)]
async fn a_world_that_failed_twice_is_not_waited_for_again() {
    let bench = Bench::with(vec![stillborn()], one_lane());
    let begun = Instant::now();
    let reports = in_turn(&bench, &four()).await;
    assert_eq!(begun.elapsed(), 2 * CEILING);
    assert_eq!(bench.asked(), 2);
    for report in &reports {
        let said = report.verdict.to_string();
        assert_eq!(report.verdict.word(), "inconclusive", "{said}");
        assert!(said.contains("a pod is not Ready"), "{said}");
    }
    let given_up: Vec<bool> =
        reports.iter().map(|it| it.verdict.to_string().contains("`two` is given up")).collect();
    assert_eq!(given_up, [false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_world_that_failed_once_gets_one_more_attempt() {
    let bench = Bench::with(vec![stillborn(), Script::default()], one_lane());
    let words: Vec<&str> =
        in_turn(&bench, &four()[..3]).await.iter().map(|it| it.verdict.word()).collect();
    assert_eq!(words, ["inconclusive", "pass", "pass"]);
}

/// Failures that a success lies between are no reason to give up.
#[tokio::test(start_paused = true)]
async fn failures_are_counted_from_the_last_success() {
    let broken = Script { broken: Some("a pod is gone"), ..Script::default() };
    let scripts = vec![stillborn(), broken, stillborn(), Script::default()];
    let bench = Bench::with(scripts, one_lane());
    let words: Vec<&str> =
        in_turn(&bench, &four()).await.iter().map(|it| it.verdict.word()).collect();
    assert_eq!(words, ["inconclusive", "pass", "inconclusive", "pass"]);
}

/// A lane that cannot have the world must not take the cases away from one that has it.
#[tokio::test(start_paused = true)]
async fn a_world_that_stands_in_a_lane_is_not_given_up_in_another() {
    let lanes = Lanes { count: 2, each: LaneKind::Cluster };
    let bench = Bench::with(vec![Script::default(), stillborn()], lanes);
    let cases = four();
    let reports = join_all(cases.iter().map(|case| bench.runner.run(case))).await;
    let given_up = |it: &CaseReport| it.verdict.to_string().contains("given up");
    assert!(!reports.iter().flatten().any(given_up), "{reports:?}");
    let passed = reports.iter().flatten().filter(|it| it.verdict.word() == "pass").count();
    assert_eq!(passed, 3, "all but the one that the other lane took");
}
