//! The same cases again and again: whether their verdicts vary.

use std::io;

use thiserror::Error;
use ztc_engine::event::ExitStatus;
use ztc_report::{Repeats, Side};

use crate::child::{ChildError, Runs};
use crate::comparing::{CompareError, came_to, run_of};
use crate::requests::Requests;
use crate::terminal;

/// Why there is nothing to say of several runs.
#[derive(Debug, Error)]
pub(crate) enum RepeatError {
    /// A run came to nothing.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// Signals cannot be listened to.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// A run cannot be read.
    #[error(transparent)]
    Read(#[from] CompareError),
}

impl RepeatError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Child(error) => error.exit_status(),
            Self::Read(error) => error.exit_status(),
            Self::Signals(_) => ExitStatus::Inconclusive,
        }
    }
}

/// Runs of the same selection that are still to be made.
#[derive(Debug)]
pub(crate) struct Again<'a> {
    /// What they have in common.
    pub(crate) runs: Runs<'a>,
    /// The profile.
    pub(crate) profile: &'a str,
    /// What their names begin with.
    pub(crate) name: &'a str,
    /// How many at most; any number without one.
    pub(crate) times: Option<u32>,
    /// Whether the first that is not as expected is the last.
    pub(crate) until_fail: bool,
}

impl Again<'_> {
    /// Makes the runs, one after the other, until there are enough of them or somebody asks to stop. `seen` is what they said
    /// as they ended.
    pub(crate) async fn run(&self, seen: &mut ExitStatus) -> Result<ExitStatus, RepeatError> {
        let mut requests = Requests::new().map_err(RepeatError::Signals)?;
        let mut asked = false;
        let mut sides: Vec<Side> = Vec::new();
        for number in 1.. {
            let name = format!("{}-{number}", self.name);
            let of = self.times.map(|it| format!(" of {it}")).unwrap_or_default();
            terminal::trouble(&format!("run {number}{of}"));
            let status = self.runs.make(self.profile, &name, (&mut requests, &mut asked)).await?;
            let read = run_of(self.runs.results, &name);
            *seen = seen.or_worse(came_to(status, &read));
            sides.push(read?);
            let enough = self.times.is_some_and(|times| number >= times);
            if asked || enough || (self.until_fail && *seen != ExitStatus::Pass) {
                break;
            }
        }
        let repeats = Repeats::of(&sides);
        let (width, colour) = terminal::look();
        terminal::say("");
        terminal::say(&repeats.text(width, colour));
        // What a run could not do besides its cases is in its exit code alone.
        Ok(repeats.exit_status().with_trouble(*seen != ExitStatus::Pass))
    }
}
