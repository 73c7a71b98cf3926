//! The agent: serves, starts its first runs, and then holds sessions until it is told to end.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use ztc_wire::{AGENT_ENV, AgentConfig, ConfigError, FromAgent, PROTOCOL};

use crate::exit::exit_code;
use crate::run::{RunError, Runs};
use crate::serve::{self, ServeError};
use crate::spool::{self, Spool};
use crate::tls::{Tls, TlsError};
use crate::{interfaces, random, session};

/// Why an agent does not start, or ends.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The environment variable does not hold a configuration.
    #[error("read the configuration")]
    Config(#[from] ConfigError),
    /// No runtime for its tasks.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// No handler for the signals that end it.
    #[error("wait for signals")]
    Signals(#[source] io::Error),
    /// No permission for as many open files as runs may need.
    #[error("raise the limit of open files")]
    OpenFiles(#[source] io::Error),
    /// The socket for sessions cannot be made.
    #[error("listen for sessions on {}", path.display())]
    Listen {
        /// Its path.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// Sessions cannot be accepted any more.
    #[error("accept a session")]
    Accept(#[source] io::Error),
    /// What the configuration has for TLS is of no use.
    #[error("make TLS ready")]
    Tls(#[from] TlsError),
    /// A service cannot start, or ended.
    #[error("serve")]
    Serve(#[from] ServeError),
    /// A run of the configuration cannot start.
    #[error("start the first runs")]
    First(#[from] RunError),
}

/// What the sessions of an agent share.
#[derive(Debug)]
pub(crate) struct Agent {
    name: String,
    incarnation: u64,
    pub(crate) spool: Arc<Spool>,
    pub(crate) runs: Arc<Runs>,
}

impl Agent {
    fn new(name: String, tls: Tls, resolv_conf: PathBuf) -> Self {
        let spool = Arc::new(Spool::new());
        let runs = Arc::new(Runs::new(Arc::clone(&spool), tls, resolv_conf));
        Self { name, incarnation: random::u64(), spool, runs }
    }

    /// The answer to an attach. The addresses are looked up anew: a network may come up late.
    pub(crate) fn hello(&self) -> io::Result<FromAgent> {
        Ok(FromAgent::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            name: self.name.clone(),
            addresses: interfaces::addresses()?,
            incarnation: self.incarnation,
            now_us: spool::now_us(),
        })
    }
}

/// Becomes an agent until SIGTERM or SIGINT if [`AGENT_ENV`] is set; `None` if it is not. Errors
/// are told on stderr. To be called before there is any other runtime.
pub fn run_if_agent() -> Option<ExitCode> {
    let value = std::env::var_os(AGENT_ENV)?;
    let ended = AgentConfig::from_json(value.as_encoded_bytes())
        .map_err(AgentError::from)
        .and_then(|config| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().map_err(AgentError::Runtime)?;
            runtime.block_on(run(config))
        });
    Some(exit_code(ended))
}

/// Runs an agent on the current runtime. Everything is listening before the first run starts.
/// Ends well at SIGTERM or SIGINT: a pod's first process has no default action for them
/// (`pid_namespaces(7)`), and its pod would linger for the whole grace period.
pub async fn run(config: AgentConfig) -> Result<(), AgentError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    raise_open_files().map_err(AgentError::OpenFiles)?;

    let tls = Tls::new(config.tls.as_ref())?;
    let mut services = serve::start(&config.name, &config.serve, tls.server.as_ref())?;
    let listener = listen(&config.socket)
        .map_err(|source| AgentError::Listen { path: config.socket.clone(), source })?;
    let agent = Arc::new(Agent::new(config.name, tls, config.resolv_conf));
    for first in config.first {
        agent.runs.start(first.id, first.deadline_ms, first.stimulus, None)?;
    }

    tokio::select! {
        Err(error) = accept(&agent, &listener) => Err(AgentError::Accept(error)),
        error = services.ended() => Err(error.into()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn accept(agent: &Arc<Agent>, listener: &UnixListener) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        let agent = Arc::clone(agent);
        tokio::spawn(async move { session::hold(&agent, stream).await });
    }
}

/// Listens where an earlier start of this agent may have left its socket.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    UnixListener::bind(path)
}

/// A run holds a socket, and containers often start with a soft limit of 1024.
fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
