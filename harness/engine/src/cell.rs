//! One cell of a case, from its stream before the policies to the end of its hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use ztc_model::evidence::Evidence;
use ztc_model::outcome::Seen;
use ztc_model::suite::Cell;
use ztc_model::verdict::Sample;

use crate::interruption::Interruption;
use crate::profile::Pace;
use crate::stage::{Moments, Stage, realised};
use crate::summary::median;
use crate::volley::{Aim, Shot, State, Volley};
use crate::wait::{Look, until};

/// How many denied stimuli in a row make a denial true. One is not enough: while a policy takes
/// hold, successes and failures can alternate (`docs/facts.md`, a CIDR deny over an FQDN
/// identity).
const IN_A_ROW: usize = 3;

/// An answer is listened for so many times as long as records of denials take. Where they are slow the machine or the
/// cluster is, and then an answer that is not there yet may still be under way.
const LISTEN: u32 = 4;

/// What was seen of a cell under its policies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    /// Every stimulus of a stream that was sent until everything was realised, in the order of sending.
    pub(crate) meanwhile: Vec<Sample>,
    /// From the first lost stimulus of a stream until the next one that arrived was sent.
    pub(crate) lost_for: Option<Duration>,
    /// Every stimulus that counts, in the order of sending.
    pub(crate) samples: Vec<Sample>,
    /// What was said of tunnels between the two sides meanwhile.
    pub(crate) beyond: Vec<Arc<Evidence>>,
    /// What came of what is beside a refused stimulus, under the same policies.
    pub(crate) beside: Option<Seen>,
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
    let first = aim.clone();
    let mut volley = Volley::new(aim.clone());
    let mut ticks = interval(pace.stream_every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Moments { accepted, at, since } = loop {
        tokio::select! {
            _ = ticks.tick() => volley.fire(),
            reached = realised(&mut stage) => match reached {
                Some(moments) => break moments,
                None => return Watched::default(),
            },
        }
    };
    // What was sent before this is over says nothing about what comes after it.
    let preceded = tokio::select! {
        preceded = first.precede(pace.stream_every(), pace.pass_ceiling()) => preceded,
        () = interruption.wait() => return Watched::default(),
    };
    if let Err(reason) = preceded {
        return Watched { unsettled: Some(reason), ..Watched::default() };
    }
    // An answer to what is sent from then on breaks the assertion, whatever comes later.
    let due = (accepted + pace.settle_ceiling())
        .max(at + pace.settle_ceiling().min(pace.probe_deadline()));
    let late = first.after.is_none().then_some(due);
    let (since, at, ceiling) = match first.after {
        // What came first may have to wear off, and where nobody speaks a denial is waited out. A packet that was
        // dropped before it is sent again, and may get through while what came first holds.
        Some(_) => {
            let now = Instant::now();
            (now, now, now + pace.settle_ceiling() + pace.probe_deadline())
        }
        // What is silent by then is listened to. After a restart, which may take longer, denials have been true all the time.
        None => (since, at, due + pace.probe_deadline()),
    };
    let truth = loop {
        let mut truth = Truth::NotYet;
        while truth == Truth::NotYet && Instant::now() < ceiling {
            tokio::select! {
                _ = ticks.tick() => volley.fire(),
                () = volley.changed() => {}
                () = tokio::time::sleep_until(ceiling) => {}
                () = interruption.wait() => return Watched::default(),
            }
            truth = volley.look(|shots| Truth::of(shots, at, &cell.peers));
            if truth == Truth::NotYet
                && volley.look(|shots| is_answered_from(shots, late, &cell.peers))
            {
                break;
            }
        }
        let Truth::Denied { from } = truth else { break truth };
        let begun = Instant::now();
        hold(&mut volley, pace, interruption).await;
        // A record can be faster than the answer to the same flow: a row that was answered before
        // the hold began was none. Any later answer is a leak, to the row as to the hold.
        let answered = volley.look(|shots| last_answer(&shots[from..], &cell.peers));
        if answered.is_none_or(|seen_at| seen_at >= begun) || Instant::now() >= ceiling {
            break truth;
        }
    };
    let unsettled = (truth == Truth::NotYet).then(|| {
        format!(
            "it was neither denied {IN_A_ROW} times in a row nor answered within {} ms",
            pace.settle_ceiling_ms
        )
    });
    let first = match truth {
        Truth::Denied { from } => from,
        Truth::NotYet => volley.look(|shots| shots.partition_point(|shot| shot.fired < at)),
    };
    if truth != Truth::NotYet {
        until_spoken(cell, &aim, &volley, first, (pace, interruption)).await;
    }
    let shots = volley.finish().await;
    let first = leaked_between(&shots, since, at, &cell.peers).map_or(first, |it| it.min(first));
    let last = last_answer(&shots, &cell.peers);
    let time_to_enforce =
        last.and_then(|last| last.checked_duration_since(accepted)).or(Some(Duration::ZERO));
    let shots = &shots[first.min(shots.len())..];
    Watched {
        beyond: beyond(&aim, shots),
        unsettled,
        time_to_enforce,
        ..Watched::of(shots, accepted)
    }
}

/// The first stimulus that got through although it was sent after everything was enforced, while policies were
/// taken away again.
fn leaked_between(
    shots: &[Shot],
    since: Instant,
    at: Instant,
    peers: &BTreeSet<String>,
) -> Option<usize> {
    let between = |shot: &Shot| shot.fired >= since && shot.fired < at;
    shots.iter().position(|shot| between(shot) && shot.state(peers) == State::Through)
}

/// Whether something was answered that was sent from a moment on, if there is one.
fn is_answered_from(shots: &[Shot], late: Option<Instant>, peers: &BTreeSet<String>) -> bool {
    let is_late = |shot: &&Shot| late.is_some_and(|late| shot.fired >= late);
    let mut latest = shots.iter().rev().take_while(is_late);
    latest.any(|shot| shot.state(peers) == State::Through)
}

/// When the last settled stimulus of a stream was sent.
pub(crate) type Pulse = watch::Sender<Option<Instant>>;

/// Sends from before the first policy to the end of the hold. Everything counts.
pub(crate) async fn watch_stream(
    cell: &Cell,
    aim: Aim,
    pace: &Pace,
    mut stage: watch::Receiver<Stage>,
    pulse: &Pulse,
    interruption: &Interruption,
) -> Watched {
    let mut volley = Volley::new(aim);
    let mut ticks = interval(pace.stream_every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Moments { accepted, at, .. } = loop {
        tokio::select! {
            _ = ticks.tick() => volley.fire(),
            () = volley.changed() => {}
            reached = realised(&mut stage) => match reached {
                Some(moments) => break moments,
                None => return Watched::default(),
            },
            () = interruption.wait() => return Watched::default(),
        }
        let is_settled = |shot: &&Shot| shot.state(&cell.peers) != State::Open;
        let settled = volley.look(|shots| shots.iter().rev().find(is_settled).map(|it| it.fired));
        pulse.send_if_modified(|last| std::mem::replace(last, settled) != settled);
    };
    hold(&mut volley, pace, interruption).await;
    let shots = volley.finish().await;
    let (meanwhile, after) = shots.split_at(shots.partition_point(|shot| shot.fired < at));
    Watched {
        meanwhile: Watched::of(meanwhile, accepted).samples,
        lost_for: lost_for(&shots, &cell.peers),
        ..Watched::of(after, accepted)
    }
}

/// From the first stimulus that did not arrive until the one after the last of them was sent.
fn lost_for(shots: &[Shot], peers: &BTreeSet<String>) -> Option<Duration> {
    let arrived = |shot: &Shot| shot.state(peers) == State::Through && !shot.was_dropped();
    let first = shots.iter().find(|it| !arrived(it))?;
    let last = shots.iter().rposition(|it| !arrived(it))?;
    let next = shots.get(last + 1).or(shots.last())?;
    Some(next.fired.saturating_duration_since(first.fired))
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

/// Sends through the hold what is refused whatever policies say, and then what is beside it. Everything counts.
pub(crate) async fn watch_refusal(
    cell: &Cell,
    aim: Aim,
    pace: &Pace,
    mut stage: watch::Receiver<Stage>,
    interruption: &Interruption,
) -> Watched {
    let Some(Moments { accepted, .. }) = realised(&mut stage).await else {
        return Watched::default();
    };
    let control = aim.control();
    let mut volley = Volley::new(aim);
    hold(&mut volley, pace, interruption).await;
    let shots = volley.finish().await;
    let beside = control.until_through(&cell.peers, pace.beside_every(), pace.pass_ceiling());
    let beside = tokio::select! {
        seen = beside => Some(seen),
        () = interruption.wait() => None,
    };
    Watched { beside, ..Watched::of(&shots, accepted) }
}

/// Waits until the flow passes under the policies, then sends on through the hold.
pub(crate) async fn watch_passage(
    cell: &Cell,
    aim: Aim,
    pace: &Pace,
    mut stage: watch::Receiver<Stage>,
    interruption: &Interruption,
) -> Watched {
    let Some(Moments { accepted, .. }) = realised(&mut stage).await else {
        return Watched::default();
    };
    let passage = async {
        // If that fails, the flow itself has to tell whether it was needed.
        let _preceded = aim.precede(pace.stream_every(), pace.pass_ceiling()).await;
        // What the ceiling ends on is sent again below and judged there, with its evidence.
        aim.wait_for_passage(&cell.peers, pace.stream_every(), pace.pass_ceiling()).await;
        let mut volley = Volley::new(aim.clone());
        fire_evenly(&mut volley, pace.allowed_samples, pace).await;
        settle_all(&volley, &cell.peers, pace.probe_deadline()).await;
        until_spoken(cell, &aim, &volley, 0, (pace, interruption)).await;
        let shots = volley.finish().await;
        Watched { beyond: beyond(&aim, &shots), ..Watched::of(&shots, accepted) }
    };
    tokio::select! {
        watched = passage => watched,
        () = interruption.wait() => Watched::default(),
    }
}

/// What was said of tunnels between the two sides since the first of these shots.
fn beyond(aim: &Aim, shots: &[Shot]) -> Vec<Arc<Evidence>> {
    match (shots.first(), &aim.pair) {
        (Some(first), Some(pair)) => aim.board.between(pair, first.fired),
        _ => Vec::new(),
    }
}

/// Waits until whoever has to speak has spoken, of one of the shots from `first` on or of a tunnel between the two sides,
/// at most for the time of a stimulus.
///
/// An answer is often faster than the record of it: ztunnel writes when a connection ends, a waypoint once a second
/// (`pkg/envoy/proxy.go` of Istio), and on a busy machine the streams of records lag. Where nothing comes, the verdict
/// says what is missing.
async fn until_spoken(
    cell: &Cell,
    aim: &Aim,
    volley: &Volley,
    first: usize,
    (pace, interruption): (&Pace, &Interruption),
) {
    let Some(awaited) = cell.expected.point() else { return };
    let denied = cell.expected.is_denied();
    let is_awaited = |it: &Arc<Evidence>| it.point == awaited && it.did.is_denial() == denied;
    let has_spoken = || {
        volley.look(|shots| {
            let shots = &shots[first.min(shots.len())..];
            shots.iter().flat_map(|shot| &shot.evidence).any(is_awaited)
                || beyond(aim, shots).iter().any(is_awaited)
        })
    };
    let spoken = until("a record", pace.probe_deadline(), pace.poll(), || async {
        let status = || format!("{awaited} has not spoken");
        Ok(if has_spoken() { Look::Met(()) } else { Look::NotYet { status: status() } })
    });
    tokio::select! {
        _ = spoken => {}
        () = interruption.wait() => {}
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
    /// Looks at the shots that were sent after the policies were realised: a row of denied ones,
    /// one directly after the other, and no answer to anything that was sent later.
    ///
    /// A shot before the row that is still open was sent before the denial was true; its answer, if
    /// it comes, is a matter of the time to enforce.
    fn of(shots: &[Shot], realised: Instant, peers: &BTreeSet<String>) -> Self {
        let begin = shots.partition_point(|shot| shot.fired < realised);
        let (mut truth, mut row) = (Self::NotYet, 0);
        for (index, shot) in shots.iter().enumerate().skip(begin) {
            match shot.state(peers) {
                State::StoppedOnRecord | State::StoppedInSilence => row += 1,
                State::Through => (truth, row) = (Self::NotYet, 0),
                State::Open | State::Void => row = 0,
            }
            if row == IN_A_ROW && truth == Self::NotYet {
                truth = Self::Denied { from: index + 1 - IN_A_ROW };
            }
        }
        truth
    }
}

/// Sends fresh stimuli through the hold and waits for the last ones to settle.
async fn hold(volley: &mut Volley, pace: &Pace, interruption: &Interruption) {
    let holding = async {
        fire_evenly(volley, pace.hold_samples, pace).await;
        settle_all(volley, &BTreeSet::new(), pace.probe_deadline()).await;
        if let Some(end) = volley.look(|shots| listen_until(shots, pace.probe_deadline())) {
            tokio::time::sleep_until(end).await;
        }
    };
    tokio::select! {
        () = holding => {}
        () = interruption.wait() => {}
    }
}

/// Until when the answer to the last of these shots may still come, at most for the deadline of a stimulus. To one whose
/// client has said its last word none comes any more.
fn listen_until(shots: &[Shot], deadline: Duration) -> Option<Instant> {
    let took = median(shots.iter().filter_map(|shot| shot.settled_after).collect())?;
    let last = shots.iter().rfind(|shot| shot.seen.is_none())?;
    Some(last.fired + (took * LISTEN).min(deadline))
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

/// When the last answer came, on the engine's clock.
fn last_answer(shots: &[Shot], peers: &BTreeSet<String>) -> Option<Instant> {
    let through = shots.iter().filter(|shot| shot.state(peers) == State::Through);
    through.filter_map(|shot| shot.seen_at).max()
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
