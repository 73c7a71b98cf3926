//! Runs the built `ztc` and reads what it left behind.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use ztc_engine::event::{CaseReport, CellReport, Event, EventKind};
use ztc_model::verdict::Verdict;

/// The project that the tests belong to.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A copy of the project's data in a folder of its own, to be broken at will.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["suites", "clusters"] {
            copy(&root().join(part), &folder.path().join(part));
        }
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a text that a file must hold.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.path(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} holds no {from:?}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    pub(crate) fn ztc(&self, args: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_ztc").as_ref(), args)
    }

    /// A program in the project's folder, on the profile and with the faults that it names itself.
    pub(crate) fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.folder.path()).env("NO_COLOR", "1");
        for variable in ["ZTC_CLUSTER", "ZTC_LAB_FAULT", "ZTC_LAB_ZTUNNEL"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs cases with a fault; the exit code and the reports.
    pub(crate) fn run(&self, filter: &str, fault: Option<&str>) -> (i32, Vec<CaseReport>) {
        let mut command = self.ztc(&["run", filter]);
        if let Some(fault) = fault {
            command.env("ZTC_LAB_FAULT", fault);
        }
        let output = command.output().unwrap();
        (code(&output), self.reports())
    }

    /// The events of the last run.
    pub(crate) fn events(&self) -> Vec<Event> {
        let path = self.path("target/ztc/latest/events.jsonl");
        let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        ztc_report::jsonl::read(BufReader::new(file)).map(Result::unwrap).collect()
    }

    /// The reports of the cases of the last run.
    pub(crate) fn reports(&self) -> Vec<CaseReport> {
        let finished = |event: Event| match event.kind {
            EventKind::CaseFinished(report) => Some(*report),
            _ => None,
        };
        self.events().into_iter().filter_map(finished).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The exit code; a process that a signal ended has none.
pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{:?}", output.status))
}

/// What was said on standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The cells of all reports that are expected to be stopped, for good or for a while, or those that are not.
pub(crate) fn cells(reports: &[CaseReport], denied: bool) -> Vec<&CellReport> {
    let cells = reports.iter().flat_map(|report| &report.cells);
    let stopped = |cell: &CellReport| {
        ["denied", "interrupted", "refused"].iter().any(|it| cell.expected.starts_with(it))
    };
    cells.filter(|cell| stopped(cell) == denied).collect()
}

/// How a cell reads in a failed assertion.
pub(crate) fn told(cell: &CellReport) -> String {
    format!("{} sent {}: {}", cell.from, cell.send, cell.verdict)
}

/// The word of a verdict, and of a doubt the kind of doubt.
pub(crate) fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Inconclusive(doubt) => {
            let kind = format!("{doubt:?}");
            format!("inconclusive {}", kind.split(['(', ' ']).next().unwrap_or_default())
        }
        verdict => verdict.word().to_owned(),
    }
}

/// Whether the lab can be entered here. Where it cannot, tests say so and end; in CI they must not.
pub(crate) fn lab_is_possible() -> bool {
    let project = Project::new();
    let output = project.ztc(&["run", "the-metadata-service"]).output().unwrap();
    let impossible = code(&output) == 3 && !project.path("target/ztc/latest").exists();
    assert!(
        !(impossible && std::env::var_os("CI").is_some()),
        "CI has to be able to run the lab: {}",
        stderr(&output)
    );
    !impossible
}
