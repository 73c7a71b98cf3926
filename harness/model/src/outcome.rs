//! What is expected of a cell, and how raw facts read once the question is known.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ztc_wire::{DnsRcode, Observed};

use crate::capture::Wire;
use crate::manifest::ObjectRef;

/// Who can stop a flow.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum EnforcementPoint {
    /// Cilium's datapath, L3 and L4.
    Cilium,
    /// Cilium's DNS proxy.
    DnsProxy,
    /// A ztunnel.
    Ztunnel,
    /// A waypoint.
    Waypoint,
}

impl fmt::Display for EnforcementPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cilium => "cilium",
            Self::DnsProxy => "dns-proxy",
            Self::Ztunnel => "ztunnel",
            Self::Waypoint => "waypoint",
        })
    }
}

/// The form that a denial is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A deny rule matched: the record names its policy.
    ExplicitDeny,
    /// Nothing allowed the flow: the record names no policy.
    DefaultDeny,
    /// The DNS proxy answered REFUSED.
    DnsRefused,
    /// The peer spoke in plain where only mutual TLS is accepted. Its record does not say which policy asks
    /// for it.
    PlaintextRefused,
    /// The token of a request was not accepted.
    TokenRefused,
    /// The peer of a tunnel showed no certificate that the mesh believes.
    CertificateRefused,
    /// A tunnel was asked for somebody, or for a port, that its end leads to for nobody.
    TargetRefused,
    /// A tunnel was asked for a port on which nobody listens where it ends.
    Unserved,
}

impl Form {
    /// Who can deny in this form.
    pub const fn points(self) -> &'static [EnforcementPoint] {
        match self {
            Self::ExplicitDeny | Self::DefaultDeny => {
                &[EnforcementPoint::Cilium, EnforcementPoint::Ztunnel, EnforcementPoint::Waypoint]
            }
            Self::DnsRefused => &[EnforcementPoint::DnsProxy],
            Self::PlaintextRefused
            | Self::CertificateRefused
            | Self::TargetRefused
            | Self::Unserved => &[EnforcementPoint::Ztunnel],
            Self::TokenRefused => &[EnforcementPoint::Waypoint],
        }
    }

    /// Whether a policy can be what asks for it.
    pub const fn is_of_policies(self) -> bool {
        !matches!(self, Self::CertificateRefused | Self::TargetRefused | Self::Unserved)
    }

    /// Whether it needs no policy that asks for it.
    pub const fn is_of_tunnels(self) -> bool {
        matches!(self, Self::PlaintextRefused) || !self.is_of_policies()
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExplicitDeny => "explicit-deny",
            Self::DefaultDeny => "default-deny",
            Self::DnsRefused => "dns-refused",
            Self::PlaintextRefused => "plaintext-refused",
            Self::TokenRefused => "token-refused",
            Self::CertificateRefused => "certificate-refused",
            Self::TargetRefused => "target-refused",
            Self::Unserved => "unserved",
        })
    }
}

/// What a case expects of one stimulus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// It gets through.
    Allowed {
        /// The enforcement point that must say that it let the flow pass, where the case asks.
        via: Option<EnforcementPoint>,
        /// How it is on the wire, where the case asks.
        wire: Option<Wire>,
    },
    /// It gets through from before the first policy to the end of the hold: not one stimulus is lost.
    Throughout,
    /// It gets through before the first policy and once all are enforced, and is stopped in between.
    Interrupted {
        /// Who stops it meanwhile; absent when the case leaves it open.
        by: Option<EnforcementPoint>,
        /// The form of the denial, where it matters.
        form: Option<Form>,
        /// The policy that stops it.
        policy: ObjectRef,
    },
    /// It does not.
    Denied {
        /// Who stops it; absent when the case leaves it open, and then silence is enough.
        by: Option<EnforcementPoint>,
        /// The form of the denial, where it matters.
        form: Option<Form>,
        /// The policy that stops it: removing it must let the flow pass.
        policy: ObjectRef,
        /// Those that would stop it otherwise: they are removed with it. Mostly there is none, and the policy is
        /// removed alone.
        behind: Vec<ObjectRef>,
    },
    /// It does not, whatever policies say: nobody can remove what stops it. Something that differs from it in one
    /// attribute gets through at the same time.
    Refused {
        /// Who stops it.
        by: EnforcementPoint,
        /// In which form.
        form: Form,
    },
}

impl Expected {
    /// The enforcement point that has to say something, where there is one.
    pub const fn point(&self) -> Option<EnforcementPoint> {
        match self {
            Self::Allowed { via: point, .. }
            | Self::Denied { by: point, .. }
            | Self::Interrupted { by: point, .. } => *point,
            Self::Refused { by, .. } => Some(*by),
            Self::Throughout => None,
        }
    }

    /// Whether every stimulus counts, from before the first policy on.
    pub const fn is_stream(&self) -> bool {
        matches!(self, Self::Throughout | Self::Interrupted { .. })
    }

    /// Whether the flow must not get through.
    pub const fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Refused { .. })
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed { via, wire } => {
                f.write_str("allowed")?;
                if let Some(via) = via {
                    write!(f, " via {via}")?;
                }
                match wire {
                    None => Ok(()),
                    Some(Wire::Clear) => f.write_str(", in clear"),
                    Some(Wire::Encrypted) => f.write_str(", encrypted"),
                }
            }
            Self::Throughout => f.write_str("allowed throughout"),
            Self::Refused { by, form } => write!(f, "refused by {by} as {form}"),
            Self::Denied { by, form, policy, .. } | Self::Interrupted { by, form, policy } => {
                f.write_str(if self.is_denied() { "denied" } else { "interrupted" })?;
                if let Some(by) = by {
                    write!(f, " by {by}")?;
                }
                if let Some(form) = form {
                    write!(f, " as {form}")?;
                }
                match self {
                    Self::Denied { behind, .. } if !behind.is_empty() => {
                        let behind: Vec<String> = behind.iter().map(ToString::to_string).collect();
                        write!(f, " ({policy}, before {})", behind.join(", "))
                    }
                    _ => write!(f, " ({policy})"),
                }
            }
        }
    }
}

/// What was seen of one stimulus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// What the agent that sent it saw.
    Client(Observed),
    /// What kubelet says of the pod that it probes.
    Kubelet {
        /// The `Ready` condition.
        ready: bool,
        /// Kubelet's words for the last failed probe.
        message: Option<String>,
    },
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(observed) => observed.fmt(f),
            Self::Kubelet { ready: true, .. } => f.write_str("Ready"),
            Self::Kubelet { ready: false, message: Some(message) } => {
                write!(f, "not Ready: {message}")
            }
            Self::Kubelet { ready: false, message: None } => f.write_str("not Ready"),
        }
    }
}

/// What a fact means for the question "did it get through?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// It got through to the right peer.
    Through {
        /// Who answered.
        peer: String,
    },
    /// It got through, but the answer is not the one asked for: another peer, or a DNS error.
    Astray {
        /// What came.
        what: String,
    },
    /// It did not get through.
    Stopped,
    /// Something answered that proves nothing.
    Unclear {
        /// What came.
        what: String,
    },
    /// The client could not send: there is nothing to conclude.
    Unsent {
        /// Why.
        why: String,
    },
}

impl Reading {
    /// Reads a fact.
    ///
    /// `peers` are the names that may answer; empty when the world cannot tell.
    ///
    /// A DNS answer of any code but REFUSED proves that a server received the query. REFUSED is
    /// what Cilium's proxy answers (`docs/facts.md`), so it proves nothing by itself.
    pub fn of(seen: &Seen, peers: &BTreeSet<String>) -> Self {
        match seen {
            Seen::Kubelet { ready: true, .. } => {
                Self::Through { peer: "kubelet's probe".to_owned() }
            }
            Seen::Kubelet { ready: false, .. } => Self::Stopped,
            Seen::Client(observed) => Self::of_observed(observed, peers),
        }
    }

    /// Reads what a client saw.
    pub(crate) fn of_observed(observed: &Observed, peers: &BTreeSet<String>) -> Self {
        if let Some(peer) = observed.peer() {
            return if peers.is_empty() || peers.contains(peer) {
                Self::Through { peer: peer.to_owned() }
            } else {
                Self::Astray { what: format!("{peer} answered") }
            };
        }
        match observed {
            // The client hears of this address alone, and its nonce is in the reply.
            Observed::Echo { remote } => Self::Through { peer: remote.to_string() },
            Observed::Dns { rcode: DnsRcode::REFUSED, .. }
            | Observed::Unresolved { rcode: DnsRcode::REFUSED, .. }
            | Observed::Timeout { .. }
            | Observed::Cancelled { .. }
            | Observed::Closed { .. }
            | Observed::HandshakeCut { .. }
            | Observed::NoTunnel { .. }
            | Observed::Http { status: 401 | 403 | 503, .. }
            | Observed::Unreachable { .. } => Self::Stopped,
            Observed::Dns { rcode: DnsRcode::NOERROR, answers, peer, remote }
                if !answers.is_empty() =>
            {
                Self::Through { peer: peer.clone().unwrap_or_else(|| remote.to_string()) }
            }
            // A host of ours answered, and another one than the case asks for.
            Observed::Dns { .. } | Observed::WrongName { .. } => {
                Self::Astray { what: observed.to_string() }
            }
            // An alert or a foreign certificate may be the peer's or that of somebody in between.
            Observed::TlsAlert { .. } | Observed::Untrusted { .. } => {
                Self::Unclear { what: observed.to_string() }
            }
            // A refusal is an answer: the SYN reached somebody, only nobody listened. A missing
            // name denies nothing either.
            Observed::Http { .. }
            | Observed::Garbled { .. }
            | Observed::Refused
            | Observed::Unresolved { .. } => Self::Unclear { what: observed.to_string() },
            Observed::Unsent { .. } => Self::Unsent { why: observed.to_string() },
            Observed::Reply { .. } => unreachable!("a reply has a peer"),
        }
    }
}
