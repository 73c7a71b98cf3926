//! What a case may not say of the policies that it takes away again.

use crate::manifest::{Manifest, ObjectRef};
use crate::outcome::Expected;
use crate::suite::Cell;
use crate::suite::check::applied_policy;
use crate::suite::file::ExpectationFile;
use crate::yaml::{Diagnostic, Source, Spanned};

/// The policies that a case takes away once all are enforced.
///
/// # Errors
/// A diagnostic at a name that no applied policy, or more than one, has.
pub(super) fn removed(
    source: &Source,
    names: &[Spanned<String>],
    apply: &[Manifest],
) -> Result<Vec<ObjectRef>, Box<Diagnostic>> {
    let mut all: Vec<ObjectRef> = Vec::new();
    for name in names {
        let wrong = |message: String| Err(source.diagnostic_at(name, message, None));
        match applied_policy(&name.value, apply) {
            Err(message) => return wrong(message),
            Ok(one) if all.contains(one) => return wrong(format!("{one} is taken away twice")),
            Ok(one) => all.push(one.clone()),
        }
    }
    Ok(all)
}

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
    let mut said_to_deny = std::iter::once(policy).chain(behind);
    let Some(policy) = said_to_deny.find(|it| remove.contains(it)) else { return Ok(()) };
    let message = format!("{policy} is taken away again, and denies nothing any more");
    Err(match &file.policy {
        Some(at) => source.diagnostic_at(at, message, None),
        None => source.diagnostic_at(&file.send, message, None),
    })
}
