//! Cells whose stimulus is kubelet's.

use ztc_model::verdict::Verdict;

use crate::fake::{Bench, Record, Script, Stop};

const PROBE_DENIED: &str = r"
- name: probe-denied
  because: Nothing allows kubelet's probe.
  apply: [default-deny.yaml]
  expect: [{ from: kubelet, send: readiness pay/vault, is: denied, by: cilium }]
";

const PROBE_ALLOWED: &str = r"
- name: probe-allowed
  because: The policy is about another port.
  apply: [default-deny.yaml]
  expect: [{ from: kubelet, send: readiness pay/vault, is: allowed }]
";

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_denied_makes_the_pod_unready_and_passes() {
    let bench = Bench::new(probes_stopped(Record::DefaultDeny));
    let cell = bench.cell(PROBE_DENIED).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert_eq!(cell.seen, "not Ready: context deadline exceeded");
    assert_eq!(cell.control.as_deref(), Some("Ready"));
    assert_eq!(cell.settle_median_us, None, "kubelet does not say when it sent a probe");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stays_ready_is_fail_open_where_its_probe_must_be_denied() {
    let script = Script { stops: Vec::new(), ..Script::default() };
    let cell = Bench::new(script).cell(PROBE_DENIED).await;
    assert_eq!(cell.verdict.word(), "fail-open");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_must_pass_and_does_not_is_fail_closed() {
    let bench = Bench::new(probes_stopped(Record::DefaultDeny));
    let cell = bench.cell(PROBE_ALLOWED).await;
    assert_eq!(
        cell.verdict.to_string(),
        "fail-closed: not Ready: context deadline exceeded; \
         cilium on node-b: denied at ingress: nothing allows it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_of_an_earlier_case_is_no_evidence_for_a_later_one() {
    let older = Record::DenyRule("CiliumNetworkPolicy/pay/deny-web");
    let bench = Bench::new(Script {
        stops: vec![
            Stop { policy: "deny-web", port: 8080, record: Some(older), ..Stop::default() },
            Stop { port: 8080, ..Stop::default() },
        ],
        ..Script::default()
    });
    let by_rule = PROBE_DENIED.replace("default-deny.yaml", "deny-web.yaml");
    assert_eq!(bench.cell(&by_rule).await.verdict, Verdict::Pass);
    let cell = bench.cell(PROBE_DENIED).await;
    assert_eq!(cell.verdict, Verdict::Pass, "the first case's records name its own policy");
}

fn probes_stopped(record: Record) -> Script {
    let stop = Stop { port: 8080, record: Some(record), ..Stop::default() };
    Script { stops: vec![stop], ..Script::default() }
}
