//! A pod or an outside host: a network namespace with an agent in it, on a port of the switch of its
//! own or on that of its node.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio::runtime::Handle;
use ztc_wire::AgentConfig;

use super::agent::{Agent, AgentCommand, AgentError};
use super::hbone::ProxyError;
use super::netns::{NetNs, NetnsError};
use super::node::{LOCAL_PORTS, LOCAL_PORTS_FILE};
use super::pump::{Plug, Pump, PumpError};
use super::ztunnel::{Ztunnel, ZtunnelPlan};
use crate::datapath::{Attachment, NodeId};

/// How the kernel is set in a pod with a ztunnel: its sockets take ports that agents do not send from, by which the
/// switch tells them apart, and there are few enough that a port must not wait for a minute to be used again.
const ZTUNNEL_SETTINGS: [(&str, &str); 2] =
    [(LOCAL_PORTS_FILE, LOCAL_PORTS), ("/proc/sys/net/ipv4/tcp_tw_reuse", "1")];

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
    /// Its ztunnel could not be started.
    #[error("cannot start the ztunnel of {name}")]
    Ztunnel {
        /// Whose.
        name: String,
        /// Why.
        source: Box<ProxyError>,
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
    /// One of its own, without a way anywhere: it gets a copy of what passes the edges of the pods of a node.
    Listening(NodeId),
}

/// What a pod or an outside host is made from.
#[derive(Debug)]
pub(crate) struct WorkloadPlan {
    /// Its own addresses, the first one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whose network it has.
    pub(crate) network: Network,
    /// The ztunnel in it, if it is in the mesh.
    pub(crate) ztunnel: Option<ZtunnelPlan>,
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
    /// Absent outside the mesh.
    pub(crate) ztunnel: Option<Ztunnel>,
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
        let WorkloadPlan { addresses, network, ztunnel, launch, resolv_conf } = plan;
        let name = || launch.name.clone();
        let (netns, plug) = match network {
            Network::OfTheNode(netns) => (netns, None),
            Network::Listening(node) => {
                let (netns, device) = NetNs::create(&[])
                    .map_err(|source| WorkloadError::Netns { name: name(), source })?;
                pump.switch().tap(node, device);
                (netns, None)
            }
            Network::Own(attachment) => {
                let (netns, device) = NetNs::create(&addresses)
                    .map_err(|source| WorkloadError::Netns { name: name(), source })?;
                let plug = pump
                    .attach(attachment, device)
                    .map_err(|source| WorkloadError::Attach { name: name(), source })?;
                (netns, Some(plug))
            }
        };
        let ztunnel = match (ztunnel, &plug) {
            (Some(plan), Some(plug)) => {
                let started = start_ztunnel(plan, &netns, &addresses, pump, plug);
                let failed =
                    |error| WorkloadError::Ztunnel { name: name(), source: Box::new(error) };
                Some(started.map_err(failed)?)
            }
            _ => None,
        };
        fs::write(&launch.resolv_conf, resolv_conf).map_err(|source| {
            WorkloadError::ResolvConf { path: launch.resolv_conf.clone(), source }
        })?;
        let agent = Agent::start(&netns, command, launch, runtime)?;
        Ok(Self { addresses, agent, ztunnel, _plug: plug, _netns: netns })
    }
}

/// Starts a ztunnel in a pod; then the pod's connections go to it.
fn start_ztunnel(
    plan: ZtunnelPlan,
    netns: &NetNs,
    addresses: &[IpAddr],
    pump: &Pump,
    plug: &Plug,
) -> Result<Ztunnel, ProxyError> {
    for (file, value) in ZTUNNEL_SETTINGS {
        netns.set(file, value)?;
    }
    let captures_names = plan.resolver.is_some();
    let ztunnel = Ztunnel::start(plan, netns, addresses, pump.switch(), plug.id())?;
    pump.switch().datapath().capture(plug.id());
    if captures_names {
        pump.switch().datapath().capture_names(plug.id());
    }
    Ok(ztunnel)
}
