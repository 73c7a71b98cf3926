//! What is looked for in packets. Pure: it is given bytes and says what it found.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use ztc_wire::{Canary, Captured, Sighting, Tunnel, Watch};

use super::dump::dump;
use super::packet::Packet;
use super::records::Conversation;

/// How many tunnels are followed.
const TUNNELS: usize = 256;

/// How many flows are remembered whose next packet may go on with a canary.
const FLOWS: usize = 4096;

/// How much of a packet is shown before a canary and from its beginning on.
const BEFORE: usize = 32;
const SHOWN: usize = 96;

/// How much is shown of a tunnel.
const OPENING: usize = 48;

/// Looks at packets, one after the other.
#[derive(Debug)]
pub(super) struct Sieve {
    watch: Watch,
    packets: u64,
    bytes: u64,
    sightings: BTreeMap<Canary, Sighting>,
    /// By client and server.
    tunnels: BTreeMap<(SocketAddr, SocketAddr), Followed>,
    /// The end of the last packet of a flow, and the place of what comes next.
    ends: HashMap<(SocketAddr, SocketAddr), (u32, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Followed {
    conversation: Conversation,
    excerpt: Vec<String>,
}

impl Sieve {
    pub(super) fn new(watch: Watch) -> Self {
        Self {
            watch,
            packets: 0,
            bytes: 0,
            sightings: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            ends: HashMap::new(),
        }
    }

    /// Looks at a packet that begins with its IP header.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let Some(packet) = Packet::read(bytes) else { return };
        let watched = |end: SocketAddr| self.watch.addresses.contains(&end.ip());
        let (from, to) = (watched(packet.source), watched(packet.destination));
        if !from && !to {
            return;
        }
        self.packets += 1;
        self.bytes += bytes.len() as u64;
        self.search(&packet);
        if from && to {
            self.follow(&packet);
        }
    }

    /// What was found.
    pub(super) fn captured(self) -> Captured {
        let tunnel = |((client, server), followed): ((SocketAddr, SocketAddr), Followed)| Tunnel {
            client,
            server,
            sent: followed.conversation.client.bytes,
            received: followed.conversation.server.bytes,
            speaks: followed.conversation.speaks(),
            excerpt: followed.excerpt,
        };
        Captured {
            packets: self.packets,
            bytes: self.bytes,
            lost: 0,
            sightings: self.sightings.into_values().collect(),
            tunnels: self.tunnels.into_iter().map(tunnel).collect(),
        }
    }

    /// Searches a packet, with the end of the one before it: a canary may lie in two.
    fn search(&mut self, packet: &Packet<'_>) {
        let flow = (packet.source, packet.destination);
        let before = packet.segment.and_then(|segment| {
            let (due, end) = self.ends.get(&flow)?;
            (*due == segment.sequence).then(|| end.clone())
        });
        let carried = before.as_ref().map_or(0, Vec::len);
        let text = match before {
            Some(before) => [&before, packet.payload].concat(),
            None => packet.payload.to_vec(),
        };
        for canary in &self.watch.canaries {
            let needle = canary.as_str().as_bytes();
            let Some(at) = text.windows(needle.len()).position(|it| it == needle) else { continue };
            let sighting = self.sightings.entry(canary.clone()).or_insert_with(|| {
                let from = at.saturating_sub(BEFORE);
                let shown = &text[from..text.len().min(from + SHOWN)];
                Sighting {
                    canary: canary.clone(),
                    count: 0,
                    source: packet.source,
                    destination: packet.destination,
                    excerpt: dump(shown, from.saturating_sub(carried)),
                }
            });
            sighting.count += 1;
        }
        self.remember(packet, flow, &text);
    }

    fn remember(&mut self, packet: &Packet<'_>, flow: (SocketAddr, SocketAddr), text: &[u8]) {
        let longest = self.watch.canaries.iter().map(|it| it.as_str().len()).max().unwrap_or(0);
        let Some(segment) = packet.segment.filter(|_| !packet.payload.is_empty()) else { return };
        if self.ends.len() >= FLOWS {
            self.ends.clear();
        }
        let length = u32::try_from(packet.payload.len()).unwrap_or(u32::MAX);
        let end = &text[text.len().saturating_sub(longest.saturating_sub(1))..];
        self.ends.insert(flow, (segment.sequence.wrapping_add(length), end.to_vec()));
    }

    /// Follows a tunnel.
    fn follow(&mut self, packet: &Packet<'_>) {
        let Some(segment) = packet.segment else { return };
        let port = self.watch.tunnel_port;
        let by_client = packet.destination.port() == port;
        if !by_client && packet.source.port() != port {
            return;
        }
        let ends = if by_client {
            (packet.source, packet.destination)
        } else {
            (packet.destination, packet.source)
        };
        if self.tunnels.len() >= TUNNELS && !self.tunnels.contains_key(&ends) {
            return;
        }
        let followed = self.tunnels.entry(ends).or_default();
        let direction = if by_client {
            &mut followed.conversation.client
        } else {
            &mut followed.conversation.server
        };
        direction.take(segment, packet.payload);
        if followed.excerpt.is_empty() && !packet.payload.is_empty() {
            followed.excerpt = dump(&packet.payload[..packet.payload.len().min(OPENING)], 0);
        }
    }
}
