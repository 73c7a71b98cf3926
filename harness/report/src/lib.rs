//! Consumers of the event stream: what a run is shown as, and what it leaves behind.
//!
//! Everything that is said here is in an event. This room must not know fabrics, policies or
//! clocks: a time in a report is a time in an event. Text that came from a cluster is shown with
//! its control characters spelt out, so that it can neither drive a terminal nor break a file.
#![forbid(unsafe_code)]

mod account;
pub mod change;
pub mod comparison;
pub mod conformance;
pub mod console;
pub mod diff;
mod escape;
pub mod evidence;
mod expected;
pub mod failure;
mod file;
pub mod html;
pub mod jsonl;
pub mod junit;
pub mod markdown;
pub mod merge;
pub mod mutations;
mod page;
mod redact;
mod rehearsal;
pub mod repeats;
pub mod reporters;
pub mod run_dir;
pub mod schema;
mod span;
pub mod stored;
pub mod upgrade;

#[cfg(test)]
mod sample;

pub use account::Account;
pub use comparison::{Comparison, NoRun, Side};
pub use console::{Console, ConsoleOptions, Rendered};
pub use diff::Diff;
pub use evidence::EvidenceFolder;
pub use failure::failure_text;
pub use file::FileError;
pub use jsonl::JsonLines;
pub use junit::JUnit;
pub use mutations::Mutations;
pub use repeats::Repeats;
pub use reporters::{ReportError, ReportErrors, Reporters};
pub use run_dir::{RunDir, RunDirError};
pub use schema::schemas;
pub use upgrade::Upgrade;
