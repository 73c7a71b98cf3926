//! `junit.xml` for CI: a testsuite a suite, a testcase a case.
//!
//! A broken assertion is a `failure`, typed with the word of its verdict. What has no proof is an
//! `error`: CI systems count both as red, and a run without proof must not look green. What failed as
//! expected is `skipped`, with all that is said of a failure: the one outcome that is neither red nor green.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};
use ztc_engine::event::{CaseReport, Event, EventKind, RunStarted};
use ztc_engine::expected::{Entry, Standing};
use ztc_model::suite::CaseId;
use ztc_model::verdict::Verdict;

pub use quick_junit::SerializeError;

use crate::account::Mark;
use crate::expected;
use crate::failure::{failure_line, failure_text};
use crate::page::legible;
use crate::rehearsal;

/// The name of the file, in the folder of the run.
pub const FILE: &str = "junit.xml";

/// The type of an error of a case that did not come to its end.
const INTERRUPTED: &str = "interrupted";

/// Collects a run's events until it is over, however it ends.
#[derive(Debug, Default)]
pub struct JUnit {
    run: Option<RunStarted>,
    /// In the order in which the cases were first heard of.
    cases: Vec<(CaseId, Fate)>,
    interrupted: bool,
    took: Duration,
}

/// How far a case got.
#[derive(Debug)]
enum Fate {
    Waiting,
    Running,
    Over(Box<TestCase>),
}

impl JUnit {
    /// A run that nothing is known of.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &Event) {
        self.took = Duration::from_micros(event.at_us);
        match &event.kind {
            EventKind::RunStarted(run) => {
                for case in &run.cases {
                    self.set(case, Fate::Waiting);
                }
                self.run = Some(run.clone());
            }
            EventKind::CaseStarted { case, .. } => self.set(case, Fate::Running),
            EventKind::CaseIgnored { case, reason } => {
                self.set(case, Fate::Over(Box::new(skipped(case, reason))));
            }
            EventKind::CaseFinished(report) => {
                self.set(&report.case, Fate::Over(Box::new(finished(report))));
            }
            EventKind::Interrupted => self.interrupted = true,
            EventKind::RunFinished(summary) => self.interrupted |= summary.interrupted,
            EventKind::LaneUp { .. }
            | EventKind::CasePhase { .. }
            | EventKind::ChangeWatched(_)
            | EventKind::PolicyRead(_)
            | EventKind::Warning { .. } => {}
        }
    }

    fn set(&mut self, case: &CaseId, fate: Fate) {
        match self.cases.iter_mut().find(|(known, _)| known == case) {
            Some((_, known)) => *known = fate,
            None => self.cases.push((case.clone(), fate)),
        }
    }

    /// The document, of what is known so far. Cases that did not come to their end are errors;
    /// those that did not begin because somebody asked to stop are skipped.
    ///
    /// # Errors
    /// [`SerializeError`], when the document is larger than memory.
    pub fn to_xml(&self) -> Result<String, SerializeError> {
        let mut suites: Vec<TestSuite> = Vec::new();
        for (case, fate) in &self.cases {
            let name = legible(case.suite());
            let at = suites.iter().position(|suite| suite.name == *name).unwrap_or_else(|| {
                suites.push(self.suite(&name));
                suites.len() - 1
            });
            let test = match fate {
                Fate::Over(test) => (**test).clone(),
                Fate::Running => error(case, "the run ended before the case did"),
                Fate::Waiting if self.interrupted => {
                    skipped(case, "not run: the run was interrupted")
                }
                Fate::Waiting => error(case, "the run ended before the case began"),
            };
            let suite = &mut suites[at];
            suite.time = Some(suite.time.unwrap_or_default() + test.time.unwrap_or_default());
            suite.add_test_case(test);
        }
        let mut report = Report::new("ztc");
        report.timestamp = self.run.as_ref().and_then(|run| run.started.parse().ok());
        report.set_time(self.took).add_test_suites(suites);
        report.to_string()
    }

    fn suite(&self, name: &str) -> TestSuite {
        let mut suite = TestSuite::new(name);
        if let Some(run) = &self.run {
            suite.add_properties([
                property("run", &run.run),
                property("ztc", &run.ztc),
                property("profile", &run.profile),
                property("fabric", &run.fabric),
            ]);
            if rehearsal::is_rehearsal(run) {
                suite.add_property(property("rehearsal", "true"));
                if let Some(unproven) = rehearsal::unproven(run) {
                    suite.add_property(property("unproven", &unproven));
                }
            }
            if let Some(faults) = &run.faults {
                suite.add_property(property("faults", faults));
            }
        }
        suite
    }
}

fn finished(report: &CaseReport) -> TestCase {
    let failure = || TestCaseStatus::non_success(NonSuccessKind::Failure);
    let mut status = match (report.standing(), &report.verdict) {
        (Some(Standing::UnexpectedPass), _) => failure(),
        (Some(Standing::AsExpected), _) => TestCaseStatus::skipped(),
        (_, Verdict::Pass) => TestCaseStatus::success(),
        (_, Verdict::Fail(_)) => failure(),
        (_, Verdict::Inconclusive(_)) => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    let line = failure_line(report);
    let line = match expected::words(report) {
        Some(known) if expected::is_as_expected(report) => {
            format!("{}: {line}; {known}", expected::AS_EXPECTED)
        }
        _ => line,
    };
    let word = match report.standing() {
        Some(Standing::UnexpectedPass) => Mark::UnexpectedPass.word(),
        _ => report.verdict.word(),
    };
    status
        .set_type(word)
        .set_message(legible(&line))
        // Paths are relative to the file that holds this text.
        .set_description(failure_text(report, Some("".as_ref())));
    let mut test = test(&report.case, status);
    test.assertions = Some(report.cells.len());
    test.set_time(Duration::from_millis(report.took_ms));
    test.add_property(property("place", &report.place));
    if let Some(gap) = &report.gap {
        test.add_property(property("gap", &gap.what));
        let closed_by = gap.closed_by.as_ref().map_or("none", CaseId::as_str);
        test.add_property(property("gap.closed-by", closed_by));
    }
    if let Some(known) = &report.expected_failure {
        let Entry { comes_to, issue, until, .. } = &known.entry;
        test.add_property(property("expected-failure", comes_to.word()));
        test.add_property(property("expected-failure.issue", issue));
        test.add_property(property("expected-failure.until", &until.to_string()));
    }
    if let Some(residue) = &report.residue {
        test.set_system_err(legible(&format!("cleaning up failed: {residue}")));
    }
    test
}

fn skipped(case: &CaseId, reason: &str) -> TestCase {
    let mut status = TestCaseStatus::skipped();
    status.set_message(legible(reason));
    test(case, status)
}

fn error(case: &CaseId, reason: &str) -> TestCase {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
    status.set_type(INTERRUPTED).set_message(reason);
    test(case, status)
}

fn test(case: &CaseId, status: TestCaseStatus) -> TestCase {
    let mut test = TestCase::new(legible(case.name()), status);
    test.set_classname(legible(case.suite()));
    test
}

fn property(name: &str, value: &str) -> Property {
    Property::new(name, legible(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use ztc_model::suite::Gap;

    use super::*;
    use crate::sample;

    fn xml(events: &[Event]) -> String {
        let mut junit = JUnit::new();
        for event in events {
            junit.event(event);
        }
        junit.to_xml().unwrap()
    }

    #[test]
    fn a_gap_is_a_property_of_its_case() {
        let gap = |closed_by| Some(Gap { what: "It gets through.".to_owned(), closed_by });
        let closing = CaseId::new("l1-cluster", "it-is-closed");
        for (closed_by, value) in [(None, "none"), (Some(closing), "l1-cluster::it-is-closed")] {
            let report = CaseReport { gap: gap(closed_by), ..sample::pass() };
            let xml = xml(&[sample::at(0, EventKind::CaseFinished(Box::new(report)))]);
            assert!(xml.contains(r#"name="gap" value="It gets through.""#), "{xml}");
            assert!(xml.contains(&format!(r#"name="gap.closed-by" value="{value}""#)), "{xml}");
        }
    }

    #[test]
    fn a_run_is_a_document_of_suites_and_cases() {
        insta::assert_snapshot!(xml(&sample::run()), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="ztc" tests="3" skipped="1" failures="1" errors="0" timestamp="2026-11-24T04:10:00.000+00:00" time="2.480">
            <testsuite name="l1-cluster" tests="2" skipped="0" errors="0" failures="1" time="1.846">
                <properties>
                    <property name="run" value="2026-11-24-0410-a1"/>
                    <property name="ztc" value="0.1.0"/>
                    <property name="profile" value="clusters/lab.yaml"/>
                    <property name="fabric" value="lab"/>
                    <property name="rehearsal" value="true"/>
                </properties>
                <testcase name="metadata-is-denied" classname="l1-cluster" assertions="2" time="0.612">
                    <properties>
                        <property name="place" value="suites/l1-cluster/metadata.yaml:14"/>
                    </properties>
                    <failure message="zt-shop/web sent GET http://169.254.169.254:80/: got through: HTTP 200 from outside/metadata, sent 12 ms after the policies were accepted" type="fail-open">zt-shop/web sent GET http://169.254.169.254:80/
        got through: HTTP 200 from outside/metadata, sent 12 ms after the policies were accepted
        should have been denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata); nobody stopped it
          control   HTTP 200 from outside/metadata
          proof     HTTP 200 from outside/metadata
          samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
          record    cilium on lab-1: allowed at egress (TCP 10.0.1.5:41000 -&gt; 169.254.169.254:80 and 1 more)
          record    cilium on lab-1: denied at egress by a deny rule of CiliumClusterwideNetworkPolicy/block-metadata (TCP 10.0.1.5:41002 -&gt; 169.254.169.254:80)

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        settled   2 ms after the policies were accepted
        evidence  evidence/l1-cluster/metadata-is-denied.json</failure>
                </testcase>
                <testcase name="dns-is-allowed-through-the-proxy" classname="l1-cluster" assertions="2" time="1.234">
                    <properties>
                        <property name="place" value="suites/l1-cluster/metadata.yaml:14"/>
                    </properties>
                </testcase>
            </testsuite>
            <testsuite name="l5-waypoint" tests="1" skipped="1" errors="0" failures="0" time="0.000">
                <properties>
                    <property name="run" value="2026-11-24-0410-a1"/>
                    <property name="ztc" value="0.1.0"/>
                    <property name="profile" value="clusters/lab.yaml"/>
                    <property name="fabric" value="lab"/>
                    <property name="rehearsal" value="true"/>
                </properties>
                <testcase name="post-is-denied" classname="l5-waypoint">
                    <skipped message="the fabric lacks: waypoint"/>
                </testcase>
            </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn every_verdict_has_its_type() {
        let reports = [
            (sample::fail_open(), "<failure", "fail-open"),
            (sample::fail_closed(), "<failure", "fail-closed"),
            (sample::wrong_layer(), "<failure", "wrong-layer"),
            (sample::wrong_policy(), "<failure", "wrong-policy"),
            (sample::no_proof(), "<error", "inconclusive"),
            (sample::no_fabric(), "<error", "inconclusive"),
        ];
        for (report, element, word) in reports {
            let xml = xml(&[sample::at(0, EventKind::CaseFinished(Box::new(report)))]);
            let line = xml.lines().find(|line| line.contains(element)).unwrap();
            assert!(line.contains(&format!("type=\"{word}\"")), "{line}");
        }
    }

    #[test]
    fn what_failed_as_expected_is_neither_red_nor_green_and_an_unexpected_pass_is_red() {
        for (report, element, word) in [
            (
                sample::known("fail-open", "2026-12-31", sample::fail_open()),
                "<skipped",
                "fail-open",
            ),
            (
                sample::known("fail-open", "2026-12-31", sample::pass()),
                "<failure",
                "unexpected-pass",
            ),
            (
                sample::known("fail-open", "2026-11-23", sample::fail_open()),
                "<failure",
                "fail-open",
            ),
            (
                sample::known("fail-closed", "2026-12-31", sample::fail_open()),
                "<failure",
                "fail-open",
            ),
            (
                sample::known("fail-open", "2026-12-31", sample::no_proof()),
                "<error",
                "inconclusive",
            ),
        ] {
            let xml = xml(&[sample::at(0, EventKind::CaseFinished(Box::new(report)))]);
            let line = xml.lines().find(|line| line.contains(element)).unwrap();
            assert!(line.contains(&format!("type=\"{word}\"")), "{line}");
            assert!(
                xml.contains("value=\"https://github.com/cilium/cilium/issues/40404\""),
                "{xml}"
            );
        }
        let report = sample::known("fail-open", "2026-12-31", sample::fail_open());
        let xml = xml(&[sample::at(0, EventKind::CaseFinished(Box::new(report)))]);
        assert!(xml.contains("message=\"failed as expected: zt-shop/web sent GET"), "{xml}");
        assert!(xml.contains("should have been denied by cilium"), "{xml}");
    }

    #[test]
    fn an_interrupted_run_still_names_every_case() {
        let cases = ["done", "running", "waiting"].map(|name| CaseId::new("s", name));
        let [done, running, _] = cases.clone();
        let report = CaseReport { case: done, ..sample::pass() };
        let mut events = vec![
            sample::started(cases.into()),
            sample::at(1, EventKind::CaseFinished(Box::new(report))),
            sample::at(2, EventKind::CaseStarted { case: running, lane: 0 }),
        ];
        let counts = |events: &[Event]| {
            let report = Report::deserialize_from_str(&xml(events)).unwrap();
            (report.tests, report.errors, report.skipped)
        };
        assert_eq!(counts(&events), (3, 2, 0), "the run just ended");
        events.push(sample::at(3, EventKind::Interrupted));
        assert_eq!(counts(&events), (3, 1, 1), "somebody asked to stop");
    }

    #[test]
    fn residue_is_told_even_of_a_case_that_passed() {
        let residue = Some("the policy is still there".to_owned());
        let report = CaseReport { residue, ..sample::pass() };
        let xml = xml(&[sample::at(0, EventKind::CaseFinished(Box::new(report)))]);
        assert!(xml.contains("cleaning up failed: the policy is still there"), "{xml}");
    }

    /// XML 1.0, §2.2.
    fn is_xml_character(c: char) -> bool {
        matches!(
            c,
            '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..
        )
    }

    /// Any text, with those characters often that XML, terminals and wrapping care about.
    fn text() -> impl Strategy<Value = String> {
        let treacherous = prop::sample::select(vec![
            '\0', '\n', '\r', '\u{1b}', '[', ']', '\u{9b}', '\u{ffff}', '<', '>', '&', '"', '\'',
        ]);
        let character = prop_oneof![any::<char>(), treacherous];
        prop::collection::vec(character, 0..40).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_document(suite in text(), name in text(), said in text()) {
            let case = CaseId::new(&suite, &name);
            let ignored = CaseId::new(&suite, &format!("{name} ignored"));
            let mut report = CaseReport { case: case.clone(), ..sample::fail_open() };
            report.because.clone_from(&said);
            report.place.clone_from(&said);
            report.residue = Some(said.clone());
            report.cells[1].seen.clone_from(&said);
            let expected = [legible(case.name()), legible(ignored.name())];
            let xml = xml(&[
                sample::started(vec![case.clone()]),
                sample::at(1, EventKind::CaseFinished(Box::new(report))),
                sample::at(2, EventKind::CaseIgnored { case: ignored.clone(), reason: said }),
            ]);
            prop_assert!(xml.chars().all(is_xml_character));
            let read = Report::deserialize_from_str(&xml).unwrap();
            let names: Vec<_> =
                read.test_suites.iter().flat_map(|suite| &suite.test_cases).collect();
            prop_assert_eq!(names.len(), 2);
            for (test, expected) in names.iter().zip(expected) {
                prop_assert_eq!(test.name.as_str(), &*expected);
            }
        }
    }
}
