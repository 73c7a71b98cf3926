//! Packets, built and checked by a stack that is not the code under test.

use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IPV4_HEADER_LEN, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpAddress, IpProtocol, IpRepr,
    Ipv4Packet, Ipv4Repr, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
    UdpRepr,
};

/// What all test packets carry.
pub(super) const PAYLOAD: &[u8] = b"nonce 0123456789, and one odd byte";

/// A TCP segment, whether it acknowledges, and how it begins or ends.
pub(super) fn tcp(from: SocketAddr, to: SocketAddr, control: TcpControl, ack: bool) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control,
        seq_number: TcpSeqNumber(0x1234_5678),
        ack_number: ack.then_some(TcpSeqNumber(0x0102_0304)),
        window_len: 4096,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: if control == TcpControl::Psh { PAYLOAD } else { &[] },
    };
    ip(from, to, IpProtocol::Tcp, segment.buffer_len(), |payload, source, destination| {
        let mut packet = TcpPacket::new_unchecked(payload);
        segment.emit(&mut packet, &source, &destination, &ChecksumCapabilities::default());
    })
}

/// The first segment of a connection.
pub(super) fn syn(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    tcp(from, to, TcpControl::Syn, false)
}

/// The answer to it.
pub(super) fn syn_ack(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    tcp(from, to, TcpControl::Syn, true)
}

/// A segment with data.
pub(super) fn data(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    tcp(from, to, TcpControl::Psh, true)
}

/// A datagram.
pub(super) fn udp(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let datagram = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let length = datagram.header_len() + PAYLOAD.len();
    ip(from, to, IpProtocol::Udp, length, |payload, source, destination| {
        let mut packet = UdpPacket::new_unchecked(payload);
        let capabilities = ChecksumCapabilities::default();
        let fill = |payload: &mut [u8]| payload.copy_from_slice(PAYLOAD);
        datagram.emit(&mut packet, &source, &destination, PAYLOAD.len(), fill, &capabilities);
    })
}

/// An ICMP echo request.
pub(super) fn ping(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    echo(from, to, Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data: PAYLOAD })
}

/// The answer to it.
pub(super) fn pong(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    echo(from, to, Icmpv4Repr::EchoReply { ident: 7, seq_no: 1, data: PAYLOAD })
}

fn echo(from: SocketAddr, to: SocketAddr, message: Icmpv4Repr<'_>) -> Vec<u8> {
    ip(from, to, IpProtocol::Icmp, message.buffer_len(), |payload, _, _| {
        let mut packet = Icmpv4Packet::new_unchecked(payload);
        message.emit(&mut packet, &ChecksumCapabilities::default());
    })
}

/// What the receiver of a packet sends back when nobody listens on its port.
pub(super) fn port_unreachable(about: &[u8]) -> Vec<u8> {
    let quoted = Ipv4Packet::new_checked(about).unwrap();
    let header = Ipv4Repr::parse(&quoted, &ChecksumCapabilities::default()).unwrap();
    let data = &about[IPV4_HEADER_LEN..];
    let message =
        Icmpv4Repr::DstUnreachable { reason: Icmpv4DstUnreachable::PortUnreachable, header, data };
    let from = SocketAddr::new(header.dst_addr.into(), 0);
    let to = SocketAddr::new(header.src_addr.into(), 0);
    echo(from, to, message)
}

fn ip(
    from: SocketAddr,
    to: SocketAddr,
    protocol: IpProtocol,
    length: usize,
    emit: impl FnOnce(&mut [u8], IpAddress, IpAddress),
) -> Vec<u8> {
    let (source, destination) = (from.ip().into(), to.ip().into());
    let header = IpRepr::new(source, destination, protocol, length, 64);
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes[..], &ChecksumCapabilities::default());
    emit(&mut bytes[header.header_len()..], source, destination);
    bytes
}

/// The ends of a packet, after every one of its checksums was found right.
pub(super) fn ends(bytes: &[u8]) -> (SocketAddr, SocketAddr) {
    let (source, destination, protocol, payload) = if bytes[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(bytes).unwrap();
        assert!(ip.verify_checksum(), "checksum of the IP header");
        let transport = usize::from(ip.header_len());
        (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), &bytes[transport..])
    } else {
        let ip = Ipv6Packet::new_checked(bytes).unwrap();
        let payload = &bytes[ip.header_len()..];
        (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), payload)
    };
    let (from, to) = transport_ports(protocol, payload, source, destination);
    (SocketAddr::new(source.into(), from), SocketAddr::new(destination.into(), to))
}

fn transport_ports(
    protocol: IpProtocol,
    payload: &[u8],
    source: IpAddress,
    destination: IpAddress,
) -> (u16, u16) {
    match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).unwrap();
            assert!(tcp.verify_checksum(&source, &destination), "checksum of TCP");
            (tcp.src_port(), tcp.dst_port())
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).unwrap();
            assert!(udp.verify_checksum(&source, &destination), "checksum of UDP");
            (udp.src_port(), udp.dst_port())
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(payload).unwrap();
            assert!(icmp.verify_checksum(), "checksum of ICMP");
            (0, 0)
        }
        other => panic!("no test sends {other}"),
    }
}

/// The packet that an ICMP error quotes: its ends, after its IP header was found right.
pub(super) fn quoted(error: &[u8]) -> (SocketAddr, SocketAddr) {
    let quoted = &error[IPV4_HEADER_LEN + 8..];
    let ip = Ipv4Packet::new_unchecked(quoted);
    assert!(ip.verify_checksum(), "checksum of the quoted header");
    let port = |at: usize| {
        u16::from_be_bytes([quoted[IPV4_HEADER_LEN + at], quoted[IPV4_HEADER_LEN + at + 1]])
    };
    (SocketAddr::new(ip.src_addr().into(), port(0)), SocketAddr::new(ip.dst_addr().into(), port(2)))
}
