//! What an enforcement point said about one flow, in one form for every fabric.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hubble;
use crate::outcome::EnforcementPoint;
use crate::policy::mesh::{CONVERTED_PEERS, STATIC_STRICT};
use crate::policy::{PolicyKind, PolicyRef, Protocol};
use crate::{waypoint, ztunnel};

/// One record of an enforcement point.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Who spoke.
    pub point: EnforcementPoint,
    /// On which node; a waypoint by its own name.
    pub node: String,
    /// The flow in its original direction.
    pub flow: FlowKey,
    /// What it did.
    pub did: Did,
    /// Whether the record is about the packet that opens the flow. A denied packet of a connection
    /// that stands already does not mean that the flow was stopped: its answer may have passed.
    pub opening: bool,
    /// The policies that it names.
    pub policies: Vec<PolicyRef>,
    /// What it wrote.
    pub record: Record,
}

/// What an enforcement point wrote, as it wrote it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Record {
    /// A flow of Hubble.
    Hubble(Arc<hubble::Line>),
    /// A line of ztunnel's access log.
    Ztunnel(Arc<ztunnel::Line>),
    /// A line of a waypoint's access log.
    Waypoint(Arc<waypoint::Line>),
}

impl Evidence {
    /// Reads a record of Hubble; absent where it says nothing about a flow with ports, or about
    /// the way back of one.
    ///
    /// `docs/facts.md`: a drop names its reason, a deny rule's policy is named by the policy
    /// verdict alone, and a refused DNS query is an L7 record without a drop reason.
    pub fn from_hubble(line: &Arc<hubble::Line>) -> Option<Self> {
        let flow = &line.flow;
        if flow.is_reply == Some(true) {
            return None;
        }
        let key = FlowKey::from_hubble(flow)?;
        let (point, did) = match flow.kind {
            hubble::FlowKind::L7 => (EnforcementPoint::DnsProxy, dns_deed(flow)?),
            _ => (EnforcementPoint::Cilium, packet_deed(flow)?),
        };
        let named: Vec<PolicyRef> = match did {
            Did::Allow { .. } => {
                flow.allowed_by().filter_map(hubble::NamedPolicy::reference).collect()
            }
            _ => flow.denied_by().filter_map(hubble::NamedPolicy::reference).collect(),
        };
        Some(Self {
            point,
            node: line.node_name.clone(),
            flow: key,
            opening: opens(flow),
            did,
            policies: named,
            record: Record::Hubble(Arc::clone(line)),
        })
    }

    /// Reads a line of the access log of the ztunnel on a node.
    ///
    /// The flow is from the address that the line names as its source. At the server that is a pooled
    /// connection of the client's ztunnel, of which only the address is the client's, unless the client
    /// speaks in plain (`docs/facts.md`).
    pub fn from_ztunnel(line: &Arc<ztunnel::Line>, node: &str) -> Self {
        let (did, policies) = tunnel_deed(line);
        Self {
            point: EnforcementPoint::Ztunnel,
            node: node.to_owned(),
            flow: FlowKey {
                protocol: Protocol::Tcp,
                source: line.source,
                destination: line.reached_for(),
            },
            did,
            // A connection is judged before its first byte.
            opening: true,
            policies,
            record: Record::Ztunnel(Arc::clone(line)),
        }
    }

    /// Reads a line of the access log of the waypoint of that name.
    ///
    /// The port of its client is that of a tunnel.
    pub fn from_waypoint(line: &Arc<waypoint::Line>, name: &str) -> Self {
        let (did, policies) = request_deed(line);
        Self {
            point: EnforcementPoint::Waypoint,
            node: name.to_owned(),
            flow: FlowKey {
                protocol: Protocol::Tcp,
                source: line.downstream_remote_address,
                destination: line.downstream_local_address,
            },
            did,
            opening: true,
            policies,
            record: Record::Waypoint(Arc::clone(line)),
        }
    }
}

impl Evidence {
    /// Whether the record is about a tunnel, which ztunnel keeps in a pool: which of the client's own
    /// connections it carried, or would have, is not known.
    pub fn is_of_a_tunnel(&self) -> bool {
        match &self.record {
            Record::Ztunnel(line) => {
                line.direction == ztunnel::Side::Inbound && line.principal.is_some()
            }
            Record::Hubble(_) => self.flow.destination.port() == ztunnel::HBONE_PORT,
            Record::Waypoint(_) => true,
        }
    }

    /// The number of the rule that a waypoint names as that which denied, from 0.
    pub fn named_rule(&self) -> Option<usize> {
        let Record::Waypoint(line) = &self.record else { return None };
        named_rule(told(line).strip_prefix(waypoint::DENIED)?)?.1
    }
}

/// What a waypoint did, and the policy that it names: the RBAC filters of Envoy write the name of the rule that
/// matched (`docs/facts.md`).
fn request_deed(line: &waypoint::Line) -> (Did, Vec<PolicyRef>) {
    let direction = Direction::Ingress;
    let text = told(line);
    if let Some(matched) = text.strip_prefix(waypoint::DENIED) {
        return match named_rule(matched) {
            Some((policy, _)) => (Did::DenyByRule { direction }, vec![policy]),
            None => (Did::DenyByDefault { direction }, Vec::new()),
        };
    }
    if let Some(why) = text.strip_prefix(waypoint::TOKEN_REFUSED) {
        let why = why.trim_end_matches('}').replace('_', " ");
        return (Did::RefuseToken { why }, Vec::new());
    }
    // A connection that is none of HTTP has neither a status nor details.
    let is_carried = line.response_code == 0 && text.is_empty() && line.response_flags == "-";
    if text == "via_upstream" || is_carried {
        return (Did::Allow { direction }, Vec::new());
    }
    (
        Did::Fail { reason: format!("{} {text}", line.response_flags).trim_end().to_owned() },
        Vec::new(),
    )
}

/// Why a request ended as it did, or a connection.
fn told(line: &waypoint::Line) -> &str {
    let details =
        line.response_code_details.as_ref().or(line.connection_termination_details.as_ref());
    let ended = line.connection_termination_details.as_deref().unwrap_or_default();
    if ended.starts_with(waypoint::DENIED) { ended } else { details.map_or("", String::as_str) }
}

/// `ns[NAMESPACE]-policy[NAME]-rule[N]]`, as istiod calls the rules of a policy, by their numbers from 0 (`policyName` in
/// `pilot/pkg/security/authz/builder/builder.go`).
fn named_rule(text: &str) -> Option<(PolicyRef, Option<usize>)> {
    let (namespace, rest) = text.strip_prefix("ns[")?.split_once("]-policy[")?;
    let (name, rule) = rest.split_once("]-rule[")?;
    let policy = PolicyRef {
        kind: PolicyKind::AuthorizationPolicy,
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    };
    Some((policy, rule.trim_end_matches(']').parse().ok()))
}

/// What ztunnel did, and the policies that it names (`src/proxy.rs` and `src/state.rs` of istio/ztunnel).
fn tunnel_deed(line: &ztunnel::Line) -> (Did, Vec<PolicyRef>) {
    let direction = match line.direction {
        ztunnel::Side::Inbound => Direction::Ingress,
        ztunnel::Side::Outbound => Direction::Egress,
    };
    let Some(error) = &line.error else {
        return (Did::Allow { direction }, Vec::new());
    };
    if let Some(why) = error.strip_prefix(ztunnel::REJECTION) {
        let named = why.strip_prefix(ztunnel::DENIED_BY).and_then(|it| it.split_once('/'));
        return match named {
            Some((_, STATIC_STRICT)) => (Did::RefusePlaintext, Vec::new()),
            Some((namespace, name)) => {
                let policy = |kind, name: &str| PolicyRef {
                    kind,
                    namespace: Some(namespace.to_owned()),
                    name: name.to_owned(),
                };
                match name.strip_prefix(CONVERTED_PEERS) {
                    Some(name) => {
                        (Did::RefusePlaintext, vec![policy(PolicyKind::PeerAuthentication, name)])
                    }
                    None => (
                        Did::DenyByRule { direction },
                        vec![policy(PolicyKind::AuthorizationPolicy, name)],
                    ),
                }
            }
            None if why == ztunnel::NONE_ALLOWED => (Did::DenyByDefault { direction }, Vec::new()),
            None => (Did::Fail { reason: error.clone() }, Vec::new()),
        };
    }
    if let Some(did) = tunnel_refusal(line.direction, error) {
        return (did, Vec::new());
    }
    match error.strip_prefix("http status: ") {
        // The only status with which a ztunnel or a waypoint denies a tunnel by policy.
        Some(status) if status.starts_with("401") => {
            (Did::RefuseTunnel { status: status.to_owned() }, Vec::new())
        }
        _ => (Did::Fail { reason: error.clone() }, Vec::new()),
    }
}

/// What a ztunnel refuses of tunnels to it whatever policies say (`serve_connect` in `src/proxy/inbound.rs` and `src/tls/`
/// of istio/ztunnel). A handshake that its peer ended, or that was cut, it did not refuse.
fn tunnel_refusal(side: ztunnel::Side, error: &str) -> Option<Did> {
    if side == ztunnel::Side::Outbound {
        return None;
    }
    if let Some(why) = error.strip_prefix(ztunnel::HANDSHAKE) {
        let why = why.strip_prefix(ztunnel::OWN_FAULT_OF_TLS)?.trim_end_matches([' ', '}']);
        return match why {
            why if why.starts_with("AlertReceived(") => None,
            why if why.starts_with("InvalidMessage(") => Some(Did::RefusePlaintext),
            why => Some(Did::RefuseCertificate { why: why.to_owned() }),
        };
    }
    let is_about_its_target = ztunnel::WRONG_TARGETS.iter().any(|it| error.starts_with(it));
    is_about_its_target.then(|| Did::RefuseTarget { why: error.to_owned() })
}

/// Only TCP tells an opening packet from later ones; a message to a proxy always asks anew.
fn opens(flow: &hubble::Flow) -> bool {
    let tcp = flow.l4.as_ref().and_then(|l4| l4.tcp.as_ref());
    let flags = tcp.and_then(|tcp| tcp.flags.as_ref());
    flow.kind == hubble::FlowKind::L7 || flags.is_none_or(|flags| flags.syn && !flags.ack)
}

fn packet_deed(flow: &hubble::Flow) -> Option<Did> {
    let direction = match flow.traffic_direction? {
        hubble::TrafficDirection::Ingress => Direction::Ingress,
        hubble::TrafficDirection::Egress => Direction::Egress,
        hubble::TrafficDirection::TrafficDirectionUnknown => return None,
    };
    match (flow.verdict, flow.drop_reason) {
        (hubble::FlowVerdict::Forwarded | hubble::FlowVerdict::Redirected, _) => {
            Some(Did::Allow { direction })
        }
        (hubble::FlowVerdict::Dropped, Some(hubble::POLICY_DENY)) => {
            Some(Did::DenyByRule { direction })
        }
        (hubble::FlowVerdict::Dropped, Some(hubble::POLICY_DENIED)) => {
            Some(Did::DenyByDefault { direction })
        }
        (hubble::FlowVerdict::Dropped, reason) => {
            let named = flow.drop_reason_desc.clone();
            let numbered = || reason.map_or("no reason".to_owned(), |it| format!("reason {it}"));
            Some(Did::DropOtherwise { reason: named.unwrap_or_else(numbered) })
        }
        _ => None,
    }
}

fn dns_deed(flow: &hubble::Flow) -> Option<Did> {
    let l7 = flow.l7.as_ref()?;
    let dns = l7.dns.as_ref()?;
    match (l7.kind, flow.verdict) {
        (hubble::L7Kind::Request, hubble::FlowVerdict::Dropped) => {
            Some(Did::RefuseName { name: dns.query.clone() })
        }
        (hubble::L7Kind::Request, hubble::FlowVerdict::Forwarded) => {
            Some(Did::Allow { direction: Direction::Egress })
        }
        _ => None,
    }
}

impl FlowKey {
    fn from_hubble(flow: &hubble::Flow) -> Option<Self> {
        let ip = flow.ip.as_ref()?;
        let (protocol, source, destination) = flow.l4.as_ref()?.ports()?;
        Some(Self {
            protocol,
            source: SocketAddr::new(ip.source, source),
            destination: SocketAddr::new(ip.destination, destination),
        })
    }
}

/// The addresses and ports of a flow, seen from the side that opened it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct FlowKey {
    /// The transport.
    pub protocol: Protocol,
    /// Who opened it.
    pub source: SocketAddr,
    /// Whom it was for, after service translation.
    pub destination: SocketAddr,
}

/// What an enforcement point did with a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// It let the flow pass.
    Allow {
        /// Which of its two hooks.
        direction: Direction,
    },
    /// It stopped the flow because a deny rule matched.
    DenyByRule {
        /// Which of its two hooks.
        direction: Direction,
    },
    /// It stopped the flow because nothing allowed it.
    DenyByDefault {
        /// Which of its two hooks.
        direction: Direction,
    },
    /// It answered the DNS query with a refusal.
    RefuseName {
        /// The name asked for.
        name: String,
    },
    /// It closed a connection of a peer that speaks in plain, where only mutual TLS is accepted.
    RefusePlaintext,
    /// The proxy of the other side refused the tunnel to it, which is how that one denies.
    RefuseTunnel {
        /// Its answer.
        status: String,
    },
    /// It ended TLS with a peer that showed no certificate that it believes.
    RefuseCertificate {
        /// Its words.
        why: String,
    },
    /// It did not open a tunnel, because of whom it was asked for.
    RefuseTarget {
        /// Its words.
        why: String,
    },
    /// It refused a request because of its token.
    RefuseToken {
        /// Its words.
        why: String,
    },
    /// It could not carry the connection to its end.
    Fail {
        /// Its words.
        reason: String,
    },
    /// It dropped a packet for a reason that is no policy.
    DropOtherwise {
        /// Its words.
        reason: String,
    },
}

/// The side of an endpoint at which policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Into the endpoint.
    Ingress,
    /// Out of the endpoint.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl Did {
    /// Whether the flow was stopped on purpose: by policy, or as it must be without one.
    pub const fn is_denial(&self) -> bool {
        matches!(
            self,
            Self::DenyByRule { .. }
                | Self::DenyByDefault { .. }
                | Self::RefuseName { .. }
                | Self::RefusePlaintext
                | Self::RefuseTunnel { .. }
                | Self::RefuseCertificate { .. }
                | Self::RefuseTarget { .. }
                | Self::RefuseToken { .. }
        )
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow { direction } => write!(f, "allowed at {direction}"),
            Self::DenyByRule { direction } => write!(f, "denied at {direction} by a deny rule"),
            Self::DenyByDefault { direction } => {
                write!(f, "denied at {direction}: nothing allows it")
            }
            Self::RefuseName { name } => write!(f, "refused the query for {name}"),
            Self::RefusePlaintext => f.write_str("refused a peer that speaks in plain"),
            Self::RefuseTunnel { status } => write!(f, "was refused the tunnel: {status}"),
            Self::RefuseCertificate { why } => write!(f, "refused the certificate: {why}"),
            Self::RefuseTarget { why } => write!(f, "refused whom the tunnel is for: {why}"),
            Self::RefuseToken { why } => write!(f, "refused the token: {why}"),
            Self::Fail { reason } => write!(f, "failed: {reason}"),
            Self::DropOtherwise { reason } => write!(f, "dropped: {reason}"),
        }
    }
}
