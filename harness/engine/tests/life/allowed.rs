//! Flows that must pass.

use ztc_model::verdict::{Failure, Verdict};

use crate::ALLOWED;
use crate::fake::{Bench, Script, Stop};

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
    let cell = Bench::new(overreaching(Stop::default())).cell(ALLOWED).await;
    assert_eq!(
        cell.verdict.to_string(),
        "fail-closed: time-out: no answer to the connect; \
         cilium on node-b: denied at ingress: nothing allows it"
    );
}

#[tokio::test(start_paused = true)]
async fn an_allowed_flow_that_vanishes_says_that_nobody_claims_it() {
    let cell =
        Bench::new(overreaching(Stop { record: None, ..Stop::default() })).cell(ALLOWED).await;
    assert!(
        matches!(&cell.verdict, Verdict::Fail(Failure::FailClosed { stopped_by: None, .. })),
        "{}",
        cell.verdict
    );
}

/// The policy stops another port than it should.
fn overreaching(stop: Stop) -> Script {
    Script { stops: vec![Stop { port: 9001, ..stop }], ..Script::default() }
}
