//! Flows that must pass.

use std::time::Duration;

use ztc_model::verdict::{Failure, Verdict};

use crate::ALLOWED;
use crate::fake::{Bench, Fate, Record, Script, Stop};

#[tokio::test(start_paused = true)]
async fn an_allowed_flow_that_passes_is_a_pass_without_waiting() {
    let bench = Bench::new(Script::default());
    let report = bench.run(ALLOWED).await;
    assert_eq!(report.verdict, Verdict::Pass);
    assert_eq!(report.cells[0].samples, 5);
    assert_eq!(report.cells[0].control, None, "an allowed flow needs no control");
}

#[tokio::test(start_paused = true)]
async fn an_allowed_flow_that_is_dropped_names_who_stopped_it() {
    let cell = Bench::new(overreaching(Some(Record::DefaultDeny))).cell(ALLOWED).await;
    assert_eq!(
        cell.verdict.to_string(),
        "fail-closed: time-out: no answer to the connect; \
         cilium on node-b: denied at ingress: nothing allows it"
    );
}

#[tokio::test(start_paused = true)]
async fn an_allowed_flow_that_vanishes_says_that_nobody_claims_it() {
    let cell = Bench::new(overreaching(None)).cell(ALLOWED).await;
    assert!(
        matches!(&cell.verdict, Verdict::Fail(Failure::FailClosed { stopped_by: None, .. })),
        "{}",
        cell.verdict
    );
}

/// However late: on a busy machine a stream of records lags behind the answers.
#[tokio::test(start_paused = true)]
async fn a_record_of_the_passage_counts_although_it_comes_after_the_answer() {
    let via = ALLOWED.replace("is: allowed", "is: allowed, via: dns-proxy");
    for late in [10, 700] {
        let passed = Stop {
            port: 9001,
            fate: Fate::Late(Duration::from_millis(1)),
            record: Some(Record::NameAllowed),
            recorded_after: Duration::from_millis(late),
            ..Stop::default()
        };
        let bench = Bench::new(Script { stops: vec![passed], ..Script::default() });
        assert_eq!(bench.cell(&via).await.verdict, Verdict::Pass, "{late} ms late");
    }
    assert_eq!(
        Bench::new(Script::default()).cell(&via).await.verdict.to_string(),
        "inconclusive: no evidence: no record of dns-proxy says that it let this flow pass"
    );
}

/// The policy stops another port than it should.
fn overreaching(record: Option<Record>) -> Script {
    let stop = Stop { port: 9001, record, ..Stop::default() };
    Script { stops: vec![stop], ..Script::default() }
}

/// A client with a search list goes on to the next name.
#[tokio::test(start_paused = true)]
async fn a_refused_name_on_the_way_ends_no_wait() {
    let refused_first = Stop {
        port: 9001,
        fate: Fate::Late(Duration::from_millis(200)),
        record: Some(Record::NameRefused),
        recorded_after: Duration::from_millis(1),
        ..Stop::default()
    };
    let bench = Bench::new(Script { stops: vec![refused_first], ..Script::default() });
    assert_eq!(bench.cell(ALLOWED).await.verdict, Verdict::Pass);
}
