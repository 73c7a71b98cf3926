//! What a case may not say of the policies that it takes away again.

use crate::manifest::ObjectRef;
use crate::outcome::Expected;
use crate::suite::Cell;
use crate::suite::file::ExpectationFile;
use crate::yaml::{Diagnostic, Source};

/// What denies has to be there: a policy that was taken away denies nothing.
///
/// # Errors
/// A diagnostic at the expectation.
pub(super) fn still_there(
    source: &Source,
    file: &ExpectationFile,
    remove: &[ObjectRef],
    cells: &[Cell],
) -> Result<(), Box<Diagnostic>> {
    let Some(Expected::Denied { policy, behind, .. }) = cells.last().map(|it| &it.expected) else {
        return Ok(());
    };
    let gone = |it: &ObjectRef| format!("{it} is taken away again, and denies nothing any more");
    if remove.contains(policy) {
        return Err(match &file.policy {
            Some(at) => source.diagnostic_at(at, gone(policy), None),
            None => source.diagnostic_at(&file.send, gone(policy), None),
        });
    }
    match behind.iter().zip(&file.behind).find(|(it, _)| remove.contains(it)) {
        Some((it, at)) => Err(source.diagnostic_at(at, gone(it), None)),
        None => Ok(()),
    }
}
