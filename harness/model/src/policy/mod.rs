//! Network policies as Cilium evaluates them, and those of the mesh as they are written.
//!
//! Cilium evaluates three kinds: `NetworkPolicy` of Kubernetes, `CiliumNetworkPolicy` and
//! `CiliumClusterwideNetworkPolicy`. Reading turns each into the same few rules or refuses it:
//! a field that is not evaluated here is an error at its line, as a verdict computed without it
//! would be wrong. The rules say which identity may talk to which on what port; they must not know
//! addresses, packets or connections.
//!
//! Where a rule names its source as `pkg/...`, that is a path in cilium/cilium at the end of July
//! 2026, which is version 1.20.

mod cilium;
mod decision;
mod kubernetes;
pub mod mesh;
mod node_config;
mod object;
mod peers;
mod ports;
mod range;
mod reference;
mod set;

pub use decision::{Decision, DirectionPolicy, Effect, EndpointPolicy, Rule, endpoint_policy};
pub use peers::{Peer, PeerSelector};
pub use ports::{NamedPorts, PortMatch, PortSelector, Ports, Protocol};
pub use reference::{NotAPolicy, PolicyKind, PolicyRef};
pub use set::{Policy, Spec, Specs};

pub(crate) use cilium::{clusterwide, namespaced};
pub(crate) use kubernetes::network;
pub(crate) use node_config::node_config;
