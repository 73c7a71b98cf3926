//! The last lines of what a background task or a process had to say, for the error that is shown in the end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use ztc_wire::LineSplitter;

/// How many lines are kept.
const LINES: usize = 20;

/// How much of a line is kept, in characters.
const WIDTH: usize = 400;

/// A bounded log.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<VecDeque<String>>);

impl Journal {
    /// Adds a line; the oldest one makes room for it.
    pub(crate) fn write(&self, line: &str) {
        let mut lines = self.lines();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(WIDTH).collect());
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        // Lines are whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its lines, oldest first, each after ` | `; nothing when it is empty.
impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| write!(f, " | {line}"))
    }
}

/// Hands over every line that a process says, until it closes that by ending; of one that is too long, that it is.
pub(super) async fn each_line(mut said: impl AsyncRead + Unpin, mut hear: impl FnMut(&str)) {
    let mut lines = LineSplitter::default();
    let mut piece = [0; 4096];
    loop {
        match said.read(&mut piece).await {
            Ok(length @ 1..) => lines.push(&piece[..length]),
            Ok(0) | Err(_) => return,
        }
        loop {
            match lines.next_line() {
                Ok(Some(line)) => hear(&String::from_utf8_lossy(&line)),
                Ok(None) => break,
                Err(too_long) => {
                    hear(&too_long.to_string());
                    lines = LineSplitter::default();
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_in_order() {
        let journal = Journal::default();
        for number in 0..LINES + 2 {
            journal.write(&number.to_string());
        }
        let text = journal.to_string();
        assert!(text.starts_with(" | 2 | 3 |"), "{text}");
        assert!(text.ends_with(&format!(" | {}", LINES + 1)), "{text}");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let journal = Journal::default();
        journal.write(&"x".repeat(10 * WIDTH));
        assert_eq!(journal.to_string().len(), WIDTH + " | ".len());
    }
}
