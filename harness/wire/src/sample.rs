//! Samples: one stimulus sent again and again at a fixed pace, told of in stretches.
//!
//! A hundred connections a second from a hundred pods cannot be told of one by one. What one sample after the other saw
//! alike is one stretch, with the first and the last of them: enough to say from when until when a flow got through, and
//! which flows these were.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::Observed;

/// Samples one directly after the other, in the order of sending, of which the client saw the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stretch {
    /// What it saw of the first; of the others the same but for what no two of them share, such as a nonce.
    pub seen: Observed,
    /// How many there are, at least 1.
    pub count: u64,
    /// The first that was sent.
    pub first: Sent,
    /// The last that was sent; the first where there is one alone.
    pub last: Sent,
    /// The longest that one of them took from its sending to its end, microseconds.
    pub slowest_us: u64,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// The agent's clock as it was sent, microseconds since the Unix epoch.
    pub at_us: u64,
    /// Its own address and port; absent where it got no socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
}

impl Stretch {
    /// More than so many times the pace between two samples is a hole, and ends a stretch.
    const APART: u64 = 2;

    /// A stretch of one sample.
    pub const fn of(seen: Observed, sent: Sent, took_us: u64) -> Self {
        Self { seen, count: 1, first: sent, last: sent, slowest_us: took_us }
    }

    /// Adds the stretch that follows on a row: to the last of them, or as one of its own where something else was seen of
    /// it, where there is a hole between the two at a pace of `every_us`, or, with `one_connection`, where it is of another
    /// socket.
    pub fn add_to(self, row: &mut Vec<Self>, every_us: u64, one_connection: bool) {
        let apart_us = every_us.saturating_mul(Self::APART);
        let left = match row.last_mut() {
            Some(last) => last.join(self, apart_us, one_connection).err(),
            None => Some(Box::new(self)),
        };
        row.extend(left.map(|it| *it));
    }

    /// Takes in the stretch that follows on this one; it comes back where the two are not one.
    fn join(&mut self, next: Self, apart_us: u64, one_connection: bool) -> Result<(), Box<Self>> {
        let is_near = next.first.at_us.saturating_sub(self.last.at_us) <= apart_us;
        let is_elsewhere = one_connection && self.last.local != next.first.local;
        if !is_near || is_elsewhere || !self.seen.is_like(&next.seen) {
            return Err(Box::new(next));
        }
        self.count += next.count;
        self.last = next.last;
        self.slowest_us = self.slowest_us.max(next.slowest_us);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(peer: &str) -> Observed {
        Observed::Reply { peer: peer.to_owned(), remote: ([10, 0, 0, 2], 9000).into() }
    }

    fn sample(seen: Observed, at_us: u64, port: u16) -> Stretch {
        let local = Some(SocketAddr::from(([10, 0, 0, 1], port)));
        Stretch::of(seen, Sent { at_us, local }, at_us)
    }

    #[test]
    fn what_was_seen_alike_is_one_stretch_from_the_first_to_the_last() {
        let mut stretch = sample(reply("a/b"), 10, 1);
        assert!(stretch.join(sample(reply("a/b"), 20, 2), 10, false).is_ok());
        assert_eq!((stretch.count, stretch.first.at_us, stretch.last.at_us), (2, 10, 20));
        assert_eq!((stretch.slowest_us, stretch.last.local.map(|it| it.port())), (20, Some(2)));
    }

    #[test]
    fn another_answer_a_hole_and_another_connection_end_a_stretch() {
        let mut stretch = sample(reply("a/b"), 10, 1);
        let other = sample(reply("a/c"), 20, 1);
        assert_eq!(stretch.join(other.clone(), 10, false), Err(Box::new(other)));
        assert!(stretch.join(sample(reply("a/b"), 21, 1), 10, false).is_err(), "a hole");
        assert!(stretch.join(sample(reply("a/b"), 20, 2), 10, true).is_err(), "another socket");
        assert_eq!(stretch.count, 1);
    }

    #[test]
    fn bodies_that_differ_by_their_nonces_are_alike() {
        let page = |body: &str| Observed::Http {
            status: 200,
            peer: Some("a/b".to_owned()),
            server: None,
            body: body.to_owned(),
            remote: ([10, 0, 0, 2], 80).into(),
        };
        assert!(page("one").is_like(&page("two")));
        assert!(!page("one").is_like(&reply("a/b")));
    }
}
