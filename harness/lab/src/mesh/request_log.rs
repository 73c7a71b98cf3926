//! The access log of a waypoint, as a real one writes it with `accessLogEncoding: JSON`.
//!
//! The shape is that of the lines that are recorded in the model's tests, fields in the order of their names. As with
//! ztunnel's log, what is written here is read again by the model, as what a real one writes is. A real one writes its
//! lines once a second; these are written at once.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

/// What a waypoint calls itself towards its own end of a tunnel.
const INTERNAL: &str = "envoy://internal_client_address/";

/// What a waypoint calls its own end of a tunnel to a server.
const ORIGINATE: &str = "envoy://connect_originate/";

/// What Envoy's default route is called.
const ROUTE: &str = "default";

/// Where what is sent to workloads goes (`EncapClusterName` in `pilot/pkg/networking/core`).
const ENCAP: &str = "encap";

/// A request to a waypoint, or a connection that is none of HTTP, for the line that is written when it is over.
#[derive(Debug, Clone)]
pub(crate) struct RequestLog {
    /// When it began.
    pub(crate) start_time: Timestamp,
    /// The client, by the tunnel that it is in.
    pub(crate) client: SocketAddr,
    /// What it asked for.
    pub(crate) asked: SocketAddr,
    /// The full name of the service, if it asked for one.
    pub(crate) service: Option<String>,
    /// Whether it speaks HTTP.
    pub(crate) is_http: bool,
    /// Of a request: the host that it names.
    pub(crate) authority: Option<String>,
    /// Its method.
    pub(crate) method: Option<String>,
    /// Its path, with the query.
    pub(crate) path: Option<String>,
    /// Its number.
    pub(crate) request_id: Option<String>,
    /// Who says to have sent it.
    pub(crate) user_agent: Option<String>,
}

/// What it came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Bytes of its body, or of the connection, from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
    /// How long it lasted.
    pub(crate) after: Duration,
    /// The status of the response.
    pub(crate) status: u16,
    /// Why this is the status.
    pub(crate) details: Option<String>,
    /// Why the connection was closed.
    pub(crate) closed: Option<String>,
    /// What went wrong, as codes of Envoy.
    pub(crate) flags: Option<&'static str>,
    /// The server that it went to, if it went to one.
    pub(crate) server: Option<SocketAddr>,
    /// How long the server took to answer.
    pub(crate) answered: Option<Duration>,
}

#[derive(Default, Serialize)]
struct Line<'a> {
    authority: Option<&'a str>,
    bytes_received: u64,
    bytes_sent: u64,
    connection_termination_details: Option<&'a str>,
    downstream_local_address: String,
    downstream_remote_address: String,
    duration: u128,
    method: Option<&'a str>,
    path: Option<&'a str>,
    protocol: Option<&'a str>,
    request_id: Option<&'a str>,
    requested_server_name: Option<&'a str>,
    response_code: u16,
    response_code_details: Option<&'a str>,
    response_flags: &'a str,
    route_name: Option<&'a str>,
    start_time: String,
    upstream_cluster: String,
    upstream_host: Option<String>,
    upstream_local_address: Option<&'a str>,
    upstream_service_time: Option<String>,
    upstream_transport_failure_reason: Option<&'a str>,
    user_agent: Option<&'a str>,
    x_forwarded_for: Option<&'a str>,
}

impl RequestLog {
    /// The line of a request or a connection that is over.
    pub(crate) fn line(&self, outcome: &Outcome) -> Result<String, serde_json::Error> {
        let Outcome { received, sent, after, status, details, closed, flags, server, answered } =
            outcome;
        let protocol = if self.is_http { "http" } else { "tcp" };
        let port = self.asked.port();
        let cluster = self.service.as_ref().map_or_else(
            || ENCAP.to_owned(),
            |service| format!("inbound-vip|{port}|{protocol}|{service}"),
        );
        serde_json::to_string(&Line {
            authority: self.authority.as_deref(),
            bytes_received: *received,
            bytes_sent: *sent,
            connection_termination_details: closed.as_deref(),
            downstream_local_address: self.asked.to_string(),
            downstream_remote_address: self.client.to_string(),
            duration: after.as_millis(),
            method: self.method.as_deref(),
            path: self.path.as_deref(),
            protocol: self.method.as_ref().map(|_| "HTTP/1.1"),
            request_id: self.request_id.as_deref(),
            response_code: *status,
            response_code_details: details.as_deref(),
            response_flags: flags.unwrap_or("-"),
            route_name: self.method.as_ref().map(|_| ROUTE),
            start_time: format!("{:.3}", self.start_time),
            upstream_cluster: cluster,
            // To a workload it goes by the address that was asked for, and is not named.
            upstream_host: server.map(|it| match self.service {
                Some(_) => format!("{ORIGINATE}{it}"),
                None => ORIGINATE.to_owned(),
            }),
            upstream_local_address: server.map(|_| INTERNAL),
            upstream_service_time: answered.map(|it| it.as_millis().to_string()),
            user_agent: self.user_agent.as_deref(),
            ..Line::default()
        })
    }

    /// The line about the tunnel to a server, which was refused with this status, or could not be opened.
    pub(crate) fn tunnel_line(
        &self,
        server: SocketAddr,
        tunnel: SocketAddr,
        after: Duration,
        status: Option<u16>,
    ) -> Result<String, serde_json::Error> {
        let reason = status.map(|it| format!("tunnel_response:{it}"));
        serde_json::to_string(&Line {
            downstream_local_address: server.to_string(),
            downstream_remote_address: INTERNAL.to_owned(),
            duration: after.as_millis(),
            response_flags: "UF,URX",
            start_time: format!("{:.3}", self.start_time),
            upstream_cluster: "connect_originate".to_owned(),
            upstream_host: Some(tunnel.to_string()),
            upstream_transport_failure_reason: reason.as_deref(),
            ..Line::default()
        })
    }
}
