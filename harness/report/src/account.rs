//! What a run came to, put together once for the reports that people look at.
//!
//! It is built event by event, so that a run that was cut short has its account too: every case
//! that was promised is in it, with how far it got.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use ztc_engine::event::{
    CaseReport, ChangeReport, Event, EventKind, ExitStatus, Phase, PolicyText, RunStarted, Summary,
};
use ztc_engine::expected::Standing;
use ztc_model::suite::CaseId;
use ztc_model::verdict::{Failure, Verdict};

use crate::expected;

/// Everything that is told of a run.
#[derive(Debug, Clone, Default)]
pub struct Account {
    pub(crate) run: Option<RunStarted>,
    /// In the order in which they ended.
    pub(crate) reports: Vec<CaseReport>,
    /// What was watched while something changed; what it came to is in the verdicts of the cases.
    pub(crate) changes: Vec<ChangeReport>,
    /// What cases apply.
    pub(crate) policies: Vec<PolicyText>,
    /// The cases that the fabric cannot run, and why.
    pub(crate) ignored: Vec<(CaseId, String)>,
    /// What went wrong and decides no case.
    pub(crate) warnings: Vec<String>,
    /// What of the stored events could not be read, in words.
    pub(crate) unread: Vec<String>,
    running: HashMap<CaseId, Option<Phase>>,
    interrupted: bool,
    summary: Option<Summary>,
    at_us: u64,
}

/// A case without a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub(crate) case: CaseId,
    /// How far it got, in words.
    pub(crate) reached: String,
}

/// How a verdict is shown wherever there is a sign for it: never by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Mark {
    FailOpen,
    FailClosed,
    WrongLayer,
    WrongPolicy,
    WrongCondition,
    UnexpectedPass,
    Inconclusive,
    Unfinished,
    ExpectedFailure,
    Pass,
    Ignored,
}

/// Every mark, worst first.
pub(crate) const MARKS: [Mark; 11] = [
    Mark::FailOpen,
    Mark::FailClosed,
    Mark::WrongLayer,
    Mark::WrongPolicy,
    Mark::WrongCondition,
    Mark::UnexpectedPass,
    Mark::Inconclusive,
    Mark::Unfinished,
    Mark::ExpectedFailure,
    Mark::Pass,
    Mark::Ignored,
];

/// What is counted together in a line about a suite, with the heading of the count.
pub(crate) const COUNTED: [(&str, &[Mark]); 7] = [
    ("fail-open", &[Mark::FailOpen]),
    (
        "failed",
        &[
            Mark::FailClosed,
            Mark::WrongLayer,
            Mark::WrongPolicy,
            Mark::WrongCondition,
            Mark::UnexpectedPass,
        ],
    ),
    ("inconclusive", &[Mark::Inconclusive]),
    ("not finished", &[Mark::Unfinished]),
    (expected::AS_EXPECTED, &[Mark::ExpectedFailure]),
    ("pass", &[Mark::Pass]),
    ("ignored", &[Mark::Ignored]),
];

/// The counts of a run, the worst first: how many cases, the words for it, and its sign's mark.
pub(crate) const fn counts(summary: &Summary) -> [(usize, &'static str, Mark); 8] {
    [
        (summary.failed_open, "failed open", Mark::FailOpen),
        (summary.failed, "failed", Mark::FailClosed),
        (summary.passed_unexpectedly, expected::UNEXPECTED, Mark::UnexpectedPass),
        (summary.inconclusive, "inconclusive", Mark::Inconclusive),
        (summary.not_run, "not run", Mark::Unfinished),
        (summary.failed_as_expected, expected::AS_EXPECTED, Mark::ExpectedFailure),
        (summary.passed, "passed", Mark::Pass),
        (summary.ignored, "ignored", Mark::Ignored),
    ]
}

impl Mark {
    /// That of a verdict.
    pub(crate) fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail(Failure::FailOpen { .. } | Failure::InClear { .. }) => Self::FailOpen,
            Verdict::Fail(Failure::FailClosed { .. }) => Self::FailClosed,
            Verdict::Fail(Failure::WrongLayer { .. }) => Self::WrongLayer,
            Verdict::Fail(Failure::WrongPolicy { .. }) => Self::WrongPolicy,
            Verdict::Fail(Failure::WrongCondition { .. }) => Self::WrongCondition,
            Verdict::Inconclusive(_) => Self::Inconclusive,
        }
    }

    /// That of a case: of its verdict, unless a failure is known of it and that changes what it counts as.
    pub(crate) fn of_case(report: &CaseReport) -> Self {
        match report.standing() {
            Some(Standing::AsExpected) => Self::ExpectedFailure,
            Some(Standing::UnexpectedPass) => Self::UnexpectedPass,
            Some(Standing::Otherwise | Standing::Expired) | None => Self::of(&report.verdict),
        }
    }

    /// That under which a case is told of: what failed as expected is told of by its verdict, as it is no less of one.
    pub(crate) fn told_of(report: &CaseReport) -> Self {
        match Self::of_case(report) {
            Self::ExpectedFailure => Self::of(&report.verdict),
            mark => mark,
        }
    }

    /// Its word, the verdict's own where there is one.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::FailOpen => "fail-open",
            Self::FailClosed => "fail-closed",
            Self::WrongLayer => "wrong-layer",
            Self::WrongPolicy => "wrong-policy",
            Self::WrongCondition => "wrong-condition",
            Self::UnexpectedPass => "unexpected-pass",
            Self::Inconclusive => "inconclusive",
            Self::Unfinished => "not finished",
            Self::ExpectedFailure => "expected-failure",
            Self::Pass => "pass",
            Self::Ignored => "ignored",
        }
    }

    /// Its sign, different for every one that has to be told apart without colour.
    pub(crate) const fn sign(self) -> &'static str {
        match self {
            Self::FailOpen => "✗",
            Self::FailClosed => "⊘",
            Self::WrongLayer | Self::WrongPolicy | Self::WrongCondition => "≠",
            Self::UnexpectedPass => "!",
            Self::Inconclusive => "?",
            Self::Unfinished => "…",
            Self::ExpectedFailure => "⚑",
            Self::Pass => "✓",
            Self::Ignored => "–",
        }
    }

    /// What it means, for a legend.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::FailOpen => "a flow that must be denied got through",
            Self::FailClosed => "a flow that must pass did not",
            Self::WrongLayer => "denied, but by somebody else",
            Self::WrongPolicy => "denied, but another policy is named",
            Self::WrongCondition => "a controller says something else of a policy",
            Self::UnexpectedPass => "as expected, where a failure is known: the entry has to go",
            Self::Inconclusive => "no proof either way, which is never a pass",
            Self::Unfinished => "the run ended before the case did",
            Self::ExpectedFailure => "it failed, and that failure is known; no pass either",
            Self::Pass => "as expected, with proof",
            Self::Ignored => "the fabric lacks what the case needs",
        }
    }
}

impl Account {
    /// A run that nothing is known of.
    pub fn new() -> Self {
        Self::default()
    }

    /// The account of these events.
    pub fn of(events: &[Event]) -> Self {
        let mut account = Self::new();
        for event in events {
            account.event(event);
        }
        account
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &Event) {
        self.at_us = self.at_us.max(event.at_us);
        match &event.kind {
            EventKind::RunStarted(run) => self.run = Some(run.clone()),
            EventKind::CaseStarted { case, .. } => {
                self.running.insert(case.clone(), None);
            }
            EventKind::CasePhase { case, phase } => {
                self.running.insert(case.clone(), Some(*phase));
            }
            EventKind::CaseIgnored { case, reason } => {
                self.ignored.push((case.clone(), reason.clone()));
            }
            EventKind::CaseFinished(report) => self.reports.push((**report).clone()),
            EventKind::Warning { message } => self.warnings.push(message.clone()),
            EventKind::Interrupted => self.interrupted = true,
            EventKind::RunFinished(summary) => self.summary = Some(summary.clone()),
            EventKind::ChangeWatched(report) => self.changes.push((**report).clone()),
            EventKind::PolicyRead(policy) => self.policies.push(policy.clone()),
            EventKind::LaneUp { .. } => {}
        }
    }

    /// Notes that something of the stored events could not be read, in words for people.
    pub fn note_unread(&mut self, what: String) {
        self.unread.push(what);
    }

    /// What of the stored events could not be read, in words for people.
    pub fn skipped(&self) -> &[String] {
        &self.unread
    }

    /// Whether anything tells which run this is.
    pub const fn is_of_a_run(&self) -> bool {
        self.run.is_some()
    }

    /// Whether the run came to its end.
    pub(crate) const fn is_finished(&self) -> bool {
        self.summary.is_some()
    }

    /// Whether somebody asked the run to stop.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted || self.summary.as_ref().is_some_and(|it| it.interrupted)
    }

    /// What it came to; of a run that did not finish, what it came to until then.
    pub(crate) fn summary(&self) -> Summary {
        if let Some(summary) = &self.summary {
            return summary.clone();
        }
        let mut summary = Summary {
            ignored: self.ignored.len(),
            not_run: self.unfinished().len(),
            interrupted: true,
            took_ms: self.at_us / 1_000,
            ..Summary::default()
        };
        for report in &self.reports {
            summary.count(report);
        }
        summary
    }

    /// What the run came to in a word, with its sign's mark.
    pub(crate) fn verdict(&self) -> (Mark, &'static str) {
        let summary = self.summary();
        match summary.exit_status() {
            ExitStatus::FailOpen => (Mark::FailOpen, "fail-open"),
            ExitStatus::Failed => (Mark::FailClosed, "failed"),
            // What cannot be read may have been a failure.
            ExitStatus::Pass if !self.unread.is_empty() => (Mark::Inconclusive, "inconclusive"),
            // No news is no pass.
            ExitStatus::Pass if summary.failed_as_expected > 0 => {
                (Mark::ExpectedFailure, expected::AS_EXPECTED)
            }
            ExitStatus::Pass => (Mark::Pass, "pass"),
            ExitStatus::Inconclusive | ExitStatus::Usage => (Mark::Inconclusive, "inconclusive"),
        }
    }

    /// The reports, the worst first, otherwise in the order in which they ended.
    pub(crate) fn worst_first(&self) -> Vec<&CaseReport> {
        let mut reports: Vec<_> = self.reports.iter().collect();
        reports.sort_by_key(|it| Reverse(expected::rank(it)));
        reports
    }

    /// The cases that were promised and have no report.
    pub(crate) fn unfinished(&self) -> Vec<Unfinished> {
        let over: HashSet<&CaseId> = self
            .reports
            .iter()
            .map(|it| &it.case)
            .chain(self.ignored.iter().map(|(case, _)| case))
            .collect();
        let promised = self.run.iter().flat_map(|run| &run.cases);
        promised
            .filter(|case| !over.contains(case))
            .map(|case| Unfinished { case: case.clone(), reached: self.reached(case) })
            .collect()
    }

    fn reached(&self, case: &CaseId) -> String {
        match self.running.get(case) {
            Some(Some(phase)) => format!("the run ended while it was at: {phase}"),
            Some(None) => "the run ended when it had just begun".to_owned(),
            None if self.is_interrupted() => "not run: the run was interrupted".to_owned(),
            None => "the run ended before it began".to_owned(),
        }
    }

    /// The names of the suites: those with the worst cases first, otherwise in the order of the run.
    pub(crate) fn suites(&self) -> Vec<&str> {
        let mut worst: HashMap<&str, u8> = HashMap::new();
        for report in &self.reports {
            let worst = worst.entry(report.case.suite()).or_default();
            *worst = expected::rank(report).max(*worst);
        }
        let unfinished = self.unfinished();
        for it in &unfinished {
            let worst = worst.entry(it.case.suite()).or_default();
            // There is no proof of it either.
            *worst = expected::UNPROVEN.max(*worst);
        }
        let promised = self.run.iter().flat_map(|run| &run.cases);
        let reported = self.reports.iter().map(|it| &it.case);
        let ignored = self.ignored.iter().map(|(case, _)| case);
        let mut known = HashSet::new();
        let mut suites: Vec<&str> = promised
            .chain(reported)
            .chain(ignored)
            .map(CaseId::suite)
            .filter(|suite| known.insert(*suite))
            .collect();
        suites.sort_by_key(|suite| Reverse(worst.get(suite).copied().unwrap_or_default()));
        suites
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_worst_comes_first() {
        let reports =
            [sample::pass(), sample::no_proof(), sample::fail_open(), sample::fail_closed()];
        let account = Account::of(&sample::events("lab", &reports));
        let words: Vec<_> = account.worst_first().iter().map(|it| it.verdict.word()).collect();
        assert_eq!(words, ["fail-open", "fail-closed", "inconclusive", "pass"]);
        assert_eq!(account.verdict(), (Mark::FailOpen, "fail-open"));
    }

    #[test]
    fn a_run_that_was_cut_short_is_no_pass_and_says_how_far_it_came() {
        let cases = ["done", "running", "waiting"].map(|name| CaseId::new("s", name));
        let [done, running, waiting] = cases.clone();
        let report = CaseReport { case: done, ..sample::pass() };
        let account = Account::of(&[
            sample::started(cases.into()),
            sample::at(1, EventKind::CaseFinished(Box::new(report))),
            sample::at(2, EventKind::CaseStarted { case: running.clone(), lane: 0 }),
            sample::at(3, EventKind::CasePhase { case: running.clone(), phase: Phase::Settle }),
        ]);
        let told = account.unfinished();
        assert_eq!(told[0].case, running);
        assert_eq!(told[0].reached, "the run ended while it was at: settle");
        assert_eq!(told[1].case, waiting);
        assert_eq!(account.verdict(), (Mark::Inconclusive, "inconclusive"));
    }

    #[test]
    fn what_could_not_be_read_is_no_pass() {
        let mut account = Account::of(&sample::events("kind", &[sample::pass()]));
        assert_eq!(account.verdict().0, Mark::Pass);
        account.note_unread("line 3 is no event".to_owned());
        assert_eq!(account.verdict().0, Mark::Inconclusive);
    }

    #[test]
    fn every_verdict_has_the_mark_of_its_word() {
        let reports = [sample::fail_open(), sample::fail_closed(), sample::wrong_layer()];
        for report in
            reports.iter().chain(&[sample::wrong_policy(), sample::no_proof(), sample::pass()])
        {
            assert_eq!(Mark::of(&report.verdict).word(), report.verdict.word());
        }
    }
}
