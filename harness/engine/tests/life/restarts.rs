//! Restarts of whoever enforces: denials hold meanwhile, and nobody is asked for records of that time.

use std::time::Duration;

use ztc_model::verdict::Verdict;

use crate::fake::{Bench, Script};

const DENIED: &str = r#"
- name: denied-past-a-restart
  because: What is in the datapath stays there.
  apply: [default-deny.yaml]
  restart: [cilium]
  expect: [{ from: shop/web, send: "tcp pay/vault:9000", is: denied, by: cilium }]
"#;

const PRECEDED: &str = r#"
- name: allowed-past-a-restart
  because: What came first is remembered.
  apply: [default-deny.yaml]
  restart: [cilium]
  expect: [{ from: shop/web, send: "tcp pay/vault:9001", after: "udp pay/vault:9000", is: allowed }]
"#;

#[tokio::test(start_paused = true)]
async fn a_gap_of_a_restart_is_no_doubt_about_what_is_denied_after_it() {
    let bench = Bench::new(Script::default());
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict, Verdict::Pass, "{cell:?}");
    assert!(cell.settled_by_evidence > 20, "{cell:?}");
    let clusters = bench.clusters();
    assert_eq!(clusters[0].network.log(), ["apply default-deny", "restart", "delete default-deny"]);
    assert_eq!(bench.cell(DENIED).await.verdict, Verdict::Pass, "the next case, too");
    assert_eq!(bench.clusters().len(), 1, "the lane is as good as it was");
}

#[tokio::test(start_paused = true)]
async fn what_gets_through_during_a_restart_is_a_leak() {
    let open_after_restart = Duration::from_millis(15);
    let bench = Bench::new(Script { open_after_restart, ..Script::default() });
    assert_eq!(bench.cell(DENIED).await.verdict.word(), "fail-open");
}

#[tokio::test(start_paused = true)]
async fn a_gap_at_another_time_than_that_of_the_restart_is_one() {
    // Flows are stopped, and the stream breaks, well before the policy is seen to be realised.
    let realised_after = Some(Duration::from_millis(100));
    let gap = Some("lost 12 events");
    let bench = Bench::new(Script { realised_after, gap, ..Script::default() });
    let verdict = bench.cell(DENIED).await.verdict.to_string();
    assert!(verdict.ends_with("the stream of records had gaps: lost 12 events"), "{verdict}");
}

#[tokio::test(start_paused = true)]
async fn what_has_to_come_first_comes_before_the_restart() {
    let bench = Bench::new(Script::default());
    let cell = bench.cell(PRECEDED).await;
    assert_eq!(cell.verdict, Verdict::Pass, "whether it was needed, the flow itself has told");
    let denied = PRECEDED.replace("is: allowed", "is: denied, by: cilium").replace("9001", "9000");

    let bench = Bench::new(Script::default());
    let verdict = bench.cell(&denied).await.verdict.to_string();
    assert!(verdict.contains("what has to get through first did not"), "{verdict}");
    let log = bench.clusters()[0].network.log();
    assert_eq!(log, ["apply default-deny", "delete default-deny"], "nothing was restarted");
}
