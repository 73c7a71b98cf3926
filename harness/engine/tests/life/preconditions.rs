//! Cases that cannot begin, and cases after which the lane is not what it was.

use ztc_engine::profile::{LaneKind, Lanes};
use ztc_model::verdict::{Doubt, Verdict};

use crate::fake::{Bench, Script, Stop};
use crate::{DENIED, TWO_DENIALS};

#[tokio::test(start_paused = true)]
async fn policies_that_are_never_realised_are_inconclusive_with_the_last_status() {
    let bench = Bench::new(Script { realised_after: None, ..Script::default() });
    let report = bench.run(DENIED).await;
    assert_eq!(
        report.verdict.to_string(),
        "inconclusive: the fabric failed: the policies to be realised did not come within 2000 ms; \
         last seen: node-b enforces revision 1 of 2"
    );
    let residue = report.residue.expect("nobody says that the policy is gone");
    assert!(residue.contains("node-b enforces revision 1 of 2"), "{residue}");
    assert!(bench.clusters()[0].network.applied().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_applied_in_audit_mode() {
    let bench = Bench::new(Script { audit: true, ..Script::default() });
    let report = bench.run(DENIED).await;
    assert!(
        matches!(&report.verdict, Verdict::Inconclusive(Doubt::Precondition(why))
        if why.contains("policy audit mode: nothing is enforced")),
        "{}",
        report.verdict
    );
    assert!(bench.clusters()[0].network.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_ready_is_told_in_the_words_of_kubelet() {
    let bench = Bench::new(Script {
        not_ready: Some(("pay/vault", "connect: connection refused")),
        ..Script::default()
    });
    let cell = bench.cell(DENIED).await;
    assert_eq!(
        cell.verdict.to_string(),
        "inconclusive: precondition not met: the world did not come within 10000 ms; \
         last seen: pod pay/vault is not Ready: connect: connection refused"
    );
    assert!(bench.clusters()[0].network.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_traffic_does_not_recover_is_made_anew_for_the_next_case() {
    let other = Stop { policy: "second-deny", port: 9001, ..Stop::default() };
    let right = Script { stops: vec![Stop::default(), other], ..Script::default() };
    // Two deletions for the two proofs, then the first policy again for good.
    let wrong = Script { lasting_from: Some(3), ..right.clone() };
    let bench = Bench::with(vec![wrong, right], Lanes { count: 1, each: LaneKind::Cluster });
    let broken = bench.run(TWO_DENIALS).await;
    assert_eq!(
        broken.verdict.to_string(),
        "inconclusive: traffic did not recover: time-out: no answer to the connect"
    );
    assert_eq!(broken.cells[1].verdict, Verdict::Pass, "its policy is gone");
    assert_eq!(bench.run(TWO_DENIALS).await.verdict, Verdict::Pass);
    assert_eq!(bench.clusters().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_made_anew_whatever_else_is_wrong_with_a_cell_that_does_not_recover() {
    let scripts = vec![Script { lasting_from: Some(1), ..Script::default() }, Script::default()];
    let bench = Bench::with(scripts, Lanes { count: 1, each: LaneKind::Cluster });
    let broken = bench.cell(DENIED).await;
    assert!(matches!(broken.verdict, Verdict::Inconclusive(Doubt::NoProof(_))), "{broken:?}");
    assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
    assert_eq!(bench.clusters().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_in_which_a_case_could_not_begin_is_made_anew_for_the_next() {
    let wrong = Script { not_ready: Some(("pay/vault", "no reason")), ..Script::default() };
    let bench =
        Bench::with(vec![wrong, Script::default()], Lanes { count: 1, each: LaneKind::Cluster });
    let broken = bench.cell(DENIED).await;
    assert!(matches!(broken.verdict, Verdict::Inconclusive(Doubt::Precondition(_))), "{broken:?}");
    assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
    assert_eq!(bench.clusters().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_no_longer_whole_is_made_anew_before_the_next_case() {
    let wrong = Script { broken: Some("pod shop/web does not exist"), ..Script::default() };
    let bench =
        Bench::with(vec![wrong, Script::default()], Lanes { count: 1, each: LaneKind::Cluster });
    for _ in 0..3 {
        assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
    }
    assert_eq!(bench.clusters().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_recovers_is_used_again() {
    let bench = Bench::new(Script::default());
    for _ in 0..3 {
        assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass);
    }
    assert_eq!(bench.clusters().len(), 1);
}
