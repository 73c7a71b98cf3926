//! `report.md`: the run for pull requests and summaries of CI steps, failures first.
//!
//! Such a place takes 1 MiB and shows what is read in a minute: cells that did not pass in words,
//! the others by their case. What does not fit is counted.

use std::collections::HashMap;
use std::fmt::Write;

use ztc_engine::event::{CaseReport, CellReport};
use ztc_model::verdict::Verdict;

use crate::account::{Account, COUNTED, Mark, counts};
use crate::escape::{markdown, short_markdown};
use crate::expected;
use crate::failure::{blame, happened, records};
use crate::rehearsal;
use crate::span::milliseconds;

/// The name of the file, in the folder of the run.
pub const FILE: &str = "report.md";

/// How long the text may get, bytes. Summaries of a step take 1 MiB.
const LONGEST: usize = 900_000;

/// How long a text from the events may get, characters.
const LONG: usize = 600;

/// The run as Markdown.
pub fn page(account: &Account) -> String {
    let mut text = Text::default();
    write_head(&mut text, account);
    let cases = account.worst_first();
    for report in cases.iter().filter(|it| Mark::of_case(it) != Mark::Pass) {
        write_failure(&mut text, report);
    }
    // Of the others everything is told already.
    let expired = cases.iter().filter(|it| Mark::of_case(it) == Mark::Pass);
    let expired = expired.filter_map(|it| Some((it, expected::words(it)?)));
    let expired = expired.map(|(report, known)| {
        format!("- {} {}: {}", Mark::Pass.sign(), markdown(report.case.as_str()), short(&known))
    });
    write_list(&mut text, "Expected failures that have expired", expired);
    let unfinished = account.unfinished();
    let bare = unfinished.iter().map(|it| (Mark::Unfinished, &it.case, it.reached.as_str()));
    let ignored = account.ignored.iter().map(|it| (Mark::Ignored, &it.0, it.1.as_str()));
    for (title, mark) in [("Not finished", Mark::Unfinished), ("Ignored", Mark::Ignored)] {
        let rows = bare.clone().chain(ignored.clone()).filter(|it| it.0 == mark);
        let rows = rows.map(|(mark, case, why)| {
            format!("- {} {}: {}", mark.sign(), markdown(case.as_str()), short(why))
        });
        write_list(&mut text, title, rows);
    }
    let gaps = cases.iter().filter_map(|it| Some((it, it.gap.as_ref()?)));
    let gaps = gaps.map(|(report, gap)| {
        let mark = Mark::of(&report.verdict);
        format!("- {} {}: {}", mark.sign(), markdown(report.case.as_str()), short(&gap.to_string()))
    });
    write_list(&mut text, "Gaps, shown on purpose", gaps);
    write_passed(&mut text, &cases);
    text.into_string()
}

fn short(text: &str) -> String {
    short_markdown(text, LONG)
}

fn write_head(text: &mut Text, account: &Account) {
    let (mark, word) = account.verdict();
    let on = account.run.as_ref().map(|run| format!(" on {}", short(&run.fabric)));
    text.always(&format!("## {} {}{}\n", mark.sign(), word.to_uppercase(), on.unwrap_or_default()));
    let summary = account.summary();
    let counts: Vec<String> = counts(&summary)
        .iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, word, _)| format!("{number} {word}"))
        .collect();
    let took = milliseconds(summary.took_ms);
    text.always(&format!("**{}**, in {took}\n", counts.join(", ")));
    if let Some(run) = &account.run {
        let versions: Vec<String> =
            run.versions.iter().map(|(part, version)| format!("{part} {version}")).collect();
        text.line(&format!(
            "- run {}, started {}, profile {}, ztc {}",
            short(&run.run),
            short(&run.started),
            short(&run.profile),
            short(&run.ztc)
        ));
        if !versions.is_empty() {
            text.line(&format!("- {}", short(&versions.join(", "))));
        }
        if rehearsal::is_rehearsal(run) {
            text.line(&format!("- on the lab: {}", rehearsal::MEANING));
            if let Some(unproven) = rehearsal::unproven(run) {
                text.line(&format!("- never seen: {}", short(&unproven)));
            }
        }
        if let Some(faults) = &run.faults {
            text.line(&format!("- faults injected on purpose: {}", short(faults)));
        }
    } else {
        text.line("- nothing tells which run this is");
    }
    if !account.is_finished() {
        text.line("- **the run was cut short**: what follows is what is known until then");
    } else if account.is_interrupted() {
        text.line("- **the run was interrupted**: somebody asked it to stop");
    }
    for what in &account.unread {
        text.line(&format!("- **skipped**: {}", short(what)));
    }
    for warning in &account.warnings {
        text.line(&format!("- warning: {}", short(warning)));
    }
    write_suites(text, account);
}

fn write_suites(text: &mut Text, account: &Account) {
    let unfinished = account.unfinished();
    let reported = account.reports.iter().map(|it| (Mark::of_case(it), &it.case));
    let others = unfinished.iter().map(|it| (Mark::Unfinished, &it.case));
    let ignored = account.ignored.iter().map(|it| (Mark::Ignored, &it.0));
    let mut marks: HashMap<&str, Vec<Mark>> = HashMap::new();
    for (mark, case) in reported.chain(others).chain(ignored) {
        marks.entry(case.suite()).or_default().push(mark);
    }
    let headings = COUNTED.map(|(heading, _)| heading).join(" | ");
    text.line(&format!("\n| layer | {headings} |"));
    text.line(&format!("|---|{}", "---:|".repeat(COUNTED.len())));
    for suite in account.suites() {
        let marks = marks.get(suite).map(Vec::as_slice).unwrap_or_default();
        let counts = COUNTED.map(|(_, counted)| {
            match marks.iter().filter(|it| counted.contains(it)).count() {
                0 => String::new(),
                number => number.to_string(),
            }
        });
        text.line(&format!("| {} | {} |", short(suite), counts.join(" | ")));
    }
}

fn write_failure(text: &mut Text, report: &CaseReport) {
    let mark = Mark::told_of(report);
    let as_expected = if expected::is_as_expected(report) { ", as expected" } else { "" };
    let mut section = format!(
        "\n### {} {}{as_expected}: {}\n\n{}\n",
        mark.sign(),
        mark.word(),
        markdown(report.case.as_str()),
        short(&report.because)
    );
    if let Some(known) = expected::words(report) {
        _ = writeln!(section, "\n**Known:** {}", short(&known));
    }
    let failing: Vec<&CellReport> =
        report.cells.iter().filter(|it| it.verdict != Verdict::Pass).collect();
    for condition in report.conditions.iter().filter(|it| it.verdict != Verdict::Pass) {
        _ = writeln!(section, "\n{}", short(&condition.verdict.to_string()));
    }
    let is_pass = report.verdict == Verdict::Pass;
    if !is_pass
        && failing.is_empty()
        && report.conditions.iter().all(|it| it.verdict == Verdict::Pass)
    {
        _ = writeln!(section, "\n{}", short(&report.verdict.to_string()));
    }
    if !failing.is_empty() {
        section.push_str(
            "\n| | from | sent | expected | happened | who |\n|---|---|---|---|---|---|\n",
        );
    }
    if !text.line(section.trim_end_matches('\n')) {
        text.left_out += failing.len();
        return;
    }
    for cell in failing {
        let said = records(&cell.evidence);
        let who = if said.is_empty() { blame(cell) } else { said.join("; ") };
        let mark = Mark::of(&cell.verdict);
        text.line(&format!(
            "| {} {} | {} | {} | {} | {} | {} |",
            mark.sign(),
            mark.word(),
            short(&cell.from),
            short(&cell.send),
            short(&cell.expected),
            short(&happened(cell)),
            short(&who)
        ));
    }
    text.line(&format!(
        "\nWritten in {}, took {}.",
        short(&report.place),
        milliseconds(report.took_ms)
    ));
}

fn write_list(text: &mut Text, title: &str, rows: impl Iterator<Item = String>) {
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        text.line(&format!("\n### {title}\n"));
        rows.for_each(|row| {
            text.line(&row);
        });
    }
}

fn write_passed(text: &mut Text, cases: &[&CaseReport]) {
    let mut passed = cases.iter().filter(|it| Mark::of_case(it) == Mark::Pass).peekable();
    if passed.peek().is_none() {
        return;
    }
    text.line("\n<details><summary>Cases that passed</summary>\n");
    text.line("| case | cells | enforced in | took |\n|---|---:|---:|---:|");
    for report in passed {
        let slowest = report.cells.iter().filter_map(|it| it.time_to_enforce_ms).max();
        text.line(&format!(
            "| ✓ {} | {} | {} | {} |",
            short(report.case.as_str()),
            report.cells.len(),
            slowest.map(milliseconds).unwrap_or_default(),
            milliseconds(report.took_ms)
        ));
    }
    text.always("\n</details>\n");
}

/// A text that ends before it gets too long, and then counts what it left out.
#[derive(Debug, Default)]
struct Text {
    text: String,
    left_out: usize,
}

impl Text {
    /// Adds lines if there is room, and says whether there was.
    fn line(&mut self, line: &str) -> bool {
        if self.text.len() + line.len() > LONGEST {
            self.left_out += 1;
            return false;
        }
        self.always(line);
        true
    }

    fn always(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn into_string(mut self) -> String {
        if self.left_out > 0 {
            let left_out = self.left_out;
            self.always(&format!(
                "\n{left_out} more lines are left out here; `report.html` and `evidence/` have more."
            ));
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ztc_model::suite::CaseId;

    use super::*;
    use crate::sample;

    #[test]
    fn a_run_in_a_pull_request_reads_like_this() {
        insta::assert_snapshot!(page(&Account::of(&sample::run())));
    }

    #[test]
    fn known_failures_in_a_pull_request_read_like_this() {
        let named =
            |name: &str, report| CaseReport { case: CaseId::new("l1-cluster", name), ..report };
        let reports = [
            named("known", sample::known("fail-closed", "2026-12-31", sample::fail_closed())),
            named("gone", sample::known("fail-closed", "2026-12-31", sample::pass())),
            named("expired", sample::known("fail-open", "2026-11-23", sample::pass())),
            named("more", sample::known("fail-closed", "2026-12-31", sample::fail_open())),
        ];
        insta::assert_snapshot!(page(&Account::of(&sample::events("kind", &reports))));
        let known = page(&Account::of(&sample::events("kind", &reports[..1])));
        assert!(known.starts_with("## ⚑ FAILED AS EXPECTED on kind"), "{known}");
    }

    #[test]
    fn a_very_long_run_fits_into_a_summary_and_says_what_is_left_out() {
        let failing = sample::fail_open().cells.remove(1);
        let cells =
            (0..5_000).map(|it| CellReport { from: format!("zt-shop/{it}"), ..failing.clone() });
        let reports = [sample::case("it", cells.collect()), sample::pass()];
        let text = page(&Account::of(&sample::events("kind", &reports)));
        assert!(text.len() < 1 << 20, "{}", text.len());
        assert!(text.contains("more lines are left out here"));
    }

    proptest! {
        #[test]
        fn no_text_is_markup(said in "[<>|`\\]\\[()*!\n\r@_a\u{202e}]{0,40}") {
            let mut report = sample::fail_open();
            report.because.clone_from(&said);
            report.cells[1].seen.clone_from(&said);
            report.cells[1].from.clone_from(&said);
            let text = page(&Account::of(&sample::events("kind", &[report])));
            prop_assert!(!text.contains('<'), "{text}");
            let row = text.lines().find(|it| it.starts_with("| ✗")).unwrap();
            prop_assert_eq!(row.replace("\\|", "").matches('|').count(), 7, "{}", row);
            prop_assert!(!text.replace("\\]", "").contains("]("), "{text}");
        }
    }
}
