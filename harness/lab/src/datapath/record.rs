//! Flow records, in the form that Hubble gives them.
//!
//! The shapes are those of the recorded `facts/cilium/*.jsonl`. A packet that is let through has
//! no record of its own, only the decision about its connection has.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use jiff::Timestamp;
use ztc_model::evidence::{Direction, FlowKey};
use ztc_model::hubble::{
    Addresses, Dns, EVENT_DROP, EVENT_L7, EVENT_POLICY_VERDICT, Endpoint, EventType, Flow,
    FlowKind, FlowVerdict, Icmp, L4, L7, L7Kind, Line, NamedPolicy, POLICY_DENIED, POLICY_DENY,
    Tcp, TcpFlags, TrafficDirection, Udp,
};
use ztc_model::labels::DEFAULT_CLUSTER;
use ztc_model::policy::{Decision, PolicyRef, Protocol};

use super::config::{NodeConfig, NodeId};
use super::endpoints::Endpoints;
use super::packet::{Content, IcmpMessage, Packet};
use super::policy_map::Entry;
use super::repository::Repository;
use crate::fault::WRONG_NAME;

/// The lifetime in the record of an answer without addresses, as Cilium writes it.
const NO_TTL: u32 = u32::MAX;

/// Why a packet was dropped (`api/v1/flow/flow.proto`, `DropReason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropReason {
    /// A pod sent from an address that is not its own.
    InvalidSourceIp,
    /// No rule allows it.
    PolicyDenied,
    /// Its version of IP is not spoken.
    UnsupportedL3Protocol,
    /// Its transport is not spoken.
    UnknownL4Protocol,
    /// It is a part of a packet.
    Fragment,
    /// It is for a service that nobody is behind.
    ServiceBackendNotFound,
    /// A deny rule matches it.
    PolicyDeny,
}

impl DropReason {
    fn number(self) -> u32 {
        match self {
            Self::InvalidSourceIp => 132,
            Self::PolicyDenied => POLICY_DENIED,
            Self::UnsupportedL3Protocol => 139,
            Self::UnknownL4Protocol => 142,
            Self::Fragment => 157,
            Self::ServiceBackendNotFound => 158,
            Self::PolicyDeny => POLICY_DENY,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::InvalidSourceIp => "INVALID_SOURCE_IP",
            Self::PolicyDenied => "POLICY_DENIED",
            Self::UnsupportedL3Protocol => "UNSUPPORTED_L3_PROTOCOL",
            Self::UnknownL4Protocol => "UNKNOWN_L4_PROTOCOL",
            Self::Fragment => "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND",
            Self::ServiceBackendNotFound => "SERVICE_BACKEND_NOT_FOUND",
            Self::PolicyDeny => "POLICY_DENY",
        }
    }

    /// Why a decision drops, if it does.
    pub(super) fn of(decision: &Decision) -> Option<Self> {
        match decision {
            Decision::Allowed { .. } | Decision::Inspected { .. } => None,
            Decision::Denied { .. } => Some(Self::PolicyDeny),
            Decision::NotAllowed => Some(Self::PolicyDenied),
        }
    }
}

/// What there is to know for whoever writes a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recorder<'a> {
    pub(super) nodes: &'a [NodeConfig],
    pub(super) repository: &'a Repository,
    pub(super) endpoints: &'a Endpoints,
    /// Whether to name another policy than the right one.
    pub(super) wrong_policy_name: bool,
    pub(super) now: SystemTime,
}

impl Recorder<'_> {
    /// A packet that was dropped at a hook on a node.
    pub(super) fn dropped(
        &self,
        node: NodeId,
        hook: Direction,
        packet: &Packet,
        reason: DropReason,
    ) -> Line {
        let mut line = self.packet(node, hook, packet);
        drop_flow(&mut line.flow, reason);
        line
    }

    /// A packet that was dropped on a node though only its addresses could be read.
    pub(super) fn unreadable(
        &self,
        node: NodeId,
        (source, destination): (IpAddr, IpAddr),
        reason: DropReason,
    ) -> Line {
        let mut line = self.line(node, Direction::Egress, FlowKind::L3L4, source, destination);
        line.flow.summary = Addresses::new(source, destination).ip_version;
        drop_flow(&mut line.flow, reason);
        line
    }

    /// What policy decided about a packet at a hook on a node.
    pub(super) fn policy_verdict(
        &self,
        node: NodeId,
        hook: Direction,
        packet: &Packet,
        entry: &Entry,
        revision: u64,
    ) -> Line {
        let mut line = self.packet(node, hook, packet);
        let flow = &mut line.flow;
        flow.event_type = Some(EventType { kind: EVENT_POLICY_VERDICT, sub_type: None });
        flow.policy_match_type = entry.match_type;
        let named =
            |by: &[PolicyRef]| by.iter().map(|policy| self.named(policy, revision)).collect();
        match &entry.decision {
            Decision::Allowed { by } | Decision::Inspected { by, .. } => {
                flow.verdict = match entry.decision {
                    Decision::Inspected { .. } => FlowVerdict::Redirected,
                    _ => FlowVerdict::Forwarded,
                };
                flow.is_reply = Some(false);
                *allowed_by(flow, hook) = named(by);
            }
            Decision::Denied { by } => *denied_by(flow, hook) = named(by),
            // The record of a default-deny names no policy.
            Decision::NotAllowed => {}
        }
        if let Some(reason) = DropReason::of(&entry.decision) {
            flow.verdict = FlowVerdict::Dropped;
            flow.drop_reason = Some(reason.number());
            flow.drop_reason_desc = Some(reason.name().to_owned());
        }
        line
    }

    /// A query that the DNS proxy let pass or refused.
    pub(super) fn dns_query(
        &self,
        node: NodeId,
        flow: FlowKey,
        name: &str,
        qtypes: &[String],
        verdict: FlowVerdict,
    ) -> Line {
        let mut line = self.message(
            node,
            flow,
            L7Kind::Request,
            Dns { query: absolute(name), qtypes: qtypes.to_vec(), ..Dns::default() },
        );
        line.flow.verdict = verdict;
        line.flow.is_reply = Some(false);
        line.flow.summary = format!("DNS Query {} {}", absolute(name), qtypes.join(","));
        line
    }

    /// An answer that the DNS proxy let pass; `flow` goes from the server to the client.
    pub(super) fn dns_answer(&self, node: NodeId, flow: FlowKey, answer: &Message) -> Line {
        let dns = read_answer(answer);
        let summary = summarise_answer(&dns, answer.metadata.response_code);
        let mut line = self.message(node, flow, L7Kind::Response, dns);
        line.flow.verdict = FlowVerdict::Forwarded;
        line.flow.is_reply = Some(true);
        line.flow.summary = summary;
        line
    }

    fn packet(&self, node: NodeId, hook: Direction, packet: &Packet) -> Line {
        let FlowKey { protocol, source, destination } = packet.flow();
        let mut line = self.line(node, hook, FlowKind::L3L4, source.ip(), destination.ip());
        line.flow.l4 = Some(layer_4(packet));
        line.flow.summary = match (packet.content(), protocol) {
            (Content::Tcp(flags), _) => format!("TCP Flags: {}", flag_names(flags)),
            (Content::Udp, _) => protocol.to_string(),
            (Content::Icmp(IcmpMessage { icmp, .. }), Protocol::Icmpv6) => {
                format!("ICMPv6 {}", icmpv6_name(icmp))
            }
            (Content::Icmp(IcmpMessage { icmp, .. }), _) => format!("ICMPv4 {}", icmpv4_name(icmp)),
        };
        line
    }

    fn message(&self, node: NodeId, flow: FlowKey, kind: L7Kind, dns: Dns) -> Line {
        let (source, destination) = (flow.source.ip(), flow.destination.ip());
        let mut line = self.line(node, Direction::Egress, FlowKind::L7, source, destination);
        line.flow.l4 = Some(ports(flow, None));
        line.flow.event_type = Some(EventType { kind: EVENT_L7, sub_type: None });
        let dns = Dns { observation_source: "proxy".to_owned(), ..dns };
        line.flow.l7 = Some(L7 { kind, dns: Some(dns) });
        line
    }

    fn line(
        &self,
        node: NodeId,
        hook: Direction,
        kind: FlowKind,
        source: IpAddr,
        destination: IpAddr,
    ) -> Line {
        let node_name = self.nodes[node.0].name.clone();
        let time = rfc3339(self.now);
        let flow = Flow {
            time: time.clone(),
            ip: Some(Addresses::new(source, destination)),
            source: Some(self.end(source, node)),
            destination: Some(self.end(destination, node)),
            kind,
            node_name: node_name.clone(),
            traffic_direction: Some(match hook {
                Direction::Ingress => TrafficDirection::Ingress,
                Direction::Egress => TrafficDirection::Egress,
            }),
            ..Flow::default()
        };
        Line { flow, node_name, time }
    }

    /// An end of a flow as a node knows it: endpoints have numbers on their own node alone.
    fn end(&self, address: IpAddr, seen_from: NodeId) -> Endpoint {
        let identity = self.repository.identity(address, seen_from);
        let end = Endpoint {
            identity: Some(identity),
            labels: self.repository.labels(identity),
            ..Endpoint::default()
        };
        match self.endpoints.at(address) {
            Some((_, endpoint)) => Endpoint {
                id: (endpoint.node == seen_from).then_some(endpoint.id),
                cluster_name: DEFAULT_CLUSTER.to_owned(),
                namespace: endpoint.reference.namespace.clone(),
                pod_name: endpoint.reference.name.clone(),
                ..end
            },
            None => end,
        }
    }

    fn named(&self, policy: &PolicyRef, revision: u64) -> NamedPolicy {
        if self.wrong_policy_name {
            let wrong = PolicyRef { name: WRONG_NAME.to_owned(), ..policy.clone() };
            return NamedPolicy::new(&wrong, revision);
        }
        NamedPolicy::new(policy, revision)
    }
}

fn drop_flow(flow: &mut Flow, reason: DropReason) {
    flow.verdict = FlowVerdict::Dropped;
    flow.drop_reason = Some(reason.number());
    flow.drop_reason_desc = Some(reason.name().to_owned());
    flow.event_type = Some(EventType { kind: EVENT_DROP, sub_type: Some(reason.number()) });
}

fn allowed_by(flow: &mut Flow, hook: Direction) -> &mut Vec<NamedPolicy> {
    match hook {
        Direction::Ingress => &mut flow.ingress_allowed_by,
        Direction::Egress => &mut flow.egress_allowed_by,
    }
}

fn denied_by(flow: &mut Flow, hook: Direction) -> &mut Vec<NamedPolicy> {
    match hook {
        Direction::Ingress => &mut flow.ingress_denied_by,
        Direction::Egress => &mut flow.egress_denied_by,
    }
}

fn layer_4(packet: &Packet) -> L4 {
    match (packet.content(), packet.flow().protocol) {
        (Content::Tcp(flags), _) => ports(packet.flow(), Some(flags)),
        (Content::Udp, _) => ports(packet.flow(), None),
        (Content::Icmp(IcmpMessage { icmp, .. }), Protocol::Icmpv6) => {
            L4 { icmpv6: Some(icmp), ..L4::default() }
        }
        (Content::Icmp(IcmpMessage { icmp, .. }), _) => L4 { icmpv4: Some(icmp), ..L4::default() },
    }
}

/// The ports of a message of DNS or of a packet that has some.
fn ports(flow: FlowKey, flags: Option<TcpFlags>) -> L4 {
    let (source_port, destination_port) = (flow.source.port(), flow.destination.port());
    match flow.protocol {
        Protocol::Tcp => {
            L4 { tcp: Some(Tcp { source_port, destination_port, flags }), ..L4::default() }
        }
        _ => L4 { udp: Some(Udp { source_port, destination_port }), ..L4::default() },
    }
}

/// As `ICMPv4TypeCode.String` of `gopacket` says them, which Hubble's summary quotes.
fn icmpv4_name(icmp: Icmp) -> String {
    match icmp.kind {
        0 => "EchoReply".to_owned(),
        8 => "EchoRequest".to_owned(),
        kind => format!("{kind}({})", icmp.code),
    }
}

/// The same of `ICMPv6TypeCode`.
fn icmpv6_name(icmp: Icmp) -> String {
    match icmp.kind {
        128 => "EchoRequest".to_owned(),
        129 => "EchoReply".to_owned(),
        kind => format!("{kind}({})", icmp.code),
    }
}

/// In the order of `pkg/hubble/parser/threefour`.
fn flag_names(flags: TcpFlags) -> String {
    let names = [
        (flags.syn, "SYN"),
        (flags.ack, "ACK"),
        (flags.rst, "RST"),
        (flags.fin, "FIN"),
        (flags.psh, "PSH"),
    ];
    let set: Vec<&str> = names.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
    set.join(", ")
}

fn read_answer(answer: &Message) -> Dns {
    let rcode = u32::from(u16::from(answer.metadata.response_code));
    let cnames = answer.answers.iter().filter(|it| it.record_type() == RecordType::CNAME);
    Dns {
        query: answer.queries.first().map(|it| it.name().to_ascii()).unwrap_or_default(),
        ips: answer.answers.iter().filter_map(|it| it.data.ip_addr()).collect(),
        ttl: Some(answer.answers.iter().map(|it| it.ttl).min().unwrap_or(NO_TTL)),
        cnames: cnames.map(|it| it.data.to_string()).collect(),
        rcode: (rcode != 0).then_some(rcode),
        qtypes: answer.queries.iter().map(|it| it.query_type().to_string()).collect(),
        rrtypes: answer.answers.iter().map(|it| it.record_type().to_string()).collect(),
        observation_source: String::new(),
    }
}

fn summarise_answer(dns: &Dns, rcode: ResponseCode) -> String {
    let ips: Vec<String> = dns.ips.iter().map(IpAddr::to_string).collect();
    let what = match (rcode, ips.is_empty()) {
        (ResponseCode::NoError, true) => String::new(),
        (ResponseCode::NoError, false) => format!("\"{}\"", ips.join(",")),
        _ => format!("RCode: {rcode}"),
    };
    let ttl = dns.ttl.unwrap_or(NO_TTL);
    format!("DNS Answer {what} TTL: {ttl} (Proxy {} {})", dns.query, dns.qtypes.join(","))
}

fn absolute(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

fn rfc3339(time: SystemTime) -> String {
    // The clock of a machine is between the years -9999 and 9999.
    let time = Timestamp::try_from(time).unwrap_or_default();
    format!("{time:.9}")
}

/// The flow of a DNS query as its client meant it, after translation of services.
pub(super) fn query_flow(protocol: Protocol, client: SocketAddr, server: SocketAddr) -> FlowKey {
    FlowKey { protocol, source: client, destination: server }
}
