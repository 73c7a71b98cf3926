//! What comes to the pod: in plain, or in a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use ztc_model::policy::mesh::SpiffeId;
use ztc_model::policy::mesh::ztunnel::Connection;
use ztc_model::ztunnel::Side;

use super::{Hold, Proxy};
use crate::datapath::Now;
use crate::host::hbone::{Ended, Tunnel, Tunnelled, accept, answer, carry};
use crate::mesh::AccessLog;

/// Why a connection is not carried.
enum Refusal {
    /// By policy, in the words of the log.
    Denied(String),
    /// The pod does not take it.
    Failed(std::io::Error),
}

impl Proxy {
    /// Serves a connection in plain. A denied one is accepted and closed.
    pub(super) async fn serve_plain(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let begun = Instant::now();
        let captured = self.switch.datapath().captured(self.pod, peer, Now::read());
        // Whoever comes by itself talks to nobody.
        let Some(captured) = captured else { return };
        let connection =
            Connection { peer: None, source: captured.client.ip(), destination: captured.asked };
        let hold = self.open.hold(&connection);
        let ended = match self.admit(&connection).await {
            Ok(server) => carried(&hold, stream, server).await,
            Err(refusal) => {
                drop(stream);
                Ended::by(&refusal.words())
            }
        };
        let record = self.record(&connection, captured.client, captured.asked, None);
        self.log(&record, begun, ended);
    }

    /// Serves a tunnel: all connections in it, until its peer leaves.
    pub(super) async fn serve_tunnel(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(local) = stream.local_addr() else { return };
        let believed = || self.plan.mesh.workload(peer.ip()).map(|it| it.identity());
        let Some(Tunnel { identity, mut connections }) = accept(&self.tls, stream, believed).await
        else {
            return;
        };
        while let Some(Ok((request, respond))) = connections.accept().await {
            let (proxy, identity) = (Arc::clone(&self), identity.clone());
            tokio::spawn(async move {
                proxy.serve_connect(identity, (peer, local), request, respond).await;
            });
        }
    }

    /// Serves one connection of a tunnel.
    async fn serve_connect(
        &self,
        identity: SpiffeId,
        (peer, local): (SocketAddr, SocketAddr),
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let begun = Instant::now();
        let authority = request.uri().authority().map(|it| it.as_str().to_owned());
        let wanted = authority.as_ref().and_then(|it| it.parse::<SocketAddr>().ok());
        let wanted = wanted.filter(|it| self.addresses.contains(&it.ip()));
        let (Some(destination), &Method::CONNECT) = (wanted, request.method()) else {
            answer(&mut respond, StatusCode::BAD_REQUEST);
            return;
        };
        let connection = Connection { peer: Some(identity), source: peer.ip(), destination };
        let record = self.record(&connection, peer, local, authority);
        let hold = self.open.hold(&connection);
        let ended = match self.admit(&connection).await {
            Ok(server) => {
                let response = Response::new(());
                match respond.send_response(response, false) {
                    Ok(sends) => {
                        let client = Tunnelled::new(sends, request.into_body(), None);
                        carried(&hold, client, server).await
                    }
                    Err(error) => Ended::by(&format!("send: {error}")),
                }
            }
            Err(refusal) => {
                answer(&mut respond, refusal.status());
                Ended::by(&refusal.words())
            }
        };
        self.log(&record, begun, ended);
    }

    /// Asks policy, then the pod. To be called with the connection among the open ones: what changes after policy
    /// was asked is then noticed.
    async fn admit(&self, connection: &Connection) -> Result<TcpStream, Refusal> {
        if let Some(why) = self.plan.mesh.judge(&self.plan.workload, connection).error() {
            return Err(Refusal::Denied(why));
        }
        let stream = TcpStream::connect(connection.destination).await.map_err(Refusal::Failed)?;
        stream.set_nodelay(true).map_err(Refusal::Failed)?;
        Ok(stream)
    }

    fn record(
        &self,
        connection: &Connection,
        source: SocketAddr,
        destination: SocketAddr,
        target: Option<String>,
    ) -> AccessLog {
        let mesh = &self.plan.mesh;
        let own = &self.plan.workload;
        let identity = &connection.peer;
        AccessLog {
            side: Side::Inbound,
            source,
            client: mesh.workload(connection.source),
            client_identity: identity.clone(),
            destination,
            target,
            service: mesh.service_of(&own.reference, connection.destination.port()),
            server: Some(Arc::clone(own)),
            server_identity: identity.as_ref().map(|_| own.identity()),
        }
    }
}

/// Carries an admitted connection until it is over or allowed no longer.
async fn carried(hold: &Hold<'_>, client: impl AsyncRead + AsyncWrite, server: TcpStream) -> Ended {
    tokio::select! {
        ended = carry(client, server) => ended,
        () = hold.forbidden.notified() => Ended::by(&"connection closed due to policy change"),
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) => StatusCode::UNAUTHORIZED,
            Self::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Denied(why) => why.clone(),
            Self::Failed(error) => format!("connection failed: {error}"),
        }
    }
}
