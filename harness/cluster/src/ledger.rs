//! What was made in a cluster and removed from it, for whoever lent us the cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ztc_model::policy::PolicyKind;

use crate::objects::MANAGED_BY;

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

    /// What a run leaves behind that ends without cleaning up, and how to remove it, line by line. A world that
    /// stays for the next run anyway is not told of.
    pub fn left_behind(&self, keeps_worlds: bool) -> Vec<String> {
        let is_policy = |object: &String| {
            let kind = object.split('/').next().unwrap_or_default();
            // A gateway may be part of a world, and goes as that does.
            PolicyKind::ALL.iter().any(|it| it.name() == kind && *it != PolicyKind::Gateway)
        };
        let mut left = self.left();
        left.retain(|object| !keeps_worlds || is_policy(object));
        if left.is_empty() {
            return Vec::new();
        }
        let mut lines: Vec<String> =
            left.iter().map(|object| format!("left behind: {object}")).collect();
        if left.iter().any(is_policy) {
            let kinds = PolicyKind::ALL.into_iter().filter(|it| *it != PolicyKind::Gateway);
            let kinds: Vec<String> = kinds.map(|it| it.name().to_lowercase()).collect();
            let kinds = kinds.join(",");
            lines.push(format!(
                "the next run on the cluster removes policies; to do it now: kubectl delete {kinds} --all-namespaces -l {}={}",
                MANAGED_BY.0, MANAGED_BY.1
            ));
        }
        if !left.iter().all(is_policy) {
            lines.push(format!(
                "to remove what else was made: kubectl delete pods,services,serviceaccounts --all-namespaces -l {0}={1}; \
                 kubectl delete namespaces -l {0}={1}",
                MANAGED_BY.0, MANAGED_BY.1
            ));
        }
        lines
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
    fn a_run_that_ends_at_once_tells_what_it_leaves_and_how_to_remove_it() {
        let ledger = Ledger::default();
        assert_eq!(ledger.left_behind(false), Vec::<String>::new());
        for object in ["Pod/a/one", "NetworkPolicy/a/deny", "CiliumNetworkPolicy/a/gone"] {
            ledger.made(object);
        }
        ledger.removed("CiliumNetworkPolicy/a/gone");
        let kept = ledger.left_behind(true);
        assert_eq!(kept[0], "left behind: NetworkPolicy/a/deny");
        assert!(kept.len() == 2 && kept[1].contains("kubectl delete networkpolicy,"), "{kept:?}");
        let lent = ledger.left_behind(false);
        assert_eq!(lent[..2], ["left behind: NetworkPolicy/a/deny", "left behind: Pod/a/one"]);
        assert!(lent[3].contains("kubectl delete namespaces -l"), "{lent:?}");
        ledger.removed("NetworkPolicy/a/deny");
        assert_eq!(ledger.left_behind(true), Vec::<String>::new(), "the world stays anyway");
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
