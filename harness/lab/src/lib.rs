//! The lab: a two-node cluster in network namespaces of this machine, with Cilium's semantics.
//!
//! It is a fabric like any other, made of four parts: `datapath` decides about packets and `mesh`
//! about connections, and both do no I/O; `host` does all I/O and decides nothing; `cluster` plays
//! the Kubernetes API to the engine. The lab must not know what a case expects.

mod cluster;
mod datapath;
pub mod fault;
mod host;
mod lane;
mod mesh;
mod plan;
pub mod real_ztunnel;

pub use cluster::{Lab, LabError};
pub use host::{AgentCommand, Entered, SandboxError, enter};
pub use plan::versions;
