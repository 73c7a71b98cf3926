//! `ztc monitor`: one case, and what becomes of its flows while something changes under its policies.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::process::Command;
use ztc_engine::change::{Act, Change, Step};
use ztc_engine::event::ExitStatus;
use ztc_model::suite::Component;

use super::{
    Plan, SelectError, Selection, begin_on, block_on, finish, inside, name_fixed, ready_for,
    select, usage,
};
use crate::ground::{Ground, GroundError, Place};
use crate::project::Project;
use crate::proving::Proven;
use crate::selection::{self, NotOne, Selected};
use crate::upgrading::way::{Way, WayError};
use crate::{child, terminal};

pub(super) const AFTER_HELP: &str = "The case runs as it always does: controls, policies, denials held. Then every flow of it is \
sent again and again on fresh sockets, what is allowed over TCP in a connection that goes on as well, while the steps are made \
in this order: --for, --restart, the command. After that come proof and recovery. A window is a leak, an outage or blind from \
its first sample to the next one that is as it must be; it counts for the verdict of its cell.

Examples:
  ztc monitor l1-cluster::the-baseline --restart cilium
  ztc monitor stack::probes-pass-every-layer --cluster kind -- helm upgrade cilium cilium/cilium --version 1.20.2
  ztc monitor l2-namespace::ingress --for 10m

Exit codes: 0 the case passed, and so did the change; 1 an outage is longer than --allow-outage, or an assertion is broken; 2 \
usage; 3 no proof either way, somebody was blind, or the change failed; 4 a flow that must be denied got through.";

/// What is watched, and what changes.
#[derive(Debug, Args)]
pub(super) struct Order {
    /// `SUITE::CASE`, or a part of it that no other case has.
    case: String,
    #[command(flatten)]
    place: Place,
    /// Restart this everywhere at once, and wait until it is back.
    #[arg(long, value_name = "COMPONENT", value_parser = component)]
    restart: Option<Component>,
    /// Upgrade the cluster meanwhile to this profile, or cell of `ztc matrix`, in the supported order. `ztc upgrade` does so
    /// with the suites before and after.
    #[arg(long, value_name = "PROFILE")]
    upgrade_to: Option<String>,
    /// The bundle of the new versions, for where no registry has them.
    #[arg(long, value_name = "DIR", requires = "upgrade_to")]
    to_bundle: Option<PathBuf>,
    /// And back to the old versions.
    #[arg(long, requires = "upgrade_to")]
    rollback: bool,
    /// Watch for so long without a change, such as `10m`.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    quiet: Option<Duration>,
    /// From one sample of a flow to the next, at least 1 ms. Windows are known to this time at either end.
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = time)]
    every: Duration,
    /// The longest outage of a flow that is no failure.
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = time)]
    allow_outage: Duration,
    /// How long flows are watched before the first step and after the last one.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    margin: Duration,
    /// The name of the run, for who starts it and looks for its folder; it ends when they do.
    #[arg(long = child::RUN_NAME, hide = true)]
    fixed_name: Option<String>,
    /// A command that makes the change, with its arguments; what it prints goes to stderr.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Why nothing is watched.
#[derive(Debug, Error)]
enum MonitorError {
    #[error(transparent)]
    Select(#[from] SelectError),
    #[error("nothing changes: give --restart, --upgrade-to, --for, or a command after `--`")]
    NoChange,
    #[error(transparent)]
    Way(#[from] WayError),
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error(transparent)]
    NotOne(#[from] NotOne),
    #[error("{case} does not run on {profile}: {lacks}")]
    Lacks { case: String, profile: String, lacks: String },
    #[error("{profile} has no `{feature}`: {component} cannot be restarted there")]
    Restart { profile: String, feature: String, component: Component },
    #[error("--every is at least 1 ms")]
    TooFast,
}

pub(super) fn monitor(order: &Order) -> ExitCode {
    let project = Project::find();
    let (plan, selected, ground, way) = match prepare(order, &project) {
        Ok(prepared) => prepared,
        Err(error) => return usage(&error).into(),
    };
    let proven = match Proven::read(&project) {
        Ok(proven) => proven,
        Err(error) => return usage(&error).into(),
    };
    inside(&ground, || {
        block_on(async {
            let watched = watched(order, plan, &proven, (&selected, &ground), way);
            Box::pin(watched).await.unwrap_or_else(|it| it)
        })
    })
}

async fn watched(
    order: &Order,
    plan: Plan,
    proven: &Proven,
    (selected, ground): (&Selected, &Ground),
    way: Option<Way>,
) -> Result<ExitStatus, ExitStatus> {
    let ready = ready_for(&plan, ground).await?;
    let upgrade = match way {
        Some(way) => way.begin(&ready.fabric).await.map_err(|error| {
            terminal::trouble(&ztc_engine::chain(&error));
            error.exit_status()
        })?,
        None => Vec::new(),
    };
    let execution = begin_on(ready, plan, proven, false)?;
    execution.watch(selected, &order.change(upgrade)).await;
    Ok(finish(execution).await)
}

type Prepared = (Plan, Selected, Ground, Option<Way>);

fn prepare(order: &Order, project: &Project) -> Result<Prepared, MonitorError> {
    let nothing = order.restart.is_none() && order.upgrade_to.is_none() && order.quiet.is_none();
    if nothing && order.command.is_empty() {
        return Err(MonitorError::NoChange);
    }
    if order.every < Duration::from_millis(1) {
        return Err(MonitorError::TooFast);
    }
    let selection = Selection { filter: Some(order.case.clone()), place: order.place.clone() };
    let (mut plan, ground) = select(&selection, project)?;
    let profile = plan.profile.profile.clone();
    let selected = selection::the_one(plan.cases, &order.case, |it| &it.case)?;
    if let Some(lacks) = &selected.lacks {
        let (case, lacks) = (selected.case.id.to_string(), lacks.clone());
        return Err(MonitorError::Lacks { case, profile, lacks });
    }
    if let Some(component) = order.restart {
        let feature = component.feature();
        if !plan.profile.features.contains(&feature) {
            let feature = feature.to_string();
            return Err(MonitorError::Restart { profile, feature, component });
        }
    }
    plan.cases = vec![selected.clone()];
    let way = match &order.upgrade_to {
        Some(to) => {
            // It is the same cluster, whatever its new versions are called.
            let name = order.place.cluster_name.clone().unwrap_or(profile);
            let place = Place {
                cluster: to.clone(),
                bundle: order.to_bundle.clone(),
                cluster_name: Some(name),
                ..order.place.clone()
            };
            let to = Ground::find(project, &place)?;
            Some(Way::of(&ground, &to, order.rollback)?)
        }
        None => None,
    };
    if let Some(name) = &order.fixed_name {
        name_fixed(&mut plan, name.clone());
    }
    Ok((plan, selected, ground, way))
}

impl Order {
    fn change(&self, upgrade: Vec<Step>) -> Change {
        let quiet =
            self.quiet.map(|time| Step { name: "nothing".to_owned(), act: Act::Wait(time) });
        let restart = self.restart.map(|component| Step {
            name: format!("restart {component}"),
            act: Act::Restart(component),
        });
        let command = (!self.command.is_empty()).then(|| {
            let command: Arc<[String]> = self.command.clone().into();
            Step {
                name: command.join(" "),
                act: Act::Call(Box::new(move || Box::pin(run(Arc::clone(&command))))),
            }
        });
        Change {
            steps: quiet.into_iter().chain(restart).chain(upgrade).chain(command).collect(),
            every: self.every,
            outage: self.allow_outage,
            margin: self.margin,
        }
    }
}

/// Runs a command to its end. It is killed when nobody waits for it any more.
async fn run(command: Arc<[String]>) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| format!("cannot run it: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("it ended with {status}")) }
}

fn component(text: &str) -> Result<Component, String> {
    match text {
        "cilium" => Ok(Component::Cilium),
        "ztunnel" => Ok(Component::Ztunnel),
        _ => Err("what can be restarted is `cilium` or `ztunnel`".to_owned()),
    }
}

/// Reads a time, such as `200ms`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time: jiff::SignedDuration = text.parse().map_err(|error| {
        format!("a time is a number with its unit, such as `200ms`, `30s` or `10m`: {error}")
    })?;
    Duration::try_from(time).map_err(|error| format!("a time is not negative: {error}"))
}
