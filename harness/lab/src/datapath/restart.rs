//! Agents that restart, on all nodes at once.
//!
//! What an agent has put into the datapath stays there and goes on without it, and so do the names that its DNS proxy has
//! learnt: an agent that comes back takes both over again (`pkg/endpoint/restore.go`, `pkg/fqdn/namemanager`). Meanwhile
//! nobody answers queries that policy sends to the proxy, and nobody keeps records.

use std::time::{Duration, Instant};

use crate::fault::{Fault, Faults};

use super::config::Now;
use super::switch::Datapath;

/// How long agents are away. Real ones need about 12 s (`docs/facts.md`).
const AWAY: Duration = Duration::from_millis(200);

/// The last restart of agents.
#[derive(Debug)]
pub(super) struct Restarted {
    at: Instant,
    /// How those are broken who came back, as far as it shows then.
    as_broken: Faults,
}

impl Datapath {
    /// Restarts the agents of all nodes. Those who come back are broken in these ways, as far as it shows then.
    pub(crate) fn restart_agents(&mut self, as_broken: Faults, now: Now) {
        let forget = as_broken.has(Fault::RestartForgetsNames);
        self.agents_restarted = Some(Restarted { at: now.monotonic, as_broken });
        if forget {
            self.forget_names();
        }
    }

    /// Forgets the names that were learnt, as if nobody had asked for any yet.
    pub(crate) fn forget_names(&mut self) {
        if self.repository.forget_all_names() {
            self.repository.regenerate(&mut self.endpoints);
        }
    }

    /// Whether agents are away, and nobody proxies or records.
    pub(crate) fn agents_are_away(&self, now: Instant) -> bool {
        self.agents_back_at(now).is_some()
    }

    /// When agents that are away will be back; nothing where they are there.
    pub(crate) fn agents_back_at(&self, now: Instant) -> Option<Instant> {
        let back = self.agents_restarted.as_ref()?.at + AWAY;
        (now < back).then_some(back)
    }

    /// Whether records are lost now: as agents are away, or on purpose.
    pub(super) fn nobody_records(&self, now: Instant) -> bool {
        self.agents_are_away(now) || self.sabotage.faults.has(Fault::LoseFlowRecords)
    }

    /// Whether a packet passes that policy drops, as nobody is there.
    pub(super) fn is_left_open(&self, now: Instant) -> bool {
        self.is_within(Faults::restart_opens, now)
    }

    /// Whether a packet vanishes that policy lets pass, as nobody is there.
    pub(super) fn is_closed(&self, now: Instant) -> bool {
        self.is_within(Faults::restart_closes, now)
    }

    /// Whether a moment is not later after agents were restarted than follows from how they are broken.
    fn is_within(&self, time: impl FnOnce(&Faults) -> Option<Duration>, now: Instant) -> bool {
        self.agents_restarted.as_ref().is_some_and(|restarted| {
            time(&restarted.as_broken).is_some_and(|time| now < restarted.at + time)
        })
    }
}
