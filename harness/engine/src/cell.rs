//! One cell of a case, from its stream before the policies to the end of its hold.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use ztc_model::suite::Cell;
use ztc_model::verdict::Sample;

use crate::interruption::Interruption;
use crate::profile::Pace;
use crate::stage::{Stage, realised};
use crate::volley::{Aim, Shot, State, Volley};

/// How many denied stimuli in a row make a denial true. One is not enough: while a policy takes
/// hold, successes and failures can alternate (`docs/facts.md`, a CIDR deny over an FQDN
/// identity).
const IN_A_ROW: usize = 3;

/// What was seen of a cell under its policies.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Every stimulus that counts, in the order of sending.
    pub(crate) samples: Vec<Sample>,
    /// Why the denial did not become true, if it did not.
    pub(crate) unsettled: Option<String>,
    /// From the acceptance to the last answer that still came.
    pub(crate) time_to_enforce: Option<Duration>,
    /// How long it took until a record settled a stimulus, for each that had one.
    pub(crate) settled_after: Vec<Duration>,
}

/// Keeps sending while the policies take hold, then holds the denial.
///
/// The stream begins before the policies are applied, so that the last answer that still came
/// measures the time to enforce. Its sockets stay open through the hold. An interruption ends the
/// watching, and what a denial that had become true showed until then is kept.
pub(crate) async fn watch_denial(
    cell: &Cell,
    aim: Aim,
    pace: &Pace,
    mut stage: watch::Receiver<Stage>,
    interruption: &Interruption,
) -> Watched {
    let mut volley = Volley::new(aim);
    let mut ticks = interval(pace.stream_every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (accepted, at) = loop {
        tokio::select! {
            _ = ticks.tick() => volley.fire(),
            reached = realised(&mut stage) => match reached {
                Some(moments) => break moments,
                None => return Watched::default(),
            },
        }
    };
    let ceiling = accepted + pace.settle_ceiling();
    let mut truth = Truth::NotYet;
    while truth == Truth::NotYet && Instant::now() < ceiling {
        tokio::select! {
            _ = ticks.tick() => volley.fire(),
            () = volley.changed() => {}
            () = tokio::time::sleep_until(ceiling) => {}
            () = interruption.wait() => return Watched::default(),
        }
        truth = volley.look(|shots| Truth::of(shots, at, &cell.peers));
    }
    let unsettled = match truth {
        Truth::Denied { .. } => {
            hold(&mut volley, pace, interruption).await;
            None
        }
        Truth::NotYet => Some(format!(
            "it was neither denied {IN_A_ROW} times in a row nor answered within {} ms",
            pace.settle_ceiling_ms
        )),
    };
    let shots = volley.finish().await;
    let first = match truth {
        Truth::Denied { from } => from,
        Truth::NotYet => shots.partition_point(|shot| shot.fired < at),
    };
    let time_to_enforce = Some(last_answer(&shots, accepted, &cell.peers));
    Watched {
        unsettled,
        time_to_enforce,
        ..Watched::of(&shots[first.min(shots.len())..], accepted)
    }
}

/// Watches a cell whose pod was born under the policies: whatever it sent counts.
pub(crate) async fn watch_newborn(
    mut volley: Volley,
    pace: &Pace,
    accepted: Instant,
    interruption: &Interruption,
) -> Watched {
    hold(&mut volley, pace, interruption).await;
    Watched::of(&volley.finish().await, accepted)
}

/// Waits until the flow passes under the policies, then sends on through the hold.
pub(crate) async fn watch_passage(
    cell: &Cell,
    aim: Aim,
    pace: &Pace,
    mut stage: watch::Receiver<Stage>,
    interruption: &Interruption,
) -> Watched {
    let Some((accepted, _)) = realised(&mut stage).await else {
        return Watched::default();
    };
    let passage = async {
        // What the ceiling ends on is sent again below and judged there, with its evidence.
        let _last = aim.until_through(&cell.peers, pace.pass_ceiling()).await;
        let mut volley = Volley::new(aim);
        fire_evenly(&mut volley, pace.allowed_samples, pace).await;
        settle_all(&volley, &cell.peers, pace.probe_deadline()).await;
        Watched::of(&volley.finish().await, accepted)
    };
    tokio::select! {
        watched = passage => watched,
        () = interruption.wait() => Watched::default(),
    }
}

/// Whether a denial has become true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    NotYet,
    Denied {
        /// The first shot of the unbroken row.
        from: usize,
    },
}

impl Truth {
    /// Looks at the shots that were sent after the policies were realised: the row of denied ones
    /// has to be unbroken since the last answer, whenever that answer was sent.
    fn of(shots: &[Shot], realised: Instant, peers: &BTreeSet<String>) -> Self {
        let begin = shots.partition_point(|shot| shot.fired < realised);
        let states: Vec<State> = shots[begin..].iter().map(|shot| shot.state(peers)).collect();
        let row = states.iter().rposition(|it| *it == State::Through).map_or(0, |it| it + 1);
        let stopped = states[row..]
            .iter()
            .filter(|it| matches!(it, State::StoppedOnRecord | State::StoppedInSilence))
            .count();
        if stopped >= IN_A_ROW { Self::Denied { from: begin + row } } else { Self::NotYet }
    }
}

/// Sends fresh stimuli through the hold and waits for the last ones to settle.
async fn hold(volley: &mut Volley, pace: &Pace, interruption: &Interruption) {
    let holding = async {
        fire_evenly(volley, pace.hold_samples, pace).await;
        settle_all(volley, &BTreeSet::new(), pace.probe_deadline()).await;
    };
    tokio::select! {
        () = holding => {}
        () = interruption.wait() => {}
    }
}

async fn fire_evenly(volley: &mut Volley, count: u32, pace: &Pace) {
    let mut ticks = interval(pace.hold_every(count));
    for _ in 0..count {
        ticks.tick().await;
        volley.fire();
    }
    // The last one is given its share of the hold, too.
    ticks.tick().await;
}

/// Waits until no shot is open, at most for the ceiling.
async fn settle_all(volley: &Volley, peers: &BTreeSet<String>, ceiling: Duration) {
    let end = Instant::now() + ceiling;
    let is_open = |shot: &Shot| shot.state(peers) == State::Open;
    while volley.look(|shots| shots.iter().any(is_open)) && Instant::now() < end {
        tokio::select! {
            () = volley.changed() => {}
            () = tokio::time::sleep_until(end) => {}
        }
    }
}

/// From the acceptance to the last answer that still came, on the agents' clocks.
fn last_answer(shots: &[Shot], accepted: Instant, peers: &BTreeSet<String>) -> Duration {
    shots
        .iter()
        .filter(|shot| shot.state(peers) == State::Through)
        .filter_map(|shot| shot.seen_at?.checked_duration_since(accepted))
        .max()
        .unwrap_or_default()
}

impl Watched {
    fn of(shots: &[Shot], accepted: Instant) -> Self {
        let sample = |shot: &Shot| {
            let after = shot.fired.saturating_duration_since(accepted);
            Some(Sample {
                after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                seen: shot.seen.clone()?,
                evidence: shot.evidence.clone(),
            })
        };
        Self {
            samples: shots.iter().filter_map(sample).collect(),
            settled_after: shots.iter().filter_map(|shot| shot.settled_after).collect(),
            ..Self::default()
        }
    }
}
