//! Denials that hold, and what they need to count.

use std::time::Duration;

use ztc_engine::event::{EventKind, Phase};
use ztc_model::verdict::{Doubt, Verdict};

use crate::fake::{Bench, Fate, Script, Stop};
use crate::{DENIED, DENIED_BY_ANYBODY, PHASES, TWO_DENIALS};

#[tokio::test(start_paused = true)]
async fn a_denial_with_control_record_proof_and_recovery_passes() {
    let mut bench = Bench::new(Script::default());
    let report = bench.run(DENIED).await;
    assert_eq!(report.verdict, Verdict::Pass);
    assert_eq!(report.residue, None);
    let cell = &report.cells[0];
    assert_eq!(cell.seen, "time-out: no answer to the connect", "sockets stay open in the hold");
    assert_eq!(cell.control.as_deref(), Some("answered by pay/vault"));
    assert_eq!(cell.proof.as_deref(), Some("answered by pay/vault"));
    assert!(cell.samples >= 20, "{cell:?}");
    assert_eq!((cell.settled_by_evidence, cell.settled_by_time_out), (cell.samples, 0));
    assert_eq!(cell.settle_median_us, Some(3000));
    assert_eq!(cell.evidence.len(), 1, "one of each kind");

    let cluster = &bench.clusters()[0];
    assert_eq!(cluster.network.log(), ["apply default-deny", "delete default-deny"]);
    let mut phases = Vec::new();
    bench
        .event(|kind| {
            phases.extend(match kind {
                EventKind::CasePhase { phase, .. } => Some(*phase),
                _ => None,
            });
            matches!(kind, EventKind::CaseFinished(_)).then_some(())
        })
        .await;
    assert_eq!(phases, PHASES);
}

#[tokio::test(start_paused = true)]
async fn a_denial_takes_milliseconds_beyond_its_hold() {
    let bench = Bench::new(Script::default());
    let report = bench.run(DENIED).await;
    // 20 ms to realise, 500 ms of hold, nothing waited out.
    assert!((520..580).contains(&report.took_ms), "{} ms", report.took_ms);
}

#[tokio::test(start_paused = true)]
async fn the_time_to_enforce_is_measured_on_the_agents_clock() {
    let bench = Bench::new(Script {
        realised_after: Some(Duration::from_millis(20)),
        enforced_after: Some(Duration::from_millis(120)),
        ..Script::default()
    });
    let report = bench.run(DENIED).await;
    assert_eq!(report.verdict, Verdict::Pass);
    assert!((20..25).contains(&report.settled_ms.unwrap()), "{:?}", report.settled_ms);
    let measured = report.cells[0].time_to_enforce_ms.unwrap();
    // The stream sends every 5 ms, and an answer takes 1 ms.
    assert!((115..=121).contains(&measured), "{measured} ms");
}

#[tokio::test(start_paused = true)]
async fn a_denial_without_a_record_is_inconclusive_where_the_case_says_by_whom() {
    let bench = Bench::new(silent());
    let cell = bench.cell(DENIED).await;
    assert_eq!(
        cell.verdict.to_string(),
        "inconclusive: no evidence: no record of cilium about this flow"
    );
}

#[tokio::test(start_paused = true)]
async fn a_denial_without_a_record_passes_by_time_out_where_the_case_leaves_it_open() {
    let bench = Bench::new(silent());
    let cell = bench.cell(DENIED_BY_ANYBODY).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert_eq!(cell.seen, "time-out: no answer to the connect");
    assert_eq!((cell.settled_by_evidence, cell.settled_by_time_out), (0, cell.samples));
    assert_eq!(cell.settle_median_us, None);
}

#[tokio::test(start_paused = true)]
async fn a_denial_whose_control_never_passed_is_inconclusive() {
    let bench = Bench::new(Script { standing: Some("default-deny"), ..Script::default() });
    let cell = bench.cell(DENIED).await;
    assert!(matches!(cell.verdict, Verdict::Inconclusive(Doubt::Control(_))), "{}", cell.verdict);
    assert_eq!(cell.samples, 0, "nothing is sent under the policies");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_send_is_inconclusive() {
    let bench = Bench::new(Script { unsent: Some("shop/web"), ..Script::default() });
    let cell = bench.cell(DENIED).await;
    assert_eq!(
        cell.verdict.to_string(),
        "inconclusive: control failed: not sent: open a socket: Too many open files"
    );
}

#[tokio::test(start_paused = true)]
async fn a_denial_that_another_policy_denies_as_well_has_no_proof() {
    let second = Stop { policy: "second-deny", ..Stop::default() };
    let bench = Bench::new(Script { stops: vec![Stop::default(), second], ..Script::default() });
    let cell = bench
        .cell(
            r#"
- name: denied-twice
  because: Layers hide each other.
  apply: [default-deny.yaml, second-deny.yaml]
  expect:
    - { from: shop/web, send: "tcp pay/vault:9000", is: denied, by: cilium, policy: default-deny }
"#,
        )
        .await;
    assert_eq!(
        cell.verdict.to_string(),
        "inconclusive: no proof: after removing NetworkPolicy/pay/default-deny alone: \
         time-out: no answer to the connect"
    );
    assert!(bench.clusters()[0].network.applied().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_what_has_to_come_first_says_nothing() {
    const WORN_OFF: &str = r#"
- name: denied-once-it-wears-off
  because: A packet that was dropped is sent again, and gets through while what came first holds.
  apply: [default-deny.yaml, second-deny.yaml]
  remove: [second-deny]
  expect: [{ from: shop/web, send: "tcp pay/vault:9000", after: "tcp pay/vault:9001", is: denied, by: cilium, policy: default-deny }]
"#;
    let bench = Bench::new(Script { late: |flow| flow <= 4, ..Script::default() });
    assert_eq!(bench.cell(WORN_OFF).await.verdict, Verdict::Pass);
    let at_once = WORN_OFF.replace("after: \"tcp pay/vault:9001\", ", "");
    let bench = Bench::new(Script { late: |flow| flow <= 4, ..Script::default() });
    let verdict = bench.cell(&at_once).await.verdict;
    assert_eq!(verdict.word(), "fail-open", "that holds only where something has to come first");
}

#[tokio::test(start_paused = true)]
async fn each_denying_policy_is_removed_alone_and_put_back() {
    let other = Stop { policy: "second-deny", port: 9001, ..Stop::default() };
    let bench = Bench::new(Script { stops: vec![Stop::default(), other], ..Script::default() });
    let report = bench.run(TWO_DENIALS).await;
    assert_eq!(report.verdict, Verdict::Pass);
    assert_eq!(
        bench.clusters()[0].network.log(),
        [
            "apply default-deny",
            "apply second-deny",
            "delete default-deny",
            "apply default-deny",
            "delete second-deny",
            "delete default-deny",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn policies_that_come_and_go_together_are_settled_by_one_look() {
    let bench = Bench::new(Script { realised_after: Some(Duration::ZERO), ..Script::default() });
    let report = bench
        .run(
            r#"
- name: one-of-two-denies
  because: The second policy is about another port.
  apply: [default-deny.yaml, second-deny.yaml]
  expect:
    - { from: shop/web, send: "tcp pay/vault:9000", is: denied, by: cilium, policy: default-deny }
"#,
        )
        .await;
    assert_eq!(report.verdict, Verdict::Pass);
    let network = &bench.clusters()[0].network;
    assert_eq!(network.looks(), 2, "one for both that came, one for both that went");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_put_back_is_settled_with_its_removal() {
    let other = Stop { policy: "second-deny", port: 9001, ..Stop::default() };
    let bench = Bench::new(Script {
        stops: vec![Stop::default(), other],
        realised_after: Some(Duration::ZERO),
        ..Script::default()
    });
    assert_eq!(bench.run(TWO_DENIALS).await.verdict, Verdict::Pass);
    assert_eq!(bench.clusters()[0].network.looks(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_passes_is_proof_before_its_policys_removal_is_realised_everywhere() {
    let mut bench = Bench::new(Script {
        realised_after: Some(Duration::from_millis(300)),
        ..Script::default()
    });
    assert_eq!(bench.run(DENIED).await.verdict, Verdict::Pass);
    let at = |phase| {
        move |kind: &EventKind| {
            matches!(kind, EventKind::CasePhase { phase: it, .. } if *it == phase).then_some(())
        }
    };
    bench.event(at(Phase::Proof)).await;
    let (recovery, ended) = (
        bench.moment(at(Phase::Recovery)).await,
        bench.moment(|kind| matches!(kind, EventKind::CaseFinished(_)).then_some(())).await,
    );
    assert!(ended - recovery >= 250_000, "the removal is waited for before traffic recovers");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_comes_after_the_clients_own_word_still_counts() {
    let bench = Bench::new(Script {
        stops: vec![Stop {
            fate: Fate::Close,
            recorded_after: Duration::from_millis(60),
            ..Stop::default()
        }],
        ..Script::default()
    });
    let cell = bench.cell(DENIED).await;
    assert_eq!(cell.verdict, Verdict::Pass);
    assert!(cell.settled_by_evidence > cell.settled_by_time_out, "{cell:?}");
}

/// Cilium stops the flow, and its record is lost.
fn silent() -> Script {
    Script { stops: vec![Stop { record: None, ..Stop::default() }], ..Script::default() }
}

fn denied_after() -> String {
    DENIED.replace("is: denied", "after: \"tcp pay/vault:9001\", is: denied")
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_before_what_has_to_come_first_does_not_count() {
    let first =
        Stop { port: 9001, fate: Fate::Late(Duration::from_millis(200)), ..Stop::default() };
    let script = Script {
        stops: vec![Stop::default(), first],
        leaks: |_, in_force| (50..100).contains(&in_force.as_millis()),
        ..Script::default()
    };
    let cell = Bench::new(script.clone()).cell(DENIED).await;
    assert_eq!(cell.verdict.word(), "fail-open", "{}", cell.verdict);
    assert_eq!(Bench::new(script).cell(&denied_after()).await.verdict, Verdict::Pass);
}

#[tokio::test(start_paused = true)]
async fn a_denial_that_nothing_could_come_before_proves_nothing() {
    let first = Stop { port: 9001, ..Stop::default() };
    let script = Script { stops: vec![Stop::default(), first], ..Script::default() };
    assert_eq!(
        Bench::new(script).cell(&denied_after()).await.verdict.to_string(),
        "inconclusive: no evidence: what has to get through first did not: \
         time-out: no answer to the connect"
    );
}
