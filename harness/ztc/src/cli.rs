//! The command line of `ztc`.

mod clusters;
pub(crate) mod monitor;
mod mutants;
mod several;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tokio::runtime::Runtime;
use ztc_engine::event::ExitStatus;
use ztc_lab::Entered;
use ztc_report::{Console, Diff};

use crate::benching::{self, Bench};
use crate::bundling::{self, BundlingError, Order};
use crate::child;
use crate::comparing::{self, CompareError, Pair};
use crate::execution::{Execution, Plan, run_name, runnable, today};
use crate::ground::{Ground, GroundError, Place, ReadyGround};
use crate::merging::MergeError;
use crate::project::{Project, ProjectError};
use crate::proving::{self, Proven, ProvingError};
use crate::rendering::{self, RenderError, ReportCommand};
use crate::selection::{self, Selected, Shard};
use crate::{cells, merging, mutating, reproducing, schemas, terminal, upgrading};

/// Zero-trust conformance for Kubernetes: who got through, who should have, and who stopped the rest.
#[derive(Debug, Parser)]
#[command(name = "ztc", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 every case passed, or failed as expected; 1 an assertion is broken; 2 the command line or a file is \
wrong, or the selection is empty; 3 no proof either way, or the infrastructure failed; 4 a flow that must be denied \
got through.";

#[derive(Debug, Subcommand)]
enum Command {
    /// List the cases, without starting anything.
    List(Selection),
    /// Run cases.
    Run(Run),
    /// Watch the flows of a case while something changes, and say for how long which of them leaked or was cut.
    #[command(after_help = monitor::AFTER_HELP)]
    Monitor(monitor::Order),
    /// Upgrade a cluster while flows are watched, with the cases before and after, and say what leaked, was cut, or is otherwise.
    #[command(after_help = upgrading::AFTER_HELP)]
    Upgrade(upgrading::Order),
    /// List the cells of the version matrix, or run the cases on the cluster of one.
    #[command(after_help = cells::AFTER_HELP)]
    Matrix(MatrixOrder),
    /// Hold two finished runs against each other, cell by cell.
    #[command(after_help = COMPARED)]
    Compare {
        /// The name of a run under `target/ztc/`, or its folder.
        run: String,
        /// The run to hold it against.
        against: String,
    },
    /// Say what changed from one finished run to another: who gets through now, who is stopped, and by whom.
    #[command(after_help = DIFFERED)]
    Diff {
        /// The run before: its name under `target/ztc/`, or its folder.
        before: String,
        /// The run after.
        after: String,
        /// How to say it.
        #[arg(long, value_enum, default_value = "text")]
        format: DiffFormat,
    },
    /// Reports that people look at.
    #[command(subcommand)]
    Report(ReportCommand),
    /// Write one cell as manifests and a script of kubectl, curl and hubble that show it without ztc.
    #[command(after_help = reproducing::AFTER_HELP)]
    Repro(reproducing::Order),
    /// Write down in `suites/proven.json` which cases passed on a real cluster, out of finished runs.
    Prove(proving::Order),
    /// Make the cluster of a profile, or finish one that was begun, and keep it for runs to come.
    Up(Place),
    /// Look whether a run on a cluster would mean something, and say what to do if not.
    Doctor(Place),
    /// Delete the cluster of a profile, and everything outside it that was made for it.
    Down {
        #[command(flatten)]
        place: Place,
        /// Delete those of all profiles that were made from here.
        #[arg(long)]
        all: bool,
    },
    /// Bundles: everything that a cluster is made of in one folder, for where there is no network.
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Take each policy and each rule of the suites away, one at a time, and see which case notices.
    #[command(after_help = mutating::AFTER_HELP)]
    Mutate(mutating::Order),
    /// Measure what large worlds cost.
    #[command(subcommand)]
    Bench(Bench),
    /// Write the JSON Schemas of suites, worlds, profiles and reports.
    Schema {
        /// The folder to write them to.
        #[arg(long, default_value = schemas::FOLDER)]
        out: PathBuf,
    },
}

const COMPARED: &str = "Cells disagree when they differ in the verdict, in who stopped the flow and how by its \
record, or in what kind of answer the client saw; not in names of nodes, addresses and times. What only one side ran, \
and what is inconclusive on either, is listed as not compared.

Exit codes: 0 everything that was compared agrees and both runs passed; 1 cells disagree, or an assertion is broken on \
a side; 2 usage; 3 a side is inconclusive or did not finish, or nothing was compared; 4 a side has a flow that must be \
denied and got through.";

const DIFFERED: &str = "A flow is newly allowed when it got through and did not before, whatever was expected of it. One that is \
inconclusive on either side, or that only the run before has, is undecided. A time to enforce is slower when it has more than \
doubled, by more than half a second.

Exit codes: 0 nothing changed, or times alone; 1 a flow is newly denied, or denied by somebody else; 2 usage; 3 something \
is undecided, or nothing is in both runs; 4 a flow is newly allowed, or newly in clear.";

/// How a diff is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiffFormat {
    /// For a terminal.
    Text,
    /// For pull requests and summaries of CI.
    Markdown,
    /// For programs: `docs/schemas/diff.schema.json`.
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
struct Run {
    #[command(flatten)]
    selection: Selection,
    /// Show every cell, and progress.
    #[arg(long, short)]
    verbose: bool,
    /// Run the same cases on two profiles, such as `lab,kind`, one after the other, and show each
    /// cell on which they disagree with the evidence of both. It takes the place of `--cluster`.
    /// The comparison is also `comparison.txt` in both folders; `ztc compare --help` says what
    /// counts, and what the exit codes mean then.
    #[arg(long, value_name = "A,B")]
    compare: Option<Pair>,
    /// Run the cases this often, one run after the other, and show those whose verdicts vary: they are flaky, and a verdict
    /// that varies is a broken assertion. A leak in one of the runs is a leak.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..), conflicts_with = "compare")]
    repeat: Option<u32>,
    /// Run the cases again and again until a run is not as expected; at most as often as `--repeat` says.
    #[arg(long, conflicts_with = "compare")]
    until_fail: bool,
    /// Run one part of the cases alone, such as `2/4`: the second of four. The parts of
    /// several machines are put together by `ztc report merge`.
    #[arg(long, value_name = "I/N", conflicts_with_all = ["compare", "repeat", "until_fail"])]
    shard: Option<Shard>,
    /// The name of the run, for who starts it and looks for its folder; it ends when they do.
    #[arg(long = child::RUN_NAME, hide = true, conflicts_with_all = ["compare", "repeat", "until_fail"])]
    fixed_name: Option<String>,
}

#[derive(Debug, Args)]
struct MatrixOrder {
    #[command(flatten)]
    list: cells::Order,
    /// Run cases on the cluster of this cell, as `ztc run --cluster NAME` does.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["select", "format"])]
    cell: Option<String>,
    #[command(flatten)]
    run: Run,
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

/// The whole program.
pub fn main() -> ExitCode {
    if let Some(code) = ztc_probe::run_if_agent().or_else(ztc_cluster::run_if_reaper) {
        return code;
    }
    let given = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&given).unwrap_or_else(|error| error.exit());
    let named = || given.subcommand().is_some_and(|(_, given)| names_a_cluster(given));
    match cli.command {
        Command::List(selection) => list(&selection).into(),
        Command::Run(order) => start(order, named()),
        Command::Matrix(order) => matrix(order, named()),
        Command::Monitor(order) => monitor::monitor(&order),
        Command::Upgrade(order) => several::upgrade(&order).into(),
        Command::Compare { run, against } => {
            let results = Project::find().results();
            compared(comparing::finished(&results, [&run, &against])).into()
        }
        Command::Diff { before, after, format } => differed([&before, &after], format).into(),
        Command::Report(ReportCommand::Render(order)) => rendered(&order).into(),
        Command::Report(ReportCommand::Merge(order)) => put_together(&order).into(),
        Command::Repro(order) => reproduced(&order).into(),
        Command::Prove(order) => proved(&order).into(),
        Command::Up(place) => clusters::up(&place).into(),
        Command::Doctor(place) => clusters::doctor(&place).into(),
        Command::Down { all: true, .. } => clusters::all_down().into(),
        Command::Down { place, .. } => clusters::down(&place).into(),
        Command::Bundle(BundleCommand::Create(order)) => create_bundle(&order).into(),
        Command::Mutate(order) => mutants::mutate(&order),
        Command::Bench(Bench::World(order)) => bench_world(&order),
        Command::Schema { out } => write_schemas(&out).into(),
    }
}

/// Runs cases; `named` says whether a cluster was named on the command line.
fn start(order: Run, named: bool) -> ExitCode {
    match order {
        Run { selection, verbose, compare: Some(pair), .. } => {
            several::run_on_both(&selection, &pair, named, verbose).into()
        }
        Run { selection, verbose, repeat, until_fail, .. } if repeat.is_some() || until_fail => {
            several::run_again(&selection, verbose, repeat, until_fail).into()
        }
        Run { selection, verbose, fixed_name, shard, .. } => {
            run(&selection, verbose, fixed_name, shard)
        }
    }
}

fn matrix(order: MatrixOrder, named: bool) -> ExitCode {
    let MatrixOrder { list, cell, mut run } = order;
    let project = Project::find();
    match cell {
        _ if named => usage(&SelectError::CellAndCluster).into(),
        Some(cell) => match project.the_cell(&cell) {
            Ok(cell) => {
                run.selection.place.cluster = cell.to_string();
                start(run, true)
            }
            Err(error) => usage(&error).into(),
        },
        None if run.selection.filter.is_some() => usage(&SelectError::FilterWithoutCell).into(),
        None => told(cells::list(&project, &list, &run.selection.place), GroundError::exit_status)
            .into(),
    }
}

fn differed(runs: [&str; 2], format: DiffFormat) -> ExitStatus {
    let results = Project::find().results();
    compared(comparing::two_runs(&results, runs).map(|sides| {
        let diff = Diff::of(&sides);
        let (width, colour) = terminal::look();
        terminal::say(&match format {
            DiffFormat::Text => diff.text(width, colour),
            DiffFormat::Markdown => diff.markdown(),
            DiffFormat::Json => diff.json(),
        });
        diff.exit_status()
    }))
}

fn reproduced(order: &reproducing::Order) -> ExitStatus {
    let files = reproducing::write(&Project::find(), order);
    let lines = files.map(|files| files.iter().map(|it| it.display().to_string()).collect());
    told(lines, reproducing::ReproError::exit_status)
}

fn rendered(order: &rendering::Order) -> ExitStatus {
    told(rendering::render(&Project::find().results(), order), RenderError::exit_status)
}

fn put_together(order: &merging::Order) -> ExitStatus {
    ended(merging::merge(&Project::find().results(), order), MergeError::exit_status)
}

fn proved(order: &proving::Order) -> ExitStatus {
    told(proving::prove(&Project::find(), order), ProvingError::exit_status)
}

/// Says the lines that a command came to, or why it came to none.
fn told<E: std::error::Error>(
    lines: Result<Vec<String>, E>,
    status: impl FnOnce(&E) -> ExitStatus,
) -> ExitStatus {
    let said = lines.map(|lines| {
        for line in &lines {
            terminal::say(line);
        }
        ExitStatus::Pass
    });
    ended(said, status)
}

/// How a command ended, after it was said why if it came to nothing.
fn ended<E: std::error::Error>(
    result: Result<ExitStatus, E>,
    status: impl FnOnce(&E) -> ExitStatus,
) -> ExitStatus {
    result.unwrap_or_else(|error| {
        terminal::trouble(&ztc_engine::chain(&error));
        status(&error)
    })
}

fn bench_world(order: &benching::Order) -> ExitCode {
    let ground = match Ground::find(&Project::find(), &order.place) {
        Ok(ground) => ground,
        Err(error) => return trouble(&error).into(),
    };
    inside(&ground, || block_on(measured(&ground, order.pods)))
}

/// Does the work of a command on its ground. A lab is entered by starting the command again, inside of it.
fn inside(ground: &Ground, work: impl FnOnce() -> ExitStatus) -> ExitCode {
    match ground.enter() {
        Ok(Entered::Outside(code)) => code,
        Ok(Entered::Inside) => work().into(),
        Err(error) => {
            terminal::trouble(&ztc_engine::chain(&error));
            ExitStatus::Inconclusive.into()
        }
    }
}

async fn measured(ground: &Ground, pods: u32) -> ExitStatus {
    let ready = match ground.ready(&run_name(), None).await {
        Ok(ready) => ready,
        Err(error) => return trouble(&error),
    };
    let pods = usize::try_from(pods).unwrap_or(usize::MAX);
    match benching::measure(&*ready.fabric.shared(), pods).await {
        Ok(table) => {
            terminal::say(&table);
            ExitStatus::Pass
        }
        Err(error) => {
            terminal::trouble(&ztc_engine::chain(&error));
            ExitStatus::Inconclusive
        }
    }
}

fn create_bundle(order: &Order) -> ExitStatus {
    block_on(async {
        let created = bundling::create(&Project::find(), order).await;
        ended(created.map(|()| ExitStatus::Pass), BundlingError::exit_status)
    })
}

fn write_schemas(out: &Path) -> ExitStatus {
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
    let ground = Ground::find(project, &selection.place)?;
    let profile = ground.profile.clone();
    let suites = project.suites()?;
    let filter = selection.filter.as_deref();
    let cases = selection::matching(selection::all(&suites, &ground), filter, &profile);
    if cases.is_empty() {
        return Err(SelectError::Nothing { filter: filter.unwrap_or_default().to_owned() });
    }
    let worlds: BTreeSet<&String> = cases.iter().map(|it| &it.case.world).collect();
    let needed = suites.worlds.iter().filter(|(name, _)| worlds.contains(name));
    let worlds = needed.map(|(name, world)| (name.clone(), Arc::clone(world))).collect();
    let (results, name) = (project.results(), run_name());
    Ok((Plan { profile, worlds, cases, results, name, numbered: true }, ground))
}

#[derive(Debug, thiserror::Error)]
enum SelectError {
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error("no case has `{filter}` in its name; `ztc list` shows them all")]
    Nothing { filter: String },
    #[error("`{one}` and `{other}` are one profile, `{profile}`; name two different ones")]
    OneProfile { one: String, other: String, profile: String },
    #[error(
        "`{filter}` selects other cases on {one} than on {other}, as the name of a profile is part of their names; \
         give a part of SUITE::CASE"
    )]
    TwoSelections { filter: String, one: String, other: String },
    #[error("part {shard} of {all} cases has none; give fewer parts")]
    EmptyShard { shard: Shard, all: usize },
    #[error("--compare names both profiles; leave out --cluster")]
    ThirdCluster,
    #[error("a cell is a cluster of its own; leave out --cluster, and name the cell with --cell")]
    CellAndCluster,
    #[error("cells have no cases to filter; name one with --cell to run cases on it")]
    FilterWithoutCell,
}

fn list(selection: &Selection) -> ExitStatus {
    match select(selection, &Project::find()) {
        Ok((plan, _ground)) => {
            for selected in &plan.cases {
                terminal::say(&selected.line(&plan.profile, today()));
            }
            ExitStatus::Pass
        }
        Err(error) => usage(&error),
    }
}

fn usage(error: &dyn std::error::Error) -> ExitStatus {
    terminal::trouble(&ztc_engine::chain(error));
    ExitStatus::Usage
}

fn run(
    selection: &Selection,
    verbose: bool,
    name: Option<String>,
    shard: Option<Shard>,
) -> ExitCode {
    let project = Project::find();
    let (mut plan, ground) = match select(selection, &project) {
        Ok(selected) => selected,
        Err(error) => return usage(&error).into(),
    };
    let proven = match Proven::read(&project) {
        Ok(proven) => proven,
        Err(error) => return usage(&error).into(),
    };
    plan.cases = selection::in_turn(plan.cases, &plan.profile, &plan.worlds);
    if let Some(shard) = shard {
        let all = plan.cases.len();
        plan.cases = shard.of(plan.cases);
        if plan.cases.is_empty() {
            return usage(&SelectError::EmptyShard { shard, all }).into();
        }
    }
    if let Some(name) = name {
        name_fixed(&mut plan, name);
    }
    inside(&ground, || run_inside(plan, &proven, &ground, verbose))
}

/// Gives a run the name by which whoever started it looks for it, and has it end with them.
fn name_fixed(plan: &mut Plan, name: String) {
    (plan.name, plan.numbered) = (name, false);
    if let Err(error) = child::end_with_the_parent() {
        terminal::trouble(&format!("this run does not end with who started it: {error}"));
    }
}

/// Whether a cluster was named on the command line; the environment names one for other runs.
fn names_a_cluster(given: &ArgMatches) -> bool {
    given.value_source("cluster") == Some(ValueSource::CommandLine)
}

/// What a comparison comes to.
fn compared(result: Result<ExitStatus, CompareError>) -> ExitStatus {
    ended(result, CompareError::exit_status)
}

fn no_runtime(error: &std::io::Error) -> ExitStatus {
    terminal::trouble(&format!("cannot start a runtime: {error}"));
    ExitStatus::Inconclusive
}

/// Does the work of a command in a runtime.
fn block_on(work: impl Future<Output = ExitStatus>) -> ExitStatus {
    match Runtime::new() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => no_runtime(&error),
    }
}

fn trouble(error: &GroundError) -> ExitStatus {
    terminal::trouble(&ztc_engine::chain(error));
    error.exit_status()
}

fn run_inside(plan: Plan, proven: &Proven, ground: &Ground, verbose: bool) -> ExitStatus {
    block_on(async {
        let cases: Vec<Selected> = runnable(&plan.cases).cloned().collect();
        let lanes = plan.profile.lanes.count;
        let execution = match begin(plan, proven, ground, verbose).await {
            Ok(execution) => Arc::new(execution),
            Err(status) => return status,
        };
        execution.run_all(cases, lanes, |_case, _report| ()).await;
        finish(Arc::into_inner(execution).expect("the cases, which shared it, are over")).await
    })
}

/// Begins a run that a person sees; what the command comes to where it cannot begin is said.
async fn begin(
    plan: Plan,
    proven: &Proven,
    ground: &Ground,
    verbose: bool,
) -> Result<Execution, ExitStatus> {
    let ready = ready_for(&plan, ground).await?;
    begin_on(ready, plan, proven, verbose)
}

/// Makes a ground ready for a run; why it is not is said.
async fn ready_for(plan: &Plan, ground: &Ground) -> Result<ReadyGround, ExitStatus> {
    ground.ready(&plan.name, Some(plan.used())).await.map_err(|it| trouble(&it))
}

/// The same on a ground that is ready.
fn begin_on(
    ready: ReadyGround,
    plan: Plan,
    proven: &Proven,
    verbose: bool,
) -> Result<Execution, ExitStatus> {
    let console = |folder: &Path| Some(Console::new(terminal::options(verbose, folder)));
    Execution::begin(plan, proven, ready, console).map_err(|error| {
        terminal::trouble(&ztc_engine::chain(&error));
        ExitStatus::Inconclusive
    })
}

/// Ends a run, and says what is left to say of it.
async fn finish(execution: Execution) -> ExitStatus {
    let finished = execution.finish().await;
    for line in finished.ledger.iter().chain(&finished.troubles) {
        terminal::trouble(line);
    }
    finished.status
}
