//! Which cases run side by side.

use futures_util::future::join_all;
use ztc_engine::event::EventKind;
use ztc_engine::profile::{LaneKind, Lanes};

use crate::fake::{Bench, Script, Stop, cases};

const NAMESPACED: &str = r#"
- name: first
  because: It keeps to its namespace.
  apply: [default-deny.yaml]
  expect: [{ from: shop/web, send: "tcp pay/vault:9000", is: denied }]
- name: second
  because: It keeps to its namespace, too.
  apply: [default-deny.yaml]
  expect: [{ from: shop/cart, send: "tcp pay/vault:9000", is: denied }]
"#;

#[tokio::test(start_paused = true)]
async fn clusterwide_cases_overlap_where_a_lane_is_a_cluster() {
    assert_eq!(most_at_once(LaneKind::Cluster, &clusterwide()).await, 2);
}

#[tokio::test(start_paused = true)]
async fn clusterwide_cases_never_overlap_where_lanes_share_a_cluster() {
    assert_eq!(most_at_once(LaneKind::Namespaces, &clusterwide()).await, 1);
}

#[tokio::test(start_paused = true)]
async fn namespaced_cases_overlap_where_lanes_share_a_cluster() {
    assert_eq!(most_at_once(LaneKind::Namespaces, NAMESPACED).await, 2);
}

#[tokio::test(start_paused = true)]
async fn one_lane_runs_one_case_at_a_time() {
    let lanes = Lanes { count: 1, each: LaneKind::Cluster };
    assert_eq!(most_at_once_in(lanes, NAMESPACED).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_case_in_another_lane_asks_about_its_names_and_is_reported_as_it_is_written() {
    let bench =
        Bench::with(vec![Script::default()], Lanes { count: 2, each: LaneKind::Namespaces });
    let cases = cases(NAMESPACED);
    let reports = join_all(cases.iter().map(|case| bench.runner.run(case))).await;
    for report in reports.into_iter().flatten() {
        assert_eq!(report.verdict.word(), "pass");
        let cell = &report.cells[0];
        assert!(cell.from.starts_with("shop/"), "{cell:?}");
        let copy = if report.lane == 0 { "" } else { "-lane1" };
        assert_eq!(cell.control, Some(format!("answered by pay{copy}/vault")));
    }
    let worlds: Vec<String> =
        bench.clusters().iter().map(|it| it.network.world.world.clone()).collect();
    assert_eq!(worlds, ["two", "two-lane1"]);
    for (cluster, namespace) in bench.clusters().iter().zip(["pay", "pay-lane1"]) {
        assert_eq!(cluster.network.ever_in(namespace), 1, "{namespace}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_case_that_runs_alone_is_applied_as_it_is_written() {
    let stop = Stop { policy: "wide-deny", ..Stop::default() };
    let script = Script { stops: vec![stop, Stop::default()], ..Script::default() };
    let bench = Bench::with(vec![script], Lanes { count: 3, each: LaneKind::Namespaces });
    let both = [cases(NAMESPACED), cases(&clusterwide())].concat();
    for report in join_all(both.iter().map(|case| bench.runner.run(case))).await {
        let report = report.expect("nobody interrupts");
        assert_eq!(report.verdict.word(), "pass");
        let wide = report.cells[0].expected.contains("wide-deny");
        assert!(!wide || report.lane == 0, "{report:?}");
    }
}

fn clusterwide() -> String {
    NAMESPACED.replace("default-deny.yaml", "wide-deny.yaml")
}

async fn most_at_once(each: LaneKind, text: &str) -> usize {
    most_at_once_in(Lanes { count: 2, each }, text).await
}

/// Runs all cases at once; the most that were between their first and their last event together.
async fn most_at_once_in(lanes: Lanes, text: &str) -> usize {
    let stops = ["default-deny", "wide-deny"].map(|policy| Stop { policy, ..Stop::default() });
    let script = Script { stops: stops.to_vec(), ..Script::default() };
    let mut bench = Bench::with(vec![script], lanes);
    let cases = cases(text);
    let reports = join_all(cases.iter().map(|case| bench.runner.run(case))).await;
    for report in reports {
        assert_eq!(report.expect("nobody interrupts").verdict.word(), "pass");
    }
    let (mut running, mut most, mut finished) = (0, 0, 0);
    while finished < cases.len() {
        let change = |kind: &EventKind| match kind {
            EventKind::CaseStarted { .. } => Some(true),
            EventKind::CaseFinished(_) => Some(false),
            _ => None,
        };
        if bench.event(change).await {
            running += 1;
        } else {
            running -= 1;
            finished += 1;
        }
        most = most.max(running);
    }
    most
}
