//! Listening sockets on every address: one for IPv4, and one for IPv6 alone where there is IPv6.
//!
//! A dual-stack socket would be one less, but does not exist where IPv6 is switched off, and shows
//! IPv4 peers in a mapped form.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::ServeError;

/// The most that Linux grants by default (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// TCP listeners on a port.
pub(super) fn tcp(port: u16) -> Result<Vec<TcpListener>, ServeError> {
    on_every_address(port, Type::STREAM)
        .and_then(|sockets| {
            sockets
                .into_iter()
                .map(|socket| {
                    socket.listen(BACKLOG)?;
                    TcpListener::from_std(socket.into())
                })
                .collect()
        })
        .map_err(|source| ServeError::Bind { protocol: "TCP", port, source })
}

/// UDP sockets on a port.
pub(super) fn udp(port: u16) -> Result<Vec<UdpSocket>, ServeError> {
    on_every_address(port, Type::DGRAM)
        .and_then(|sockets| {
            sockets.into_iter().map(|socket| UdpSocket::from_std(socket.into())).collect()
        })
        .map_err(|source| ServeError::Bind { protocol: "UDP", port, source })
}

fn on_every_address(port: u16, kind: Type) -> io::Result<Vec<Socket>> {
    let mut sockets = vec![bind((Ipv4Addr::UNSPECIFIED, port).into(), kind)?];
    match bind((Ipv6Addr::UNSPECIFIED, port).into(), kind) {
        Ok(socket) => sockets.push(socket),
        Err(error) if is_without_ipv6(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

/// No IPv6 in the kernel, or none in this namespace (`net.ipv6.conf.all.disable_ipv6`).
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of an agent that ran here before must not keep this one from its port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The next connection. One that broke before it was accepted is passed over, as accept(2) asks.
pub(super) async fn accept(listener: &TcpListener, port: u16) -> Result<TcpStream, ServeError> {
    loop {
        match listener.accept().await {
            // Whether it may send small segments at once is of no account to who only misses it.
            Ok((stream, _)) => {
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(source) => return Err(ServeError::Accept { port, source }),
        }
    }
}

/// Linux reports errors that are pending on the new connection as its accept's (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
        )
    )
}
