//! `ztc report render`: the reports that people look at, made again from the events of a run.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use thiserror::Error;
use ztc_engine::event::ExitStatus;
use ztc_report::conformance::{self, NotConformance};
use ztc_report::{html, jsonl, markdown, stored};

use crate::comparing::{self, CompareError};
use crate::{merging, terminal};

/// What there is to do with reports.
#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Make a report again from the stored events of a run, also of one that was cut short.
    #[command(after_help = RENDERED)]
    Render(Order),
    /// Put the parts of a run together again, with all reports.
    Merge(merging::Order),
}

const RENDERED: &str = "Lines of the events that cannot be understood, such as a last one that was cut or those of a newer ztc, \
are skipped; the report says so.

Exit codes: 0 written, whatever the run came to; 2 there is no such run, or nothing in its events tells which run it is; \
3 the report cannot be written.";

/// Which report of which run.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// The name of a run under `target/ztc/`, or its folder.
    run: String,
    /// What kind of report.
    #[arg(long, value_enum, default_value = "html")]
    format: Format,
    /// The file to write to; `-` is standard output. Otherwise `report.html`, `report.md` or `report.yaml` in the run's folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The kinds of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One page, complete in itself.
    Html,
    /// For pull requests and summaries of CI.
    Markdown,
    /// Close to Gateway API's `ConformanceReport`, of a run on a real cluster that came to its end.
    Conformance,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub(crate) enum RenderError {
    /// The run cannot be found.
    #[error(transparent)]
    Run(#[from] CompareError),
    /// Its events cannot be opened.
    #[error("cannot open {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Nothing that is in it can be told of a run.
    #[error("no run begins in {}, so there is nothing to report", path.display())]
    NotStarted { path: PathBuf },
    /// The run has no such report.
    #[error("the run has no conformance report")]
    NotConformance(#[from] NotConformance),
    /// The report cannot be written.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl RenderError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Run(_)
            | Self::Open { .. }
            | Self::NotStarted { .. }
            | Self::NotConformance(_) => ExitStatus::Usage,
            Self::Write { .. } => ExitStatus::Inconclusive,
        }
    }
}

/// Writes the report; the lines to say of it.
pub(crate) fn render(results: &Path, order: &Order) -> Result<Vec<String>, RenderError> {
    let folder = comparing::folder_of(results, &order.run)?;
    let path = folder.join(jsonl::FILE);
    let file =
        File::open(&path).map_err(|source| RenderError::Open { path: path.clone(), source })?;
    let account = stored::account(BufReader::new(file));
    for what in account.skipped() {
        terminal::trouble(&format!("skipped: {what}"));
    }
    if !account.is_of_a_run() {
        return Err(RenderError::NotStarted { path });
    }
    let (text, name) = match order.format {
        Format::Html => (html::page(&account), html::FILE),
        Format::Markdown => (markdown::page(&account), markdown::FILE),
        Format::Conformance => (conformance::document(&account)?, conformance::FILE),
    };
    let out = order.out.clone().unwrap_or_else(|| folder.join(name));
    if out == Path::new("-") {
        return Ok(vec![text.trim_end().to_owned()]);
    }
    match fs::write(&out, text) {
        Ok(()) => Ok(vec![out.display().to_string()]),
        Err(source) => Err(RenderError::Write { path: out, source }),
    }
}
