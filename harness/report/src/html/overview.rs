//! What is read first: what the run came to, what it is, and where in it the failures are.

use std::collections::HashMap;

use ztc_engine::event::{CaseReport, RunStarted};
use ztc_engine::expected::Standing;
use ztc_model::suite::CaseId;

use super::cell::enforced;
use super::markup::{Markup, class};
use crate::account::{Account, COUNTED, MARKS, Mark, counts};
use crate::expected;
use crate::rehearsal;
use crate::span::milliseconds;

/// Writes the head of the page.
pub(super) fn write_header(page: &mut Markup, account: &Account) {
    let (mark, word) = account.verdict();
    let summary = account.summary();
    page.tag("<header class=\"top ")
        .tag(class(mark))
        .tag("\"><p class=brand>ztc conformance report");
    page.tag("<h1><span class=\"w ").tag(class(mark)).tag("\">").tag(mark.sign()).tag(" ");
    page.tag(word).tag("</span>");
    if let Some(run) = &account.run {
        page.tag(" <span class=on>on ").name(&run.fabric).tag("</span>");
    }
    page.tag("</h1><ul class=counts>");
    for (number, word, mark) in counts(&summary) {
        if number > 0 || mark == Mark::FailOpen {
            page.tag("<li class=").tag(if number > 0 { class(mark) } else { "g" });
            page.tag("><b>").number(number).tag("</b> ").tag(word);
        }
    }
    let cells: usize = account.reports.iter().map(|it| it.cells.len()).sum();
    page.tag("<li class=g><b>").number(cells).tag("</b> ");
    page.tag(if cells == 1 { "cell" } else { "cells" });
    page.tag("<li class=g><b>").text(&milliseconds(summary.took_ms)).tag("</b> in all</ul>");
    if let Some(run) = &account.run {
        write_facts(page, run);
    }
    page.tag("</header>");
}

fn write_facts(page: &mut Markup, run: &RunStarted) {
    page.tag("<dl class=facts>");
    for (part, version) in &run.versions {
        page.tag("<div><dt>").name(part).tag("<dd>").name(version).tag("</div>");
    }
    for (term, told) in [
        ("run", &run.run),
        ("started", &to_the_second(&run.started)),
        ("profile", &run.profile),
        ("ztc", &run.ztc),
        ("lanes", &run.lanes.to_string()),
    ] {
        page.tag("<div><dt>").tag(term).tag("<dd>").name(told).tag("</div>");
    }
    page.tag("</dl>");
}

/// A time without the parts of its seconds, which nobody reads.
fn to_the_second(time: &str) -> String {
    match time.split_once('.') {
        Some((time, _)) => format!("{time}Z"),
        None => time.to_owned(),
    }
}

/// Writes what has to be known before anything is concluded.
pub(super) fn write_notices(page: &mut Markup, account: &Account) {
    let mut notices = Markup::new();
    if let Some(run) = &account.run {
        if rehearsal::is_rehearsal(run) {
            notices.tag("<li><b>On the lab:</b> ").tag(rehearsal::MEANING).tag(".");
            if let Some(unproven) = rehearsal::unproven(run) {
                notices.tag(" Never seen: ").text(&unproven).tag(".");
            }
        }
        if let Some(faults) = &run.faults {
            notices.tag("<li><b>Faults injected on purpose:</b> ").name(faults);
        }
    } else {
        notices.tag("<li><b>Nothing tells which run this is.</b>");
    }
    if !account.is_finished() {
        notices.tag("<li><b>The run was cut short:</b> what follows is what is known until then.");
    } else if account.is_interrupted() {
        notices.tag("<li><b>The run was interrupted:</b> somebody asked it to stop.");
    }
    write_known(&mut notices, account);
    for what in &account.unread {
        notices.tag("<li><b>Skipped:</b> ").name(what);
    }
    for warning in &account.warnings {
        notices.tag("<li><b>Warning:</b> ").name(warning);
    }
    if notices.len() > 0 {
        page.tag("<ul class=notices aria-label=Notices>").join(&notices).tag("</ul>");
    }
}

/// Writes what is known of cases and changes what the run comes to, or did until it expired.
fn write_known(notices: &mut Markup, account: &Account) {
    let reports = account.worst_first();
    for (number, report) in reports.iter().enumerate() {
        let title = match report.standing() {
            Some(Standing::AsExpected) => "Failed as expected:",
            Some(Standing::UnexpectedPass) => "Passed unexpectedly:",
            Some(Standing::Expired) => "Expected until it expired:",
            Some(Standing::Otherwise) | None => continue,
        };
        notices.tag("<li><b>").tag(title).tag("</b> <a href=#k").number(number).tag(">");
        notices.name(report.case.as_str()).tag("</a>; ");
        notices.name(&expected::words(report).unwrap_or_default());
    }
}

/// Writes a line a suite, with a sign for every case in it. `cases` are in the order of the page.
pub(super) fn write_suites(page: &mut Markup, account: &Account, cases: &[&CaseReport]) {
    let mut suites: HashMap<&str, Suite<'_>> = HashMap::new();
    for (number, report) in cases.iter().enumerate() {
        let suite = suites.entry(report.case.suite()).or_default();
        suite.cases.push((Mark::of_case(report), &report.case, Some(number)));
        suite.cells += report.cells.len();
        suite.slowest = report.cells.iter().filter_map(enforced).max().max(suite.slowest);
    }
    let unfinished = account.unfinished();
    let others = unfinished.iter().map(|it| (Mark::Unfinished, &it.case));
    for (mark, case) in others.chain(account.ignored.iter().map(|it| (Mark::Ignored, &it.0))) {
        suites.entry(case.suite()).or_default().cases.push((mark, case, None));
    }
    page.tag("<section aria-labelledby=overview><h2 id=overview>Overview</h2>");
    page.tag("<div class=scroll role=region tabindex=0 aria-label=\"Suites and their cases\">");
    page.tag("<table class=suites><thead><tr><th scope=col>layer<th scope=col>cases");
    for (heading, _) in COUNTED {
        page.tag("<th scope=col class=n>").tag(heading);
    }
    page.tag("<th scope=col class=n>cells<th scope=col class=n>slowest to enforce<tbody>");
    for name in account.suites() {
        if let Some(suite) = suites.get(name) {
            write_suite(page, name, suite);
        }
    }
    page.tag("</table></div><ul class=legend aria-label=\"What the signs mean\">");
    for mark in MARKS {
        page.tag("<li>").mark(mark).tag(" ").tag(mark.meaning());
    }
    page.tag("</ul></section>");
}

#[derive(Debug, Default)]
struct Suite<'a> {
    /// Their marks and, of those with a place on the page, their numbers.
    cases: Vec<(Mark, &'a CaseId, Option<usize>)>,
    cells: usize,
    slowest: Option<u64>,
}

fn write_suite(page: &mut Markup, name: &str, suite: &Suite<'_>) {
    page.tag("<tr><th scope=row>").name(name).tag("<td class=strip>");
    for (mark, case, number) in &suite.cases {
        match number {
            Some(number) => page.tag("<a href=#k").number(*number),
            None => page.tag("<span role=img"),
        };
        page.tag(" class=").tag(class(*mark));
        for attribute in [" title=\"", " aria-label=\""] {
            page.tag(attribute).tag(mark.word()).tag(": ").text(case.name()).tag("\"");
        }
        page.tag(">").tag(mark.sign());
        page.tag(if number.is_some() { "</a>" } else { "</span>" });
    }
    for (_, marks) in COUNTED {
        let number = suite.cases.iter().filter(|(mark, ..)| marks.contains(mark)).count();
        page.tag("<td class=\"n ").tag(if number == 0 { "none" } else { class(marks[0]) });
        page.tag("\">").number(number);
    }
    page.tag("<td class=\"n sum\">").number(suite.cells).tag("<td class=\"n sum\">");
    match suite.slowest {
        Some(ms) => page.text(&milliseconds(ms)),
        None => page.tag("–"),
    };
}

/// Writes the filters: hidden, as they do nothing where no script runs.
pub(super) fn write_filters(page: &mut Markup, account: &Account) {
    page.tag("<form id=filters class=filters role=search aria-label=\"Filter the cases\" hidden>");
    page.tag("<label>Find <input type=search name=q autocomplete=off></label>");
    page.tag("<label>Verdict <select name=verdict><option value=\"\">all");
    page.tag("<option value=failing>all but pass");
    // What failed as expected is found by its verdict.
    for mark in MARKS.into_iter().filter(|it| *it != Mark::ExpectedFailure) {
        page.tag("<option value=\"").tag(mark.word()).tag("\">").tag(mark.word());
    }
    page.tag("</select></label><label>Layer <select name=layer><option value=\"\">all");
    for suite in account.suites() {
        page.tag("<option value=\"").text(suite).tag("\">").text(suite);
    }
    page.tag("</select></label><button type=reset>Reset</button>");
    page.tag("<button type=button id=unfold>Open all</button>");
    page.tag("<button type=button id=fold>Close all</button>");
    page.tag("<output id=shown aria-live=polite></output></form>");
}

/// Writes the cases that have no report, and the holes that were shown on purpose.
pub(super) fn write_rest(page: &mut Markup, account: &Account, cases: &[&CaseReport]) {
    let unfinished = account.unfinished();
    if !unfinished.is_empty() {
        page.tag("<section aria-labelledby=unfinished><h2 id=unfinished>Not finished</h2>");
        let rows = unfinished.iter().map(|it| (&it.case, it.reached.as_str()));
        write_bare(page, Mark::Unfinished, rows);
    }
    if !account.ignored.is_empty() {
        page.tag("<section aria-labelledby=ignored><h2 id=ignored>Ignored</h2>");
        let rows = account.ignored.iter().map(|(case, reason)| (case, reason.as_str()));
        write_bare(page, Mark::Ignored, rows);
    }
    let gaps: Vec<_> = cases.iter().enumerate().filter(|(_, it)| it.gap.is_some()).collect();
    if gaps.is_empty() {
        return;
    }
    page.tag("<section aria-labelledby=gaps><h2 id=gaps>Gaps</h2><p class=faint>Documented holes ");
    page.tag("that a case shows on purpose; a case that passes has shown it.<ul class=bare>");
    for (number, report) in gaps {
        let Some(gap) = &report.gap else { continue };
        page.tag("<li>").mark(Mark::of(&report.verdict)).tag(" <a href=#k").number(number).tag(">");
        page.name(report.case.as_str()).tag("</a><br>").name(&gap.to_string());
    }
    page.tag("</ul></section>");
}

fn write_bare<'a>(
    page: &mut Markup,
    mark: Mark,
    rows: impl Iterator<Item = (&'a CaseId, &'a str)>,
) {
    page.tag("<ul class=bare>");
    for (case, why) in rows {
        page.tag("<li class=case data-verdict=\"").tag(mark.word()).tag("\" data-layer=\"");
        page.text(case.suite()).tag("\">").mark(mark).tag(" ").name(case.as_str());
        page.tag(" <span class=faint>").name(why).tag("</span>");
    }
    page.tag("</ul></section>");
}
