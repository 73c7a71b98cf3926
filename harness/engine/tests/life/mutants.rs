//! What a runner leaves out that only looks whether cases notice something.

use ztc_engine::event::{EventKind, Phase};
use ztc_model::verdict::Verdict;

use crate::fake::{Bench, Script};
use crate::{DENIED, PHASES};

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
    assert_eq!(phases(&mut bench).await, PHASES[..5]);
}

#[tokio::test(start_paused = true)]
async fn a_case_that_passes_has_its_whole_life() {
    let mut bench = Bench::new(Script::default()).hunting();
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert_eq!(phases(&mut bench).await, PHASES);
}

#[tokio::test(start_paused = true)]
async fn every_case_has_a_lane_of_its_own() {
    let bench = Bench::new(Script::default()).hunting();
    for made in 1..=2 {
        assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
        assert_eq!(bench.asked(), made);
    }
    let usual = Bench::new(Script::default());
    for _ in 0..2 {
        assert_eq!(usual.cell(DENIED).await.verdict, Verdict::Pass);
    }
    assert_eq!(usual.asked(), 1);
}
