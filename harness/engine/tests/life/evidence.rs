//! The stream of records and its gaps.

use crate::DENIED;
use crate::fake::{Bench, Script, Stop};

#[tokio::test(start_paused = true)]
async fn a_gap_in_the_stream_is_told_where_a_record_is_missing() {
    let lost = Stop { record: None, ..Stop::default() };
    let bench = Bench::new(Script {
        stops: vec![lost],
        gap: Some("the ring buffer of node-b lost 12 events"),
        ..Script::default()
    });
    let cell = bench.cell(DENIED).await;
    assert_eq!(
        cell.verdict.to_string(),
        "inconclusive: no evidence: no record of cilium about this flow; \
         the stream of records had gaps: the ring buffer of node-b lost 12 events"
    );
    bench.cell(DENIED).await;
    assert_eq!(bench.clusters().len(), 2, "a lane with a gap is made anew");
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_not_proved_by_records_between_which_others_were_lost() {
    let bench = Bench::new(Script { gap: Some("reconnected"), ..Script::default() });
    let verdict = bench.cell(DENIED).await.verdict;
    let told = "inconclusive: no evidence: the stream of records had gaps: reconnected";
    assert_eq!(verdict.to_string(), told);
}

#[tokio::test(start_paused = true)]
async fn a_leak_stays_a_leak_whatever_was_lost() {
    let bench = Bench::new(Script {
        gap: Some("reconnected"),
        leaks: |flow, _| flow == 20,
        ..Script::default()
    });
    assert_eq!(bench.cell(DENIED).await.verdict.word(), "fail-open");
}
