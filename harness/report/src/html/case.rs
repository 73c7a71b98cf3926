//! A case: why, its truth table, and its cells.

use ztc_engine::event::CaseReport;
use ztc_engine::fabric::Inspection;
use ztc_model::verdict::Verdict;

use super::cell::{self, Amount};
use super::markup::{Markup, class};
use super::policy::{self, Links};
use super::table;
use crate::account::Mark;
use crate::evidence;
use crate::expected;
use crate::span::milliseconds;

/// How much of the output of a command is shown, characters.
const OUTPUT: usize = 20_000;

/// How many of its failing cells are open from the start.
const OPEN: usize = 4;

/// A case in pieces: what is shown of its cells depends on the room that all of them leave.
#[derive(Debug)]
pub(super) struct Case<'a> {
    report: &'a CaseReport,
    /// The number of its first cell.
    first: usize,
    /// What comes before the cells.
    head: Markup,
    cells: Vec<(Amount, Markup)>,
    inspections: Option<Markup>,
    /// The policies that it applies.
    links: Links<'a>,
}

impl<'a> Case<'a> {
    /// The case of this number and that of its first cell, with one line a cell, the number of the change that it was watched
    /// in, and the policies that it applies.
    pub(super) fn new(
        report: &'a CaseReport,
        (number, first): (usize, usize),
        change: Option<usize>,
        links: Links<'a>,
    ) -> Self {
        let line =
            |(number, it)| (Amount::Line, cell::cell(it, number, (Amount::Line, false), &links));
        let cells = (first..).zip(&report.cells).map(line).collect();
        let mut head = Markup::new();
        write_head(&mut head, report, number);
        for (index, policy) in links.keys().enumerate() {
            head.tag(if index == 0 { "<p>It applies " } else { ", " });
            policy::write_name(&mut head, policy, &links);
        }
        head.tag(if links.is_empty() { "" } else { "." });
        if let Some(change) = change {
            head.tag("<p>Its flows were watched while something changed: <a href=#w");
            head.number(change).tag(">time line</a>.");
        }
        table::write(&mut head, report, first);
        Self { report, first, head, cells, inspections: None, links }
    }

    /// Whether it is as expected.
    pub(super) fn passed(&self) -> bool {
        self.report.verdict == Verdict::Pass
    }

    /// How long it is, bytes.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.cells.iter().map(|(_, it)| it.len()).sum::<usize>()
    }

    /// Tells more of its cells that passed or did not, as far as there is room.
    pub(super) fn tell(&mut self, amount: Amount, passed: bool, room: &mut usize) {
        let numbered = (self.first..).zip(&self.report.cells).zip(&mut self.cells);
        let mut failing = 0;
        for ((number, report), (told, shown)) in numbered {
            failing += usize::from(report.verdict != Verdict::Pass);
            let more = *told < amount && (report.verdict == Verdict::Pass) == passed;
            // Records that are not there need no room.
            if !more || (amount == Amount::Records && report.evidence.is_empty()) {
                continue;
            }
            let open = !passed && failing <= OPEN;
            let page = cell::cell(report, number, (amount, open), &self.links);
            let grows = page.len().saturating_sub(shown.len());
            if grows <= *room {
                *room -= grows;
                (*told, *shown) = (amount, page);
            }
        }
    }

    /// Tells what enforcement points said with their own tools, if there is room.
    pub(super) fn tell_inspections(&mut self, room: &mut usize) {
        if self.report.inspections.is_empty() {
            return;
        }
        let mut page = Markup::new();
        page.tag("<h4>What their own tools said</h4>");
        for Inspection { place, command, output } in &self.report.inspections {
            page.tag("<details class=tool><summary><bdi><code>").text(command);
            page.tag("</code></bdi> on ").name(place).tag("</summary><pre>");
            page.clipped(output, OUTPUT).tag("</pre></details>");
        }
        if page.len() <= *room {
            *room -= page.len();
            self.inspections = Some(page);
        }
    }

    /// How many cells are told in one line, how many without what was written, and how many
    /// inspections are left out.
    pub(super) fn left_out(&self) -> (usize, usize, usize) {
        let lines = self.cells.iter().filter(|(told, _)| *told == Amount::Line).count();
        let told = self.report.cells.iter().zip(&self.cells);
        let unwritten = told
            .filter(|(report, (told, _))| *told == Amount::Words && !report.evidence.is_empty())
            .count();
        let inspections =
            if self.inspections.is_some() { 0 } else { self.report.inspections.len() };
        (lines, unwritten, inspections)
    }

    /// Puts the pieces onto a page.
    pub(super) fn write(&self, page: &mut Markup) {
        page.join(&self.head);
        if !self.cells.is_empty() {
            page.tag("<h4>Cells</h4><div class=cells>");
            for (_, cell) in &self.cells {
                page.join(cell);
            }
            page.tag("</div>");
        }
        if let Some(inspections) = &self.inspections {
            page.join(inspections);
        }
        let path = evidence::file_of(&self.report.case);
        page.tag("<p class=faint>Written in ").name(&self.report.place).tag("; ran in lane ");
        page.number(self.report.lane).tag("; all of it in <bdi>evidence/");
        page.text(&path.display().to_string()).tag("</bdi></details>");
    }
}

fn write_head(page: &mut Markup, report: &CaseReport, number: usize) {
    let mark = Mark::told_of(report);
    page.tag("<details class=\"case ").tag(class(mark)).tag("\" id=k").number(number);
    page.tag(" data-verdict=\"").tag(mark.word()).tag("\" data-layer=\"");
    page.text(report.case.suite()).tag("\"");
    page.tag(if mark == Mark::Pass { "><summary><h3>" } else { " open><summary><h3>" });
    page.mark(mark).tag(" <bdi><i>").text(report.case.suite()).tag("::</i>");
    page.text(report.case.name()).tag("</bdi></h3> <small>");
    if expected::is_as_expected(report) {
        page.tag("<span class=tag>as expected</span> ");
    }
    if let Some(gap) = &report.gap {
        page.tag("<span class=tag title=\"").text(&gap.what).tag("\">gap</span> ");
    }
    let wrong = report.cells.iter().filter(|it| it.verdict != Verdict::Pass).count();
    if wrong > 0 {
        page.number(wrong).tag(" of ");
    }
    page.count(report.cells.len(), "cell", "cells");
    page.tag(if wrong > 0 { " not as expected" } else { "" });
    let took = format!(" · {}", milliseconds(report.took_ms));
    page.text(&took).tag("</small></summary><p class=because>").name(&report.because);
    if wrong == 0 && report.verdict != Verdict::Pass {
        page.tag("<p class=bad>").name(&report.verdict.to_string());
    }
    if let Some(known) = expected::words(report) {
        page.tag("<p class=note><b>Known:</b> ").name(&known);
    }
    if let Some(gap) = &report.gap {
        page.tag("<p class=note><b>Gap, shown on purpose:</b> ").name(&gap.to_string());
    }
    if let Some(residue) = &report.residue {
        page.tag("<p class=note><b>Cleaning up failed:</b> ").name(residue);
    }
    if let Some(ms) = report.settled_ms {
        page.tag("<p class=faint>Every enforcement point had the policies ");
        page.text(&milliseconds(ms)).tag(" after they were accepted.");
    }
    write_conditions(page, report);
}

/// What controllers say of policies and services, where the case expects something of it.
fn write_conditions(page: &mut Markup, report: &CaseReport) {
    if report.conditions.is_empty() {
        return;
    }
    page.tag(
        "<div class=scroll tabindex=0 role=region aria-label=Conditions><table class=records>",
    );
    page.tag("<thead><tr><th scope=col>status of<th scope=col>expected<th scope=col>found<tbody>");
    for condition in &report.conditions {
        page.tag("<tr><th scope=row>").name(&condition.object).tag("<td>");
        page.mark(Mark::of(&condition.verdict)).tag(" ").name(&condition.expected).tag("<td>");
        match (&condition.found, &condition.verdict) {
            (Some(found), _) => page.name(&found.to_string()),
            (None, verdict) => page.name(&verdict.to_string()),
        };
    }
    page.tag("</table></div>");
}
