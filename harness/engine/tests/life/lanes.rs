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
