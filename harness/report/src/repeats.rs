//! The same cases run several times: a verdict that varies is no verdict.
//!
//! Pure: the runs are put together from their events elsewhere. Nothing is averaged and nothing is outvoted: one leak in a
//! hundred runs is a leak.

use std::collections::{BTreeMap, BTreeSet};

use ztc_engine::event::{CaseReport, ExitStatus};
use ztc_engine::expected::Standing;
use ztc_model::suite::CaseId;
use ztc_model::verdict::Verdict;

use crate::account::Mark;
use crate::comparison::Side;
use crate::console::count;
use crate::expected;
use crate::failure::sent;
use crate::page::{Page, Tone};

/// What several runs of the same cases came to.
#[derive(Debug)]
pub struct Repeats {
    /// What each run came to, in their order.
    statuses: Vec<ExitStatus>,
    /// How many cases passed in every run.
    steady: usize,
    /// Cases that came to the same in every run, which is no pass, or should be none.
    broken: Vec<(CaseId, &'static str, String)>,
    /// Cases that came to the failure that is known of them in every run, and what is known.
    known: Vec<(CaseId, String)>,
    /// Cases that did not.
    flaky: Vec<Flaky>,
}

/// A case whose verdict, or that of one of its cells, varies.
#[derive(Debug)]
struct Flaky {
    case: CaseId,
    /// The numbers of the runs, from 1, by what the case came to in them.
    runs: BTreeMap<&'static str, Vec<usize>>,
    /// Of each cell that varies what was sent, and what the first run that was unlike a pass says of it.
    cells: Vec<(String, String)>,
}

/// The word for a case that a run did not finish.
const NOT_FINISHED: &str = "not finished";

impl Repeats {
    /// Puts runs of the same cases together, in the order in which they were made.
    pub fn of(sides: &[Side]) -> Self {
        let cases: BTreeSet<&CaseId> = sides.iter().flat_map(|it| &it.run.cases).collect();
        let mut repeats = Self {
            statuses: sides.iter().map(|it| it.summary.exit_status()).collect(),
            steady: 0,
            broken: Vec::new(),
            known: Vec::new(),
            flaky: Vec::new(),
        };
        for case in cases {
            let reports: Vec<Option<&CaseReport>> =
                sides.iter().map(|it| it.report(case)).collect();
            repeats.sort_in(case, &reports);
        }
        repeats
    }

    fn sort_in(&mut self, case: &CaseId, reports: &[Option<&CaseReport>]) {
        let mut runs: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
        for (index, report) in reports.iter().enumerate() {
            let word = report.map_or(NOT_FINISHED, word_of);
            runs.entry(word).or_default().push(index + 1);
        }
        let finished: Vec<&CaseReport> = reports.iter().flatten().copied().collect();
        let cells = varying(&finished);
        match finished.first() {
            Some(first) if runs.len() == 1 && cells.is_empty() => match Mark::of_case(first) {
                Mark::Pass => self.steady += 1,
                Mark::ExpectedFailure => {
                    self.known.push((case.clone(), expected::words(first).unwrap_or_default()));
                }
                mark => {
                    let is_pass = mark == Mark::UnexpectedPass;
                    let known = expected::words(first).filter(|_| is_pass);
                    let told = known.unwrap_or_else(|| first.verdict.to_string());
                    self.broken.push((case.clone(), mark.word(), told));
                }
            },
            _ => self.flaky.push(Flaky { case: case.clone(), runs, cells }),
        }
    }

    /// What the process should exit with: a verdict that varies is a broken assertion, and a leak in one of the runs a leak.
    pub fn exit_status(&self) -> ExitStatus {
        let worst = |status| self.statuses.contains(&status);
        if worst(ExitStatus::FailOpen) {
            ExitStatus::FailOpen
        } else if worst(ExitStatus::Failed) || !self.flaky.is_empty() {
            ExitStatus::Failed
        } else if worst(ExitStatus::Inconclusive) {
            ExitStatus::Inconclusive
        } else {
            ExitStatus::Pass
        }
    }

    /// What a person reads of it, without the end of the last line.
    pub fn text(&self, width: usize, colour: bool) -> String {
        let mut page = Page::new(width, colour);
        for Flaky { case, runs, cells } in &self.flaky {
            page.paragraph("flaky  ", Tone::Bad, case.as_str());
            for (word, numbers) in runs {
                let told = format!("{word} {}", in_runs(numbers, self.statuses.len()));
                page.paragraph("       ", Tone::Plain, &told);
            }
            for (sent, verdict) in cells {
                page.paragraph("         ", Tone::Plain, &format!("{sent}: {verdict}"));
            }
        }
        for (case, word, told) in &self.broken {
            page.paragraph("", Tone::Bad, &format!("{word}  {case}"));
            page.paragraph("       ", Tone::Plain, told);
        }
        for (case, told) in &self.known {
            page.paragraph("", Tone::Doubtful, &format!("{}  {case}", expected::AS_EXPECTED));
            page.paragraph("       ", Tone::Plain, told);
        }
        if !self.flaky.is_empty() || !self.broken.is_empty() || !self.known.is_empty() {
            page.blank();
        }
        let tone = match self.exit_status() {
            ExitStatus::Pass if self.known.is_empty() => Tone::Good,
            ExitStatus::Pass => Tone::Doubtful,
            _ => Tone::Bad,
        };
        page.paragraph("", tone, &self.summary());
        page.into_text()
    }

    fn summary(&self) -> String {
        let runs = count(self.statuses.len(), "run", "runs");
        let mut words = vec![format!("{} passed in each", count(self.steady, "case", "cases"))];
        for (number, word) in [
            (self.flaky.len(), "flaky"),
            (self.broken.len(), "never as expected"),
            (self.known.len(), expected::AS_EXPECTED),
        ] {
            if number > 0 {
                words.push(format!("{number} {word}"));
            }
        }
        format!("{runs}: {}", words.join(", "))
    }
}

/// What a case came to in a word, for what is the same in all runs.
fn word_of(report: &CaseReport) -> &'static str {
    match report.standing() {
        Some(Standing::AsExpected) => expected::AS_EXPECTED,
        Some(Standing::UnexpectedPass) => Mark::UnexpectedPass.word(),
        Some(Standing::Otherwise | Standing::Expired) | None => report.verdict.word(),
    }
}

/// The cells whose word is not the same in all runs, each with the first verdict that is no pass.
fn varying(reports: &[&CaseReport]) -> Vec<(String, String)> {
    let cells = reports.first().map_or(0, |it| it.cells.len());
    let of_cell = |index: usize| reports.iter().filter_map(move |it| it.cells.get(index));
    let varies = |index: &usize| {
        of_cell(*index).map(|it| it.verdict.word()).collect::<BTreeSet<_>>().len() > 1
    };
    let told = |index| {
        let cell = of_cell(index).find(|it| it.verdict != Verdict::Pass)?;
        Some((sent(cell), cell.verdict.to_string()))
    };
    (0..cells).filter(varies).filter_map(told).collect()
}

/// In which runs, or in how many where these are the most.
fn in_runs(numbers: &[usize], all: usize) -> String {
    if numbers.len() * 2 > all {
        return format!("in {} of {all}", numbers.len());
    }
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("in run {}", numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn repeats(runs: &[CaseReport]) -> Repeats {
        let sides: Vec<Side> =
            runs.iter().map(|it| sample::side("kind", std::slice::from_ref(it))).collect();
        Repeats::of(&sides)
    }

    #[test]
    fn what_passes_in_every_run_passes() {
        let repeats = repeats(&[sample::pass(), sample::pass(), sample::pass()]);
        assert_eq!(repeats.exit_status(), ExitStatus::Pass);
        assert_eq!(repeats.text(100, false), "3 runs: 1 case passed in each");
    }

    #[test]
    fn one_leak_in_many_runs_is_a_leak_and_is_told_with_its_run() {
        let runs = [sample::pass(), sample::pass(), sample::fail_open(), sample::pass()];
        let repeats = repeats(&runs);
        assert_eq!(repeats.exit_status(), ExitStatus::FailOpen);
        insta::assert_snapshot!(repeats.text(100, false));
    }

    #[test]
    fn a_case_that_is_only_sometimes_inconclusive_is_flaky_and_fails() {
        let repeats = repeats(&[sample::no_control(), sample::pass()]);
        assert_eq!(repeats.exit_status(), ExitStatus::Failed);
        insta::assert_snapshot!(repeats.text(100, false));
    }

    #[test]
    fn a_case_that_is_never_as_expected_is_not_flaky() {
        let repeats = repeats(&[sample::wrong_layer(), sample::wrong_layer()]);
        assert_eq!(repeats.exit_status(), ExitStatus::Failed);
        assert!(repeats.flaky.is_empty());
        insta::assert_snapshot!(repeats.text(100, false));
    }

    #[test]
    fn what_fails_as_expected_in_every_run_is_no_pass_and_a_pass_among_them_is_flaky() {
        let known = |report| sample::known("wrong-layer", "2026-12-31", report);
        let steady = repeats(&[known(sample::wrong_layer()), known(sample::wrong_layer())]);
        assert_eq!(steady.exit_status(), ExitStatus::Pass);
        insta::assert_snapshot!(steady.text(100, false));
        let flaky = repeats(&[known(sample::wrong_layer()), known(sample::pass())]);
        assert_eq!((flaky.flaky.len(), flaky.exit_status()), (1, ExitStatus::Failed));
        let gone = repeats(&[known(sample::pass()), known(sample::pass())]);
        assert_eq!((gone.steady, gone.exit_status()), (0, ExitStatus::Failed));
        assert!(gone.text(400, false).contains("take the entry out"));
    }
}
