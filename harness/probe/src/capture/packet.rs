//! Packets as they are on the wire: IP, TCP and UDP (RFC 791, 8200, 9293, 768), and what nodes wrap them in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One packet, without what nodes have wrapped it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// Where it comes from; the port is 0 where it has none.
    pub(super) source: SocketAddr,
    /// Where it goes.
    pub(super) destination: SocketAddr,
    /// Its place in a stream, of TCP.
    pub(super) segment: Option<Segment>,
    /// What it carries.
    pub(super) payload: &'a [u8],
}

/// The place of a packet in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) sequence: u32,
    /// Whether it opens the stream.
    pub(super) opens: bool,
}

/// A way in which nodes wrap packets of pods.
pub(super) struct Encapsulation {
    /// The port that it is sent to over UDP.
    pub(super) port: u16,
    /// The length of its header, without options.
    header: usize,
    /// Whether the first byte says how many words of options follow.
    options: bool,
}

/// VXLAN as Linux and Cilium have it and as RFC 7348 has it, and Geneve (RFC 8926): each carries Ethernet.
pub(super) const ENCAPSULATIONS: [Encapsulation; 3] = [
    Encapsulation { port: 8472, header: 8, options: false },
    Encapsulation { port: 4789, header: 8, options: false },
    Encapsulation { port: 6081, header: 8, options: true },
];

const TCP: u8 = 6;
const UDP: u8 = 17;
const ETHERNET: usize = 14;

impl<'a> Packet<'a> {
    /// Reads a packet that begins with its IP header; nothing where it is no IP or is cut off in a header.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let outer = Self::read_bare(bytes)?;
        Some(outer.unwrapped().unwrap_or(outer))
    }

    fn read_bare(bytes: &'a [u8]) -> Option<Self> {
        let (source, destination, protocol, rest) = match bytes.first()? >> 4 {
            4 => ipv4(bytes)?,
            6 => ipv6(bytes)?,
            _ => return None,
        };
        let whole = |segment, ports: (u16, u16), payload| Self {
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
            segment,
            payload,
        };
        Some(match protocol {
            Some(TCP) => {
                let header = usize::from(rest.get(12)? >> 4) * 4;
                let sequence = u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?);
                let segment = Segment { sequence, opens: rest.get(13)? & 0x02 != 0 };
                whole(Some(segment), ports(rest)?, rest.get(header.max(20)..)?)
            }
            Some(UDP) => whole(None, ports(rest)?, rest.get(8..)?),
            _ => whole(None, (0, 0), rest),
        })
    }

    /// The packet that it carries between nodes, if it does.
    fn unwrapped(&self) -> Option<Self> {
        if self.segment.is_some() {
            return None;
        }
        let wrapped = ENCAPSULATIONS.iter().find(|it| it.port == self.destination.port())?;
        let words = usize::from(self.payload.first()? & 0x3f);
        let options = if wrapped.options { words * 4 } else { 0 };
        Self::read_bare(self.payload.get(wrapped.header + options + ETHERNET..)?)
    }
}

/// Both ends, the protocol of the rest where it is known, and the rest.
type Internet<'a> = (IpAddr, IpAddr, Option<u8>, &'a [u8]);

fn ipv4(bytes: &[u8]) -> Option<Internet<'_>> {
    let header = usize::from(bytes[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
    let fragment = u16::from_be_bytes(bytes.get(6..8)?.try_into().ok()?) & 0x1fff;
    let address = |at: usize| {
        let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(Ipv4Addr::from(octets)))
    };
    // What the kernel has put together from several may say 0, and what is short has padding behind it.
    let end = if total < header { bytes.len() } else { total.min(bytes.len()) };
    let protocol = (fragment == 0).then_some(*bytes.get(9)?);
    Some((address(12)?, address(16)?, protocol, bytes.get(header.max(20)..end)?))
}

fn ipv6(bytes: &[u8]) -> Option<Internet<'_>> {
    let address = |at: usize| {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(Ipv6Addr::from(octets)))
    };
    // Behind an extension header the rest is searched as it is.
    Some((address(8)?, address(24)?, Some(*bytes.get(6)?), bytes.get(40..)?))
}

fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let port = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    Some((port(0)?, port(2)?))
}
