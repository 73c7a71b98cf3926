//! The stream of events as a file: one event a line, whole lines only, readable while it grows.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;
use ztc_engine::event::Event;

use crate::file::FileError;

/// The name of the file, in the folder of the run.
pub const FILE: &str = "events.jsonl";

/// Writes events as lines. Each is handed over in one piece, so that a run that is killed leaves
/// the lines before whole.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
}

impl JsonLines {
    /// Makes the file, empty.
    ///
    /// # Errors
    /// [`FileError::Create`].
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let file = File::create(path)
            .map_err(|source| FileError::Create { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes one event.
    ///
    /// # Errors
    /// [`FileError::Write`]: the file may end in a part of a line now, and nothing should follow.
    pub fn event(&mut self, event: &Event) -> Result<(), FileError> {
        let line = serde_json::to_vec(event).map(|mut line| {
            line.push(b'\n');
            line
        });
        line.map_err(io::Error::from)
            .and_then(|line| self.file.write_all(&line))
            .map_err(|source| FileError::Write { path: self.path.clone(), source })
    }
}

/// Why a line is no event.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The line cannot be read.
    #[error("cannot read line {line}")]
    Read {
        /// Its number, from 1.
        line: usize,
        /// The operating system's words.
        source: io::Error,
    },
    /// The line is no event of this version.
    #[error("line {line} is no event")]
    Malformed {
        /// Its number, from 1.
        line: usize,
        /// What the decoder says.
        source: serde_json::Error,
    },
}

/// The events of a file, in order. A line that is none is an error, and the next one is read all
/// the same: only a killed run leaves such a line, its last.
pub fn read(lines: impl BufRead) -> impl Iterator<Item = Result<Event, ReadError>> {
    (1..).zip(lines.lines()).map(|(line, text)| {
        let text = text.map_err(|source| ReadError::Read { line, source })?;
        serde_json::from_str(&text).map_err(|source| ReadError::Malformed { line, source })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sample;

    fn written(events: &[Event]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut lines = JsonLines::create(&path).unwrap();
        for (number, event) in (1..).zip(events) {
            lines.event(event).unwrap();
            // Not only at the end: nothing waits in a buffer for a run that may be killed.
            assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), number);
        }
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn events_are_read_back_as_they_were_written() {
        let known = sample::known("fail-open", "2026-12-31", sample::fail_open());
        let events = [sample::run(), sample::events("kind", &[known])].concat();
        let read: Vec<Event> = read(written(&events).as_bytes()).collect::<Result<_, _>>().unwrap();
        let values = |events: &[Event]| serde_json::to_value(events).unwrap();
        assert_eq!(values(&read), values(&events));
    }

    #[test]
    fn a_torn_line_is_named_by_its_number() {
        let text = written(&sample::run());
        let lines = text.lines().count();
        let torn = &text.as_bytes()[..text.len() - 10];
        let errors: Vec<_> = read(torn).filter_map(Result::err).collect();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string(), format!("line {lines} is no event"));
    }
}
