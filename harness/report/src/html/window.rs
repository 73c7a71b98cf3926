//! The windows of a watched flow, one by one, worst first.

use std::net::SocketAddr;

use ztc_engine::event::{ChangeReport, WatchedFlow};
use ztc_model::window::{Window, WindowKind};

use super::cell::{self, Amount};
use super::markup::{Markup, class};
use super::policy::Links;
use crate::account::Mark;
use crate::change::{KINDS, born, counted, worst};
use crate::console::count;
use crate::span::{microseconds, moment};

/// How many windows of a flow are told one by one.
const TOLD: usize = 40;

/// How long what was seen may get, characters.
const SEEN: usize = 160;

/// The mark of the verdict that a window of this kind leads to.
pub(super) const fn mark(kind: WindowKind) -> Mark {
    match kind {
        WindowKind::Leak => Mark::FailOpen,
        WindowKind::Outage => Mark::FailClosed,
        WindowKind::Blind => Mark::Inconclusive,
    }
}

/// Adds the sign of a kind and words about it.
pub(super) fn write_kind(page: &mut Markup, kind: WindowKind, words: &str) {
    page.tag("<span class=\"w ").tag(class(mark(kind))).tag("\">").tag(mark(kind).sign());
    page.tag(" ").text(words).tag("</span>");
}

/// What a flow has of each kind.
pub(super) fn sums(windows: &[Window]) -> String {
    let told = KINDS.into_iter().filter_map(|kind| {
        let long = || windows.iter().filter(|it| it.kind == kind).map(Window::long_us);
        let longest = microseconds(long().max()?);
        let number = long().count();
        let words = counted(kind, number);
        Some(match number {
            1 => format!("{words} of {longest}"),
            _ => format!("{words} of up to {longest}"),
        })
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Writes the worst windows of a flow, and what else is known of it; its cell has this number.
pub(super) fn write(
    page: &mut Markup,
    report: &ChangeReport,
    flow: &WatchedFlow,
    number: Option<usize>,
) {
    page.tag("<p class=faint>Expected: ").name(&flow.expected).tag(". ");
    page.text(&samples(flow)).tag(".");
    if let Some(number) = number {
        page.tag(" <a href=#c").number(number).tag(">Its cell</a>");
    }
    let windows: Vec<_> = flow.windows.iter().map(|it| (flow, it)).collect();
    if windows.len() > TOLD {
        page.tag("<p class=faint>Of its ").number(windows.len()).tag(" windows these are the ");
        page.number(TOLD).tag(" longest of each kind and step, leaks first; all of them are in ");
        page.tag("<code>events.jsonl</code>.");
    }
    page.tag("<div class=scroll tabindex=0 role=region aria-label=Windows><table class=records>");
    page.tag("<thead><tr><th scope=col>window<th scope=col class=n>from<th scope=col class=n>long");
    page.tag("<th scope=col>began in<th scope=col class=n>flows");
    page.tag("<th scope=col>sent from, first and last<th scope=col>seen<tbody>");
    for (_, window) in worst(report, &windows, TOLD) {
        write_row(page, report, window);
    }
    page.tag("</table></div>");
    if flow.windows.iter().any(|it| it.kind == WindowKind::Leak) {
        cell::write_evidence(page, &flow.evidence, Amount::Words, &Links::new());
    }
}

fn samples(flow: &WatchedFlow) -> String {
    let slowest = (flow.slowest_us > 0)
        .then(|| format!(", the slowest answer {}", microseconds(flow.slowest_us)));
    let resets = flow
        .reconnects
        .map(|it| format!(", {}", count(it, "connection reset", "connections reset")));
    let births = flow.births.map(born);
    let samples = usize::try_from(flow.samples).unwrap_or(usize::MAX);
    let samples = count(samples, "sample", "samples");
    let more = [slowest, resets, births].into_iter().flatten();
    std::iter::once(samples).chain(more).collect()
}

fn write_row(page: &mut Markup, report: &ChangeReport, window: &Window) {
    page.tag("<tr><th scope=row>");
    write_kind(page, window.kind, &window.kind.to_string());
    page.tag("<td class=n>").text(&moment(window.from_us));
    page.tag("<td class=n>").text(&microseconds(window.long_us())).tag("<td>");
    if let Some(step) = report.step_of(window) {
        let after = microseconds(window.from_us.saturating_sub(step.from_us));
        page.short_name(&step.step, SEEN).tag(", ").text(&after).tag(" after it began");
    }
    let samples = usize::try_from(window.samples).unwrap_or(usize::MAX);
    page.tag("<td class=n>").number(samples).tag("<td>");
    match (window.first, window.last) {
        (Some(first), Some(last)) => page.text(&ends(first, last)),
        (Some(one), None) | (None, Some(one)) => page.text(&one.to_string()),
        (None, None) => page.tag("–"),
    };
    page.tag("<td>").short_name(&window.seen, SEEN);
}

/// Where the first and the last flow of a window came from.
fn ends(first: SocketAddr, last: SocketAddr) -> String {
    if first == last {
        first.to_string()
    } else if first.ip() == last.ip() {
        format!("{first}, :{}", last.port())
    } else {
        format!("{first}, {last}")
    }
}
