//! The flows of a case, sampled while something changes under its policies.
//!
//! What the client sees is all that counts: whoever enforces may be away meanwhile, and nobody asks for its records. A flow
//! that was let pass on the way has them added, as far as there are some.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use ztc_model::evidence::Evidence;
use ztc_model::outcome::Expected;
use ztc_model::suite::Cell;
use ztc_model::window::{WindowKind, kind, reconnects, windows};
use ztc_wire::{Stimulus, Stretch};

use super::births::Brood;
use super::{Life, Sender};
use crate::agent::{Flight, News, micros};
use crate::chain;
use crate::change::{Act, Change, Step};
use crate::event::{ChangeReport, StepReport, Unwatched, WatchedFlow};
use crate::fabric::Receipt;
use crate::interruption::Interruption;
use crate::summary;
use crate::volley::Aim;

/// The longest that a sample is waited for. TCP sends its first packet again after a second (RFC 6298 §2): an answer after
/// that would be about another moment than that of the sending.
const SAMPLE_DEADLINE: Duration = Duration::from_millis(900);

/// From one question to the next in a connection that goes on.
const QUESTION_EVERY: Duration = Duration::from_millis(100);

/// How many records are kept of the leaks of a flow.
pub(super) const KEPT_RECORDS: usize = 6;

/// A flow to be sampled.
struct Sampled<'a> {
    cell: &'a Cell,
    aim: Aim,
    /// What it is called.
    send: String,
    every: Duration,
    /// How long nothing may be heard of it: its agent may be out of reach while things change.
    silence: Duration,
}

/// What came of its samples.
#[derive(Default)]
struct Row {
    stretches: Vec<Stretch>,
    evidence: BTreeMap<String, Arc<Evidence>>,
    lost: Option<String>,
    /// Until when samples were to be sent.
    until_us: u64,
}

impl Life<'_> {
    /// Samples every flow of the case that can be sampled, from before the first step of the change until after the last.
    pub(super) async fn watch_change(
        &mut self,
        change: &Change,
        senders: &[Sender],
        interruption: &Interruption,
    ) -> ChangeReport {
        let every_us = micros(change.every);
        let mut report = ChangeReport {
            case: self.case.id.clone(),
            steps: Vec::new(),
            every_us,
            outage_us: micros(change.outage),
            after_ms: 0,
            flows: Vec::new(),
            unwatched: Vec::new(),
            trouble: None,
        };
        let wrong =
            self.case.cells.iter().zip(&self.outcomes).find(|(cell, it)| it.went_wrong(cell));
        if let Some((cell, _)) = wrong {
            let (from, send) = (&cell.from, &cell.send);
            report.trouble =
                Some(format!("`{from}: {send}` is not as expected before anything changes"));
            return report;
        }
        let begun = Instant::now();
        let accepted = self.accepted.unwrap_or(begun);
        report.after_ms = micros(begun.saturating_duration_since(accepted)) / 1000;
        let mut sampled = Vec::new();
        for (index, (cell, sender)) in self.case.cells.iter().zip(senders).enumerate() {
            match samples_of(cell, sender, (change.every, self.pace.restart_ceiling())) {
                Ok(flows) => sampled.extend(flows.into_iter().map(|it| (index, it))),
                Err(why) => report.unwatched.push(Unwatched {
                    from: cell.from.to_string(),
                    send: cell.send.to_string(),
                    why: why.to_owned(),
                }),
            }
        }
        // Which step is made, or was the last; none when nothing is watched any more.
        let (at, steps) = watch::channel(Some(0));
        let rows = join_all(sampled.iter().map(|(_, it)| it.follow(begun, steps.clone())));
        let changing = async {
            let made = self.make(change, begun, (&at, &mut report.steps), interruption).await;
            at.send_replace(None);
            made
        };
        let births = self.births(begun, steps.clone(), interruption);
        let (made, rows, broods) = tokio::join!(changing, rows, births);
        report.trouble = made.err();
        for ((index, sampled), row) in sampled.iter().zip(rows) {
            if let Some(lost) = &row.lost {
                report.trouble.get_or_insert_with(|| lost.clone());
            }
            report.flows.push(sampled.report(*index, &row));
        }
        for mut brood in broods {
            brood.admit(&report.steps);
            let Brood { flows, left, .. } = brood;
            // The clean-up tries again.
            self.created.extend(left);
            let (seen, unseen): (Vec<_>, Vec<_>) =
                flows.into_iter().partition(|it| it.samples > 0 || !it.windows.is_empty());
            report.flows.extend(seen);
            report.unwatched.extend(unseen.into_iter().map(|it| Unwatched {
                from: it.from,
                send: it.send,
                why: "no pod was born in that time".to_owned(),
            }));
        }
        self.lane.board.forget_gaps_since(begun);
        report
    }

    async fn make(
        &self,
        change: &Change,
        begun: Instant,
        (at, done): (&watch::Sender<Option<usize>>, &mut Vec<StepReport>),
        interruption: &Interruption,
    ) -> Result<(), String> {
        let now = || micros(begun.elapsed());
        let before = Step { name: "before".to_owned(), act: Act::Wait(change.margin) };
        // What the last samples are about comes in after they were sent.
        let after = Step { name: "after".to_owned(), act: Act::Wait(change.margin) };
        let steps = std::iter::once(&before).chain(&change.steps).chain(std::iter::once(&after));
        for (index, step) in steps.enumerate() {
            // After the last one nothing changes any more.
            if index <= change.steps.len() {
                at.send_replace(Some(index));
            }
            let from_us = now();
            let made = tokio::select! {
                made = self.step(&step.act) => made,
                () = interruption.wait() => Err("it was interrupted".to_owned()),
            };
            done.push(StepReport { step: step.name.clone(), from_us, until_us: now() });
            made.map_err(|why| format!("{}: {why}", step.name))?;
        }
        Ok(())
    }

    async fn step(&self, act: &Act) -> Result<(), String> {
        match act {
            Act::Wait(time) => {
                // Time is all that is asked for: nothing is waited for meanwhile.
                tokio::time::sleep_until(Instant::now() + *time).await;
                Ok(())
            }
            Act::Restart(component) => {
                let receipt = self.lane.cluster.restart(*component).await;
                let receipt: Receipt = receipt.map_err(|error| chain(&error))?;
                self.settle_within(self.pace.restart_ceiling(), &[receipt]).await
            }
            Act::Call(call) => call().await,
        }
    }
}

/// What is sampled of a cell.
///
/// # Errors
/// Why nothing can be.
fn samples_of<'a>(
    cell: &'a Cell,
    sender: &Sender,
    (every, silence): (Duration, Duration),
) -> Result<Vec<Sampled<'a>>, &'static str> {
    let aim = match sender {
        Sender::Agent(aim) => Aim::clone(aim),
        Sender::Kubelet(_) | Sender::Waypoint(_) => {
            return Err("kubelet sends it, at its own pace");
        }
        // Those that are born again and again send what they send.
        Sender::Unborn => return Ok(Vec::new()),
    };
    if aim.after.is_some() {
        return Err("it needs another flow before it, whose effect wears off");
    }
    if matches!(cell.expected, Expected::Refused { .. } | Expected::Interrupted { .. }) {
        return Err("no policy that stands is asked about it");
    }
    let send = cell.send.to_string();
    let mut samples = vec![Sampled { cell, aim: aim.clone(), send: send.clone(), every, silence }];
    // Beside new connections one that goes on, where somebody must let it.
    if let (Stimulus::Tcp { to }, false) = (&aim.stimulus, cell.expected.is_denied()) {
        let aim = Aim { stimulus: Stimulus::TcpFlow { to: to.clone() }, ..aim };
        let send = send.replacen("tcp ", "tcp/flow ", 1);
        samples.push(Sampled { cell, aim, send, every: QUESTION_EVERY.max(every), silence });
    }
    Ok(samples)
}

impl Sampled<'_> {
    /// Samples until it is stopped, and everything that was sent has ended.
    async fn follow(&self, begun: Instant, mut steps: watch::Receiver<Option<usize>>) -> Row {
        let mut row = Row::default();
        let mut flight: Flight = self.aim.agent.sample(
            self.aim.stimulus.clone(),
            self.every,
            self.aim.deadline.min(SAMPLE_DEADLINE),
        );
        let mut is_stopped = false;
        loop {
            tokio::select! {
                news = flight.next(Instant::now() + self.silence) => match news {
                    News::Sampled { stretches, over } => {
                        for dated in stretches {
                            let mut stretch = dated.stretch;
                            let since = |at: Instant| micros(at.saturating_duration_since(begun));
                            stretch.first.at_us = since(dated.first);
                            stretch.last.at_us = since(dated.last);
                            self.take(&mut row, stretch, begun);
                        }
                        if over {
                            return row;
                        }
                    }
                    News::Lost { reason } => {
                        row.lost = Some(reason);
                        row.until_us = row.until_us.max(micros(begun.elapsed()));
                        return row;
                    }
                    _ => {}
                },
                // Whoever could stop it goes with the case alone.
                _ = steps.wait_for(Option::is_none), if !is_stopped => {
                    is_stopped = true;
                    row.until_us = micros(begun.elapsed());
                    self.aim.agent.cancel(flight.id);
                }
            }
        }
    }

    fn take(&self, row: &mut Row, stretch: Stretch, begun: Instant) {
        let denied = self.cell.expected.is_denied();
        if kind(&stretch, denied, &self.cell.peers) == Some(WindowKind::Leak) {
            self.find_records(row, &stretch, begun);
        }
        stretch.add_to(&mut row.stretches, micros(self.every), self.aim.stimulus.goes_on());
    }

    /// Looks for what was said of the first and the last of these, before the board forgets it.
    fn find_records(&self, row: &mut Row, stretch: &Stretch, begun: Instant) {
        let ends: BTreeSet<_> =
            [stretch.first.local, stretch.last.local].into_iter().flatten().collect();
        for local in ends {
            for record in self.aim.records_of(local, begun) {
                if row.evidence.len() < KEPT_RECORDS {
                    row.evidence.entry(format!("{local} {}", record.did)).or_insert(record);
                }
            }
        }
    }

    fn report(&self, cell: usize, row: &Row) -> WatchedFlow {
        let Cell { from, expected, peers, .. } = self.cell;
        let denied = expected.is_denied();
        let is_right = |it: &&Stretch| kind(it, denied, peers).is_none();
        let slowest = row.stretches.iter().filter(is_right).map(|it| it.slowest_us).max();
        let goes_on = self.aim.stimulus.goes_on();
        WatchedFlow {
            cell,
            from: from.to_string(),
            send: self.send.clone(),
            expected: expected.to_string(),
            denied,
            point: expected.point(),
            samples: row.stretches.iter().map(|it| it.count).sum(),
            slowest_us: slowest.filter(|_| !denied).unwrap_or(0),
            reconnects: goes_on.then(|| reconnects(&row.stretches)),
            births: None,
            windows: windows(&row.stretches, denied, peers, (micros(self.every), row.until_us)),
            evidence: row.evidence.values().map(|it| summary::record(it)).collect(),
        }
    }
}
