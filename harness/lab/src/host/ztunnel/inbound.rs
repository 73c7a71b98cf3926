//! What comes to the pod: in plain, or in a tunnel.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use ztc_model::policy::mesh::SpiffeId;
use ztc_model::policy::mesh::ztunnel::Connection;
use ztc_model::ztunnel::{HBONE_PORT, Side};

use super::{Hold, Proxy};
use crate::datapath::{INBOUND_PORT, Now, OUTBOUND_PORT};
use crate::fault::Fault;
use crate::host::hbone::{Ended, NotAccepted, Tunnel, Tunnelled, accept, answer, carry};
use crate::mesh::{AccessLog, Early};

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
        let accepted = accept(&self.tls, stream, believed).await;
        let Tunnel { identity, mut connections } = match accepted {
            Ok(tunnel) => tunnel,
            Err(NotAccepted::Handshake(error)) => {
                return self.log_early(peer, local, &NotAccepted::Handshake(error));
            }
            // A real one tells only of what ends before there is TLS.
            Err(_) => return,
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
        let lenient = self.plan.mesh.faults.has(Fault::HboneIgnoresAuthority);
        let wanted = wanted(request.method(), authority.as_deref(), local.ip(), lenient);
        let destination = match wanted {
            Ok(destination) => destination,
            Err(wrong) => {
                self.log_early(peer, local, &wrong);
                return answer(&mut respond, wrong.status());
            }
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

    /// Writes the line of a tunnel, or of a connection in one, that ended before it was known what it is for.
    fn log_early(&self, source: SocketAddr, destination: SocketAddr, why: &dyn Error) {
        let early = Early { source, destination, error: why.to_string() };
        self.tell(early.line(Timestamp::now()));
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

/// Why a tunnel does not lead where it is asked for, whatever policies say (`build_inbound_request` in
/// `src/proxy/inbound.rs` of ztunnel, whose words these are).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Misled {
    #[error("expected method CONNECT, got {0}")]
    Method(Method),
    #[error("invalid CONNECT address {0}")]
    Address(String),
    #[error("ip mismatch: {0} != {1}")]
    Elsewhere(IpAddr, IpAddr),
    #[error("attempted recursive call to ourselves")]
    Itself,
}

impl Misled {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Itself => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Where in a pod a tunnel that came to one of its addresses leads: to that address alone, and to no port of ztunnel's own.
/// A lenient one takes the port, and no interest in the address.
fn wanted(
    method: &Method,
    authority: Option<&str>,
    local: IpAddr,
    lenient: bool,
) -> Result<SocketAddr, Misled> {
    if method != Method::CONNECT {
        return Err(Misled::Method(method.clone()));
    }
    let authority = authority.unwrap_or_default();
    let asked: SocketAddr =
        authority.parse().map_err(|_error| Misled::Address(authority.to_owned()))?;
    if asked.ip() != local && !lenient {
        return Err(Misled::Elsewhere(local, asked.ip()));
    }
    if [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT].contains(&asked.port()) {
        return Err(Misled::Itself);
    }
    Ok(SocketAddr::new(local, asked.port()))
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

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 7));

    fn asked(authority: &str) -> Result<SocketAddr, Misled> {
        wanted(&Method::CONNECT, Some(authority), LOCAL, false)
    }

    #[test]
    fn a_tunnel_leads_to_the_address_that_it_came_to() {
        assert_eq!(asked("10.244.0.7:9000"), Ok((LOCAL, 9000).into()));
        for elsewhere in ["10.244.0.8:9000", "127.0.0.1:9000", "[::1]:9000"] {
            assert!(matches!(asked(elsewhere), Err(Misled::Elsewhere(..))), "{elsewhere}");
        }
    }

    #[test]
    fn a_tunnel_leads_to_no_port_of_the_proxy() {
        for port in [15_001, 15_006, 15_008] {
            assert_eq!(asked(&format!("10.244.0.7:{port}")), Err(Misled::Itself));
        }
    }

    #[test]
    fn what_is_no_address_or_no_connect_is_refused_in_words() {
        for authority in ["ledger:9000", "10.244.0.7", ""] {
            assert_eq!(asked(authority), Err(Misled::Address(authority.to_owned())));
        }
        let got = wanted(&Method::GET, Some("10.244.0.7:9000"), LOCAL, false);
        assert_eq!(got.unwrap_err().to_string(), "expected method CONNECT, got GET");
    }
}
