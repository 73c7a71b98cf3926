//! Connections that one node has let pass.
//!
//! Follows `bpf/lib/conntrack.h`: an endpoint's two hooks have entries of their own, made when a
//! packet in the original direction passed the policy of that hook. An entry lets replies pass,
//! and ICMP errors about the connection; it never lets a packet in the original direction pass,
//! for which policy is asked each time.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ztc_model::evidence::{Direction, FlowKey};
use ztc_model::policy::Protocol;

use super::aging::Aging;
use super::packet::{Content, IcmpMessage, Packet, Quoted, reversed};

/// The most entries of a node: what a busy lane has at a time, many times over.
const CAPACITY: usize = 1 << 16;
/// How long a TCP connection is remembered without a packet (`bpf-ct-timeout-regular-tcp`).
const TCP: Duration = Duration::from_secs(8000);
/// The same while it has seen no reply (`bpf-ct-timeout-regular-tcp-syn`).
const TCP_UNANSWERED: Duration = Duration::from_mins(1);
/// The same after both sides have closed it (`bpf-ct-timeout-regular-tcp-fin`).
const TCP_CLOSED: Duration = Duration::from_secs(10);
/// How long anything else is remembered (`bpf-ct-timeout-regular-any`).
const ANY: Duration = Duration::from_mins(1);

/// The connections of a node.
#[derive(Debug)]
pub(super) struct Conntrack(Aging<Key, Connection>);

/// A connection at a hook, in its original direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    hook: Direction,
    flow: FlowKey,
}

/// What is remembered of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Connection {
    /// The service that the client asked for, where the backend is somebody else.
    asked: Option<SocketAddr>,
    replied: bool,
    closed_by_client: bool,
    closed_by_server: bool,
}

/// What a packet is to the connections of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    /// It answers one, or is an error about one.
    Reply {
        /// The service that the client believes to talk to.
        asked: Option<SocketAddr>,
    },
    /// It goes on with one in its original direction.
    Established,
    /// It opens one, or none is known.
    New,
}

impl Conntrack {
    /// No connections.
    pub(super) fn new() -> Self {
        Self(Aging::new(CAPACITY))
    }

    /// Looks for the connection of a packet at a hook of an endpoint, and notes what the packet
    /// does to it.
    pub(super) fn look_up(&mut self, hook: Direction, packet: &Packet, now: Instant) -> Belongs {
        if let Content::Icmp(IcmpMessage { quoted: Some(quoted), .. }) = packet.content() {
            return self.related(hook, packet, &quoted, now).unwrap_or(Belongs::New);
        }
        // A packet out of an endpoint answers one that came in, and the other way round.
        let answered = Key { hook: opposite(hook), flow: reversed(packet.flow()) };
        if let Some(connection) = self.advance(&answered, packet, Side::Server, now) {
            return Belongs::Reply { asked: connection.asked };
        }
        let own = Key { hook, flow: packet.flow() };
        match self.advance(&own, packet, Side::Client, now) {
            Some(_) => Belongs::Established,
            None => Belongs::New,
        }
    }

    /// Remembers a connection whose first packet has passed a hook.
    pub(super) fn open(
        &mut self,
        hook: Direction,
        packet: &Packet,
        asked: Option<SocketAddr>,
        now: Instant,
    ) {
        let connection = Connection { asked, ..Connection::default() };
        let lifetime = lifetime(packet.flow().protocol, &connection);
        self.0.insert(Key { hook, flow: packet.flow() }, connection, now, lifetime);
    }

    /// Forgets the connections of an address, whose next owner must not inherit them.
    pub(super) fn forget(&mut self, address: IpAddr, now: Instant) {
        self.0.expire_if(now, |key, _| {
            key.flow.source.ip() == address || key.flow.destination.ip() == address
        });
    }

    /// Notes a packet of one side of a connection. A SYN on one that is closed is not of it.
    fn advance(
        &mut self,
        key: &Key,
        packet: &Packet,
        from: Side,
        now: Instant,
    ) -> Option<Connection> {
        let aged = self.0.get_mut(key, now)?;
        let connection = &mut aged.value;
        if packet.is_syn() && connection.closed_by_client && connection.closed_by_server {
            return None;
        }
        connection.replied |= from == Side::Server;
        if let Content::Tcp(flags) = packet.content() {
            connection.closed_by_client |= flags.rst || (flags.fin && from == Side::Client);
            connection.closed_by_server |= flags.rst || (flags.fin && from == Side::Server);
        }
        aged.expires = now + lifetime(key.flow.protocol, connection);
        Some(*connection)
    }

    /// Whether an ICMP error is about a packet of a connection, and goes to who sent that packet.
    fn related(
        &self,
        hook: Direction,
        packet: &Packet,
        quoted: &Quoted,
        now: Instant,
    ) -> Option<Belongs> {
        if quoted.flow.source.ip() != packet.flow().destination.ip() {
            return None;
        }
        let about_request = Key { hook: opposite(hook), flow: quoted.flow };
        let about_reply = Key { hook, flow: reversed(quoted.flow) };
        if let Some(connection) = self.0.get(&about_request, now) {
            return Some(Belongs::Reply { asked: connection.asked });
        }
        self.0.get(&about_reply, now).map(|_| Belongs::Reply { asked: None })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

fn opposite(hook: Direction) -> Direction {
    match hook {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}

fn lifetime(protocol: Protocol, connection: &Connection) -> Duration {
    match protocol {
        Protocol::Tcp if connection.closed_by_client && connection.closed_by_server => TCP_CLOSED,
        Protocol::Tcp if connection.replied => TCP,
        Protocol::Tcp => TCP_UNANSWERED,
        Protocol::Udp | Protocol::Icmp | Protocol::Icmpv6 => ANY,
    }
}
