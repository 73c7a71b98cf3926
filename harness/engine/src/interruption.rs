//! Somebody asks to stop. What was seen until then still counts: a leak is a leak.

use std::future::Future;

use tokio::sync::watch;
use ztc_model::verdict::Doubt;

/// Tells when somebody asks to stop.
#[derive(Debug, Clone)]
pub(crate) struct Interruption {
    asked: watch::Receiver<bool>,
    /// What ends the same for another reason, where there is one.
    beside: Option<watch::Receiver<bool>>,
}

impl Interruption {
    pub(crate) const fn new(interrupted: watch::Receiver<bool>) -> Self {
        Self { asked: interrupted, beside: None }
    }

    /// The same for what also ends once this has turned true.
    pub(crate) fn or_once(&self, beside: watch::Receiver<bool>) -> Self {
        Self { asked: self.asked.clone(), beside: Some(beside) }
    }

    /// Whether somebody has asked.
    pub(crate) fn is_there(&self) -> bool {
        is_true(Some(&self.asked)) || is_true(self.beside.as_ref())
    }

    /// Returns when somebody asks; never when nobody is left who could.
    pub(crate) async fn wait(&self) {
        tokio::select! {
            () = turned_true(Some(&self.asked)) => {}
            () = turned_true(self.beside.as_ref()) => {}
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

fn is_true(told: Option<&watch::Receiver<bool>>) -> bool {
    told.is_some_and(|it| *it.borrow())
}

/// Returns when it turns true; never when nobody is left who could make it so.
async fn turned_true(told: Option<&watch::Receiver<bool>>) {
    if let Some(told) = told
        && told.clone().wait_for(|it| *it).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
