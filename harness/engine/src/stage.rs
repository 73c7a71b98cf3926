//! How far a case's policies are: what its cells wait for.

use tokio::sync::watch;
use tokio::time::Instant;

/// The moments of a case that its cells have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is applied yet, or not everything.
    Before,
    /// The API has accepted the last policy.
    Accepted {
        /// When.
        at: Instant,
    },
    /// Every enforcement point has realised the policies.
    Realised {
        /// When the API had accepted the last policy.
        accepted: Instant,
        /// When the last enforcement point was seen to have realised it.
        at: Instant,
    },
    /// The policies will not be realised: there is nothing to see.
    Failed,
}

/// Waits until the policies are realised.
///
/// Returns when they were accepted and when they were realised; nothing when they will not be.
pub(crate) async fn realised(stage: &mut watch::Receiver<Stage>) -> Option<(Instant, Instant)> {
    let reached = |stage: &Stage| matches!(stage, Stage::Realised { .. } | Stage::Failed);
    // The sender outlives the cells; were it dropped, nothing would be realised either.
    match *stage.wait_for(reached).await.ok()? {
        Stage::Realised { accepted, at } => Some((accepted, at)),
        _ => None,
    }
}
