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
use crate::agent::{Flight, News, micros};
use crate::chain;
use crate::event::{Births, WatchedFlow};
use crate::fabric::AddressBook;
use crate::summary;

/// How long from one birth to the next at least: whoever is born takes time from everybody else.
const APART: Duration = Duration::from_millis(200);

/// How many records are kept of the leaks of a flow.
const KEPT_RECORDS: usize = 6;

/// What came of the pods of one name.
pub(super) struct Brood {
    pub(super) flows: Vec<WatchedFlow>,
    /// Why the last of them may still be there.
    pub(super) left: Option<(PodRef, String)>,
}

/// A flow of every pod of that name.
struct Row<'a> {
    /// The position of its cell in the case.
    index: usize,
    cell: &'a Cell,
    denied: bool,
    samples: u64,
    windows: Vec<Window>,
    evidence: Vec<Arc<Evidence>>,
}

impl Life<'_> {
    /// Lets each pod that is born in the case be born, send, and go, until it is stopped. The last one lives to its end.
    pub(super) async fn births(
        &self,
        begun: Instant,
        stopped: watch::Receiver<bool>,
    ) -> Vec<Brood> {
        let pods = self.case.create.iter();
        join_all(pods.map(|pod| self.generations(pod, begun, stopped.clone()))).await
    }

    async fn generations(
        &self,
        pod: &PodRef,
        begun: Instant,
        stopped: watch::Receiver<bool>,
    ) -> Brood {
        let mut rows: Vec<Row<'_>> = self
            .case
            .cells
            .iter()
            .enumerate()
            .filter_map(|(index, it)| row(index, it, pod))
            .collect();
        let mut births = Births { count: 0, slowest_us: 0 };
        let mut left = None;
        while !*stopped.borrow() && left.is_none() && !rows.is_empty() {
            let ordered = Instant::now();
            let lived = self.one_life(pod, &mut rows, begun).await;
            match lived {
                Ok(born) => {
                    births.count += 1;
                    let took = micros(born.saturating_duration_since(ordered));
                    births.slowest_us = births.slowest_us.max(took);
                }
                Err(why) => {
                    let unborn = unborn(begun, ordered, &why);
                    for row in &mut rows {
                        row.windows.push(unborn.clone());
                    }
                }
            }
            left =
                self.lane.cluster.delete_pod(pod).await.err().map(|it| (pod.clone(), chain(&it)));
            let mut stopped = stopped.clone();
            let stop = stopped.wait_for(|it| *it);
            // Which of the two it was the loop looks at.
            let _either = tokio::time::timeout_at(ordered + APART, stop).await;
        }
        Brood { flows: rows.into_iter().map(|it| it.report(pod, births)).collect(), left }
    }

    /// One pod, until everything that it sends by itself has come to its end; when it said its first word.
    async fn one_life(
        &self,
        pod: &PodRef,
        rows: &mut [Row<'_>],
        begun: Instant,
    ) -> Result<Instant, String> {
        let book = self.lane.cluster.addresses().await.map_err(|error| chain(&error))?;
        let sends: Vec<_> = rows.iter().enumerate().map(|(row, it)| (row, &it.cell.send)).collect();
        let ceiling = self.pace.restart_ceiling();
        let mut nursery =
            self.give_birth(pod, &sends, &book, ceiling).await.map_err(|it| it.to_string())?;
        let born = Instant::now();
        let flights: Vec<Vec<Flight>> =
            (0..rows.len()).map(|row| nursery.flights.remove(&row).unwrap_or_default()).collect();
        let patience = self.pace.probe_deadline() + ceiling;
        let seen = flights.into_iter().map(|flights| {
            let ends =
                flights.into_iter().map(|it| end(it, (begun, born), Instant::now() + patience));
            join_all(ends)
        });
        for (row, mut stretches) in rows.iter_mut().zip(join_all(seen).await) {
            stretches.sort_by_key(|it| it.first.at_us);
            row.take(&stretches);
            self.find_leaked(row, &stretches, &nursery, &book, begun)?;
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
    ) -> Result<(), String> {
        let aim = self.aim(row.cell, &nursery.agent, book)?;
        let leaked = stretches.iter().filter(|it| row.kind(it) == Some(WindowKind::Leak));
        let leaked: Vec<SocketAddr> = leaked.filter_map(|it| it.first.local).collect();
        for local in leaked {
            let interest = aim.interest(Leg::Send, local, local);
            let records = aim.board.about(interest, &aim.leads(Leg::Send, None), begun);
            row.evidence.extend(records);
            row.evidence.truncate(KEPT_RECORDS);
        }
        Ok(())
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
        evidence: Vec::new(),
    })
}

/// Follows one stimulus to its end, which is dated in microseconds since the watching began; what did not get through was
/// sent when the pod said its first word, or before.
async fn end(mut flight: Flight, (begun, born): (Instant, Instant), deadline: Instant) -> Stretch {
    let mut local = None;
    let (seen, at) = loop {
        match flight.next(deadline).await {
            News::Started { leg: Leg::Send, local: own, .. } => local = Some(own),
            News::Observed { observed, at } => break (observed, at),
            News::Lost { reason } => {
                let operation = "agent".to_owned();
                break (Observed::Unsent { operation, error: reason }, Instant::now());
            }
            _ => {}
        }
    };
    let at_us = micros(at.min(born).saturating_duration_since(begun));
    let took = at.saturating_duration_since(born);
    Stretch::of(seen, Sent { at_us, local }, micros(took))
}

fn unborn(begun: Instant, ordered: Instant, why: &str) -> Window {
    Window {
        kind: WindowKind::Blind,
        from_us: micros(ordered.saturating_duration_since(begun)),
        until_us: micros(begun.elapsed()),
        samples: 0,
        first: None,
        last: None,
        seen: format!("no pod was born: {why}"),
    }
}

impl Row<'_> {
    fn kind(&self, stretch: &Stretch) -> Option<WindowKind> {
        kind(stretch, self.denied, &self.cell.peers)
    }

    /// Adds what one pod sent: what it saw alike, one directly after the other, is one window.
    fn take(&mut self, stretches: &[Stretch]) {
        let mut open: Option<Window> = None;
        for stretch in stretches {
            self.samples += 1;
            // A moment, where everything was answered at once.
            let until_us = stretch.last.at_us + stretch.slowest_us.max(1);
            let found = self.kind(stretch);
            match (&mut open, found) {
                (Some(window), Some(kind)) if window.kind == kind => {
                    window.until_us = window.until_us.max(until_us);
                    window.samples += 1;
                    window.last = stretch.last.local;
                }
                (_, found) => {
                    self.windows.extend(open.take());
                    open = found.map(|kind| Window {
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
        self.windows.extend(open);
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
            windows: self.windows,
            evidence: self.evidence.iter().map(|it| summary::record(it)).collect(),
        }
    }
}
