//! Flows that get through although they must not. Nothing outranks a leak.

use std::time::Duration;

use ztc_model::verdict::{Failure, Verdict};

use crate::DENIED;
use crate::fake::{Bench, Fate, Script, Stop};

#[tokio::test(start_paused = true)]
async fn one_leak_in_twenty_flows_of_the_hold_is_fail_open() {
    let bench = Bench::new(Script { leaks: |flow, _| flow == 20, ..Script::default() });
    let cell = bench.cell(DENIED).await;
    let Verdict::Fail(Failure::FailOpen { seen, after_ms }) = &cell.verdict else {
        panic!("{}", cell.verdict);
    };
    assert_eq!(seen, "answered by pay/vault");
    assert!((20..550).contains(after_ms), "{after_ms} ms");
    assert_eq!(cell.seen, "answered by pay/vault");
    assert_eq!(cell.proof.as_deref(), Some("answered by pay/vault"), "all else is right");
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_is_never_stopped_is_fail_open() {
    let bench = Bench::new(Script { enforced_after: None, ..Script::default() });
    let cell = bench.cell(DENIED).await;
    let Verdict::Fail(Failure::FailOpen { after_ms, .. }) = &cell.verdict else {
        panic!("{}", cell.verdict);
    };
    assert!((20..30).contains(after_ms), "the first flow under the policies, {after_ms} ms");
    assert!(cell.time_to_enforce_ms.unwrap() >= 1990, "{:?}", cell.time_to_enforce_ms);
}

#[tokio::test(start_paused = true)]
async fn enforcement_after_the_ceiling_is_fail_open_and_before_it_is_a_pass() {
    for (enforced_ms, passes) in [(1900, true), (2100, false)] {
        let bench = Bench::new(Script {
            enforced_after: Some(Duration::from_millis(enforced_ms)),
            ..Script::default()
        });
        let cell = bench.cell(DENIED).await;
        let measured = cell.time_to_enforce_ms.unwrap();
        if passes {
            assert_eq!(cell.verdict, Verdict::Pass);
            assert!((1890..=1901).contains(&measured), "{measured} ms");
        } else {
            assert_eq!(cell.verdict.word(), "fail-open");
            assert!((1990..=2001).contains(&measured), "{measured} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_nonce_that_comes_after_a_record_wins() {
    let bench = Bench::new(Script {
        stops: vec![Stop { fate: Fate::Late(Duration::from_millis(200)), ..Stop::default() }],
        ..Script::default()
    });
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict.word(), "fail-open", "one dropped packet is no denial");
}

#[tokio::test(start_paused = true)]
async fn the_flows_that_made_a_denial_true_can_still_leak() {
    let bench = Bench::new(Script { late: |flow| flow <= 3, ..Script::default() });
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict.word(), "fail-open", "their sockets stay open in the hold");
}

#[tokio::test(start_paused = true)]
async fn where_records_are_slow_answers_are_waited_for() {
    // The answer to one of the last flows takes 200 ms, the records of all of them 60.
    let slow = Stop { recorded_after: Duration::from_millis(60), ..Stop::default() };
    let bench =
        Bench::new(Script { stops: vec![slow], late: |flow| flow == 34, ..Script::default() });
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict.word(), "fail-open");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_flaps_while_it_takes_hold_does_not_leak() {
    let flapping = |flow: usize, in_force| flow % 2 == 1 && in_force < Duration::from_millis(100);
    let bench = Bench::new(Script { leaks: flapping, ..Script::default() });
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    let measured = cell.time_to_enforce_ms.unwrap();
    assert!((100..=121).contains(&measured), "to the last answer that came, {measured} ms");
}
