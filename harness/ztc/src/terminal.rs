//! The terminal: results on standard output, progress and troubles on standard error.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;

use ztc_report::{ConsoleOptions, Rendered};

/// Lines are this wide where nobody says otherwise.
const WIDTH: usize = 100;

/// How results look here: by `NO_COLOR`, `COLUMNS` and whether standard output is a terminal.
pub(crate) fn options(verbose: bool, folder: &Path) -> ConsoleOptions {
    let (width, colour) = look();
    ConsoleOptions { width, colour, verbose, folder: Some(folder.to_owned()) }
}

/// How wide a result may be, and whether it is painted.
pub(crate) fn look() -> (usize, bool) {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    (width(), !no_colour && stdout().is_terminal())
}

fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok());
    let window = rustix::termios::tcgetwinsize(stdout()).ok().map(|it| usize::from(it.ws_col));
    columns.or(window).filter(|width| *width >= 40).unwrap_or(WIDTH)
}

/// Shows what a renderer made of an event.
pub(crate) fn show(rendered: Rendered) {
    if let Some(progress) = rendered.progress {
        trouble(&progress);
    }
    if let Some(result) = rendered.result {
        say(&result);
    }
}

/// A line of result.
pub(crate) fn say(line: &str) {
    // A reader that has gone away (`| head`) ends the showing, not the run.
    writeln!(stdout(), "{line}").ok();
}

/// A line that is no result.
pub(crate) fn trouble(line: &str) {
    writeln!(stderr(), "{line}").ok();
}
