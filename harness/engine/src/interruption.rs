//! Somebody asks to stop. What was seen until then still counts: a leak is a leak.

use std::future::Future;

use tokio::sync::watch;
use ztc_model::verdict::Doubt;

/// Tells when somebody asks to stop.
#[derive(Debug, Clone)]
pub(crate) struct Interruption(watch::Receiver<bool>);

impl Interruption {
    pub(crate) const fn new(interrupted: watch::Receiver<bool>) -> Self {
        Self(interrupted)
    }

    /// Whether somebody has asked.
    pub(crate) fn is_there(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when somebody asks; never when nobody is left who could.
    pub(crate) async fn wait(&self) {
        let mut interrupted = self.0.clone();
        if interrupted.wait_for(|it| *it).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Goes on unless somebody asks to stop, and then drops what was begun.
    ///
    /// # Errors
    /// [`Doubt::Interrupted`], or the work's own.
    pub(crate) async fn or<T>(
        &self,
        work: impl Future<Output = Result<T, Doubt>>,
    ) -> Result<T, Doubt> {
        tokio::select! {
            done = work => done,
            () = self.wait() => Err(Doubt::Interrupted),
        }
    }
}
