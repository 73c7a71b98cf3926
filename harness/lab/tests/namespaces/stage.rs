//! Parts that this executable plays, and the processes in which it plays them.

use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::OnceLock;

use libtest_mimic::Failed;
use ztc_lab::{Entered, enter};

use crate::inside;

/// The variable that names the part.
pub(crate) const PART: &str = "ZTC_LAB_TEST_PART";

/// The part that does nothing.
pub(crate) const NOTHING: &str = "nothing";
/// The part that brings a lane up, says [`READY`], and waits for an interrupt.
pub(crate) const WAIT: &str = "wait";
/// What [`WAIT`] says when its lane is up.
pub(crate) const READY: &str = "ready";
/// What [`WAIT`] ends with after an interrupt.
pub(crate) const INTERRUPTED: u8 = 42;
/// What every part ends with that could not enter the lab.
const NOT_ENTERED: u8 = 3;

/// Plays a part inside the lab.
#[expect(clippy::print_stderr, reason = "the check outside reads it there")]
pub(crate) fn play(part: &str) -> ExitCode {
    match enter() {
        Ok(Entered::Outside(code)) => return code,
        Ok(Entered::Inside) => {}
        Err(error) => {
            eprintln!("{}", with_causes(&error));
            return ExitCode::from(NOT_ENTERED);
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime needs threads only");
    let check = inside::checks().find(|(name, _)| *name == part);
    let played = match (part, check) {
        (NOTHING, _) => Ok(ExitCode::SUCCESS),
        (WAIT, _) => runtime.block_on(inside::wait()),
        (_, Some((_, check))) => runtime.block_on(check()).map(|()| ExitCode::SUCCESS),
        (_, None) => Err(format!("there is no part {part}").into()),
    };
    played.unwrap_or_else(|error| {
        eprintln!("{}", with_causes(error.as_ref()));
        ExitCode::FAILURE
    })
}

/// An error and everything that it comes from.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_causes(source)),
        None => error.to_string(),
    }
}

/// Why the lab cannot be entered here, if it cannot.
pub(crate) fn missing_privileges() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING
        .get_or_init(|| {
            let output = command(NOTHING).output().expect("this executable can be executed");
            let refused = output.status.code() == Some(NOT_ENTERED.into());
            refused.then(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
        })
        .clone()
}

/// This executable, about to play a part.
fn command(part: &str) -> Command {
    let executable = env::current_exe().expect("this executable has a path");
    let mut command = Command::new(executable);
    command.env(PART, part);
    command
}

/// A part being played in a process of its own. Dropped, it is killed.
pub(crate) struct Scene {
    process: Child,
    stdout: BufReader<ChildStdout>,
}

impl Scene {
    /// Starts a part.
    pub(crate) fn start(part: &str) -> Result<Self, Failed> {
        let mut process = command(part)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Self { process, stdout })
    }

    /// The number of the process outside.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The next line that it writes.
    pub(crate) fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> Result<ExitStatus, Failed> {
        Ok(self.process.wait()?)
    }

    /// Kills the process outside, as `kill -9` does.
    pub(crate) fn kill(&mut self) -> Result<(), Failed> {
        Ok(self.process.kill()?)
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn passes(mut self) -> Result<(), Failed> {
        let stderr = self.process.stderr.take().expect("it is piped");
        let words = std::io::read_to_string(stderr)?;
        match self.end()? {
            status if status.success() => Ok(()),
            status => Err(format!("{status}: {words}").into()),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // It has commonly ended by now; then there is nothing to kill.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
