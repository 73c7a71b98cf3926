//! What a person reads of a diff on a terminal.

use super::{Change, Changed, Diff, End, Fate};
use crate::console::{count, write_head};
use crate::page::{Page, Tone};
use crate::span::milliseconds;

impl Diff {
    /// The whole diff as text, without the end of its last line.
    pub fn text(&self, width: usize, colour: bool) -> String {
        let mut page = Page::new(width, colour);
        for changed in &self.changes {
            write_changed(&mut page, changed);
            page.set_margin(0);
            page.blank();
        }
        if !self.undecided.is_empty() {
            page.line(&[(Tone::Strong, "undecided")]);
            for it in &self.undecided {
                page.set_margin(2);
                page.line(&[(Tone::Strong, it.case.as_str())]);
                page.paragraph("  ", Tone::Plain, it.cell.as_deref().unwrap_or("the whole case"));
                page.paragraph("    before: ", Tone::Plain, &it.before);
                page.paragraph("    after:  ", Tone::Plain, &it.after);
            }
            page.set_margin(0);
            page.blank();
        }
        page.paragraph("before: ", Tone::Plain, &self.before.to_string());
        page.paragraph("after:  ", Tone::Plain, &self.after.to_string());
        let tone = match (&self.changes[..], self.undecided.is_empty()) {
            ([], true) => Tone::Good,
            ([], false) => Tone::Doubtful,
            _ => Tone::Bad,
        };
        page.paragraph("", tone, &self.summary());
        page.into_text()
    }

    /// The counts in one line.
    pub(crate) fn summary(&self) -> String {
        let mut words = Vec::new();
        for change in ALL {
            let found = self.changes.iter().filter(|it| it.change == change).count();
            if found > 0 {
                words.push(format!("{found} {}", change.word()));
            }
        }
        if words.is_empty() {
            words.push("nothing changed".to_owned());
        }
        let undecided = self.undecided.len();
        for (number, word) in [
            (self.unchanged, "the same"),
            (undecided, "undecided"),
            (self.new, "new"),
            (self.outdated, "about the versions before alone"),
        ] {
            if number > 0 {
                words.push(format!("{number} {word}"));
            }
        }
        format!("{}: {}", count(self.held_against(), "cell", "cells"), words.join(", "))
    }
}

/// In the order in which they are told.
pub(super) const ALL: [Change; 5] = [
    Change::NewlyAllowed,
    Change::NewlyInClear,
    Change::NewlyDenied,
    Change::DeniedBySomebodyElse,
    Change::SlowerToEnforce,
];

fn write_changed(page: &mut Page, it: &Changed) {
    // No longer than the column of a head.
    let (word, tone) = match it.change {
        Change::NewlyAllowed => ("✗ ALLOWED", Tone::Bad),
        Change::NewlyInClear => ("✗ IN CLEAR", Tone::Bad),
        Change::NewlyDenied => ("≠ DENIED", Tone::Doubtful),
        Change::DeniedBySomebodyElse => ("≠ OTHERWISE", Tone::Doubtful),
        Change::SlowerToEnforce => ("~ SLOWER", Tone::Plain),
    };
    write_head(page, tone, word, "", &it.case);
    page.set_margin(2);
    page.paragraph("", tone, it.change.word());
    page.paragraph("", Tone::Strong, &format!("{} sent {}", it.from, it.send));
    page.paragraph("before    ", Tone::Plain, &told(&it.before));
    page.paragraph("after     ", Tone::Plain, &told(&it.after));
    if it.before.expected == it.after.expected {
        page.paragraph("expected  ", Tone::Plain, &it.after.expected);
    } else {
        let both = format!("{}; before: {}", it.after.expected, it.before.expected);
        page.paragraph("expected  ", Tone::Plain, &both);
    }
    page.paragraph("because   ", Tone::Plain, &it.because);
    page.paragraph("place     ", Tone::Plain, &it.place);
}

/// What a cell came to, in a line.
pub(super) fn told(end: &End) -> String {
    let mut words = match end.fate {
        Some(Fate::Through) => format!("got through: {}", end.seen),
        Some(Fate::InClear) => format!("got through, in clear on the wire: {}", end.seen),
        Some(Fate::Stopped) => {
            let by = end.stopped_by.as_ref().map(|by| format!(" by {by}"));
            let by = by.unwrap_or_else(|| ", and no record says by whom".to_owned());
            format!("stopped{by}; the client saw {}", end.seen)
        }
        None => end.verdict.clone(),
    };
    if let Some(ms) = end.time_to_enforce_ms {
        words.extend(["; enforced in ", &milliseconds(ms)]);
    }
    words
}
