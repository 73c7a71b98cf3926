//! `suites/expected-failures.yaml` on the lab: what is known is told and is no news, and nothing else is covered by it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test may panic, wherever its code stands")]
#![expect(dead_code, reason = "the support is shared with tests that use the rest of it")]

mod support;

use std::fs;
use std::process::Output;

use support::{Project, code, lab_is_possible, stderr};
use ztc_engine::event::{EventKind, Summary};
use ztc_engine::expected::Standing;

/// A small case that leaks where the lab ignores deny rules.
const SUITE: &str = "l1-ipv6-metadata";
const CASE: &str = "a-deny-rule-for-an-ipv4-address-leaves-the-ipv6-address-open";
const FAULT: &str = "ignore-egress-deny";
const ISSUE: &str = "https://github.com/cilium/cilium/issues/40404";

/// A project in which a failure of the case is known.
fn project(comes_to: &str, until: &str) -> Project {
    let project = Project::new();
    // A broken lab keeps sending until the ceiling; a busy machine has to keep up with it.
    for (from, to) in [
        ("count: 12", "count: 1"),
        ("streamEveryMs: 5", "streamEveryMs: 20"),
        ("passCeilingMs: 1000", "passCeilingMs: 4000"),
    ] {
        project.edit("clusters/lab.yaml", from, to);
    }
    let entry = format!(
        "expected-failures:\n  - case: {SUITE}::{CASE}\n    comes-to: {comes_to}\n    fabric: lab\n    issue: {ISSUE}\n    \
         until: {until}\n    because: The agent forgets the rule.\n"
    );
    project.edit("suites/expected-failures.yaml", "expected-failures: []\n", &entry);
    project
}

fn run(project: &Project, fault: Option<&str>) -> Output {
    let mut command = project.ztc(&["run", CASE]);
    if let Some(fault) = fault {
        command.env("ZTC_LAB_FAULT", fault);
    }
    command.output().unwrap()
}

/// What was said on standard output, however wide it is.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How the case stands to what is known, and the counts of the last run.
fn standing(project: &Project) -> (Option<Standing>, Summary) {
    let mut reports = project.reports();
    assert_eq!(reports.len(), 1);
    let summary = project.events().into_iter().find_map(|event| match event.kind {
        EventKind::RunFinished(summary) => Some(summary),
        _ => None,
    });
    (reports.remove(0).standing(), summary.unwrap())
}

fn report(project: &Project, name: &str) -> String {
    fs::read_to_string(project.path("target/ztc/latest").join(name)).unwrap()
}

#[test]
fn a_failure_that_is_known_is_told_in_every_report_and_is_no_news() {
    if !lab_is_possible() {
        return;
    }
    let project = project("fail-open", "9999-12-31");
    let output = run(&project, Some(FAULT));
    let said = said(&output);
    assert_eq!(code(&output), 0, "{said}{}", stderr(&output));
    assert!(said.contains("✗ FAIL-OPEN") && said.contains("⚑ EXPECTED"), "{said}");
    assert!(said.contains("0 passed, 1 failed as expected"), "{said}");
    let known = format!("fail-open is known until 9999-12-31: The agent forgets the rule. {ISSUE}");
    assert!(said.contains(&known) && said.contains("suites/expected-failures.yaml:"), "{said}");
    let (stands, summary) = standing(&project);
    assert_eq!(stands, Some(Standing::AsExpected));
    assert_eq!((summary.passed, summary.failed_open, summary.failed_as_expected), (0, 0, 1));
    for (name, words) in [
        ("junit.xml", "<skipped"),
        ("junit.xml", "type=\"fail-open\""),
        ("report.md", "FAILED AS EXPECTED on lab"),
        ("report.md", "fail-open, as expected: l1-ipv6-metadata::"),
        ("report.html", "<b>Failed as expected:</b>"),
    ] {
        let text = report(&project, name);
        assert!(text.contains(words) && text.contains(ISSUE), "{words} is not in {name}: {text}");
    }
    // From the stored events, whatever the day and the file are by then.
    fs::remove_file(project.path("suites/expected-failures.yaml")).unwrap();
    let made = report(&project, "report.md");
    let render = ["report", "render", "latest", "--format", "markdown", "--out", "-"];
    let again = project.ztc(&render).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&again.stdout).trim_end(), made.trim_end());
}

#[test]
fn a_pass_where_a_failure_is_known_fails_until_the_entry_is_gone() {
    if !lab_is_possible() {
        return;
    }
    let project = project("fail-open", "9999-12-31");
    let output = run(&project, None);
    let said = said(&output);
    assert_eq!(code(&output), 1, "{said}{}", stderr(&output));
    assert!(said.contains("! UNEXPECTED-PASS") && said.contains("take the entry out"), "{said}");
    assert!(said.contains("0 passed, 1 passed unexpectedly"), "{said}");
    assert_eq!(standing(&project).0, Some(Standing::UnexpectedPass));
    assert!(report(&project, "junit.xml").contains("type=\"unexpected-pass\""));
}

#[test]
fn a_leak_is_not_covered_by_another_word_nor_by_an_entry_that_has_expired() {
    if !lab_is_possible() {
        return;
    }
    for (comes_to, until, stands) in [
        ("fail-closed", "9999-12-31", Standing::Otherwise),
        ("fail-open", "2026-01-31", Standing::Expired),
    ] {
        let project = project(comes_to, until);
        let output = run(&project, Some(FAULT));
        let said = said(&output);
        assert_eq!(code(&output), 4, "{said}{}", stderr(&output));
        assert!(said.contains("does not count"), "{said}");
        assert_eq!(standing(&project).0, Some(stands));
    }
}

#[test]
fn an_entry_that_has_expired_is_told_of_a_case_that_passes() {
    if !lab_is_possible() {
        return;
    }
    let project = project("fail-open", "2026-01-31");
    let output = run(&project, None);
    let said = said(&output);
    assert_eq!(code(&output), 0, "{said}{}", stderr(&output));
    assert!(said.contains("⚑ EXPIRED") && said.contains("expired on 2026-01-31"), "{said}");
    assert!(said.contains("1 passed;"), "{said}");
}

#[test]
fn a_list_says_what_is_known_and_a_wrong_entry_starts_nothing() {
    let project = project("fail-open", "9999-12-31");
    let listed = project.ztc(&["list", CASE]).output().unwrap();
    let line = format!("lab::{SUITE}::{CASE} (fail-open is expected until 9999-12-31: {ISSUE})\n");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), line);
    let kind = project.ztc(&["list", CASE, "--cluster", "kind"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&kind.stdout).contains("expected"), "it is about the lab");
    project.edit("suites/expected-failures.yaml", "comes-to: fail-open", "comes-to: inconclusive");
    for arguments in [&["list"][..], &["run", CASE]] {
        let output = project.ztc(arguments).output().unwrap();
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{said}");
        assert!(said.contains("suites/expected-failures.yaml:6:") && said.contains('^'), "{said}");
        assert!(said.contains("that there is no proof is never expected"), "{said}");
        assert!(!project.path("target").exists(), "something was started");
    }
}
