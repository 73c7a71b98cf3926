//! A pod or an outside host: a network namespace on the switch with an agent in it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio::runtime::Handle;
use ztc_wire::AgentConfig;

use super::agent::{Agent, AgentCommand, AgentError};
use super::netns::{NetNs, NetnsError};
use super::pump::{Plug, Pump, PumpError};
use crate::datapath::Attachment;

/// The groups that may send echo requests without a capability (icmp(7)), for the network
/// namespace of whoever writes. In a cluster the container runtime opens it to all groups; agents
/// of the lab have this one, and without root no other is known to the kernel.
const ECHO_GROUPS: &str = "0 0";

/// Where they are set.
const ECHO_GROUPS_FILE: &str = "/proc/sys/net/ipv4/ping_group_range";

/// Why a pod or an outside host could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkloadError {
    /// No network namespace.
    #[error("cannot make the network of {name}")]
    Netns {
        /// Whose.
        name: String,
        /// Why.
        source: NetnsError,
    },
    /// Echo requests could not be allowed.
    #[error("cannot write {ECHO_GROUPS_FILE} of {name}")]
    EchoGroups {
        /// Whose.
        name: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It could not be plugged into the switch.
    #[error("cannot plug {name} in")]
    Attach {
        /// What.
        name: String,
        /// Why.
        source: PumpError,
    },
    /// Its `resolv.conf` could not be written.
    #[error("cannot write {}", path.display())]
    ResolvConf {
        /// Where.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Its agent could not be started.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// What a pod or an outside host is made from.
#[derive(Debug)]
pub(crate) struct WorkloadPlan {
    /// Its own address.
    pub(crate) address: IpAddr,
    /// What it is to the datapath.
    pub(crate) attachment: Attachment,
    /// What its agent is told.
    pub(crate) launch: AgentConfig,
    /// What its `resolv.conf` says.
    pub(crate) resolv_conf: String,
}

/// A pod or an outside host at work. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Its own address.
    pub(crate) address: IpAddr,
    /// Its agent.
    pub(crate) agent: Agent,
    _plug: Plug,
    _netns: NetNs,
}

impl Workload {
    /// Makes it: its network works, and policy holds for it, before its agent starts. Blocks for
    /// some milliseconds; `runtime` watches over the agent.
    pub(crate) fn start(
        plan: WorkloadPlan,
        pump: &Pump,
        command: &AgentCommand,
        runtime: &Handle,
    ) -> Result<Self, WorkloadError> {
        let WorkloadPlan { address, attachment, launch, resolv_conf } = plan;
        let name = || launch.name.clone();
        let (netns, device) = NetNs::create(&[address])
            .map_err(|source| WorkloadError::Netns { name: name(), source })?;
        netns
            .run(|| fs::write(ECHO_GROUPS_FILE, ECHO_GROUPS))
            .map_err(|source| WorkloadError::Netns { name: name(), source })?
            .map_err(|source| WorkloadError::EchoGroups { name: name(), source })?;
        let plug = pump
            .attach(attachment, device)
            .map_err(|source| WorkloadError::Attach { name: name(), source })?;
        fs::write(&launch.resolv_conf, resolv_conf).map_err(|source| {
            WorkloadError::ResolvConf { path: launch.resolv_conf.clone(), source }
        })?;
        let agent = Agent::start(&netns, command, launch, runtime)?;
        Ok(Self { address, agent, _plug: plug, _netns: netns })
    }
}
