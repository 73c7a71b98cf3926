//! One event, every reporter that writes files. What one of them cannot do is no loss to another.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;
use ztc_engine::event::{Event, EventKind};

use crate::account::Account;
use crate::conformance;
use crate::evidence::EvidenceFolder;
use crate::file::{self, FileError};
use crate::jsonl::JsonLines;
use crate::junit::{JUnit, SerializeError};
use crate::run_dir::RunDir;
use crate::{html, markdown};

/// The reporters that write into the folder of a run.
///
/// Dropped without [`Reporters::finish`], by a panic or an early return, they still leave a
/// `junit.xml`, and pages for people, that name every case. A run that is killed leaves
/// `events.jsonl`, from which they can be made again.
#[derive(Debug)]
pub struct Reporters {
    junit: JUnit,
    junit_path: PathBuf,
    account: Account,
    page_path: PathBuf,
    summary_path: PathBuf,
    conformance_path: PathBuf,
    /// Absent from its first error on: what follows a part of a line would be unreadable.
    events: Option<JsonLines>,
    evidence: EvidenceFolder,
    errors: Vec<ReportError>,
    finished: bool,
}

/// What a reporter could not do.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The stream of events is incomplete.
    #[error("the events are incomplete")]
    Events(#[source] FileError),
    /// The evidence of a case is missing.
    #[error("the evidence of a case is missing")]
    Evidence(#[source] FileError),
    /// `junit.xml` could not be composed.
    #[error("the JUnit report cannot be made")]
    JUnit(#[source] SerializeError),
    /// `junit.xml` is missing.
    #[error("the JUnit report is missing")]
    JUnitFile(#[source] FileError),
    /// `report.html` is missing.
    #[error("the page is missing")]
    Page(#[source] FileError),
    /// `report.md` is missing.
    #[error("the summary is missing")]
    Summary(#[source] FileError),
    /// `report.yaml` is missing.
    #[error("the conformance report is missing")]
    Conformance(#[source] FileError),
}

/// Everything that reporters could not do in a run; never empty.
#[derive(Debug)]
pub struct ReportErrors(Vec<ReportError>);

impl ReportErrors {
    /// The errors, in the order in which they came up.
    pub fn errors(&self) -> &[ReportError] {
        &self.0
    }
}

impl fmt::Display for ReportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the reports are incomplete; errors: {}", self.0.len())
    }
}

impl std::error::Error for ReportErrors {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.first().map(|error| error as _)
    }
}

impl Reporters {
    /// Reporters that write into this folder. What cannot be begun is told by
    /// [`Reporters::finish`].
    pub fn new(folder: &RunDir) -> Self {
        let mut errors = Vec::new();
        let events = JsonLines::create(&folder.events())
            .map_err(|error| errors.push(ReportError::Events(error)))
            .ok();
        Self {
            junit: JUnit::new(),
            junit_path: folder.junit(),
            account: Account::new(),
            page_path: folder.page(),
            summary_path: folder.summary(),
            conformance_path: folder.conformance(),
            events,
            evidence: EvidenceFolder::new(folder.evidence()),
            errors,
            finished: false,
        }
    }

    /// Tells every reporter what happened.
    pub fn event(&mut self, event: &Event) {
        self.junit.event(event);
        self.account.event(event);
        if let Some(lines) = &mut self.events
            && let Err(error) = lines.event(event)
        {
            self.errors.push(ReportError::Events(error));
            self.events = None;
        }
        if let EventKind::CaseFinished(report) = &event.kind
            && let Err(error) = self.evidence.write(report)
        {
            self.errors.push(ReportError::Evidence(error));
        }
    }

    /// Writes what waits for the end.
    ///
    /// # Errors
    /// Everything that went wrong since the beginning.
    pub fn finish(mut self) -> Result<(), ReportErrors> {
        self.finished = true;
        let written =
            [self.write_junit(), self.write_page(), self.write_summary(), self.write_conformance()];
        self.errors.extend(written.into_iter().filter_map(Result::err));
        let errors = std::mem::take(&mut self.errors);
        if errors.is_empty() { Ok(()) } else { Err(ReportErrors(errors)) }
    }

    fn write_junit(&self) -> Result<(), ReportError> {
        let text = self.junit.to_xml().map_err(ReportError::JUnit)?;
        file::replace(&self.junit_path, text.as_bytes()).map_err(ReportError::JUnitFile)
    }

    fn write_page(&self) -> Result<(), ReportError> {
        let text = html::page(&self.account);
        file::replace(&self.page_path, text.as_bytes()).map_err(ReportError::Page)
    }

    fn write_summary(&self) -> Result<(), ReportError> {
        let text = markdown::page(&self.account);
        file::replace(&self.summary_path, text.as_bytes()).map_err(ReportError::Summary)
    }

    /// Of a run that has one: a rehearsal has none.
    fn write_conformance(&self) -> Result<(), ReportError> {
        let Ok(text) = conformance::document(&self.account) else { return Ok(()) };
        file::replace(&self.conformance_path, text.as_bytes()).map_err(ReportError::Conformance)
    }
}

impl Drop for Reporters {
    fn drop(&mut self) {
        if !self.finished {
            // Whatever made the caller leave early is what it will tell.
            self.write_junit().ok();
            self.write_page().ok();
            self.write_summary().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{jsonl, sample};

    fn run_dir(folder: &tempfile::TempDir) -> RunDir {
        RunDir::create(folder.path(), "run").unwrap()
    }

    #[test]
    fn a_run_leaves_all_its_reports() {
        let folder = tempfile::tempdir().unwrap();
        let dir = run_dir(&folder);
        let mut reporters = Reporters::new(&dir);
        let events = sample::run();
        for event in &events {
            reporters.event(event);
        }
        reporters.finish().unwrap();

        let read = jsonl::read(fs::read(dir.events()).unwrap().as_slice()).count();
        assert_eq!(read, events.len());
        assert!(dir.evidence().join("l1-cluster/metadata-is-denied.json").is_file());
        for report in [dir.junit(), dir.page(), dir.summary()] {
            assert!(fs::read_to_string(report).unwrap().contains("metadata-is-denied"));
        }
    }

    #[test]
    fn a_reporter_that_fails_takes_no_other_one_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = run_dir(&folder);
        fs::create_dir(dir.events()).unwrap();
        fs::write(dir.evidence(), "in the way").unwrap();
        fs::create_dir(dir.page()).unwrap();
        let mut reporters = Reporters::new(&dir);
        for event in &sample::run() {
            reporters.event(event);
        }
        let errors = reporters.finish().unwrap_err();

        assert!(matches!(errors.errors().first(), Some(ReportError::Events(_))), "{errors:?}");
        assert!(matches!(errors.errors()[1], ReportError::Evidence(_)), "{errors:?}");
        assert!(matches!(errors.errors().last(), Some(ReportError::Page(_))), "{errors:?}");
        assert!(dir.summary().is_file());
        assert!(fs::read_to_string(dir.junit()).unwrap().ends_with("</testsuites>\n"));
    }

    #[test]
    fn reporters_that_are_dropped_still_name_every_case() {
        let folder = tempfile::tempdir().unwrap();
        let dir = run_dir(&folder);
        let mut reporters = Reporters::new(&dir);
        for event in sample::run().iter().take(2) {
            reporters.event(event);
        }
        drop(reporters);
        let xml = fs::read_to_string(dir.junit()).unwrap();
        assert!(xml.contains("type=\"interrupted\""), "{xml}");
        let page = fs::read_to_string(dir.page()).unwrap();
        assert!(page.contains("The run was cut short"), "{page}");
    }
}
