//! `ztc mutate`: every policy and every rule of the suites taken away, one at a time, to see which case notices.
//!
//! What mutants there are is the model's word, and what became of them the reports'. This room selects them, runs cases with
//! them on the lab, and holds survivors against the list of those that are known.

pub(crate) mod hunt;
mod kills;
pub mod survivors;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use thiserror::Error;
use ztc_engine::event::ExitStatus;
use ztc_engine::profile::FabricKind;
use ztc_model::mutation::{Left, Mutant, mutants};
use ztc_model::suite::Case;
use ztc_model::world::World;
use ztc_report::FileError;
use ztc_report::mutations::{Fate, MutantReport};

use crate::execution::runnable;
use crate::ground::{Ground, GroundError, Place};
use crate::project::{Project, ProjectError};
use crate::selection::{self, Selected, Shard};

use survivors::Survivors;

/// The profile of those who name none.
const DEFAULT_PROFILE: &str = "lab-mutation";

/// What to mutate, and where.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// Take only mutants whose name contains one of these.
    pub(crate) filters: Vec<String>,
    /// List the mutants, without starting anything.
    #[arg(long)]
    pub(crate) list: bool,
    /// Try one part of the mutants alone, such as `2/4`: the second of four.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<Shard>,
    /// The folder for `mutations.json`; otherwise one by the time under `target/ztc/`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The profile to run on: a name under `clusters/`, or a file. It has to be of the lab.
    #[arg(long, default_value = DEFAULT_PROFILE)]
    pub(crate) cluster: String,
}

pub(crate) const AFTER_HELP: &str = "A mutant is killed when an assertion of a case breaks with it that holds without. What a case has no proof of \
with it is noticed as inconclusive, and not counted as killed. Mutants that survive have their reason in \
`suites/survivors.yaml`.

Exit codes: 0 every mutant is noticed or listed with its reason; 1 a survivor is not listed, or a mutant is listed that does \
not survive or does not exist; 2 usage; 3 something went wrong that says nothing about policies.";

/// Why nothing is mutated.
#[derive(Debug, Error)]
pub(crate) enum MutateError {
    /// The suites or the list of survivors cannot be read.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The profile cannot be used.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The profile is of a real cluster.
    #[error("mutants are tried on the lab alone, and `{profile}` is none; leave out --cluster")]
    NoLab {
        /// Which.
        profile: String,
    },
    /// Nothing is selected.
    #[error("no mutant has `{filter}` in its name; `ztc mutate --list` shows them all")]
    Nothing {
        /// What was asked for.
        filter: String,
    },
    /// The part has nothing.
    #[error("part {shard} of {all} mutants has none; give fewer parts")]
    EmptyShard {
        /// Which.
        shard: Shard,
        /// Of how many.
        all: usize,
    },
    /// Signals cannot be listened to.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// What came of it cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

impl MutateError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Ground(error) => error.exit_status(),
            Self::Project(_)
            | Self::NoLab { .. }
            | Self::Nothing { .. }
            | Self::EmptyShard { .. } => ExitStatus::Usage,
            Self::Signals(_) | Self::File(_) => ExitStatus::Inconclusive,
        }
    }
}

/// What is about to be tried.
#[derive(Debug)]
pub(crate) struct Plan {
    /// On what.
    pub(crate) ground: Ground,
    /// The worlds of the cases.
    pub(crate) worlds: BTreeMap<String, Arc<World>>,
    /// The cases that can be run.
    pub(crate) cases: Vec<Case>,
    /// The mutants that are selected, by file.
    pub(crate) mutants: Vec<Mutant>,
    /// By name: why no case of a mutant can be run, where that is so.
    not_run: BTreeMap<String, String>,
    /// Those that are known to survive.
    survivors: Survivors,
    /// Names that are listed and that no mutant has, selected or not.
    unknown: Vec<String>,
    /// Where to keep what came of it.
    pub(crate) out: PathBuf,
}

impl Plan {
    /// Reads everything and selects. Nothing is started.
    pub(crate) fn of(project: &Project, order: &Order, run: &str) -> Result<Self, MutateError> {
        let ground = Ground::find(project, &place(&order.cluster))?;
        if ground.profile.fabric != FabricKind::Lab {
            return Err(MutateError::NoLab { profile: order.cluster.clone() });
        }
        let suites = project.suites()?;
        let survivors = project.survivors()?;
        let all = selection::all(&suites, &ground);
        let every = mutants(all.iter().map(|it| &it.case));
        let unknown = survivors.all().filter(|(name, _)| !every.iter().any(|it| it.name == *name));
        let unknown = unknown.map(|(name, _)| name.to_owned()).collect();
        let mutants = selected(every, order)?;
        let not_run = mutants.iter().filter_map(|it| Some((it.name.clone(), lacks(it, &all)?)));
        Ok(Self {
            not_run: not_run.collect(),
            cases: runnable(&all).map(|it| it.case.clone()).collect(),
            worlds: suites.worlds,
            out: order
                .out
                .clone()
                .unwrap_or_else(|| project.results().join(format!("{run}-mutate"))),
            ground,
            mutants,
            survivors,
            unknown,
        })
    }

    /// What becomes of a mutant whatever cases say; nothing where they are asked.
    pub(crate) fn settled(&self, mutant: &Mutant) -> Option<Fate> {
        match (&mutant.left, self.not_run.get(&mutant.name)) {
            (Left::Refused(why), _) => Some(Fate::Refused { why: why.clone() }),
            (Left::Equivalent(why), _) => Some(Fate::Equivalent { why: why.clone() }),
            (_, Some(why)) => Some(Fate::NotRun { why: why.clone() }),
            (Left::Nothing | Left::Less(_), None) => None,
        }
    }

    /// The lines of the list.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.mutants.iter().map(|mutant| match self.settled(mutant) {
            None => format!("{} ({})", mutant.name, mutant.place()),
            Some(fate) => {
                let why = why(&fate).unwrap_or_default();
                format!("{} ({}; {}: {why})", mutant.name, mutant.place(), fate.word())
            }
        })
    }

    /// Gives survivors their reasons; which reasons are none.
    pub(crate) fn explain(&self, reports: &mut [MutantReport]) -> BTreeMap<String, String> {
        let mut stale: BTreeMap<String, String> = self
            .unknown
            .iter()
            .map(|name| (name.clone(), self.stale(name, "does not exist")))
            .collect();
        for report in reports {
            let Some(reason) = self.survivors.reason(&report.name) else { continue };
            match &report.fate {
                Fate::Survived => report.because = Some(reason.because.clone()),
                // The next run may know.
                Fate::NotRun { .. } | Fate::Undecided { .. } => {}
                fate => {
                    let what = match fate {
                        Fate::Killed { by, .. } => format!("is killed by {by}"),
                        Fate::Inconclusive { by } => format!("is noticed by {by}, as inconclusive"),
                        fate => format!("is {}", fate.word()),
                    };
                    stale.insert(report.name.clone(), self.stale(&report.name, &what));
                }
            }
        }
        stale
    }

    fn stale(&self, name: &str, what: &str) -> String {
        let line = self.survivors.reason(name).map_or(1, |it| it.line);
        format!("{what} ({}:{line})", survivors::FILE)
    }
}

/// Why a mutant came to something without a case, if so.
fn why(fate: &Fate) -> Option<&str> {
    match fate {
        Fate::Refused { why }
        | Fate::Equivalent { why }
        | Fate::NotRun { why }
        | Fate::Undecided { why } => Some(why),
        Fate::Killed { .. } | Fate::Inconclusive { .. } | Fate::Survived => None,
    }
}

fn selected(every: Vec<Mutant>, order: &Order) -> Result<Vec<Mutant>, MutateError> {
    let asked = |it: &Mutant| {
        order.filters.is_empty() || order.filters.iter().any(|filter| it.name.contains(filter))
    };
    let mut mutants: Vec<Mutant> = every.into_iter().filter(asked).collect();
    if mutants.is_empty() {
        return Err(MutateError::Nothing { filter: order.filters.join("` or `") });
    }
    if let Some(shard) = order.shard {
        let all = mutants.len();
        mutants = shard.of(mutants);
        if mutants.is_empty() {
            return Err(MutateError::EmptyShard { shard, all });
        }
    }
    Ok(mutants)
}

/// Why none of a mutant's cases can be run, if so.
fn lacks(mutant: &Mutant, all: &[Selected]) -> Option<String> {
    let mut concerned = all.iter().filter(|it| mutant.concerns(&it.case)).peekable();
    let first = concerned.peek()?.lacks.clone()?;
    concerned.all(|it| it.lacks.is_some()).then_some(first)
}

/// The environment names a cluster for runs; mutants are for the lab.
fn place(cluster: &str) -> Place {
    Place {
        cluster: cluster.to_owned(),
        bundle: None,
        kubeconfig: None,
        context: None,
        i_own_this_cluster: false,
        allow_cluster_wide: false,
        probe_image: None,
        cluster_name: None,
    }
}
