//! The datapath's side of the DNS proxy of a node.
//!
//! Follows `pkg/proxy` and `pkg/fqdn/dnsproxy` in transparent mode: queries that policy wants
//! inspected go to the proxy on the client's node. What the proxy sends on leaves with the
//! client's address, so the server sees the client, and the policy of the server's ingress is
//! asked about it. The proxy itself, its sockets and messages, is not for this room to know.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use ztc_model::evidence::{Direction, FlowKey};
use ztc_model::hubble::{FlowVerdict, Line};
use ztc_model::policy::{Decision, Protocol};

use crate::fault::Fault;

use super::aging::Aging;
use super::config::{NodeId, Now, PortId};
use super::names::Lesson;
use super::packet::reversed;
use super::record::query_flow;
use super::switch::Datapath;

/// The most clients and sockets of proxies remembered.
const CAPACITY: usize = 1 << 14;
/// How long a client is remembered without a packet of its own: as long as a connection that is
/// no TCP is.
const IDLE: Duration = Duration::from_mins(1);
/// How long a socket of a proxy is remembered whose end nobody tells.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// How long a socket of a proxy is remembered after it was closed: its last packets still have to
/// leave with the client's address (`dnsproxy-socket-linger-timeout`).
const LINGER: Duration = Duration::from_secs(10);

/// A client whose packets go to the proxy of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// The protocol.
    pub(crate) protocol: Protocol,
    /// The client's port.
    pub(crate) endpoint: PortId,
    /// The client's address and port.
    pub(crate) client: SocketAddr,
    /// The server, after translation of services.
    pub(crate) server: SocketAddr,
    /// The node.
    pub(crate) node: NodeId,
}

/// What becomes of a query.
#[derive(Debug, Clone)]
pub(crate) struct QueryVerdict {
    /// Whether the proxy is to send it on. If not it answers REFUSED.
    pub(crate) allowed: bool,
    /// The record of it, unless records are lost on purpose.
    pub(crate) flow: Option<Line>,
}

/// What is known of clients and sockets of the proxies of all nodes.
#[derive(Debug)]
pub(super) struct Proxies {
    redirects: Aging<(Protocol, SocketAddr), Redirected>,
    /// The client's address by the socket of the proxy, and what the proxy sends to.
    sockets: Aging<(Protocol, SocketAddr), Upstream>,
    /// The socket of the proxy by the flow that the server sees.
    wires: Aging<FlowKey, SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Redirected {
    redirect: Redirect,
    /// Whom the client believes to talk to.
    asked: SocketAddr,
}

#[derive(Debug, Clone, Copy)]
struct Upstream {
    client: IpAddr,
    wire: FlowKey,
}

impl Proxies {
    pub(super) fn new() -> Self {
        Self {
            redirects: Aging::new(CAPACITY),
            sockets: Aging::new(CAPACITY),
            wires: Aging::new(CAPACITY),
        }
    }

    /// Remembers that a client's packets go to the proxy.
    pub(super) fn redirect(&mut self, redirect: Redirect, asked: SocketAddr, now: Instant) {
        let key = (redirect.protocol, redirect.client);
        self.redirects.insert(key, Redirected { redirect, asked }, now, IDLE);
    }

    /// Who a client believes that the proxy's packets to it come from.
    pub(super) fn asked(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        self.redirects.get(&(protocol, client), now).map(|it| it.asked)
    }

    /// Whose address a packet from a socket of the proxy has to leave with.
    pub(super) fn client_of(
        &self,
        protocol: Protocol,
        socket: SocketAddr,
        now: Instant,
    ) -> Option<IpAddr> {
        self.sockets.get(&(protocol, socket), now).map(|upstream| upstream.client)
    }

    /// The socket of the proxy that a packet to a client's address is really for.
    pub(super) fn socket_for(&self, flow: FlowKey, now: Instant) -> Option<SocketAddr> {
        self.wires.get(&reversed(flow), now).copied()
    }

    fn begin(&mut self, redirect: &Redirect, socket: SocketAddr, now: Instant) {
        let client = redirect.client.ip();
        let source = SocketAddr::new(client, socket.port());
        let wire = query_flow(redirect.protocol, source, redirect.server);
        let upstream = Upstream { client, wire };
        self.sockets.insert((redirect.protocol, socket), upstream, now, FORGOTTEN);
        self.wires.insert(wire, socket, now, FORGOTTEN);
    }

    fn end(&mut self, protocol: Protocol, socket: SocketAddr, now: Instant) {
        let Some(upstream) = self.sockets.get_mut(&(protocol, socket), now) else {
            return;
        };
        upstream.expires = now + LINGER;
        if let Some(wire) = self.wires.get_mut(&upstream.value.wire, now) {
            wire.expires = now + LINGER;
        }
    }
}

impl Datapath {
    /// What the peer of a socket of the proxy really wants, by its address as the proxy sees it.
    pub(crate) fn redirected(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        now: Now,
    ) -> Option<Redirect> {
        let known = self.proxies.redirects.get(&(protocol, client), now.monotonic);
        known.map(|it| it.redirect)
    }

    /// Lets packets of a socket of the proxy leave with the client's address and the socket's own
    /// port, as the client's; what comes back goes to the socket. `local` is the node's address
    /// and the socket's port. To be called before the socket sends.
    pub(crate) fn begin_upstream(&mut self, redirect: &Redirect, local: SocketAddr, now: Now) {
        self.proxies.begin(redirect, local, now.monotonic);
    }

    /// Says that a socket of the proxy is closed. Its last packets are still taken care of.
    pub(crate) fn end_upstream(&mut self, protocol: Protocol, local: SocketAddr, now: Now) {
        self.proxies.end(protocol, local, now.monotonic);
    }

    /// Decides about a query that a redirected client sent, by the policy of this moment.
    pub(crate) fn judge_query(
        &self,
        redirect: &Redirect,
        name: &str,
        qtypes: &[String],
        now: Now,
    ) -> QueryVerdict {
        let permitted = self.permits(redirect, name) || self.sabotage.is_late(now.monotonic);
        let verdict = if permitted { FlowVerdict::Forwarded } else { FlowVerdict::Dropped };
        let flow = query_flow(redirect.protocol, redirect.client, redirect.server);
        let record = self.recorder(now).dns_query(redirect.node, flow, name, qtypes, verdict);
        QueryVerdict {
            allowed: permitted || self.sabotage.faults.has(Fault::AllowEverything),
            flow: self.unless_lost(record, now),
        }
    }

    /// Learns from an answer that the proxy is about to send to a redirected client: what it says
    /// is enforced when this returns, so the client cannot be too early. Returns its record.
    pub(crate) fn answer_seen(
        &mut self,
        redirect: &Redirect,
        answer: &Message,
        now: Now,
    ) -> Option<Line> {
        let is_there = !self.agents_are_away(now.monotonic);
        if let Some(lesson) = Lesson::of(answer).filter(|_| is_there) {
            self.learn(redirect.node, &lesson, now.monotonic);
        }
        let flow = query_flow(redirect.protocol, redirect.client, redirect.server);
        let record = self.recorder(now).dns_answer(redirect.node, reversed(flow), answer);
        self.unless_lost(record, now)
    }

    /// Learns, on purpose, from a datagram that no proxy has seen, if it is an answer.
    pub(super) fn learn_unasked(&mut self, node: NodeId, datagram: &[u8], now: Now) {
        let answer = Message::from_vec(datagram).ok();
        if let Some(lesson) = answer.as_ref().and_then(Lesson::of) {
            self.learn(node, &lesson, now.monotonic);
        }
    }

    fn learn(&mut self, node: NodeId, lesson: &Lesson, now: Instant) {
        if self.repository.learn(node, lesson, now) {
            self.repository.regenerate(&mut self.endpoints);
        }
    }

    fn permits(&self, redirect: &Redirect, name: &str) -> bool {
        let Some(endpoint) = self.endpoints.get(redirect.endpoint) else {
            return false;
        };
        let peer = self.peer(redirect.server.ip(), redirect.node);
        let policy = endpoint.enforced.at(Direction::Egress);
        match &policy.lookup(peer, redirect.protocol, redirect.server.port()).decision {
            Decision::Allowed { .. } => true,
            Decision::Inspected { dns, .. } => dns.iter().any(|rule| rule.matches(name)),
            Decision::Denied { .. } | Decision::NotAllowed => false,
        }
    }

    fn unless_lost(&self, record: Line, now: Now) -> Option<Line> {
        let is_lost = self.nobody_records(now.monotonic);
        (!is_lost).then_some(record)
    }
}
