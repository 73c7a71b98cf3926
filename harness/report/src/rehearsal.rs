//! A run on the lab is a rehearsal, and everything that shows one says so (`docs/adr/0001`).

use ztc_engine::event::RunStarted;

/// The fabric that rehearses, as [`RunStarted::fabric`] names it.
const LAB: &str = "lab";

/// What a rehearsal is, for whoever reads its result.
pub(crate) const MEANING: &str = "a rehearsal: it counts once a real cluster shows the same";

/// Whether a run proves nothing about a real cluster.
pub(crate) fn is_rehearsal(run: &RunStarted) -> bool {
    run.fabric == LAB
}
