//! What a case may not say of flows of which every stimulus counts.

use crate::outcome::Expected;
use crate::stimulus::Send;
use crate::suite::file::{ExpectationFile, Is};
use crate::suite::{Cell, Origin};
use crate::world::PodRef;
use crate::yaml::{Diagnostic, Source};

/// Whether a cell whose every stimulus counts can be watched from before the first policy on.
///
/// # Errors
/// A diagnostic at what stands against it.
pub(super) fn is_one(
    source: &Source,
    file: &ExpectationFile,
    create: &[PodRef],
    cell: &Cell,
) -> Result<(), Box<Diagnostic>> {
    if let Some(throughout) = &file.throughout
        && file.is != Is::Allowed
    {
        let message = "only what is allowed is so throughout";
        return Err(source.diagnostic_at(throughout, message, None));
    }
    if !cell.expected.is_stream() {
        return Ok(());
    }
    if let Some(after) = &file.after {
        let message = "a flow that is watched from before the policies comes after nothing";
        return Err(source.diagnostic_at(after, message, None));
    }
    match &cell.from {
        Origin::Pod(pod) if !create.contains(pod) => {}
        from => {
            let message = format!("{from} sends nothing before the policies");
            return Err(source.diagnostic_at(&file.from, message, None));
        }
    }
    // A dropped segment is sent again after a second, by when the interruption may be over.
    let sent_once =
        matches!(cell.send, Send::Udp(_) | Send::Ping(_) | Send::Dns { tcp: false, .. });
    if matches!(cell.expected, Expected::Interrupted { .. }) && !sent_once {
        let message = format!("`{}` is tried again by itself, and may get through late", cell.send);
        let help = "an interruption shows in what is sent once: `udp`, `ping` or `dns`";
        return Err(source.diagnostic_at(&file.send, message, Some(help)));
    }
    Ok(())
}
