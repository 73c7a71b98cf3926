//! Time from left to right: the steps of a change, and beneath each other the windows of its flows.
//!
//! Lengths are attributes of SVG, as the policy of the page forbids styles on elements. What has to keep its form however
//! wide the page is, words and their lines, is placed in percent; bars are in units of their own and stretched.

use ztc_engine::event::ChangeReport;
use ztc_model::window::{Window, WindowKind};

use super::markup::{Markup, class};
use super::window::mark;
use crate::change;
use crate::redact::redacted;

/// How many units wide a time line is: hundredths of a percent.
const ACROSS: usize = 10_000;

/// How wide a bar is at least, so that the shortest window is seen: 3 of 1,000 dots.
const NARROWEST: usize = 30;

/// Bars that are no further apart than this are one, as nobody could tell them apart.
const APART: usize = 10;

/// How many steps have a place on the axis.
const STEPS: usize = 40;

/// How much of the name of a step is on the axis, characters; all of it is told above.
const NAME: usize = 28;

/// How wide a character of the axis is at most, on a page of the usual width.
const CHARACTER: usize = 80;

/// How high a line of words is, dots.
const LINE: usize = 16;

/// What may be between two times on the axis, milliseconds.
const PACES: [u64; 24] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000,
    120_000, 300_000, 600_000, 1_200_000, 3_600_000, 7_200_000, 21_600_000, 86_400_000,
];

/// How many times are on the axis at most, besides the first.
const TIMES: u64 = 8;

/// The time of a change.
#[derive(Debug)]
pub(super) struct TimeLine<'a> {
    report: &'a ChangeReport,
    /// The number of the change on the page.
    number: usize,
    until_us: u64,
}

/// The name of a step on the axis.
#[derive(Debug)]
struct Name {
    text: String,
    /// Where the step begins.
    at: usize,
    /// The line that the name is in, from 0 at the bottom.
    line: usize,
    /// Whether it would not fit to the right of where the step begins.
    is_last: bool,
}

impl<'a> TimeLine<'a> {
    /// That of the change of this number.
    pub(super) fn of(report: &'a ChangeReport, number: usize) -> Self {
        let steps = report.steps.iter().map(|it| it.until_us);
        let windows = report.flows.iter().flat_map(|it| &it.windows).map(|it| it.until_us);
        Self { report, number, until_us: steps.chain(windows).max().unwrap_or(0).max(1) }
    }

    /// Where a time is.
    fn at(&self, us: u64) -> usize {
        let units = u128::from(us) * ACROSS as u128 / u128::from(self.until_us);
        usize::try_from(units).unwrap_or(ACROSS).min(ACROSS)
    }

    /// Writes the names of the steps above the time, and what every row has behind its bars.
    pub(super) fn write_steps(&self, page: &mut Markup) {
        let names = self.names();
        let lines = names.iter().map(|it| it.line + 1).max().unwrap_or(0);
        let height = lines * LINE + 6;
        page.tag("<svg class=axis aria-hidden=true height=").number(height).tag("><defs><g id=b");
        page.number(self.number).tag(">");
        for step in self.report.steps.iter().take(STEPS).skip(1).step_by(2) {
            let (from, until) = (self.at(step.from_us), self.at(step.until_us));
            page.tag("<path class=step d=\"M").number(from).tag(" 0H").number(until.max(from + 1));
            page.tag("V24H").number(from).tag("z\"/>");
        }
        page.tag("<path class=rest d=\"M0 12H").number(ACROSS).tag("\"/>");
        if let Some((first, others)) = names.split_first() {
            page.tag("<path class=begin d=\"M").number(first.at).tag(" 0v24");
            for it in others {
                page.tag("M").number(it.at).tag(" 0v24");
            }
            page.tag("\"/>");
        }
        page.tag("</g></defs>");
        for it in &names {
            let top = height - 6 - (it.line + 1) * LINE;
            page.tag("<line");
            for name in [" x1=", " x2="] {
                page.tag(name);
                percent(page, it.at);
            }
            // A name that ends with the time is above its line, not beside it.
            let above = if it.is_last { LINE - 1 } else { 2 };
            page.tag(" y1=").number(top + above).tag(" y2=").number(height).tag("></line><text x=");
            percent(page, if it.is_last { ACROSS } else { it.at });
            page.tag(if it.is_last { " text-anchor=end" } else { " dx=4" });
            page.tag(" y=").number(top + 12).tag(">").text(&it.text).tag("</text>");
        }
        page.tag("</svg>");
    }

    /// The names of the steps, from the last to the first, so that neither a name nor the line down from it crosses another.
    fn names(&self) -> Vec<Name> {
        // Where the next name to the left must end, by line.
        let mut free: Vec<usize> = Vec::new();
        let steps = self.report.steps.iter().take(STEPS).rev();
        let names = steps.map(|step| {
            let text = format!("{} {}", shortened(&step.step), change::long(step));
            let at = self.at(step.from_us);
            let wide = text.chars().count() * CHARACTER;
            let is_last = at + wide > ACROSS;
            let from = if is_last { ACROSS.saturating_sub(wide).min(at) } else { at };
            let fits = free.iter().position(|free| from + wide <= *free);
            let line = fits.unwrap_or(free.len());
            if line == free.len() {
                free.push(from);
            }
            // The line down from it takes the place of names beneath.
            for (number, free) in free.iter_mut().enumerate().take(line + 1) {
                *free = (*free).min(if number == line { from } else { at });
            }
            Name { text, at, line, is_last }
        });
        names.collect()
    }

    /// How many steps have no place on the axis.
    pub(super) const fn unnamed(&self) -> usize {
        self.report.steps.len().saturating_sub(STEPS)
    }

    /// Writes the windows of a flow as bars. The worst are on top.
    pub(super) fn write_bars(&self, page: &mut Markup, windows: &[Window]) {
        page.tag("<svg class=line viewBox=\"0 0 10000 24\" preserveAspectRatio=none");
        page.tag(" aria-hidden=true><use href=#b").number(self.number).tag("></use>");
        for kind in [WindowKind::Blind, WindowKind::Outage, WindowKind::Leak] {
            let bars = self.bars(windows, kind);
            if bars.is_empty() {
                continue;
            }
            page.tag("<path class=\"bar ").tag(class(mark(kind))).tag("\" d=\"");
            for (from, until) in bars {
                write_bar(page, kind, (from, until - from));
            }
            page.tag("\"/>");
        }
        page.tag("</svg>");
    }

    /// From where until where the bars of a kind are.
    fn bars(&self, windows: &[Window], kind: WindowKind) -> Vec<(usize, usize)> {
        let mut bars: Vec<(usize, usize)> = Vec::new();
        let places = windows.iter().filter(|it| it.kind == kind).map(|it| {
            let from = self.at(it.from_us).min(ACROSS - NARROWEST);
            (from, self.at(it.until_us).max(from + NARROWEST))
        });
        let mut places: Vec<(usize, usize)> = places.collect();
        places.sort_unstable();
        for (from, until) in places {
            match bars.last_mut() {
                Some(last) if from <= last.1 + APART => last.1 = last.1.max(until),
                _ => bars.push((from, until)),
            }
        }
        bars
    }

    /// Writes the times beneath.
    pub(super) fn write_times(&self, page: &mut Markup) {
        let until_ms = self.until_us / 1_000;
        let apart = PACES.into_iter().find(|it| until_ms / it <= TIMES).unwrap_or(u64::MAX);
        page.tag("<svg class=axis aria-hidden=true height=22>");
        for ms in (0..=TIMES).map(|it| apart.saturating_mul(it)).take_while(|it| *it <= until_ms) {
            let at = self.at(ms * 1_000);
            page.tag("<line");
            for name in [" x1=", " x2="] {
                page.tag(name);
                percent(page, at);
            }
            page.tag(" y1=0 y2=5></line><text y=18 x=");
            percent(page, at);
            page.tag(match at {
                0 => ">",
                9_500.. => " text-anchor=end>",
                _ => " text-anchor=middle>",
            });
            page.text(&time(ms)).tag("</text>");
        }
        page.tag("</svg>");
    }
}

/// Writes a bar of a kind, which has a form besides its colour: leaks are whole, outages hollow, blind spots hatched.
pub(super) fn write_bar(page: &mut Markup, kind: WindowKind, (from, wide): (usize, usize)) {
    page.tag("M").number(from);
    match kind {
        WindowKind::Leak => page.tag(" 2h").number(wide).tag("v20h-").number(wide).tag("z"),
        WindowKind::Outage => page.tag(" 5h").number(wide).tag("v14h-").number(wide).tag("z"),
        WindowKind::Blind => page.tag(" 12h").number(wide),
    };
}

fn percent(page: &mut Markup, units: usize) {
    page.number(units / 100).tag(".").number(units / 10 % 10).number(units % 10).tag("%");
}

/// The beginning of a name. A secret in it is not saved by being cut.
fn shortened(name: &str) -> String {
    let name = redacted(name);
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", name.split_at(end).0),
        None => name.into_owned(),
    }
}

/// A time on the axis, without decimals that say nothing.
fn time(ms: u64) -> String {
    let (minutes, seconds) = (ms / 60_000, ms % 60_000 / 1_000);
    match ms {
        0 => "0".to_owned(),
        1..1_000 => format!("{ms} ms"),
        1_000..60_000 if ms.is_multiple_of(1_000) => format!("{seconds} s"),
        1_000..60_000 => format!("{seconds}.{} s", ms % 1_000 / 100),
        _ if seconds == 0 => format!("{minutes} min"),
        _ => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ztc_engine::event::StepReport;

    use super::*;
    use crate::sample;

    #[test]
    fn a_time_on_the_axis_says_no_more_than_it_must() {
        let told = [0, 250, 1_500, 2_000, 60_000, 90_000].map(time);
        assert_eq!(told, ["0", "250 ms", "1.5 s", "2 s", "1 min", "1 min 30 s"]);
    }

    #[test]
    fn a_window_is_where_its_time_is_and_wide_enough_to_be_seen() {
        let report = sample::change(Vec::new());
        let line = TimeLine::of(&report, 0);
        // Of 4.21 s, half a second from 2.105 s on, and ten milliseconds at the very end.
        let long = sample::window(WindowKind::Leak, 2_105_000, 2_605_000, "seen");
        let short = sample::window(WindowKind::Leak, 4_200_000, 4_210_000, "seen");
        let bars = line.bars(&[long, short], WindowKind::Leak);
        assert_eq!(bars, [(5_000, 6_187), (9_970, 10_000)]);
    }

    #[test]
    fn a_change_that_never_began_has_a_time_line() {
        let mut report = sample::change(Vec::new());
        report.steps.clear();
        let mut page = Markup::new();
        let line = TimeLine::of(&report, 0);
        line.write_steps(&mut page);
        line.write_times(&mut page);
        assert!(page.into_string().contains("<text y=18 x=0.00%>0</text>"));
    }

    #[test]
    fn a_secret_is_not_saved_by_being_cut() {
        let command = "x --header authorization: Basic dXNlcjpwYXNzd29yZA==";
        assert!(!shortened(command).contains("dXN"), "{}", shortened(command));
    }

    proptest! {
        #[test]
        fn every_window_is_under_a_bar_and_no_bar_under_another(
            given in prop::collection::vec((0..4_000_u64, 0..500_u64), 0..60),
        ) {
            let windows: Vec<Window> = given.iter().map(|(at, long)| {
                sample::window(WindowKind::Outage, at * 1_000, (at + long) * 1_000, "seen")
            }).collect();
            let report = sample::change(vec![sample::watched("tcp a/b:1", false, windows.clone())]);
            let line = TimeLine::of(&report, 0);
            let bars = line.bars(&windows, WindowKind::Outage);
            for window in &windows {
                let (from, until) = (line.at(window.from_us), line.at(window.until_us));
                let is_under = bars.iter().any(|bar| bar.0 <= from && until <= bar.1);
                prop_assert!(is_under, "{window:?} is under none of {bars:?}");
            }
            for bar in &bars {
                prop_assert!(bar.1 >= bar.0 + NARROWEST && bar.1 <= ACROSS, "{bar:?}");
            }
            prop_assert!(bars.is_sorted_by(|left, right| left.1 + APART < right.0));
            prop_assert!(line.bars(&windows, WindowKind::Leak).is_empty());
        }

        #[test]
        fn no_name_of_a_step_stands_on_another_or_on_a_line(
            given in prop::collection::vec((0..40_u64, 0..30_usize), 1..12),
        ) {
            let mut report = sample::change(Vec::new());
            report.steps.clear();
            let mut from_us = 0;
            for (long, name) in given {
                let until_us = from_us + long * 100_000;
                report.steps.push(StepReport { step: "x".repeat(name), from_us, until_us });
                from_us = until_us;
            }
            let names = TimeLine::of(&report, 0).names();
            let span = |it: &Name| {
                let wide = it.text.chars().count() * CHARACTER;
                if it.is_last { (ACROSS.saturating_sub(wide), ACROSS) } else { (it.at, it.at + wide) }
            };
            for (number, name) in names.iter().enumerate() {
                for other in &names[number + 1..] {
                    let ((from, _), (_, until)) = (span(name), span(other));
                    prop_assert!(other.line != name.line || until <= from, "{names:?}");
                    // The line down from the upper one is beside the lower one.
                    prop_assert!(other.line >= name.line || until <= name.at, "{names:?}");
                }
            }
        }
    }
}
