//! What was seen on a real data plane: `suites/proven.json`, which `ztc prove` writes out of finished runs.
//!
//! A record is of a case as it was asked then. Who changes its policies or expectations asks something else, and that is
//! unproven until it is seen again. The world of a case is not in the record: pods are added to worlds for other cases.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use ztc_engine::event::{ExitStatus, RunStarted};
use ztc_engine::profile::FabricKind;
use ztc_model::suite::{Case, CaseId};
use ztc_model::verdict::Verdict;
use ztc_report::Side;

use crate::comparing::{self, CompareError};
use crate::project::{Project, ProjectError, Suites};

/// The file, in a project.
const FILE: &str = "suites/proven.json";

/// `ztc prove`.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// The runs: their names under `target/ztc/`, or their folders.
    #[arg(required = true)]
    runs: Vec<String>,
}

/// The cases that passed on a real cluster, each with its last record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Proven(BTreeMap<CaseId, Proof>);

/// Where and when a case passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// What it asked: the first 16 digits of the SHA-256 of its question.
    pub question: String,
    /// The fabric: `kind` or `attach`.
    pub fabric: String,
    /// The versions of what enforced it, by part.
    pub versions: BTreeMap<String, String>,
    /// When the run started, RFC 3339, UTC.
    pub started: String,
}

/// Why nothing is proven.
#[derive(Debug, Error)]
pub(crate) enum ProvingError {
    /// A run cannot be read.
    #[error(transparent)]
    Run(#[from] CompareError),
    /// The suites cannot be read.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The run was on the lab.
    #[error("run {run} was on the lab: a rehearsal proves nothing; give one with `--cluster kind`")]
    Rehearsal {
        /// Which.
        run: String,
    },
    /// What is there cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there is not what `ztc prove` writes.
    #[error("{} is not as `ztc prove` writes it; take it back from version control", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ProvingError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Run(error) => error.exit_status(),
            Self::Project(_) | Self::Rehearsal { .. } | Self::Malformed { .. } => ExitStatus::Usage,
            Self::Read { .. } | Self::Write { .. } => ExitStatus::Inconclusive,
        }
    }
}

/// What each of these cases asks, in short.
pub(crate) fn questions<'a, I: IntoIterator<Item = &'a Case>>(
    cases: I,
) -> BTreeMap<CaseId, String> {
    cases.into_iter().map(|case| (case.id.clone(), question(case))).collect()
}

fn question(case: &Case) -> String {
    let digest = Sha256::digest(case.question().as_bytes());
    let (head, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*head))
}

impl Proven {
    /// What is on record in a project; nothing where there is no file yet.
    ///
    /// # Errors
    /// [`ProvingError::Read`] and [`ProvingError::Malformed`].
    pub(crate) fn read(project: &Project) -> Result<Self, ProvingError> {
        let path = project.root().join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ProvingError::Read { path, source }),
        };
        serde_json::from_str(&text).map_err(|source| ProvingError::Malformed { path, source })
    }

    /// The cases that have not passed on a real cluster as they are asked now.
    pub(crate) fn lacking(&self, questions: &BTreeMap<CaseId, String>) -> Vec<CaseId> {
        let has =
            |case: &CaseId, asked: &str| self.0.get(case).is_some_and(|it| it.question == asked);
        questions
            .iter()
            .filter(|(case, asked)| !has(case, asked))
            .map(|(case, _)| case.clone())
            .collect()
    }

    /// Adds what passed in a run; what is there of the same case is older, or of another question. Returns how many were
    /// asked otherwise than they are now, and so prove nothing.
    fn add(&mut self, side: &Side, cases: &BTreeMap<CaseId, String>) -> usize {
        let RunStarted { fabric, versions, started, questions, .. } = &side.run;
        let passed = side.reports.iter().filter(|it| it.verdict == Verdict::Pass);
        let mut otherwise = 0;
        for report in passed {
            let asked = questions.get(&report.case);
            match cases.get(&report.case) {
                Some(now) if asked == Some(now) => {
                    let proof = Proof {
                        question: now.clone(),
                        fabric: fabric.clone(),
                        versions: versions.clone(),
                        started: started.clone(),
                    };
                    let known = self.0.get(&report.case);
                    if known.is_none_or(|it| it.question != *now || it.started < *started) {
                        self.0.insert(report.case.clone(), proof);
                    }
                }
                _ => otherwise += 1,
            }
        }
        otherwise
    }

    fn write(&self, path: &Path) -> Result<(), ProvingError> {
        let text = serde_json::to_string_pretty(self).expect("texts are JSON") + "\n";
        fs::write(path, text)
            .map_err(|source| ProvingError::Write { path: path.to_owned(), source })
    }
}

/// Writes down what passed in these runs; what there is to say of it, in words.
pub(crate) fn prove(project: &Project, order: &Order) -> Result<Vec<String>, ProvingError> {
    let suites = project.suites()?;
    let questions = questions(all(&suites));
    let mut proven = Proven::read(project)?;
    let mut said = Vec::new();
    for run in &order.runs {
        let side = comparing::run_of(&project.results(), run)?;
        if side.run.fabric == FabricKind::Lab.word() {
            return Err(ProvingError::Rehearsal { run: side.run.run });
        }
        let otherwise = proven.add(&side, &questions);
        if otherwise > 0 {
            let run = &side.run.run;
            said.push(format!(
                "{run}: {otherwise} cases are asked otherwise now, and are left out"
            ));
        }
    }
    // What is no longer asked need not be on record.
    proven.0.retain(|case, _| questions.contains_key(case));
    proven.write(&project.root().join(FILE))?;
    let all = questions.len();
    let counted = all - proven.lacking(&questions).len();
    said.push(format!("{counted} of {all} cases are proven on a real data plane"));
    Ok(said)
}

fn all(suites: &Suites) -> Vec<&Case> {
    suites.suites.iter().flat_map(|suite| &suite.cases).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> (Project, Suites) {
        let project = Project::at(Project::sources());
        let suites = project.suites().unwrap();
        (project, suites)
    }

    #[test]
    fn a_case_is_proven_until_it_asks_something_else() {
        let (_, suites) = project();
        let case = all(&suites)[0].clone();
        let proof = Proof {
            question: question(&case),
            fabric: "kind".to_owned(),
            versions: BTreeMap::new(),
            started: "2026-11-29T15:00:00Z".to_owned(),
        };
        let proven = Proven(BTreeMap::from([(case.id.clone(), proof)]));
        let has = |case: &Case| proven.lacking(&questions([case])).is_empty();
        assert!(has(&case));
        let reworded = Case { because: "It is so.".to_owned(), line: 1, ..case.clone() };
        assert!(has(&reworded), "a better reason asks nothing else");
        let fewer = Case { cells: case.cells[1..].to_vec(), ..case.clone() };
        assert!(!has(&fewer));
        let elsewhere = Case { world: "elsewhere".to_owned(), ..case };
        assert!(!has(&elsewhere));
    }

    #[test]
    fn no_two_cases_ask_the_same() {
        let (_, suites) = project();
        let mut asked: BTreeMap<String, &CaseId> = BTreeMap::new();
        for case in all(&suites) {
            if let Some(other) = asked.insert(question(case), &case.id) {
                panic!("{} asks what {other} does", case.id);
            }
        }
    }

    #[test]
    fn what_is_on_record_is_of_cases_that_there_are() {
        let (project, suites) = project();
        let proven = Proven::read(&project).unwrap();
        let cases: Vec<&CaseId> = all(&suites).into_iter().map(|case| &case.id).collect();
        for (case, proof) in &proven.0 {
            assert!(cases.contains(&case), "{case} is on record and no case: run `ztc prove`");
            assert_ne!(proof.fabric, "lab", "{case}");
        }
    }
}
