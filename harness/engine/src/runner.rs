//! The runner: lanes that take the next case as they become free.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, mpsc, watch};
use tokio::time::Instant;
use ztc_model::suite::Case;
use ztc_model::verdict::{Doubt, Verdict, judge};
use ztc_model::world::World;

use crate::case::Life;
use crate::chain;
use crate::event::{CaseReport, Event, EventKind};
use crate::fabric::{Fabric, Lane};
use crate::interruption::Interruption;
use crate::lane::LiveLane;
use crate::profile::{LaneKind, Profile};
use crate::summary;

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
    /// Cases that reach beyond their namespaces write, all others read.
    reach: RwLock<()>,
    interrupted: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Slot {
    lane: Lane,
    live: Option<LiveLane>,
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
            reach: RwLock::new(()),
            interrupted,
        }
    }

    /// Runs a case in the next free lane. Nothing when the run was interrupted before it began.
    pub async fn run(&self, case: &Case) -> Option<CaseReport> {
        let _permit = self.permits.acquire().await.ok()?;
        // A lane does not come up, either, while another case denies things to the whole cluster.
        let _exclusion = self.exclusion(case).await;
        if *self.interrupted.borrow() {
            return None;
        }
        let mut slot = self.take_slot(&case.world);
        let report = self.run_in(&mut slot, case).await;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        self.events.emit(EventKind::CaseFinished(Box::new(report.clone())));
        Some(report)
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

    /// A free lane, if possible one that has the world already.
    fn take_slot(&self, world: &str) -> Slot {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let has_world = |slot: &Slot| slot.live.as_ref().is_some_and(|it| it.world.world == world);
        let position = idle
            .iter()
            .position(has_world)
            .or_else(|| idle.iter().rposition(|slot| slot.live.is_none()))
            .or(idle.len().checked_sub(1))
            .expect("a permit stands for an idle lane");
        idle.remove(position)
    }

    async fn run_in(&self, slot: &mut Slot, case: &Case) -> CaseReport {
        let number = slot.lane.0;
        let begun = Instant::now();
        if let Err(why) = self.furnish(slot, &case.world).await {
            return summary::unable(case, number, begun.elapsed(), &Doubt::Fabric(why));
        }
        let lane = slot.live.as_ref().expect("the lane was furnished above");
        let begun = Instant::now();
        self.events.emit(EventKind::CaseStarted { case: case.id.clone(), lane: number });
        let enter = |phase| {
            self.events.emit(EventKind::CasePhase { case: case.id.clone(), phase });
        };
        let mut life = Life::new(case, lane, &self.profile.pace, &enter);
        life.live(&Interruption::new(self.interrupted.clone())).await;
        let ceiling = self.profile.pace.clean_up_ceiling();
        let cleaned = match tokio::time::timeout(ceiling, life.clean_up()).await {
            Ok(cleaned) => cleaned,
            Err(_elapsed) => Err(format!("cleaning up took over {} s", ceiling.as_secs())),
        };
        let gaps = lane.board.gaps();
        let cells: Vec<_> = case
            .cells
            .iter()
            .zip(&life.outcomes)
            .map(|(cell, outcome)| {
                summary::cell(
                    cell,
                    outcome,
                    judge(&cell.expected, &cell.peers, &outcome.facts),
                    &gaps,
                )
            })
            .collect();
        let usable = life.recovered() && !life.could_not_begin();
        let verdict = Verdict::worst(cells.iter().map(|cell| cell.verdict.clone()));
        let report = summary::case(
            case,
            number,
            begun.elapsed(),
            life.settled,
            cells,
            verdict,
            cleaned.clone().err(),
        );
        let report = CaseReport { inspections: life.inspections, ..report };
        if cleaned.is_err() || !usable || !gaps.is_empty() {
            self.scrap(slot).await;
        }
        report
    }

    /// What keeps cases apart that would disturb each other.
    async fn exclusion(&self, case: &Case) -> Exclusion<'_> {
        match self.profile.lanes.each {
            LaneKind::Cluster => Exclusion::Apart,
            LaneKind::Namespaces if case.is_clusterwide() => {
                Exclusion::Alone(self.reach.write().await)
            }
            LaneKind::Namespaces => Exclusion::Among(self.reach.read().await),
        }
    }

    /// Brings the lane up with the world in it, unless it has it already and whole.
    async fn furnish(&self, slot: &mut Slot, world: &str) -> Result<(), String> {
        if let Some(live) = slot.live.as_ref().filter(|live| live.world.world == world) {
            let Some(what) = live.cluster.broken() else { return Ok(()) };
            let message = format!("{} is made anew: {what}", slot.lane);
            self.events.emit(EventKind::Warning { message });
        }
        self.scrap(slot).await;
        let world = self.worlds.get(world).ok_or_else(|| format!("there is no world `{world}`"))?;
        let begun = Instant::now();
        let cluster =
            self.fabric.up(Arc::clone(world), slot.lane).await.map_err(|error| chain(&error))?;
        slot.live = Some(LiveLane::new(Arc::clone(world), cluster));
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
