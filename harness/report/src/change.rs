//! What became of watched flows while something changed, for people.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ztc_engine::event::{Births, ChangeReport, StepReport, WatchedFlow};
use ztc_model::window::{Window, WindowKind};

use crate::console::count;
use crate::page::{Page, Tone};
use crate::span::{microseconds, milliseconds};

/// How many windows are told of one by one; all of them are in the events.
const TOLD: usize = 20;

/// Every kind of window, worst first.
pub(crate) const KINDS: [WindowKind; 3] = [WindowKind::Leak, WindowKind::Outage, WindowKind::Blind];

/// What a person reads of a change, without the end of the last line: leaks first and the longest of each step, then who was
/// away in which step, then the sums. A time is that of the window, known to the pace of the samples at either end.
pub fn text(report: &ChangeReport, width: usize, colour: bool) -> String {
    let mut page = Page::new(width, colour);
    page.paragraph("change ", Tone::Strong, &format!("{}: {}", report.case, steps(report)));
    let windows: Vec<(&WatchedFlow, &Window)> = report
        .flows
        .iter()
        .flat_map(|flow| flow.windows.iter().map(move |it| (flow, it)))
        .collect();
    for (flow, window) in worst(report, &windows, TOLD) {
        page.blank();
        write_window(&mut page, report, flow, window);
    }
    if windows.len() > TOLD {
        page.blank();
        let more = count(windows.len() - TOLD, "more window", "more windows");
        page.paragraph("       ", Tone::Faint, &format!("{more} in events.jsonl"));
    }
    write_shares(&mut page, report, &windows);
    if let Some(words) = early(report) {
        page.blank();
        page.paragraph("       ", Tone::Doubtful, &words);
    }
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

/// The steps of a change in the order of time, each with its length.
pub(crate) fn steps(report: &ChangeReport) -> String {
    let step = |it: &StepReport| format!("{} {}", it.step, long(it));
    let steps: Vec<String> = report.steps.iter().map(step).collect();
    steps.join(", ")
}

/// How long a step took.
pub(crate) fn long(step: &StepReport) -> String {
    milliseconds(step.until_us.saturating_sub(step.from_us) / 1000)
}

/// Windows of one kind, counted: `1 leak`, `2 blind spots`.
pub(crate) fn counted(kind: WindowKind, number: usize) -> String {
    match kind {
        WindowKind::Blind => count(number, "blind spot", "blind spots"),
        WindowKind::Outage => count(number, "outage", "outages"),
        WindowKind::Leak => count(number, "leak", "leaks"),
    }
}

/// What is to be thought of outages and blind spots that began when nothing had changed yet, if there are any.
pub(crate) fn early(report: &ChangeReport) -> Option<String> {
    let before = report.steps.first()?;
    let windows = || report.flows.iter().flat_map(|it| &it.windows);
    let number =
        |kind| windows().filter(|it| it.kind == kind && report.step_of(it) == Some(before)).count();
    let told: Vec<String> = [WindowKind::Outage, WindowKind::Blind]
        .into_iter()
        .map(|kind| (kind, number(kind)))
        .filter(|(_, number)| *number > 0)
        .map(|(kind, number)| counted(kind, number))
        .collect();
    (!told.is_empty()).then(|| {
        format!(
            "{} began before anything changed: the machine, not the change, may be what is slow",
            told.join(" and ")
        )
    })
}

/// As many windows as are told of one by one: the longest of each kind in each step, then the other leaks, then the next of each
/// kind in each step, as far as there is room. They are in the order of kind, step and length.
pub(crate) fn worst<'a>(
    report: &ChangeReport,
    windows: &[(&'a WatchedFlow, &'a Window)],
    most: usize,
) -> Vec<(&'a WatchedFlow, &'a Window)> {
    let begun = |it: &Window| report.step_of(it).map_or(0, |step| step.from_us);
    let order = |(_, it): &(&WatchedFlow, &Window)| {
        (Reverse(it.kind), begun(it), Reverse(it.long_us()), it.from_us)
    };
    let mut windows = windows.to_vec();
    windows.sort_by_key(order);
    // How many of the same kind and step are worse than it.
    let mut worse: BTreeMap<(WindowKind, u64), usize> = BTreeMap::new();
    let ranked = windows.into_iter().map(|told| {
        let rank = worse.entry((told.1.kind, begun(told.1))).or_default();
        *rank += 1;
        (*rank, told)
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(rank, (_, it))| {
        (*rank > 1, it.kind != WindowKind::Leak, *rank, Reverse(it.kind))
    });
    let mut told: Vec<_> = ranked.into_iter().take(most).map(|(_, it)| it).collect();
    told.sort_by_key(order);
    told
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
        let words = counted(*kind, long.len());
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
    let of = |kind| counted(kind, windows.iter().filter(|(_, it)| it.kind == kind).count());
    let samples: u64 = report.flows.iter().map(|it| it.samples).sum();
    let slowest = report.flows.iter().map(|it| it.slowest_us).max().unwrap_or(0);
    let slowest = (slowest > 0).then(|| format!(", slowest answer {}", microseconds(slowest)));
    let reconnects: usize = report.flows.iter().filter_map(|it| it.reconnects).sum();
    format!(
        "{}, {}, {}; {} with {samples} samples{}{}, {}{}",
        of(WindowKind::Leak),
        of(WindowKind::Outage),
        of(WindowKind::Blind),
        count(report.flows.len(), "flow", "flows"),
        pace(report),
        slowest.unwrap_or_default(),
        count(reconnects, "connection reset", "connections reset"),
        births(report),
    )
}

/// From one sample to the next; nothing where no flow has a pace.
pub(crate) fn pace(report: &ChangeReport) -> String {
    if report.flows.iter().all(|it| it.births.is_some()) {
        return String::new();
    }
    format!(", one every {}", microseconds(report.every_us))
}

/// The pods that were born meanwhile; nothing where none was to be.
pub(crate) fn births(report: &ChangeReport) -> String {
    // Every flow of a pod tells of the same births.
    let pods: BTreeMap<&str, Births> =
        report.flows.iter().filter_map(|it| Some((it.from.as_str(), it.births?))).collect();
    let all = pods.into_values().reduce(|one, other| Births {
        count: one.count + other.count,
        slowest_us: one.slowest_us.max(other.slowest_us),
    });
    all.map(born).unwrap_or_default()
}

/// Some pods that were born one after the other, behind other words.
pub(crate) fn born(births: Births) -> String {
    let pods = count(births.count, "pod born", "pods born");
    format!(", {pods}, the slowest in {}", microseconds(births.slowest_us))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use ztc_engine::event::Unwatched;

    use super::*;
    use crate::sample::{change as report, watched as flow, window};

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

    #[test]
    fn pods_that_were_born_meanwhile_are_told_once_for_all_their_flows() {
        let born = |from: &str, count, slowest_us| WatchedFlow {
            from: from.to_owned(),
            births: Some(Births { count, slowest_us }),
            samples: 5,
            slowest_us: 0,
            reconnects: None,
            ..flow("tcp zt-pay/vault:9000", true, Vec::new())
        };
        let late = || born("zt-shop/late", 4, 31_800_000);
        let report = report(vec![late(), late(), born("kube-system/late", 5, 2_000_000)]);
        let text = text(&report, 200, false);
        let sums = text.lines().last().unwrap_or_default();
        assert!(text.contains("3 flows with 15 samples, 0 connections reset"), "{text}");
        assert!(sums.ends_with("9 pods born, the slowest in 31.8 s"), "{text}");
    }

    /// As it is on a machine that is too slow: some of everything everywhere, most of it blind spots, and a leak or two.
    fn slow() -> ChangeReport {
        let mut flows = Vec::new();
        for number in 0..6 {
            let mut windows = Vec::new();
            for at in 0..30 {
                let from_us = at * 140_000 + number * 1_000;
                let long = 20_000 + (at * 7 + number * 3) % 11 * 5_000;
                let kind = if at % 10 == 3 { WindowKind::Outage } else { WindowKind::Blind };
                windows.push(window(kind, from_us, from_us + long, "time-out: no answer"));
            }
            flows.push(flow(&format!("tcp zt-pay/ledger:{}", 9000 + number), false, windows));
        }
        let leaks = [(2_100_000, 2_110_000), (2_300_000, 2_390_000)];
        let leak = |(from, until)| window(WindowKind::Leak, from, until, "answered by vault");
        flows.push(flow("tcp zt-pay/vault:9000", true, leaks.map(leak).into()));
        report(flows)
    }

    #[test]
    fn of_many_windows_the_longest_of_each_kind_and_step_are_told() {
        insta::assert_snapshot!(text(&slow(), 100, false));
    }

    #[test]
    fn what_began_before_anything_changed_is_said() {
        let early_of = |kind, from_us| {
            let window = window(kind, from_us, from_us + 20_000, "seen");
            early(&report(vec![flow("tcp a/b:1", false, vec![window])]))
        };
        assert_eq!(
            early_of(WindowKind::Blind, 40_000).as_deref(),
            Some(
                "1 blind spot began before anything changed: the machine, not the change, may be what is slow"
            )
        );
        assert!(early_of(WindowKind::Outage, 40_000).unwrap().starts_with("1 outage began"));
        // The pace at which anybody looks does not tell it from the step.
        assert_eq!(early_of(WindowKind::Outage, 1_995_000), None);
        // A door that is open all the time is no slow machine.
        assert_eq!(early_of(WindowKind::Leak, 40_000), None);
    }

    proptest! {
        /// Whatever the windows are, as many are told as there is room for, leaks first, and nothing of a kind and a step
        /// without the longest of them.
        #[test]
        fn no_window_is_told_before_a_longer_one_of_its_kind_and_step(
            given in prop::collection::vec((0..3_usize, 0..420_u64, 1..90_u64), 0..80),
        ) {
            let kinds = [WindowKind::Leak, WindowKind::Outage, WindowKind::Blind];
            let windows = given.iter().map(|(kind, at, long)| {
                window(kinds[*kind], at * 10_000, (at + long) * 10_000, "seen")
            });
            let report = report(vec![flow("tcp a/b:1", false, windows.collect())]);
            let all: Vec<_> = report.flows[0].windows.iter().map(|it| (&report.flows[0], it)).collect();
            let told = worst(&report, &all, TOLD);
            prop_assert_eq!(told.len(), all.len().min(TOLD));
            prop_assert!(told.is_sorted_by_key(|(_, it)| Reverse(it.kind)));
            let group = |it: &Window| (it.kind, report.step_of(it).map(|step| step.from_us));
            let groups = |of: &[(&WatchedFlow, &Window)]| -> BTreeSet<_> {
                of.iter().map(|(_, it)| group(it)).collect()
            };
            // Three kinds in three steps are fewer than what is told.
            prop_assert_eq!(groups(&told), groups(&all));
            for (_, left_out) in all.iter().filter(|(_, it)| !told.iter().any(|(_, told)| told == it)) {
                let shorter = told.iter().find(|(_, it)| {
                    group(it) == group(left_out) && it.long_us() < left_out.long_us()
                });
                prop_assert!(shorter.is_none(), "{:?} and not {:?}", shorter, left_out);
            }
        }
    }
}
