//! A table whose entries expire and whose size is bounded.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How many old entries are looked at for each new one. Two, so that the table shrinks when more
/// expire than come.
const SWEPT_PER_INSERT: usize = 2;

/// A hash table that forgets.
///
/// There is no sweep that holds up a packet: each insertion looks at the two entries that were
/// looked at longest ago and drops those that have expired. A full table drops the next in that
/// order even if it is alive, as Cilium's tables drop the least recently used.
#[derive(Debug)]
pub(super) struct Aging<K, V> {
    entries: HashMap<K, Aged<V>>,
    /// Every key of `entries`, once.
    order: VecDeque<K>,
    capacity: usize,
}

/// A value and when it expires.
#[derive(Debug)]
pub(super) struct Aged<V> {
    pub(super) value: V,
    pub(super) expires: Instant,
}

impl<K: Copy + Eq + Hash, V> Aging<K, V> {
    /// An empty table for at most so many entries.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// The value of a key, unless it has expired.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|aged| aged.expires > now).map(|aged| &aged.value)
    }

    /// The same with its time, to be changed.
    pub(super) fn get_mut(&mut self, key: &K, now: Instant) -> Option<&mut Aged<V>> {
        self.entries.get_mut(key).filter(|aged| aged.expires > now)
    }

    /// Lets everything expire that meets a condition.
    pub(super) fn expire_if(&mut self, now: Instant, condition: impl Fn(&K, &V) -> bool) {
        for (key, aged) in &mut self.entries {
            if condition(key, &aged.value) {
                aged.expires = now;
            }
        }
    }

    /// Sets the value of a key, which expires after `lifetime`.
    pub(super) fn insert(&mut self, key: K, value: V, now: Instant, lifetime: Duration) {
        let aged = Aged { value, expires: now + lifetime };
        if let Some(known) = self.entries.get_mut(&key) {
            *known = aged;
            return;
        }
        self.sweep(now);
        if self.entries.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.entries.insert(key, aged);
        self.order.push_back(key);
    }

    /// How many entries it holds, expired ones that were not looked at yet too.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT_PER_INSERT {
            let Some(key) = self.order.pop_front() else {
                return;
            };
            if self.entries.get(&key).is_some_and(|aged| aged.expires > now) {
                self.order.push_back(key);
            } else {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(10);

    #[test]
    fn an_entry_is_gone_when_its_time_is_over() {
        let start = Instant::now();
        let mut table = Aging::new(8);
        table.insert(1, "one", start, LIFETIME);
        assert_eq!(table.get(&1, start), Some(&"one"));
        assert_eq!(table.get(&1, start + LIFETIME), None);
    }

    #[test]
    fn an_entry_that_is_kept_lives_on() {
        let start = Instant::now();
        let mut table = Aging::new(8);
        table.insert(1, "one", start, LIFETIME);
        table.get_mut(&1, start).unwrap().expires = start + 3 * LIFETIME;
        assert_eq!(table.get(&1, start + 2 * LIFETIME), Some(&"one"));
    }

    #[test]
    fn what_is_told_to_expire_is_gone() {
        let start = Instant::now();
        let mut table = Aging::new(8);
        table.insert(1, "one", start, LIFETIME);
        table.insert(2, "two", start, LIFETIME);
        table.expire_if(start, |key, _| *key == 1);
        assert_eq!((table.get(&1, start), table.get(&2, start)), (None, Some(&"two")));
    }

    #[test]
    fn entries_that_come_and_expire_for_ever_need_twice_the_room_of_those_alive() {
        let start = Instant::now();
        let mut table = Aging::new(100_000);
        for round in 0..50_000_u32 {
            table.insert(round, (), start + Duration::from_millis(round.into()), LIFETIME / 10);
        }
        assert!(table.len() <= 2_000, "{} entries", table.len());
        assert_eq!(table.order.len(), table.len());
    }

    #[test]
    fn a_full_table_drops_its_oldest_entry() {
        let start = Instant::now();
        let mut table = Aging::new(2);
        for key in 0..3 {
            table.insert(key, (), start, LIFETIME);
        }
        assert_eq!(table.len(), 2);
        assert!(table.get(&2, start).is_some(), "the new one is in");
    }
}
