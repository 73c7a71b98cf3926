//! `ztc upgrade`: the suites, an upgrade while flows are watched, the suites again, and what changed.
//!
//! Each of the three is a run of its own, with a folder of its own: what is said here is put together from their events.

pub(crate) mod way;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use ztc_engine::event::ExitStatus;
use ztc_model::outcome::EnforcementPoint;
use ztc_report::{FileError, Side, Upgrade};

use crate::child::{ChildError, Runs, What};
use crate::comparing::{CompareError, came_to, run_of};
use crate::execution::runnable;
use crate::ground::{Ground, GroundError, Place};
use crate::project::{Project, ProjectError};
use crate::requests::Requests;
use crate::selection::{self, NotOne, Selected};
use crate::terminal;
use crate::upgrading::way::{Way, WayError};

pub(crate) const AFTER_HELP: &str = "Three runs are made: the cases on the old versions; one case of which every flow is watched \
while the parts are replaced in the supported order; and the cases on the new versions. What they came to, and what is \
otherwise than before, is told at the end, and in upgrade.txt and upgrade.md. Both profiles have to be of the lab, or cells of \
`ztc matrix` with the same Kubernetes. A cluster of kind is made for it, called `upgrade`; `ztc down --all` deletes it.

Exit codes: 0 nothing leaked, nothing was cut for longer than --allow-outage, nothing is otherwise; 1 a flow was cut for \
longer, an assertion is broken, or a flow is newly denied or denied by somebody else; 2 usage; 3 somebody was blind, or the \
upgrade was not made to its end; 4 a flow that must be denied got through, or is newly allowed.";

/// The name of the cluster that is upgraded.
const CLUSTER: &str = "upgrade";

/// What is upgraded, and what is run before and after.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// Take only cases whose `SUITE::CASE` contains this, before and after.
    filter: Option<String>,
    /// The profile, or cell of `ztc matrix`, to begin with.
    #[arg(long, value_name = "PROFILE")]
    from: String,
    /// The one to end with.
    #[arg(long, value_name = "PROFILE")]
    to: String,
    /// A folder with everything that a cluster of the old versions is made of, so that nothing is pulled.
    #[arg(long, env = "ZTC_BUNDLE", value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The same for the new versions.
    #[arg(long, env = "ZTC_TO_BUNDLE", value_name = "DIR")]
    to_bundle: Option<PathBuf>,
    /// Go back to the old versions as well, while flows are watched; the cases then run on these again.
    #[arg(long)]
    rollback: bool,
    /// The case whose flows are watched: `SUITE::CASE`, or a part of it that no other case has. Without it, of the cases that
    /// are taken, the one with the most enforcement points and flows.
    #[arg(long, value_name = "CASE")]
    watch: Option<String>,
    /// From one sample of a flow to the next, such as `10ms`.
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = crate::cli::monitor::time)]
    every: Duration,
    /// The longest outage of a flow that is no failure.
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = crate::cli::monitor::time)]
    allow_outage: Duration,
    /// How long flows are watched before the first step and after the last one.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::cli::monitor::time)]
    margin: Duration,
    /// Show every cell, and progress.
    #[arg(long, short)]
    verbose: bool,
}

/// Why nothing is upgraded, or nothing can be said of it.
#[derive(Debug, Error)]
pub(crate) enum UpgradeError {
    /// The suites cannot be read.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// A profile or a bundle cannot be used.
    #[error("cannot use `{profile}`, for which {option} names a bundle")]
    Ground { profile: String, option: &'static str, source: Box<GroundError> },
    /// There is no way.
    #[error(transparent)]
    Way(#[from] WayError),
    /// Nothing is selected.
    #[error("no case that runs on {profile} has `{filter}` in its name; `ztc list` shows them all")]
    Nothing { profile: String, filter: String },
    /// Several cases are meant.
    #[error(transparent)]
    NotOne(#[from] NotOne),
    /// The case cannot be watched.
    #[error("{case} does not run on {profile}: {lacks}")]
    Lacks { case: String, profile: String, lacks: String },
    /// A run came to nothing.
    #[error("{part} came to nothing; the upgrade goes no further")]
    Run { part: &'static str, source: ChildError },
    /// A run left nothing that can be read.
    #[error("cannot read what {part} came to")]
    Read { part: &'static str, source: Box<CompareError> },
    /// Somebody asked to stop.
    #[error("interrupted: {part} is not made; what was run until then has its folders")]
    Interrupted { part: &'static str },
    /// Signals cannot be listened to.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// What came of it cannot be kept.
    #[error(transparent)]
    Keep(#[from] FileError),
}

impl UpgradeError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Ground { source, .. } => source.exit_status(),
            Self::Way(error) => error.exit_status(),
            Self::Run { source, .. } => source.exit_status(),
            Self::Project(_) | Self::Nothing { .. } | Self::NotOne(_) | Self::Lacks { .. } => {
                ExitStatus::Usage
            }
            Self::Read { .. } | Self::Interrupted { .. } | Self::Signals(_) | Self::Keep(_) => {
                ExitStatus::Inconclusive
            }
        }
    }
}

/// An upgrade that can be made.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    order: &'a Order,
    /// The case whose flows are watched.
    watched: String,
    places: [Place; 2],
    results: PathBuf,
}

impl<'a> Plan<'a> {
    /// Looks whether everything that is named is there and fits together. Nothing is started.
    pub(crate) fn of(
        project: &Project,
        order: &'a Order,
        place: &Place,
    ) -> Result<Self, UpgradeError> {
        let of = |cluster: &String, bundle: &Option<PathBuf>| Place {
            cluster: cluster.clone(),
            bundle: bundle.clone(),
            cluster_name: Some(CLUSTER.to_owned()),
            ..place.clone()
        };
        let places = [of(&order.from, &order.bundle), of(&order.to, &order.to_bundle)];
        let ground = |place: &Place, option| {
            Ground::find(project, place).map_err(|source| UpgradeError::Ground {
                profile: place.cluster.clone(),
                option,
                source: Box::new(source),
            })
        };
        let grounds = [ground(&places[0], "--bundle")?, ground(&places[1], "--to-bundle")?];
        Way::of(&grounds[0], &grounds[1], order.rollback)?;
        let suites = project.suites()?;
        let [old, new] = grounds.each_ref().map(|ground| selection::all(&suites, ground));
        for (ground, cases) in grounds.iter().zip([&old, &new]) {
            let filter = order.filter.clone().unwrap_or_default();
            if !runnable(cases).any(|it| it.case.id.as_str().contains(&filter)) {
                let profile = ground.profile.profile.clone();
                return Err(UpgradeError::Nothing { profile, filter });
            }
        }
        let watched = watched(order, &grounds, old, &new)?;
        Ok(Self { order, watched, places, results: project.results() })
    }

    /// Makes the three runs, and puts together what they came to. `seen` is what they said as they ended, and is right
    /// where nothing can be put together any more.
    pub(crate) async fn make(
        &self,
        name: &str,
        seen: &mut ExitStatus,
    ) -> Result<ExitStatus, UpgradeError> {
        let Order { from, to, rollback, .. } = self.order;
        let mut requests = Requests::new().map_err(UpgradeError::Signals)?;
        let cases =
            || What::Cases { filter: self.order.filter.as_deref(), verbose: self.order.verbose };
        let change = What::Change { case: &self.watched, options: self.options() };
        let [old, new] = &self.places;
        let last = if *rollback { old } else { new };
        let before =
            self.run("the run before", (old, cases(), name, "before"), (&mut requests, seen));
        let before = before.await?;
        terminal::trouble(&format!("watching {} while everything is replaced", self.watched));
        let during = self.run("the upgrade", (old, change, name, "during"), (&mut requests, seen));
        let during = during.await?;
        // A cluster that is half-way is nobody's: its next run would go on with what failed.
        let is_made = during.changes.first().is_some_and(|it| it.trouble.is_none());
        let (after, unread) = if is_made {
            let after =
                self.run("the run after", (last, cases(), name, "after"), (&mut requests, seen));
            match after.await {
                Ok(side) => (Ok(side), None),
                // What was watched has been seen, and is told.
                Err(error) => (Err("not known"), Some(error)),
            }
        } else {
            (Err("not run: the upgrade was not made"), None)
        };
        let back = if *rollback { " and back" } else { "" };
        let upgrade = Upgrade::of(format!("from {from} to {to}{back}"), before, during, after);
        *seen = seen.or_worse(upgrade.exit_status());
        let (width, colour) = terminal::look();
        terminal::say("");
        terminal::say(&upgrade.text(width, colour));
        let folder = self.results.join(format!("{name}-upgrade"));
        for path in upgrade.write(&folder)? {
            terminal::trouble(&path.display().to_string());
        }
        unread.map_or_else(|| Ok(upgrade.exit_status()), Err)
    }

    async fn run(
        &self,
        part: &'static str,
        (place, what, name, suffix): (&Place, What<'_>, &str, &str),
        (requests, seen): (&mut Requests, &mut ExitStatus),
    ) -> Result<Side, UpgradeError> {
        let name = format!("{name}-{suffix}");
        let runs = Runs { what, place, results: &self.results };
        let mut asked = false;
        let said = runs
            .make(&place.cluster, &name, (requests, &mut asked))
            .await
            .map_err(|source| UpgradeError::Run { part, source })?;
        let read = run_of(&self.results, &name);
        *seen = seen.or_worse(came_to(said, &read));
        if asked {
            return Err(UpgradeError::Interrupted { part });
        }
        read.map_err(|source| UpgradeError::Read { part, source: Box::new(source) })
    }

    /// The options of the run that is watched.
    fn options(&self) -> Vec<OsString> {
        let Order { to, to_bundle, rollback, every, allow_outage, margin, .. } = self.order;
        let mut options: Vec<OsString> = ["--upgrade-to", to].map(Into::into).into();
        if let Some(bundle) = to_bundle {
            options.extend(["--to-bundle".into(), bundle.into()]);
        }
        options.extend(rollback.then(|| "--rollback".into()));
        for (option, time) in
            [("--every", every), ("--allow-outage", allow_outage), ("--margin", margin)]
        {
            options.extend([option.into(), format!("{}us", time.as_micros()).into()]);
        }
        options
    }
}

/// The case whose flows are watched.
fn watched(
    order: &Order,
    grounds: &[Ground; 2],
    old: Vec<Selected>,
    new: &[Selected],
) -> Result<String, UpgradeError> {
    let lacks = |case: &Selected| {
        let after =
            new.iter().find(|it| it.case.id == case.case.id).and_then(|it| it.lacks.clone());
        let of = |ground: &Ground| ground.profile.profile.clone();
        let [before, after] = [(case.lacks.clone(), &grounds[0]), (after, &grounds[1])]
            .map(|(lacks, ground)| lacks.map(|lacks| (of(ground), lacks)));
        before.or(after)
    };
    if let Some(text) = &order.watch {
        let meant = selection::matching(old, Some(text), &grounds[0].profile);
        let case = selection::the_one(meant, text, |it| &it.case)?;
        if let Some((profile, lacks)) = lacks(&case) {
            let case = case.case.id.to_string();
            return Err(UpgradeError::Lacks { case, profile, lacks });
        }
        return Ok(case.case.id.to_string());
    }
    let filter = order.filter.as_deref().unwrap_or_default();
    let taken = old.into_iter().filter(|it| it.case.id.as_str().contains(filter));
    let widest = taken.filter(|it| lacks(it).is_none()).max_by_key(width);
    widest.map(|it| it.case.id.to_string()).ok_or_else(|| UpgradeError::Nothing {
        profile: grounds[1].profile.profile.clone(),
        filter: filter.to_owned(),
    })
}

/// How much is seen where the flows of a case are watched: by how many enforcement points something is stopped, and how many
/// flows there are. What a case restarts or takes away has its own story.
fn width(selected: &Selected) -> (bool, usize, usize) {
    let case = &selected.case;
    let stands = case.restart.is_empty() && case.remove.is_empty() && case.create.is_empty();
    let points = [EnforcementPoint::Cilium, EnforcementPoint::Ztunnel, EnforcementPoint::Waypoint];
    let stops = |point: &&EnforcementPoint| {
        case.cells
            .iter()
            .any(|cell| cell.expected.is_denied() && cell.expected.point() == Some(**point))
    };
    (stands, points.iter().filter(stops).count(), case.cells.len())
}
