//! The command line of `ztc`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use ztc_engine::event::ExitStatus;
use ztc_engine::profile::Profile;
use ztc_lab::Entered;
use ztc_report::Console;

use crate::bundling::{self, Order};
use crate::conformance::DEFAULT_PROFILE;
use crate::execution::{Execution, Plan, run_name, runnable};
use crate::ground::{BUNDLE_ENV, Ground, GroundError};
use crate::project::{Project, ProjectError};
use crate::selection::{self, Selected};
use crate::{schemas, terminal};

/// Zero-trust conformance for Kubernetes: who got through, who should have, and who stopped the rest.
#[derive(Debug, Parser)]
#[command(name = "ztc", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 every case passed; 1 an assertion is broken; 2 the command line or a file is \
wrong, or the selection is empty; 3 no proof either way, or the infrastructure failed; 4 a flow that must be denied \
got through.";

#[derive(Debug, Subcommand)]
enum Command {
    /// List the cases, without starting anything.
    List(Selection),
    /// Run cases.
    Run {
        #[command(flatten)]
        selection: Selection,
        /// Show every cell, and progress.
        #[arg(long, short)]
        verbose: bool,
    },
    /// Make the cluster of a profile, or finish one that was begun, and keep it for runs to come.
    Up(Place),
    /// Look whether a run on a cluster would mean something, and say what to do if not.
    Doctor(Place),
    /// Delete the cluster of a profile, and everything outside it that was made for it.
    Down(Place),
    /// Bundles: everything that a cluster is made of in one folder, for where there is no network.
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Write the JSON Schemas of suites, worlds, profiles and reports.
    Schema {
        /// The folder to write them to.
        #[arg(long, default_value = schemas::FOLDER)]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Make one from registries. Needs a network, helm and a Docker engine.
    Create(Order),
}

#[derive(Debug, Args)]
struct Selection {
    /// Take only cases whose name contains this.
    filter: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Place {
    /// The profile to run on: a name under `clusters/`, or a file.
    #[arg(long, env = "ZTC_CLUSTER", default_value = DEFAULT_PROFILE)]
    cluster: String,
    /// A folder with everything that a cluster is made of, so that nothing is pulled.
    #[arg(long, env = BUNDLE_ENV)]
    bundle: Option<PathBuf>,
}

impl Place {
    fn ground(&self, project: &Project) -> Result<Ground, GroundError> {
        Ground::find(project, &self.cluster, self.bundle.clone())
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    if let Some(code) = ztc_probe::run_if_agent() {
        return code;
    }
    match Cli::parse().command {
        Command::List(selection) => list(&selection).into(),
        Command::Run { selection, verbose } => run(&selection, verbose),
        Command::Up(place) => up(&place).into(),
        Command::Doctor(place) => doctor(&place).into(),
        Command::Down(place) => down(&place).into(),
        Command::Bundle(BundleCommand::Create(order)) => create_bundle(&order).into(),
        Command::Schema { out } => write_schemas(&out).into(),
    }
}

fn create_bundle(order: &Order) -> ExitStatus {
    block_on(async {
        match bundling::create(&Project::find(), order).await {
            Ok(()) => ExitStatus::Pass,
            Err(error) => {
                terminal::trouble(&ztc_engine::chain(&error));
                error.exit_status()
            }
        }
    })
}

fn write_schemas(out: &std::path::Path) -> ExitStatus {
    match schemas::write(out) {
        Ok(()) => ExitStatus::Pass,
        Err((path, error)) => {
            terminal::trouble(&format!("cannot write {}: {error}", path.display()));
            ExitStatus::Inconclusive
        }
    }
}

/// What is selected, or why nothing can be.
fn select(selection: &Selection, project: &Project) -> Result<(Plan, Ground), SelectError> {
    let ground = selection.place.ground(project)?;
    let profile = ground.profile.clone();
    let suites = project.suites()?;
    let filter = selection.filter.as_deref();
    let cases = selection::matching(selection::all(&suites, &profile), filter, &profile);
    if cases.is_empty() {
        return Err(SelectError::Nothing { filter: filter.unwrap_or_default().to_owned() });
    }
    let worlds: BTreeSet<&String> = cases.iter().map(|it| &it.case.world).collect();
    let needed = suites.worlds.iter().filter(|(name, _)| worlds.contains(name));
    let worlds = needed.map(|(name, world)| (name.clone(), Arc::clone(world))).collect();
    let plan = Plan { profile, worlds, cases, results: project.results(), name: run_name() };
    Ok((plan, ground))
}

#[derive(Debug, thiserror::Error)]
enum SelectError {
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error("no case has `{filter}` in its name; `ztc list` shows them all")]
    Nothing { filter: String },
}

fn list(selection: &Selection) -> ExitStatus {
    match select(selection, &Project::find()) {
        Ok((plan, _ground)) => {
            for selected in &plan.cases {
                terminal::say(&line(selected, &plan.profile));
            }
            ExitStatus::Pass
        }
        Err(error) => usage(&error),
    }
}

fn line(selected: &Selected, profile: &Profile) -> String {
    match &selected.lacks {
        None => selected.test_name(profile),
        Some(lacks) => format!("{} (ignored: {lacks})", selected.test_name(profile)),
    }
}

fn usage(error: &dyn std::error::Error) -> ExitStatus {
    terminal::trouble(&ztc_engine::chain(error));
    ExitStatus::Usage
}

fn run(selection: &Selection, verbose: bool) -> ExitCode {
    let (plan, ground) = match select(selection, &Project::find()) {
        Ok(selected) => selected,
        Err(error) => return usage(&error).into(),
    };
    match ground.enter() {
        Ok(Entered::Outside(code)) => code,
        Ok(Entered::Inside) => run_inside(plan, &ground, verbose).into(),
        Err(error) => {
            terminal::trouble(&ztc_engine::chain(&error));
            ExitStatus::Inconclusive.into()
        }
    }
}

/// Does the work of a command in a runtime.
fn block_on(work: impl Future<Output = ExitStatus>) -> ExitStatus {
    match Runtime::new() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            terminal::trouble(&format!("cannot start a runtime: {error}"));
            ExitStatus::Inconclusive
        }
    }
}

fn up(place: &Place) -> ExitStatus {
    on_ground(place, async |ground| {
        ground.up(&run_name()).await?;
        Ok(ExitStatus::Pass)
    })
}

fn down(place: &Place) -> ExitStatus {
    on_ground(place, async |ground| {
        ground.down().await?;
        Ok(ExitStatus::Pass)
    })
}

fn doctor(place: &Place) -> ExitStatus {
    on_ground(place, async |ground| {
        let findings = ground.findings(&run_name()).await?;
        for finding in &findings {
            terminal::say(&finding.to_string());
        }
        if findings.iter().any(|it| it.blocks) {
            return Ok(ExitStatus::Inconclusive);
        }
        terminal::say("a run on this cluster would mean something");
        Ok(ExitStatus::Pass)
    })
}

/// Does something with the ground of a place.
fn on_ground(
    place: &Place,
    work: impl AsyncFnOnce(Ground) -> Result<ExitStatus, GroundError>,
) -> ExitStatus {
    let ground = match place.ground(&Project::find()) {
        Ok(ground) => ground,
        Err(error) => return trouble(&error),
    };
    block_on(async { work(ground).await.unwrap_or_else(|error| trouble(&error)) })
}

fn trouble(error: &GroundError) -> ExitStatus {
    terminal::trouble(&ztc_engine::chain(error));
    error.exit_status()
}

fn run_inside(plan: Plan, ground: &Ground, verbose: bool) -> ExitStatus {
    block_on(async {
        let ready = match ground.ready(&plan.name).await {
            Ok(ready) => ready,
            Err(error) => return trouble(&error),
        };
        let cases: Vec<Selected> = runnable(&plan.cases).cloned().collect();
        let folder = plan.results.join(&plan.name);
        let console = Console::new(terminal::options(verbose, &folder));
        let execution = match Execution::begin(plan, ready, Some(console)) {
            Ok(execution) => Arc::new(execution),
            Err(error) => {
                terminal::trouble(&ztc_engine::chain(&error));
                return ExitStatus::Inconclusive;
            }
        };
        // Every case asks for a lane; the runner gives them out as they become free.
        let mut running = JoinSet::new();
        for case in cases {
            let execution = Arc::clone(&execution);
            running.spawn(async move { execution.run(&case).await.is_some() });
        }
        while running.join_next().await.is_some() {}
        let execution = Arc::into_inner(execution).expect("the cases, which shared it, are over");
        let finished = execution.finish().await;
        for trouble in &finished.troubles {
            terminal::trouble(trouble);
        }
        finished.status
    })
}
