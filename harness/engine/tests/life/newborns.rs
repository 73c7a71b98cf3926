//! Pods that are born under the policies.

use std::time::Duration;

use ztc_model::verdict::{Doubt, Verdict};

use crate::fake::{Bench, Script, Stop};

/// A pod that is never let through, and a twin that is.
const BORN: &str = r"
- name: born-denied
  because: A pod is denied from its first packet on.
  apply: [default-deny.yaml]
  create: [shop/late, shop/twin]
  expect:
    - from: shop/late
      send: tcp pay/vault:9000
      is: denied
      by: cilium
      twin: shop/twin
";

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_denied_from_its_first_packet_on_passes() {
    let bench = Bench::new(only_late());
    let report = bench.run(BORN).await;
    assert_eq!(report.verdict, Verdict::Pass);
    let cell = &report.cells[0];
    assert_eq!(cell.control.as_deref(), Some("answered by pay/vault"), "the twin");
    assert_eq!(cell.samples, 25, "5 by itself, 20 in the hold");
    assert_eq!(cell.settled_by_evidence, 25, "records of the first packets are found");
    assert_eq!(cell.time_to_enforce_ms, None);
    assert!(bench.clusters()[0].born_pods().is_empty(), "the pods are gone after the case");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_first_packets_pass_is_fail_open() {
    let bench = Bench::new(Script { open_after_birth: Duration::from_micros(1), ..only_late() });
    let cell = bench.cell(BORN).await;
    assert_eq!(cell.verdict.word(), "fail-open");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_twin_is_denied_as_well_is_inconclusive() {
    let cell = Bench::new(Script::default()).cell(BORN).await;
    assert!(matches!(cell.verdict, Verdict::Inconclusive(Doubt::Control(_))), "{}", cell.verdict);
}

/// Nothing but the pod itself is stopped.
fn only_late() -> Script {
    let stop = Stop { from: Some("shop/late"), ..Stop::default() };
    Script { stops: vec![stop], ..Script::default() }
}
