//! What counts as a change, and how a diff reads.

use ztc_engine::event::EvidenceReport;
use ztc_model::evidence::{Did, Direction};
use ztc_model::outcome::EnforcementPoint;
use ztc_model::verdict::Doubt;

use super::*;
use crate::sample::{self, side};

fn diff(before: &[CaseReport], after: &[CaseReport]) -> Diff {
    Diff::of(&[side("before", before), side("after", after)])
}

/// Two cells in a case of their own.
fn cells(before: CellReport, after: CellReport) -> Diff {
    diff(&[sample::case("it", vec![before])], &[sample::case("it", vec![after])])
}

fn denied_by(point: EnforcementPoint) -> CellReport {
    let did = Did::DenyByDefault { direction: Direction::Ingress };
    let evidence = vec![EvidenceReport { point, ..sample::record(did, 41_000, &[]) }];
    CellReport { evidence, ..sample::denied(Verdict::Pass) }
}

fn leaked() -> CellReport {
    let failure = Failure::FailOpen { seen: "HTTP 200".to_owned(), after_ms: 12 };
    CellReport { seen: "HTTP 200".to_owned(), ..sample::denied(Verdict::Fail(failure)) }
}

fn stopped() -> CellReport {
    let failure = Failure::FailClosed { seen: "time-out".to_owned(), stopped_by: None };
    sample::allowed(Verdict::Fail(failure))
}

fn doubtful() -> CellReport {
    sample::denied(Verdict::Inconclusive(Doubt::NoEvidence("no record of cilium".to_owned())))
}

fn only_change(diff: &Diff) -> Option<Change> {
    assert!(diff.changes.len() < 2, "{diff:?}");
    diff.changes.first().map(|it| it.change)
}

#[test]
fn the_same_run_twice_changes_nothing() {
    let it = diff(&[sample::pass()], &[sample::pass()]);
    assert_eq!((it.changes.len(), it.undecided.len(), it.unchanged), (0, 0, 2));
    assert_eq!(it.exit_status(), ExitStatus::Pass);
}

#[test]
fn a_leak_that_was_none_before_is_newly_allowed_and_ends_with_4() {
    let it = cells(sample::denied(Verdict::Pass), leaked());
    assert_eq!(only_change(&it), Some(Change::NewlyAllowed));
    assert_eq!(it.exit_status(), ExitStatus::FailOpen);
}

#[test]
fn what_passes_is_newly_allowed_even_where_it_is_expected_to() {
    let now =
        CellReport { send: sample::denied(Verdict::Pass).send, ..sample::allowed(Verdict::Pass) };
    let it = cells(sample::denied(Verdict::Pass), now);
    assert_eq!(only_change(&it), Some(Change::NewlyAllowed));
}

#[test]
fn a_leak_that_was_one_before_is_no_change() {
    let it = cells(leaked(), leaked());
    assert_eq!((only_change(&it), it.exit_status()), (None, ExitStatus::Pass));
}

#[test]
fn what_is_stopped_and_was_not_is_newly_denied() {
    let it = cells(sample::allowed(Verdict::Pass), stopped());
    assert_eq!(only_change(&it), Some(Change::NewlyDenied));
    assert_eq!(it.exit_status(), ExitStatus::Failed);
}

#[test]
fn another_enforcement_point_is_a_change_though_both_runs_pass() {
    let [cilium, ztunnel] = [EnforcementPoint::Cilium, EnforcementPoint::Ztunnel].map(denied_by);
    let it = cells(cilium, ztunnel);
    assert_eq!(only_change(&it), Some(Change::DeniedBySomebodyElse));
    assert_eq!(it.exit_status(), ExitStatus::Failed);
}

#[test]
fn content_in_clear_counts_as_allowed() {
    let exposed = Failure::InClear { node: "a".to_owned(), seen: "36 packets".to_owned() };
    let exposed = sample::allowed(Verdict::Fail(exposed));
    let it = cells(sample::allowed(Verdict::Pass), exposed);
    assert_eq!(only_change(&it), Some(Change::NewlyInClear));
    assert_eq!(it.exit_status(), ExitStatus::FailOpen);
}

#[test]
fn a_time_is_slower_when_it_has_doubled_and_by_half_a_second() {
    let in_ms = |ms| CellReport { time_to_enforce_ms: Some(ms), ..sample::denied(Verdict::Pass) };
    assert_eq!(only_change(&cells(in_ms(10), in_ms(400))), None);
    assert_eq!(only_change(&cells(in_ms(5_000), in_ms(6_000))), None);
    let it = cells(in_ms(400), in_ms(1_000));
    assert_eq!(only_change(&it), Some(Change::SlowerToEnforce));
    assert_eq!(it.exit_status(), ExitStatus::Pass);
}

#[test]
fn what_nobody_knows_or_is_gone_is_undecided_and_never_the_same() {
    for [before, after] in [[doubtful(), leaked()], [sample::denied(Verdict::Pass), doubtful()]] {
        let it = cells(before, after);
        assert_eq!((it.undecided.len(), it.exit_status()), (1, ExitStatus::Inconclusive));
    }
    let gone = diff(&[sample::pass(), sample::case("gone", vec![leaked()])], &[sample::pass()]);
    assert_eq!((gone.undecided.len(), gone.exit_status()), (1, ExitStatus::Inconclusive));
    let nothing = diff(&[], &[]);
    assert_eq!(nothing.exit_status(), ExitStatus::Inconclusive);
}

#[test]
fn a_new_case_is_counted_and_changes_nothing() {
    let it = diff(&[sample::pass()], &[sample::pass(), sample::case("new", vec![leaked()])]);
    assert_eq!((it.new, it.changes.len(), it.exit_status()), (1, 0, ExitStatus::Pass));
}

#[test]
fn a_change_outranks_what_is_undecided_and_the_worst_comes_first() {
    let before = sample::case("it", vec![sample::allowed(Verdict::Pass), doubtful()]);
    let after = sample::case("it", vec![stopped(), doubtful()]);
    let other = |cell| sample::case("other", vec![cell]);
    let it = diff(&[before, other(sample::denied(Verdict::Pass))], &[after, other(leaked())]);
    let changes: Vec<Change> = it.changes.iter().map(|it| it.change).collect();
    assert_eq!(changes, [Change::NewlyAllowed, Change::NewlyDenied]);
    assert_eq!(it.exit_status(), ExitStatus::FailOpen);
}

fn sampled() -> Diff {
    let [cilium, ztunnel] = [EnforcementPoint::Cilium, EnforcementPoint::Ztunnel].map(denied_by);
    diff(
        &[
            sample::case("leaks", vec![sample::denied(Verdict::Pass)]),
            sample::case("moved", vec![cilium]),
            sample::case("gone", vec![sample::allowed(Verdict::Pass)]),
        ],
        &[sample::case("leaks", vec![leaked()]), sample::case("moved", vec![ztunnel])],
    )
}

#[test]
fn a_diff_reads_like_this() {
    insta::assert_snapshot!(sampled().text(100, false));
}

#[test]
fn a_diff_in_a_pull_request_reads_like_this() {
    insta::assert_snapshot!(sampled().markdown());
}

#[test]
fn what_came_from_a_cluster_is_no_markup() {
    let seen = "<img src=x onerror=alert(1)> | [x](http://x) `a`\nb \u{202e}".to_owned();
    let failure = Failure::FailOpen { seen: seen.clone(), after_ms: 1 };
    let after = CellReport { seen, ..sample::denied(Verdict::Fail(failure)) };
    let text = cells(sample::denied(Verdict::Pass), after).markdown();
    assert!(
        !text.contains('<')
            && !text.replace("\\]", "").contains("](")
            && !text.contains('\u{202e}'),
        "{text}"
    );
    let row = text.lines().find(|it| it.contains("onerror")).unwrap();
    let bars = row.replace("\\|", "").matches('|').count();
    assert_eq!(bars, 5, "{row}");
}

#[test]
fn a_very_long_diff_fits_into_a_summary_and_says_what_is_left_out() {
    let many = |cell: &CellReport| {
        let cells =
            (0..5_000).map(|it| CellReport { from: format!("zt-shop/web-{it}"), ..cell.clone() });
        vec![sample::case("it", cells.collect())]
    };
    let text = diff(&many(&sample::denied(Verdict::Pass)), &many(&leaked())).markdown();
    assert!(text.len() < 1 << 20, "{}", text.len());
    assert!(text.contains("more rows are left out here"), "{:?}", text.lines().last());
}

#[test]
fn the_form_for_programs_is_the_schemas() {
    let value: serde_json::Value = serde_json::from_str(&sampled().json()).unwrap();
    assert_eq!(value["schema"], SCHEMA);
    assert_eq!(value["changes"][0]["change"], "newly-allowed");
    assert_eq!(value["changes"][0]["before"]["fate"], "stopped");
    assert_eq!(value["undecided"][0]["case"], "l1-cluster::gone");
}
