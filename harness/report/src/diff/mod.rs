//! What changed from one run to another: an upgrade, a new policy, another version of an enforcement point.
//!
//! A comparison asks whether two grounds agree, and a diff what became of each flow since. So it does not matter
//! here what was expected: a flow that passes and was stopped before is newly allowed, whoever likes it. What a cell
//! came to is read off its verdict and its records:
//! - it got through: it passed and was expected to, or leaked;
//! - it was in clear: it got through, and was seen on the wire where it must not be;
//! - it was stopped, by whoever is on record (the same records as in a comparison);
//! - nobody knows: it is inconclusive.
//!
//! A cell is the same in both runs when it has the same case, source and stimulus. One that nobody knows the end of on
//! either side, or that is gone, is undecided: a diff with such cells does not say that nothing changed.

mod markdown;
mod text;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use ztc_engine::event::{CaseReport, CellReport, ExitStatus, RunStarted};
use ztc_model::suite::CaseId;
use ztc_model::verdict::{Failure, Verdict};

use crate::comparison::{Denials, Side, cases, pairs};

/// The version of the form in which a diff is written for programs.
pub const SCHEMA: u32 = 1;

/// A time to enforce is longer when it has more than doubled, and by more than this, milliseconds: below, it is the
/// machine's mood.
const LONGER_MS: u64 = 500;

/// What changed from one run to another.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Diff {
    /// [`SCHEMA`].
    schema: u32,
    before: Run,
    after: Run,
    /// The worst first.
    changes: Vec<Changed>,
    /// Cells of which nothing can be said.
    undecided: Vec<Undecided>,
    /// How many cells came to the same.
    unchanged: usize,
    /// How many cells there were not before.
    new: usize,
    /// How many cells are gone, as their cases are about the versions before.
    outdated: usize,
}

/// A run, by what tells it from others.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Run {
    name: String,
    profile: String,
    fabric: String,
    /// By part.
    versions: BTreeMap<String, String>,
}

/// A cell that came to something else.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Changed {
    change: Change,
    case: CaseId,
    from: String,
    send: String,
    before: End,
    after: End,
    /// Why the case expects what it does.
    because: String,
    /// Where it is written.
    place: String,
}

/// What changed. The order is that of how bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Change {
    /// It got through, and did not before.
    NewlyAllowed,
    /// It was on the wire in clear, and was not before.
    NewlyInClear,
    /// It was stopped, and was not before.
    NewlyDenied,
    /// It was stopped by somebody else, or otherwise.
    DeniedBySomebodyElse,
    /// Its policies took longer until they were enforced.
    SlowerToEnforce,
}

/// What a cell came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct End {
    /// What became of the flow; absent where nobody knows.
    fate: Option<Fate>,
    /// Who stopped it and how, by the records; absent where there are none.
    stopped_by: Option<String>,
    /// The verdict, in words.
    verdict: String,
    /// What was expected.
    expected: String,
    /// What the client saw.
    seen: String,
    /// How long its policies took until they were enforced, milliseconds.
    time_to_enforce_ms: Option<u64>,
}

/// What became of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Fate {
    /// It got through.
    Through,
    /// It got through, and was seen in clear where it must not be.
    InClear,
    /// It did not get through.
    Stopped,
}

/// A cell, or a case, of which nothing can be said.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Undecided {
    case: CaseId,
    /// What was sent by whom; absent when it is the whole case.
    cell: Option<String>,
    before: String,
    after: String,
}

impl Diff {
    /// What changed from the first run to the second.
    pub fn of([before, after]: &[Side; 2]) -> Self {
        Self::between([before, after])
    }

    /// The same of two runs that do not stand together.
    pub(crate) fn between(sides: [&Side; 2]) -> Self {
        let [before, after] = sides.map(|side| Run::of(&side.run));
        let mut diff = Self {
            schema: SCHEMA,
            before,
            after,
            changes: Vec::new(),
            undecided: Vec::new(),
            unchanged: 0,
            new: 0,
            outdated: 0,
        };
        for case in cases(sides) {
            match sides.map(|side| side.report(&case)) {
                [Some(before), Some(after)] => diff.add_case(before, after),
                [None, Some(after)]
                    if !sides[0].has(&case) || sides[0].is_of_other_versions(&case) =>
                {
                    diff.new += after.cells.len();
                }
                [Some(before), None] if sides[1].is_of_other_versions(&case) => {
                    diff.outdated += before.cells.len();
                }
                // Neither ran it, and nobody has lost anything.
                [None, None] if sides.iter().all(|side| side.ignores(&case)) => {}
                _ => {
                    let [before, after] = sides.map(|side| side.word_on(&case));
                    diff.undecided.push(Undecided { case, cell: None, before, after });
                }
            }
        }
        diff.changes.sort_by_key(|it| it.change);
        diff
    }

    /// The whole diff for programs.
    ///
    /// # Panics
    /// Never: it is plain data.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a diff is plain data")
    }

    /// What the process should exit with: what became allowed outranks every other change, that outranks what is undecided
    /// or that there was nothing to hold against each other. A longer time is no failure.
    pub fn exit_status(&self) -> ExitStatus {
        match self.changes.first().map(|it| it.change) {
            Some(Change::NewlyAllowed | Change::NewlyInClear) => ExitStatus::FailOpen,
            Some(Change::NewlyDenied | Change::DeniedBySomebodyElse) => ExitStatus::Failed,
            _ if !self.undecided.is_empty() || self.held_against() == 0 => ExitStatus::Inconclusive,
            Some(Change::SlowerToEnforce) | None => ExitStatus::Pass,
        }
    }

    /// Whether nothing changed, and nothing is undecided.
    pub(crate) fn says_nothing(&self) -> bool {
        self.changes.is_empty() && self.undecided.is_empty()
    }

    /// How many cells came to something in both runs.
    fn held_against(&self) -> usize {
        self.unchanged + self.changes.len()
    }

    fn add_case(&mut self, before: &CaseReport, after: &CaseReport) {
        if before.cells.is_empty() && after.cells.is_empty() {
            let case = after.case.clone();
            let [before, after] = [before, after].map(|it| it.verdict.to_string());
            self.undecided.push(Undecided { case, cell: None, before, after });
            return;
        }
        for cells in pairs(&before.cells, &after.cells) {
            match cells {
                [None, Some(_)] => self.new += 1,
                [Some(one), other] => self.add_cell(after, one, other),
                [None, None] => {}
            }
        }
    }

    fn add_cell(&mut self, report: &CaseReport, before: &CellReport, after: Option<&CellReport>) {
        let ends = [Some(before), after].map(|cell| cell.map(End::of));
        if let [Some(one), Some(other)] = &ends
            && let (Some(_), Some(_)) = (one.fate, other.fate)
        {
            match Change::between(one, other) {
                None => self.unchanged += 1,
                Some(change) => self.changes.push(Changed {
                    change,
                    case: report.case.clone(),
                    from: before.from.clone(),
                    send: before.send.clone(),
                    before: one.clone(),
                    after: other.clone(),
                    because: report.because.clone(),
                    place: report.place.clone(),
                }),
            }
            return;
        }
        let [one, other] =
            ends.map(|end| end.map_or("the case has no such cell".to_owned(), |it| it.verdict));
        self.undecided.push(Undecided {
            case: report.case.clone(),
            cell: Some(format!("{} sent {}", before.from, before.send)),
            before: one,
            after: other,
        });
    }
}

impl Run {
    fn of(run: &RunStarted) -> Self {
        let RunStarted { run: name, profile, fabric, versions, .. } = run.clone();
        Self { name, profile, fabric, versions }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, profile, fabric, versions } = self;
        write!(f, "{name} on {profile} ({fabric}")?;
        for (part, version) in versions {
            write!(f, ", {part} {version}")?;
        }
        f.write_str(")")
    }
}

impl End {
    fn of(cell: &CellReport) -> Self {
        let fate = Fate::of(cell);
        // What leaks is not enforced: its time is that of the last leak.
        let time_to_enforce_ms = cell.time_to_enforce_ms.filter(|_| fate == Some(Fate::Stopped));
        Self {
            fate,
            stopped_by: Denials::of(&cell.evidence).on_record(),
            verdict: cell.verdict.to_string(),
            expected: cell.expected.clone(),
            seen: cell.seen.clone(),
            time_to_enforce_ms,
        }
    }
}

impl Fate {
    /// What became of a flow, by its verdict; nothing where there is no proof.
    fn of(cell: &CellReport) -> Option<Self> {
        // The words of `Expected`: whatever else is expected gets through in the end.
        let is = |word| cell.expected.starts_with(word);
        let must_be_stopped = is("denied") || is("refused");
        match &cell.verdict {
            Verdict::Pass if must_be_stopped => Some(Self::Stopped),
            Verdict::Pass | Verdict::Fail(Failure::FailOpen { .. }) => Some(Self::Through),
            Verdict::Fail(Failure::InClear { .. }) => Some(Self::InClear),
            Verdict::Fail(
                Failure::FailClosed { .. }
                | Failure::WrongLayer { .. }
                | Failure::WrongPolicy { .. },
            ) => Some(Self::Stopped),
            Verdict::Fail(Failure::WrongCondition { .. }) | Verdict::Inconclusive(_) => None,
        }
    }
}

impl Change {
    /// What changed between two ends that are known.
    fn between(before: &End, after: &End) -> Option<Self> {
        match (before.fate, after.fate) {
            (Some(Fate::Stopped), Some(Fate::Through | Fate::InClear)) => Some(Self::NewlyAllowed),
            (Some(Fate::Through), Some(Fate::InClear)) => Some(Self::NewlyInClear),
            (Some(Fate::Through | Fate::InClear), Some(Fate::Stopped)) => Some(Self::NewlyDenied),
            (Some(Fate::Stopped), Some(Fate::Stopped)) if before.stopped_by != after.stopped_by => {
                Some(Self::DeniedBySomebodyElse)
            }
            _ => {
                let (before, after) = before.time_to_enforce_ms.zip(after.time_to_enforce_ms)?;
                (after > before * 2 && after - before > LONGER_MS).then_some(Self::SlowerToEnforce)
            }
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::NewlyAllowed => "newly allowed",
            Self::NewlyInClear => "newly in clear",
            Self::NewlyDenied => "newly denied",
            Self::DeniedBySomebodyElse => "denied by somebody else",
            Self::SlowerToEnforce => "slower to enforce",
        }
    }
}

#[cfg(test)]
mod tests;
