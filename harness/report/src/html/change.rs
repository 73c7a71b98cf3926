//! What became of the flows of a case while something changed: a time line a change.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use ztc_engine::event::{ChangeReport, WatchedFlow};
use ztc_model::suite::CaseId;
use ztc_model::window::WindowKind;

use super::markup::{Markup, class};
use super::timeline::{TimeLine, write_bar};
use super::window::{self, mark, write_kind};
use crate::account::Mark;
use crate::change::{self, KINDS};
use crate::span::{microseconds, milliseconds};

/// How much of the page the flows of all changes may take, bytes: cases come after them.
const ROOM: usize = 600_000;

/// How many cells that were not watched are told one by one.
const UNWATCHED: usize = 40;

/// Where cases are on the page: their numbers, and those of their cells.
pub(super) type Places<'a> = HashMap<&'a CaseId, (usize, Range<usize>)>;

/// Writes the changes, if any were watched.
pub(super) fn write(page: &mut Markup, changes: &[ChangeReport], places: &Places<'_>) {
    if changes.is_empty() {
        return;
    }
    page.tag("<section aria-labelledby=changes><h2 id=changes>While something changed</h2>");
    write_legend(page);
    let mut room = ROOM;
    for (number, report) in changes.iter().enumerate() {
        let place = places.get(&report.case);
        let mut share = room / (changes.len() - number);
        room -= share;
        write_change(page, report, number, place, &mut share);
        room += share;
    }
    page.tag("</section>");
}

fn write_change(
    page: &mut Markup,
    report: &ChangeReport,
    number: usize,
    place: Option<&(usize, Range<usize>)>,
    room: &mut usize,
) {
    let line = TimeLine::of(report, number);
    write_head(page, report, &line, (number, place));
    let mut flows: Vec<&WatchedFlow> =
        report.flows.iter().filter(|it| !it.windows.is_empty()).collect();
    flows.sort_by_key(|it| Reverse(worst(it)));
    // All rows are more than all there is to know of a few: half of the room is theirs.
    let mut for_rows = *room / 2;
    let mut rows: Vec<(&WatchedFlow, Markup)> = Vec::new();
    for flow in flows.iter().copied() {
        let row = row(flow, &line);
        if row.len() > for_rows {
            break;
        }
        for_rows -= row.len();
        *room -= row.len();
        rows.push((flow, row));
    }
    if !rows.is_empty() {
        page.tag("<div class=scroll role=region tabindex=0 aria-label=\"Time line of ");
        page.text(report.case.name()).tag("\"><div class=timeline><div class=row><span></span>");
        line.write_steps(page);
        page.tag("</div>");
        for (flow, row) in &rows {
            page.join(row);
            write_windows(page, report, flow, place, room);
        }
        page.tag("<div class=row><span></span>");
        line.write_times(page);
        page.tag("</div></div></div>");
    }
    write_rest(page, report, flows.len() - rows.len());
    page.tag("</div>");
}

/// How bad a flow was: its worst kind of window, and the longest of them.
fn worst(flow: &WatchedFlow) -> Option<(WindowKind, u64)> {
    flow.windows.iter().map(|it| (it.kind, it.long_us())).max()
}

fn write_head(
    page: &mut Markup,
    report: &ChangeReport,
    line: &TimeLine<'_>,
    (number, place): (usize, Option<&(usize, Range<usize>)>),
) {
    let windows = || report.flows.iter().flat_map(|it| &it.windows);
    let is_untold = report.trouble.is_some() || report.flows.is_empty();
    let worst = match windows().map(|it| it.kind).max() {
        Some(kind) => mark(kind),
        None if is_untold => Mark::Inconclusive,
        None => Mark::Pass,
    };
    page.tag("<div class=\"change ").tag(class(worst)).tag("\" id=w").number(number).tag("><h3>");
    match place {
        Some((case, _)) => page.tag("<a href=#k").number(*case).tag(">"),
        None => page.tag("<span>"),
    };
    page.name(report.case.as_str()).tag(if place.is_some() { "</a>" } else { "</span>" });
    page.tag("</h3> ");
    for kind in KINDS {
        let number = windows().filter(|it| it.kind == kind).count();
        if number > 0 {
            write_kind(page, kind, &change::counted(kind, number));
            page.tag(" ");
        }
    }
    if worst == Mark::Pass {
        page.tag("<span class=\"w p\">✓ as expected throughout</span>");
    }
    page.tag("<p>").name(&change::steps(report));
    page.tag(". <span class=faint>One sample of each flow every ");
    page.text(&microseconds(report.every_us))
        .tag(": so exact are the windows. The watching began ");
    page.text(&milliseconds(report.after_ms)).tag(" after the policies were accepted.");
    if report.outage_us > 0 {
        page.tag(" An outage of up to ").text(&microseconds(report.outage_us));
        page.tag(" is no failure.");
    }
    page.tag("</span>");
    if let Some(trouble) = &report.trouble {
        page.tag("<p class=note><b>The change:</b> ").name(trouble);
    }
    if let Some(early) = change::early(report) {
        page.tag("<p class=note>").text(&early).tag(".");
    }
    if line.unnamed() > 0 {
        page.tag("<p class=faint>").count(line.unnamed(), "more step has", "more steps have");
        page.tag(" no name on the time line.");
    }
}

/// The row of a flow: who sent what, what came of it in numbers, and its bars.
fn row(flow: &WatchedFlow, line: &TimeLine<'_>) -> Markup {
    let mut page = Markup::new();
    let kind = flow.windows.iter().map(|it| it.kind).max().unwrap_or(WindowKind::Blind);
    page.tag("<details class=\"k flow ").tag(class(mark(kind))).tag("\"><summary class=row><span>");
    // The words for it are in the sums.
    page.tag("<b class=\"w ").tag(class(mark(kind))).tag("\">").tag(mark(kind).sign());
    page.tag("</b> ").name(&flow.from).tag(" sent ").name(&flow.send);
    page.tag(" <small>").text(&window::sums(&flow.windows)).tag("</small></span>");
    line.write_bars(&mut page, &flow.windows);
    page.tag("</summary>");
    page
}

/// Writes the windows of a row in words, if there is room, and ends it.
fn write_windows(
    page: &mut Markup,
    report: &ChangeReport,
    flow: &WatchedFlow,
    place: Option<&(usize, Range<usize>)>,
    room: &mut usize,
) {
    let number = place.and_then(|(_, cells)| cells.clone().nth(flow.cell));
    let mut told = Markup::new();
    window::write(&mut told, report, flow, number);
    if told.len() <= *room {
        *room -= told.len();
        page.join(&told);
    } else {
        page.tag("<p class=faint>Left out to keep this page small: its windows are in ");
        page.tag("<code>events.jsonl</code>.");
    }
    page.tag("</details>");
}

/// Writes of how many flows there is nothing more to tell, and what was not watched.
fn write_rest(page: &mut Markup, report: &ChangeReport, left_out: usize) {
    if left_out > 0 {
        page.tag("<p class=note><b>Left out to keep this page small:</b> ");
        page.count(left_out, "more flow has", "more flows have");
        page.tag(" windows, none worse than those above. They are in <code>events.jsonl</code>.");
    }
    let quiet = || report.flows.iter().filter(|it| it.windows.is_empty());
    let samples: u64 = quiet().map(|it| it.samples).sum();
    if quiet().count() > 0 {
        page.tag("<p class=faint>").count(quiet().count(), "flow", "flows").tag(", ");
        page.count(usize::try_from(samples).unwrap_or(usize::MAX), "sample", "samples");
        page.tag(", as expected throughout.");
    } else if report.flows.is_empty() {
        page.tag("<p class=faint>No flow was watched.");
    }
    if report.unwatched.is_empty() {
        return;
    }
    page.tag("<details class=tool><summary>");
    page.count(report.unwatched.len(), "cell was", "cells were");
    page.tag(" not watched</summary><ul class=bare>");
    for it in report.unwatched.iter().take(UNWATCHED) {
        page.tag("<li>").name(&it.from).tag(" sent ").name(&it.send).tag(": ").name(&it.why);
    }
    if let Some(more @ 1..) = report.unwatched.len().checked_sub(UNWATCHED) {
        page.tag("<li>").number(more).tag(" more in <code>events.jsonl</code>");
    }
    page.tag("</ul></details>");
}

fn write_legend(page: &mut Markup) {
    page.tag("<ul class=legend aria-label=\"What the bars mean\">");
    for kind in KINDS {
        page.tag("<li><svg class=key viewBox=\"0 0 30 24\" preserveAspectRatio=none");
        page.tag(" aria-hidden=true><path class=\"bar ").tag(class(mark(kind))).tag("\" d=\"");
        write_bar(page, kind, (2, 26));
        page.tag("\"/></svg> ");
        write_kind(page, kind, &kind.to_string());
        page.tag(match kind {
            WindowKind::Leak => " what must not get through did",
            WindowKind::Outage => " what must get through did not",
            WindowKind::Blind => " nobody can tell: nothing was sent, or nothing follows from it",
        });
    }
    page.tag("<li>A bar is wide enough to be seen, however short its window is; windows that are ");
    page.tag("closer than that share one. Each is told in words where its row is opened.</ul>");
}
