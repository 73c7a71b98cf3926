//! The hunt for mutants: cases run with them, until one has a broken assertion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use ztc_engine::event::EventKind;
use ztc_engine::runner::{EventSink, Runner};
use ztc_engine::turns::{self, Turn, Turns};
use ztc_model::mutation::Mutant;
use ztc_model::suite::{Case, CaseId};
use ztc_report::mutations::{Fate, MutantReport, Mutations, Notice, SCHEMA, Tried};

use super::kills::Kills;
use super::{MutateError, Plan};
use crate::execution::{end_at_once, listen};
use crate::ground::ReadyGround;
use crate::terminal;

/// What a case comes to without a mutant.
#[derive(Debug, Clone)]
enum Alone {
    Passes,
    /// It says nothing of mutants, and why.
    DoesNot(String),
}

/// A hunt that is on.
struct Hunt {
    runner: Runner,
    plan: Plan,
    /// By case. It is seen once, when somebody needs it.
    alone: BTreeMap<CaseId, OnceCell<Alone>>,
    /// The cases that are likely to be needed first.
    cases: Mutex<Turns<CaseId>>,
    /// The numbers of the mutants.
    mutants: Mutex<Turns<usize>>,
    kills: Mutex<Kills>,
    reports: Mutex<BTreeMap<usize, MutantReport>>,
    asked: usize,
    done: AtomicUsize,
}

/// Runs cases with every mutant that they can say something of. Must be called inside a runtime.
///
/// # Errors
/// [`MutateError::Signals`]; nothing is left running.
pub(crate) async fn hunt(plan: Plan, ready: ReadyGround) -> Result<Mutations, MutateError> {
    let begun = Instant::now();
    let (sink, mut events) = EventSink::new();
    let give_up = |request| end_at_once(request, &[]);
    let (interrupted, listening) = listen(sink.clone(), give_up).map_err(MutateError::Signals)?;
    let warnings = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let EventKind::Warning { message } = event.kind {
                terminal::trouble(&message);
            }
        }
    });
    let profile = plan.ground.profile.clone();
    let lanes = profile.lanes.count.max(1);
    let name = profile.profile.clone();
    let runner =
        Runner::new(ready.fabric.shared(), profile, plan.worlds.clone(), sink, interrupted.clone());
    let hunt = Arc::new(Hunt::new(runner.until_broken().forgetful_lanes(), plan));
    let mut running = JoinSet::new();
    for _ in 0..lanes {
        let hunt = Arc::clone(&hunt);
        running.spawn(async move { hunt.work().await });
    }
    while running.join_next().await.is_some() {}
    if let Err(left) = hunt.runner.down().await {
        terminal::trouble(&left);
    }
    listening.abort();
    // Ended by the abort, or else by a panic that has been printed.
    listening.await.ok();
    let Hunt { runner, plan, reports, .. } =
        Arc::into_inner(hunt).expect("the workers, which shared it, are over");
    // The sender of the events goes with it.
    drop(runner);
    warnings.await.ok();
    let mut mutants: Vec<MutantReport> =
        reports.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect();
    let stale = plan.explain(&mut mutants);
    Ok(Mutations {
        schema: SCHEMA,
        ztc: env!("CARGO_PKG_VERSION").to_owned(),
        profile: name,
        took_ms: millis(begun),
        interrupted: *interrupted.borrow(),
        mutants,
        stale,
    })
}

impl Hunt {
    fn new(runner: Runner, plan: Plan) -> Self {
        let mut reports = BTreeMap::new();
        let mut jobs = Vec::new();
        for (number, mutant) in plan.mutants.iter().enumerate() {
            match plan.settled(mutant) {
                Some(fate) => drop(reports.insert(number, report(mutant, fate, Vec::new()))),
                None => jobs.push((number, mutant.candidates(&plan.cases))),
            }
        }
        let asked = jobs.len();
        let first: BTreeSet<&CaseId> =
            jobs.iter().filter_map(|(_, cases)| Some(&cases.first()?.id)).collect();
        let first = plan.cases.iter().filter(|it| first.contains(&it.id));
        let cases = first.filter_map(|it| turn(it.id.clone(), &[it], &plan)).collect();
        let mutants =
            jobs.iter().filter_map(|(number, cases)| turn(*number, cases, &plan)).collect();
        let each = plan.ground.profile.lanes.each;
        let alone = plan.cases.iter().map(|it| (it.id.clone(), OnceCell::new())).collect();
        Self {
            runner,
            alone,
            cases: Mutex::new(Turns::new(cases, each)),
            mutants: Mutex::new(Turns::new(mutants, each)),
            kills: Mutex::default(),
            reports: Mutex::new(reports),
            asked,
            done: AtomicUsize::new(0),
            plan,
        }
    }

    /// Does what is next until nothing is left, or somebody asks to stop: first cases without a mutant, then mutants. A lane
    /// keeps to its world.
    async fn work(&self) {
        let mut world = None;
        while let Some(Turn { what, world: next, .. }) = next(&self.cases, world.as_deref()) {
            let case = self.plan.cases.iter().find(|it| it.id == what);
            if let Some(case) = case
                && self.alone(case).await.is_none()
            {
                return;
            }
            world = Some(next);
        }
        while let Some(Turn { what, world: next, .. }) = next(&self.mutants, world.as_deref()) {
            if self.try_mutant(what).await.is_none() {
                return;
            }
            world = Some(next);
        }
    }

    /// What a case comes to without a mutant. Nothing when the run is interrupted before.
    async fn alone(&self, case: &Case) -> Option<Alone> {
        let look = || async {
            let report = self.runner.run(case).await.ok_or(())?;
            match Notice::of(&report) {
                Notice::Nothing => Ok(Alone::Passes),
                Notice::Broken { told, .. }
                | Notice::Unproven { told }
                | Notice::Unasked { told } => {
                    terminal::trouble(&format!("{} does not pass by itself: {told}", case.id));
                    Ok::<_, ()>(Alone::DoesNot(told))
                }
            }
        };
        self.alone.get(&case.id)?.get_or_try_init(look).await.ok().cloned()
    }

    /// Runs the cases of a mutant until one has a broken assertion. Nothing when the run is interrupted before.
    async fn try_mutant(&self, number: usize) -> Option<()> {
        let mutant = self.plan.mutants.get(number)?;
        let mut tried: Vec<Tried> = Vec::new();
        let candidates = mutant.candidates(&self.plan.cases);
        let candidates = self.kills().likeliest(mutant, candidates);
        for case in candidates {
            let begun = Instant::now();
            let notice = match self.alone(case).await? {
                Alone::DoesNot(told) => {
                    Notice::Unasked { told: format!("without the mutant, too: {told}") }
                }
                Alone::Passes => {
                    let Some(mutated) = mutant.in_case(case) else { continue };
                    Notice::of(&self.runner.run(&mutated).await?)
                }
            };
            let is_over = matches!(notice, Notice::Broken { .. });
            tried.push(Tried { case: case.id.clone(), notice, took_ms: millis(begun) });
            if is_over {
                self.kills().note(mutant, &case.id);
                break;
            }
        }
        let report = report(mutant, Fate::of(&tried), tried);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        terminal::trouble(&progress(&report, done, self.asked));
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).insert(number, report);
        Some(())
    }

    fn kills(&self) -> MutexGuard<'_, Kills> {
        // Who is asked first is all that depends on it.
        self.kills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits for a lane in which these cases are run, one after the other, in the world of the first. One that nothing can
/// be run for does not wait: its fate is settled.
fn turn<T>(what: T, cases: &[&Case], plan: &Plan) -> Option<Turn<T>> {
    let pace = &plan.ground.profile.pace;
    let likely = |case: &&Case| Some(turns::likely(case, plan.worlds.get(&case.world)?, pace));
    let world = cases.first()?.world.clone();
    Some(Turn { what, world, likely: cases.iter().filter_map(likely).sum() })
}

/// What a lane takes that has become free.
fn next<T>(turns: &Mutex<Turns<T>>, lane: Option<&str>) -> Option<Turn<T>> {
    turns.lock().unwrap_or_else(PoisonError::into_inner).next(lane)
}

fn report(mutant: &Mutant, fate: Fate, tried: Vec<Tried>) -> MutantReport {
    MutantReport {
        name: mutant.name.clone(),
        suite: mutant.suite.clone(),
        place: mutant.place(),
        fate,
        tried,
        because: None,
    }
}

fn progress(report: &MutantReport, done: usize, asked: usize) -> String {
    let took: u64 = report.tried.iter().map(|it| it.took_ms).sum();
    let by = match &report.fate {
        Fate::Killed { by, verdict } => format!(" ({verdict} in {by})"),
        Fate::Inconclusive { by } => format!(" ({by})"),
        _ => format!(" ({} tried)", report.tried.len()),
    };
    format!("[{done}/{asked}] {:<12} {took:>6} ms  {}{by}", report.fate.word(), report.name)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
