//! A thread with a runtime of its own, for work that must not wait for the caller's: the switch,
//! and what lives in a node's network namespace.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::netns::{NetNs, NetnsError};

/// Why such a thread could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeThreadError {
    /// No thread.
    #[error("cannot start thread {name}")]
    Thread {
        /// Its name.
        name: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// No runtime in it.
    #[error("cannot start a runtime in thread {name}")]
    Runtime {
        /// The thread's name.
        name: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It could not enter its network namespace.
    #[error(transparent)]
    Enter(#[from] NetnsError),
}

/// A running thread. Dropped, it takes its tasks with it, and its drop waits for that.
#[derive(Debug)]
pub(crate) struct RuntimeThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl RuntimeThread {
    /// Starts a thread of that name; every socket that its tasks open is in `netns`, if given.
    pub(crate) fn start(name: &str, netns: Option<&NetNs>) -> Result<Self, RuntimeThreadError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| RuntimeThreadError::Runtime { name: name.to_owned(), source })?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (entered, has_entered) = std::sync::mpsc::sync_channel(1);
        let netns = netns.cloned();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = netns.as_ref().map_or(Ok(()), NetNs::enter);
                let ready = result.is_ok();
                // Nobody listens any more if the caller panicked; then there is nothing to do.
                if entered.send(result).is_ok() && ready {
                    // Either way it ends: on request, or when its owner is gone.
                    runtime.block_on(stopped).unwrap_or(());
                }
            })
            .map_err(|source| RuntimeThreadError::Thread { name: name.to_owned(), source })?;
        has_entered.recv().expect("the thread sends before it ends")?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Where to spawn its tasks.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was seen as `is_alive` being false; a drop cannot report it.
            drop(thread.join());
        }
    }
}
