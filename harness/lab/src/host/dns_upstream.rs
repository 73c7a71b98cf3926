//! The DNS proxy's side towards the server: sockets that speak in a client's name.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use ztc_model::policy::Protocol;

use super::pump::Switch;
use crate::datapath::{Now, Redirect};

/// The largest message, in bytes: what EDNS can promise and what two bytes of length can say.
pub(super) const LARGEST: usize = 65_535;

/// What the switch makes of a socket's packets: they leave with the client's address and identity.
#[derive(Debug)]
struct Lease {
    switch: Arc<Switch>,
    protocol: Protocol,
    local: SocketAddr,
}

impl Lease {
    fn new(switch: &Arc<Switch>, redirect: &Redirect, local: SocketAddr) -> Self {
        switch.datapath().begin_upstream(redirect, local, Now::read());
        Self { switch: Arc::clone(switch), protocol: redirect.protocol, local }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.switch.datapath().end_upstream(self.protocol, self.local, Now::read());
    }
}

/// What the server answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// What it says.
    pub(super) message: Message,
    /// How the server wrote it, for the client to get it unchanged.
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    /// A message, if it answers this query: the same id and the same questions (RFC 5452 §9.1).
    fn read(query: &Message, bytes: Vec<u8>) -> Option<Self> {
        // Whatever cannot be read is for somebody else.
        let message = Message::from_vec(&bytes).ok()?;
        let matches = message.metadata.id == query.metadata.id && message.queries == query.queries;
        matches.then_some(Self { message, bytes })
    }
}

/// Puts one query to the server, from a socket of its own.
pub(super) async fn over_udp(
    switch: &Arc<Switch>,
    node: IpAddr,
    redirect: &Redirect,
    query: &Message,
    bytes: &[u8],
) -> io::Result<Answer> {
    let socket = UdpSocket::bind(SocketAddr::new(node, 0)).await?;
    let _lease = Lease::new(switch, redirect, socket.local_addr()?);
    socket.connect(redirect.server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = Answer::read(query, buffer[..length].to_vec()) {
            return Ok(answer);
        }
    }
}

/// A connection to the server for the queries of one client's connection.
#[derive(Debug)]
pub(super) struct Upstream {
    stream: TcpStream,
    _lease: Lease,
}

impl Upstream {
    /// Connects to the server.
    pub(super) async fn connect(
        switch: &Arc<Switch>,
        node: IpAddr,
        redirect: &Redirect,
    ) -> io::Result<Self> {
        let socket = if node.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(node, 0))?;
        let lease = Lease::new(switch, redirect, socket.local_addr()?);
        let stream = socket.connect(redirect.server).await?;
        Ok(Self { stream, _lease: lease })
    }

    /// Puts one query to the server.
    pub(super) async fn exchange(&mut self, query: &Message, bytes: &[u8]) -> io::Result<Answer> {
        write_framed(&mut self.stream, bytes).await?;
        loop {
            let frame = read_framed(&mut self.stream).await?;
            let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
            if let Some(answer) = Answer::read(query, frame) {
                return Ok(answer);
            }
        }
    }
}

/// The next message of a stream, after its length in two bytes (RFC 1035 §4.2.2); none at its end.
pub(super) async fn read_framed(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes a message with its length before it, in one piece.
pub(super) async fn write_framed(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|too_long| io::Error::new(io::ErrorKind::InvalidInput, too_long))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
