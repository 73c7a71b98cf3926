//! The truth table of a case: who sends, what is sent, what is expected and what happened.

use std::collections::{HashMap, HashSet};

use ztc_engine::event::{CaseReport, CellReport};
use ztc_model::verdict::{Failure, Verdict};

use super::markup::{Markup, class};
use crate::account::Mark;

/// From this many stimuli on they go down the page, if there are fewer sources.
const WIDE: usize = 6;

/// How long a heading may get, characters.
const HEADING: usize = 160;

/// Writes the table. The cells have the numbers from `first` on, in the order of the case.
pub(super) fn write(page: &mut Markup, report: &CaseReport, first: usize) {
    if report.cells.is_empty() {
        return;
    }
    let sources = distinct(report.cells.iter().map(|it| it.from.as_str()));
    let stimuli = distinct(report.cells.iter().map(|it| it.send.as_str()));
    page.tag("<div class=scroll role=region tabindex=0 aria-label=\"Truth table of ");
    page.text(report.case.name()).tag("\"><table class=truth>");
    // A table of blanks tells nothing, and may be the square of what was asked.
    if sources.len() * stimuli.len() > 2 * report.cells.len() + 4 {
        write_list(page, report, first);
    } else {
        let turned = stimuli.len() > WIDE && sources.len() < stimuli.len();
        write_matrix(page, report, first, [&sources, &stimuli], turned);
    }
    page.tag("</table></div>");
}

fn write_matrix(
    page: &mut Markup,
    report: &CaseReport,
    first: usize,
    [sources, stimuli]: [&[&str]; 2],
    turned: bool,
) {
    let mut asked: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (number, cell) in (first..).zip(&report.cells) {
        asked.entry((&cell.from, &cell.send)).or_default().push(number);
    }
    let (rows, columns) = if turned { (stimuli, sources) } else { (sources, stimuli) };
    page.tag("<thead><tr><th scope=col class=corner>");
    page.tag(if turned { "sent \\ from" } else { "from \\ sent" });
    for column in columns {
        page.tag("<th scope=col>").short_name(column, HEADING);
    }
    page.tag("<tbody>");
    for row in rows {
        page.tag("<tr><th scope=row>").short_name(row, HEADING);
        for column in columns {
            let place = if turned { (*column, *row) } else { (*row, *column) };
            let here = asked.get(&place).map(Vec::as_slice).unwrap_or_default();
            let worst = here.iter().map(|it| Mark::of(&report.cells[it - first].verdict)).min();
            match worst {
                Some(worst) => page.tag("<td class=").tag(class(worst)).tag(">"),
                None => page.tag("<td>"),
            };
            for number in here {
                write_link(page, &report.cells[number - first], *number);
            }
        }
    }
}

fn write_list(page: &mut Markup, report: &CaseReport, first: usize) {
    page.tag("<thead><tr><th scope=col>from<th scope=col>sent<th scope=col>came to<tbody>");
    for (number, cell) in (first..).zip(&report.cells) {
        page.tag("<tr><th scope=row>").short_name(&cell.from, HEADING);
        page.tag("<th scope=row>").short_name(&cell.send, HEADING);
        page.tag("<td class=").tag(class(Mark::of(&cell.verdict))).tag(">");
        write_link(page, cell, number);
    }
}

/// The entry of a cell: what is expected, and what happened where that is something else.
fn write_link(page: &mut Markup, cell: &CellReport, number: usize) {
    let mark = Mark::of(&cell.verdict);
    let expected = expected(cell);
    page.tag("<a href=#c").number(number);
    match happened(&cell.verdict) {
        None => page.tag(">").tag(mark.sign()).tag(" ").text(expected),
        Some(happened) => {
            page.tag(" aria-label=\"").tag(mark.word()).tag(": expected ").text(expected);
            page.tag(", ").tag(happened).tag("\">").tag(mark.sign()).tag(" ").text(expected);
            page.tag(" <b>→ ").tag(happened).tag("</b>")
        }
    };
    page.tag("</a>");
}

/// What is expected, in the first of its words.
pub(super) fn expected(cell: &CellReport) -> &str {
    cell.expected.split([' ', ',']).next().unwrap_or_default()
}

/// What happened instead, as short as it can be said.
pub(super) const fn happened(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Pass => None,
        Verdict::Fail(Failure::FailOpen { .. }) => Some("got through"),
        Verdict::Fail(Failure::InClear { .. }) => Some("in clear"),
        Verdict::Fail(Failure::FailClosed { .. }) => Some("stopped"),
        Verdict::Fail(Failure::WrongLayer { .. }) => Some("by another"),
        Verdict::Fail(Failure::WrongPolicy { .. }) => Some("other policy"),
        Verdict::Fail(Failure::WrongCondition { .. }) => Some("other condition"),
        Verdict::Inconclusive(_) => Some("no proof"),
    }
}

/// Each of them once, in the order in which they first come.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known = HashSet::new();
    texts.filter(|it| known.insert(*it)).collect()
}
