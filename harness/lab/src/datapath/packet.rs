//! One IP packet: whose it is, and how to give it other addresses.
//!
//! It must not know who may talk to whom. Packets that come in are not trusted: every length is
//! checked here once, and what cannot be read is an [`Unreadable`].

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket as TcpSegment, UdpPacket};
use ztc_model::evidence::FlowKey;
use ztc_model::hubble::{Icmp, TcpFlags};
use ztc_model::policy::Protocol;

/// Offset of the source address in an IPv4 header; the destination follows (RFC 791).
const V4_SOURCE: usize = 12;
/// Offset of the header checksum in an IPv4 header.
const V4_CHECKSUM: usize = 10;
/// Length of an IPv4 header without options.
const V4_HEADER: usize = 20;
/// Offset of the source address in an IPv6 header; the destination follows (RFC 8200).
const V6_SOURCE: usize = 8;
/// Length of an IPv6 header.
const V6_HEADER: usize = 40;
/// Length of an ICMP header, whether echo or error (RFC 792, RFC 4443).
const ICMP_HEADER: usize = 8;
/// Where what a UDP datagram carries begins.
const UDP_HEADER: usize = 8;
/// As much of a transport header as an ICMP error is bound to quote: the ports (RFC 792).
const PORTS: usize = 4;

/// A packet with its checked layout.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    bytes: Vec<u8>,
    transport: usize,
    flow: FlowKey,
    content: Content,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    /// A TCP segment.
    Tcp(TcpFlags),
    /// A UDP datagram.
    Udp,
    /// An ICMP message.
    Icmp(IcmpMessage),
}

/// An ICMP message.
#[derive(Debug, Clone, Copy)]
pub(super) struct IcmpMessage {
    /// Its type and code.
    pub(super) icmp: Icmp,
    /// The packet that it is about, if it is an error.
    pub(super) quoted: Option<Quoted>,
}

/// The packet that an ICMP error is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted {
    /// As its sender sent it.
    pub(super) flow: FlowKey,
    ip: usize,
    transport: usize,
}

/// Why bytes are no packet that the switch can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// They are too short, or no IP at all.
    Malformed,
    /// They are a part of a packet.
    Fragment(IpAddr, IpAddr),
    /// They carry what has no connections here.
    Protocol(IpAddr, IpAddr),
}

impl Packet {
    /// Reads a packet. Checksums are not verified: translation adjusts them, so that a wrong one
    /// stays wrong and the receiver sees it.
    pub(super) fn parse(mut bytes: Vec<u8>) -> Result<Self, Unreadable> {
        let ip = read_ip(&bytes)?;
        bytes.truncate(ip.end);
        let payload = bytes.get(ip.transport..).ok_or(Unreadable::Malformed)?;
        let (ports, content) = match ip.protocol {
            Protocol::Tcp => read_tcp(payload)?,
            Protocol::Udp => read_udp(payload)?,
            Protocol::Icmp | Protocol::Icmpv6 => read_icmp(ip.protocol, payload, ip.transport)?,
        };
        let flow = ip.flow(ports);
        Ok(Self { bytes, transport: ip.transport, flow, content })
    }

    /// Its addresses and ports in the direction that it travels. ICMP echo messages have their
    /// identifier for a port, other ICMP messages have none.
    pub(super) fn flow(&self) -> FlowKey {
        self.flow
    }

    /// What it carries.
    pub(super) fn content(&self) -> Content {
        self.content
    }

    /// What rules see as the port of its destination: for ICMP the type of the message
    /// (`bpf/lib/policy.h`, `enable_icmp_rule`).
    pub(super) fn destination_port(&self) -> u16 {
        match self.content {
            Content::Tcp(_) | Content::Udp => self.flow.destination.port(),
            Content::Icmp(IcmpMessage { icmp, .. }) => icmp.kind.into(),
        }
    }

    /// Whether it may open a TCP connection.
    pub(super) fn is_syn(&self) -> bool {
        matches!(self.content, Content::Tcp(flags) if flags.syn && !flags.ack)
    }

    /// Says that it comes from elsewhere. Only the address of an ICMP packet changes.
    pub(super) fn set_source(&mut self, source: SocketAddr) {
        self.readdress(End::Source, source);
        self.flow.source = self.effective(source, self.flow.source);
    }

    /// Sends it elsewhere. Only the address of an ICMP packet changes.
    pub(super) fn set_destination(&mut self, destination: SocketAddr) {
        self.readdress(End::Destination, destination);
        self.flow.destination = self.effective(destination, self.flow.destination);
    }

    /// Says, in an ICMP error, that the packet it is about was sent elsewhere: to where its sender
    /// believes that it sent it.
    pub(super) fn set_quoted_destination(&mut self, destination: SocketAddr) {
        let Content::Icmp(IcmpMessage { icmp, quoted: Some(mut quoted) }) = self.content else {
            return;
        };
        let outer = self.transport + 2;
        let address = quoted.ip + End::Destination.address(quoted.flow.destination.ip());
        let header = quoted.flow.destination.is_ipv4().then_some(quoted.ip + V4_CHECKSUM);
        // The quoted transport checksum is left as it is: no receiver looks at it, and most of
        // the time the bytes that it is about are cut off.
        each_word(destination.ip(), |index, word| {
            self.set_quoted_word(address + 2 * index, word, header, outer);
        });
        let port = quoted.transport + End::Destination.port();
        self.set_quoted_word(port, destination.port(), None, outer);
        quoted.flow.destination = destination;
        self.content = Content::Icmp(IcmpMessage { icmp, quoted: Some(quoted) });
    }

    /// What a UDP datagram carries.
    pub(super) fn datagram(&self) -> Option<&[u8]> {
        match self.content {
            Content::Udp => self.bytes.get(self.transport + UDP_HEADER..),
            Content::Tcp(_) | Content::Icmp(_) => None,
        }
    }

    /// Its bytes, to be sent.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn effective(&self, new: SocketAddr, old: SocketAddr) -> SocketAddr {
        match self.content {
            Content::Tcp(_) | Content::Udp => new,
            Content::Icmp(_) => SocketAddr::new(new.ip(), old.port()),
        }
    }

    /// Writes an address and a port, and adjusts every checksum that covers them.
    fn readdress(&mut self, end: End, to: SocketAddr) {
        let old = end.of(&self.flow);
        debug_assert_eq!(old.is_ipv4(), to.is_ipv4(), "translation keeps the version");
        let header = old.is_ipv4().then_some(V4_CHECKSUM);
        let transport = self.transport_checksum();
        let pseudo_header = match self.flow.protocol {
            Protocol::Tcp | Protocol::Udp | Protocol::Icmpv6 => transport,
            Protocol::Icmp => None,
        };
        let address = end.address(old.ip());
        each_word(to.ip(), |index, word| {
            let (before, after) = self.set_word(address + 2 * index, word);
            self.adjust(header, before, after);
            self.adjust(pseudo_header, before, after);
        });
        if matches!(self.content, Content::Tcp(_) | Content::Udp) {
            let (before, after) = self.set_word(self.transport + end.port(), to.port());
            self.adjust(transport, before, after);
        }
        if self.flow.protocol == Protocol::Udp && transport.is_some_and(|at| self.word(at) == 0) {
            // Zero would say that there is none (RFC 768).
            self.set_word(self.transport + 6, u16::MAX);
        }
    }

    /// Writes a word of a quoted packet. The quoted header's checksum is itself among what the
    /// outer one covers.
    fn set_quoted_word(&mut self, at: usize, word: u16, header: Option<usize>, outer: usize) {
        let (before, after) = self.set_word(at, word);
        self.adjust(Some(outer), before, after);
        if let Some(header) = header {
            let old = self.word(header);
            self.adjust(Some(header), before, after);
            self.adjust(Some(outer), old, self.word(header));
        }
    }

    /// Where the checksum of the transport is, if it has one.
    fn transport_checksum(&self) -> Option<usize> {
        match self.content {
            Content::Tcp(_) => Some(self.transport + 16),
            Content::Udp => Some(self.transport + 6).filter(|&at| self.word(at) != 0),
            Content::Icmp(_) => Some(self.transport + 2),
        }
    }

    /// Adjusts a checksum for a word that changed (RFC 1624, equation 3).
    fn adjust(&mut self, checksum: Option<usize>, before: u16, after: u16) {
        let Some(at) = checksum else {
            return;
        };
        let sum = u32::from(!self.word(at)) + u32::from(!before) + u32::from(after);
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        self.set_word(at, !u16::try_from(folded).expect("two folds leave 16 bits"));
    }

    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Writes a word and says what it was and is.
    fn set_word(&mut self, at: usize, word: u16) -> (u16, u16) {
        let before = self.word(at);
        self.bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
        (before, word)
    }
}

/// An end of a flow.
#[derive(Debug, Clone, Copy)]
enum End {
    Source,
    Destination,
}

impl End {
    fn of(self, flow: &FlowKey) -> SocketAddr {
        match self {
            Self::Source => flow.source,
            Self::Destination => flow.destination,
        }
    }

    /// The offset of its address in an IP header.
    fn address(self, like: IpAddr) -> usize {
        match (self, like) {
            (Self::Source, IpAddr::V4(_)) => V4_SOURCE,
            (Self::Destination, IpAddr::V4(_)) => V4_SOURCE + 4,
            (Self::Source, IpAddr::V6(_)) => V6_SOURCE,
            (Self::Destination, IpAddr::V6(_)) => V6_SOURCE + 16,
        }
    }

    /// The offset of its port in a TCP or UDP header.
    fn port(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

/// The flow of what goes the other way.
pub(super) fn reversed(flow: FlowKey) -> FlowKey {
    FlowKey { source: flow.destination, destination: flow.source, ..flow }
}

/// Calls with each 16-bit word of an address and its index.
fn each_word(address: IpAddr, mut call: impl FnMut(usize, u16)) {
    let mut octets = |octets: &[u8]| {
        for (index, pair) in octets.chunks_exact(2).enumerate() {
            call(index, u16::from_be_bytes([pair[0], pair[1]]));
        }
    };
    match address {
        IpAddr::V4(address) => octets(&address.octets()),
        IpAddr::V6(address) => octets(&address.octets()),
    }
}

/// What an IP header says.
struct IpHeader {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    /// Where the transport header begins.
    transport: usize,
    /// Where the packet ends.
    end: usize,
}

impl IpHeader {
    fn flow(&self, (from, to): (u16, u16)) -> FlowKey {
        FlowKey {
            protocol: self.protocol,
            source: SocketAddr::new(self.source, from),
            destination: SocketAddr::new(self.destination, to),
        }
    }
}

fn read_ip(bytes: &[u8]) -> Result<IpHeader, Unreadable> {
    match bytes.first().ok_or(Unreadable::Malformed)? >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(bytes).map_err(|_short| Unreadable::Malformed)?;
            if usize::from(ip.header_len()) < V4_HEADER {
                return Err(Unreadable::Malformed);
            }
            if ip.more_frags() || ip.frag_offset() != 0 {
                return Err(Unreadable::Fragment(ip.src_addr().into(), ip.dst_addr().into()));
            }
            let end = usize::from(ip.total_len());
            let transport = usize::from(ip.header_len());
            ip_header(ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), transport, end)
        }
        6 => {
            let ip = Ipv6Packet::new_checked(bytes).map_err(|_short| Unreadable::Malformed)?;
            let end = ip.total_len();
            ip_header(ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), V6_HEADER, end)
        }
        _ => Err(Unreadable::Malformed),
    }
}

fn ip_header(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    transport: usize,
    end: usize,
) -> Result<IpHeader, Unreadable> {
    let protocol = match (protocol, source) {
        (IpProtocol::Tcp, _) => Protocol::Tcp,
        (IpProtocol::Udp, _) => Protocol::Udp,
        (IpProtocol::Icmp, IpAddr::V4(_)) => Protocol::Icmp,
        (IpProtocol::Icmpv6, IpAddr::V6(_)) => Protocol::Icmpv6,
        (IpProtocol::Ipv6Frag, _) => return Err(Unreadable::Fragment(source, destination)),
        _ => return Err(Unreadable::Protocol(source, destination)),
    };
    Ok(IpHeader { source, destination, protocol, transport, end })
}

fn read_tcp(payload: &[u8]) -> Result<((u16, u16), Content), Unreadable> {
    let tcp = TcpSegment::new_checked(payload).map_err(|_short| Unreadable::Malformed)?;
    let flags =
        TcpFlags { fin: tcp.fin(), syn: tcp.syn(), rst: tcp.rst(), psh: tcp.psh(), ack: tcp.ack() };
    Ok(((tcp.src_port(), tcp.dst_port()), Content::Tcp(flags)))
}

fn read_udp(payload: &[u8]) -> Result<((u16, u16), Content), Unreadable> {
    let udp = UdpPacket::new_checked(payload).map_err(|_short| Unreadable::Malformed)?;
    Ok(((udp.src_port(), udp.dst_port()), Content::Udp))
}

/// Reads an ICMP message that begins at `at`; both versions of the protocol have the same layout.
fn read_icmp(
    protocol: Protocol,
    message: &[u8],
    at: usize,
) -> Result<((u16, u16), Content), Unreadable> {
    let header = *message.first_chunk::<ICMP_HEADER>().ok_or(Unreadable::Malformed)?;
    let icmp = Icmp { kind: header[0], code: header[1] };
    if let Some(ports) = echo_ports(protocol, header) {
        return Ok((ports, Content::Icmp(IcmpMessage { icmp, quoted: None })));
    }
    let is_error = match protocol {
        // RFC 4443: errors are below 128.
        Protocol::Icmpv6 => header[0] < 128,
        // RFC 792: unreachable, time exceeded, parameter problem.
        _ => matches!(header[0], 3 | 11 | 12),
    };
    let quoted = if is_error { read_quoted(message, at) } else { None };
    Ok(((0, 0), Content::Icmp(IcmpMessage { icmp, quoted })))
}

/// What an echo message has for ports, so that a reply is the reverse of its request and of
/// nothing else (`bpf/lib/conntrack.h`): the identifier is the port of who is asked.
fn echo_ports(protocol: Protocol, header: [u8; ICMP_HEADER]) -> Option<(u16, u16)> {
    let identifier = u16::from_be_bytes([header[4], header[5]]);
    match (protocol, header[0]) {
        (Protocol::Icmp, 8) | (Protocol::Icmpv6, 128) => Some((0, identifier)),
        (Protocol::Icmp, 0) | (Protocol::Icmpv6, 129) => Some((identifier, 0)),
        _ => None,
    }
}

/// Reads the start of the packet that an ICMP error quotes. It may be cut off after its ports.
fn read_quoted(message: &[u8], at: usize) -> Option<Quoted> {
    let quoted = message.get(ICMP_HEADER..)?;
    let ip = match quoted.first()? >> 4 {
        4 => {
            quoted.first_chunk::<V4_HEADER>()?;
            let ip = Ipv4Packet::new_unchecked(quoted);
            let transport = usize::from(ip.header_len()).max(V4_HEADER);
            let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
            ip_header(source, destination, ip.next_header(), transport, quoted.len())
        }
        6 => {
            quoted.first_chunk::<V6_HEADER>()?;
            let ip = Ipv6Packet::new_unchecked(quoted);
            let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
            ip_header(source, destination, ip.next_header(), V6_HEADER, quoted.len())
        }
        _ => return None,
    }
    .ok()?;
    let transport = quoted.get(ip.transport..)?;
    let ports = match ip.protocol {
        Protocol::Tcp | Protocol::Udp => {
            let ports = transport.first_chunk::<PORTS>()?;
            (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]))
        }
        Protocol::Icmp | Protocol::Icmpv6 => {
            echo_ports(ip.protocol, *transport.first_chunk::<ICMP_HEADER>()?)?
        }
    };
    Some(Quoted {
        flow: ip.flow(ports),
        ip: at + ICMP_HEADER,
        transport: at + ICMP_HEADER + ip.transport,
    })
}
