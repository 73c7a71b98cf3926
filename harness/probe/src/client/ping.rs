//! The ICMP client: an echo request with a nonce out, the echo reply with it in.
//!
//! Through a datagram socket (icmp(7)), which needs no capability: only a group in
//! `net.ipv4.ping_group_range`, which container runtimes open to all (containerd's
//! `enable_unprivileged_icmp`). Where it is closed, the client cannot send.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use ztc_wire::{Leg, Observed, Phase};

use super::socket;
use crate::run::Run;
use crate::words;

/// Length of an ICMP header (RFC 792, RFC 4443).
const HEADER: usize = 8;

/// Asks and judges the first reply that comes back.
pub(super) async fn exchange(run: &Run, to: IpAddr) -> Result<Observed, Observed> {
    run.wait_for(Phase::Reply);
    // The kernel counts an identifier of such a socket as its port; nobody listens on one.
    let remote = SocketAddr::new(to, 0);
    let nonce = words::question(&run.nonce());
    let bound = socket::bind(run, remote, bind)?;
    let request = message(kinds(to).0, nonce.as_bytes());
    let reply = socket::exchange_on(run, Leg::Send, bound, remote, &request).await?;
    Ok(match reply.split_at_checked(HEADER) {
        Some((header, echoed)) if header[0] == kinds(to).1 && echoed == nonce.as_bytes() => {
            Observed::Echo { remote: to }
        }
        _ => Observed::Garbled { got: words::excerpt(&reply) },
    })
}

/// The types of an echo request and of its reply (RFC 792, RFC 4443).
fn kinds(to: IpAddr) -> (u8, u8) {
    if to.is_ipv4() { (8, 0) } else { (128, 129) }
}

/// An echo message; the kernel writes its identifier and its checksum.
fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = 1_u16.to_be_bytes();
    [&[kind, 0, 0, 0, 0, 0, high, low], payload].concat()
}

/// A socket whose identifier is the port of `local`.
fn bind(local: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let protocol = if local.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(protocol))?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}
