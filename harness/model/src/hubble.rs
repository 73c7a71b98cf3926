//! Hubble's records of flows, one JSON object a line.
//!
//! The shape is that of `hubble observe -o jsonpb` (`api/v1/flow/flow.proto` of Cilium, zero values
//! left out). The lab writes these lines and observers of real clusters read them; what a record
//! proves is not for this room to know. Fields that are not listed are skipped when read: real
//! clusters add some with every version.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::policy::{PolicyKind, PolicyRef, Protocol};

/// `drop_reason` of a flow that no rule allows.
pub const POLICY_DENIED: u32 = 133;
/// `drop_reason` of a flow that a deny rule matches.
pub const POLICY_DENY: u32 = 181;

/// `event_type.type` of a dropped packet; `sub_type` repeats the reason.
pub const EVENT_DROP: u32 = 1;
/// `event_type.type` of a packet that was let through.
pub const EVENT_TRACE: u32 = 4;
/// `event_type.type` of a decision about a new connection.
pub const EVENT_POLICY_VERDICT: u32 = 5;
/// `event_type.type` of a record of a proxy.
pub const EVENT_L7: u32 = 129;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A flow.
    Flow(Box<Line>),
    /// That this many flows are missing: what is not on record may have happened all the same.
    Lost(u64),
    /// Something about nodes or the agent.
    Other,
}

/// A flow with where and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The flow.
    pub flow: Flow,
    /// The node that reports it.
    pub node_name: String,
    /// When, in RFC 3339 with nanoseconds.
    pub time: String,
}

/// A line before its contents are told apart.
#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    flow: Option<Flow>,
    #[serde(default)]
    lost_events: Option<LostEvents>,
    #[serde(default)]
    node_name: String,
    #[serde(default)]
    time: String,
}

#[derive(Deserialize)]
struct LostEvents {
    /// Numbers of 64 bits are texts in this form of JSON.
    #[serde(default)]
    num_events_lost: String,
}

/// Reads a line.
///
/// Lost records without a number count as one.
pub fn read(line: &str) -> Result<Record, serde_json::Error> {
    let Response { flow, lost_events, node_name, time } = serde_json::from_str(line)?;
    Ok(match (flow, lost_events) {
        (Some(flow), _) => Record::Flow(Box::new(Line { flow, node_name, time })),
        (None, Some(lost)) => Record::Lost(lost.num_events_lost.parse().unwrap_or(1)),
        (None, None) => Record::Other,
    })
}

/// A packet, a decision about a connection, or a message that a proxy saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// When, in RFC 3339 with nanoseconds.
    pub time: String,
    /// What became of it.
    pub verdict: FlowVerdict,
    /// Why it was dropped, such as [`POLICY_DENIED`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<u32>,
    /// Its addresses.
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<Addresses>,
    /// Its ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4: Option<L4>,
    /// Who sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Endpoint>,
    /// Whom it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Endpoint>,
    /// Whether a packet or a message was seen.
    #[serde(rename = "Type")]
    pub kind: FlowKind,
    /// The node that reports it.
    pub node_name: String,
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l7: Option<L7>,
    /// What kind of record this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// The side of the reporting endpoint, not of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_direction: Option<TrafficDirection>,
    /// In a policy verdict: what kind of entry matched, 1 for a peer on all ports, 2 for a peer on
    /// one port, 3 for one port of all peers, 4 for everything; absent where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_match_type: Option<u32>,
    /// Whether it goes back to who opened the connection; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_reply: Option<bool>,
    /// The name of the reason why it was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_reason_desc: Option<String>,
    /// One line about it.
    #[serde(rename = "Summary", skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// The policies whose rule let it out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allowed_by: Vec<NamedPolicy>,
    /// The policies whose rule let it in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_allowed_by: Vec<NamedPolicy>,
    /// The policies whose deny rule kept it in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_denied_by: Vec<NamedPolicy>,
    /// The policies whose deny rule kept it out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_denied_by: Vec<NamedPolicy>,
}

impl Flow {
    /// The policies it names as having denied it.
    pub fn denied_by(&self) -> impl Iterator<Item = &NamedPolicy> {
        self.egress_denied_by.iter().chain(&self.ingress_denied_by)
    }

    /// The policies it names as having allowed it.
    pub fn allowed_by(&self) -> impl Iterator<Item = &NamedPolicy> {
        self.egress_allowed_by.iter().chain(&self.ingress_allowed_by)
    }
}

/// What became of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FlowVerdict {
    /// It went on.
    Forwarded,
    /// It was dropped.
    Dropped,
    /// It could not be processed.
    Error,
    /// It would have been dropped, were policies not in audit mode.
    Audit,
    /// It went to a proxy.
    Redirected,
    /// It was seen on its way.
    Traced,
    /// Its addresses were translated.
    Translated,
    /// Not said, or something newer than this list.
    #[default]
    #[serde(other)]
    VerdictUnknown,
}

/// What was seen of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FlowKind {
    /// A packet.
    #[serde(rename = "L3_L4")]
    L3L4,
    /// A message.
    L7,
    /// Not said, or something newer than this list.
    #[default]
    #[serde(rename = "UNKNOWN_TYPE", other)]
    Unknown,
}

/// The side of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TrafficDirection {
    /// Into it.
    Ingress,
    /// Out of it.
    Egress,
    /// Not known.
    #[serde(other)]
    TrafficDirectionUnknown,
}

/// The addresses of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The sender's.
    pub source: IpAddr,
    /// The receiver's.
    pub destination: IpAddr,
    /// `IPv4` or `IPv6`.
    #[serde(rename = "ipVersion")]
    pub ip_version: String,
}

impl Addresses {
    /// The addresses of a packet, both of the sender's version.
    pub fn new(source: IpAddr, destination: IpAddr) -> Self {
        let ip_version = if source.is_ipv4() { "IPv4" } else { "IPv6" };
        Self { source, destination, ip_version: ip_version.to_owned() }
    }
}

/// The ports of a packet, or its kind, of one protocol; none for those that have neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct L4 {
    /// Of TCP.
    #[serde(rename = "TCP", default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// Of UDP.
    #[serde(rename = "UDP", default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<Udp>,
    /// Of ICMP.
    #[serde(rename = "ICMPv4", default, skip_serializing_if = "Option::is_none")]
    pub icmpv4: Option<Icmp>,
    /// Of `ICMPv6`.
    #[serde(rename = "ICMPv6", default, skip_serializing_if = "Option::is_none")]
    pub icmpv6: Option<Icmp>,
}

impl L4 {
    /// The protocol, the source port and the destination port. An ICMP echo request has ports 0:
    /// Hubble leaves out its identifier (`decodeICMPv4` in `pkg/hubble/parser/threefour`). Other
    /// ICMP messages open no flow, and have none.
    pub fn ports(&self) -> Option<(Protocol, u16, u16)> {
        let tcp = self.tcp.as_ref().map(|it| (Protocol::Tcp, it.source_port, it.destination_port));
        let udp = self.udp.as_ref().map(|it| (Protocol::Udp, it.source_port, it.destination_port));
        let echo = |icmp: Option<&Icmp>, protocol, request| {
            icmp.filter(|it| it.kind == request).map(|_| (protocol, 0, 0))
        };
        tcp.or(udp)
            .or_else(|| echo(self.icmpv4.as_ref(), Protocol::Icmp, ICMPV4_ECHO))
            .or_else(|| echo(self.icmpv6.as_ref(), Protocol::Icmpv6, ICMPV6_ECHO))
    }
}

/// The type of an echo request of ICMP (RFC 792).
pub const ICMPV4_ECHO: u8 = 8;
/// The type of an echo request of `ICMPv6` (RFC 4443).
pub const ICMPV6_ECHO: u8 = 128;

/// The kind of an ICMP message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Icmp {
    /// Its type; 0, an echo reply of ICMP, is left out.
    #[serde(rename = "type", skip_serializing_if = "is_zero")]
    pub kind: u8,
    /// Its code.
    #[serde(skip_serializing_if = "is_zero")]
    pub code: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// The ports and flags of a TCP segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tcp {
    /// The sender's.
    pub source_port: u16,
    /// The receiver's.
    pub destination_port: u16,
    /// The flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<TcpFlags>,
}

/// The flags of a TCP segment; only those that are set are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
#[expect(clippy::struct_excessive_bools, reason = "they are the flags of the wire format")]
pub struct TcpFlags {
    /// No more data from the sender.
    #[serde(skip_serializing_if = "is_unset")]
    pub fin: bool,
    /// A new connection.
    #[serde(skip_serializing_if = "is_unset")]
    pub syn: bool,
    /// The connection is gone.
    #[serde(skip_serializing_if = "is_unset")]
    pub rst: bool,
    /// Data to deliver at once.
    #[serde(skip_serializing_if = "is_unset")]
    pub psh: bool,
    /// An acknowledgement.
    #[serde(skip_serializing_if = "is_unset")]
    pub ack: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_unset(flag: &bool) -> bool {
    !flag
}

/// The ports of a UDP datagram.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Udp {
    /// The sender's.
    pub source_port: u16,
    /// The receiver's.
    pub destination_port: u16,
}

/// An end of a flow, as far as the reporting node knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Its number on the node, for an endpoint of that node.
    #[serde(rename = "ID", skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The number of its identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<u32>,
    /// Its cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// Its namespace, for a pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The labels of its identity, `source:key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Its name, for a pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
}

/// What kind of record it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventType {
    /// The kind, such as [`EVENT_DROP`].
    #[serde(rename = "type")]
    pub kind: u32,
    /// What it is about, depending on the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_type: Option<u32>,
}

/// A policy that a record names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamedPolicy {
    /// Its name.
    pub name: String,
    /// Its namespace, for kinds that have one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The labels of its rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The revision of the policies that decided; a number of 64 bits, hence a text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

impl NamedPolicy {
    /// As Cilium names a policy at a revision, but for the object's UID.
    pub fn new(policy: &PolicyRef, revision: u64) -> Self {
        let label = |key: &str, value: &str| format!("k8s:io.cilium.k8s.policy.{key}={value}");
        let namespace = policy.namespace.as_deref();
        let labels = [
            Some(label("derived-from", policy.kind.name())),
            Some(label("name", &policy.name)),
            namespace.map(|namespace| label("namespace", namespace)),
        ];
        Self {
            name: policy.name.clone(),
            namespace: namespace.unwrap_or_default().to_owned(),
            labels: labels.into_iter().flatten().collect(),
            revision: revision.to_string(),
            kind: policy.kind.name().to_owned(),
        }
    }

    /// The policy, if it is of a kind that is evaluated here.
    pub fn reference(&self) -> Option<PolicyRef> {
        let kind = PolicyKind::ALL.into_iter().find(|kind| kind.name() == self.kind)?;
        let namespace = kind.is_namespaced().then(|| self.namespace.clone());
        Some(PolicyRef { kind, namespace, name: self.name.clone() })
    }
}

/// A message that a proxy saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct L7 {
    /// Which way it went.
    #[serde(rename = "type")]
    pub kind: L7Kind,
    /// The message, if it is one of DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
}

/// Which way a message went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum L7Kind {
    /// To the server.
    Request,
    /// Back.
    Response,
    /// Not said, or something newer than this list.
    #[default]
    #[serde(other)]
    UnknownL7Type,
}

/// A DNS message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// The name asked for, with its last dot.
    pub query: String,
    /// The addresses answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// How long they may be kept, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// The names answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cnames: Vec<String>,
    /// Who saw it: `proxy`.
    pub observation_source: String,
    /// The response code; absent where it is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rcode: Option<u32>,
    /// The types of records asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub qtypes: Vec<String>,
    /// The types of records answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rrtypes: Vec<String>,
}
