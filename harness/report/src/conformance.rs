//! `report.yaml`: what a run on a real cluster conforms to.
//!
//! It is close to the `ConformanceReport` of Gateway API (`conformance/apis/v1/conformancereport.go` there): a profile a suite,
//! and of each how many tests passed, failed and were skipped. It is for being published, so that it is strict: a rehearsal has
//! none, nor has a run that did not come to its end or of which something cannot be read; and what is inconclusive has failed.

use std::fmt::Write;

use thiserror::Error;
use ztc_engine::event::RunStarted;
use ztc_model::suite::CaseId;
use ztc_model::verdict::Verdict;

use crate::account::Account;
use crate::expected;
use crate::rehearsal;

/// The name of the file, in the folder of the run.
pub const FILE: &str = "report.yaml";

/// The version of the document.
const VERSION: &str = "ztc/v1";

/// Why a run has no such report.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotConformance {
    /// It was on the lab.
    #[error("a run on the lab is {}", rehearsal::MEANING)]
    Rehearsal,
    /// Nothing tells which run it is.
    #[error("nothing in its events tells which run it is")]
    NotStarted,
    /// It did not come to its end.
    #[error("the run did not come to its end; run it again")]
    CutShort,
    /// It cannot be read as a whole.
    #[error("not all of its events can be read, and what cannot be may be a failure: {0}")]
    Unread(String),
}

/// The report of a run.
///
/// # Errors
/// [`NotConformance`].
pub fn document(account: &Account) -> Result<String, NotConformance> {
    let run = account.run.as_ref().ok_or(NotConformance::NotStarted)?;
    if rehearsal::is_rehearsal(run) {
        return Err(NotConformance::Rehearsal);
    }
    if let Some(unread) = account.skipped().first() {
        return Err(NotConformance::Unread(unread.clone()));
    }
    if !account.is_finished() || account.is_interrupted() {
        return Err(NotConformance::CutShort);
    }
    let mut text = String::new();
    write_head(&mut text, run);
    text.push_str("profiles:\n");
    let mut suites = account.suites();
    suites.sort_unstable();
    for suite in suites {
        Tests::of(account, suite).write(&mut text, suite);
    }
    let gaps = account.reports.iter().filter(|it| it.verdict == Verdict::Pass);
    let mut gaps: Vec<_> = gaps.filter_map(|it| Some((&it.case, it.gap.as_ref()?))).collect();
    gaps.sort_unstable_by_key(|(case, _)| *case);
    text.push_str(if gaps.is_empty() { "gaps: []\n" } else { "gaps:\n" });
    for (case, gap) in gaps {
        line(&mut text, "- test", case.as_str());
        line(&mut text, "  what", &gap.what);
        let closed_by = gap.closed_by.as_ref().map_or("none", CaseId::as_str);
        line(&mut text, "  closedBy", closed_by);
    }
    write_expected(&mut text, account);
    Ok(text)
}

fn write_head(text: &mut String, run: &RunStarted) {
    line(text, "apiVersion", VERSION);
    line(text, "kind", "ConformanceReport");
    line(text, "date", &run.started);
    line(text, "run", &run.run);
    line(text, "ztc", &run.ztc);
    line(text, "fabric", &run.fabric);
    line(text, "mode", &run.profile);
    text.push_str(if run.versions.is_empty() {
        "implementation: {}\n"
    } else {
        "implementation:\n"
    });
    for (part, version) in &run.versions {
        line(text, &format!("  {}", quoted(part)), version);
    }
}

/// Which of the tests that failed did so as expected: they have failed all the same.
fn write_expected(text: &mut String, account: &Account) {
    let reports = account.reports.iter().filter(|it| expected::is_as_expected(it));
    let mut known: Vec<_> =
        reports.filter_map(|it| Some((&it.case, &it.expected_failure.as_deref()?.entry))).collect();
    if known.is_empty() {
        return;
    }
    known.sort_unstable_by_key(|(case, _)| *case);
    text.push_str("expectedFailures:\n");
    for (case, entry) in known {
        line(text, "- test", case.as_str());
        line(text, "  comesTo", entry.comes_to.word());
        line(text, "  issue", &entry.issue);
        line(text, "  until", &entry.until.to_string());
        line(text, "  because", &entry.because);
    }
}

/// The tests of a suite by what became of them.
#[derive(Default)]
struct Tests<'a> {
    passed: usize,
    failed: Vec<&'a str>,
    /// Of those that failed, where something got through or was in clear that must not.
    failed_open: Vec<&'a str>,
    skipped: Vec<&'a str>,
}

impl<'a> Tests<'a> {
    fn of(account: &'a Account, suite: &str) -> Self {
        let mut tests = Self::default();
        for report in account.reports.iter().filter(|it| it.case.suite() == suite) {
            let name = report.case.name();
            match &report.verdict {
                Verdict::Pass => tests.passed += 1,
                Verdict::Fail(failure) => {
                    tests.failed.push(name);
                    tests.failed_open.extend(failure.is_leak().then_some(name));
                }
                Verdict::Inconclusive(_) => tests.failed.push(name),
            }
        }
        let ignored = account.ignored.iter().map(|(case, _)| case);
        tests.skipped = ignored.filter(|it| it.suite() == suite).map(CaseId::name).collect();
        for names in [&mut tests.failed, &mut tests.failed_open, &mut tests.skipped] {
            names.sort_unstable();
        }
        tests
    }

    /// As Gateway API has it: all passed, all that were run passed, or not.
    const fn result(&self) -> &'static str {
        match (self.failed.is_empty(), self.skipped.is_empty()) {
            (true, true) => "success",
            (true, false) => "partial",
            (false, _) => "failure",
        }
    }

    fn write(&self, text: &mut String, suite: &str) {
        line(text, "- name", suite);
        text.push_str("  core:\n");
        line(text, "    result", self.result());
        let (failed, passed, skipped) = (self.failed.len(), self.passed, self.skipped.len());
        _ = writeln!(
            text,
            "    statistics: {{ Failed: {failed}, Passed: {passed}, Skipped: {skipped} }}"
        );
        for (field, names) in [
            ("failedTests", &self.failed),
            ("failedOpenTests", &self.failed_open),
            ("skippedTests", &self.skipped),
        ] {
            if !names.is_empty() {
                _ = writeln!(text, "    {field}:");
                for name in names {
                    _ = writeln!(text, "    - {}", quoted(name));
                }
            }
        }
    }
}

fn line(text: &mut String, field: &str, value: &str) {
    _ = writeln!(text, "{field}: {}", quoted(value));
}

/// A text as a scalar of YAML: a string of JSON is one, where it has nothing that YAML does not print (YAML 1.2, §5.1).
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut quoted = String::with_capacity(json.len());
    for it in json.chars() {
        match it {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                _ = write!(quoted, "\\u{:04x}", u32::from(it));
            }
            it => quoted.push(it),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ztc_engine::event::{CaseReport, EventKind};
    use ztc_model::suite::Gap;
    use ztc_model::yaml::{self, Source};

    use super::*;
    use crate::sample;

    fn document_of(fabric: &str, reports: &[CaseReport]) -> Result<String, NotConformance> {
        document(&Account::of(&sample::events(fabric, reports)))
    }

    fn named(suite: &str, name: &str, report: CaseReport) -> CaseReport {
        CaseReport { case: CaseId::new(suite, name), ..report }
    }

    #[test]
    fn a_suite_is_a_profile_and_what_is_inconclusive_has_failed() {
        let closed_by = Some(CaseId::new("l1-cluster", "narrowed-names-are-no-way-out"));
        let gap = Some(Gap { what: "Names are a way out.".to_owned(), closed_by });
        let reports = [
            named("l1-cluster", "metadata-is-denied", sample::fail_open()),
            named("l1-cluster", "dns-is-allowed", sample::pass()),
            named("l1-cluster", "nothing-is-known", sample::no_proof()),
            CaseReport { gap, ..named("l6-fqdn", "every-name-is-a-way-out", sample::pass()) },
        ];
        insta::assert_snapshot!(document_of("kind", &reports).unwrap());
    }

    #[test]
    fn what_failed_as_expected_has_failed() {
        let known = |name, report| {
            named("l1-cluster", name, sample::known("fail-open", "2026-12-31", report))
        };
        let reports = [known("known", sample::fail_open()), known("gone", sample::pass())];
        insta::assert_snapshot!(document_of("kind", &reports).unwrap());
    }

    #[test]
    fn a_rehearsal_and_what_is_not_whole_have_none() {
        let reports = [sample::pass()];
        assert_eq!(document_of("lab", &reports), Err(NotConformance::Rehearsal));
        assert_eq!(document(&Account::new()), Err(NotConformance::NotStarted));
        let mut events = sample::events("kind", &reports);
        let mut account = Account::of(&events);
        account.note_unread("line 3 is no event".to_owned());
        assert!(matches!(document(&account), Err(NotConformance::Unread(_))));
        events.insert(1, sample::at(1, EventKind::Interrupted));
        assert_eq!(document(&Account::of(&events)), Err(NotConformance::CutShort));
        events.pop();
        assert_eq!(document(&Account::of(&events)), Err(NotConformance::CutShort));
    }

    proptest! {
        /// Whatever names are, the document is YAML, with all of them in it as they are.
        #[test]
        fn every_name_comes_out_as_it_went_in(suite in "[^:]{1,8}", name in any::<String>()) {
            let text = document_of("kind", &[named(&suite, &name, sample::fail_closed())]).unwrap();
            let read = yaml::values(&Source::new(FILE, text)).map_err(|it| it.to_string());
            let read = read.map_err(TestCaseError::fail)?;
            prop_assert_eq!(read.len(), 1);
            let profile = &read[0]["profiles"][0];
            prop_assert_eq!(profile["name"].as_str(), Some(suite.as_str()));
            prop_assert_eq!(profile["core"]["failedTests"][0].as_str(), Some(name.as_str()));
            prop_assert_eq!(profile["core"]["statistics"]["Failed"].as_u64(), Some(1));
        }
    }
}
