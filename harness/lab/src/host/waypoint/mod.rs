//! A waypoint: a pod in which a proxy of the mesh speaks for services or workloads, to clients and to servers in tunnels.
//!
//! It is behind the switch like every other pod, so that Cilium's policies are about what it sends and gets; ztunnel does
//! not capture it. It decides nothing: who is behind it, and whether policy lets a request pass, says the mesh. Its manners
//! are those of Envoy as istiod sets it up: a tunnel to a service or a workload behind it is accepted, HTTP is answered or
//! sent on request by request, and of anything else the first bytes are looked at. To servers it speaks with its own identity.
//!
//! Known differences from a real one:
//! - it asks istiod once, by address, and is ready from then on: it needs neither names nor a stream of configuration;
//! - a connection carries one request, after which the client is asked to close it;
//! - it speaks HTTP/1.1 alone: a client with HTTP/2 is answered 505, and no connection is upgraded;
//! - a token that was believed is sent on to the server, asked for or not (`forwardOriginalToken`);
//! - the path that a server gets is as the client wrote it, where a real one has resolved its dots;
//! - a policy that comes is in force for the next request of any connection, where a real one lets connections go on
//!   under the policies that they began with for a while;
//! - its log is written at once.

mod bytes;
mod head;
mod requests;
#[cfg(test)]
mod tests;
mod upstream;

use std::collections::HashMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ::bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{interval, timeout};
use ztc_model::evidence::Evidence;
use ztc_model::policy::mesh::SpiffeId;
use ztc_model::policy::mesh::waypoint::Asked;
use ztc_model::waypoint::{self, CONTROL_PLANE_PORT};
use ztc_model::world::WaypointFor;
use ztc_model::ztunnel::HBONE_PORT;

use self::upstream::{Upstream, UpstreamError};
use super::hbone::{ProxyError, Tls, Tunnel, Tunnelled, accept, answer, listen};
use super::istiod::ControlPlane;
use super::netns::NetNs;
use super::pump::{Plug, Pump, Switch};
use super::runtime_thread::RuntimeThread;
use crate::datapath::Attachment;
use crate::fault::Fault;
use crate::mesh::{Mesh, NamespacedName, Outcome, RequestLog, Target, Workload};

/// What a waypoint is made from.
#[derive(Debug, Clone)]
pub(crate) struct WaypointPlan {
    /// The mesh.
    pub(crate) mesh: Arc<Mesh>,
    /// Its gateway, as whose log its lines are.
    pub(crate) gateway: NamespacedName,
    /// Its pod.
    pub(crate) workload: Arc<Workload>,
    /// What it is asked for.
    pub(crate) serves: WaypointFor,
    /// Who tells it what to do.
    pub(crate) control_plane: ControlPlane,
}

/// A waypoint at work. Dropped, it is gone with all of its connections.
#[derive(Debug)]
pub(crate) struct Waypoint {
    lacks: watch::Receiver<Option<String>>,
    _thread: RuntimeThread,
    proxy: Arc<Proxy>,
    _plug: Plug,
    _netns: NetNs,
}

/// How long it waits for an answer of the control plane before it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// What its tasks share.
#[derive(Debug)]
struct Proxy {
    plan: WaypointPlan,
    switch: Arc<Switch>,
    tls: Tls,
    upstream: Arc<Upstream>,
    /// Those with the identity of a client, where that is what is broken.
    disguised: Mutex<HashMap<SpiffeId, Arc<Upstream>>>,
}

/// A client's connection to a service or a workload.
#[derive(Debug, Clone)]
struct Visit {
    /// Who asks.
    identity: SpiffeId,
    /// From where, by the tunnel.
    client: SocketAddr,
    /// For which address and port.
    asked: SocketAddr,
    /// Which is this.
    target: Target,
    /// Whether it speaks HTTP.
    is_http: bool,
    begun: Instant,
    start_time: Timestamp,
}

impl Waypoint {
    /// Makes it: its network works, and policy holds for it, before it listens on all of its addresses. Blocks for some
    /// milliseconds.
    pub(crate) fn start(
        plan: WaypointPlan,
        attachment: Attachment,
        addresses: &[IpAddr],
        pump: &Pump,
    ) -> Result<Self, ProxyError> {
        let (netns, device) = NetNs::create(addresses)?;
        let plug = pump.attach(attachment, device)?;
        let thread = RuntimeThread::start(&format!("waypoint {}", plan.gateway), Some(&netns))?;
        let identity = plan.workload.identity();
        let proxy = Arc::new(Proxy {
            switch: Arc::clone(pump.switch()),
            tls: Tls::of(&plan.mesh, &identity)?,
            upstream: Arc::new(Upstream::new(Tls::of(&plan.mesh, &identity)?)),
            disguised: Mutex::default(),
            plan,
        });
        let (lack, lacks) = watch::channel(Some("it has asked nobody yet".to_owned()));
        for address in addresses {
            let address = SocketAddr::new(*address, HBONE_PORT);
            let listener = listen(thread.handle(), &netns, address)?;
            thread.handle().spawn(Arc::clone(&proxy).accept_tunnels(listener));
        }
        thread.handle().spawn(Arc::clone(&proxy).get_ready(addresses.to_vec(), lack));
        Ok(Self { lacks, _thread: thread, proxy, _plug: plug, _netns: netns })
    }

    /// Why it is not ready, if it is not.
    pub(crate) fn lacks(&self) -> Option<String> {
        self.lacks.borrow().clone()
    }

    /// Has it open new tunnels and connections to servers from now on, as if it had carried nothing yet.
    pub(crate) fn forget(&self) {
        self.proxy.upstream.forget();
        // Whoever speaks for a client keeps tunnels with that client's identity.
        self.proxy.disguised.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        let mut lacks = self.lacks.clone();
        // A task that has ended without having got ready has panicked, and its lane says so in the end.
        if lacks.wait_for(Option::is_none).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Proxy {
    /// Asks the control plane until that answers. From then on the mesh sends to the waypoint, and it stays ready.
    async fn get_ready(
        self: Arc<Self>,
        addresses: Vec<IpAddr>,
        lack: watch::Sender<Option<String>>,
    ) {
        let WaypointPlan { mesh, gateway, workload, serves, control_plane } = &self.plan;
        let (name, mut again) = (gateway.to_string(), interval(ASK_AGAIN));
        while !mesh.faults.has(Fault::WaypointReadyWithoutControlPlane) {
            again.tick().await;
            let asked = timeout(ASK_AGAIN, control_plane.ask(&self.tls, &name));
            match asked.await.unwrap_or_else(|late| Err(late.into())) {
                Ok(()) => break,
                Err(error) => {
                    let why =
                        format!("istiod does not answer on port {CONTROL_PLANE_PORT}: {error}");
                    lack.send_replace(Some(why));
                }
            }
        }
        mesh.add_waypoint(gateway.clone(), &addresses, workload, *serves);
        lack.send_replace(None);
    }

    async fn accept_tunnels(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    tokio::spawn(Arc::clone(&self).serve_tunnel(stream, peer));
                }
                Err(error) => self.interrupt("accept a connection", &error),
            }
        }
    }

    /// Serves a tunnel: all connections in it, until its peer leaves.
    async fn serve_tunnel(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let believed = || self.plan.mesh.workload(peer.ip()).map(|it| it.identity());
        // A waypoint says nothing of a tunnel that did not come about, and its peer has a connection to tell of.
        let Ok(Tunnel { identity, mut connections }) = accept(&self.tls, stream, believed).await
        else {
            return;
        };
        while let Some(Ok((request, respond))) = connections.accept().await {
            tokio::spawn(Arc::clone(&self).serve_connect(identity.clone(), peer, request, respond));
        }
    }

    /// Serves one connection of a tunnel: to a service or a workload behind it, or to nobody.
    async fn serve_connect(
        self: Arc<Self>,
        identity: SpiffeId,
        client: SocketAddr,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let (begun, start_time) = (Instant::now(), Timestamp::now());
        let authority = request.uri().authority().map(Authority::as_str);
        let asked = authority.and_then(|it| it.parse::<SocketAddr>().ok());
        let (Some(asked), &Method::CONNECT) = (asked, request.method()) else {
            return answer(&mut respond, StatusCode::BAD_REQUEST);
        };
        let Some(target) = self.plan.mesh.behind(&self.plan.gateway, asked) else {
            return answer(&mut respond, StatusCode::NOT_FOUND);
        };
        // A peer that has gone needs no answer.
        let Ok(sends) = respond.send_response(Response::new(()), false) else { return };
        let mut stream = Tunnelled::new(sends, request.into_body(), None);
        if self.plan.mesh.faults.has(Fault::WaypointHangs) {
            // The client's side stays open with it.
            return std::future::pending().await;
        }
        let is_http = match target.service() {
            Some(service) => service.is_http,
            // Nothing says what a workload speaks, so what comes first does.
            None => begins_a_request(stream.first().await),
        };
        let visit = Visit { identity, client, asked, target, is_http, begun, start_time };
        if visit.is_http {
            self.serve_requests(visit, stream).await;
        } else {
            self.serve_bytes(visit, stream).await;
        }
    }

    /// Who speaks to servers for a client: the waypoint.
    fn upstream_for(&self, client: &SpiffeId) -> Result<Arc<Upstream>, UpstreamError> {
        if !self.plan.mesh.faults.has(Fault::WaypointForwardsClientIdentity) {
            return Ok(Arc::clone(&self.upstream));
        }
        // It is whole whenever the lock is free.
        let mut disguised = self.disguised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = disguised.get(client) {
            return Ok(Arc::clone(known));
        }
        let failed = |error| UpstreamError::Certificate(Box::new(error));
        let tls = Tls::of(&self.plan.mesh, client).map_err(failed)?;
        let made = Arc::new(Upstream::that_keeps_none(tls));
        disguised.insert(client.clone(), Arc::clone(&made));
        Ok(made)
    }

    /// Writes the line of a request or a connection that is over.
    fn log(&self, visit: &Visit, log: &RequestLog, outcome: Outcome) {
        self.say(log.line(&Outcome { after: visit.begun.elapsed(), ..outcome }));
    }

    /// Writes the line of a tunnel to a server that did not come about.
    fn log_failure(&self, log: &RequestLog, error: &UpstreamError, after: Duration) {
        if let UpstreamError::Tunnel { server, tunnel, source } = error {
            let status = source.status();
            self.say(log.tunnel_line(*server, *tunnel, after, status));
        }
    }

    fn say(&self, line: Result<String, serde_json::Error>) {
        match line.and_then(|line| waypoint::read(&line)) {
            Ok(Some(line)) => {
                if !self.plan.mesh.faults.has(Fault::LoseFlowRecords) {
                    let name = self.plan.gateway.to_string();
                    self.switch.say(Evidence::from_waypoint(&Arc::new(line), &name));
                }
            }
            Ok(None) => {}
            Err(error) => self.interrupt("write its log", &error),
        }
    }

    fn interrupt(&self, operation: &str, error: &dyn Error) {
        let gateway = &self.plan.gateway;
        self.switch.interrupt(format!("waypoint {gateway} cannot {operation}: {error}"));
    }
}

impl Visit {
    /// What policy is asked about it, request or not.
    fn asked(&self, request: Option<ztc_model::policy::mesh::waypoint::Request>) -> Asked {
        Asked {
            peer: Some(self.identity.clone()),
            source: self.client.ip(),
            destination: self.asked,
            request,
        }
    }

    /// The beginning of its line.
    fn log(&self) -> RequestLog {
        RequestLog {
            start_time: self.start_time,
            client: self.client,
            asked: self.asked,
            service: self.target.service().map(|it| it.hostname.clone()),
            is_http: self.is_http,
            authority: None,
            method: None,
            path: None,
            request_id: None,
            user_agent: None,
        }
    }
}

/// Whether a connection begins as a request of HTTP/1 does (`http_inspector` of Envoy, which waits for more where this says no).
fn begins_a_request(first: &[u8]) -> bool {
    const METHODS: [Method; 9] = [
        Method::CONNECT,
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
        Method::TRACE,
    ];
    let method = first.split(|byte| *byte == b' ').next().unwrap_or_default();
    METHODS.iter().any(|it| it.as_str().as_bytes() == method)
}

/// The time, in seconds since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs())
}
