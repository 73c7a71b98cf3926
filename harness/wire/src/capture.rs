//! What an agent captures of the packets of others, and what it says of them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that nobody else sends: the first half of every nonce of a run that is told to use it. Whoever sees it in
/// a packet sees what that run sent.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Canary(String);

impl Canary {
    /// That of a number that nobody guesses.
    pub fn new(number: u64) -> Self {
        Self(format!("{number:016x}"))
    }

    /// Its text: 16 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is looked at in the network namespace of an agent, and what is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Only packets from or to one of these are looked at, those in an encapsulation between nodes too. What the
    /// orders to agents are carried in has the same canaries.
    pub addresses: BTreeSet<IpAddr>,
    /// What is looked for.
    pub canaries: Vec<Canary>,
    /// The port that tunnels go to.
    pub tunnel_port: u16,
}

/// What was captured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// How many packets were looked at. A packet that passes several devices is several.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// How many packets the kernel could not keep: what was in them is not known.
    pub lost: u64,
    /// The canaries that were found, each once.
    pub sightings: Vec<Sighting>,
    /// The connections to the port of tunnels between two of the addresses.
    pub tunnels: Vec<Tunnel>,
}

/// A canary that was found in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sighting {
    /// Which.
    pub canary: Canary,
    /// In how many packets.
    pub count: u64,
    /// Where the first of them came from; the port is 0 where it has none.
    pub source: SocketAddr,
    /// Where it went.
    pub destination: SocketAddr,
    /// The bytes of the first one around the canary, as a dump.
    pub excerpt: Vec<String>,
}

/// A connection to the port of tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// Who opened it.
    pub client: SocketAddr,
    /// To whom.
    pub server: SocketAddr,
    /// How many bytes the client sent in it while it was watched, each counted once.
    pub sent: u64,
    /// How many the server did.
    pub received: u64,
    /// What they speak.
    pub speaks: Speaks,
    /// The first bytes that were seen of it, as a dump.
    pub excerpt: Vec<String>,
}

/// What the two ends of a tunnel speak, as far as one who listens can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Speaks {
    /// Nobody has said anything.
    Nothing,
    /// TLS 1.3: the server has chosen it in its `ServerHello` (RFC 8446 §4.2.1), and all that followed are records.
    Tls13,
    /// Another version of TLS, as the server has chosen it.
    OtherTls {
        /// Its number (RFC 8446 §4.1.2): 771 is 1.2.
        version: u16,
    },
    /// Records of TLS. The handshake was before the capture, so that the version is not known.
    TlsUnderWay,
    /// It began, and not as TLS does.
    NotTls,
    /// It began before the capture, or packets of it are missing, and what was seen is not known to be records.
    Unclear,
}

impl fmt::Display for Speaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Tls13 => f.write_str("TLS 1.3"),
            Self::OtherTls { version } => write!(f, "TLS of version {version:#06x}"),
            Self::TlsUnderWay => f.write_str("TLS that was under way before"),
            Self::NotTls => f.write_str("no TLS"),
            Self::Unclear => f.write_str("what may be TLS and is not known to be"),
        }
    }
}
