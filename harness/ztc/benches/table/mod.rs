//! How benchmarks tell what they measured: a table of what is wished for beside it. Nothing in it passes or fails.

use std::io::Write;
use std::process::ExitCode;

/// What the process exits with: that it could not be run is told.
pub(crate) fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("the benchmark could not be run: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The head of the table.
pub(crate) fn head() {
    row("what", "measured", "wished");
    row("-", "-", "-");
}

/// A row of it.
pub(crate) fn row(what: &str, measured: &str, wished: &str) {
    say(&format!("| {what:<58} | {measured:>16} | {wished:>14} |"));
}

/// A line, if somebody reads it.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

/// The middle of some values, the upper of two; not a number where there are none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
