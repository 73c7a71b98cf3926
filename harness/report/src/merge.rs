//! Runs that are parts of one, put together again: as if their cases had run beside each other.
//!
//! Parts of different questions make no run: they have to be of one profile, of the same versions and with the same faults, and
//! no case may be in two of them.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use ztc_engine::event::{Event, EventKind, RunStarted, SCHEMA, Summary};
use ztc_model::suite::CaseId;

/// Why runs are no parts of one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotParts {
    /// There is nothing to put together.
    #[error("one run is no parts; give two or more")]
    Few,
    /// Nothing tells which run it is.
    #[error("no run begins in the events of part {number}")]
    NotStarted {
        /// Which of them, from 1.
        number: usize,
    },
    /// Its events may mean something else.
    #[error("the events of {run} are of version {found}, and this ztc reads version {SCHEMA}")]
    OtherSchema {
        /// Whose.
        run: String,
        /// Their version.
        found: u32,
    },
    /// They are about different things.
    #[error("{one} and {other} differ in their {what}: {first} and {second}")]
    Differ {
        /// One run.
        one: String,
        /// The other one.
        other: String,
        /// In what.
        what: &'static str,
        /// What it is of the one.
        first: String,
        /// What it is of the other.
        second: String,
    },
    /// A case would be there twice.
    #[error("{case} is in {one} and in {other}")]
    Twice {
        /// Which.
        case: CaseId,
        /// One run.
        one: String,
        /// The other one.
        other: String,
    },
}

/// The events of a run of that name that has all cases of the parts. It has come to its end if all of them have.
///
/// # Errors
/// [`NotParts`].
pub fn merged(parts: Vec<Vec<Event>>, name: &str) -> Result<Vec<Event>, NotParts> {
    if parts.len() < 2 {
        return Err(NotParts::Few);
    }
    let mut beginnings = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        beginnings.push(beginning(part).ok_or(NotParts::NotStarted { number })?.clone());
    }
    let run = RunStarted { run: name.to_owned(), ..one(&beginnings)? };
    let (mut ignored, mut others, mut ends) = (BTreeMap::new(), Vec::new(), Vec::new());
    for event in parts.into_iter().flatten() {
        match event.kind {
            EventKind::RunStarted(_) => {}
            EventKind::CaseIgnored { case, reason } => {
                ignored.entry(case).or_insert(reason);
            }
            EventKind::RunFinished(summary) => ends.push(summary),
            _ => others.push(event),
        }
    }
    others.sort_by_key(|it| it.at_us);
    let ignored_cases = ignored.len();
    let ignored = ignored.into_iter().map(|(case, reason)| EventKind::CaseIgnored { case, reason });
    let begun = [EventKind::RunStarted(run)].into_iter().chain(ignored);
    let begun = begun.map(|kind| Event { at_us: 0, kind });
    let mut events: Vec<Event> = begun.chain(others).collect();
    if ends.len() == beginnings.len() {
        let at_us = events.last().map_or(0, |it| it.at_us);
        let summary = Summary { ignored: ignored_cases, ..sum(&ends) };
        events.push(Event { at_us, kind: EventKind::RunFinished(summary) });
    }
    Ok(events)
}

fn beginning(part: &[Event]) -> Option<&RunStarted> {
    part.iter().find_map(|it| match &it.kind {
        EventKind::RunStarted(run) => Some(run),
        _ => None,
    })
}

/// What all parts are, together.
fn one(parts: &[RunStarted]) -> Result<RunStarted, NotParts> {
    let [first, others @ ..] = parts else { return Err(NotParts::Few) };
    let mut whole = first.clone();
    let mut owners: BTreeMap<&CaseId, &str> =
        first.cases.iter().map(|case| (case, first.run.as_str())).collect();
    if let Some(part) = parts.iter().find(|it| it.schema != SCHEMA) {
        return Err(NotParts::OtherSchema { run: part.run.clone(), found: part.schema });
    }
    for part in others {
        alike(first, part)?;
        for case in &part.cases {
            if let Some(other) = owners.insert(case, &part.run) {
                let (one, other) = (other.to_owned(), part.run.clone());
                return Err(NotParts::Twice { case: case.clone(), one, other });
            }
        }
        whole.cases.extend(part.cases.iter().cloned());
        whole.questions.extend(part.questions.clone());
        whole.unproven.extend(part.unproven.iter().cloned());
        whole.lanes = whole.lanes.max(part.lanes);
        whole.started = whole.started.min(part.started.clone());
    }
    let mut known = BTreeSet::new();
    whole.unproven.retain(|case| known.insert(case.clone()));
    Ok(whole)
}

fn alike(one: &RunStarted, other: &RunStarted) -> Result<(), NotParts> {
    let versions = |run: &RunStarted| {
        run.versions.iter().map(|(part, it)| format!("{part} {it}")).collect::<Vec<_>>().join(", ")
    };
    let faults = |run: &RunStarted| run.faults.clone().unwrap_or_else(|| "none".to_owned());
    for (what, first, second) in [
        ("profile", one.profile.clone(), other.profile.clone()),
        ("fabric", one.fabric.clone(), other.fabric.clone()),
        ("versions", versions(one), versions(other)),
        ("faults", faults(one), faults(other)),
        ("version of ztc", one.ztc.clone(), other.ztc.clone()),
    ] {
        if first != second {
            let (one, other) = (one.run.clone(), other.run.clone());
            return Err(NotParts::Differ { one, other, what, first, second });
        }
    }
    Ok(())
}

/// The counts of all of them; the time is that of the longest.
fn sum(ends: &[Summary]) -> Summary {
    ends.iter().fold(Summary::default(), |sum, it| Summary {
        passed: sum.passed + it.passed,
        failed: sum.failed + it.failed,
        failed_open: sum.failed_open + it.failed_open,
        inconclusive: sum.inconclusive + it.inconclusive,
        failed_as_expected: sum.failed_as_expected + it.failed_as_expected,
        passed_unexpectedly: sum.passed_unexpectedly + it.passed_unexpectedly,
        ignored: sum.ignored + it.ignored,
        not_run: sum.not_run + it.not_run,
        interrupted: sum.interrupted || it.interrupted,
        took_ms: sum.took_ms.max(it.took_ms),
    })
}

#[cfg(test)]
mod tests {
    use ztc_engine::event::{CaseReport, ExitStatus};

    use super::*;
    use crate::comparison::Side;
    use crate::sample;

    fn part(name: &str, case: &str, report: CaseReport) -> Vec<Event> {
        let report = CaseReport { case: CaseId::new("l1-cluster", case), ..report };
        let mut events = sample::events("kind", &[report]);
        if let EventKind::RunStarted(run) = &mut events[0].kind {
            run.run = name.to_owned();
        }
        events
    }

    fn edited(mut part: Vec<Event>, edit: impl FnOnce(&mut RunStarted)) -> Vec<Event> {
        let EventKind::RunStarted(run) = &mut part[0].kind else { panic!("it begins with that") };
        edit(run);
        part
    }

    #[test]
    fn the_whole_has_the_cases_and_the_leaks_of_all_its_parts() {
        let ignores = |part: &mut Vec<Event>| {
            let case = CaseId::new("l1-ipv6", "ignored-by-both");
            part.insert(1, sample::at(0, EventKind::CaseIgnored { case, reason: "no".to_owned() }));
        };
        let mut parts = [part("a", "one", sample::pass()), part("b", "two", sample::fail_open())];
        parts.iter_mut().for_each(ignores);
        let whole = Side::of(merged(parts.to_vec(), "whole").unwrap()).unwrap();
        assert_eq!(whole.run.run, "whole");
        assert_eq!(whole.run.cases.len(), 2);
        assert_eq!((whole.reports.len(), whole.ignored.len()), (2, 1));
        assert!(whole.finished);
        assert_eq!((whole.summary.passed, whole.summary.failed_open), (1, 1));
        assert_eq!(whole.summary.ignored, 1);
        assert_eq!(whole.summary.exit_status(), ExitStatus::FailOpen);
    }

    #[test]
    fn the_whole_has_the_known_failures_of_its_parts_and_calls_none_a_pass() {
        let known = |report| sample::known("fail-open", "2026-12-31", report);
        let parts =
            [part("a", "one", known(sample::fail_open())), part("b", "two", sample::pass())];
        let whole = Side::of(merged(parts.to_vec(), "whole").unwrap()).unwrap();
        assert_eq!((whole.summary.passed, whole.summary.failed_as_expected), (1, 1));
        assert_eq!(whole.summary.exit_status(), ExitStatus::Pass);
        let gone = part("c", "three", known(sample::pass()));
        let whole = Side::of(merged([parts.to_vec(), vec![gone]].concat(), "whole").unwrap());
        let whole = whole.unwrap().summary;
        assert_eq!((whole.passed, whole.passed_unexpectedly), (1, 1));
        assert_eq!(whole.exit_status(), ExitStatus::Failed);
    }

    #[test]
    fn with_a_part_that_was_cut_short_the_whole_is() {
        let mut second = part("b", "two", sample::pass());
        second.pop();
        let parts = vec![part("a", "one", sample::pass()), second];
        let whole = Side::of(merged(parts, "whole").unwrap()).unwrap();
        assert!(!whole.finished);
        assert_eq!(whole.summary.exit_status(), ExitStatus::Inconclusive);
    }

    #[test]
    fn what_is_no_part_of_the_same_run_is_refused() {
        let first = || part("a", "one", sample::pass());
        let second = || part("b", "two", sample::pass());
        let refused = |parts: Vec<Vec<Event>>| merged(parts, "whole").unwrap_err().to_string();
        assert_eq!(refused(vec![first()]), "one run is no parts; give two or more");
        assert_eq!(refused(vec![first(), Vec::new()]), "no run begins in the events of part 2");
        assert_eq!(
            refused(vec![first(), part("b", "one", sample::pass())]),
            "l1-cluster::one is in a and in b"
        );
        let other = edited(second(), |it| it.profile = "kind-dual".to_owned());
        assert_eq!(
            refused(vec![first(), other]),
            "a and b differ in their profile: kind and kind-dual"
        );
        let other = edited(second(), |it| {
            it.versions.insert("cilium".to_owned(), "1.19.6".to_owned());
        });
        assert_eq!(
            refused(vec![first(), other]),
            "a and b differ in their versions:  and cilium 1.19.6"
        );
        let other = edited(second(), |it| it.faults = Some("capture-blind".to_owned()));
        assert!(refused(vec![first(), other]).contains("faults: none and capture-blind"));
        let newer = edited(second(), |it| it.schema = 2);
        assert!(refused(vec![first(), newer]).contains("of version 2"));
    }
}
