//! `cargo test --test conformance`: every case is a test, on the contract of libtest and nextest.
//!
//! Listing reads files and nothing else. A case that the fabric cannot run is listed as ignored, by
//! what the profile declares. Nothing but libtest's own lines goes to standard output.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinError;
use ztc_engine::event::{CaseReport, ExitStatus};
use ztc_engine::expected::Standing;
use ztc_engine::profile::Profile;
use ztc_lab::Entered;
use ztc_model::verdict::Verdict;

use crate::execution::{Execution, Plan, run_name, runnable};
use crate::ground::{Ground, GroundError, Place};
use crate::project::{Project, Suites};
use crate::proving::Proven;
use crate::selection::{self, Selected};
use crate::terminal;

/// The whole program.
pub fn main() -> ExitCode {
    if let Some(code) = ztc_probe::run_if_agent().or_else(ztc_cluster::run_if_reaper) {
        return code;
    }
    let args = Arguments::from_args();
    let project = Project::find();
    let place = match Place::from_environment() {
        Ok(place) => place,
        Err(error) => {
            terminal::trouble(&error.to_string());
            return ExitStatus::Usage.into();
        }
    };
    let (suites, ground) = match read(&project, &place) {
        Ok(read) => read,
        Err(error) => {
            terminal::trouble(&ztc_engine::chain(&error));
            return error.exit_status().into();
        }
    };
    let profile = &ground.profile;
    let cases = selection::all(&suites, &ground);
    if args.list {
        return libtest_mimic::run(&args, list(&cases, profile)).exit_code();
    }
    let cases = selected(&args, cases, profile);
    if cases.is_empty() {
        terminal::trouble("the filter selects no case; `--list` shows them all");
        return ExitStatus::Usage.into();
    }
    let proven = match Proven::read(&project) {
        Ok(proven) => proven,
        Err(error) => {
            terminal::trouble(&ztc_engine::chain(&error));
            return error.exit_status().into();
        }
    };
    let plan = Plan {
        cases: selection::in_turn(cases, profile, &suites.worlds),
        worlds: suites.worlds,
        results: project.results(),
        name: name(&args),
        numbered: true,
        profile: profile.clone(),
    };
    match ground.enter() {
        Ok(Entered::Outside(code)) => code,
        Ok(Entered::Inside) => run(&args, plan, &proven, &ground),
        Err(error) => {
            terminal::trouble(&ztc_engine::chain(&error));
            ExitStatus::Inconclusive.into()
        }
    }
}

fn read(project: &Project, place: &Place) -> Result<(Suites, Ground), GroundError> {
    let ground = Ground::find(project, place)?;
    Ok((project.suites()?, ground))
}

fn list(cases: &[Selected], profile: &Profile) -> Vec<Trial> {
    cases.iter().map(|it| trial(it, profile, || Ok(()))).collect()
}

fn trial(
    selected: &Selected,
    profile: &Profile,
    run: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    Trial::test(selected.test_name(profile), run).with_ignored_flag(selected.lacks.is_some())
}

/// The same of a case that may turn out to be one that is not counted.
fn ignorable(
    selected: &Selected,
    profile: &Profile,
    run: impl FnOnce() -> Result<Completion, Failed> + Send + 'static,
) -> Trial {
    Trial::ignorable_test(selected.test_name(profile), run)
        .with_ignored_flag(selected.lacks.is_some())
}

fn selected(args: &Arguments, cases: Vec<Selected>, profile: &Profile) -> Vec<Selected> {
    cases.into_iter().filter(|it| !args.is_filtered_out(&trial(it, profile, || Ok(())))).collect()
}

/// Under nextest every test is a process of its own; its folder tells which.
fn name(args: &Arguments) -> String {
    match (std::env::var("NEXTEST_RUN_ID"), &args.filter) {
        (Ok(run), Some(test)) => format!("nextest-{run}-{}", test.replace("::", "-")),
        _ => run_name(),
    }
}

fn run(args: &Arguments, plan: Plan, proven: &Proven, ground: &Ground) -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::trouble(&format!("cannot start a runtime: {error}"));
            return ExitStatus::Inconclusive.into();
        }
    };
    let _inside = runtime.enter();
    let profile = plan.profile.clone();
    let cases = plan.cases.clone();
    let ready = match runtime.block_on(ground.ready(&plan.name, Some(plan.used()))) {
        Ok(ready) => ready,
        Err(error) => {
            terminal::trouble(&ztc_engine::chain(&error));
            return error.exit_status().into();
        }
    };
    let execution = match Execution::begin(plan, proven, ready, |_folder| None) {
        Ok(execution) => Arc::new(execution),
        Err(error) => {
            terminal::trouble(&ztc_engine::chain(&error));
            return ExitStatus::Inconclusive.into();
        }
    };
    let folder = execution.folder().to_owned();
    // Trials wait for what their cases come to, and not on cores: lanes take cases in an order of their own.
    let at_once = args.test_threads.map_or(profile.lanes.count, |it| it.min(profile.lanes.count));
    let mut args = args.clone();
    args.test_threads.get_or_insert(cases.len());
    let mut told = BTreeMap::new();
    let trials = cases
        .iter()
        .map(|selected| {
            let (tell, told_of) = oneshot::channel();
            told.insert(selected.case.id.clone(), tell);
            let (handle, folder) = (runtime.handle().clone(), folder.clone());
            let lacks = selected.lacks.clone();
            ignorable(selected, &profile, move || match &lacks {
                // One that is asked for although it is ignored.
                Some(lacks) => Err(Failed::from(lacks)),
                None => judge(handle.block_on(told_of).ok().flatten(), &folder),
            })
        })
        .collect();
    let told = Mutex::new(told);
    let tell = move |selected: &Selected, report| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tell) = told.remove(&selected.case.id) {
            // Whoever asked for it may have ended.
            tell.send(report).ok();
        }
    };
    let cases = runnable(&cases).cloned().collect();
    let all = Arc::clone(&execution);
    let running = runtime.spawn(async move { all.run_all(cases, at_once, tell).await });
    let conclusion = libtest_mimic::run(&args, trials);
    if let Err(panic) = runtime.block_on(running).map_err(JoinError::into_panic) {
        std::panic::resume_unwind(panic);
    }
    let execution = Arc::into_inner(execution).expect("the cases, which shared it, are over");
    let finished = runtime.block_on(execution.finish());
    for line in finished.ledger.iter().chain(&finished.troubles) {
        terminal::trouble(line);
    }
    terminal::trouble(&format!("reports: {}", folder.display()));
    match finished.status {
        ExitStatus::Pass if conclusion.has_failed() => ExitStatus::Failed.into(),
        status => status.into(),
    }
}

/// What failed as expected is ignored, as it is `skipped` in `junit.xml`: `ok` would call it a pass.
fn judge(report: Option<CaseReport>, folder: &Path) -> Result<Completion, Failed> {
    let Some(report) = report else {
        return Err(Failed::from("not run: the run was interrupted"));
    };
    let told = ztc_report::failure_text(&report, Some(folder));
    match (report.standing(), &report.verdict) {
        (Some(Standing::AsExpected), _) => {
            terminal::trouble(&format!("{} failed as expected\n{told}", report.case));
            Ok(Completion::ignored_with("failed as expected"))
        }
        (Some(Standing::Expired), Verdict::Pass) => {
            terminal::trouble(&format!("{} passed\n{told}", report.case));
            Ok(Completion::Completed)
        }
        (None | Some(Standing::Otherwise), Verdict::Pass) => Ok(Completion::Completed),
        _ => Err(Failed::from(told)),
    }
}
