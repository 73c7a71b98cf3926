//! What a case asks, as one text: its policies, what becomes of them, what is sent and what is expected.
//!
//! The names, reasons and places of a case are not in it: who words a reason better asks nothing else.

use std::fmt::Write as _;

use crate::suite::{Case, Cell};

impl Case {
    /// Everything that the case asks, a line each. Two cases of one world with the same text ask the same.
    pub fn question(&self) -> String {
        let mut lines = vec![format!("world {}", self.world)];
        let invalid = |is: bool| if is { " is invalid" } else { "" };
        lines.extend(
            self.apply
                .iter()
                .map(|it| format!("apply {}{}", it.object, invalid(it.invalid.is_some()))),
        );
        lines.extend(self.remove.iter().map(|it| format!("remove {it}")));
        lines.extend(self.relabel.iter().map(|it| format!("relabel {} {:?}", it.pod, it.labels)));
        lines.extend(self.restart.iter().map(|it| format!("restart {it}")));
        lines.extend(self.create.iter().map(|it| format!("create {it}")));
        lines.extend(self.cells.iter().map(asked));
        lines.extend(self.conditions.iter().map(|it| format!("condition of {}: {it}", it.object)));
        lines.join("\n")
    }
}

fn asked(cell: &Cell) -> String {
    let mut text = format!("{} sends {}", cell.from, cell.send);
    for (word, what) in [
        ("after", cell.after.as_ref().map(ToString::to_string)),
        ("twin", cell.twin.as_ref().map(ToString::to_string)),
        ("beside", cell.beside.as_ref().map(ToString::to_string)),
        ("is", Some(cell.expected.to_string())),
    ] {
        if let Some(what) = what {
            write!(text, ", {word} {what}").expect("a String takes everything");
        }
    }
    text
}
