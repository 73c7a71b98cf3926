//! What a runner leaves out that only looks whether cases notice something.

use std::time::Duration;

use ztc_engine::event::{EventKind, Phase};
use ztc_engine::profile::{LaneKind, Lanes, Pace};
use ztc_model::verdict::Verdict;

use crate::fake::{Bench, PACE, Script, Stop};
use crate::{ALLOWED, DENIED, PHASES};

/// The phases that the first case of a text went through.
async fn phases(bench: &mut Bench) -> Vec<Phase> {
    let mut phases = Vec::new();
    while let Some(phase) = bench
        .event(|kind| match kind {
            EventKind::CasePhase { phase, .. } => Some(Some(*phase)),
            EventKind::CaseFinished(_) => Some(None),
            _ => None,
        })
        .await
    {
        phases.push(phase);
    }
    phases
}

#[tokio::test(start_paused = true)]
async fn a_case_ends_with_its_first_broken_assertion() {
    let mut bench = Bench::new(Script { enforced_after: None, ..Script::default() }).hunting();
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict.word(), "fail-open");
    assert_eq!(cell.proof, None, "nothing is proved any more");
    let but_proof: Vec<Phase> = PHASES.into_iter().filter(|it| *it != Phase::Proof).collect();
    assert_eq!(phases(&mut bench).await, but_proof);
}

/// A flow that is denied, and one that nothing denies.
const BOTH_DENIED: &str = r#"
- name: both-denied
  because: Nothing allows them.
  apply: [default-deny.yaml]
  expect:
    - { from: shop/web, send: "tcp pay/vault:9000", is: denied }
    - { from: shop/web, send: "tcp pay/vault:9001", is: denied }
"#;

const ONE_LANE: Lanes = Lanes { count: 1, each: LaneKind::Cluster };

/// A pace at which a leak is one soon, and what is silent is listened to for long.
const HASTY: Pace = Pace { settle_ceiling_ms: 100, probe_deadline_ms: 5000, ..PACE };

#[tokio::test(start_paused = true)]
async fn nobody_else_is_watched_to_the_end_once_an_assertion_is_broken() {
    let bench = || Bench::at(HASTY, vec![Script::default()], ONE_LANE);
    let usual = bench().run(BOTH_DENIED).await;
    let hunted = bench().hunting().run(BOTH_DENIED).await;
    for report in [&usual, &hunted] {
        assert_eq!(report.cells[1].verdict.word(), "fail-open");
    }
    assert_eq!(usual.cells[0].verdict, Verdict::Pass);
    let cut_short = &hunted.cells[0];
    assert_eq!(cut_short.samples, 0, "what was cut short is nothing to judge by");
    assert_eq!(cut_short.verdict.word(), "inconclusive");
    assert!(hunted.took_ms < 300, "it took {} ms, and a hold takes 500", hunted.took_ms);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_what_is_sent_after_the_ceiling_ends_the_wait_for_a_denial() {
    for (after, verdict) in [(Some(90), "pass"), (Some(300), "fail-open"), (None, "fail-open")] {
        let enforced_after = after.map(Duration::from_millis);
        let script = Script { enforced_after, ..Script::default() };
        let report = Bench::at(HASTY, vec![script], ONE_LANE).run(DENIED).await;
        assert_eq!(report.verdict.word(), verdict, "{after:?}");
        assert!(report.took_ms < 2000, "{after:?}: {} ms", report.took_ms);
    }
}

#[tokio::test(start_paused = true)]
async fn a_case_that_passes_has_its_whole_life() {
    let mut bench = Bench::new(Script::default()).hunting();
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert_eq!(phases(&mut bench).await, PHASES);
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_used_again_where_it_forgets() {
    for (forgets, lanes) in [(true, 1), (false, 2)] {
        let bench = Bench::new(Script { forgets, ..Script::default() }).hunting();
        for _ in 0..2 {
            assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
        }
        assert_eq!(bench.asked(), lanes, "{forgets}");
    }
    let usual = Bench::new(Script { forgets: false, ..Script::default() });
    for _ in 0..2 {
        assert_eq!(usual.cell(DENIED).await.verdict, Verdict::Pass);
    }
    assert_eq!(usual.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_used_again_after_a_broken_assertion_where_it_is_clean() {
    for (lasting_from, lanes) in [(None, 1), (Some(1), 2)] {
        let script = Script { lasting_from, ..Script::default() };
        let bench = Bench::with(vec![script, Script::default()], ONE_LANE).hunting();
        let report = bench.run(BOTH_DENIED).await;
        assert_eq!(report.verdict.word(), "fail-open");
        bench.run(DENIED).await;
        assert_eq!(bench.asked(), lanes, "{lasting_from:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_lane_is_made_anew() {
    let bench = Bench::new(Script::default()).hunting();
    let restarting = DENIED.replace("  expect", "  restart: [cilium]\n  expect");
    assert_eq!(bench.cell(&restarting).await.verdict, Verdict::Pass);
    assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
    assert_eq!(bench.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_nothing_in_a_used_lane_is_asked_in_one_made_anew() {
    // What the second case removes stays in force: it has no proof.
    let wears_out = Script { lasting_from: Some(2), ..Script::default() };
    let bench = Bench::with(vec![wears_out, Script::default()], ONE_LANE).hunting();
    for made in 1..=2 {
        assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
        assert_eq!(bench.asked(), made);
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_nothing_in_a_lane_made_anew_is_not_asked_again() {
    let worn_out = Script { lasting_from: Some(1), ..Script::default() };
    let bench = Bench::with(vec![worn_out, Script::default()], ONE_LANE).hunting();
    assert_eq!(bench.cell(DENIED).await.verdict.word(), "inconclusive");
    assert_eq!(bench.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_broken_in_a_used_lane_is_not_asked_again() {
    let stops = vec![Stop::default(), Stop { policy: "wide-deny", port: 9001, ..Stop::default() }];
    let script = Script { stops, ..Script::default() };
    let bench = Bench::with(vec![script, Script::default()], ONE_LANE).hunting();
    assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
    let closed = ALLOWED.replace("default-deny", "wide-deny");
    assert_eq!(bench.cell(&closed).await.verdict.word(), "fail-closed");
    assert_eq!(bench.asked(), 1);
}
