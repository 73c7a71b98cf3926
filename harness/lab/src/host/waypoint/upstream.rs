//! How a waypoint reaches servers: in tunnels with its own identity, or in plain where a server is not in the mesh.
//!
//! A connection of HTTP is kept and used again, as Envoy does, so that what a server's ztunnel lets go on goes on through a
//! waypoint, too. There is one a server, and requests take turns: how many Envoy has depends on how many requests there
//! were at once before, and with it whether the next one needs another connection.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::host::hbone::{Carrier, Pool, ProxyError, Tls, TunnelError};
use crate::mesh::Route;

/// How long it is tried to reach a server (`connectTimeout` of a mesh that is given no other).
const CONNECT: Duration = Duration::from_secs(10);

/// The body of a request or a response.
pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Why a server is not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// There is no tunnel to it.
    #[error("no tunnel to {server}")]
    Tunnel {
        /// The server.
        server: SocketAddr,
        /// Where the tunnel would have ended.
        tunnel: SocketAddr,
        /// Why.
        source: Box<TunnelError>,
    },
    /// There is no connection to it.
    #[error("no connection to {server}")]
    Connect {
        /// The server.
        server: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It does not answer a request.
    #[error("no answer")]
    Exchange(#[source] hyper::Error),
    /// There is no certificate to show it.
    #[error("no certificate")]
    Certificate(#[source] Box<ProxyError>),
}

/// The way to servers with one identity.
#[derive(Debug)]
pub(super) struct Upstream {
    tls: Tls,
    pool: Pool,
    kept: Mutex<HashMap<SocketAddr, Kept>>,
    keeps: bool,
}

/// The connection of HTTP to a server, if there is one. Who holds the lock has the turn.
type Kept = Arc<AsyncMutex<Option<SendRequest<Body>>>>;

impl Upstream {
    pub(super) fn new(tls: Tls) -> Self {
        Self { tls, pool: Pool::default(), kept: Mutex::default(), keeps: true }
    }

    /// One that keeps no connection of HTTP.
    pub(super) fn that_keeps_none(tls: Tls) -> Self {
        Self { keeps: false, ..Self::new(tls) }
    }

    /// Opens new tunnels and connections from now on. Those there are end with what is in them.
    pub(super) fn forget(&self) {
        self.pool.forget();
        // It is whole whenever the lock is free.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Opens a connection.
    pub(super) async fn open(&self, route: &Route) -> Result<Box<dyn Carrier>, UpstreamError> {
        let server = route.to;
        let (Some(tunnel), Some(workload)) = (route.tunnel, &route.workload) else {
            let failed = |source| UpstreamError::Connect { server, source };
            let connected = timeout(CONNECT, TcpStream::connect(server)).await;
            let stream = connected.map_err(|late| failed(late.into()))?.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            return Ok(Box::new(stream));
        };
        let identity = workload.identity();
        let opened = self.pool.open(&self.tls, &identity, tunnel, server);
        let opened =
            timeout(CONNECT, opened).await.unwrap_or_else(|_late| Err(TunnelError::Blocked));
        match opened {
            Ok(opened) => Ok(Box::new(opened)),
            Err(source) => Err(UpstreamError::Tunnel { server, tunnel, source: Box::new(source) }),
        }
    }

    /// Sends a request when it is its turn. What a kept connection does not take any more is sent in a new one.
    pub(super) async fn send(
        &self,
        route: &Route,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut turn = self.kept(route.to).lock_owned().await;
        if let Some(mut kept) = turn.take() {
            match kept.try_send_request(request).await {
                Ok(response) => {
                    self.end(turn, kept);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(untaken) => request = untaken,
                    None => return Err(UpstreamError::Exchange(error.into_error())),
                },
            }
        }
        let stream = TokioIo::new(self.open(route).await?);
        let (mut sender, connection) = handshake(stream).await.map_err(UpstreamError::Exchange)?;
        // How it ends is told to the request that is in it.
        tokio::spawn(async move { drop(connection.await) });
        let response = sender.send_request(request).await.map_err(UpstreamError::Exchange)?;
        self.end(turn, sender);
        Ok(response)
    }

    /// Ends a turn as soon as the response has been read, and keeps the connection if the server does.
    fn end(
        &self,
        mut turn: OwnedMutexGuard<Option<SendRequest<Body>>>,
        mut connection: SendRequest<Body>,
    ) {
        let keeps = self.keeps;
        tokio::spawn(async move {
            if connection.ready().await.is_ok() && keeps {
                *turn = Some(connection);
            }
        });
    }

    fn kept(&self, server: SocketAddr) -> Kept {
        // It is whole whenever the lock is free.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(kept.entry(server).or_default())
    }
}
