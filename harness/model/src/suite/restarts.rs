//! What a case may restart.

use std::collections::BTreeSet;

use crate::suite::{Cell, Component, Feature};
use crate::yaml::{Diagnostic, Source, Spanned};

/// What is restarted, each once, where the suite says that it needs to.
///
/// # Errors
/// A diagnostic at a component that is named twice, whose feature the suite does not need, or in whose absence
/// nobody records what becomes of a flow that is watched all the time.
pub(super) fn restarted(
    source: &Source,
    needs: &BTreeSet<Feature>,
    restart: &[Spanned<Component>],
    cells: &[Cell],
) -> Result<Vec<Component>, Box<Diagnostic>> {
    let mut all = Vec::new();
    for at in restart {
        let (component, feature) = (at.value, at.value.feature());
        if !needs.contains(&feature) {
            let message = format!("only a fabric with `{feature}` restarts {component}");
            let help = format!("add `{feature}` to the `needs` of the suite");
            return Err(source.diagnostic_at(at, message, Some(&help)));
        }
        if all.contains(&component) {
            let message = format!("{component} is restarted twice");
            return Err(source.diagnostic_at(at, message, None));
        }
        if let Some(stream) = cells.iter().find(|cell| cell.expected.is_stream()) {
            let message = format!("nobody records what is dropped while {component} is away");
            let help = format!(
                "the flow of line {} is watched throughout: take it to a case without a restart",
                stream.line
            );
            return Err(source.diagnostic_at(at, message, Some(&help)));
        }
        all.push(component);
    }
    Ok(all)
}
