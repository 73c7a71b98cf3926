//! One run: its fabric, its runner, its reporters, and what it comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::Signal;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use ztc_cluster::Ledger;
use ztc_engine::change::Change;
use ztc_engine::event::{
    CaseReport, Event, EventKind, ExitStatus, PolicyText, RunStarted, SCHEMA, Summary,
};
use ztc_engine::expected::Day;
use ztc_engine::profile::{FabricKind, Profile};
use ztc_engine::runner::{EventSink, Runner};
use ztc_engine::turns::{Turn, Turns};
use ztc_lab::AgentCommand;
use ztc_model::world::World;
use ztc_report::{Console, ReportErrors, Reporters, RunDir, RunDirError};
use ztc_wire::AGENT_ENV;

use crate::ground::ReadyGround;
use crate::proving::{self, Proven};
use crate::requests::Requests;
use crate::selection::Selected;
use crate::terminal;

/// What a run is about to do.
#[derive(Debug)]
pub struct Plan {
    /// On what, and at which pace.
    pub profile: Profile,
    /// The worlds of its cases.
    pub worlds: BTreeMap<String, Arc<World>>,
    /// Its cases, those that the fabric cannot run included.
    pub cases: Vec<Selected>,
    /// Where its folder is made.
    pub results: PathBuf,
    /// The name of its folder.
    pub name: String,
    /// Whether the folder may get a number when the name is taken; who looks for it by its name
    /// must not be given another one.
    pub numbered: bool,
}

impl Plan {
    /// The worlds of the cases that the fabric can run.
    pub fn used(&self) -> BTreeSet<String> {
        runnable(&self.cases).map(|it| it.case.world.clone()).collect()
    }
}

/// Why a run could not begin.
#[derive(Debug, Error)]
pub enum BeginError {
    /// The folder for its results could not be made.
    #[error("cannot make the folder of the run")]
    Folder(#[from] RunDirError),
    /// Signals could not be listened to.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

/// A run that has begun.
#[derive(Debug)]
pub struct Execution {
    runner: Runner,
    sink: EventSink,
    folder: RunDir,
    summary: Mutex<Summary>,
    interrupted: watch::Receiver<bool>,
    listening: tokio::task::JoinHandle<()>,
    ledger: Option<Ledger>,
    reporting: JoinHandle<Result<(), ReportErrors>>,
}

/// What a run came to.
#[derive(Debug)]
pub struct Finished {
    /// What the process should exit with.
    pub status: ExitStatus,
    /// The counts.
    pub summary: Summary,
    /// What went wrong besides the cases, in words.
    pub troubles: Vec<String>,
    /// What was made in a cluster that somebody lent us, and what became of it.
    pub ledger: Vec<String>,
}

impl Execution {
    /// Begins a run, which tells of what is `proven` on real clusters. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`BeginError`]; nothing is left running.
    pub fn begin(
        plan: Plan,
        proven: &Proven,
        ground: ReadyGround,
        console: impl FnOnce(&Path) -> Option<Console>,
    ) -> Result<Self, BeginError> {
        let ReadyGround { fabric, versions, faults, ledger, is_lent } = ground;
        let folder = make_folder(&plan)?;
        let (sink, events) = EventSink::new();
        let left = ledger.clone();
        let give_up = move |request| {
            let left = left.map(|it| it.left_behind(!is_lent)).unwrap_or_default();
            end_at_once(request, &left);
        };
        let (interrupted, listening) =
            listen(sink.clone(), give_up).map_err(BeginError::Signals)?;
        let reporting = report(events, Reporters::new(&folder), console(folder.path()));
        let cases = runnable(&plan.cases).map(|it| &it.case);
        let questions = proving::questions(cases);
        let unproven = match plan.profile.fabric {
            FabricKind::Lab => proven.lacking(&questions),
            FabricKind::Kind | FabricKind::Attach => Vec::new(),
        };
        let now = jiff::Timestamp::now();
        sink.emit(EventKind::RunStarted(RunStarted {
            schema: SCHEMA,
            run: plan.name.clone(),
            started: now.to_string(),
            ztc: env!("CARGO_PKG_VERSION").to_owned(),
            profile: plan.profile.profile.clone(),
            fabric: plan.profile.fabric.word().to_owned(),
            lanes: plan.profile.lanes.count,
            cases: runnable(&plan.cases).map(|it| it.case.id.clone()).collect(),
            versions,
            questions,
            unproven,
            faults,
        }));
        for policy in policies(&plan.cases) {
            sink.emit(EventKind::PolicyRead(policy));
        }
        let mut summary = Summary::default();
        for selected in &plan.cases {
            if let Some(reason) = &selected.lacks {
                summary.ignored += 1;
                let case = selected.case.id.clone();
                sink.emit(EventKind::CaseIgnored { case, reason: reason.clone() });
            }
        }
        let expected = runnable(&plan.cases)
            .filter_map(|it| Some((it.case.id.clone(), it.expected_failure.clone()?)))
            .collect();
        let runner = Runner::new(
            fabric.shared(),
            plan.profile,
            plan.worlds,
            sink.clone(),
            interrupted.clone(),
        )
        .expecting(expected, Day::of(now));
        let summary = Mutex::new(summary);
        let ledger = ledger.filter(|_| is_lent);
        Ok(Self { runner, sink, folder, summary, interrupted, listening, ledger, reporting })
    }

    /// The folder of the run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs these, which the fabric must be able to, so many at once, and tells what each came to; nothing where the run was
    /// interrupted before. What goes first is up to [`Turns`].
    pub async fn run_all(
        self: &Arc<Self>,
        cases: Vec<Selected>,
        at_once: usize,
        tell: impl Fn(&Selected, Option<CaseReport>) + Send + Sync + 'static,
    ) {
        let turns = Arc::new(Mutex::new(self.runner.turns(cases, |it| &it.case)));
        let tell = Arc::new(tell);
        let mut running = JoinSet::new();
        for _ in 0..at_once.max(1) {
            let (execution, turns, tell) =
                (Arc::clone(self), Arc::clone(&turns), Arc::clone(&tell));
            running.spawn(async move {
                let mut world = None;
                while let Some(Turn { what, world: next, .. }) = next_turn(&turns, world.as_deref())
                {
                    let report = execution.runner.run(&what.case).await;
                    tell(&what, execution.count(report));
                    world = Some(next);
                }
            });
        }
        while let Some(worker) = running.join_next().await {
            if let Err(panic) = worker.map_err(JoinError::into_panic) {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// Runs one case with a change that is made while its flows are watched; nothing when the run was interrupted before.
    pub async fn watch(&self, selected: &Selected, change: &Change) -> Option<CaseReport> {
        self.count(self.runner.watch(&selected.case, change).await)
    }

    fn count(&self, report: Option<CaseReport>) -> Option<CaseReport> {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        match &report {
            Some(report) => summary.count(report),
            None => summary.not_run += 1,
        }
        report
    }

    /// Gives everything back and finishes the reports.
    pub async fn finish(self) -> Finished {
        let mut troubles = Vec::new();
        if let Err(left) = self.runner.down().await {
            troubles.push(left);
        }
        let mut summary = self.summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.interrupted = *self.interrupted.borrow();
        summary.took_ms = u64::try_from(self.sink.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.sink.emit(EventKind::RunFinished(summary.clone()));
        // The reporters end with the stream, so every sender has to go first.
        self.listening.abort();
        // Ended by the abort, or else by a panic that has been printed.
        self.listening.await.ok();
        drop(self.runner);
        drop(self.sink);
        match self.reporting.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                troubles.extend(error.errors().iter().map(|it| ztc_engine::chain(it)));
            }
            Err(_panic) => troubles.push("the reporters panicked".to_owned()),
        }
        let status = summary.exit_status().with_trouble(!troubles.is_empty());
        let ledger = self.ledger.map(|it| it.lines()).unwrap_or_default();
        Finished { status, summary, troubles, ledger }
    }
}

/// The lock is held for as long as it takes to choose.
fn next_turn(turns: &Mutex<Turns<Selected>>, lane: Option<&str>) -> Option<Turn<Selected>> {
    turns.lock().unwrap_or_else(PoisonError::into_inner).next(lane)
}

/// The cases that the fabric can run.
pub fn runnable(cases: &[Selected]) -> impl Iterator<Item = &Selected> {
    cases.iter().filter(|it| it.lacks.is_none())
}

/// What the cases apply that the fabric can run, each manifest once.
fn policies(cases: &[Selected]) -> impl Iterator<Item = PolicyText> {
    let applied = runnable(cases).flat_map(|it| &it.case.apply);
    let texts: BTreeMap<String, PolicyText> = applied
        .map(|it| {
            let (policy, text) = (it.reference.to_string(), it.text.to_string());
            (it.place(), PolicyText { policy, place: it.place(), text })
        })
        .collect();
    texts.into_values()
}

/// The day on which an expected failure is still one, or no longer.
pub fn today() -> Day {
    Day::of(jiff::Timestamp::now())
}

/// A name for a run, by the time at which it begins.
pub fn run_name() -> String {
    jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S-%3f").to_string()
}

/// Two runs can begin in the same millisecond; the second gets a number.
fn make_folder(plan: &Plan) -> Result<RunDir, RunDirError> {
    let mut name = plan.name.clone();
    for number in 2_u32.. {
        match RunDir::create(&plan.results, &name) {
            Err(RunDirError::Taken { .. }) if plan.numbered => {
                name = format!("{}-{number}", plan.name);
            }
            result => return result,
        }
    }
    RunDir::create(&plan.results, &name)
}

/// Agents are this very program in agent mode.
///
/// # Panics
/// Never: the configuration of an agent has nothing that JSON cannot say.
pub fn agent_command() -> AgentCommand {
    AgentCommand::new(|config| {
        let mut command = std::process::Command::new("/proc/self/exe");
        command.env(AGENT_ENV, config.to_json().expect("an agent's configuration has text keys"));
        command
    })
}

/// Listens for whoever asks this process to stop.
pub(crate) fn listen(
    sink: EventSink,
    give_up: impl FnOnce(Signal) + Send + 'static,
) -> io::Result<(watch::Receiver<bool>, tokio::task::JoinHandle<()>)> {
    let (sender, interrupted) = watch::channel(false);
    let listening = tokio::spawn(heed(Requests::new()?, sink, sender, give_up));
    Ok((interrupted, listening))
}

/// The first request interrupts the run, which then cleans up and reports. Whoever asks again does not want to wait
/// for that.
async fn heed(
    mut requests: Requests,
    sink: EventSink,
    interrupted: watch::Sender<bool>,
    give_up: impl FnOnce(Signal),
) {
    requests.next().await;
    sink.emit(EventKind::Interrupted);
    interrupted.send_replace(true);
    // The channel stays open meanwhile, so that nobody takes its end for an interrupt.
    give_up(requests.next().await);
}

/// Ends the process in the middle of everything. What is written of the run may be cut.
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "whoever asks twice does not want to wait for what waits for a cluster; a lock goes with the process"
)]
pub(crate) fn end_at_once(request: Signal, left: &[String]) {
    terminal::trouble("asked to stop a second time: ended at once, without cleaning up");
    for line in left {
        terminal::trouble(line);
    }
    // The shell's convention for a process that a signal has ended.
    std::process::exit(128 + request.as_raw());
}

/// Feeds the reporters on a thread of their own: they write files, the lanes must not wait.
fn report(
    mut events: mpsc::UnboundedReceiver<Event>,
    mut reporters: Reporters,
    mut console: Option<Console>,
) -> JoinHandle<Result<(), ReportErrors>> {
    std::thread::spawn(move || {
        while let Some(event) = events.blocking_recv() {
            reporters.event(&event);
            if let Some(console) = &mut console {
                terminal::show(console.event(&event));
            }
        }
        reporters.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_request_is_not_waited_out() {
        let (sink, mut events) = EventSink::new();
        let (sender, interrupted) = watch::channel(false);
        let (ask, requests) = Requests::by_hand();
        let (tell, mut told) = mpsc::unbounded_channel();
        let heeding =
            tokio::spawn(heed(requests, sink, sender, move |request| tell.send(request).unwrap()));
        ask.send(Signal::INT).unwrap();
        let first = events.recv().await.unwrap().kind;
        assert!(matches!(first, EventKind::Interrupted), "{first:?}");
        let mut interrupted = interrupted;
        assert!(*interrupted.wait_for(|it| *it).await.unwrap());
        assert!(told.try_recv().is_err(), "the run cleans up");
        ask.send(Signal::TERM).unwrap();
        assert_eq!(told.recv().await, Some(Signal::TERM));
        heeding.await.unwrap();
        assert!(events.recv().await.is_none(), "it is interrupted once");
    }
}
