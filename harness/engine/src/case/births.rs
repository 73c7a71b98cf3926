//! Pods that are born again and again while something changes: what each of them sends from its first instant on.
//!
//! A pod that stands shows what is enforced for it; one that is born while an agent is away shows what is enforced for whoever
//! comes then. Beside whoever must not get through its twin is born, and must.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use ztc_model::evidence::Evidence;
use ztc_model::outcome::Expected;
use ztc_model::suite::{Cell, Origin};
use ztc_model::window::{Window, WindowKind, kind};
use ztc_model::world::PodRef;
use ztc_wire::{Leg, Observed, Sent, Stretch};

use super::Life;
use super::newborns::Nursery;
use super::watching::KEPT_RECORDS;
use crate::agent::{Flight, News, micros};
use crate::chain;
use crate::event::{Births, StepReport, WatchedFlow};
use crate::fabric::AddressBook;
use crate::interruption::Interruption;
use crate::summary;
use crate::wait::{Look, until};

/// How long from one birth to the next at least: whoever is born takes time from everybody else.
const APART: Duration = Duration::from_millis(200);

/// What came of the pods of one name.
pub(super) struct Brood {
    pub(super) flows: Vec<WatchedFlow>,
    /// When they were born.
    born: Vec<Birth>,
    /// The last of them, where it could not be deleted.
    pub(super) left: Option<PodRef>,
}

impl Brood {
    /// Says of the steps in which no pod was on its way that nobody knows what was enforced for one: of those that change
    /// something, which are neither the first nor the last.
    pub(super) fn admit(&mut self, steps: &[StepReport]) {
        let Some((_, [changing @ .., _])) = steps.split_first() else { return };
        let is_met = |step: &StepReport| {
            let met = |it: &Birth| it.from_us <= step.until_us && it.until_us >= step.from_us;
            self.born.iter().any(met)
        };
        let unmet = changing.iter().filter(|it| !is_met(it));
        let unseen =
            |it: &StepReport| Window::blind((it.from_us, it.until_us), "no pod was born in it");
        let holes: Vec<Window> = unmet.map(unseen).collect();
        for flow in self.flows.iter_mut().filter(|it| it.samples > 0) {
            flow.windows.extend(holes.iter().cloned());
            flow.windows.sort_by_key(|it| it.from_us);
        }
    }
}

/// A flow of every pod of that name.
struct Row<'a> {
    /// The position of its cell in the case.
    index: usize,
    cell: &'a Cell,
    denied: bool,
    samples: u64,
    windows: Vec<Window>,
    /// The window that the last stimulus was of: it goes on where the next pod shows the same.
    open: Option<Window>,
    evidence: Vec<Arc<Evidence>>,
}

/// When a pod was ordered, and when it came or was given up, microseconds since the watching began.
struct Birth {
    from_us: u64,
    until_us: u64,
}

impl Life<'_> {
    /// Lets each pod that is born in the case be born, send, and go, until `steps` are over: it has the number of the one that
    /// is made, and nothing when nothing is watched any more. The last pod lives to its end. With each step that changes
    /// something another one is ordered.
    pub(super) async fn births(
        &self,
        begun: Instant,
        steps: watch::Receiver<Option<usize>>,
        interruption: &Interruption,
    ) -> Vec<Brood> {
        let pods = self.case.create.iter();
        join_all(pods.map(|pod| self.generations(pod, begun, steps.clone(), interruption))).await
    }

    async fn generations(
        &self,
        pod: &PodRef,
        begun: Instant,
        mut steps: watch::Receiver<Option<usize>>,
        interruption: &Interruption,
    ) -> Brood {
        let cells = self.case.cells.iter().enumerate();
        let mut rows: Vec<Row<'_>> = cells.filter_map(|(index, it)| row(index, it, pod)).collect();
        let mut births = Births { count: 0, slowest_us: 0 };
        let (mut born, mut left) = (Vec::new(), None);
        while left.is_none() && !rows.is_empty() {
            // Not in the condition: nobody could say what comes next while it is looked at.
            let step = *steps.borrow_and_update();
            let Some(step) = step else { break };
            let ordered = Instant::now();
            let since = |at: Instant| micros(at.saturating_duration_since(begun));
            let lived = tokio::select! {
                lived = self.one_life(pod, &mut rows, begun, (step, &steps)) => lived,
                () = interruption.wait() => Err("it was interrupted".to_owned()),
            };
            let came = lived.as_ref().map_or_else(|_| Instant::now(), |at| *at);
            let birth = Birth { from_us: since(ordered), until_us: since(came) };
            match lived {
                Ok(_) => {
                    births.count += 1;
                    births.slowest_us = births.slowest_us.max(birth.until_us - birth.from_us);
                }
                Err(why) => {
                    let why = format!("no pod was born: {why}");
                    for row in &mut rows {
                        row.blind(&birth, &why);
                    }
                }
            }
            born.push(birth);
            left = self.end_of(pod).await;
            if left.is_none() {
                // Which of the two it was the loop looks at.
                let _either = tokio::time::timeout_at(ordered + APART, steps.changed()).await;
            }
        }
        let flows = rows.into_iter().map(|it| it.report(pod, births)).collect();
        Brood { flows, born, left }
    }

    /// Deletes a pod; the pod itself where that failed for as long as somebody may be away.
    async fn end_of(&self, pod: &PodRef) -> Option<PodRef> {
        let ended =
            until("the end of the pod", self.pace.restart_ceiling(), self.pace.poll(), || async {
                Ok(match self.lane.cluster.delete_pod(pod).await {
                    Ok(()) => Look::Met(()),
                    Err(error) => Look::NotYet { status: chain(&error) },
                })
            });
        ended.await.is_err().then(|| pod.clone())
    }

    /// One pod, until everything that it sends by itself has come to its end, or the next step begins; when it said its first
    /// word.
    async fn one_life(
        &self,
        pod: &PodRef,
        rows: &mut [Row<'_>],
        begun: Instant,
        (step, steps): (usize, &watch::Receiver<Option<usize>>),
    ) -> Result<Instant, String> {
        let book = self.lane.cluster.addresses().await.map_err(|error| chain(&error))?;
        let sends: Vec<_> = rows.iter().enumerate().map(|(row, it)| (row, &it.cell.send)).collect();
        let ceiling = self.pace.restart_ceiling();
        let mut nursery =
            self.give_birth(pod, &sends, &book, ceiling).await.map_err(|it| it.to_string())?;
        let born = Instant::now();
        let flights: Vec<Vec<Flight>> =
            (0..rows.len()).map(|row| nursery.flights.remove(&row).unwrap_or_default()).collect();
        let watch =
            Watch { begun, born, step, deadline: self.pace.probe_deadline(), patience: ceiling };
        let seen = flights
            .into_iter()
            .map(|flights| join_all(flights.into_iter().map(|it| watch.end(it, steps.clone()))));
        let seen: Vec<Vec<Stretch>> =
            join_all(seen).await.into_iter().map(|it| it.into_iter().flatten().collect()).collect();
        for (row, mut stretches) in rows.iter_mut().zip(seen) {
            stretches.sort_by_key(|it| it.first.at_us);
            row.take(&stretches);
            self.find_leaked(row, &stretches, &nursery, &book, begun);
        }
        Ok(born)
    }

    /// Looks for what was said of what got through, before the board forgets it.
    fn find_leaked(
        &self,
        row: &mut Row<'_>,
        stretches: &[Stretch],
        nursery: &Nursery,
        book: &AddressBook,
        begun: Instant,
    ) {
        let leaked = stretches.iter().filter(|it| row.kind(it) == Some(WindowKind::Leak));
        let leaked: Vec<SocketAddr> = leaked.filter_map(|it| it.first.local).collect();
        if leaked.is_empty() {
            return;
        }
        let Ok(aim) = self.aim(row.cell, &nursery.agent, book) else { return };
        row.evidence.extend(leaked.into_iter().flat_map(|local| aim.records_of(local, begun)));
        row.evidence.truncate(KEPT_RECORDS);
    }
}

/// What a pod of that name sends for a cell, if it sends something.
fn row<'a>(index: usize, cell: &'a Cell, pod: &PodRef) -> Option<Row<'a>> {
    let is_sender = matches!(&cell.from, Origin::Pod(from) if from == pod);
    let is_twin = cell.twin.as_ref() == Some(pod);
    let is_asked = cell.after.is_none()
        && !matches!(cell.expected, Expected::Refused { .. } | Expected::Interrupted { .. });
    (is_asked && (is_sender || is_twin)).then(|| Row {
        index,
        cell,
        denied: is_sender && cell.expected.is_denied(),
        samples: 0,
        windows: Vec::new(),
        open: None,
        evidence: Vec::new(),
    })
}

/// How the first stimuli of one pod are followed.
struct Watch {
    begun: Instant,
    /// When it said its first word: what it sends by itself was sent before.
    born: Instant,
    /// The step that it was ordered in.
    step: usize,
    /// The longest that a stimulus takes.
    deadline: Duration,
    /// How long its agent may be out of reach besides.
    patience: Duration,
}

impl Watch {
    /// Follows one stimulus to its end, which is dated in microseconds since the watching began; nothing where the next step
    /// begins before that.
    async fn end(
        &self,
        mut flight: Flight,
        mut steps: watch::Receiver<Option<usize>>,
    ) -> Option<Stretch> {
        let until = Instant::now() + self.deadline + self.patience;
        let mut local = None;
        let (seen, at) = loop {
            let news = tokio::select! {
                biased;
                news = flight.next(until) => news,
                // After the last step there is time for whatever was sent.
                Ok(_) = steps.wait_for(|it| it.is_some_and(|it| it != self.step)) => return None,
            };
            match news {
                News::Started { leg: Leg::Send, local: own, .. } => local = Some(own),
                News::Observed { observed, at } => break (observed, at),
                News::Lost { reason } => {
                    let operation = "agent".to_owned();
                    break (Observed::Unsent { operation, error: reason }, Instant::now());
                }
                _ => {}
            }
        };
        // What was given up was sent that much earlier.
        let given_up = matches!(seen, Observed::Timeout { .. });
        let sent = if given_up { at.checked_sub(self.deadline).unwrap_or(at) } else { at };
        let sent = sent.min(self.born);
        let at_us = micros(sent.saturating_duration_since(self.begun));
        let took = micros(at.saturating_duration_since(sent));
        Some(Stretch::of(seen, Sent { at_us, local }, took))
    }
}

impl Row<'_> {
    fn kind(&self, stretch: &Stretch) -> Option<WindowKind> {
        kind(stretch, self.denied, &self.cell.peers)
    }

    /// Adds what one pod sent. What is seen alike, one directly after the other, is one window. An outage goes on from one pod
    /// to the next: who comes in its middle is no end of it.
    fn take(&mut self, stretches: &[Stretch]) {
        for stretch in stretches {
            self.samples += 1;
            // A moment, where everything was answered at once.
            let until_us = stretch.last.at_us + stretch.slowest_us.max(1);
            let found = self.kind(stretch);
            match (&mut self.open, found) {
                (Some(window), Some(kind)) if window.kind == kind => {
                    window.until_us = window.until_us.max(until_us);
                    window.samples += 1;
                    window.last = stretch.last.local;
                }
                (_, found) => {
                    self.windows.extend(self.open.take());
                    self.open = found.map(|kind| Window {
                        kind,
                        from_us: stretch.first.at_us,
                        until_us,
                        samples: 1,
                        first: stretch.first.local,
                        last: stretch.last.local,
                        seen: stretch.seen.to_string(),
                    });
                }
            }
        }
        // What leaks, leaks as it is born: nothing is known of the time between two of them.
        if self.open.as_ref().is_some_and(|it| it.kind != WindowKind::Outage) {
            self.windows.extend(self.open.take());
        }
    }

    /// Adds a time in which nothing was sent.
    fn blind(&mut self, birth: &Birth, why: &str) {
        self.windows.extend(self.open.take());
        self.windows.push(Window::blind((birth.from_us, birth.until_us), why));
    }

    fn report(self, pod: &PodRef, births: Births) -> WatchedFlow {
        let Cell { send, expected, .. } = self.cell;
        let is_twin = !self.denied && expected.is_denied();
        WatchedFlow {
            cell: self.index,
            from: pod.to_string(),
            send: send.to_string(),
            expected: if is_twin {
                "allowed, as the twin".to_owned()
            } else {
                expected.to_string()
            },
            denied: self.denied,
            point: if is_twin { None } else { expected.point() },
            samples: self.samples,
            slowest_us: 0,
            reconnects: None,
            births: Some(births),
            windows: self.windows.into_iter().chain(self.open).collect(),
            evidence: self.evidence.iter().map(|it| summary::record(it)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brood(born: &[(u64, u64)]) -> Brood {
        let flow = WatchedFlow {
            cell: 0,
            from: "zt-shop/late".to_owned(),
            send: "tcp a/c:1".to_owned(),
            expected: String::new(),
            denied: true,
            point: None,
            samples: 5,
            slowest_us: 0,
            reconnects: None,
            births: None,
            windows: Vec::new(),
            evidence: Vec::new(),
        };
        let born =
            born.iter().map(|(from_us, until_us)| Birth { from_us: *from_us, until_us: *until_us });
        Brood { flows: vec![flow], born: born.collect(), left: None }
    }

    #[test]
    fn a_step_in_which_nobody_was_born_is_one_that_nobody_saw() {
        let steps = [("before", 0, 100), ("one", 100, 200), ("two", 200, 300), ("after", 300, 400)];
        let steps = steps.map(|(step, from_us, until_us)| StepReport {
            step: step.to_owned(),
            from_us,
            until_us,
        });
        for (born, unseen) in [
            (vec![(10, 20), (110, 120), (210, 220)], vec![]),
            (vec![(10, 20), (110, 120), (310, 320)], vec![(200, 300)]),
            // One that takes long is on its way in all of them.
            (vec![(10, 350)], vec![]),
            (vec![(10, 20)], vec![(100, 200), (200, 300)]),
        ] {
            let mut brood = brood(&born);
            brood.admit(&steps);
            let windows = &brood.flows[0].windows;
            assert!(windows.iter().all(|it| it.kind == WindowKind::Blind));
            let found: Vec<_> = windows.iter().map(|it| (it.from_us, it.until_us)).collect();
            assert_eq!(found, unseen, "{born:?}");
        }
    }
}
