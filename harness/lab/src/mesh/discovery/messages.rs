//! The messages that a real ztunnel reads, as far as a lane has anything to say in them.
//!
//! Numbers and names of fields are those of `proto/workload.proto` and `proto/authorization.proto` of istio/ztunnel.

use std::collections::HashMap;

use prost::{Enumeration, Message, Oneof};

/// `istio.workload.Address`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Address {
    #[prost(oneof = "AddressType", tags = "1, 2")]
    pub(crate) kind: Option<AddressType>,
}

/// Whose address it is.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum AddressType {
    #[prost(message, tag = "1")]
    Workload(Workload),
    #[prost(message, tag = "2")]
    Service(Service),
}

/// `istio.workload.Service`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Service {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(string, tag = "3")]
    pub(crate) hostname: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) addresses: Vec<NetworkAddress>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) ports: Vec<Port>,
    #[prost(message, optional, tag = "7")]
    pub(crate) waypoint: Option<GatewayAddress>,
}

/// `istio.workload.Workload`.
#[expect(clippy::struct_field_names, reason = "they are the names of the message's fields")]
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Workload {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(crate) addresses: Vec<Vec<u8>>,
    #[prost(enumeration = "TunnelProtocol", tag = "5")]
    pub(crate) tunnel_protocol: i32,
    #[prost(string, tag = "7")]
    pub(crate) service_account: String,
    #[prost(message, optional, tag = "8")]
    pub(crate) waypoint: Option<GatewayAddress>,
    #[prost(string, tag = "10")]
    pub(crate) canonical_name: String,
    #[prost(enumeration = "WorkloadType", tag = "12")]
    pub(crate) workload_type: i32,
    #[prost(string, tag = "13")]
    pub(crate) workload_name: String,
    #[prost(string, repeated, tag = "16")]
    pub(crate) authorization_policies: Vec<String>,
    #[prost(string, tag = "18")]
    pub(crate) cluster_id: String,
    #[prost(string, tag = "20")]
    pub(crate) uid: String,
    /// By namespace and full name of the service.
    #[prost(map = "string, message", tag = "22")]
    pub(crate) services: HashMap<String, PortList>,
}

/// Whether tunnels lead there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(crate) enum TunnelProtocol {
    None = 0,
    Hbone = 1,
}

/// What made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(crate) enum WorkloadType {
    Deployment = 0,
    Pod = 2,
}

/// `istio.workload.PortList`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PortList {
    #[prost(message, repeated, tag = "1")]
    pub(crate) ports: Vec<Port>,
}

/// `istio.workload.Port`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Port {
    #[prost(uint32, tag = "1")]
    pub(crate) service_port: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) target_port: u32,
}

/// `istio.workload.NetworkAddress`, in the network that has no name.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct NetworkAddress {
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) address: Vec<u8>,
}

/// `istio.workload.GatewayAddress`, by address.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct GatewayAddress {
    #[prost(message, optional, tag = "2")]
    pub(crate) address: Option<NetworkAddress>,
    #[prost(uint32, tag = "3")]
    pub(crate) hbone_mtls_port: u32,
}

/// `istio.security.Authorization`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Authorization {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(enumeration = "Scope", tag = "3")]
    pub(crate) scope: i32,
    #[prost(enumeration = "Action", tag = "4")]
    pub(crate) action: i32,
    #[prost(message, repeated, tag = "5")]
    pub(crate) rules: Vec<Rule>,
}

/// Whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(crate) enum Scope {
    Global = 0,
    Namespace = 1,
    WorkloadSelector = 2,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(crate) enum Action {
    Allow = 0,
    Deny = 1,
}

/// `istio.security.Rule`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Rule {
    #[prost(message, repeated, tag = "1")]
    pub(crate) clauses: Vec<Clause>,
}

/// `istio.security.Clause`; its field has the number 2.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Clause {
    #[prost(message, repeated, tag = "2")]
    pub(crate) matches: Vec<Match>,
}

/// `istio.security.Match`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Match {
    #[prost(message, repeated, tag = "1")]
    pub(crate) namespaces: Vec<StringMatch>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) not_namespaces: Vec<StringMatch>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) principals: Vec<StringMatch>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) not_principals: Vec<StringMatch>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) source_ips: Vec<Range>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) not_source_ips: Vec<Range>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) destination_ips: Vec<Range>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) not_destination_ips: Vec<Range>,
    #[prost(uint32, repeated, tag = "9")]
    pub(crate) destination_ports: Vec<u32>,
    #[prost(uint32, repeated, tag = "10")]
    pub(crate) not_destination_ports: Vec<u32>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) service_accounts: Vec<ServiceAccount>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) not_service_accounts: Vec<ServiceAccount>,
}

/// `istio.security.Address`: a range of them.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Range {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) address: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(crate) length: u32,
}

/// `istio.security.ServiceAccountMatch`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ServiceAccount {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

/// `istio.security.StringMatch`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StringMatch {
    #[prost(oneof = "MatchType", tags = "1, 2, 3, 4")]
    pub(crate) kind: Option<MatchType>,
}

/// How a text is matched.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum MatchType {
    #[prost(string, tag = "1")]
    Exact(String),
    #[prost(string, tag = "2")]
    Prefix(String),
    #[prost(string, tag = "3")]
    Suffix(String),
    #[prost(message, tag = "4")]
    Presence(Nothing),
}

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Nothing {}
