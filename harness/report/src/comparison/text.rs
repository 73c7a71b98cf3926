//! What a person reads of a comparison: disagreements with the evidence of both sides, then what
//! was not compared, the times, and the counts.

use ztc_engine::event::CellReport;

use super::difference::Difference;
use super::{Comparison, Disagreement, NotCompared, Side, Times, is_leak};
use crate::console::{count, summary_words, write_head};
use crate::failure::{records, samples, sent, tone};
use crate::page::{Page, Tone};
use crate::rehearsal;
use crate::span::{microseconds, milliseconds};

/// How wide a pair of times is, with the gap after it.
const PAIR: usize = 20;

impl Comparison {
    /// The whole comparison as text, without the end of its last line.
    pub fn text(&self, width: usize, colour: bool) -> String {
        let mut page = Page::new(width, colour);
        for disagreement in &self.disagreements {
            self.write_disagreement(&mut page, disagreement);
            page.set_margin(0);
            page.blank();
        }
        if !self.not_compared.is_empty() {
            page.line(&[(Tone::Strong, "not compared")]);
            for it in &self.not_compared {
                self.write_not_compared(&mut page, it);
            }
            page.set_margin(0);
            page.blank();
        }
        if !self.times.is_empty() {
            self.write_times(&mut page);
            page.set_margin(0);
            page.blank();
        }
        for (label, side) in self.labels.iter().zip(&self.sides) {
            page.paragraph(&format!("{label}: "), Tone::Plain, &about(side));
        }
        page.paragraph("", self.tone(), &self.summary());
        page.into_text()
    }

    fn tone(&self) -> Tone {
        if !self.disagreements.is_empty() {
            Tone::Bad
        } else if self.not_compared.is_empty() && self.agreeing > 0 {
            Tone::Good
        } else {
            Tone::Doubtful
        }
    }

    /// The counts in one line.
    fn summary(&self) -> String {
        let not_compared: usize = self.not_compared.iter().map(|it| it.cells).sum();
        let mut words = format!(
            "{} compared, {} disagree, {not_compared} not compared",
            count(self.compared(), "cell", "cells"),
            self.disagreements.len()
        );
        let unseen = self.not_compared.iter().filter(|it| it.cells == 0).count();
        if unseen > 0 {
            let cases = count(unseen, "case", "cases");
            words.extend(["; ", &cases, " without a cell on either side"]);
        }
        words
    }

    fn write_disagreement(&self, page: &mut Page, it: &Disagreement) {
        let leaks = it.cells.iter().any(|cell| is_leak(&cell.verdict));
        let (tone, word) =
            if leaks { (Tone::Bad, "✗ FAIL-OPEN") } else { (Tone::Doubtful, "≠ DISAGREE") };
        write_head(page, tone, word, "", &it.case);
        page.set_margin(2);
        page.paragraph("", Tone::Strong, &sent(&it.cells[0]));
        page.paragraph("expected  ", Tone::Plain, &it.cells[0].expected);
        for difference in &it.differences {
            page.paragraph("differs   ", Tone::Bad, &self.told(difference));
        }
        for (label, cell) in self.labels.iter().zip(&it.cells) {
            write_evidence(page, label, cell);
        }
        page.paragraph("because   ", Tone::Plain, &it.because);
        page.paragraph("place     ", Tone::Plain, &it.place);
    }

    fn told(&self, difference: &Difference) -> String {
        let [one, other] = &self.labels;
        match difference {
            Difference::Verdict([a, b]) => format!("verdict: {a} on {one}, {b} on {other}"),
            Difference::StoppedBy([a, b]) => format!("stopped by: on {one} {a}; on {other} {b}"),
            Difference::Seen([a, b]) => format!("client saw: on {one} {a}; on {other} {b}"),
        }
    }

    fn write_not_compared(&self, page: &mut Page, it: &NotCompared) {
        page.set_margin(2);
        let whole = || match it.cells {
            0 => "the whole case".to_owned(),
            cells => format!("the whole case, {}", count(cells, "cell", "cells")),
        };
        let what = it.sent.clone().unwrap_or_else(whole);
        let (mark, tone) = if it.leaks { ("FAIL-OPEN  ", Tone::Bad) } else { ("", Tone::Plain) };
        page.line(&[(tone, mark), (Tone::Strong, it.case.as_str())]);
        page.paragraph("  ", Tone::Plain, &what);
        for (label, said) in self.labels.iter().zip(&it.said) {
            page.paragraph(&format!("    {label}: "), Tone::Plain, said);
        }
    }

    fn write_times(&self, page: &mut Page) {
        let [one, other] = &self.labels;
        page.line(&[(Tone::Strong, &format!("times of the slowest cells, {one} / {other}"))]);
        page.set_margin(2);
        let heads = ["settled", "enforced", "on record"].map(|head| format!("{head:<PAIR$}"));
        page.line(&heads.each_ref().map(|head| (Tone::Faint, head.as_str())));
        for Times { case, settled_ms, enforced_ms, recorded_us } in &self.times {
            let pairs = [
                pair(settled_ms, milliseconds),
                pair(enforced_ms, milliseconds),
                pair(recorded_us, microseconds),
            ]
            .map(|pair| format!("{pair:<PAIR$}"));
            page.line(&[(Tone::Plain, &pairs.concat()), (Tone::Strong, case.as_str())]);
        }
    }
}

/// Which run a side is, and what it came to by itself.
fn about(side: &Side) -> String {
    let run = &side.run;
    let mut words = format!("run {} on {} ({})", run.run, run.profile, run.fabric);
    if rehearsal::is_rehearsal(run) {
        words.push_str(", a rehearsal");
    }
    words.extend(["; ", &summary_words(&side.summary)]);
    if !side.finished {
        words.push_str("; it did not come to its end");
    }
    if let Some(faults) = &run.faults {
        words.extend(["; faults injected on purpose: ", faults]);
    }
    words
}

fn write_evidence(page: &mut Page, label: &str, cell: &CellReport) {
    page.paragraph(&format!("on {label}: "), tone(&cell.verdict), &cell.verdict.to_string());
    page.paragraph("  seen      ", Tone::Plain, &cell.seen);
    if let Some(control) = &cell.control {
        page.paragraph("  control   ", Tone::Plain, control);
    }
    if let Some(proof) = &cell.proof {
        page.paragraph("  proof     ", Tone::Plain, proof);
    }
    page.paragraph("  samples   ", Tone::Plain, &samples(cell));
    if cell.evidence.is_empty() {
        page.paragraph("  record    ", Tone::Plain, "none");
    }
    for record in records(&cell.evidence) {
        page.paragraph("  record    ", Tone::Plain, &record);
    }
}

/// A pair of times; `-` where a side has none.
fn pair(times: &[Option<u64>; 2], said: fn(u64) -> String) -> String {
    times.map(|time| time.map_or("-".to_owned(), said)).join(" / ")
}
