//! What the pod sends: through a tunnel to whoever is in the mesh, and in plain to everybody else.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;
use ztc_model::ztunnel::Side;

use super::Proxy;
use crate::datapath::Now;
use crate::host::hbone::{Ended, TunnelError, carry};
use crate::mesh::{AccessLog, Route};

/// How long it is tried to reach a server (`CONNECTION_TIMEOUT` in `src/proxy.rs` of ztunnel).
pub(super) const CONNECT: Duration = Duration::from_secs(10);

impl Proxy {
    /// Serves a connection of the pod's own.
    pub(super) async fn serve_outbound(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let begun = Instant::now();
        let captured = self.switch.datapath().captured(self.pod, peer, Now::read());
        // Whoever comes by itself talks to nobody.
        let Some(captured) = captured else { return };
        // Without it a connection is slower and no other.
        stream.set_nodelay(true).ok();
        let route = match self.plan.mesh.route(captured.client, captured.asked) {
            Ok(route) => route,
            Err(nobody) => {
                let (to, service) = (captured.asked, None);
                let nowhere = Route { to, tunnel: None, workload: None, service };
                self.log(&self.sent(captured.client, &nowhere), begun, Ended::by(&nobody));
                return;
            }
        };
        let record = self.sent(captured.client, &route);
        let ended = if let Some(identity) = &record.server_identity {
            let opened = self.pool.open(&self.tls, identity, record.destination, route.to);
            let tunnel = in_time(&stream, opened, || TunnelError::Blocked).await;
            carry_by(stream, tunnel).await
        } else {
            let late = || ConnectError(io::ErrorKind::TimedOut.into());
            let server = in_time(&stream, connect(route.to), late).await;
            carry_by(stream, server).await
        };
        // What its client gave up is not on record, as it would be only when all time is over.
        if let Some(ended) = ended {
            self.log(&record, begun, ended);
        }
    }

    fn sent(&self, client: SocketAddr, route: &Route) -> AccessLog {
        let own = &self.plan.workload;
        let tunnelled = route.workload.as_ref().filter(|_| route.tunnel.is_some());
        AccessLog {
            side: Side::Outbound,
            source: client,
            client: Some(Arc::clone(own)),
            client_identity: tunnelled.map(|_| own.identity()),
            destination: route.tunnel.unwrap_or(route.to),
            target: tunnelled.map(|_| route.to.to_string()),
            service: route.service.clone(),
            server: route.workload.clone(),
            server_identity: tunnelled.map(|it| it.identity()),
        }
    }
}

/// A server could not be reached in plain.
#[derive(Debug, thiserror::Error)]
#[error("connection failed: {0}")]
struct ConnectError(io::Error);

async fn connect(to: SocketAddr) -> Result<TcpStream, ConnectError> {
    let server = TcpStream::connect(to).await.map_err(ConnectError)?;
    server.set_nodelay(true).map_err(ConnectError)?;
    Ok(server)
}

/// What opens a connection for a client, as long as it may take; nothing where the client has gone meanwhile.
async fn in_time<T, E>(
    client: &TcpStream,
    opened: impl Future<Output = Result<T, E>>,
    late: impl FnOnce() -> E,
) -> Option<Result<T, E>> {
    tokio::select! {
        opened = timeout(CONNECT, opened) => Some(opened.unwrap_or_else(|_elapsed| Err(late()))),
        () = gone(client) => None,
    }
}

/// Carries a client's connection, if the client is still there and there is one to carry it in.
async fn carry_by<S: AsyncRead + AsyncWrite>(
    client: TcpStream,
    opened: Option<Result<S, impl Error>>,
) -> Option<Ended> {
    Some(match opened? {
        Ok(server) => carry(client, server).await,
        Err(error) => Ended::by(&error),
    })
}

/// Returns when a client has broken its connection off. ztunnel would go on for it, to no effect that anybody sees.
async fn gone(client: &TcpStream) {
    loop {
        match client.ready(Interest::ERROR).await {
            Ok(ready) if !ready.is_error() => {}
            Ok(_) | Err(_) => return,
        }
    }
}
