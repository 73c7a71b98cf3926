//! `ztc-probe`: the agent of a real pod, and the bridge that an exec session runs to reach it.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use ztc_probe::{AttachError, attach, exit_code, run_if_agent};
use ztc_wire::AGENT_ENV;

/// The agent of a pod; without a command it is told what to do by the variable `ZTC_AGENT`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pass stdin and stdout to and from the agent.
    Attach {
        /// The agent's socket.
        #[arg(long)]
        socket: PathBuf,
    },
}

fn main() -> ExitCode {
    // The arguments come first: an exec session inherits the container's environment, and with it
    // the variable that makes the container's first process an agent.
    match Arguments::parse().command {
        Some(Command::Attach { socket }) => exit_code(bridge(&socket)),
        None => run_if_agent().unwrap_or_else(|| {
            let message = format!("neither a command nor {AGENT_ENV} is given");
            Arguments::command().error(ErrorKind::MissingSubcommand, message).exit()
        }),
    }
}

fn bridge(socket: &Path) -> Result<(), AttachError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(AttachError::Runtime)?;
    let ended = runtime.block_on(attach(socket, tokio::io::stdin(), tokio::io::stdout()));
    // A read of stdin cannot be taken back: waiting for it would outlive the agent's end.
    runtime.shutdown_background();
    ended
}
