//! The runner: lanes that take the next case as they become free.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, mpsc, watch};
use tokio::time::Instant;
use ztc_model::lane::{self, Renaming};
use ztc_model::ruling::Rulebook;
use ztc_model::suite::{Case, CaseId};
use ztc_model::verdict::{Doubt, Verdict, judge};
use ztc_model::world::World;

use crate::attempts::Attempts;
use crate::case::Life;
use crate::chain;
use crate::change::{self, Change};
use crate::event::{CaseReport, ChangeReport, Event, EventKind};
use crate::expected::{Day, Entry};
use crate::fabric::{Cluster, Fabric, Lane};
use crate::interruption::Interruption;
use crate::lane::LiveLane;
use crate::profile::{LaneKind, Profile};
use crate::summary;
use crate::turns::{self, Turn, Turns};

/// Runs cases on a fabric. One a process; shared by all who ask for cases.
#[derive(Debug)]
pub struct Runner {
    fabric: Arc<dyn Fabric>,
    profile: Profile,
    worlds: BTreeMap<String, Arc<World>>,
    events: EventSink,
    /// One permit a lane; the lanes that are free wait in `idle`.
    permits: Semaphore,
    idle: Mutex<Vec<Slot>>,
    attempts: Attempts,
    /// Cases that do not keep to their lane write, all others read.
    reach: RwLock<()>,
    interrupted: watch::Receiver<bool>,
    /// Whether a case ends with its first broken assertion.
    until_broken: bool,
    /// Whether lanes forget what a case leaves behind besides policies.
    forgetful_lanes: bool,
    /// The failures that are known of cases, and the day on which they are held against them.
    expected: Option<(BTreeMap<CaseId, Entry>, Day)>,
}

#[derive(Debug)]
struct Slot {
    lane: Lane,
    live: Option<LiveLane>,
}

impl Slot {
    /// Whether a world is in it.
    fn has(&self, world: &str) -> bool {
        self.live.as_ref().is_some_and(|it| it.written == world)
    }
}

/// Where events go, with the clock of the run.
#[derive(Debug, Clone)]
pub struct EventSink {
    started: Instant,
    sender: mpsc::UnboundedSender<Event>,
}

impl EventSink {
    /// A sink and the stream that comes out of it. The run's clock starts now.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, events) = mpsc::unbounded_channel();
        (Self { started: Instant::now(), sender }, events)
    }

    /// Emits an event.
    pub fn emit(&self, kind: EventKind) {
        let at_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        // Reporters that have gone away miss the rest by their own choice.
        self.sender.send(Event { at_us, kind }).ok();
    }

    /// How long the run has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Runner {
    /// A runner without a lane yet: lanes come up when the first cases need them.
    ///
    /// `interrupted` turns true when somebody asks to stop: running cases clean up and report.
    pub fn new(
        fabric: Arc<dyn Fabric>,
        profile: Profile,
        worlds: BTreeMap<String, Arc<World>>,
        events: EventSink,
        interrupted: watch::Receiver<bool>,
    ) -> Self {
        let count = profile.lanes.count.max(1);
        let idle = (0..count).rev().map(|lane| Slot { lane: Lane(lane), live: None }).collect();
        Self {
            fabric,
            profile,
            worlds,
            events,
            permits: Semaphore::new(count),
            idle: Mutex::new(idle),
            attempts: Attempts::default(),
            reach: RwLock::new(()),
            interrupted,
            until_broken: false,
            forgetful_lanes: false,
            expected: None,
        }
    }

    /// The same, but that what cases come to is held against the failures that are known of them on this day.
    #[must_use]
    pub fn expecting(self, failures: BTreeMap<CaseId, Entry>, today: Day) -> Self {
        Self { expected: Some((failures, today)), ..self }
    }

    /// The same, but that a case ends with its first broken assertion: it is cleaned up, and nothing is proved any more of
    /// its other cells, which are inconclusive then. For whoever asks of a case whether it notices something.
    #[must_use]
    pub fn until_broken(self) -> Self {
        Self { until_broken: true, ..self }
    }

    /// The same, but that what a case leaves behind besides policies, such as names that were learnt and tunnels that stay
    /// open, does not meet the next: its lane forgets it, or is made anew where it cannot, and after a restart. What comes to
    /// nothing in a lane that was used before is asked once more in one that is made anew, and that counts.
    #[must_use]
    pub fn forgetful_lanes(self) -> Self {
        Self { forgetful_lanes: true, ..self }
    }

    /// Cases that wait for lanes of this runner, and whose turn it is.
    pub fn turns<T>(&self, cases: Vec<T>, case: impl Fn(&T) -> &Case) -> Turns<T> {
        let turn = |what: T| {
            let case = case(&what);
            let world = self.worlds.get(&case.world);
            let likely =
                world.map_or(Duration::ZERO, |it| turns::likely(case, it, &self.profile.pace));
            Turn { world: case.world.clone(), likely, what }
        };
        Turns::new(cases.into_iter().map(turn).collect(), self.profile.lanes.each)
    }

    /// Runs a case in the next free lane. Nothing when the run was interrupted before it began.
    pub async fn run(&self, case: &Case) -> Option<CaseReport> {
        self.run_with(case, None).await
    }

    /// The same, and once its policies are enforced, and before they are taken away, watches its flows while something
    /// changes. Where the case does not get so far, nothing is changed.
    pub async fn watch(&self, case: &Case, change: &Change) -> Option<CaseReport> {
        self.run_with(case, Some(change)).await
    }

    async fn run_with(&self, case: &Case, change: Option<&Change>) -> Option<CaseReport> {
        let _permit = self.permits.acquire().await.ok()?;
        // A lane does not come up, either, while another case denies things to the whole cluster.
        let exclusion = self.exclusion(case).await;
        if *self.interrupted.borrow() {
            return None;
        }
        let alone = matches!(exclusion, Exclusion::Alone(_));
        let mut slot = self.take_slot(&case.world, alone);
        let was_used = slot.has(&case.world);
        let (mut report, mut changed) = self.run_in(&mut slot, case, change).await;
        if self.forgetful_lanes && was_used && self.is_worth_another(&report) {
            self.scrap(&mut slot).await;
            (report, changed) = self.run_in(&mut slot, case, change).await;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        // What is known is known of a case as it stands: an outage while something changes is news.
        if change.is_none() {
            self.hold_against_what_is_known(&mut report);
        }
        if let Some(changed) = &changed {
            self.events.emit(EventKind::ChangeWatched(Box::new(changed.clone())));
        }
        self.events.emit(EventKind::CaseFinished(Box::new(report.clone())));
        Some(report)
    }

    /// Whether a lane that is made anew may have an answer where one that was used before has none. What is broken is broken.
    fn is_worth_another(&self, report: &CaseReport) -> bool {
        matches!(report.verdict, Verdict::Inconclusive(_)) && !*self.interrupted.borrow()
    }

    fn hold_against_what_is_known(&self, report: &mut CaseReport) {
        if let Some((failures, today)) = &self.expected
            && let Some(entry) = failures.get(&report.case)
        {
            report.hold_against(entry, *today);
        }
    }

    /// Gives all lanes back. Cases that still wait for one do not run.
    ///
    /// # Errors
    /// What is left behind, in words.
    pub async fn down(&self) -> Result<(), String> {
        self.permits.close();
        let slots = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        let mut errors = Vec::new();
        for live in slots.into_iter().filter_map(|slot| slot.live) {
            if let Err(error) = live.cluster.release().await {
                errors.push(chain(&error));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }

    /// A free lane, if possible one that has the world already. A case that runs alone gets the first: it is
    /// applied as it is written, and all lanes are free then.
    fn take_slot(&self, world: &str, alone: bool) -> Slot {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let first = |slot: &Slot| alone && slot.lane == Lane(0);
        let position = idle
            .iter()
            .position(first)
            .or_else(|| idle.iter().position(|slot| slot.has(world)))
            .or_else(|| idle.iter().rposition(|slot| slot.live.is_none()))
            .or(idle.len().checked_sub(1))
            .expect("a permit stands for an idle lane");
        idle.remove(position)
    }

    async fn run_in(
        &self,
        slot: &mut Slot,
        case: &Case,
        change: Option<&Change>,
    ) -> (CaseReport, Option<ChangeReport>) {
        let number = slot.lane.0;
        let begun = Instant::now();
        let not_begun = |why| summary::unable(case, number, begun.elapsed(), &Doubt::Fabric(why));
        if let Err(why) = self.furnish(slot, &case.world).await {
            return (not_begun(why), None);
        }
        let lane = slot.live.as_ref().expect("the lane was furnished above");
        // What is reported is the case as it is written; what happens is about the names of the lane.
        let here = match &lane.renaming {
            None => Cow::Borrowed(case),
            Some(renaming) => match renaming.case(case) {
                Ok(renamed) => Cow::Owned(renamed),
                Err(why) => return (not_begun(why.to_string()), None),
            },
        };
        let begun = Instant::now();
        self.events.emit(EventKind::CaseStarted { case: case.id.clone(), lane: number });
        let enter = |phase| {
            self.events.emit(EventKind::CasePhase { case: case.id.clone(), phase });
        };
        lane.cluster.on_behalf_of(Some(&case.id));
        let mut life = Life::new(&here, lane, &self.profile.pace, &enter).with(change);
        life.until_broken = self.until_broken;
        life.live(&Interruption::new(self.interrupted.clone())).await;
        let ceiling = self.profile.pace.clean_up_ceiling();
        let cleaned = tokio::time::timeout(ceiling, life.clean_up()).await;
        let cleaned = cleaned.unwrap_or_else(|_elapsed| {
            Err(format!("cleaning up took over {} s", ceiling.as_secs()))
        });
        lane.cluster.on_behalf_of(None);
        let gaps = lane.board.gaps();
        // Who looks for a broken assertion alone reads no record.
        let rulebook = (!self.until_broken).then(|| Rulebook::of(&here, case, &lane.world));
        let mut cells: Vec<_> = case
            .cells
            .iter()
            .zip(&here.cells)
            .zip(&life.outcomes)
            .map(|((cell, asked), outcome)| {
                let verdict = judge(&asked.expected, &asked.peers, &outcome.facts);
                summary::cell((cell, asked), outcome, verdict, &gaps, rulebook.as_ref())
            })
            .collect();
        let changed = life.changed.take();
        if let Some(changed) = &changed {
            change::weigh(changed, &mut cells);
        }
        let usable = life.recovered() && !life.could_not_begin();
        let conditions = summary::conditions(case, &life.said);
        let report = summary::case(
            case,
            number,
            begun.elapsed(),
            life.settled,
            (cells, conditions),
            cleaned.clone().err(),
        );
        let report = CaseReport { inspections: life.inspections, ..report };
        let is_sound = cleaned.is_ok() && usable && gaps.is_empty();
        if !is_sound || !self.is_as_new(case, &*lane.cluster).await {
            self.scrap(slot).await;
        }
        (report, changed)
    }

    /// Whether nothing of a case meets the next one in its lane, where that matters.
    async fn is_as_new(&self, case: &Case, cluster: &dyn Cluster) -> bool {
        !self.forgetful_lanes || case.restart.is_empty() && cluster.forget().await
    }

    /// What keeps cases apart that would disturb each other.
    async fn exclusion(&self, case: &Case) -> Exclusion<'_> {
        match self.profile.lanes.each {
            LaneKind::Cluster => Exclusion::Apart,
            LaneKind::Namespaces if self.keeps_to_its_lane(case) => {
                Exclusion::Among(self.reach.read().await)
            }
            LaneKind::Namespaces => Exclusion::Alone(self.reach.write().await),
        }
    }

    fn keeps_to_its_lane(&self, case: &Case) -> bool {
        let world = self.worlds.get(&case.world);
        world.is_some_and(|world| lane::keeps_to_its_lane(case, world).is_ok())
    }

    /// What things of a world are called in a lane; nothing where they are called as they are written.
    fn renaming(&self, lane: Lane, world: &World) -> Result<Option<Renaming>, String> {
        match (self.profile.lanes.each, lane) {
            (LaneKind::Cluster, _) | (_, Lane(0)) => Ok(None),
            (LaneKind::Namespaces, Lane(number)) => {
                Renaming::of(world, number).map(Some).map_err(|why| why.to_string())
            }
        }
    }

    /// Brings the lane up with the world in it, unless it has it already and whole.
    async fn furnish(&self, slot: &mut Slot, world: &str) -> Result<(), String> {
        if let Some(live) = slot.live.as_ref().filter(|_| slot.has(world)) {
            let Some(what) = live.cluster.broken() else { return Ok(()) };
            let message = format!("{} is made anew: {what}", slot.lane);
            self.events.emit(EventKind::Warning { message });
        }
        self.scrap(slot).await;
        if let Some(why) = self.attempts.given_up(world) {
            return Err(why);
        }
        let written =
            self.worlds.get(world).ok_or_else(|| format!("there is no world `{world}`"))?;
        let renaming = self.renaming(slot.lane, written)?;
        let world = match &renaming {
            None => Arc::clone(written),
            Some(renaming) => Arc::new(renaming.world(written)),
        };
        let begun = Instant::now();
        let cluster = self.fabric.up(Arc::clone(&world), slot.lane).await.map_err(|error| {
            let why = chain(&error);
            self.attempts.failed(&written.world, &why);
            why
        })?;
        self.attempts.up(&written.world);
        let live = LiveLane::new(written.world.clone(), Arc::clone(&world), renaming, cluster);
        slot.live = Some(live);
        self.events.emit(EventKind::LaneUp {
            lane: slot.lane.0,
            world: world.world.clone(),
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        Ok(())
    }

    /// Takes a lane down that must not be used again.
    async fn scrap(&self, slot: &mut Slot) {
        let Some(live) = slot.live.take() else { return };
        self.attempts.down(&live.written);
        if let Err(error) = live.cluster.down().await {
            self.events.emit(EventKind::Warning { message: chain(&error) });
        }
    }
}

/// A case's hold on the cluster while it runs.
#[expect(dead_code, reason = "the guards are held, never read")]
enum Exclusion<'a> {
    /// The lane is a cluster of its own.
    Apart,
    /// With other cases that keep to their namespaces.
    Among(RwLockReadGuard<'a, ()>),
    /// With nobody.
    Alone(RwLockWriteGuard<'a, ()>),
}
