//! `ztc repro`: finds a cell by what a person says, and writes the directory that shows it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use thiserror::Error;
use ztc_engine::event::{CaseReport, CellReport, ExitStatus};
use ztc_model::suite::Case;

use crate::comparing::{self, CompareError};
use crate::project::{Project, ProjectError};
use crate::repro::{self, Question, Refusal, Seen};
use crate::selection::{self, NotOne};

pub(crate) const AFTER_HELP: &str = "Without --cell the cells of the case are listed, if there is more than one. The \
script needs a cluster to throw away and an image with sh, socat, curl, nc, dig and ping; its README says what else. It \
ends with 0 when what the case expects is what happens there.

Exit codes: 0 written; 2 there is no such cell, or standard tools cannot show it; 3 the files cannot be written.";

/// Which cell, and how.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// `SUITE::CASE`, or a part of it that no other case has.
    case: String,
    /// Which of its cells, from 1.
    #[arg(long, value_name = "N")]
    cell: Option<usize>,
    /// A run that has seen it, by name or folder: what it saw is told, and its versions.
    #[arg(long)]
    run: Option<String>,
    /// The profile whose versions it is expected of, without a run.
    #[arg(long, default_value = "kind")]
    cluster: String,
    /// The image of the pods.
    #[arg(long, default_value = repro::IMAGE, value_name = "REF")]
    image: String,
    /// The directory to write to; otherwise one under `target/ztc/repro/`.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Why nothing was written.
#[derive(Debug, Error)]
pub(crate) enum ReproError {
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    NotOne(#[from] NotOne),
    #[error("{case} has {} cells; name one of them with --cell:\n{}", cells.len(), cells.join("\n"))]
    ManyCells { case: String, cells: Vec<String> },
    #[error("cannot show this cell with standard tools")]
    Refused(#[from] Refusal),
    #[error("cannot read the run")]
    Run(#[source] CompareError),
    #[error("run {run} has no such cell of {case}; was it made with other suites?")]
    NotInRun { run: String, case: String },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl ReproError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Write { .. } => ExitStatus::Inconclusive,
            _ => ExitStatus::Usage,
        }
    }
}

/// Writes the directory; the files in it.
pub(crate) fn write(project: &Project, order: &Order) -> Result<Vec<PathBuf>, ReproError> {
    let suites = project.suites()?;
    let cases = suites.suites.iter().flat_map(|suite| &suite.cases);
    let found: Vec<&Case> = cases.filter(|it| it.id.as_str().contains(&order.case)).collect();
    let case = selection::the_one(found, &order.case, |it| *it)?;
    let number = the_cell(case, order.cell)?;
    let policies = policies(project, case)?;
    let run = match &order.run {
        None => None,
        Some(run) => Some(comparing::run_of(&project.results(), run).map_err(ReproError::Run)?),
    };
    let versions = match &run {
        Some(side) => side.run.versions.clone(),
        None => {
            project.profile(&order.cluster)?.cluster.map(|it| it.versions()).unwrap_or_default()
        }
    };
    let seen = run.as_ref().map(|side| {
        let cell = cell_of(&side.reports, case, number).ok_or_else(|| ReproError::NotInRun {
            run: side.run.run.clone(),
            case: case.id.to_string(),
        })?;
        Ok::<_, ReproError>(Seen { run: &side.run.run, fabric: &side.run.fabric, cell })
    });
    let files = repro::files(&Question {
        case,
        number,
        world: &suites.worlds[&case.world],
        policies: &policies,
        image: &order.image,
        versions: &versions,
        seen: seen.transpose()?,
    })?;
    let named = || format!("{}-{}-{number}", case.id.suite(), case.id.name());
    let folder = order.out.clone().unwrap_or_else(|| project.results().join("repro").join(named()));
    files.iter().map(|file| keep(&folder, file)).collect()
}

fn the_cell(case: &Case, asked: Option<usize>) -> Result<usize, ReproError> {
    match (asked, case.cells.len()) {
        (Some(number), _) => Ok(number),
        (None, 1) => Ok(1),
        (None, _) => Err(ReproError::ManyCells {
            case: case.id.to_string(),
            cells: case
                .cells
                .iter()
                .zip(1..)
                .map(|(cell, number)| format!("{number:>4}  {}", repro::line(cell)))
                .collect(),
        }),
    }
}

/// The files that a case applies, once each.
fn policies(project: &Project, case: &Case) -> Result<Vec<(String, String)>, ProjectError> {
    let mut files: Vec<&str> = Vec::new();
    for manifest in &case.apply {
        if !files.contains(&manifest.file.as_str()) {
            files.push(&manifest.file);
        }
    }
    files.into_iter().map(|file| Ok((file.to_owned(), project.text(file)?))).collect()
}

/// What the run saw of the cell.
fn cell_of<'a>(reports: &'a [CaseReport], case: &Case, number: usize) -> Option<&'a CellReport> {
    let cell = case.cells.get(number.checked_sub(1)?)?;
    let report = reports.iter().find(|it| it.case == case.id)?;
    report
        .cells
        .iter()
        .find(|it| it.from == cell.from.to_string() && it.send == cell.send.to_string())
}

fn keep(folder: &Path, file: &repro::File) -> Result<PathBuf, ReproError> {
    let path = folder.join(file.name);
    let written =
        fs::create_dir_all(folder).and_then(|()| fs::write(&path, &file.text)).and_then(|()| {
            let mode = if file.executable { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        });
    match written {
        Ok(()) => Ok(path),
        Err(source) => Err(ReproError::Write { path, source }),
    }
}
