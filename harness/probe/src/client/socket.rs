//! Fresh sockets, bound to a port of ours and announced before their first packet.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use ztc_wire::{Leg, Observed};

use super::failure::{from_network, unsent};
use crate::run::Run;

/// A TCP connection. It ends with a reset, so that its port and address pair are free at once
/// instead of after a minute of TIME-WAIT.
pub(super) async fn connect(
    run: &Run,
    leg: Leg,
    remote: SocketAddr,
) -> Result<TcpStream, Observed> {
    let socket = tcp_socket(remote).map_err(|error| unsent("make a TCP socket", error))?;
    let ((), local) = bind(run, remote, |local| socket.bind(local))?;
    run.started(leg, local, remote);
    socket.connect(remote).await.map_err(|error| from_network("connect", run.phase(), &error))
}

fn tcp_socket(remote: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port is bound by one socket alone: with addresses reused, one that a connection has which goes on would be bound, and
    // refused when it connects.
    socket.set_zero_linger()?;
    // The end of a handshake and the first words after it are two writes: Nagle's algorithm would hold
    // the second back for as long as the peer delays its acknowledgement, 40 ms.
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Has a socket for datagrams send to, and hear from, this address only.
fn associate(run: &Run, leg: Leg, bound: Bound, remote: SocketAddr) -> Result<UdpSocket, Observed> {
    let (socket, local) = connected(run, bound, remote)?;
    run.started(leg, local, remote);
    Ok(socket)
}

/// A UDP socket that sends to, and hears from, this address only, for the caller to announce: with its own
/// address.
pub(super) fn associated(
    run: &Run,
    remote: SocketAddr,
) -> Result<(UdpSocket, SocketAddr), Observed> {
    let bound = bind(run, remote, std::net::UdpSocket::bind)?;
    connected(run, bound, remote)
}

fn connected(
    run: &Run,
    (socket, local): Bound,
    remote: SocketAddr,
) -> Result<(UdpSocket, SocketAddr), Observed> {
    socket
        .connect(remote)
        .map_err(|error| from_network("connect a datagram socket", run.phase(), &error))?;
    socket
        .set_nonblocking(true)
        .and_then(|()| UdpSocket::from_std(socket))
        .map(|socket| (socket, local))
        .map_err(|error| unsent("make a datagram socket", error))
}

/// A socket for datagrams and what it is bound to. The standard library has one type for all of
/// them, and calls it after UDP.
pub(super) type Bound = (std::net::UdpSocket, SocketAddr);

/// Binds to the address that leads to `remote` and to the next port; returns both with what `bind`
/// made of them.
pub(super) fn bind<T>(
    run: &Run,
    remote: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<(T, SocketAddr), Observed> {
    let mut local = source(run, remote)?;
    let bound = run.ports().bind(|port| {
        local.set_port(port);
        // A socket that reaches itself would hear its own words.
        if local == remote { Err(io::ErrorKind::AddrInUse.into()) } else { bind(local) }
    });
    bound.map(|bound| (bound, local)).map_err(|error| unsent("bind a socket", error))
}

/// Longer than any answer of ours and than any DNS answer over UDP that we ask for; of what is
/// longer the start is enough.
const MAX_DATAGRAM: usize = 4096;

/// Sends one datagram and waits for one.
pub(super) async fn exchange_datagrams(
    run: &Run,
    leg: Leg,
    remote: SocketAddr,
    question: &[u8],
) -> Result<Vec<u8>, Observed> {
    let bound = bind(run, remote, std::net::UdpSocket::bind)?;
    exchange_on(run, leg, bound, remote, question).await
}

/// The same on a socket that is bound already.
pub(super) async fn exchange_on(
    run: &Run,
    leg: Leg,
    bound: Bound,
    remote: SocketAddr,
    question: &[u8],
) -> Result<Vec<u8>, Observed> {
    let socket = associate(run, leg, bound, remote)?;
    let failed = |operation| move |error: io::Error| from_network(operation, run.phase(), &error);
    socket.send(question).await.map_err(failed("send"))?;
    receive(&socket).await.map_err(failed("receive"))
}

/// A datagram, or what ICMP said instead. The latter is an error condition of the socket that does
/// not make it readable: `UdpSocket::recv` alone would never wake for it.
async fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error()
            && let Some(error) = socket.take_error()?
        {
            return Err(error);
        }
        let mut datagram = Vec::with_capacity(MAX_DATAGRAM);
        match socket.try_recv_buf(&mut datagram) {
            Ok(_) => return Ok(datagram),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The address that the kernel sends from towards `remote`, by its routes of this moment: what
/// connecting a UDP socket chooses. No packet is sent.
fn source(run: &Run, remote: SocketAddr) -> Result<SocketAddr, Observed> {
    let any = match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = std::net::UdpSocket::bind(any)
        .map_err(|error| unsent("make a socket to look a route up", error))?;
    socket.connect(remote).map_err(|error| from_network("look a route up", run.phase(), &error))?;
    socket.local_addr().map_err(|error| unsent("look a source address up", error))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// After a turn through the range the port of a connection that goes on comes again: it is in use, and `Ports` skips it.
    #[tokio::test]
    async fn the_port_of_a_connection_that_goes_on_is_in_use() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = server.local_addr().unwrap();
        let first = tcp_socket(remote).unwrap();
        first.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let goes_on = first.connect(remote).await.unwrap();
        let again = tcp_socket(remote).unwrap().bind(goes_on.local_addr().unwrap());
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
