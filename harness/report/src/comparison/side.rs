//! One of the two runs, put together from its events.

use thiserror::Error;
use ztc_engine::event::{
    CaseReport, ChangeReport, Event, EventKind, ExitStatus, RunStarted, SCHEMA, Summary,
};
use ztc_model::suite::{CaseId, is_about_others};
use ztc_model::window::WindowKind;

/// A run as far as it is compared.
#[derive(Debug, Clone)]
pub struct Side {
    /// What the run is.
    pub run: RunStarted,
    /// The cases that it finished.
    pub reports: Vec<CaseReport>,
    /// The cases that its fabric cannot run, and why.
    pub ignored: Vec<(CaseId, String)>,
    /// The changes that were made while flows were watched.
    pub changes: Vec<ChangeReport>,
    /// What it came to; of a run that did not finish, what it came to until then.
    pub summary: Summary,
    /// Whether it came to its end.
    pub finished: bool,
}

/// Why events are no run that can be compared.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum NoRun {
    /// Nothing tells which run they are of.
    #[error("no run begins in its events")]
    NotStarted,
    /// They may mean something else than what is understood here.
    #[error("its events are of version {found}, and this ztc reads version {SCHEMA}; run it again")]
    OtherSchema {
        /// Their version.
        found: u32,
    },
}

impl Side {
    /// What it came to by its events, however it ended. What was seen of watched flows stands whatever became of their case.
    pub fn exit_status(&self) -> ExitStatus {
        let mut windows = self.changes.iter().flat_map(|it| &it.flows).flat_map(|it| &it.windows);
        let has_leaked = windows.any(|it| it.kind == WindowKind::Leak);
        let leaked = if has_leaked { ExitStatus::FailOpen } else { ExitStatus::Pass };
        self.summary.exit_status().or_worse(leaked)
    }

    /// Puts a run together. It need not have finished.
    ///
    /// # Errors
    /// [`NoRun`].
    pub fn of(events: impl IntoIterator<Item = Event>) -> Result<Self, NoRun> {
        let (mut run, mut summary) = (None, None);
        let (mut reports, mut ignored, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for event in events {
            match event.kind {
                EventKind::RunStarted(started) => run = Some(started),
                EventKind::CaseFinished(report) => reports.push(*report),
                EventKind::CaseIgnored { case, reason } => ignored.push((case, reason)),
                EventKind::ChangeWatched(change) => changes.push(*change),
                EventKind::RunFinished(finished) => summary = Some(finished),
                _ => {}
            }
        }
        let run = run.ok_or(NoRun::NotStarted)?;
        if run.schema != SCHEMA {
            return Err(NoRun::OtherSchema { found: run.schema });
        }
        let finished = summary.is_some();
        let summary = summary.unwrap_or_else(|| {
            let mut summary = Summary { ignored: ignored.len(), ..Summary::default() };
            for report in &reports {
                summary.count(report);
            }
            summary.not_run = run.cases.len().saturating_sub(reports.len());
            // It was, by whoever ended it, and that must count even if every case had its report.
            summary.interrupted = true;
            summary
        });
        Ok(Self { run, reports, ignored, changes, summary, finished })
    }

    pub(crate) fn report(&self, case: &CaseId) -> Option<&CaseReport> {
        self.reports.iter().find(|report| report.case == *case)
    }

    /// Whether the case is among those of this run, whatever became of it.
    pub(crate) fn has(&self, case: &CaseId) -> bool {
        self.run.cases.contains(case) || self.ignores(case)
    }

    /// Whether its fabric cannot run the case.
    pub(crate) fn ignores(&self, case: &CaseId) -> bool {
        self.ignored.iter().any(|(ignored, _)| ignored == case)
    }

    /// Whether the case is about other versions than this run's.
    pub(crate) fn is_of_other_versions(&self, case: &CaseId) -> bool {
        self.ignored.iter().any(|(ignored, reason)| ignored == case && is_about_others(reason))
    }

    /// What this side has to say on a case that is not compared.
    pub(crate) fn word_on(&self, case: &CaseId) -> String {
        if let Some(report) = self.report(case) {
            return report.verdict.to_string();
        }
        if let Some((_, reason)) = self.ignored.iter().find(|(ignored, _)| ignored == case) {
            return format!("ignored: {reason}");
        }
        if self.run.cases.contains(case) {
            return "not run: the run ended before".to_owned();
        }
        "not among the cases of this run".to_owned()
    }
}

/// Every case that either side knows, in the order in which the first side takes them.
pub(crate) fn cases(sides: [&Side; 2]) -> Vec<CaseId> {
    let mut cases: Vec<CaseId> = Vec::new();
    let run = sides.into_iter().flat_map(|side| &side.run.cases);
    let ignored = sides.into_iter().flat_map(|side| &side.ignored).map(|(case, _)| case);
    for case in run.chain(ignored) {
        if !cases.contains(case) {
            cases.push(case.clone());
        }
    }
    cases
}

/// What the sides are called: by profile if that tells them apart, else by run.
pub(super) fn labels(sides: &[Side; 2]) -> [String; 2] {
    let profiles = sides.each_ref().map(|side| side.run.profile.clone());
    let runs = sides.each_ref().map(|side| side.run.run.clone());
    let by_place = ["the first".to_owned(), "the second".to_owned()];
    let tells = |labels: &[String; 2]| labels[0] != labels[1];
    [profiles, runs].into_iter().find(tells).unwrap_or(by_place)
}
