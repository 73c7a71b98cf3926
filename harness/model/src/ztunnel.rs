//! The access log of ztunnel, one JSON object a line.
//!
//! The shape is that of ztunnel's log with `LOG_FORMAT=json` (`src/proxy/metrics.rs` and `src/telemetry.rs` of
//! istio/ztunnel; recorded lines are in `tests/facts/`). A line is written when a connection is over. What
//! it proves is not for this room to know.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The port on which ztunnels and waypoints accept tunnels.
pub const HBONE_PORT: u16 = 15_008;

/// How the `error` of a line begins where policies refuse the connection (`src/proxy.rs` of istio/ztunnel, as are
/// the two that follow).
pub const REJECTION: &str = "connection closed due to policy rejection: ";

/// What follows before `namespace/name` of a policy that denies.
pub const DENIED_BY: &str = "explicitly denied by: ";

/// What follows where nothing allows.
pub const NONE_ALLOWED: &str = "allow policies exist, but none allowed";

/// How the `error` begins where TLS with a peer fails (`src/tls/lib.rs`); what follows is an error of Rust's standard library
/// as it is debugged.
pub const HANDSHAKE: &str = "tls handshake error: ";

/// What follows there where TLS itself found fault with what came, and not the network.
pub const OWN_FAULT_OF_TLS: &str = "Custom { kind: InvalidData, error: ";

/// How the `error` begins where a tunnel is asked for what it does not lead to: somebody else than the workload, or a port
/// of ztunnel's own.
pub const WRONG_TARGETS: [&str; 3] =
    ["ip mismatch: ", "attempted recursive call to ourselves", "invalid CONNECT address "];

/// How the `error` begins where the workload does not take the connection.
pub const NOT_TAKEN: &str = "connection failed: ";

/// The `scope` of the lines that are about connections.
const ACCESS: &str = "access";

/// A connection that is over, or that never came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it was over, in RFC 3339.
    pub time: String,
    /// Which of its two proxies saw it.
    pub direction: Side,
    /// Outbound: the client's own address and port. Inbound: those of the peer that connected, which is the
    /// client itself where it speaks in plain, and else a pooled connection of its ztunnel.
    #[serde(rename = "src.addr")]
    pub source: SocketAddr,
    /// Where it was for, or where the tunnel led.
    #[serde(rename = "dst.addr")]
    pub destination: SocketAddr,
    /// Whom the tunnel was asked for, where there is one: an address and a port, or a name and a port.
    #[serde(rename = "dst.hbone_addr", default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The client's principal; absent for one that speaks in plain.
    #[serde(rename = "src.identity", default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Why it did not come to a good end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Everything else, as it was written.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A proxy of ztunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// At the server.
    Inbound,
    /// At the client.
    Outbound,
}

impl Line {
    /// The address that the connection was for in the end: the tunnel's target, unless that is a name.
    pub fn reached_for(&self) -> SocketAddr {
        let target = self.target.as_ref().and_then(|it| it.parse().ok());
        target.unwrap_or(self.destination)
    }
}

/// Reads a line; nothing where it is not about a connection.
///
/// # Errors
/// When a line about a connection lacks something, or a line is no JSON: ztunnel then logs as text.
pub fn read(line: &str) -> Result<Option<Line>, serde_json::Error> {
    let value: Value = serde_json::from_str(line)?;
    if value["scope"] != ACCESS {
        return Ok(None);
    }
    serde_json::from_value(value).map(Some)
}
