//! What became of watched flows while something changed, for people.

use std::collections::BTreeMap;

use ztc_engine::event::{ChangeReport, StepReport, WatchedFlow};
use ztc_model::window::{Window, WindowKind};

use crate::console::count;
use crate::page::{Page, Tone};
use crate::span::{microseconds, milliseconds};

/// How many windows are told of one by one; all of them are in the events.
const TOLD: usize = 20;

/// What a person reads of a change, without the end of the last line: leaks first, then who was away in which step, then the
/// sums. A time is that of the window, known to the pace of the samples at either end.
pub fn text(report: &ChangeReport, width: usize, colour: bool) -> String {
    let mut page = Page::new(width, colour);
    page.paragraph("change ", Tone::Strong, &format!("{}: {}", report.case, steps(report)));
    let mut windows: Vec<(&WatchedFlow, &Window)> = report
        .flows
        .iter()
        .flat_map(|flow| flow.windows.iter().map(move |it| (flow, it)))
        .collect();
    windows.sort_by_key(|(_, it)| (std::cmp::Reverse(it.kind), it.from_us));
    for (flow, window) in windows.iter().take(TOLD) {
        page.blank();
        write_window(&mut page, report, flow, window);
    }
    if windows.len() > TOLD {
        page.blank();
        let more = count(windows.len() - TOLD, "more window", "more windows");
        page.paragraph("       ", Tone::Faint, &format!("{more} in events.jsonl"));
    }
    write_shares(&mut page, report, &windows);
    for it in &report.unwatched {
        let words = format!("not watched: {} sent {}: {}", it.from, it.send, it.why);
        page.paragraph("       ", Tone::Faint, &words);
    }
    if let Some(trouble) = &report.trouble {
        page.blank();
        page.paragraph("       ", Tone::Doubtful, trouble);
    }
    page.blank();
    page.paragraph("", tone(&windows), &sums(report, &windows));
    page.into_text()
}

fn steps(report: &ChangeReport) -> String {
    let step = |it: &StepReport| {
        format!("{} {}", it.step, milliseconds((it.until_us - it.from_us) / 1000))
    };
    let steps: Vec<String> = report.steps.iter().map(step).collect();
    steps.join(", ")
}

fn write_window(page: &mut Page, report: &ChangeReport, flow: &WatchedFlow, window: &Window) {
    let (lead, tone) = match window.kind {
        WindowKind::Leak => ("leak   ", Tone::Bad),
        WindowKind::Outage => ("outage ", Tone::Bad),
        WindowKind::Blind => ("blind  ", Tone::Doubtful),
    };
    page.paragraph(lead, tone, &format!("{} sent {}", flow.from, flow.send));
    let mut words = vec![microseconds(window.long_us())];
    if let Some(step) = report.step_of(window) {
        let after = microseconds(window.from_us.saturating_sub(step.from_us));
        words.push(format!(" in `{}`, {after} after it began", step.step));
    }
    if window.samples > 0 {
        let samples = usize::try_from(window.samples).unwrap_or(usize::MAX);
        words.push(format!("; {}", count(samples, "flow", "flows")));
    }
    if let (Some(first), Some(last)) = (window.first, window.last) {
        words.push(format!(", from {first} to {last}"));
    }
    page.paragraph("       ", Tone::Plain, &words.concat());
    page.paragraph(
        "       ",
        Tone::Plain,
        &format!("seen: {}; expected: {}", window.seen, flow.expected),
    );
    if window.kind == WindowKind::Leak {
        for record in &flow.evidence {
            let words = format!("{} on {}: {}", record.point, record.node, record.did);
            page.paragraph("       ", Tone::Faint, &words);
        }
    }
}

/// What each enforcement point has of it in each step.
fn write_shares(page: &mut Page, report: &ChangeReport, windows: &[(&WatchedFlow, &Window)]) {
    // By point and, in the order of time, by step.
    let mut shares: BTreeMap<(String, u64, &str, WindowKind), Vec<u64>> = BTreeMap::new();
    for (flow, window) in windows {
        let point = flow.point.map_or_else(|| "nobody named".to_owned(), |it| it.to_string());
        let step = report.step_of(window).or(report.steps.first());
        let (begun, step) = step.map_or((0, ""), |it| (it.from_us, it.step.as_str()));
        shares.entry((point, begun, step, window.kind)).or_default().push(window.long_us());
    }
    if shares.is_empty() {
        return;
    }
    page.blank();
    for ((point, _, step, kind), long) in &shares {
        let longest = microseconds(long.iter().copied().max().unwrap_or(0));
        let all = microseconds(long.iter().sum());
        let words = match kind {
            WindowKind::Blind => count(long.len(), "blind spot", "blind spots"),
            WindowKind::Outage => count(long.len(), "outage", "outages"),
            WindowKind::Leak => count(long.len(), "leak", "leaks"),
        };
        let words = if long.len() == 1 {
            format!("{point} in `{step}`: {words}, {longest}")
        } else {
            format!("{point} in `{step}`: {words}, the longest {longest}, {all} in all")
        };
        page.paragraph("       ", Tone::Plain, &words);
    }
}

fn tone(windows: &[(&WatchedFlow, &Window)]) -> Tone {
    match windows.iter().map(|(_, it)| it.kind).max() {
        Some(WindowKind::Leak | WindowKind::Outage) => Tone::Bad,
        Some(WindowKind::Blind) => Tone::Doubtful,
        None => Tone::Good,
    }
}

fn sums(report: &ChangeReport, windows: &[(&WatchedFlow, &Window)]) -> String {
    let of = |kind| windows.iter().filter(move |(_, it)| it.kind == kind).count();
    let samples: u64 = report.flows.iter().map(|it| it.samples).sum();
    let slowest = report.flows.iter().map(|it| it.slowest_us).max().unwrap_or(0);
    let slowest = (slowest > 0).then(|| format!(", slowest answer {}", microseconds(slowest)));
    let reconnects: usize = report.flows.iter().filter_map(|it| it.reconnects).sum();
    format!(
        "{}, {}, {}; {} with {samples} samples, one every {}{}, {}",
        count(of(WindowKind::Leak), "leak", "leaks"),
        count(of(WindowKind::Outage), "outage", "outages"),
        count(of(WindowKind::Blind), "blind spot", "blind spots"),
        count(report.flows.len(), "flow", "flows"),
        microseconds(report.every_us),
        slowest.unwrap_or_default(),
        count(reconnects, "connection reset", "connections reset"),
    )
}

#[cfg(test)]
mod tests {
    use ztc_engine::event::Unwatched;
    use ztc_model::outcome::EnforcementPoint;
    use ztc_model::suite::CaseId;

    use super::*;

    fn window(kind: WindowKind, from_us: u64, until_us: u64, seen: &str) -> Window {
        let end = |port| Some(([10, 0, 1, 2], port).into());
        let samples = (until_us - from_us) / 10_000;
        let (first, last) = (end(4001), end(4006));
        Window { kind, from_us, until_us, samples, first, last, seen: seen.to_owned() }
    }

    fn flow(send: &str, denied: bool, windows: Vec<Window>) -> WatchedFlow {
        WatchedFlow {
            cell: 0,
            from: "zt-shop/web".to_owned(),
            send: send.to_owned(),
            expected: if denied { "denied by cilium as default-deny (…)" } else { "allowed" }
                .to_owned(),
            denied,
            point: denied.then_some(EnforcementPoint::Cilium),
            samples: 420,
            slowest_us: if denied { 0 } else { 31_000 },
            reconnects: (!denied).then_some(1),
            windows,
            evidence: Vec::new(),
        }
    }

    fn report(flows: Vec<WatchedFlow>) -> ChangeReport {
        let step =
            |step: &str, from_us, until_us| StepReport { step: step.to_owned(), from_us, until_us };
        ChangeReport {
            case: CaseId::new("l1-cluster", "baseline"),
            steps: vec![
                step("before", 0, 2_000_000),
                step("restart cilium", 2_000_000, 2_210_000),
                step("after", 2_210_000, 4_210_000),
            ],
            every_us: 10_000,
            outage_us: 0,
            after_ms: 40,
            flows,
            unwatched: Vec::new(),
            trouble: None,
        }
    }

    #[test]
    fn leaks_come_first_with_their_flows_and_who_should_have_stopped_them() {
        let leak = window(WindowKind::Leak, 2_003_000, 2_053_000, "answered by zt-pay/vault");
        let outage =
            window(WindowKind::Outage, 2_001_000, 2_201_000, "time-out: no answer to the connect");
        let report = report(vec![
            flow("tcp zt-pay/ledger:9000", false, vec![outage]),
            flow("tcp zt-pay/vault:9000", true, vec![leak]),
        ]);
        insta::assert_snapshot!(text(&report, 100, false));
    }

    #[test]
    fn a_quiet_change_says_what_it_rests_on() {
        let mut report = report(vec![flow("tcp zt-pay/vault:9000", true, Vec::new())]);
        report.unwatched.push(Unwatched {
            from: "kubelet".to_owned(),
            send: "readiness zt-shop/web".to_owned(),
            why: "kubelet sends it, at its own pace".to_owned(),
        });
        insta::assert_snapshot!(text(&report, 100, false));
    }
}
