//! Samples: one stimulus again and again, told of in stretches in the order of sending.
//!
//! The pace is kept whatever becomes of the samples: one that is lost delays none. A sample that cannot be sent in its time
//! is left out, and the hole is there for everybody to see in the times of its neighbours.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use ztc_wire::{Event, Observed, RunId, Stimulus, Stretch};

use crate::client;
use crate::run::{Run, Runs};
use crate::spool;

/// How often what has ended is told of.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// Samples of one stimulus that are under way before the next is left out: each holds a socket.
const AT_ONCE: usize = 512;

/// What is sent, and how.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: RunId,
    pub(crate) stimulus: Stimulus,
    pub(crate) every: Duration,
    pub(crate) deadline: Duration,
}

/// Sends until it is cancelled, waits for what is under way then, and tells of everything.
pub(crate) async fn run(runs: Arc<Runs>, order: Order, mut cancelled: oneshot::Receiver<()>) {
    let mut row = Row::of(&order);
    let mut under_way = JoinSet::new();
    let mut ticks = interval(order.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tell = interval(TOLD_EVERY);
    tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut over = false;
    while !over || !under_way.is_empty() {
        tokio::select! {
            _ = ticks.tick(), if !over => {
                if under_way.len() < AT_ONCE && runs.has_room() {
                    let sample = Run::sample(order.id, Arc::clone(&runs));
                    let end = Instant::now() + order.deadline;
                    under_way.spawn(one(row.begin(), sample, order.stimulus.clone(), end));
                }
            }
            Some(Ok((number, stretch))) = under_way.join_next(), if !under_way.is_empty() => row.end(number, stretch),
            _ = tell.tick() => tell_of(&runs, &order, row.take(), false),
            // Whoever could cancel it goes with the agent alone.
            _ = &mut cancelled, if !over => over = true,
        }
    }
    tell_of(&runs, &order, row.take(), true);
}

fn tell_of(runs: &Runs, order: &Order, stretches: Vec<Stretch>, over: bool) {
    if over || !stretches.is_empty() {
        runs.say(Event::Sampled { id: order.id, stretches, over });
    }
}

async fn one(number: u64, run: Run, stimulus: Stimulus, end: Instant) -> (u64, Stretch) {
    let seen = timeout_at(end, client::send(&run, &stimulus)).await;
    let seen = seen.unwrap_or_else(|_| Observed::Timeout { phase: run.phase() });
    let sent = run.sent();
    (number, Stretch::of(seen, sent, spool::now_us().saturating_sub(sent.at_us)))
}

/// Samples in the order of sending. They end in any order, and are passed on in this one.
#[derive(Debug)]
struct Row {
    every_us: u64,
    one_connection: bool,
    /// The number of the first of those under way.
    first: u64,
    /// From that one on, those that have ended.
    under_way: VecDeque<Option<Stretch>>,
    ended: Vec<Stretch>,
}

impl Row {
    fn of(order: &Order) -> Self {
        Self {
            every_us: u64::try_from(order.every.as_micros()).unwrap_or(u64::MAX),
            one_connection: order.stimulus.goes_on(),
            first: 0,
            under_way: VecDeque::new(),
            ended: Vec::new(),
        }
    }

    /// The number of the next sample.
    fn begin(&mut self) -> u64 {
        self.under_way.push_back(None);
        self.first + self.under_way.len() as u64 - 1
    }

    fn end(&mut self, number: u64, stretch: Stretch) {
        let index = usize::try_from(number - self.first).expect("no more samples than memory");
        self.under_way[index] = Some(stretch);
        while let Some(Some(_)) = self.under_way.front() {
            self.first += 1;
            let next = self.under_way.pop_front().flatten();
            let next = next.expect("it was there a moment ago");
            next.add_to(&mut self.ended, self.every_us, self.one_connection);
        }
    }

    /// What has ended since the last time.
    fn take(&mut self) -> Vec<Stretch> {
        std::mem::take(&mut self.ended)
    }
}

#[cfg(test)]
mod tests {
    use ztc_wire::{Host, Phase, Sent, Target};

    use super::*;

    fn row() -> Row {
        let to = Target { host: Host::Ip([10, 0, 0, 2].into()), port: 1, family: None };
        Row::of(&Order {
            id: RunId(1),
            stimulus: Stimulus::Tcp { to },
            every: Duration::from_micros(10),
            deadline: Duration::from_secs(1),
        })
    }

    fn at(at_us: u64, seen: Observed) -> Stretch {
        Stretch::of(seen, Sent { at_us, local: None }, 1)
    }

    fn lost() -> Observed {
        Observed::Timeout { phase: Phase::Connect }
    }

    #[test]
    fn samples_are_told_of_in_the_order_of_sending_however_they_end() {
        let mut row = row();
        let numbers: Vec<u64> = (0..4).map(|_| row.begin()).collect();
        assert_eq!(numbers, [0, 1, 2, 3]);
        row.end(3, at(30, Observed::Refused));
        row.end(1, at(10, lost()));
        assert!(row.take().is_empty(), "the first is still under way");
        row.end(0, at(0, Observed::Refused));
        let told: Vec<(u64, u64)> =
            row.take().iter().map(|it| (it.first.at_us, it.count)).collect();
        assert_eq!(told, [(0, 1), (10, 1)]);
        row.end(2, at(20, Observed::Refused));
        let told: Vec<(u64, u64)> =
            row.take().iter().map(|it| (it.first.at_us, it.count)).collect();
        assert_eq!(told, [(20, 2)], "each once");
    }
}
