//! The switch between the pods, the nodes and the outside, enforcing policy as Cilium does.
//!
//! Packets go in, packets and flow records come out: it is pure, and must not know devices,
//! sockets, processes or what time it is. Every packet of a pod passes its egress hook on its own
//! node, then the ingress hook of the pod it is for on that one's node, as in Cilium; only the
//! tunnel between the nodes is left out.
//!
//! Known differences from a real cluster:
//! - packets to outside hosts keep the pod's address (no masquerading); outside hosts answer it;
//! - fragments are dropped, as nothing puts them together;
//! - services are translated for pods alone, not for the nodes, and a pod cannot reach itself
//!   through a service that it is behind;
//! - a service without a backend is silence and a record of a drop, where Cilium by default answers
//!   with an ICMP error (`service-no-backend-response`);
//! - nodes are subject to no policy, as without Cilium's host firewall.
//!
//! Where a comment names its source as `bpf/...` or `pkg/...`, that is a path in cilium/cilium,
//! version 1.20.

mod aging;
mod capture;
mod config;
mod conntrack;
mod endpoints;
mod hooks;
mod identity;
mod ipcache;
mod names;
mod packet;
mod policy_map;
mod proxy;
mod record;
mod repository;
mod restart;
mod service;
mod spoil;
mod switch;
#[cfg(test)]
mod tests;

pub(crate) use capture::{INBOUND_PORT, NAMES_PORT, OUTBOUND_PORT, PROBE_SOURCES};
pub(crate) use config::{Attachment, Backend, Config, NodeConfig, NodeId, Now, PortId, ServiceVip};
pub(crate) use endpoints::EndpointState;
pub(crate) use proxy::Redirect;
pub(crate) use switch::Datapath;
