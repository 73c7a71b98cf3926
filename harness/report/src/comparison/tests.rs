//! Every rule of a comparison, and how one reads.

use ztc_engine::event::{EventKind, EvidenceReport, SCHEMA};
use ztc_model::evidence::{Did, Direction};
use ztc_model::outcome::EnforcementPoint;
use ztc_model::verdict::Doubt;

use super::*;
use crate::sample::{self, events, side};

const BLOCK: &str = "CiliumClusterwideNetworkPolicy/block-metadata";

fn compared(lab: &[CaseReport], kind: &[CaseReport]) -> Comparison {
    Comparison::of([side("lab", lab), side("kind", kind)])
}

/// Two cells in a case of their own.
fn cells(one: CellReport, other: CellReport) -> Comparison {
    compared(&[sample::case("it", vec![one])], &[sample::case("it", vec![other])])
}

fn counts(it: &Comparison) -> [usize; 3] {
    [it.agreeing, it.disagreements.len(), it.not_compared.iter().map(|it| it.cells).sum()]
}

fn passed(evidence: Vec<EvidenceReport>) -> CellReport {
    CellReport { evidence, ..sample::denied(Verdict::Pass) }
}

fn by_rule(policies: &[&str]) -> EvidenceReport {
    sample::record(Did::DenyByRule { direction: Direction::Egress }, 41_000, policies)
}

fn by_default(direction: Direction) -> EvidenceReport {
    sample::record(Did::DenyByDefault { direction }, 41_000, &[])
}

fn refused(name: &str) -> EvidenceReport {
    let did = Did::RefuseName { name: name.to_owned() };
    EvidenceReport { point: EnforcementPoint::DnsProxy, ..sample::record(did, 41_000, &[]) }
}

fn doubtful() -> CellReport {
    sample::denied(Verdict::Inconclusive(Doubt::NoEvidence("no record of cilium".to_owned())))
}

#[test]
fn a_run_agrees_with_one_like_it() {
    let it = compared(&[sample::pass()], &[sample::pass()]);
    assert_eq!(counts(&it), [2, 0, 0]);
    assert_eq!(it.exit_status(), ExitStatus::Pass);
}

#[test]
fn nodes_addresses_raw_records_and_times_are_no_disagreement() {
    let mut there = by_rule(&[BLOCK]);
    there.node = "kind-worker".to_owned();
    there.flow.source = "10.244.1.9:50000".parse().unwrap();
    there.record = serde_json::json!({});
    let there = CellReport {
        time_to_enforce_ms: Some(900),
        settle_median_us: Some(41_000),
        seen: "time-out: no answer to the connect".to_owned(),
        samples: 7,
        ..passed(vec![there])
    };
    assert_eq!(counts(&cells(passed(vec![by_rule(&[BLOCK])]), there)), [1, 0, 0]);
}

#[test]
fn another_verdict_is_a_disagreement() {
    let it = compared(&[sample::wrong_layer()], &[sample::pass()]);
    assert_eq!(counts(&it), [0, 1, 1]);
    let differences = &it.disagreements[0].differences;
    assert!(differences.contains(&Difference::Verdict(["wrong-layer", "pass"])), "{differences:?}");
    assert_eq!(it.exit_status(), ExitStatus::Failed);
}

#[test]
fn a_denial_of_another_kind_point_direction_or_policy_is_a_disagreement() {
    let egress = by_default(Direction::Egress);
    for other in [
        by_rule(&[BLOCK]),
        by_default(Direction::Ingress),
        EvidenceReport { point: EnforcementPoint::Ztunnel, ..egress.clone() },
        refused("api.zt.test."),
    ] {
        let it = cells(passed(vec![egress.clone()]), passed(vec![other]));
        assert_eq!(counts(&it), [0, 1, 0], "{:?}", it.disagreements);
        assert_eq!(it.exit_status(), ExitStatus::Failed);
    }
    let it = cells(passed(vec![by_rule(&[BLOCK])]), passed(vec![by_rule(&["another"])]));
    assert_eq!(counts(&it), [0, 1, 0]);
}

#[test]
fn a_record_without_a_name_adds_nothing_to_one_with_a_name() {
    let told_twice = passed(vec![by_rule(&[BLOCK]), by_rule(&[])]);
    let told_once = passed(vec![by_rule(&[BLOCK])]);
    assert_eq!(counts(&cells(told_twice, told_once.clone())), [1, 0, 0]);
    // But a side that names nobody says less.
    assert_eq!(counts(&cells(passed(vec![by_rule(&[])]), told_once)), [0, 1, 0]);
}

#[test]
fn a_denial_that_only_one_side_has_on_record_is_a_disagreement() {
    let it = cells(passed(vec![by_default(Direction::Egress)]), passed(Vec::new()));
    assert_eq!(counts(&it), [0, 1, 0]);
    // Allowances are not held against each other.
    let allow = sample::record(Did::Allow { direction: Direction::Egress }, 41_000, &[BLOCK]);
    assert_eq!(counts(&cells(passed(vec![allow]), passed(Vec::new()))), [1, 0, 0]);
}

#[test]
fn refused_names_along_a_search_path_are_one_kind_of_denial() {
    let it = cells(
        passed(vec![refused("api.zt.test.")]),
        passed(vec![refused("api.zt.test.zt-shop.svc.cluster.local."), refused("api.zt.test.")]),
    );
    assert_eq!(counts(&it), [1, 0, 0]);
}

#[test]
fn an_allowed_flow_that_is_answered_by_somebody_else_is_a_disagreement() {
    let there =
        CellReport { seen: "answered by outside/api".to_owned(), ..sample::allowed(Verdict::Pass) };
    assert_eq!(counts(&cells(sample::allowed(Verdict::Pass), there)), [0, 1, 0]);
}

#[test]
fn a_leak_on_either_side_comes_first_and_decides_the_exit_code() {
    let other = sample::fail_closed();
    let other_passes =
        sample::case("the-web-is-allowed", other.cells.iter().cloned().map(pass_of).collect());
    let leak = sample::fail_open();
    let tight =
        sample::case("metadata-is-denied", leak.cells.iter().cloned().map(pass_of).collect());
    let there = [other_passes, tight];
    let here = [other, leak];
    for (one, other) in [(&here, &there), (&there, &here)] {
        let it = compared(one, other);
        assert_eq!(counts(&it), [1, 3, 0]);
        assert_eq!(it.exit_status(), ExitStatus::FailOpen);
        let text = it.text(100, false);
        assert!(text.starts_with("✗ FAIL-OPEN     l1-cluster::metadata-is-denied\n"), "{text}");
        assert_eq!(text.matches("≠ DISAGREE").count(), 2, "{text}");
    }
}

fn pass_of(cell: CellReport) -> CellReport {
    CellReport { verdict: Verdict::Pass, ..cell }
}

#[test]
fn runs_that_fail_alike_agree_and_still_do_not_pass() {
    let it = compared(&[sample::fail_closed()], &[sample::fail_closed()]);
    assert_eq!(counts(&it), [2, 0, 0]);
    assert_eq!(it.exit_status(), ExitStatus::Failed);
    let it = compared(&[sample::fail_open()], &[sample::fail_open()]);
    assert_eq!(counts(&it), [2, 0, 0]);
    assert_eq!(it.exit_status(), ExitStatus::FailOpen);
}

#[test]
fn a_doubt_is_compared_with_nothing() {
    for (one, other) in [
        (doubtful(), passed(Vec::new())),
        (passed(Vec::new()), doubtful()),
        (doubtful(), doubtful()),
    ] {
        let it = cells(one, other);
        assert_eq!(counts(&it), [0, 0, 1]);
        assert_eq!(it.exit_status(), ExitStatus::Inconclusive);
    }
}

#[test]
fn a_leak_against_a_doubt_is_not_compared_and_not_hidden() {
    let leak = sample::fail_open().cells.swap_remove(1);
    let it = compared(
        &[sample::case("it", vec![doubtful(), leak])],
        &[sample::case("it", vec![doubtful(), doubtful()])],
    );
    assert_eq!(counts(&it), [0, 0, 2]);
    assert!(it.not_compared[0].leaks && !it.not_compared[1].leaks);
    assert_eq!(it.exit_status(), ExitStatus::FailOpen);
    assert!(it.text(100, false).contains("FAIL-OPEN  l1-cluster::it"));
}

#[test]
fn a_cell_of_which_the_sides_expect_different_things_is_not_compared() {
    let changed = CellReport { expected: "allowed".to_owned(), ..passed(Vec::new()) };
    let it = cells(passed(Vec::new()), changed);
    assert_eq!(counts(&it), [0, 0, 1]);
}

#[test]
fn equal_cells_are_told_apart_by_their_position() {
    let rules = || passed(vec![by_rule(&[BLOCK])]);
    let default = || passed(vec![by_default(Direction::Egress)]);
    let case = |cells| [sample::case("it", cells)];
    let it = compared(&case(vec![rules(), default()]), &case(vec![rules(), default()]));
    assert_eq!(counts(&it), [2, 0, 0]);
    let it = compared(&case(vec![rules(), default()]), &case(vec![default(), rules()]));
    assert_eq!(counts(&it), [0, 2, 0]);
    let it = compared(&case(vec![rules()]), &case(vec![rules(), default()]));
    assert_eq!(counts(&it), [1, 0, 1]);
}

#[test]
fn nothing_to_compare_is_no_success() {
    let it = compared(&[sample::pass()], &[]);
    assert_eq!(counts(&it), [0, 0, 2]);
    assert_eq!(it.exit_status(), ExitStatus::Inconclusive);
}

#[test]
fn what_a_fabric_lacks_is_not_compared_and_no_failure() {
    let mut here = side("lab", &[sample::pass()]);
    let mut there = side("kind", &[sample::pass()]);
    there.ignored.push((CaseId::new("l1-probes", "one"), "kind lacks ambient-probes".to_owned()));
    let probes = CaseReport { case: CaseId::new("l1-probes", "one"), ..sample::pass() };
    here.run.cases.push(probes.case.clone());
    here.reports.push(probes);
    let it = Comparison::of([here, there]);
    assert_eq!(counts(&it), [2, 0, 2]);
    assert_eq!(it.exit_status(), ExitStatus::Pass);
    let text = it.text(100, false);
    assert!(text.contains("kind: ignored: kind lacks ambient-probes"), "{text}");
}

#[test]
fn a_run_that_did_not_finish_is_compared_as_far_as_it_came_and_never_passes() {
    let mut torn = events("kind", &[sample::pass()]);
    torn.pop();
    let torn = Side::of(torn).unwrap();
    assert!(!torn.finished);
    let it = Comparison::of([side("lab", &[sample::pass()]), torn]);
    assert_eq!(counts(&it), [2, 0, 0]);
    assert_eq!(it.exit_status(), ExitStatus::Inconclusive);
}

#[test]
fn events_of_no_run_or_of_another_version_are_refused() {
    assert_eq!(Side::of([]).unwrap_err(), NoRun::NotStarted);
    let mut old = events("lab", &[]);
    if let EventKind::RunStarted(run) = &mut old[0].kind {
        run.schema = SCHEMA + 1;
    }
    assert_eq!(Side::of(old).unwrap_err(), NoRun::OtherSchema { found: SCHEMA + 1 });
}

#[test]
fn runs_of_one_profile_are_told_apart_by_their_names() {
    let mut again = side("lab", &[]);
    again.run.run = "again".to_owned();
    let sides = [side("lab", &[]), again];
    assert_eq!(side::labels(&sides), ["2026-11-24-0410-lab", "again"]);
    let sides = [side("lab", &[]), side("lab", &[])];
    assert_eq!(side::labels(&sides), ["the first", "the second"]);
}

#[test]
fn a_disagreement_is_shown_with_the_evidence_of_both_sides() {
    let leak = sample::fail_open();
    let mut tight = CaseReport { settled_ms: Some(640), ..sample::pass() };
    tight.cells = vec![
        leak.cells[0].clone(),
        CellReport { time_to_enforce_ms: Some(710), ..passed(vec![by_rule(&[BLOCK])]) },
        doubtful(),
    ];
    let mut leak = leak;
    leak.cells.push(passed(Vec::new()));
    let mut there = side("kind", &[tight]);
    let lacking = CaseId::new("l5-waypoint", "post-is-denied");
    there.ignored.push((lacking, "kind lacks waypoint".to_owned()));
    let it = Comparison::of([side("lab", &[leak]), there]);
    insta::assert_snapshot!(it.text(100, false), @"
    ✗ FAIL-OPEN     l1-cluster::metadata-is-denied
      zt-shop/web sent GET http://169.254.169.254:80/
      expected  denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata)
      differs   verdict: fail-open on lab, pass on kind
      differs   client saw: on lab HTTP 200 from outside/metadata; on kind silence: no answer to the
                connect
      on lab: fail-open: HTTP 200 from outside/metadata, sent 12 ms after the policies were accepted
        seen      HTTP 200 from outside/metadata
        control   HTTP 200 from outside/metadata
        proof     HTTP 200 from outside/metadata
        samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
        record    cilium on lab-1: allowed at egress (TCP 10.0.1.5:41000 -> 169.254.169.254:80 and 1
                  more)
        record    cilium on lab-1: denied at egress by a deny rule of
                  CiliumClusterwideNetworkPolicy/block-metadata (TCP 10.0.1.5:41002 ->
                  169.254.169.254:80)
      on kind: pass
        seen      silence so far: no answer to the connect
        control   HTTP 200 from outside/metadata
        proof     HTTP 200 from outside/metadata
        samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
        record    cilium on lab-1: denied at egress by a deny rule of
                  CiliumClusterwideNetworkPolicy/block-metadata (TCP 10.0.1.5:41000 ->
                  169.254.169.254:80)
      because   A metadata service gives the credentials of the node to every pod that can reach it.
      place     suites/l1-cluster/metadata.yaml:14

    not compared
      l1-cluster::metadata-is-denied
        zt-shop/web sent GET http://169.254.169.254:80/
          lab: pass
          kind: inconclusive: no evidence: no record of cilium
      l5-waypoint::post-is-denied
        the whole case
          lab: not among the cases of this run
          kind: ignored: kind lacks waypoint

    times of the slowest cells, lab / kind
      settled             enforced            on record
      2 ms / 640 ms       3 ms / 710 ms       3.1 ms / 3.1 ms     l1-cluster::metadata-is-denied

    lab: run 2026-11-24-0410-lab on lab (lab), a rehearsal; 0 passed, 1 failed open; 2.4 s
    kind: run 2026-11-24-0410-kind on kind (kind); 1 passed; 2.4 s
    2 cells compared, 1 disagree, 1 not compared; 1 case without a cell on either side
    ");
}
