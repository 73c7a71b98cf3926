//! A pod or an outside host: a network namespace with an agent in it, on a port of the switch of its
//! own or on that of its node.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use ztc_wire::AgentConfig;

use super::agent::{Agent, AgentCommand, AgentError};
use super::hbone::ProxyError;
use super::netns::{NetNs, NetnsError};
use super::node::{LOCAL_PORTS, LOCAL_PORTS_FILE};
use super::pump::{Plug, Pump, PumpError};
use super::ztunnel::{Ztunnel, ZtunnelPlan};
use super::ztunnel_process::{EnrolError, Enrolled, ZtunnelProcess};
use crate::datapath::{Attachment, NodeId};
use crate::mesh::Workload as MeshWorkload;

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
        source: CaptureError,
    },
    /// Its agent could not be started.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Why a pod is in the hands of no ztunnel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// The lab's own does not start.
    #[error(transparent)]
    Proxy(Box<ProxyError>),
    /// A real one does not take it.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
}

impl From<ProxyError> for CaptureError {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(Box::new(error))
    }
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
    /// Whose it is in the mesh, if it is in it.
    pub(crate) captured_by: Option<CapturedBy>,
    /// What its agent is told.
    pub(crate) launch: AgentConfig,
    /// What its `resolv.conf` says.
    pub(crate) resolv_conf: String,
}

/// The ztunnel that a pod is in the hands of.
#[derive(Debug)]
pub(crate) enum CapturedBy {
    /// The lab's own.
    Lab(ZtunnelPlan),
    /// A real one, which serves all pods of the node.
    Process {
        /// It.
        process: Arc<ZtunnelProcess>,
        /// What the mesh knows of the pod.
        workload: Arc<MeshWorkload>,
        /// Whether it asks for names on behalf of the pod.
        captures_names: bool,
    },
}

/// A ztunnel at work in a pod.
#[derive(Debug)]
pub(crate) enum WorkloadZtunnel {
    /// The lab's own.
    Lab(Ztunnel),
    /// A real one.
    Process(Enrolled),
}

impl WorkloadZtunnel {
    /// The last revision of the mesh's policies that holds in the pod; a real one says for all of its pods what it knows.
    pub(crate) fn realised(&self) -> Option<u64> {
        match self {
            Self::Lab(ztunnel) => Some(ztunnel.realised()),
            Self::Process(_) => None,
        }
    }

    /// Forgets the tunnels that it keeps and the names that it was told, if it is the lab's own.
    pub(crate) fn forget(&self) {
        if let Self::Lab(ztunnel) = self {
            ztunnel.forget();
        }
    }

    /// Lets go of the pod. Blocks.
    pub(crate) fn leave(&self) {
        if let Self::Process(enrolled) = self {
            enrolled.leave();
        }
    }
}

/// A pod or an outside host at work. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Workload {
    /// Its own addresses, the first one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Its agent.
    pub(crate) agent: Agent,
    /// Absent outside the mesh.
    pub(crate) ztunnel: Option<WorkloadZtunnel>,
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
        let WorkloadPlan { addresses, network, captured_by, launch, resolv_conf } = plan;
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
        let ztunnel = match (captured_by, &plug) {
            (Some(captured_by), Some(plug)) => {
                let started = start_ztunnel(captured_by, &netns, &addresses, pump, plug);
                Some(started.map_err(|source| WorkloadError::Ztunnel { name: name(), source })?)
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

/// Has a ztunnel take a pod; then the pod's connections go to it.
fn start_ztunnel(
    captured_by: CapturedBy,
    netns: &NetNs,
    addresses: &[IpAddr],
    pump: &Pump,
    plug: &Plug,
) -> Result<WorkloadZtunnel, CaptureError> {
    for (file, value) in ZTUNNEL_SETTINGS {
        netns.set(file, value).map_err(ProxyError::from)?;
    }
    let plan = match captured_by {
        CapturedBy::Lab(plan) => plan,
        CapturedBy::Process { process, workload, captures_names } => {
            return Ok(WorkloadZtunnel::Process(process.enrol(
                &workload,
                netns,
                captures_names,
            )?));
        }
    };
    let captures_names = plan.resolver.is_some();
    let ztunnel = Ztunnel::start(plan, netns, addresses, pump.switch(), plug.id())?;
    pump.switch().datapath().capture(plug.id());
    if captures_names {
        pump.switch().datapath().capture_names(plug.id());
    }
    Ok(WorkloadZtunnel::Lab(ztunnel))
}
