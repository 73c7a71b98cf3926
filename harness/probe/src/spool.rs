//! What the agent has to say, numbered from 1 without gaps, kept until somebody has it.
//!
//! The spool is bounded, and never by losing an entry: at [`CAPACITY`] new runs are refused, each
//! with an entry that says so; at [`CEILING`] there is no room even for that, and a run ends its
//! session instead. Runs that are under way may still say what they see: at most
//! [`MAX_RUNS`](crate::run::MAX_RUNS) times a few entries.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use thiserror::Error;
use tokio::sync::watch;
use ztc_wire::{Event, FromAgent, encode};

/// Entries held before new runs are refused with an entry each. A run that is answered takes two.
pub(crate) const CAPACITY: usize = 100_000;

/// Entries held before new runs are refused by closing their session.
pub(crate) const CEILING: usize = CAPACITY + CAPACITY / 10;

/// The agent's clock, microseconds since the Unix epoch as it was known when the agent first looked. It goes on from there
/// by itself: whoever sets the node's time meanwhile moves nothing that was seen.
pub(crate) fn now_us() -> u64 {
    static FIRST: OnceLock<(Duration, Instant)> = OnceLock::new();
    let (epoch, first) = FIRST.get_or_init(|| {
        (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now())
    });
    u64::try_from((*epoch + first.elapsed()).as_micros()).unwrap_or(u64::MAX)
}

/// An acknowledgement of an entry that was never said.
#[derive(Debug, Error)]
#[error("entry {acknowledged} is acknowledged, but the last one is {last}")]
pub(crate) struct AckError {
    acknowledged: u64,
    last: u64,
}

/// The entries that nobody acknowledged yet, each as the line it is sent as.
#[derive(Debug)]
pub(crate) struct Spool {
    held: Mutex<Held>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Held {
    lines: VecDeque<Box<[u8]>>,
    /// The number of the last entry ever said; the last of `lines`, if there is any.
    last: u64,
}

impl Held {
    /// The number of the last entry that was acknowledged.
    fn forgotten(&self) -> u64 {
        self.last - self.lines.len() as u64
    }
}

impl Spool {
    pub(crate) fn new() -> Self {
        Self { held: Mutex::default(), last: watch::Sender::new(0) }
    }

    /// Says something now, under the next number.
    pub(crate) fn say(&self, event: Event) {
        let mut held = self.held();
        held.last += 1;
        let seq = held.last;
        let line = encode(&FromAgent::Said { seq, at_us: now_us(), event });
        held.lines.push_back(line.into_boxed_slice());
        drop(held);
        self.last.send_replace(seq);
    }

    /// How many entries wait for an acknowledgement.
    pub(crate) fn len(&self) -> usize {
        self.held().lines.len()
    }

    /// Forgets the entries up to this number.
    pub(crate) fn acknowledge(&self, seq: u64) -> Result<(), AckError> {
        let mut held = self.held();
        if seq > held.last {
            return Err(AckError { acknowledged: seq, last: held.last });
        }
        let known = seq.saturating_sub(held.forgotten());
        held.lines.drain(..usize::try_from(known).expect("no more entries than memory"));
        Ok(())
    }

    /// Changes whenever something was said.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Copies the lines after number `after`, stopping once `batch` holds `enough` bytes, and
    /// returns the number of the last one copied (`after` itself when there was none).
    pub(crate) fn copy_after(&self, after: u64, enough: usize, batch: &mut BytesMut) -> u64 {
        let held = self.held();
        let from = after.max(held.forgotten());
        let skipped = usize::try_from(from - held.forgotten()).unwrap_or(usize::MAX);
        let mut copied = 0;
        for line in held.lines.iter().skip(skipped) {
            if batch.len() >= enough {
                break;
            }
            batch.extend_from_slice(line);
            copied += 1;
        }
        if copied == 0 { after } else { from + copied }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nothing panics while it holds the spool")
    }
}

#[cfg(test)]
mod tests {
    use ztc_wire::{Observed, RunId, decode};

    use super::*;

    fn spool(entries: u64) -> Spool {
        let spool = Spool::new();
        for id in 1..=entries {
            spool.say(Event::Observed { id: RunId(id), observed: Observed::Refused });
        }
        spool
    }

    /// The numbers of the entries after `after`, read in batches of `enough` bytes.
    fn numbers(spool: &Spool, mut after: u64, enough: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let mut batch = BytesMut::new();
            let last = spool.copy_after(after, enough, &mut batch);
            if batch.is_empty() {
                assert_eq!(last, after, "nothing copied, nothing passed over");
                return numbers;
            }
            after = last;
            for line in batch.trim_ascii_end().split(|byte| *byte == b'\n') {
                let FromAgent::Said { seq, .. } = decode(line).unwrap() else { panic!("{line:?}") };
                numbers.push(seq);
            }
            assert_eq!(numbers.last(), Some(&last));
        }
    }

    #[test]
    fn entries_are_numbered_from_one_without_gaps() {
        assert_eq!(numbers(&spool(4), 0, usize::MAX), [1, 2, 3, 4]);
    }

    #[test]
    fn batches_of_any_size_lose_nothing() {
        for enough in [1, 100, 200, 1000] {
            assert_eq!(numbers(&spool(7), 2, enough), [3, 4, 5, 6, 7], "{enough} bytes");
        }
    }

    #[test]
    fn acknowledged_entries_are_forgotten_and_the_numbers_go_on() {
        let spool = spool(5);
        spool.acknowledge(3).unwrap();
        spool.acknowledge(2).unwrap();
        assert_eq!((spool.len(), numbers(&spool, 0, usize::MAX)), (2, vec![4, 5]));
        spool.acknowledge(5).unwrap();
        spool.say(Event::Observed { id: RunId(6), observed: Observed::Refused });
        assert_eq!(numbers(&spool, 3, usize::MAX), [6]);
    }

    #[test]
    fn what_was_never_said_cannot_be_acknowledged() {
        let spool = spool(2);
        assert!(spool.acknowledge(3).is_err());
        assert_eq!(spool.len(), 2);
    }

    #[test]
    fn a_reader_from_the_future_waits_for_its_number() {
        let spool = spool(2);
        assert_eq!(numbers(&spool, 9, usize::MAX), [0; 0]);
    }
}
