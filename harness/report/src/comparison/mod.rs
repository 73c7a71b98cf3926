//! Two runs of the same cases, held against each other cell by cell.
//!
//! The lab is worth what it shares with real clusters, so whatever a reader of the results would
//! decide otherwise on the other side is a disagreement, and nobody but a person settles one
//! (`docs/lab-and-reality.md`). A cell is the same on both sides when it has the same case, source
//! and stimulus; among equal ones the position counts.
//!
//! Two cells disagree when they differ in
//! - the word of the verdict;
//! - who stopped the flow and how: the enforcement point, the kind of denial with its direction, and
//!   the policies that are named. This is asked of allowed cells, too: what was stopped on the way
//!   of a flow that passed was enforced as well. A record without a name adds nothing to one of the
//!   same kind that has a name: one drop is often told twice, and only one of the records names the
//!   policy. No record at all against one is a difference: only one side can say who it was. Drops
//!   for reasons that are no policy, and allowances, are not held against each other;
//! - what the client saw, in kind: another peer or server, another HTTP status, another DNS code,
//!   an answer instead of silence, and which of its questions met the silence: it tells how far the
//!   flow came.
//!
//! They do not disagree for what says where and when, not what: names of nodes, addresses, ports,
//! the raw form of a record, names that were asked for along a search path, whether silence ran
//! into the deadline or was not waited for to the end, whether an accepted connection ended in a
//! reset or in order (at random, behind a ztunnel), the operating system's words, and all times.
//!
//! No proof is no agreement: a cell that is inconclusive on either side, that only one side ran, or
//! of which the sides expect different things, is listed as not compared.

mod difference;
mod side;
mod text;

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use ztc_engine::event::{CaseReport, CellReport, ExitStatus, Summary};
use ztc_model::suite::CaseId;
use ztc_model::verdict::Verdict;

use crate::failure::sent;
use crate::file::{self, FileError};

pub(crate) use difference::Denials;
use difference::Difference;
pub(crate) use side::cases;
pub use side::{NoRun, Side};

/// The name of the file, in the folders of both runs.
pub const FILE: &str = "comparison.txt";

/// What came of holding two runs against each other.
#[derive(Debug)]
pub struct Comparison {
    sides: [Side; 2],
    labels: [String; 2],
    agreeing: usize,
    /// Leaks first, then by how bad the worse of the two cells is.
    disagreements: Vec<Disagreement>,
    /// Leaks first.
    not_compared: Vec<NotCompared>,
    times: Vec<Times>,
}

/// A cell that came out otherwise on the other side.
#[derive(Debug)]
struct Disagreement {
    /// Of the case as the first side tells it.
    case: CaseId,
    because: String,
    place: String,
    cells: [CellReport; 2],
    differences: Vec<Difference>,
}

/// A cell, or a whole case, of which nothing is claimed.
#[derive(Debug)]
struct NotCompared {
    case: CaseId,
    /// What was sent; absent when it is the whole case.
    sent: Option<String>,
    /// How many cells it stands for.
    cells: usize,
    leaks: bool,
    /// What each side has instead of an answer, or its answer.
    said: [String; 2],
}

/// The times of a case on both sides: its slowest cells.
#[derive(Debug)]
struct Times {
    case: CaseId,
    settled_ms: [Option<u64>; 2],
    enforced_ms: [Option<u64>; 2],
    recorded_us: [Option<u64>; 2],
}

impl Comparison {
    /// Holds two runs against each other.
    pub fn of(sides: [Side; 2]) -> Self {
        let mut comparison = Self {
            labels: side::labels(&sides),
            sides,
            agreeing: 0,
            disagreements: Vec::new(),
            not_compared: Vec::new(),
            times: Vec::new(),
        };
        for case in cases(comparison.sides.each_ref()) {
            comparison.add_case(&case);
        }
        let worst = |it: &Disagreement| it.cells.iter().map(|cell| cell.verdict.severity()).max();
        comparison.disagreements.sort_by_key(|it| Reverse(worst(it)));
        comparison.not_compared.sort_by_key(|it| Reverse(it.leaks));
        comparison
    }

    /// How many cells have an answer on both sides.
    pub const fn compared(&self) -> usize {
        self.agreeing + self.disagreements.len()
    }

    /// What the process should exit with: a leak on either side outranks a disagreement or a broken
    /// assertion, that outranks a doubt or that nothing was compared.
    pub fn exit_status(&self) -> ExitStatus {
        let mut both = Summary { failed: self.disagreements.len(), ..Summary::default() };
        both.inconclusive = usize::from(self.compared() == 0);
        for Side { summary, .. } in &self.sides {
            both.failed_open += summary.failed_open;
            both.failed += summary.failed + summary.passed_unexpectedly;
            both.inconclusive += summary.inconclusive;
            both.not_run += summary.not_run;
            both.interrupted |= summary.interrupted;
        }
        both.exit_status()
    }

    fn add_case(&mut self, case: &CaseId) {
        let found = self.sides.each_ref().map(|side| side.report(case).cloned());
        let [Some(one), Some(other)] = found else {
            let said = self.sides.each_ref().map(|side| side.word_on(case));
            let cells = found.iter().flatten().map(|it| it.cells.len()).sum();
            let leaks = found.iter().flatten().any(|it| is_leak(&it.verdict));
            let case = case.clone();
            self.not_compared.push(NotCompared { case, sent: None, cells, leaks, said });
            return;
        };
        if one.cells.is_empty() && other.cells.is_empty() {
            let said = [&one, &other].map(|it| it.verdict.to_string());
            let (case, leaks) = (case.clone(), false);
            self.not_compared.push(NotCompared { case, sent: None, cells: 0, leaks, said });
            return;
        }
        let compared = self.compared();
        for cells in pairs(&one.cells, &other.cells) {
            self.add_cells(&one, cells);
        }
        if self.compared() > compared {
            self.times.push(Times::of([&one, &other]));
        }
    }

    fn add_cells(&mut self, report: &CaseReport, cells: [Option<&CellReport>; 2]) {
        let said = match cells {
            [Some(one), Some(other)] if one.expected != other.expected => {
                [one, other].map(|it| format!("{}; expects: {}", it.verdict.word(), it.expected))
            }
            [Some(one), Some(other)] if !is_doubt(one) && !is_doubt(other) => {
                let differences = difference::between([one, other]);
                if differences.is_empty() {
                    self.agreeing += 1;
                } else {
                    self.disagreements.push(Disagreement {
                        case: report.case.clone(),
                        because: report.because.clone(),
                        place: report.place.clone(),
                        cells: [one.clone(), other.clone()],
                        differences,
                    });
                }
                return;
            }
            _ => cells.map(|cell| {
                cell.map_or("the case has no such cell".to_owned(), |it| it.verdict.to_string())
            }),
        };
        self.not_compared.push(NotCompared {
            case: report.case.clone(),
            sent: cells.iter().flatten().next().map(|it| sent(it)),
            cells: 1,
            leaks: cells.iter().flatten().any(|it| is_leak(&it.verdict)),
            said,
        });
    }
}

/// Puts the text of a comparison into the folder of a run, and says where.
///
/// # Errors
/// [`FileError`]: the file cannot be written.
pub fn write(folder: &Path, text: &str) -> Result<PathBuf, FileError> {
    let path = folder.join(FILE);
    file::replace(&path, format!("{text}\n").as_bytes())?;
    Ok(path)
}

impl Times {
    fn of(reports: [&CaseReport; 2]) -> Self {
        let slowest = |time: fn(&CellReport) -> Option<u64>| {
            // What leaks is not enforced: its time is that of the last leak.
            let held = |cell: &&CellReport| !is_leak(&cell.verdict);
            reports.map(|it| it.cells.iter().filter(held).filter_map(time).max())
        };
        Self {
            case: reports[0].case.clone(),
            settled_ms: reports.map(|it| it.settled_ms),
            enforced_ms: slowest(|cell| cell.time_to_enforce_ms),
            recorded_us: slowest(|cell| cell.settle_median_us),
        }
    }
}

/// The cells of two reports of a case, in the order of the first one; what only the second has
/// follows.
pub(crate) fn pairs<'a>(
    ones: &'a [CellReport],
    others: &'a [CellReport],
) -> Vec<[Option<&'a CellReport>; 2]> {
    let is_same =
        |one: &CellReport, other: &CellReport| (&one.from, &one.send) == (&other.from, &other.send);
    let mut left: Vec<&CellReport> = others.iter().collect();
    let mut pairs: Vec<_> = ones
        .iter()
        .map(|one| {
            let at = left.iter().position(|other| is_same(one, other));
            [Some(one), at.map(|at| left.remove(at))]
        })
        .collect();
    pairs.extend(left.into_iter().map(|other| [None, Some(other)]));
    pairs
}

const fn is_doubt(cell: &CellReport) -> bool {
    matches!(cell.verdict, Verdict::Inconclusive(_))
}

const fn is_leak(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Fail(failure) if failure.is_leak())
}

#[cfg(test)]
mod tests;
