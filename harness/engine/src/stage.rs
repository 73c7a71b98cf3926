//! How far a case's policies are: what its cells wait for.

use tokio::sync::watch;
use tokio::time::Instant;

/// The moments of a case that its cells have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is applied yet, or not everything is realised.
    Before,
    /// Every enforcement point has realised the policies.
    Realised {
        /// When the API had accepted the last policy.
        accepted: Instant,
        /// When the last enforcement point was seen to have realised it.
        at: Instant,
        /// Since when denials have to hold: earlier than `at` where policies were taken away in between that
        /// others stand in for.
        since: Instant,
    },
}

/// The moments after which cells are judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    pub(crate) accepted: Instant,
    pub(crate) at: Instant,
    pub(crate) since: Instant,
}

/// Waits until the policies are realised.
///
/// Returns nothing when they will not be.
pub(crate) async fn realised(stage: &mut watch::Receiver<Stage>) -> Option<Moments> {
    let reached = |stage: &Stage| matches!(stage, Stage::Realised { .. });
    // A sender that is dropped before has given up: nothing will be realised.
    match *stage.wait_for(reached).await.ok()? {
        Stage::Realised { accepted, at, since } => Some(Moments { accepted, at, since }),
        Stage::Before => None,
    }
}
