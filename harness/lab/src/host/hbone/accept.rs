//! Tunnels that come.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use ztc_model::policy::mesh::SpiffeId;

use super::error::ProxyError;
use super::tls::{Tls, identity_of};
use crate::host::netns::NetNs;

/// How long a peer may take to open a tunnel.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many connections a tunnel carries at a time (`POOL_MAX_STREAMS_PER_CONNECTION` of ztunnel).
pub(in crate::host) const STREAMS: u32 = 100;

/// A tunnel that has come.
pub(in crate::host) struct Tunnel {
    /// Whose it is.
    pub(in crate::host) identity: SpiffeId,
    /// The connections in it.
    pub(in crate::host) connections: Connection<Box<dyn Carrier>, Bytes>,
}

/// What carries bytes: of a tunnel, or in one.
pub(in crate::host) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// Accepts a tunnel; nothing where its peer does not get that far. What fails here fails at the other end too, which has
/// a connection to tell of. Where TLS is left out on purpose, a peer is whoever it is `believed` to be.
pub(in crate::host) async fn accept(
    tls: &Tls,
    stream: TcpStream,
    believed: impl FnOnce() -> Option<SpiffeId>,
) -> Option<Tunnel> {
    // Without it a connection is slower and no other.
    stream.set_nodelay(true).ok();
    let (identity, stream): (SpiffeId, Box<dyn Carrier>) = if tls.is_left_out() {
        (believed()?, Box::new(stream))
    } else {
        let accepted = TlsAcceptor::from(tls.server()).accept(stream);
        let stream = timeout(HANDSHAKE, accepted).await.ok()?.ok()?;
        let (_, session) = stream.get_ref();
        let identity = session.peer_certificates().and_then(<[_]>::first).and_then(identity_of)?;
        (identity, Box::new(stream))
    };
    let tunnel = h2::server::Builder::new().max_concurrent_streams(STREAMS).handshake(stream);
    let connections = timeout(HANDSHAKE, tunnel).await.ok()?.ok()?;
    Some(Tunnel { identity, connections })
}

/// Answers a CONNECT that leads nowhere.
pub(in crate::host) fn answer(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // A peer that has gone needs no answer.
    drop(respond.send_response(response, true));
}

/// Listens in a network namespace, for the tasks of a runtime.
pub(in crate::host) fn listen(
    runtime: &Handle,
    netns: &NetNs,
    address: SocketAddr,
) -> Result<TcpListener, ProxyError> {
    let listening = netns.run(|| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let _context = runtime.enter();
        TcpListener::from_std(listener)
    })?;
    listening.map_err(|source| ProxyError::Listen { address, source })
}
