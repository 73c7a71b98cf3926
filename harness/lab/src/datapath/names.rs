//! The names that the DNS proxies have seen answers for, and until when these hold.
//!
//! Follows `pkg/fqdn/namemanager` and `pkg/fqdn/cache.go`: a node learns from every answer that its
//! proxy passes on, whoever asked and whatever policies there are at that moment, so that a policy
//! that comes later finds what was learnt before. An address is learnt for the name that was asked
//! for alone; the names of a chain of aliases on the way to it are passed over.
//!
//! A real agent keeps an address after its time for as long as connection tracking has an entry of
//! it, and looks only now and then; here it is gone when its time is over.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::RData;

use super::config::NodeId;

/// What the proxies of all nodes have learnt.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Until when each name holds, by the address that it resolved to.
    known: BTreeMap<(NodeId, IpAddr), BTreeMap<String, Instant>>,
    /// Nothing ends before this: most packets need no look at all names.
    earliest: Option<Instant>,
}

/// An answer that has addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lesson {
    /// The name that was asked for.
    pub(super) name: String,
    /// What it resolves to.
    pub(super) addresses: Vec<IpAddr>,
    /// How long that holds.
    pub(super) lifetime: Duration,
}

impl Lesson {
    /// Reads an answer (`ExtractMsgDetails` in `pkg/fqdn/dnsproxy/proxy.go`): of a chain of aliases
    /// the last addresses and the shortest time count. A record that is not about the next name of
    /// the chain spoils the whole answer.
    pub(super) fn of(answer: &Message) -> Option<Self> {
        let is_answer = answer.metadata.message_type == MessageType::Response
            && answer.metadata.response_code == ResponseCode::NoError;
        let asked = &answer.queries.first().filter(|_| is_answer)?.name;
        let (mut expected, mut addresses, mut seconds) = (asked, Vec::new(), u32::MAX);
        for record in &answer.answers {
            if record.name != *expected {
                return None;
            }
            match &record.data {
                RData::A(address) => addresses.push(IpAddr::V4(address.0)),
                RData::AAAA(address) => addresses.push(IpAddr::V6(address.0)),
                RData::CNAME(target) => expected = &target.0,
                _ => continue,
            }
            seconds = seconds.min(record.ttl);
        }
        let lifetime = Duration::from_secs(seconds.into());
        let name = asked.to_string().to_ascii_lowercase();
        (!addresses.is_empty()).then_some(Self { name, addresses, lifetime })
    }
}

impl Names {
    /// Learns; says whether anything is new, other than that it holds longer.
    pub(super) fn learn(&mut self, node: NodeId, lesson: &Lesson, now: Instant) -> bool {
        let expires = now + lesson.lifetime;
        self.earliest = Some(self.earliest.map_or(expires, |it| it.min(expires)));
        let mut is_new = false;
        for address in &lesson.addresses {
            let names = self.known.entry((node, *address)).or_default();
            is_new |= !names.contains_key(&lesson.name);
            let known = names.entry(lesson.name.clone()).or_insert(expires);
            *known = expires.max(*known);
        }
        is_new
    }

    /// Forgets what no longer holds; says whether there was any.
    pub(super) fn forget(&mut self, now: Instant) -> bool {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return false;
        }
        let before = self.known.values().map(BTreeMap::len).sum::<usize>();
        self.known.retain(|_, names| {
            names.retain(|_, expires| now < *expires);
            !names.is_empty()
        });
        self.earliest = self.known.values().flat_map(BTreeMap::values).min().copied();
        self.known.values().map(BTreeMap::len).sum::<usize>() < before
    }

    /// Forgets everything; says whether there was anything.
    pub(super) fn forget_all(&mut self) -> bool {
        !std::mem::take(self).known.is_empty()
    }

    /// Every address by the node that learnt it, with its names.
    pub(super) fn iter(
        &self,
    ) -> impl Iterator<Item = (NodeId, IpAddr, impl Iterator<Item = &str>)> {
        self.known
            .iter()
            .map(|((node, address), names)| (*node, *address, names.keys().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::rdata::{A, CNAME};
    use hickory_proto::rr::{Name, Record, RecordType};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn address(owner: &str, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A::new(203, 0, 113, 10)))
    }

    fn alias(owner: &str, target: &str, ttl: u32) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn answer(asked: &str, records: Vec<Record>) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name(asked), RecordType::A));
        message.answers = records;
        message
    }

    const NODE: NodeId = NodeId(0);

    /// `ExtractMsgDetails`: the chain is collapsed, keeping the lowest time to live.
    #[test]
    fn a_chain_of_aliases_teaches_the_name_that_was_asked_for_alone() {
        let records = vec![
            alias("CDN.zt.test.", "edge.zt.test.", 60),
            alias("edge.zt.test.", "origin.zt.test.", 5),
            address("origin.zt.test.", 30),
        ];
        let lesson = Lesson::of(&answer("CDN.zt.test.", records)).unwrap();
        assert_eq!(lesson.name, "cdn.zt.test.");
        assert_eq!(lesson.addresses, [IpAddr::from([203, 0, 113, 10])]);
        assert_eq!(lesson.lifetime, Duration::from_secs(5));
    }

    #[test]
    fn an_answer_about_another_name_teaches_nothing() {
        assert_eq!(Lesson::of(&answer("a.zt.test.", vec![address("b.zt.test.", 5)])), None);
    }

    #[test]
    fn an_answer_without_addresses_teaches_nothing() {
        assert_eq!(Lesson::of(&answer("a.zt.test.", vec![])), None);
        let mut refused = answer("a.zt.test.", vec![address("a.zt.test.", 5)]);
        refused.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(Lesson::of(&refused), None);
    }

    #[test]
    fn a_name_holds_until_the_latest_of_its_times_is_over() {
        let (mut names, start) = (Names::default(), Instant::now());
        let lesson = |seconds| Lesson::of(&answer("a.test.", vec![address("a.test.", seconds)]));
        assert!(names.learn(NODE, &lesson(5).unwrap(), start));
        assert!(
            !names.learn(NODE, &lesson(2).unwrap(), start),
            "a shorter time takes nothing away"
        );
        assert!(!names.forget(start + Duration::from_secs(4)));
        assert!(names.forget(start + Duration::from_secs(5)));
        assert_eq!(names.iter().count(), 0);
    }
}
