//! Somebody asks to stop.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use ztc_engine::event::{EventKind, Phase};
use ztc_model::verdict::{Doubt, Verdict};

use crate::fake::{Bench, Script, cases};
use crate::{DENIED, PHASES};

#[tokio::test(start_paused = true)]
async fn an_interruption_at_any_phase_leaves_no_policy_behind() {
    for phase in PHASES {
        let mut bench = Bench::new(Script::default());
        let case = cases(DENIED).remove(0);
        let runner = std::sync::Arc::clone(&bench.runner);
        let running = tokio::spawn(async move { runner.run(&case).await });
        let entered = |kind: &EventKind| matches!(kind, EventKind::CasePhase { phase: it, .. } if *it == phase);
        bench.event(|kind| entered(kind).then_some(())).await;
        bench.interrupt.send_replace(true);
        let report = running.await.unwrap().expect("it had begun");
        assert_eq!(report.verdict, Verdict::Inconclusive(Doubt::Interrupted), "at {phase}");
        assert_eq!(report.residue, None, "at {phase}");
        assert!(bench.clusters()[0].network.applied().is_empty(), "at {phase}");
        assert!(bench.runner.run(&cases(DENIED)[0]).await.is_none(), "no other case starts");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interruption_in_the_middle_of_the_hold_is_not_waited_out() {
    let mut bench = Bench::new(Script::default());
    let case = cases(DENIED).remove(0);
    let runner = std::sync::Arc::clone(&bench.runner);
    let running = tokio::spawn(async move { runner.run(&case).await });
    let asserts =
        |kind: &EventKind| matches!(kind, EventKind::CasePhase { phase: Phase::Assert, .. });
    bench.event(|kind| asserts(kind).then_some(())).await;
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(200)).await;
    bench.interrupt.send_replace(true);
    let soon = Instant::now() + Duration::from_millis(50);
    let report = timeout_at(soon, running).await.expect("at once").unwrap().expect("it had begun");
    assert_eq!(report.verdict, Verdict::Inconclusive(Doubt::Interrupted));
    assert_eq!(bench.clusters()[0].network.log(), ["apply default-deny", "delete default-deny"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_can_interrupt_goes_on() {
    let Bench { runner, interrupt, .. } = Bench::new(Script::default());
    drop(interrupt);
    let report = runner.run(&cases(DENIED)[0]).await.expect("nobody interrupts");
    assert_eq!(report.verdict, Verdict::Pass);
}

#[tokio::test(start_paused = true)]
async fn a_leak_that_was_seen_before_the_interruption_is_a_leak() {
    let leaks: fn(usize, Duration) -> bool =
        |_, in_force| (Duration::from_millis(100)..Duration::from_millis(130)).contains(&in_force);
    let mut bench = Bench::new(Script { leaks, ..Script::default() });
    let case = cases(DENIED).remove(0);
    let runner = std::sync::Arc::clone(&bench.runner);
    let running = tokio::spawn(async move { runner.run(&case).await });
    let asserts =
        |kind: &EventKind| matches!(kind, EventKind::CasePhase { phase: Phase::Assert, .. });
    bench.event(|kind| asserts(kind).then_some(())).await;
    tokio::time::sleep_until(Instant::now() + Duration::from_millis(250)).await;
    bench.interrupt.send_replace(true);
    let report = running.await.unwrap().expect("it had begun");
    assert_eq!(report.verdict.word(), "fail-open", "{}", report.verdict);
    assert!(bench.clusters()[0].network.applied().is_empty());
}
