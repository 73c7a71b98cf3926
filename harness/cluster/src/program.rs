//! The commands that make clusters: `kind` and `helm`.
//!
//! They are taken from `.tools/` of the project, where `scripts/tools` puts them, or else from `PATH`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// How long saying its version may take.
const VERSION: Duration = Duration::from_secs(20);

/// How much of what a command said is kept in an error, in lines.
const TAIL: usize = 12;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not here.
    #[error(
        "there is no `{name}` in {} and none on PATH; `scripts/cluster-tools` installs it",
        tools.display()
    )]
    Missing {
        /// Its name.
        name: &'static str,
        /// Where it was looked for first.
        tools: PathBuf,
    },
    /// It is too old, or not what it is called.
    #[error(
        "{command} says {said:?}; at least version {} is needed; `scripts/cluster-tools` installs one",
        version(*wanted)
    )]
    Version {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
        /// Major and minor.
        wanted: (u32, u32),
    },
    /// It could not be started, or not be spoken to.
    #[error("cannot run {command}")]
    Run {
        /// What was run.
        command: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It took too long, and was ended.
    #[error("{command} took longer than {} s and was ended", ceiling.as_secs())]
    Ceiling {
        /// What was run.
        command: String,
        /// How long it was waited for.
        ceiling: Duration,
    },
    /// It said that it failed.
    #[error("{command} failed with {status}; it said last:\n{tail}")]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// The end of its standard error, or of its output where that is empty.
        tail: String,
    },
}

fn version((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// Major and minor of the first version in a text, such as `kind v0.33.0 go1.26.8 linux/amd64`.
fn version_in(text: &str) -> Option<(u32, u32)> {
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    words.filter_map(|word| word.split_once('.')).find_map(|(major, rest)| {
        let minor = rest.split(|it: char| !it.is_ascii_digit()).next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

/// A command that is there.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    name: &'static str,
    path: PathBuf,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Program {
    /// Looks for a command in a folder and then on `PATH`.
    pub(crate) fn find(name: &'static str, tools: &Path) -> Result<Self, ProgramError> {
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(tools.to_owned()).chain(std::env::split_paths(&on_path));
        let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
        let path = found.ok_or_else(|| ProgramError::Missing { name, tools: tools.to_owned() })?;
        Ok(Self { name, path, environment: Vec::new() })
    }

    /// Asks for its version, and refuses one that is older than what is wanted.
    pub(crate) async fn require(
        self,
        ask: &[&str],
        wanted: (u32, u32),
    ) -> Result<Self, ProgramError> {
        let said = self.run(ask, VERSION).await?;
        match version_in(&said) {
            Some(found) if found >= wanted => Ok(self),
            _ => {
                let (command, said) = (self.told(ask), said.trim().to_owned());
                Err(ProgramError::Version { command, said, wanted })
            }
        }
    }

    /// The command with a variable in its environment.
    pub(crate) fn with(mut self, variable: &'static str, value: PathBuf) -> Self {
        self.environment.push((variable, value));
        self
    }

    /// Runs it to its end; what it wrote to standard output.
    pub(crate) async fn run<A: AsRef<OsStr> + Sync>(
        &self,
        arguments: &[A],
        ceiling: Duration,
    ) -> Result<String, ProgramError> {
        self.run_with(Stdio::null(), b"", arguments, ceiling).await
    }

    /// The same, with a lock in its hands as its standard input. If we are killed it works on, and
    /// the lock is free only when it has ended, too.
    pub(crate) async fn run_holding<A: AsRef<OsStr> + Sync>(
        &self,
        lock: File,
        arguments: &[A],
        ceiling: Duration,
    ) -> Result<String, ProgramError> {
        self.run_with(lock.into(), b"", arguments, ceiling).await
    }

    /// The same, with a text on its standard input.
    pub(crate) async fn run_reading<A: AsRef<OsStr> + Sync>(
        &self,
        text: &[u8],
        arguments: &[A],
        ceiling: Duration,
    ) -> Result<String, ProgramError> {
        self.run_with(Stdio::piped(), text, arguments, ceiling).await
    }

    async fn run_with<A: AsRef<OsStr> + Sync>(
        &self,
        stdin: Stdio,
        text: &[u8],
        arguments: &[A],
        ceiling: Duration,
    ) -> Result<String, ProgramError> {
        let command = self.told(arguments);
        let failed = |source| ProgramError::Run { command: command.clone(), source };
        let mut child = Command::new(&self.path)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read its input closes it; whether it succeeds is its own to say.
            input.write_all(text).await.ok();
        }
        let output = timeout(ceiling, child.wait_with_output())
            .await
            .map_err(|_elapsed| ProgramError::Ceiling { command: command.clone(), ceiling })?
            .map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        Err(ProgramError::Failed {
            command,
            status: output.status.to_string(),
            tail: tail(&String::from_utf8_lossy(said)),
        })
    }

    /// The command as somebody would type it.
    fn told<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let words = arguments.iter().map(|it| it.as_ref().to_string_lossy().into_owned());
        let line: Vec<String> = std::iter::once(self.name.to_owned()).chain(words).collect();
        format!("`{}`", line.join(" "))
    }
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs::TryLockError;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell() -> Program {
        Program::find("sh", Path::new("/nowhere")).unwrap()
    }

    #[tokio::test]
    async fn what_it_writes_is_returned() {
        let said = shell().run(&["-c", "printf hello; cat"], SOON).await.unwrap();
        assert_eq!(said, "hello");
    }

    #[tokio::test]
    async fn what_it_reads_is_what_it_is_given() {
        let said = shell().run_reading(b"hello", &["-c", "cat"], SOON).await.unwrap();
        assert_eq!(said, "hello");
    }

    #[tokio::test]
    async fn a_failure_tells_the_command_and_its_last_words() {
        let script = "echo first; seq 1 40 >&2; exit 3";
        let error = shell().run(&["-c", script], SOON).await.unwrap_err().to_string();
        assert!(error.starts_with("`sh -c echo first;") && error.ends_with("39\n40"), "{error}");
        assert!(error.contains("exit status: 3") && !error.contains("\n28\n"), "{error}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended_at_the_ceiling() {
        let error = shell().run(&["-c", "exec sleep 60"], Duration::from_millis(50)).await;
        assert!(matches!(error, Err(ProgramError::Ceiling { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn what_it_holds_is_locked_until_it_ends_although_we_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = File::create(&path).unwrap();
        lock.lock().unwrap();
        // Its child is not waited for, and ends when the file is there. What runs in the background has
        // no standard input but what the shell has kept for it.
        let end = folder.path().join("end");
        let wait = format!("(until test -e {}; do sleep 0.01; done)", end.display());
        let script = format!("exec 3<&0; {wait} >&- 2>&- &");
        shell().run_holding(lock, &["-c", &script], SOON).await.unwrap();
        let other = File::open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        std::fs::write(end, "").unwrap();
        other.lock().unwrap();
    }

    #[test]
    fn versions_are_found_where_programs_write_them() {
        assert_eq!(version_in("kind v0.33.0 go1.26.8 linux/amd64\n"), Some((0, 33)));
        assert_eq!(version_in("v3.22.0+gabcdef"), Some((3, 22)));
        assert_eq!(version_in("v3.22"), Some((3, 22)));
        assert_eq!(version_in("no version"), None);
    }

    #[tokio::test]
    async fn one_that_is_too_old_is_refused() {
        let old = shell().require(&["-c", "echo kind v0.9.1"], (0, 20)).await.unwrap_err();
        assert!(old.to_string().contains("at least version 0.20"), "{old}");
        shell().require(&["-c", "echo v1.0.0"], (0, 20)).await.unwrap();
    }

    #[test]
    fn one_that_is_missing_is_told_with_a_way_out() {
        let error = Program::find("no-such-program", Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("scripts/cluster-tools"), "{error}");
    }
}
