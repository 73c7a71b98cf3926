//! The stream of records and its gaps.

use ztc_model::verdict::Verdict;

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
async fn a_gap_takes_nothing_from_a_verdict_that_has_its_records() {
    let bench = Bench::new(Script { gap: Some("reconnected"), ..Script::default() });
    assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
}
