//! What was made in a cluster and removed from it, for whoever lent us the cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A list of everything that was made, and of whether it is gone.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, Entry>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    made: usize,
    removed: usize,
}

impl Ledger {
    pub(crate) fn made(&self, object: impl Into<String>) {
        self.entries().entry(object.into()).or_default().made += 1;
    }

    pub(crate) fn removed(&self, object: impl Into<String>) {
        self.entries().entry(object.into()).or_default().removed += 1;
    }

    /// A line an object: what was made and removed, and what is still there.
    pub fn lines(&self) -> Vec<String> {
        let line = |(object, entry): (&String, &Entry)| match *entry {
            Entry { made: 0, .. } => format!("removed a left-over: {object}"),
            Entry { made, removed } if removed >= made => format!("made and removed: {object}"),
            Entry { .. } => format!("made, and still there: {object}"),
        };
        self.entries().iter().map(line).collect()
    }

    /// What is still there.
    pub(crate) fn left(&self) -> Vec<String> {
        let there = |(_, entry): &(&String, &Entry)| entry.removed < entry.made;
        self.entries().iter().filter(there).map(|(object, _)| object.clone()).collect()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // The map is whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_there_is_told_apart_from_what_is_gone() {
        let ledger = Ledger::default();
        ledger.made("Pod/a/one");
        ledger.made("Pod/a/two");
        ledger.removed("Pod/a/two");
        ledger.removed("Policy/old");
        assert_eq!(
            ledger.lines(),
            [
                "made, and still there: Pod/a/one",
                "made and removed: Pod/a/two",
                "removed a left-over: Policy/old",
            ]
        );
    }

    #[test]
    fn what_is_made_again_after_its_removal_is_there() {
        let ledger = Ledger::default();
        ledger.made("Policy/p");
        ledger.removed("Policy/p");
        ledger.made("Policy/p");
        assert_eq!(ledger.lines(), ["made, and still there: Policy/p"]);
    }
}
