//! Windows: from when until when a flow got through that must not, one did not get through that must, or nobody can tell.
//!
//! They are read off what a client saw of samples that were sent at a fixed pace. Time is that of the sending: a sample
//! asks what is enforced at that moment, as it is given up before anything of it is sent a second time. So a window is
//! known to the pace, at either end.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ztc_wire::Stretch;

use crate::outcome::Reading;

/// More than so many times the pace between two samples, and nobody knows what was enforced in between.
const APART: u64 = 3;

/// What a window is about.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKind {
    /// Nothing was sent, or the client could not send.
    Blind,
    /// What must get through did not.
    Outage,
    /// What must not get through did.
    Leak,
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blind => "blind",
            Self::Outage => "outage",
            Self::Leak => "leak",
        })
    }
}

/// One window of one flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// What it is about.
    pub kind: WindowKind,
    /// When the first sample of it was sent, microseconds since the watching began; where none was sent, when one was due.
    pub from_us: u64,
    /// When the first sample after it was sent; where it was the last, when the next one was due.
    pub until_us: u64,
    /// How many samples are of it.
    pub samples: u64,
    /// The client's own address and port in the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<SocketAddr>,
    /// And in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<SocketAddr>,
    /// What the client saw of the first, in words.
    pub seen: String,
}

impl Window {
    /// How long it is, microseconds.
    pub const fn long_us(&self) -> u64 {
        self.until_us.saturating_sub(self.from_us)
    }

    /// A time in which nothing was sent, and why.
    pub fn blind((from_us, until_us): (u64, u64), why: &str) -> Self {
        let (kind, samples, first, last) = (WindowKind::Blind, 0, None, None);
        Self { kind, from_us, until_us, samples, first, last, seen: why.to_owned() }
    }
}

/// The windows of a flow, in the order of time; none where all of its samples were as they must be.
///
/// `stretches` are in the order of sending, their times microseconds since the watching began; `denied` says that the flow
/// must not get through, `peers` who may answer, `every_us` the pace, and `until_us` until when samples were to be sent.
pub fn windows(
    stretches: &[Stretch],
    denied: bool,
    peers: &BTreeSet<String>,
    (every_us, until_us): (u64, u64),
) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    // The window that the last stretch is of, if it is of one.
    let mut open = false;
    let mut due: Option<u64> = None;
    for stretch in stretches {
        let from_us = stretch.first.at_us;
        if let Some(due) = due.filter(|due| is_hole(*due, from_us, every_us)) {
            windows.push(hole(due, from_us));
            open = false;
        } else if open && let Some(last) = windows.last_mut() {
            last.until_us = from_us;
        }
        let until_us = stretch.last.at_us + every_us;
        due = Some(until_us);
        let Some(kind) = kind(stretch, denied, peers) else {
            open = false;
            continue;
        };
        match windows.last_mut() {
            Some(last) if open && last.kind == kind => {
                last.until_us = until_us;
                last.samples += stretch.count;
                last.last = stretch.last.local;
            }
            _ => windows.push(Window {
                kind,
                from_us,
                until_us,
                samples: stretch.count,
                first: stretch.first.local,
                last: stretch.last.local,
                seen: stretch.seen.to_string(),
            }),
        }
        open = true;
    }
    // Whoever was not there at the end saw no end.
    let due = due.unwrap_or(0);
    if is_hole(due, until_us, every_us) {
        windows.push(hole(due, until_us));
    }
    windows
}

/// What kind of window a stretch is of, if it is of one.
pub fn kind(stretch: &Stretch, denied: bool, peers: &BTreeSet<String>) -> Option<WindowKind> {
    match (Reading::of_observed(&stretch.seen, peers), denied) {
        // Whoever answered, no policy stopped it: that a client sees something else than silence proves nothing.
        (Reading::Unsent { .. }, _) | (Reading::Unclear { .. }, true) => Some(WindowKind::Blind),
        (Reading::Through { .. } | Reading::Astray { .. }, true) => Some(WindowKind::Leak),
        (Reading::Through { .. }, false) | (Reading::Stopped, true) => None,
        (Reading::Stopped | Reading::Astray { .. } | Reading::Unclear { .. }, false) => {
            Some(WindowKind::Outage)
        }
    }
}

/// How often a connection that goes on was another one than before.
pub fn reconnects(stretches: &[Stretch]) -> usize {
    let ends = stretches.iter().flat_map(|it| [it.first.local, it.last.local]).flatten();
    let mut ends: Vec<SocketAddr> = ends.collect();
    ends.dedup();
    ends.len().saturating_sub(1)
}

/// Whether nobody knows what was enforced between the moment at which a sample was due and the next one.
const fn is_hole(due_us: u64, next_us: u64, every_us: u64) -> bool {
    next_us > due_us + every_us * (APART - 1)
}

fn hole(from_us: u64, until_us: u64) -> Window {
    Window::blind((from_us, until_us), "nothing was sent")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ztc_wire::{Observed, Phase, Sent};

    use super::*;

    const EVERY: u64 = 10_000;

    fn peers() -> BTreeSet<String> {
        BTreeSet::from(["a/b".to_owned()])
    }

    fn seen(through: bool) -> Observed {
        if through {
            Observed::Reply { peer: "a/b".to_owned(), remote: ([10, 0, 0, 2], 9000).into() }
        } else {
            Observed::Timeout { phase: Phase::Connect }
        }
    }

    fn sample(at_us: u64, seen: Observed) -> Stretch {
        let port = u16::try_from(at_us / EVERY + 1).unwrap();
        let local = Some(SocketAddr::from(([10, 0, 0, 1], port)));
        Stretch::of(seen, Sent { at_us, local }, 100)
    }

    /// Samples at the pace, joined as an agent does.
    fn joined(row: impl IntoIterator<Item = Stretch>) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for next in row {
            next.add_to(&mut stretches, EVERY, false);
        }
        stretches
    }

    fn row(through: &[bool]) -> Vec<Stretch> {
        let at = |index: usize| u64::try_from(index).unwrap() * EVERY;
        joined(through.iter().enumerate().map(|(index, it)| sample(at(index), seen(*it))))
    }

    #[test]
    fn a_leak_is_from_its_first_flow_to_the_first_that_is_stopped_again() {
        let stretches = row(&[false, false, true, true, true, false]);
        let found = windows(&stretches, true, &peers(), (EVERY, 0));
        let [leak] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((leak.kind, leak.from_us, leak.until_us), (WindowKind::Leak, 20_000, 50_000));
        assert_eq!((leak.samples, leak.seen.as_str()), (3, "answered by a/b"));
        let ports = [leak.first, leak.last].map(|it| it.map(|it| it.port()));
        assert_eq!(ports, [Some(3), Some(5)]);
        assert!(
            windows(&stretches, false, &peers(), (EVERY, 0))
                .iter()
                .all(|it| it.kind == WindowKind::Outage)
        );
    }

    #[test]
    fn where_nothing_was_sent_nobody_knows() {
        let stretches = joined([
            sample(0, seen(false)),
            sample(50_000, seen(false)),
            sample(60_000, seen(true)),
        ]);
        let found = windows(&stretches, true, &peers(), (EVERY, 0));
        let kinds: Vec<(WindowKind, u64, u64)> =
            found.iter().map(|it| (it.kind, it.from_us, it.until_us)).collect();
        assert_eq!(
            kinds,
            [(WindowKind::Blind, 10_000, 50_000), (WindowKind::Leak, 60_000, 70_000)]
        );
    }

    #[test]
    fn who_is_not_there_at_the_end_or_never_was_is_blind() {
        let found = windows(&row(&[false, false]), true, &peers(), (EVERY, 90_000));
        let [blind] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (blind.kind, blind.from_us, blind.until_us),
            (WindowKind::Blind, 20_000, 90_000)
        );
        assert_eq!(windows(&[], false, &peers(), (EVERY, 90_000)).len(), 1);
        assert!(windows(&row(&[false; 8]), true, &peers(), (EVERY, 90_000)).is_empty());
    }

    #[test]
    fn a_client_that_cannot_send_proves_nothing_either_way() {
        let unsent = Observed::Unsent { operation: "bind".to_owned(), error: "none".to_owned() };
        for denied in [true, false] {
            let found = windows(&[sample(0, unsent.clone())], denied, &peers(), (EVERY, 0));
            assert_eq!(found[0].kind, WindowKind::Blind);
        }
    }

    #[test]
    fn a_connection_that_is_another_one_was_reset_once() {
        assert_eq!(reconnects(&[sample(0, seen(true)), sample(EVERY, seen(true))]), 1);
        assert_eq!(reconnects(&[sample(0, seen(true))]), 0);
    }

    proptest! {
        /// Whatever is sent at the pace is in exactly one window if it is not as it must be, and in none otherwise.
        #[test]
        fn every_sample_that_is_not_as_it_must_be_is_in_one_window(
            through in prop::collection::vec(any::<bool>(), 0..60),
            denied: bool,
        ) {
            let found = windows(&row(&through), denied, &peers(), (EVERY, 0));
            let wrong = through.iter().filter(|it| **it == denied).count();
            let counted: u64 = found.iter().map(|it| it.samples).sum();
            prop_assert_eq!(counted, u64::try_from(wrong).unwrap());
            for (index, it) in through.iter().enumerate() {
                let at = u64::try_from(index).unwrap() * EVERY;
                let around = found.iter().filter(|it| it.from_us <= at && at < it.until_us).count();
                prop_assert_eq!(around, usize::from(*it == denied));
            }
            // Two windows of one kind never touch.
            for pair in found.windows(2) {
                prop_assert!(pair[0].until_us < pair[1].from_us);
            }
        }
    }
}
