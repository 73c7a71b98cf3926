//! Whoever asks this process to stop: a terminal's Ctrl-C, or a termination.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What this process is asked, one request after the other.
pub(crate) struct Requests(mpsc::UnboundedReceiver<Signal>);

impl Requests {
    /// Listens from now on. Must be called inside a runtime.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(crate) fn new() -> io::Result<Self> {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    _ = interrupts.recv() => Signal::INT,
                    _ = terminations.recv() => Signal::TERM,
                    () = sender.closed() => return,
                };
                sender.send(request).ok();
            }
        });
        Ok(Self(requests))
    }

    /// Requests that a test makes.
    #[cfg(test)]
    pub(crate) fn by_hand() -> (mpsc::UnboundedSender<Signal>, Self) {
        let (sender, requests) = mpsc::unbounded_channel();
        (sender, Self(requests))
    }

    /// The next request; never when there is nobody left who could make one.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}
