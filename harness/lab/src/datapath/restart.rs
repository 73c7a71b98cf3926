//! Agents that restart, on all nodes at once.
//!
//! What an agent has put into the datapath stays there and goes on without it, and so do the names that its DNS proxy has
//! learnt: an agent that comes back takes both over again (`pkg/endpoint/restore.go`, `pkg/fqdn/namemanager`). Meanwhile
//! nobody answers queries that policy sends to the proxy, and nobody keeps records.

use std::time::{Duration, Instant};

use crate::fault::Fault;

use super::config::Now;
use super::switch::Datapath;

/// How long agents are away. Real ones need about 12 s (`docs/facts.md`).
const AWAY: Duration = Duration::from_millis(200);

impl Datapath {
    /// Restarts the agents of all nodes.
    pub(crate) fn restart_agents(&mut self, now: Now) {
        self.agents_restarted = Some(now.monotonic);
        if self.sabotage.faults.has(Fault::RestartForgetsNames)
            && self.repository.forget_all_names()
        {
            self.repository.regenerate(&mut self.endpoints);
        }
    }

    /// Whether agents are away, and nobody proxies or records.
    pub(crate) fn agents_are_away(&self, now: Instant) -> bool {
        self.is_within(AWAY, now)
    }

    /// Whether records are lost now: as agents are away, or on purpose.
    pub(super) fn nobody_records(&self, now: Instant) -> bool {
        self.agents_are_away(now) || self.sabotage.faults.has(Fault::LoseFlowRecords)
    }

    /// Whether a packet passes that policy drops, as nobody is there.
    pub(super) fn is_left_open(&self, now: Instant) -> bool {
        self.sabotage.faults.restart_opens().is_some_and(|time| self.is_within(time, now))
    }

    /// Whether a packet vanishes that policy lets pass, as nobody is there.
    pub(super) fn is_closed(&self, now: Instant) -> bool {
        self.sabotage.faults.restart_closes().is_some_and(|time| self.is_within(time, now))
    }

    /// Whether a moment is not later than so long after agents were restarted.
    fn is_within(&self, time: Duration, now: Instant) -> bool {
        self.agents_restarted.is_some_and(|restarted| now < restarted + time)
    }
}
