//! What a case may not say of the hole that it shows.

use crate::suite::file::{CaseFile, SuiteFile};
use crate::suite::{CaseId, Cell, Gap};
use crate::yaml::{Diagnostic, Source};

/// The word after `closed-by:` where nothing closes a gap.
const NONE: &str = "none";

/// The gap that a case shows, if it shows one.
///
/// # Errors
/// A diagnostic at half a gap, or at one through which nothing gets.
pub(super) fn gap(
    source: &Source,
    suite: &str,
    case: &CaseFile,
    cells: &[Cell],
) -> Result<Option<Gap>, Box<Diagnostic>> {
    let wrong = |at, message: &str, help| Err(source.diagnostic_at(at, message, Some(help)));
    match (&case.gap, &case.closed_by) {
        (None, None) => Ok(None),
        (None, Some(closed_by)) => {
            wrong(closed_by, "`closed-by` without a gap", "say `gap`: what gets through")
        }
        (Some(gap), None) => wrong(
            gap,
            "nobody says what closes this gap",
            "name a case of this suite after `closed-by`, or write `closed-by: none`",
        ),
        (Some(gap), Some(_)) if gap.value.trim().is_empty() => {
            wrong(gap, "a gap says what gets through", "write one sentence")
        }
        (Some(gap), Some(_)) if cells.iter().all(|cell| cell.expected.is_denied()) => wrong(
            gap,
            "nothing gets through this gap",
            "a gap is shown by a flow that `is: allowed`",
        ),
        (Some(gap), Some(closed_by)) => Ok(Some(Gap {
            what: gap.value.trim().to_owned(),
            closed_by: (closed_by.value != NONE).then(|| CaseId::new(suite, &closed_by.value)),
        })),
    }
}

/// Whether the cases that close gaps are there, and close more than they open.
///
/// # Errors
/// A diagnostic at the name of one that does not.
pub(super) fn closing_cases(source: &Source, file: &SuiteFile) -> Result<(), Box<Diagnostic>> {
    let closing = file.cases.iter().filter_map(|case| case.value.closed_by.as_ref());
    for name in closing.filter(|name| name.value != NONE) {
        let case = file.cases.iter().find(|case| case.value.name.value == name.value);
        let message = match case {
            None => format!("this suite has no case `{}`", name.value),
            Some(case) if case.value.gap.is_some() => {
                format!("`{}` is a gap itself, and closes none", name.value)
            }
            Some(_) => continue,
        };
        return Err(source.diagnostic_at(name, message, Some("or write `closed-by: none`")));
    }
    Ok(())
}
