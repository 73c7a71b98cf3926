//! A diff for pull requests and summaries of CI: what changed first, and never more than such a place takes.

use std::fmt::Write;

use super::text::{ALL, told};
use super::{Changed, Diff};
use crate::escape;

/// How long the text may get, bytes. Summaries of a step take 1 MiB.
const LONGEST: usize = 900_000;

impl Diff {
    /// The whole diff as Markdown; of a very long one the worst, and how much is left out.
    pub fn markdown(&self) -> String {
        let mut text = format!("## What changed\n\n**{}**\n\n", self.summary());
        for (label, run) in [("Before", &self.before), ("After", &self.after)] {
            _ = writeln!(text, "- {label}: {}", escape::markdown(&run.to_string()));
        }
        let mut left_out = 0;
        for change in ALL {
            let rows: Vec<&Changed> =
                self.changes.iter().filter(|it| it.change == change).collect();
            if rows.is_empty() {
                continue;
            }
            _ = write!(
                text,
                "\n### {}\n\n| case | flow | before | after |\n|---|---|---|---|\n",
                heading(change.word())
            );
            for it in rows {
                let flow = format!("{} sent {}", it.from, it.send);
                let cells = [it.case.as_str(), &flow, &told(&it.before), &told(&it.after)];
                let row = cells.map(escape::markdown).join(" | ");
                left_out += add_row(&mut text, &row);
            }
        }
        if !self.undecided.is_empty() {
            text.push_str(
                "\n### Undecided\n\n| case | flow | before | after |\n|---|---|---|---|\n",
            );
            for it in &self.undecided {
                let flow = it.cell.as_deref().unwrap_or("the whole case");
                let row = [it.case.as_str(), flow, &it.before, &it.after]
                    .map(escape::markdown)
                    .join(" | ");
                left_out += add_row(&mut text, &row);
            }
        }
        if left_out > 0 {
            _ = write!(
                text,
                "\n{left_out} more rows are left out here; `ztc diff` has all of them.\n"
            );
        }
        text
    }
}

/// Adds a row if there is room; how many were left out.
fn add_row(text: &mut String, row: &str) -> usize {
    if text.len() + row.len() > LONGEST {
        return 1;
    }
    _ = writeln!(text, "| {row} |");
    0
}

fn heading(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|it| it.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}", letters.as_str())
}
