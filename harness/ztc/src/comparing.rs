//! Runs held against each other: two that are there, or two that are made for it on two profiles.
//!
//! Each side is a run like any other.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use ztc_engine::event::{Event, ExitStatus};
use ztc_report::jsonl::{self, ReadError};
use ztc_report::{Comparison, FileError, NoRun, Side, comparison};

use crate::child::{ChildError, Runs};
use crate::requests::Requests;
use crate::terminal;

/// How wide the comparison in a folder is.
const FILE_WIDTH: usize = 100;

/// The names of two profiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair(pub(crate) [String; 2]);

/// A text that does not name two profiles.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NotAPair {
    #[error("name two profiles with a comma between, such as `lab,kind`")]
    Count,
    #[error("`{name}` is named twice; name two different profiles")]
    Twice { name: String },
}

impl FromStr for Pair {
    type Err = NotAPair;

    fn from_str(text: &str) -> Result<Self, NotAPair> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match <[String; 2]>::try_from(names) {
            Ok([one, other]) if one.is_empty() || other.is_empty() => Err(NotAPair::Count),
            Ok([one, other]) if one == other => Err(NotAPair::Twice { name: one }),
            Ok(names) => Ok(Self(names)),
            Err(_other_count) => Err(NotAPair::Count),
        }
    }
}

/// Why two runs cannot be compared.
#[derive(Debug, Error)]
pub(crate) enum CompareError {
    /// There is no such run.
    #[error(
        "there is no run `{name}`: give a folder with {}, or the name of one under {}",
        jsonl::FILE,
        results.display()
    )]
    NoRun { name: String, results: PathBuf },
    /// A run agrees with itself whatever it came to.
    #[error("`{one}` and `{other}` are the same run; give two")]
    SameRun { one: String, other: String },
    /// The events of a run cannot be opened.
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The events of a run cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: ReadError },
    /// The events are those of no run.
    #[error("cannot compare {}", folder.display())]
    Unfit { folder: PathBuf, source: NoRun },
    /// A side came to nothing that could be compared.
    #[error("nothing is compared")]
    Side(#[from] ChildError),
    /// Signals cannot be listened to.
    #[error("cannot listen for signals")]
    Signals { source: io::Error },
    /// Somebody asked to stop before both sides had run.
    #[error("interrupted: the run on {profile} is not made, so nothing is compared")]
    Interrupted { profile: String },
    /// The comparison cannot be kept.
    #[error("the comparison is not kept")]
    Keep(#[from] FileError),
}

impl CompareError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::NoRun { .. }
            | Self::SameRun { .. }
            | Self::Open { .. }
            | Self::Read { .. }
            | Self::Unfit { .. } => ExitStatus::Usage,
            Self::Side(error) => error.exit_status(),
            Self::Signals { .. } | Self::Interrupted { .. } | Self::Keep(_) => {
                ExitStatus::Inconclusive
            }
        }
    }
}

/// Holds two runs against each other that are there.
pub(crate) fn finished(results: &Path, names: [&str; 2]) -> Result<ExitStatus, CompareError> {
    let comparison = Comparison::of(two_runs(results, names)?);
    show(&comparison);
    Ok(comparison.exit_status())
}

/// Two different runs that are there.
pub(crate) fn two_runs(results: &Path, names: [&str; 2]) -> Result<[Side; 2], CompareError> {
    let [one, other] = names.map(|name| folder_of(results, name));
    let folders = [one?, other?];
    let [one, other] = folders.each_ref().map(|it| fs::canonicalize(it).ok());
    if one.is_some() && one == other {
        let [one, other] = names.map(ToOwned::to_owned);
        return Err(CompareError::SameRun { one, other });
    }
    sides(&folders)
}

/// The folder of a run by its name, or by its path.
pub(crate) fn folder_of(results: &Path, name: &str) -> Result<PathBuf, CompareError> {
    let has_events = |folder: &PathBuf| folder.join(jsonl::FILE).is_file();
    [results.join(name), PathBuf::from(name)]
        .into_iter()
        .find(has_events)
        .ok_or_else(|| CompareError::NoRun { name: name.to_owned(), results: results.to_owned() })
}

fn sides(folders: &[PathBuf; 2]) -> Result<[Side; 2], CompareError> {
    let [one, other] = folders.each_ref().map(|it| side(it));
    Ok([one?, other?])
}

/// A run that is there, by its name or its folder.
pub(crate) fn run_of(results: &Path, name: &str) -> Result<Side, CompareError> {
    side(&folder_of(results, name)?)
}

/// What a run came to: what it said as it ended, and what its events say, which holds of one that was killed, too.
pub(crate) fn came_to(said: ExitStatus, read: &Result<Side, CompareError>) -> ExitStatus {
    read.as_ref().map_or(said, |side| said.or_worse(side.exit_status()))
}

fn side(folder: &Path) -> Result<Side, CompareError> {
    let events = events(folder)?;
    Side::of(events).map_err(|source| CompareError::Unfit { folder: folder.to_owned(), source })
}

/// The events of the run in a folder.
pub(crate) fn events(folder: &Path) -> Result<Vec<Event>, CompareError> {
    let path = folder.join(jsonl::FILE);
    let file =
        File::open(&path).map_err(|source| CompareError::Open { path: path.clone(), source })?;
    let mut events: Vec<Event> = Vec::new();
    let mut lines = jsonl::read(BufReader::new(file)).peekable();
    while let Some(line) = lines.next() {
        match line {
            Ok(event) => events.push(event),
            // A run that was killed leaves a part of a line; that it did not finish is told.
            Err(ReadError::Malformed { line: 2.., .. }) if lines.peek().is_none() => {}
            Err(source) => return Err(CompareError::Read { path, source }),
        }
    }
    Ok(events)
}

fn show(comparison: &Comparison) {
    let (width, colour) = terminal::look();
    terminal::say(&comparison.text(width, colour));
}

/// Two runs of the same selection that are still to be made.
#[derive(Debug)]
pub(crate) struct SideBySide<'a> {
    /// The profiles, as they were named.
    pub(crate) profiles: &'a [String; 2],
    /// What both have in common.
    pub(crate) runs: Runs<'a>,
    /// What the names of both runs begin with.
    pub(crate) name: &'a str,
}

impl SideBySide<'_> {
    /// Makes both runs, one after the other, and holds them against each other. `seen` is what they said as they ended.
    pub(crate) async fn run(&self, seen: &mut ExitStatus) -> Result<ExitStatus, CompareError> {
        let names = ["a", "b"].map(|side| format!("{}-{side}", self.name));
        let mut requests = Requests::new().map_err(|source| CompareError::Signals { source })?;
        let mut interrupted = false;
        let mut read = Vec::new();
        for (profile, name) in self.profiles.iter().zip(&names) {
            if interrupted {
                return Err(CompareError::Interrupted { profile: profile.clone() });
            }
            terminal::trouble(&format!("comparing: the run on {profile}"));
            let status = self.runs.make(profile, name, (&mut requests, &mut interrupted)).await?;
            let side = side(&self.runs.results.join(name));
            *seen = seen.or_worse(came_to(status, &side));
            read.push(side);
        }
        let [one, other] =
            <[_; 2]>::try_from(read).expect("a run was made on each of two profiles");
        let comparison = Comparison::of([one?, other?]);
        terminal::say("");
        show(&comparison);
        let text = comparison.text(FILE_WIDTH, false);
        for name in &names {
            let path = comparison::write(&self.runs.results.join(name), &text)?;
            terminal::trouble(&format!("comparison: {}", path.display()));
        }
        // What a run could not do besides its cases is in its exit code alone.
        Ok(comparison.exit_status().with_trouble(*seen != ExitStatus::Pass))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_profiles_are_two_different_names_with_a_comma_between() {
        let pair: Pair = "lab, kind".parse().unwrap();
        assert_eq!(pair.0, ["lab", "kind"]);
        for text in ["", "lab", ",", "lab,", ",kind", "lab,kind,attach"] {
            assert_eq!(text.parse::<Pair>(), Err(NotAPair::Count), "{text:?}");
        }
        let twice = NotAPair::Twice { name: "lab".to_owned() };
        assert_eq!("lab,lab".parse::<Pair>(), Err(twice));
    }
}
