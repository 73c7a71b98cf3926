//! The access log of a ztunnel, as a real one writes it with `LOG_FORMAT=json`.
//!
//! The shape and the order of fields are those of `ConnectionResult` in `src/proxy/metrics.rs` of ztunnel and of the
//! lines that are recorded in the model's tests. What is written here is read again by the model, as what a real
//! one writes is, so that nothing is taken for evidence that only the lab says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use ztc_model::policy::mesh::SpiffeId;
use ztc_model::ztunnel::Side;

use super::{CLUSTER, Workload};

/// A connection, for the line that is written when it is over.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    /// Which proxy saw it.
    pub(crate) side: Side,
    /// Where it came from: the client, or the tunnel that it was in.
    pub(crate) source: SocketAddr,
    /// The client, if it is a workload.
    pub(crate) client: Option<Arc<Workload>>,
    /// The client's identity, where there is a tunnel.
    pub(crate) client_identity: Option<SpiffeId>,
    /// Where it was for, or where the tunnel led.
    pub(crate) destination: SocketAddr,
    /// Whom the tunnel was asked for.
    pub(crate) target: Option<String>,
    /// The service that it was for.
    pub(crate) service: Option<String>,
    /// The server, if it is a workload.
    pub(crate) server: Option<Arc<Workload>>,
    /// The server's identity, where there is a tunnel.
    pub(crate) server_identity: Option<SpiffeId>,
}

/// How a connection ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct End {
    /// Bytes from the client.
    pub(crate) sent: u64,
    /// Bytes to the client.
    pub(crate) received: u64,
    /// How long it lasted.
    pub(crate) after: Duration,
    /// Why it came to no good end.
    pub(crate) error: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    time: String,
    scope: &'a str,
    message: &'a str,
    #[serde(rename = "src.addr")]
    source: SocketAddr,
    #[serde(rename = "src.workload", skip_serializing_if = "Option::is_none")]
    source_workload: Option<&'a str>,
    #[serde(rename = "src.namespace", skip_serializing_if = "Option::is_none")]
    source_namespace: Option<&'a str>,
    #[serde(rename = "src.identity", skip_serializing_if = "Option::is_none")]
    source_identity: Option<String>,
    #[serde(rename = "src.cluster", skip_serializing_if = "Option::is_none")]
    source_cluster: Option<&'a str>,
    #[serde(rename = "dst.addr")]
    destination: SocketAddr,
    #[serde(rename = "dst.hbone_addr", skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(rename = "dst.service", skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(rename = "dst.workload", skip_serializing_if = "Option::is_none")]
    destination_workload: Option<&'a str>,
    #[serde(rename = "dst.namespace", skip_serializing_if = "Option::is_none")]
    destination_namespace: Option<&'a str>,
    #[serde(rename = "dst.identity", skip_serializing_if = "Option::is_none")]
    destination_identity: Option<String>,
    #[serde(rename = "dst.cluster", skip_serializing_if = "Option::is_none")]
    destination_cluster: Option<&'a str>,
    direction: Side,
    bytes_sent: u64,
    bytes_recv: u64,
    duration: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// A connection that ended before it was known what it is for (`log_early_deny` in `src/proxy/metrics.rs`).
#[derive(Debug, Clone)]
pub(crate) struct Early {
    /// Where it came from.
    pub(crate) source: SocketAddr,
    /// Where it came to.
    pub(crate) destination: SocketAddr,
    /// Why it ended.
    pub(crate) error: String,
}

#[derive(Serialize)]
struct EarlyLine<'a> {
    level: &'a str,
    time: String,
    scope: &'a str,
    message: &'a str,
    #[serde(rename = "src.addr")]
    source: SocketAddr,
    #[serde(rename = "dst.addr")]
    destination: SocketAddr,
    direction: Side,
    error: &'a str,
}

impl Early {
    /// The line of a connection to the server that ended at this time.
    pub(crate) fn line(&self, now: Timestamp) -> Result<String, serde_json::Error> {
        serde_json::to_string(&EarlyLine {
            level: "warn",
            time: format!("{now:.6}"),
            scope: "access",
            message: "connection failed",
            source: self.source,
            destination: self.destination,
            direction: Side::Inbound,
            error: &self.error,
        })
    }
}

impl AccessLog {
    /// The line of a connection that ended at this time.
    pub(crate) fn line(&self, end: &End, now: Timestamp) -> Result<String, serde_json::Error> {
        let name = |it: &'_ Option<Arc<Workload>>| it.as_deref().map(|it| it.reference.clone());
        let (client, server) = (name(&self.client), name(&self.server));
        let workload = |it: &'_ Option<_>| it.is_some().then_some(CLUSTER);
        // ztunnel counts what the server sends as sent at the server, and what the client sends at the client.
        let (bytes_sent, bytes_recv) = match self.side {
            Side::Inbound => (end.received, end.sent),
            Side::Outbound => (end.sent, end.received),
        };
        serde_json::to_string(&Line {
            level: if end.error.is_some() { "error" } else { "info" },
            time: format!("{now:.6}"),
            scope: "access",
            message: "connection complete",
            source: self.source,
            source_workload: client.as_ref().map(|it| it.name.as_str()),
            source_namespace: client.as_ref().map(|it| it.namespace.as_str()),
            source_identity: self.client_identity.as_ref().map(ToString::to_string),
            source_cluster: workload(&client),
            destination: self.destination,
            target: self.target.as_deref(),
            service: self.service.as_deref(),
            destination_workload: server.as_ref().map(|it| it.name.as_str()),
            destination_namespace: server.as_ref().map(|it| it.namespace.as_str()),
            destination_identity: self.server_identity.as_ref().map(ToString::to_string),
            destination_cluster: workload(&server),
            direction: self.side,
            bytes_sent,
            bytes_recv,
            duration: format!("{}ms", end.after.as_millis()),
            error: end.error.as_deref(),
        })
    }
}
