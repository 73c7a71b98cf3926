//! The messages between a real ztunnel, the control plane and whoever hands it pods.
//!
//! Numbers of fields are those of `proto/xds.proto`, `proto/citadel.proto` and `proto/zds.proto` of istio/ztunnel; what a lane
//! has no use for is left out.

use std::collections::HashMap;

use prost::{Message, Oneof};

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DeltaDiscoveryRequest {
    #[prost(string, tag = "2")]
    pub(super) type_url: String,
    /// What it knows from an earlier stream, by name.
    #[prost(map = "string, string", tag = "5")]
    pub(super) initial_resource_versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub(super) response_nonce: String,
    #[prost(message, optional, tag = "7")]
    pub(super) error_detail: Option<Status>,
}

/// `envoy.service.discovery.v3.Status`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DeltaDiscoveryResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Resource>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(super) removed_resources: Vec<String>,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Resource {
    #[prost(message, optional, tag = "2")]
    pub(super) resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct CertificateRequest {
    /// In PEM.
    #[prost(string, tag = "1")]
    pub(super) csr: String,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct CertificateResponse {
    /// In PEM, the authority last.
    #[prost(string, repeated, tag = "1")]
    pub(super) cert_chain: Vec<String>,
}

/// `istio.workload.zds.WorkloadRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WorkloadRequest {
    #[prost(oneof = "Payload", tags = "1, 2, 3")]
    pub(super) payload: Option<Payload>,
}

/// What is asked of a ztunnel.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub(super) enum Payload {
    #[prost(message, tag = "1")]
    Add(AddWorkload),
    #[prost(message, tag = "2")]
    Delete(DeleteWorkload),
    #[prost(message, tag = "3")]
    SnapshotSent(SnapshotSent),
}

/// `istio.workload.zds.AddWorkload`; the pod's network namespace comes beside it.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AddWorkload {
    #[prost(string, tag = "1")]
    pub(super) uid: String,
    #[prost(message, optional, tag = "2")]
    pub(super) workload_info: Option<WorkloadInfo>,
}

/// `istio.workload.zds.WorkloadInfo`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WorkloadInfo {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    #[prost(string, tag = "3")]
    pub(super) service_account: String,
}

/// `istio.workload.zds.DelWorkload`; its field has the number 2.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DeleteWorkload {
    #[prost(string, tag = "2")]
    pub(super) uid: String,
}

/// `istio.workload.zds.SnapshotSent`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct SnapshotSent {}

/// `istio.workload.zds.WorkloadResponse`, whose only payload is an `Ack`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct WorkloadResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) ack: Option<Ack>,
}

/// `istio.workload.zds.Ack`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Ack {
    /// Empty where all is well.
    #[prost(string, tag = "1")]
    pub(super) error: String,
}
