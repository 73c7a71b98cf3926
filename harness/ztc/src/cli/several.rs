//! Commands that make several runs, each as a process of its own: two profiles side by side, or the same cases again.

use std::path::Path;

use tokio::runtime;
use ztc_engine::event::ExitStatus;

use super::{SelectError, Selection, ended, no_runtime, select, usage};
use crate::child::{Runs, What};
use crate::comparing::{CompareError, Pair, SideBySide};
use crate::execution::{self, run_name};
use crate::ground::Place;
use crate::project::Project;
use crate::repeating::{Again, RepeatError};
use crate::upgrading::{self, Plan, UpgradeError};

pub(super) fn run_on_both(
    selection: &Selection,
    pair: &Pair,
    third: bool,
    verbose: bool,
) -> ExitStatus {
    let project = Project::find();
    // Whatever is wrong on either side is told before anything is started.
    if let Err(error) = select_on_both(selection, pair, third, &project) {
        return usage(&error);
    }
    let (results, name) = (project.results(), run_name());
    let both =
        SideBySide { profiles: &pair.0, runs: runs(selection, verbose, &results), name: &name };
    alone(async {
        let mut seen = ExitStatus::Pass;
        let run = both.run(&mut seen).await;
        ended_after(run, CompareError::exit_status, seen)
    })
}

pub(super) fn run_again(
    selection: &Selection,
    verbose: bool,
    times: Option<u32>,
    until_fail: bool,
) -> ExitStatus {
    let project = Project::find();
    // Whatever is wrong is told before anything is started.
    if let Err(error) = select(selection, &project) {
        return usage(&error);
    }
    let (results, name) = (project.results(), run_name());
    let again = Again {
        runs: runs(selection, verbose, &results),
        profile: &selection.place.cluster,
        name: &name,
        times,
        until_fail,
    };
    alone(async {
        let mut seen = ExitStatus::Pass;
        let run = again.run(&mut seen).await;
        ended_after(run, RepeatError::exit_status, seen)
    })
}

pub(super) fn upgrade(order: &upgrading::Order) -> ExitStatus {
    let place = Place::from_environment().unwrap_or_else(|error| error.exit());
    match Plan::of(&Project::find(), order, &place) {
        Ok(plan) => alone(async {
            let mut seen = ExitStatus::Pass;
            let made = plan.make(&run_name(), &mut seen).await;
            ended_after(made, UpgradeError::exit_status, seen)
        }),
        Err(error) => ended(Err(error), UpgradeError::exit_status),
    }
}

/// How a command ended whose runs came to so much: a leak that one of them saw stands, whatever becomes of the command, and
/// of what a run could not do besides its cases its exit code alone tells.
fn ended_after<E: std::error::Error>(
    result: Result<ExitStatus, E>,
    status: impl FnOnce(&E) -> ExitStatus,
    seen: ExitStatus,
) -> ExitStatus {
    ended(result.map(|it| it.or_worse(seen)), |error| status(error).or_worse(seen))
}

fn runs<'a>(selection: &'a Selection, verbose: bool, results: &'a Path) -> Runs<'a> {
    let what = What::Cases { filter: selection.filter.as_deref(), verbose };
    Runs { what, place: &selection.place, results }
}

/// Does the work of a command that makes runs as processes of their own, on this thread alone.
fn alone(work: impl Future<Output = ExitStatus>) -> ExitStatus {
    match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => no_runtime(&error),
    }
}

/// Looks whether the two profiles are two, and whether the same cases are selected on both.
fn select_on_both(
    selection: &Selection,
    Pair(names): &Pair,
    third: bool,
    project: &Project,
) -> Result<(), SelectError> {
    if third {
        return Err(SelectError::ThirdCluster);
    }
    let [one, other] = names.each_ref().map(|name| {
        let place = Place { cluster: name.clone(), ..selection.place.clone() };
        select(&Selection { filter: selection.filter.clone(), place }, project)
    });
    let [one, other] = [one?.0, other?.0];
    if one.profile.profile == other.profile.profile {
        let [first, second] = names.clone();
        let profile = one.profile.profile;
        return Err(SelectError::OneProfile { one: first, other: second, profile });
    }
    let cases =
        |plan: &execution::Plan| plan.cases.iter().map(|it| it.case.id.clone()).collect::<Vec<_>>();
    if cases(&one) != cases(&other) {
        let filter = selection.filter.clone().unwrap_or_default();
        let [one, other] = [one, other].map(|it| it.profile.profile);
        return Err(SelectError::TwoSelections { filter, one, other });
    }
    Ok(())
}
