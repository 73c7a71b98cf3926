//! One lane at work: a switch, two nodes, the outside hosts, and the pods that exist now.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all, try_join3};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use ztc_engine::fabric::{Lane, Readiness};
use ztc_model::labels::Labels;
use ztc_model::policy::NamedPorts;
use ztc_model::world::PodRef;
use ztc_wire::{AgentConfig, FirstRun};

use crate::datapath::{Attachment, Config, Datapath, NodeId};
use crate::fault::Faults;
use crate::host::{
    Agent, AgentCommand, AgentError, CapturedBy, Istiod, Network, Node, NodeError, Prober,
    ProxyError, Pump, PumpError, WORK_DIR, Waypoint, WaypointPlan, Workload, WorkloadError,
    WorkloadPlan, WorkloadZtunnel, ZtunnelPlan, ZtunnelProcess, ZtunnelProcessError,
    ZtunnelProcessPlan,
};
use crate::mesh::{Mesh, NamespacedName, TrustError, Workload as MeshWorkload};
use crate::plan::{
    AddressPool, IstiodPod, KUBE_DNS, NODES, OutsidePlan, POD_IPV6, Plan, PlanError, PodPlan,
    WaypointPod, both, node_configs, resolv_conf,
};

/// How long a lane may take to come up.
const UP: Duration = Duration::from_secs(10);

/// Why a lane does not come up, or a pod is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    #[error("cannot make a directory in {WORK_DIR}")]
    Directory { source: io::Error },
    #[error(transparent)]
    Pump(#[from] PumpError),
    #[error(transparent)]
    Mesh(#[from] TrustError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Address(#[from] PlanError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error("cannot make waypoint {gateway}")]
    Waypoint { gateway: NamespacedName, source: Box<ProxyError> },
    #[error("cannot make istiod")]
    Istiod { source: Box<ProxyError> },
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("cannot start the real ztunnel of {node}")]
    ZtunnelProcess { node: String, source: Box<ZtunnelProcessError> },
    #[error(transparent)]
    ZtunnelEnded(Box<ZtunnelProcessError>),
    #[error("the ztunnel of {node} does not know who is there after {UP:?}: {status}")]
    NotTold { node: String, status: String },
    #[error("pod {pod} is not ready after {UP:?}: {status}")]
    NotReady { pod: PodRef, status: String },
}

/// A lane at work. Dropped, all of it is gone.
#[derive(Debug)]
pub(crate) struct RunningLane {
    pods: Mutex<BTreeMap<PodRef, Arc<RunningPod>>>,
    outside: BTreeMap<String, Workload>,
    waypoints: Mutex<BTreeMap<NamespacedName, Arc<RunningWaypoint>>>,
    /// There once somebody needs it.
    istiod: OnceCell<Istiod>,
    addresses: Mutex<Vec<AddressPool>>,
    nodes: Vec<Node>,
    /// The real ones by node, where the lab's own are not used. Pods, which they serve, go before them.
    ztunnels: Vec<Arc<ZtunnelProcess>>,
    /// Those who listen at the edges of pods, by node, once somebody asks for them.
    listeners: tokio::sync::Mutex<BTreeMap<NodeId, Arc<Workload>>>,
    mesh: Arc<Mesh>,
    pump: Arc<Pump>,
    command: AgentCommand,
    files: AtomicUsize,
    directory: TempDir,
}

/// A waypoint at work.
#[derive(Debug)]
pub(crate) struct RunningWaypoint {
    /// Its pod.
    reference: PodRef,
    node: NodeId,
    /// Its addresses, the first one first.
    pub(crate) addresses: Vec<IpAddr>,
    waypoint: Waypoint,
}

impl RunningWaypoint {
    /// Why it is not ready, if it is not.
    pub(crate) fn lacks(&self) -> Option<String> {
        self.waypoint.lacks()
    }
}

/// A pod at work.
#[derive(Debug)]
pub(crate) struct RunningPod {
    /// Its node.
    pub(crate) node: NodeId,
    /// Whether it is in its node's network.
    pub(crate) host_network: bool,
    /// Where its readiness probes come from.
    pub(crate) probe_source: IpAddr,
    prober: Option<Prober>,
    workload: Workload,
}

impl RunningLane {
    /// Brings up everything that the plan has with the world, and waits until all of it is ready.
    pub(crate) async fn start(
        lane: Lane,
        plan: &Plan,
        command: AgentCommand,
        faults: Faults,
        ztunnel: Option<&Path>,
    ) -> Result<Self, LaneError> {
        let deadline = Instant::now() + UP;
        let directory = tempfile::Builder::new()
            .prefix(&format!("lane-{}-", lane.0))
            .tempdir_in(WORK_DIR)
            .map_err(|source| LaneError::Directory { source })?;
        let nodes = node_configs();
        let services = plan.services.clone();
        let mesh = Arc::new(Mesh::new(plan.mesh.clone(), plan.names.clone(), faults.clone())?);
        let datapath = Datapath::new(Config { nodes: nodes.clone(), services, faults });
        let pump = Arc::new(Pump::start(&format!("switch-{}", lane.0), datapath)?);
        let nodes = try_join_all(nodes.into_iter().enumerate().map(|(index, config)| {
            let pump = Arc::clone(&pump);
            blocking(move || Node::start(NodeId(index), config, &pump))
        }));
        let mut running = Self {
            nodes: nodes.await?,
            ztunnels: Vec::new(),
            addresses: Mutex::new((0..NODES.len()).map(AddressPool::of_pods).collect()),
            pods: Mutex::default(),
            outside: BTreeMap::new(),
            listeners: tokio::sync::Mutex::default(),
            waypoints: Mutex::default(),
            istiod: OnceCell::new(),
            mesh,
            pump,
            command,
            files: AtomicUsize::new(0),
            directory,
        };
        if let Some(program) = ztunnel.filter(|_| plan.has_mesh()) {
            running.ztunnels = running.start_ztunnels(program).await?;
        }
        running.populate(plan).await?;
        running.ready(deadline).await?;
        Ok(running)
    }

    /// Starts a real ztunnel on each node.
    async fn start_ztunnels(&self, program: &Path) -> Result<Vec<Arc<ZtunnelProcess>>, LaneError> {
        try_join_all(self.nodes.iter().map(async |node| {
            let name = node.config.name.clone();
            let directory = self.directory.path().join(&name);
            fs::create_dir(&directory).map_err(|source| LaneError::Directory { source })?;
            let plan = ZtunnelProcessPlan {
                program: program.to_owned(),
                node: name,
                mesh: Arc::clone(&self.mesh),
                directory,
                resolv_conf: format!("nameserver {KUBE_DNS}\n"),
            };
            let switch = Arc::clone(self.pump.switch());
            let started = blocking(move || ZtunnelProcess::start(plan, &switch)).await;
            let node = || node.config.name.clone();
            let failed =
                |source| LaneError::ZtunnelProcess { node: node(), source: Box::new(source) };
            Ok(Arc::new(started.map_err(failed)?))
        }))
        .await
    }

    /// Makes the outside hosts, the waypoints and the pods of the world, all at once.
    async fn populate(&mut self, plan: &Plan) -> Result<(), LaneError> {
        let outside = try_join_all(plan.outside.iter().map(async |host| {
            Ok::<_, LaneError>((host.name.clone(), self.start_outside(host).await?))
        }));
        let pods = plan.pods.values().filter(|pod| pod.with_the_world);
        let pods = try_join_all(pods.map(|pod| self.start_pod(pod, Vec::new())));
        let waypoints = plan.waypoints.iter().map(|it| self.start_waypoint(plan, it));
        let (outside, ..) = try_join3(outside, pods, try_join_all(waypoints)).await?;
        self.outside = outside.into_iter().collect();
        Ok(())
    }

    /// Waits until every agent answers, every readiness probe passes, and every waypoint is ready.
    async fn ready(&self, deadline: Instant) -> Result<(), LaneError> {
        let pods: Vec<_> =
            self.pods().iter().map(|(name, pod)| (name.clone(), Arc::clone(pod))).collect();
        let agents = pods.iter().map(|(_, pod)| &pod.workload.agent);
        let outside = self.outside.values().map(|workload| &workload.agent);
        try_join_all(agents.chain(outside).map(|agent| agent.connect(deadline - Instant::now())))
            .await?;
        for (name, pod) in pods {
            let Some(prober) = &pod.prober else { continue };
            if timeout_at(deadline, prober.passes()).await.is_err() {
                self.pump.check()?;
                let message = prober.readiness().message;
                let status = message.unwrap_or_else(|| "no probe has ended yet".to_owned());
                return Err(LaneError::NotReady { pod: name, status });
            }
        }
        let waypoints: Vec<_> = self.waypoints().values().cloned().collect();
        for waypoint in waypoints {
            if timeout_at(deadline, waypoint.waypoint.ready()).await.is_err() {
                self.pump.check()?;
                let status = waypoint.waypoint.lacks().unwrap_or_default();
                return Err(LaneError::NotReady { pod: waypoint.reference.clone(), status });
            }
        }
        self.ztunnels_know().await
    }

    async fn start_outside(&self, host: &OutsidePlan) -> Result<Workload, LaneError> {
        let (socket, resolv) = self.file_names();
        let plan = WorkloadPlan {
            addresses: host.addresses.clone(),
            network: Network::Own(Attachment::Outside { addresses: host.addresses.clone() }),
            captured_by: None,
            launch: AgentConfig {
                name: format!("outside/{}", host.name),
                socket,
                resolv_conf: resolv,
                serve: host.serve.clone(),
                tls: host.tls.clone(),
                first: Vec::new(),
            },
            // Nobody resolves names for it.
            resolv_conf: String::new(),
        };
        Ok(self.start_workload(plan).await?)
    }

    /// Makes a waypoint; returns when it listens, ready or not. One that is there stays as it is.
    pub(crate) async fn start_waypoint(
        &self,
        plan: &Plan,
        pod: &WaypointPod,
    ) -> Result<(), LaneError> {
        if self.waypoints().contains_key(&pod.gateway) {
            return Ok(());
        }
        let istiod = self.istiod.get_or_try_init(|| self.start_istiod(plan.istiod())).await?;
        let WaypointPod { gateway, serves, node, labels, workload } = pod.clone();
        let (addresses, attachment) = self.attachment(&workload.reference, node, labels)?;
        self.mesh.add(&addresses, &workload);
        let reference = workload.reference.clone();
        let plan = WaypointPlan {
            mesh: Arc::clone(&self.mesh),
            gateway,
            workload,
            serves,
            control_plane: istiod.control_plane(),
        };
        let (pump, at) = (Arc::clone(&self.pump), addresses.clone());
        let started = blocking(move || Waypoint::start(plan, attachment, &at, &pump)).await;
        let waypoint = started.map_err(|source| LaneError::Waypoint {
            gateway: pod.gateway.clone(),
            source: Box::new(source),
        })?;
        let running = RunningWaypoint { reference, node, addresses, waypoint };
        self.waypoints().insert(pod.gateway.clone(), Arc::new(running));
        Ok(())
    }

    /// Ends a waypoint, if it exists.
    ///
    /// # Errors
    /// When a real ztunnel does not know of that; it is gone all the same.
    pub(crate) async fn stop_waypoint(&self, gateway: &NamespacedName) -> Result<(), LaneError> {
        let Some(running) = self.waypoints().remove(gateway) else { return Ok(()) };
        // Nobody is sent there any more before it ends.
        self.mesh.remove_waypoint(gateway);
        self.mesh.remove(&running.addresses);
        let known = self.ztunnels_know().await;
        let (node, address) = (running.node, running.addresses[0]);
        blocking(move || drop(running)).await;
        self.addresses()[node.0].give_back(address);
        known
    }

    async fn start_istiod(&self, pod: IstiodPod) -> Result<Istiod, LaneError> {
        let IstiodPod { node, labels, workload } = pod;
        let (addresses, attachment) = self.attachment(&workload.reference, node, labels)?;
        self.mesh.add(&addresses, &workload);
        let (pump, mesh) = (Arc::clone(&self.pump), Arc::clone(&self.mesh));
        let identity = workload.identity();
        let started =
            blocking(move || Istiod::start(&mesh, identity, attachment, &addresses, &pump)).await;
        started.map_err(|source| LaneError::Istiod { source: Box::new(source) })
    }

    /// Addresses for a pod of the mesh's own, and how it is plugged in.
    fn attachment(
        &self,
        reference: &PodRef,
        node: NodeId,
        labels: Labels,
    ) -> Result<(Vec<IpAddr>, Attachment), LaneError> {
        let addresses = both(self.addresses()[node.0].take()?, POD_IPV6);
        let attachment = Attachment::Pod {
            reference: reference.clone(),
            node,
            addresses: addresses.clone(),
            labels,
            named_ports: NamedPorts::default(),
        };
        Ok((addresses, attachment))
    }

    /// Makes a pod; returns when its agent runs, ready or not.
    pub(crate) async fn start_pod(
        &self,
        pod: &PodPlan,
        first: Vec<FirstRun>,
    ) -> Result<(), LaneError> {
        let node = &self.nodes[pod.node.0];
        let (addresses, network) = if pod.host_network {
            (node.config.addresses.clone(), Network::OfTheNode(node.netns.clone()))
        } else {
            let address = self.addresses()[pod.node.0].take()?;
            let addresses = both(address, POD_IPV6);
            let attachment = Attachment::Pod {
                reference: pod.reference.clone(),
                node: pod.node,
                addresses: addresses.clone(),
                labels: pod.identified_by(&pod.own_labels),
                named_ports: pod.named_ports.clone(),
            };
            (addresses, Network::Own(attachment))
        };
        let (socket, resolv) = self.file_names();
        let address = addresses[0];
        let enrolled = pod.workload.as_ref().filter(|it| it.enrolled);
        let captured_by = enrolled.map(|workload| self.captured_by(pod, workload));
        if let Some(workload) = &pod.workload {
            self.mesh.add(&addresses, workload);
        }
        let plan = WorkloadPlan {
            addresses: addresses.clone(),
            network,
            captured_by,
            launch: AgentConfig {
                name: pod.reference.to_string(),
                socket,
                resolv_conf: resolv,
                serve: pod.serve.clone(),
                tls: pod.tls.clone(),
                first,
            },
            resolv_conf: if pod.host_network {
                // That of the node, which knows no name of the cluster.
                String::new()
            } else {
                resolv_conf(&pod.reference.namespace)
            },
        };
        let made = async {
            self.ztunnels_know().await?;
            Ok::<_, LaneError>(self.start_workload(plan).await?)
        };
        let workload = match made.await {
            Ok(workload) => workload,
            Err(error) => {
                if !pod.host_network {
                    self.mesh.remove(&addresses);
                    self.addresses()[pod.node.0].give_back(address);
                }
                return Err(error);
            }
        };
        let probe_source = node.probe_source(enrolled.is_some(), address);
        let prober = pod.readiness.map(|port| {
            Prober::start(node.thread.handle(), probe_source, SocketAddr::new(address, port))
        });
        let (node, host_network) = (pod.node, pod.host_network);
        let running = RunningPod { node, host_network, probe_source, prober, workload };
        self.pods().insert(pod.reference.clone(), Arc::new(running));
        Ok(())
    }

    /// The ztunnel that a pod of the mesh is in the hands of.
    fn captured_by(&self, pod: &PodPlan, workload: &Arc<MeshWorkload>) -> CapturedBy {
        let workload = Arc::clone(workload);
        match self.ztunnels.get(pod.node.0) {
            Some(process) => CapturedBy::Process {
                process: Arc::clone(process),
                workload,
                captures_names: pod.names_captured,
            },
            None => CapturedBy::Lab(ZtunnelPlan {
                mesh: Arc::clone(&self.mesh),
                node: self.node_name(pod.node).to_owned(),
                workload,
                resolver: pod.names_captured.then_some(KUBE_DNS.into()),
            }),
        }
    }

    /// Waits until the real ztunnels know all that there is to tell now, where there are any.
    async fn ztunnels_know(&self) -> Result<(), LaneError> {
        let generation = *self.mesh.generations().borrow();
        let deadline = Instant::now() + UP;
        for ztunnel in &self.ztunnels {
            if timeout_at(deadline, ztunnel.knows(generation)).await.is_err() {
                ztunnel.check().map_err(|it| LaneError::ZtunnelEnded(Box::new(it)))?;
                let status = ztunnel.refused();
                let status = status.unwrap_or_else(|| "it acknowledges nothing".to_owned());
                return Err(LaneError::NotTold { node: ztunnel.node().to_owned(), status });
            }
        }
        Ok(())
    }

    /// Whether ztunnels are real here.
    pub(crate) const fn has_real_ztunnels(&self) -> bool {
        !self.ztunnels.is_empty()
    }

    /// Whether the real ztunnels still run, where there are any.
    pub(crate) fn check_ztunnels(&self) -> Result<(), ZtunnelProcessError> {
        self.ztunnels.iter().try_for_each(|it| it.check())
    }

    /// What a real ztunnel does not know of what there is to tell now, or refuses to know.
    pub(crate) fn untold(&self) -> Option<String> {
        let generation = *self.mesh.generations().borrow();
        let untold = self.ztunnels.iter().find(|it| !it.knows_now(generation))?;
        let why = match untold.refused() {
            Some(why) => format!("refuses what it is told, its version may not know it: {why}"),
            None => "has not acknowledged everything that it was told".to_owned(),
        };
        Some(format!("the ztunnel of {} {why}", untold.node()))
    }

    /// Those who listen at the edges of the pods of each node, made if they are not there yet.
    pub(crate) async fn listeners(&self) -> Result<BTreeMap<NodeId, Arc<Workload>>, WorkloadError> {
        let mut listeners = self.listeners.lock().await;
        for (index, node) in self.nodes.iter().enumerate() {
            if listeners.contains_key(&NodeId(index)) {
                continue;
            }
            let (socket, resolv) = self.file_names();
            let plan = WorkloadPlan {
                addresses: Vec::new(),
                network: Network::Listening(NodeId(index)),
                captured_by: None,
                launch: AgentConfig {
                    name: format!("capture/{}", node.config.name),
                    socket,
                    resolv_conf: resolv,
                    serve: Vec::new(),
                    tls: None,
                    first: Vec::new(),
                },
                // It sends nothing.
                resolv_conf: String::new(),
            };
            listeners.insert(NodeId(index), Arc::new(self.start_workload(plan).await?));
        }
        Ok(listeners.clone())
    }

    async fn start_workload(&self, plan: WorkloadPlan) -> Result<Workload, WorkloadError> {
        let (pump, command) = (Arc::clone(&self.pump), self.command.clone());
        let runtime = Handle::current();
        blocking(move || Workload::start(plan, &pump, &command, &runtime)).await
    }

    /// Ends a pod, if it exists.
    ///
    /// # Errors
    /// When a real ztunnel does not know of that; the pod is gone all the same.
    pub(crate) async fn stop_pod(&self, pod: &PodRef) -> Result<(), LaneError> {
        let Some(running) = self.pods().remove(pod) else { return Ok(()) };
        let (node, address, shared) = (running.node, running.addresses()[0], running.host_network);
        running.workload.agent.stop().await;
        if !shared {
            self.mesh.remove(running.addresses());
        }
        let known = self.ztunnels_know().await;
        blocking(move || {
            if let Some(ztunnel) = running.ztunnel() {
                ztunnel.leave();
            }
            drop(running);
        })
        .await;
        if !shared {
            self.addresses()[node.0].give_back(address);
        }
        known
    }

    /// Forgets what was learnt from traffic: names, and the tunnels and connections that proxies keep. Whether all of it is
    /// forgotten: a real ztunnel does not forget.
    pub(crate) fn forget(&self) -> bool {
        for pod in self.pods().values() {
            pod.ztunnel().into_iter().for_each(WorkloadZtunnel::forget);
        }
        for running in self.waypoints().values() {
            running.waypoint.forget();
        }
        self.pump.switch().datapath().forget_names();
        !self.has_real_ztunnels()
    }

    /// Ends everything, agents first.
    pub(crate) async fn stop(self) {
        let pods: Vec<_> = std::mem::take(&mut *self.pods()).into_values().collect();
        let agents = pods.iter().map(|pod| &pod.workload.agent);
        let outside = self.outside.values().map(|workload| &workload.agent);
        let listeners: Vec<_> = self.listeners.lock().await.values().cloned().collect();
        let listening = listeners.iter().map(|workload| &workload.agent);
        join_all(agents.chain(outside).chain(listening).map(Agent::stop)).await;
        // Threads are waited for, and the caller's runtime must not be.
        blocking(move || drop((pods, listeners, self))).await;
    }

    /// The switch.
    pub(crate) fn pump(&self) -> &Pump {
        &self.pump
    }

    /// The mesh.
    pub(crate) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The name of a node.
    pub(crate) fn node_name(&self, node: NodeId) -> &str {
        &self.nodes[node.0].config.name
    }

    /// The pods that exist.
    pub(crate) fn pods(&self) -> MutexGuard<'_, BTreeMap<PodRef, Arc<RunningPod>>> {
        // The map is whole whenever the lock is free.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The waypoints that exist.
    pub(crate) fn waypoints(
        &self,
    ) -> MutexGuard<'_, BTreeMap<NamespacedName, Arc<RunningWaypoint>>> {
        // The map is whole whenever the lock is free.
        self.waypoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outside hosts and their addresses.
    pub(crate) fn outside(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        self.outside.iter().map(|(name, workload)| (name.as_str(), workload.addresses.as_slice()))
    }

    fn addresses(&self) -> MutexGuard<'_, Vec<AddressPool>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names for the socket and the `resolv.conf` of one more agent. Numbers, as the path of a
    /// socket has at most 107 bytes (unix(7)) and the name of a pod may have 253.
    fn file_names(&self) -> (PathBuf, PathBuf) {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let name = |kind| self.directory.path().join(format!("{number}.{kind}"));
        (name("sock"), name("resolv.conf"))
    }
}

impl RunningPod {
    /// Its addresses, the first one first.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.workload.addresses
    }

    /// Its agent.
    pub(crate) fn agent(&self) -> &Agent {
        &self.workload.agent
    }

    /// Its ztunnel, if it is in the mesh.
    pub(crate) fn ztunnel(&self) -> Option<&WorkloadZtunnel> {
        self.workload.ztunnel.as_ref()
    }

    /// What kubelet says of it. Without a probe it is ready as soon as its agent answers.
    pub(crate) async fn readiness(&self) -> Readiness {
        match &self.prober {
            Some(prober) => prober.readiness(),
            None => Readiness { ready: self.agent().answers().await, probes: None, message: None },
        }
    }
}

/// Does work that blocks on a thread where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and takes this task with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}
