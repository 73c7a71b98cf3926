//! A pod or an outside host: a network namespace with an agent in it, on a port of the switch of its
//! own or on that of its node.

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

/// Whose network a pod or an outside host has.
#[derive(Debug)]
pub(crate) enum Network {
    /// One of its own, which is this to the datapath.
    Own(Attachment),
    /// That of its node: to the datapath it is the node.
    OfTheNode(NetNs),
}

/// What a pod or an outside host is made from.
#[derive(Debug)]
pub(crate) struct WorkloadPlan {
    /// Its own addresses, the first one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whose network it has.
    pub(crate) network: Network,
    /// What its agent is told.
    pub(crate) launch: AgentConfig,
    /// What its `resolv.conf` says.
    pub(crate) resolv_conf: String,
}

/// A pod or an outside host at work. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Its own addresses, the first one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its agent.
    pub(crate) agent: Agent,
    /// Absent where it has its node's network.
    _plug: Option<Plug>,
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
        let WorkloadPlan { addresses, network, launch, resolv_conf } = plan;
        let name = || launch.name.clone();
        let (netns, plug) = match network {
            Network::OfTheNode(netns) => (netns, None),
            Network::Own(attachment) => {
                let (netns, device) = NetNs::create(&addresses)
                    .map_err(|source| WorkloadError::Netns { name: name(), source })?;
                let plug = pump
                    .attach(attachment, device)
                    .map_err(|source| WorkloadError::Attach { name: name(), source })?;
                (netns, Some(plug))
            }
        };
        fs::write(&launch.resolv_conf, resolv_conf).map_err(|source| {
            WorkloadError::ResolvConf { path: launch.resolv_conf.clone(), source }
        })?;
        let agent = Agent::start(&netns, command, launch, runtime)?;
        Ok(Self { addresses, agent, _plug: plug, _netns: netns })
    }
}
