//! Tunnels that come.

use std::io;
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

/// How many connections may be given up in a tunnel before anybody has looked at them. No case sends as many.
const RESETS: usize = 10_000;

/// The first byte of TLS: the type of a record with a handshake in it (RFC 8446 §5.1).
const RECORD_OF_HANDSHAKE: u8 = 0x16;

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

/// Why a tunnel that came was not accepted.
#[derive(Debug, thiserror::Error)]
pub(in crate::host) enum NotAccepted {
    /// TLS failed. The words are ztunnel's (`TlsError` in `src/tls/lib.rs`).
    #[error("tls handshake error: {0:?}")]
    Handshake(io::Error),
    /// It is not known whose the tunnel would be.
    #[error("the peer has no identity")]
    Nobody,
    /// HTTP/2 failed.
    #[error("http2 handshake failed: {0}")]
    Http(h2::Error),
    /// The peer took too long.
    #[error("the peer took longer than {HANDSHAKE:?}")]
    Late,
}

/// Accepts a tunnel. Where that is what is broken on purpose, a peer that shows nothing is whoever it is `believed` to be.
pub(in crate::host) async fn accept(
    tls: &Tls,
    stream: TcpStream,
    believed: impl FnOnce() -> Option<SpiffeId>,
) -> Result<Tunnel, NotAccepted> {
    // Without it a connection is slower and no other.
    stream.set_nodelay(true).ok();
    let late = |_elapsed| NotAccepted::Late;
    let in_clear = tls.is_left_out() || (tls.accepts_clear() && !begins_tls(&stream).await);
    let (identity, stream): (Option<SpiffeId>, Box<dyn Carrier>) = if in_clear {
        (believed(), Box::new(stream))
    } else {
        let accepted = TlsAcceptor::from(tls.server()).accept(stream);
        let stream = timeout(HANDSHAKE, accepted).await.map_err(late)?;
        let stream = stream.map_err(NotAccepted::Handshake)?;
        let (_, session) = stream.get_ref();
        let identity = match session.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => identity_of(certificate),
            // None but a broken one comes here without.
            None => believed(),
        };
        (identity, Box::new(stream))
    };
    let identity = identity.ok_or(NotAccepted::Nobody)?;
    let tunnel = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS)
        // Clients of a slow lab give up by the dozen, and h2 would take that for an attack and end the tunnel.
        .max_pending_accept_reset_streams(RESETS)
        .handshake(stream);
    let connections = timeout(HANDSHAKE, tunnel).await.map_err(late)?.map_err(NotAccepted::Http)?;
    Ok(Tunnel { identity, connections })
}

/// Whether the first byte of a peer is that of TLS.
async fn begins_tls(stream: &TcpStream) -> bool {
    let mut first = [0];
    !matches!(stream.peek(&mut first).await, Ok(1) if first[0] != RECORD_OF_HANDSHAKE)
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
