//! The access log of waypoints, one JSON object a line.
//!
//! The shape is Istio's default of fields with `meshConfig.accessLogEncoding: JSON` (`pilot/pkg/model/telemetry_logging.go`;
//! recorded lines are in `tests/facts/`). A line is written when a request, or a connection that is none of
//! HTTP, is over. What it proves is not for this room to know.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The port of istiod on which it tells proxies what to do. Without it a waypoint never gets ready.
pub const CONTROL_PLANE_PORT: u16 = 15012;

/// How the details of a line begin where a policy denied, before the name of the rule that matched and `]`; the name is
/// `none` where nothing allowed it (`response_code_details` of Envoy's RBAC filters).
pub const DENIED: &str = "rbac_access_denied_matched_policy[";

/// How they begin where a token was refused, before the reason and `}`.
pub const TOKEN_REFUSED: &str = "jwt_authn_access_denied{";

/// A request, or a connection, that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When it began, in RFC 3339.
    pub start_time: String,
    /// The client's address, with the port of its ztunnel's tunnel.
    pub downstream_remote_address: SocketAddr,
    /// What the client asked for: a service's own address, or a pod's.
    pub downstream_local_address: SocketAddr,
    /// The host that the request names.
    pub authority: Option<String>,
    /// Its method.
    pub method: Option<String>,
    /// Its path, with the query.
    pub path: Option<String>,
    /// The status of the response; 0 where there was none.
    pub response_code: u16,
    /// What went wrong with the response or the connection, as codes of Envoy; `-` for nothing.
    pub response_flags: String,
    /// Why this is the status.
    pub response_code_details: Option<String>,
    /// Why the connection was closed.
    pub connection_termination_details: Option<String>,
    /// Everything else, as it was written.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What a waypoint calls the client of a connection that it makes itself, into a tunnel.
const INTERNAL: &str = "envoy://internal_client_address/";

/// Reads a line; nothing where it is one of the many others that a waypoint writes, or about its own end of a tunnel.
///
/// # Errors
/// When a line about a request lacks something.
pub fn read(line: &str) -> Result<Option<Line>, serde_json::Error> {
    if !(line.starts_with('{') && line.contains("\"response_code\"")) {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(line)?;
    if value["downstream_remote_address"] == INTERNAL {
        return Ok(None);
    }
    serde_json::from_value(value).map(Some)
}
