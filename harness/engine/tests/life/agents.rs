//! Agents that fail: the cell is inconclusive with the reason, and the run goes on.

use std::time::Duration;

use ztc_model::verdict::{Doubt, Verdict};

use crate::DENIED;
use crate::fake::{Bench, Fault, Script};

/// In the middle of the hold.
const AT: usize = 15;

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_replaced_at_once_is_inconclusive() {
    let fault = Fault::Dies { at: AT, back_after: Duration::ZERO };
    fails_once(fault, "it was restarted: what it had seen is gone").await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_and_comes_back_later_is_inconclusive() {
    let fault = Fault::Dies { at: AT, back_after: Duration::from_secs(7) };
    fails_once(fault, "the agent said nothing within 5000 ms of the deadline").await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_is_inconclusive() {
    let fault = Fault::Hangs { at: AT, until: Duration::from_secs(4) };
    fails_once(fault, "the agent said nothing within 5000 ms of the deadline").await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_babbles_is_inconclusive() {
    fails_once(Fault::Babbles { at: AT }, "the agent answered garbage").await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_answers_for_a_run_it_was_never_sent_is_inconclusive() {
    fails_once(Fault::Invents { at: AT }, "which it was not sent or had ended").await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_leaves_a_number_out_is_inconclusive() {
    fails_once(Fault::Skips { at: AT }, "was due").await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_breaks_and_is_opened_again_loses_nothing() {
    for at in [1, 2, 5, AT, 25] {
        let bench = Bench::new(Script { fault: Some(Fault::Breaks { at }), ..Script::default() });
        let cell = bench.cell(DENIED).await;
        assert_eq!(cell.verdict, Verdict::Pass, "broken at run {at}");
        assert!(cell.samples >= 20, "{cell:?}");
    }
}

/// The agent fails once; the next case in the same lane passes.
async fn fails_once(fault: Fault, reason: &str) {
    let bench = Bench::new(Script { fault: Some(fault), ..Script::default() });
    let failed = bench.cell(DENIED).await;
    assert!(
        matches!(&failed.verdict, Verdict::Inconclusive(Doubt::Client(why)) if why.contains(reason)),
        "{fault:?}: {}",
        failed.verdict
    );
    let next = bench.cell(DENIED).await;
    assert_eq!(next.verdict, Verdict::Pass, "{fault:?}");
    assert_eq!(bench.clusters().len(), 1, "{fault:?}: the lane is the same");
    let sessions = bench.clusters()[0].sessions("shop/web");
    assert!(sessions >= 2, "{fault:?}: the next case attaches anew");
}
