//! Agents: one process in every pod and outside host, started from this very executable.
//!
//! This room starts, reaches and ends them. What they say is the engine's to read.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use ztc_wire::AgentConfig;

use super::journal::{Journal, each_line};
use super::netns::{NetNs, NetnsError};
use super::sandbox::PARENT_ENV;

/// How often a socket is looked for that is not there yet: an agent takes some milliseconds.
const LOOK: Duration = Duration::from_millis(1);

/// Makes the command that runs an agent, commonly `/proc/self/exe` in agent mode. Its streams, its
/// network namespace, its name in `ps` and its end are the lab's business.
#[derive(Clone)]
pub struct AgentCommand(Arc<dyn Fn(AgentConfig) -> Command + Send + Sync>);

impl AgentCommand {
    /// Agents are started by what `make` returns.
    pub fn new(make: impl Fn(AgentConfig) -> Command + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for AgentCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentCommand").finish_non_exhaustive()
    }
}

/// Why an agent could not be started or reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// Its pod's network namespace cannot be entered.
    #[error("cannot start the agent of {name} in its network namespace")]
    Enter {
        /// Whose agent.
        name: String,
        /// Why.
        source: NetnsError,
    },
    /// It cannot be started.
    #[error("cannot start the agent of {name}")]
    Spawn {
        /// Whose agent.
        name: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It has ended.
    #[error("the agent of {name} has ended: {status}{log}")]
    Ended {
        /// Whose agent.
        name: String,
        /// How it ended.
        status: String,
        /// Its last words on stderr.
        log: String,
    },
    /// It does not listen.
    #[error("the agent of {name} does not answer within {within:?}{log}")]
    Silent {
        /// Whose agent.
        name: String,
        /// For how long it was tried.
        within: Duration,
        /// Its last words on stderr.
        log: String,
        /// What the last attempt said.
        source: io::Error,
    },
}

/// A running agent. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Agent {
    name: String,
    socket: PathBuf,
    journal: Arc<Journal>,
    answered: AtomicBool,
    ended: watch::Receiver<Option<String>>,
    stop: Arc<Notify>,
}

impl Agent {
    /// Starts it in a network namespace. Blocks for the time of a fork; `runtime` watches over it.
    pub(crate) fn start(
        netns: &NetNs,
        command: &AgentCommand,
        launch: AgentConfig,
        runtime: &Handle,
    ) -> Result<Self, AgentError> {
        let (name, socket) = (launch.name.clone(), launch.socket.clone());
        let mut command = tokio::process::Command::from((command.0)(launch));
        command
            .arg0(format!("ztc-agent {name}"))
            .env_remove(PARENT_ENV)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let spawned = netns.run(|| {
            let _context = runtime.enter();
            command.spawn()
        });
        let child = spawned
            .map_err(|source| AgentError::Enter { name: name.clone(), source })?
            .map_err(|source| AgentError::Spawn { name: name.clone(), source })?;
        let journal = Arc::new(Journal::default());
        let (has_ended, ended) = watch::channel(None);
        let stop = Arc::new(Notify::new());
        runtime.spawn(keep(child, Arc::clone(&stop), Arc::clone(&journal), has_ended));
        Ok(Self { name, socket, journal, answered: AtomicBool::new(false), ended, stop })
    }

    /// A connection to it, as soon as it listens.
    pub(crate) async fn connect(&self, within: Duration) -> Result<UnixStream, AgentError> {
        let deadline = tokio::time::Instant::now() + within;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.check()?;
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => {
                    self.answered.store(true, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(source) if tokio::time::Instant::now() >= deadline => {
                    return Err(AgentError::Silent {
                        name: self.name.clone(),
                        within,
                        log: self.journal.to_string(),
                        source,
                    });
                }
                Err(_not_yet) => {}
            }
        }
    }

    /// Whether it has been reached once and still runs.
    pub(crate) async fn answers(&self) -> bool {
        self.check().is_ok()
            && (self.answered.load(Ordering::Relaxed) || self.connect(Duration::ZERO).await.is_ok())
    }

    /// Whether it runs.
    pub(crate) fn check(&self) -> Result<(), AgentError> {
        match &*self.ended.borrow() {
            None => Ok(()),
            Some(status) => Err(AgentError::Ended {
                name: self.name.clone(),
                status: status.clone(),
                log: self.journal.to_string(),
            }),
        }
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn stop(&self) {
        self.stop.notify_one();
        // An error means that its keeper is gone, and with it the process.
        drop(self.ended.clone().wait_for(Option::is_some).await);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// Watches over an agent until it ends or is to be ended.
async fn keep(
    mut child: Child,
    stop: Arc<Notify>,
    journal: Arc<Journal>,
    ended: watch::Sender<Option<String>>,
) {
    let listening = async {
        if let Some(stderr) = child.stderr.take() {
            each_line(stderr, |line| journal.write(line)).await;
        }
        child.wait().await
    };
    let status = tokio::select! {
        status = listening => status.map_or_else(|error| error.to_string(), |it| it.to_string()),
        () = stop.notified() => {
            let killed = child.kill().await;
            killed.map_or_else(|error| error.to_string(), |()| "stopped by the lab".to_owned())
        }
    };
    ended.send_replace(Some(status));
}
