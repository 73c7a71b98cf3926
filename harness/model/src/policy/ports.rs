//! Ports of rules, and what they match.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use crate::yaml::{Diagnostic, Document, Spanned};

/// The protocol of a flow.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP. What rules see as its port is the type of the message, as in Cilium's policy maps
    /// (`bpf/lib/policy.h`, `enable_icmp_rule`).
    Icmp,
    /// ICMP for IPv6, likewise.
    Icmpv6,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
            Self::Icmpv6 => "ICMPv6",
        })
    }
}

/// The names of an endpoint's ports, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedPorts(BTreeMap<(Protocol, String), u16>);

impl NamedPorts {
    /// No names.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number behind a name.
    pub fn get(&self, protocol: Protocol, name: &str) -> Option<u16> {
        self.0.get(&(protocol, name.to_ascii_lowercase())).copied()
    }
}

impl FromIterator<((Protocol, String), u16)> for NamedPorts {
    fn from_iter<I: IntoIterator<Item = ((Protocol, String), u16)>>(ports: I) -> Self {
        Self(
            ports
                .into_iter()
                .map(|((protocol, name), port)| ((protocol, name.to_ascii_lowercase()), port))
                .collect(),
        )
    }
}

/// The ports that a rule is about: those of the destination, after translation of services.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortSelector {
    /// Every protocol and port, those without ports too.
    All,
    /// Any of these.
    AnyOf(Vec<PortMatch>),
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortMatch {
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub ports: Ports,
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ports {
    /// All of the protocol.
    All,
    /// One.
    One(u16),
    /// The first to the last.
    Range(u16, u16),
    /// The one that the destination gives this name.
    Named(String),
}

impl PortSelector {
    /// Whether it selects a port of a destination with such names.
    pub fn selects(&self, protocol: Protocol, port: u16, named: &NamedPorts) -> bool {
        match self {
            Self::All => true,
            Self::AnyOf(matches) => {
                matches.iter().any(|it| it.protocol == protocol && it.covers(port, named))
            }
        }
    }

    /// Whether it selects that port by itself, not as one of many.
    pub(crate) fn is_exactly(&self, protocol: Protocol, port: u16, named: &NamedPorts) -> bool {
        match self {
            Self::All => false,
            Self::AnyOf(matches) => matches.iter().any(|it| {
                it.protocol == protocol
                    && matches!(it.ports, Ports::One(_) | Ports::Named(_))
                    && it.covers(port, named)
            }),
        }
    }
}

impl PortMatch {
    fn covers(&self, port: u16, named: &NamedPorts) -> bool {
        match &self.ports {
            Ports::All => true,
            Ports::One(one) => *one == port,
            Ports::Range(first, last) => RangeInclusive::new(*first, *last).contains(&port),
            Ports::Named(name) => named.get(self.protocol, name) == Some(port),
        }
    }
}

/// Whether a text is the name of a port (RFC 6335, `pkg/iana`).
pub(super) fn is_port_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.chars().all(|it| it.is_ascii_alphanumeric() || it == '-')
        && text.chars().any(|it| it.is_ascii_alphabetic())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// The protocols of a port in a Cilium policy, all of them if it names none.
pub(super) fn read_protocols(
    document: &Document<'_>,
    protocol: Option<&Spanned<String>>,
) -> Result<&'static [Protocol], Box<Diagnostic>> {
    let Some(protocol) = protocol else {
        return Ok(&[Protocol::Tcp, Protocol::Udp]);
    };
    match protocol.value.as_str() {
        "TCP" => Ok(&[Protocol::Tcp]),
        "UDP" => Ok(&[Protocol::Udp]),
        "ANY" => Ok(&[Protocol::Tcp, Protocol::Udp]),
        other => Err(document.diagnostic_at(
            protocol,
            format!("protocol `{other}` is not evaluated"),
            Some("expected one of `TCP`, `UDP`, `ANY`"),
        )),
    }
}

/// A number or a text, as Kubernetes' type of that name.
pub(super) enum IntOrString {
    Int(u64),
    String(String),
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a name")
            }

            fn visit_u64<E>(self, number: u64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}
