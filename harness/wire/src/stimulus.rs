//! What an agent can be asked to send, and what it can be asked to serve.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Papers;

/// One thing that an agent sends, once; all but the flows on a fresh socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stimulus {
    /// Connect, send a line with a nonce, wait for the line that answers it.
    Tcp {
        /// Where to.
        to: Target,
    },
    /// Send a datagram with a nonce, wait for the datagram that answers it.
    Udp {
        /// Where to.
        to: Target,
    },
    /// One ICMP echo request with a nonce; wait for the echo reply. The kernel of the target answers,
    /// so an address says who did, and no name.
    Ping {
        /// Where to; its version decides between ICMP and `ICMPv6`.
        to: IpAddr,
    },
    /// The same as UDP in a flow that goes on: all datagrams to there are from one port.
    UdpFlow {
        /// Where to.
        to: Target,
    },
    /// The same as TCP in a connection that goes on: all lines to there are in one, until it ends; the next one opens
    /// another.
    TcpFlow {
        /// Where to.
        to: Target,
    },
    /// The words of TCP inside of TLS 1.3 or 1.2. The name or address of the target is what the handshake
    /// asks for (SNI, names only) and what the certificate has to be for.
    Tls {
        /// Where to.
        to: Target,
    },
    /// One HTTP/1.1 request on a connection of its own; the nonce travels in `x-ztc-nonce`.
    Http {
        /// Whether the connection is one of TLS, as in `https:`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tls: bool,
        /// The request method.
        method: String,
        /// Host and port of the URL.
        to: Target,
        /// Path and query of the URL, with its leading `/`.
        path: String,
        /// Headers to add.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
    },
    /// The words of TCP in a tunnel of the mesh (HBONE): a CONNECT of HTTP/2 inside of mutual TLS 1.3. The tunnel is of
    /// its own, whatever proxies would have done for the agent's pod.
    Hbone {
        /// Where the tunnel ends.
        at: SocketAddr,
        /// Whom the peer is asked for: the authority of the CONNECT.
        authority: SocketAddr,
        /// Whom to believe and what to show; without it the CONNECT is spoken in clear.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        papers: Option<Papers>,
    },
    /// One DNS query for exactly this name: no search list, no cache, no retry.
    Dns {
        /// The name, taken as fully qualified.
        name: String,
        /// The type of record asked for.
        record: RecordType,
        /// UDP or TCP.
        transport: DnsTransport,
        /// The server; the pod's own resolver (`/etc/resolv.conf`) when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<SocketAddr>,
    },
}

impl Stimulus {
    /// Where it is sent, where that is a host and a port.
    pub const fn target(&self) -> Option<&Target> {
        match self {
            Self::Tcp { to }
            | Self::Udp { to }
            | Self::UdpFlow { to }
            | Self::TcpFlow { to }
            | Self::Tls { to }
            | Self::Http { to, .. } => Some(to),
            Self::Ping { .. } | Self::Hbone { .. } | Self::Dns { .. } => None,
        }
    }

    /// Whether what is sent again goes on in the socket of the last time.
    pub const fn goes_on(&self) -> bool {
        matches!(self, Self::UdpFlow { .. } | Self::TcpFlow { .. })
    }
}

/// A version of IP.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Version 4.
    Ipv4,
    /// Version 6.
    Ipv6,
}

impl Family {
    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name or address.
    pub host: Host,
    /// Port, 1 to 65535.
    pub port: u16,
    /// The family of addresses to ask for, of a name; either when absent, IPv4 first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
}

/// A host by address or by a name that the agent resolves the way a pod does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Host {
    /// An address: no query is sent.
    Ip(IpAddr),
    /// A name: resolved through the pod's resolver with its search list.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The transport of a DNS query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DnsTransport {
    /// A datagram.
    Udp,
    /// A connection, with the two-byte length of RFC 1035 §4.2.2.
    Tcp,
}

/// The record types that cases ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

/// Something that an agent serves from its start on, on every address of its pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Service {
    /// Answers `ztc1 <nonce>\n` with `ztc1 <nonce> <peer>\n`.
    Tcp {
        /// Listening port.
        port: u16,
    },
    /// Answers the same words, one datagram each.
    Udp {
        /// Listening port.
        port: u16,
    },
    /// Answers every request with 200, the nonce and the peer's name in `x-ztc-nonce` and `x-ztc-peer`.
    Http {
        /// Listening port.
        port: u16,
    },
    /// Answers the words of TCP inside of TLS 1.3 or 1.2, with the agent's certificate.
    Tls {
        /// Listening port.
        port: u16,
    },
    /// Answers requests as over HTTP, inside of TLS.
    Https {
        /// Listening port.
        port: u16,
    },
    /// Answers for a zone, over UDP and TCP, with the peer's name as EDNS NSID (RFC 5001) when asked.
    Dns {
        /// Listening port.
        port: u16,
        /// The names it knows; everything else is NXDOMAIN.
        zone: Zone,
    },
}

/// The names that a DNS service knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The records, fully qualified; a name may come several times.
    pub records: Vec<ZoneRecord>,
    /// The names that stand for others.
    #[serde(default)]
    pub aliases: Vec<ZoneAlias>,
}

/// One address record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoneRecord {
    /// Fully qualified name; a trailing dot is optional.
    pub name: String,
    /// The address: A or AAAA follows from its family.
    pub address: IpAddr,
    /// Time to live in seconds.
    pub ttl: u32,
}

/// One CNAME record. The name has no other, and the answer to a query for it has the whole chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoneAlias {
    /// Fully qualified name; a trailing dot is optional.
    pub name: String,
    /// The name that it stands for, likewise.
    pub target: String,
    /// Time to live in seconds.
    pub ttl: u32,
}
