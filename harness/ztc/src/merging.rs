//! `ztc report merge`: the parts of a run, put together again.

use std::path::Path;

use clap::Args;
use thiserror::Error;
use ztc_engine::event::{Event, EventKind, ExitStatus};
use ztc_report::merge::{self, NotParts};
use ztc_report::{ReportErrors, Reporters, RunDir, RunDirError, Side};

use crate::comparing::{self, CompareError};
use crate::execution::run_name;
use crate::terminal;

/// Which runs.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Order {
    /// The names of runs under `target/ztc/`, or their folders: the parts, such as those of `ztc run --shard`.
    #[arg(required = true, num_args = 2..)]
    runs: Vec<String>,
    /// The name of the whole, a folder under `target/ztc/`; otherwise one by the time.
    #[arg(long)]
    name: Option<String>,
}

const AFTER_HELP: &str = "Parts are of one profile and of the same versions, and no case is in two of them.

Exit codes: those of the whole run, as `ztc run` has them; 2 what is given is no parts of one run; 3 the reports cannot be \
written.";

/// Why there is no whole.
#[derive(Debug, Error)]
pub(crate) enum MergeError {
    /// A part cannot be read.
    #[error(transparent)]
    Part(#[from] CompareError),
    /// They are no parts of one run.
    #[error("these runs are not put together")]
    NotParts(#[from] NotParts),
    /// There is no folder for the whole.
    #[error("cannot make the folder of the whole")]
    Folder(#[from] RunDirError),
    /// Its reports cannot be written.
    #[error(transparent)]
    Reports(#[from] ReportErrors),
}

impl MergeError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Part(error) => error.exit_status(),
            Self::NotParts(_)
            | Self::Folder(RunDirError::BadName { .. } | RunDirError::Taken { .. }) => {
                ExitStatus::Usage
            }
            Self::Folder(_) | Self::Reports(_) => ExitStatus::Inconclusive,
        }
    }
}

/// Puts runs together, with all reports; what the whole came to.
pub(crate) fn merge(results: &Path, order: &Order) -> Result<ExitStatus, MergeError> {
    let mut parts: Vec<Vec<Event>> = Vec::new();
    for run in &order.runs {
        parts.push(comparing::events(&comparing::folder_of(results, run)?)?);
    }
    let name = order.name.clone().unwrap_or_else(run_name);
    let events = merge::merged(parts, &name)?;
    let folder = RunDir::create(results, &name)?;
    let mut reporters = Reporters::new(&folder);
    for event in &events {
        reporters.event(event);
    }
    reporters.finish()?;
    terminal::say(&folder.path().display().to_string());
    Ok(came_to(events))
}

fn came_to(events: Vec<Event>) -> ExitStatus {
    let interrupted = events.iter().any(|it| matches!(it.kind, EventKind::Interrupted));
    match Side::of(events) {
        Ok(whole) => whole.summary.exit_status().with_trouble(interrupted),
        // It was put together as one.
        Err(_) => ExitStatus::Inconclusive,
    }
}
