//! What the lab does with Linux: namespaces, devices, sockets, processes.
//!
//! Nothing in here decides about a packet or a name; that is the datapath's, which does no I/O.

mod agent;
mod dns_proxy;
mod dns_upstream;
mod hbone;
mod istiod;
mod journal;
mod kubelet;
mod netlink;
mod netns;
mod node;
mod program;
mod pump;
mod runtime_thread;
mod sandbox;
mod tun;
mod waypoint;
mod workload;
mod ztunnel;
mod ztunnel_process;

pub use agent::AgentCommand;
pub use sandbox::{Entered, SandboxError, enter};

pub(crate) use agent::{Agent, AgentError};
pub(crate) use hbone::ProxyError;
pub(crate) use istiod::Istiod;
pub(crate) use kubelet::Prober;
pub(crate) use node::{Node, NodeError};
pub(crate) use program::run;
pub(crate) use pump::{Pump, PumpError, Switch};
pub(crate) use sandbox::{WORK_DIR, is_inside};
pub(crate) use waypoint::{Waypoint, WaypointPlan};
pub(crate) use workload::{
    CapturedBy, Network, Workload, WorkloadError, WorkloadPlan, WorkloadZtunnel,
};
pub(crate) use ztunnel::ZtunnelPlan;
pub(crate) use ztunnel_process::{NFT, ZtunnelProcess, ZtunnelProcessError, ZtunnelProcessPlan};
