//! A run as a process of its own, for commands that make several: the lab has to be the first process of its namespaces.
//!
//! The folder of such a run is fixed beforehand by its name, and never guessed. Whoever asks the command to stop asks the
//! run, which then cleans up.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitStatus as ProcessStatus;

use rustix::process::{Pid, Signal};
use thiserror::Error;
use tokio::process::{Child, Command};
use ztc_engine::event::ExitStatus;
use ztc_report::jsonl;

use crate::ground::Place;
use crate::requests::Requests;

/// The option of `ztc run` and `ztc monitor` that fixes the name of the run.
pub(crate) const RUN_NAME: &str = "run-name";

/// Why a run as a process of its own came to nothing.
#[derive(Debug, Error)]
pub(crate) enum ChildError {
    /// It could not be started.
    #[error("cannot execute this program again for {profile}")]
    Start { profile: String, source: io::Error },
    /// It could not be waited for.
    #[error("cannot wait for the run on {profile}")]
    Wait { profile: String, source: io::Error },
    /// It left no events.
    #[error("the run on {profile} did not begin; it says why above")]
    NotBegun { profile: String, usage: bool },
}

impl ChildError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::NotBegun { usage: true, .. } => ExitStatus::Usage,
            Self::Start { .. } | Self::Wait { .. } | Self::NotBegun { .. } => {
                ExitStatus::Inconclusive
            }
        }
    }
}

/// What all runs of a command have in common.
#[derive(Debug)]
pub(crate) struct Runs<'a> {
    /// What is run.
    pub(crate) what: What<'a>,
    /// What was said of the place besides the profile.
    pub(crate) place: &'a Place,
    /// Where the folders of runs are made.
    pub(crate) results: &'a Path,
}

/// What is run.
#[derive(Debug)]
pub(crate) enum What<'a> {
    /// Cases, by `ztc run`.
    Cases {
        /// Which; all of them without one.
        filter: Option<&'a str>,
        /// Whether every cell is shown.
        verbose: bool,
    },
    /// A case whose flows are watched while something changes, by `ztc monitor`.
    Change {
        /// The whole name of the case.
        case: &'a str,
        /// Its options besides.
        options: Vec<OsString>,
    },
}

impl Runs<'_> {
    /// Makes a run of that name on a profile, and waits for its end. `asked` says from then on whether somebody has asked to
    /// stop meanwhile.
    ///
    /// The runtime has to be one of a single thread, the caller's: the run ends with the thread that started it.
    pub(crate) async fn make(
        &self,
        profile: &str,
        name: &str,
        (requests, asked): (&mut Requests, &mut bool),
    ) -> Result<ExitStatus, ChildError> {
        let profile_name = || profile.to_owned();
        let mut process = self
            .command(profile, name)
            .spawn()
            .map_err(|source| ChildError::Start { profile: profile_name(), source })?;
        let status = hand_on_until_ended(requests, &mut process, asked)
            .await
            .map_err(|source| ChildError::Wait { profile: profile_name(), source })?;
        let status = said_by(status);
        if self.results.join(name).join(jsonl::FILE).is_file() {
            return Ok(status);
        }
        let usage = status == ExitStatus::Usage;
        Err(ChildError::NotBegun { profile: profile_name(), usage })
    }

    /// This very program, as a run on a profile.
    fn command(&self, profile: &str, name: &str) -> Command {
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg0("ztc");
        command.arg(match self.what {
            What::Cases { .. } => "run",
            What::Change { .. } => "monitor",
        });
        command.args(["--cluster", profile, &format!("--{RUN_NAME}"), name]);
        command.args(self.place.arguments());
        match &self.what {
            What::Cases { filter, verbose } => {
                command.args(verbose.then_some("--verbose"));
                // A filter may begin with a hyphen.
                command.args(filter.iter().flat_map(|filter| ["--", filter]));
            }
            What::Change { case, options } => {
                command.args(options).arg(case);
            }
        }
        // A group of its own: a terminal's Ctrl-C reaches this process alone and is handed on once,
        // as a second one would end the run before it has cleaned up.
        command.process_group(0);
        command.into()
    }
}

/// What a run said as it ended; one that was killed says nothing.
fn said_by(status: ProcessStatus) -> ExitStatus {
    use ExitStatus::{FailOpen, Failed, Inconclusive, Pass, Usage};
    let is_said = |it: &ExitStatus| status.code() == Some(i32::from(*it as u8));
    [Pass, Failed, Usage, Inconclusive, FailOpen].into_iter().find(is_said).unwrap_or(Inconclusive)
}

/// Waits for the end of a run, which is asked whatever this process is asked.
async fn hand_on_until_ended(
    requests: &mut Requests,
    process: &mut Child,
    asked: &mut bool,
) -> io::Result<ProcessStatus> {
    loop {
        let request = tokio::select! {
            status = process.wait() => return status,
            request = requests.next() => request,
        };
        *asked = true;
        if let Some(pid) = process.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // One that cannot be signalled has ended, and the next turn sees that.
            rustix::process::kill_process(pid, request).ok();
        }
    }
}

/// Has this process stop politely when the one ends that started it, `kill -9` included. Best
/// effort: entering a user namespace makes the kernel forget it, and the run then goes to its end.
pub(crate) fn end_with_the_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn what_a_run_said_is_known_by_its_exit_code_and_who_was_killed_said_nothing() {
        for (wait, said) in [
            (0, ExitStatus::Pass),
            (0x100, ExitStatus::Failed),
            (0x200, ExitStatus::Usage),
            (0x300, ExitStatus::Inconclusive),
            (0x400, ExitStatus::FailOpen),
            (0x6500, ExitStatus::Inconclusive),
            (9, ExitStatus::Inconclusive),
        ] {
            assert_eq!(said_by(ProcessStatus::from_raw(wait)), said, "{wait:#x}");
        }
    }
}
