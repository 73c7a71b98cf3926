//! Programs of others that do one thing and end, with a ceiling.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Why a program did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// It cannot be started, or not be waited for.
    #[error(transparent)]
    Run(#[from] io::Error),
    /// It does not end.
    #[error("it does not end within {0:?}")]
    Silent(Duration),
}

/// Runs a program in the namespaces of the calling thread, with something to read, and returns what it says. It is killed when
/// it takes longer than the ceiling.
pub(crate) fn run(
    command: &mut Command,
    reads: &str,
    ceiling: Duration,
) -> Result<Output, ProgramError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let stdin = child.stdin.take();
    let reads = reads.to_owned();
    let (says, said) = mpsc::channel();
    thread::Builder::new().name("program".to_owned()).spawn(move || {
        if let Some(mut stdin) = stdin {
            // What one that ended early did not read is in what it says.
            drop(stdin.write_all(reads.as_bytes()));
        }
        // Nobody listens any more to one that took too long.
        drop(says.send(child.wait_with_output()));
    })?;
    match said.recv_timeout(ceiling) {
        Ok(output) => Ok(output?),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            // One that has just ended need not be.
            kill_process(pid, Signal::KILL).ok();
            Err(ProgramError::Silent(ceiling))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_reads_it_may_say() {
        let output = run(&mut Command::new("cat"), "moo", Duration::from_secs(10)).unwrap();
        assert_eq!(output.stdout, b"moo");
    }

    #[test]
    fn one_that_does_not_end_is_not_waited_for() {
        let error = run(Command::new("sleep").arg("60"), "", Duration::from_millis(10));
        assert!(matches!(error, Err(ProgramError::Silent(_))), "{error:?}");
    }
}
