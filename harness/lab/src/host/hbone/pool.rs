//! Tunnels to other workloads, kept in a pool.
//!
//! Follows `src/proxy/pool.rs` of istio/ztunnel: a pod has tunnels of its own, one for each peer until it carries as
//! many connections as it may; while one is being opened, whoever needs it waits.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use rustix::net::sockopt::set_tcp_user_timeout;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsConnector;
use ztc_model::policy::mesh::SpiffeId;

use super::accept::STREAMS;
use super::carry::Tunnelled;
use super::tls::{Tls, TlsError};

/// How long a tunnel may go without an acknowledgement of what was sent.
const UNACKNOWLEDGED: Duration = Duration::from_secs(1);

/// How long one attempt to connect is alone.
const ATTEMPT: Duration = Duration::from_millis(250);

/// Why a connection is in no tunnel.
#[derive(Debug, thiserror::Error)]
pub(in crate::host) enum TunnelError {
    /// Nobody answers.
    #[error(
        "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed"
    )]
    Blocked,
    #[error("connection failed: {0}")]
    Connect(io::Error),
    #[error("tls error: {0}")]
    Tls(TlsError),
    #[error("tls error: {0}")]
    Handshake(io::Error),
    #[error("http2 handshake failed: {0}")]
    Http(h2::Error),
    #[error("h2 failed: {0}")]
    Stream(h2::Error),
    #[error("invalid CONNECT address {0}")]
    Request(http::Error),
    #[error("http status: {0}")]
    Status(StatusCode),
}

impl TunnelError {
    /// The status with which the other end refused it.
    pub(in crate::host) fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status.as_u16()),
            _ => None,
        }
    }
}

/// The tunnels of a pod to others.
#[derive(Debug, Default)]
pub(in crate::host) struct Pool(StdMutex<HashMap<SocketAddr, Arc<Mutex<Vec<Tunnel>>>>>);

struct Tunnel {
    requests: SendRequest<Bytes>,
    /// Held by whoever is in it.
    load: Arc<()>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Pool {
    /// Opens a connection to `to` in a tunnel to a peer with an identity.
    pub(in crate::host) async fn open(
        &self,
        tls: &Tls,
        identity: &SpiffeId,
        peer: SocketAddr,
        to: SocketAddr,
    ) -> Result<Tunnelled, TunnelError> {
        let request = Request::builder().method(Method::CONNECT).uri(to.to_string()).body(());
        let request = request.map_err(TunnelError::Request)?;
        let (mut requests, load) = self.tunnel(tls, identity, peer).await?;
        let (response, sends) =
            requests.send_request(request, false).map_err(TunnelError::Stream)?;
        let response = response.await.map_err(TunnelError::Stream)?;
        match response.status() {
            StatusCode::OK => Ok(Tunnelled::new(sends, response.into_body(), Some(load))),
            status => Err(TunnelError::Status(status)),
        }
    }

    /// Opens new tunnels from now on. Those there are end with what is in them.
    pub(in crate::host) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// A tunnel with room for one more, the one there is or a new one.
    async fn tunnel(
        &self,
        tls: &Tls,
        identity: &SpiffeId,
        peer: SocketAddr,
    ) -> Result<(SendRequest<Bytes>, Arc<()>), TunnelError> {
        let tunnels = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(peer).or_default())
        };
        let mut tunnels = tunnels.lock().await;
        while let Some(at) = tunnels.iter().position(Tunnel::has_room) {
            let (requests, load) = (tunnels[at].requests.clone(), Arc::clone(&tunnels[at].load));
            match requests.ready().await {
                Ok(requests) => return Ok((requests, load)),
                Err(_closed) => drop(tunnels.swap_remove(at)),
            }
        }
        let requests = dial(tls, identity, peer).await?;
        let load = Arc::new(());
        tunnels.push(Tunnel { requests: requests.clone(), load: Arc::clone(&load) });
        Ok((requests.ready().await.map_err(TunnelError::Stream)?, load))
    }
}

impl Tunnel {
    fn has_room(&self) -> bool {
        // One is its own.
        Arc::strong_count(&self.load) <= STREAMS as usize
    }
}

async fn dial(
    tls: &Tls,
    identity: &SpiffeId,
    peer: SocketAddr,
) -> Result<SendRequest<Bytes>, TunnelError> {
    let stream = connect(peer).await.map_err(TunnelError::Connect)?;
    stream.set_nodelay(true).map_err(TunnelError::Connect)?;
    let limit = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    set_tcp_user_timeout(&stream, limit).map_err(|errno| TunnelError::Connect(errno.into()))?;
    if tls.is_left_out() {
        return shake_hands(stream).await;
    }
    let config = tls.client(identity).map_err(TunnelError::Tls)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::from(peer.ip()), stream)
        .await
        .map_err(TunnelError::Handshake)?;
    shake_hands(stream).await
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Bytes>, TunnelError> {
    let (requests, tunnel) = h2::client::handshake(stream).await.map_err(TunnelError::Http)?;
    // How it ends is told to everybody who is in it.
    tokio::spawn(async move { drop(tunnel.await) });
    Ok(requests)
}

/// Connects. A lost packet is not waited for as long as a kernel would: another attempt is made beside the first,
/// and whichever is answered first is the one.
async fn connect(peer: SocketAddr) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    let mut ticks = interval(ATTEMPT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => attempts.push(TcpStream::connect(peer)),
            Some(connected) = attempts.next() => return connected,
        }
    }
}
