//! The lab as a fabric: what the engine asks for, told to the switch, the nodes and the agents.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{RwLock, RwLockReadGuard, broadcast};
use ztc_engine::authority::{Authority, AuthorityError};
use ztc_engine::fabric::{
    AddressBook, Change, Cluster, Endpoint, Fabric, FabricError, Lane, Readiness, Receipt, Session,
    Settling, WaypointState, Witness,
};
use ztc_engine::mesh_authority::MeshAuthority;
use ztc_model::condition::Condition;
use ztc_model::identity::Reserved;
use ztc_model::manifest::{Manifest, ObjectRef};
use ztc_model::policy::mesh::waypoint::NotEvaluated;
use ztc_model::policy::{Policy, PolicyKind, PolicyRef};
use ztc_model::suite::{Component, Relabelled};
use ztc_model::world::{NodeSlot, PodRef, Waypoint, World};
use ztc_wire::FirstRun;

use crate::datapath::{Datapath, EndpointState, NodeId, Now};
use crate::fault::{self, Faults, NotAFault};
use crate::host::{
    AgentCommand, AgentError, PumpError, Switch, WorkloadError, ZtunnelProcessError, is_inside,
};
use crate::lane::{LaneError, RunningLane};
use crate::mesh::{self, Mesh, NamespacedName};
use crate::plan::{NODES, Plan};
use crate::real_ztunnel::{self, RealZtunnel, RealZtunnelError};

/// How long the agent of a pod that exists may take to answer.
const AGENT: Duration = Duration::from_secs(5);

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The lab's namespaces were not entered.
    #[error("the lab runs in namespaces of its own: call `ztc_lab::enter` first thing in `main`")]
    Outside,
    /// The faults that are asked for do not exist.
    #[error("cannot read {}", fault::VARIABLE)]
    Fault(#[from] NotAFault),
    /// The real ztunnel that is asked for cannot be used.
    #[error("cannot use what {} names", real_ztunnel::VARIABLE)]
    RealZtunnel(#[from] RealZtunnelError),
    /// There are no certificates.
    #[error(transparent)]
    Certificates(#[from] AuthorityError),
}

/// Why a lane does not do what it is asked.
#[derive(Debug, thiserror::Error)]
enum ClusterError {
    #[error("the lane has been taken down")]
    Down,
    #[error("the lane no longer moves packets")]
    Pump(#[from] PumpError),
    #[error("the lab has no proxy that reads TLS handshakes: `serverNames` would not be enforced")]
    Handshakes,
    #[error("the lab does not relabel pods of the mesh: its ztunnels would not notice")]
    NotRelabelled,
    #[error(
        "a real ztunnel is not restarted in the lab, which restarts its own alone; unset {}",
        real_ztunnel::VARIABLE
    )]
    NotRestarted,
    #[error(transparent)]
    NotEvaluated(#[from] NotEvaluated),
    #[error("the world has no pod {pod}")]
    NoSuchPod { pod: PodRef },
    #[error("pod {pod} does not exist now")]
    Absent { pod: PodRef },
    #[error("pod {pod} exists already")]
    Exists { pod: PodRef },
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Ztunnel(#[from] ZtunnelProcessError),
    #[error(transparent)]
    Lane(#[from] LaneError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
}

/// Where those who capture are found by their nodes, as if it were a namespace.
const CAPTURE: &str = "ztc-capture";

/// Makes lanes out of network namespaces.
pub struct Lab {
    agent: AgentCommand,
    faults: Faults,
    /// How those are broken who come back from a restart.
    installed: Installed,
    authority: Authority,
    /// What decides in the mesh, if it is not the lab's own.
    ztunnel: Option<RealZtunnel>,
}

/// What lanes install when something restarts: the same for all of them.
type Installed = Arc<Mutex<Faults>>;

impl Lab {
    /// A lab whose agents are started by `agent`, broken as `ZTC_LAB_FAULT` says.
    ///
    /// # Errors
    /// [`LabError`], when [`enter`](crate::enter) has not returned
    /// [`Inside`](crate::Entered::Inside) or a fault is unknown.
    pub fn new(agent: AgentCommand) -> Result<Self, LabError> {
        if !is_inside() {
            return Err(LabError::Outside);
        }
        let faults: Faults = env::var(fault::VARIABLE).unwrap_or_default().parse()?;
        let authority = Authority::new(Authority::secret()?)?;
        let installed = Arc::new(Mutex::new(faults.clone()));
        let ztunnel = RealZtunnel::from_environment()?;
        Ok(Self { agent, faults, installed, authority, ztunnel })
    }

    /// The version of the real ztunnel that decides in the mesh; normally it is the lab's own.
    pub fn real_ztunnel(&self) -> Option<&str> {
        self.ztunnel.as_ref().map(|it| it.version.as_str())
    }

    /// The same, broken in these ways besides.
    #[must_use]
    pub fn broken(self, faults: Faults) -> Self {
        let faults = self.faults.and(faults);
        let installed = Arc::new(Mutex::new(faults.clone()));
        Self { faults, installed, ..self }
    }

    /// Has everything that restarts from now on come back as one of a lab that is broken in these ways, as far as that shows
    /// in a restart. What it decides stays as it is: an upgraded lab is another one.
    pub fn install(&self, faults: Faults) {
        *self.installed.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// How it is broken on purpose, in the words of `ZTC_LAB_FAULT`; normally not at all.
    pub fn faults(&self) -> Option<String> {
        Some(self.faults.to_string()).filter(|it| !it.is_empty())
    }
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab").field("faults", &self.faults).finish_non_exhaustive()
    }
}

#[async_trait]
impl Fabric for Lab {
    async fn up(&self, world: Arc<World>, lane: Lane) -> Result<Arc<dyn Cluster>, FabricError> {
        // Whatever was made is dropped with the error: nothing is left behind.
        let failed = |source| FabricError::Up { lane, leftovers: Vec::new(), source };
        let plan = Plan::new(&world, &self.authority).map_err(|source| failed(source.into()))?;
        let ztunnel = self.ztunnel.as_ref().map(|it| it.program.as_path());
        let (agent, faults) = (self.agent.clone(), self.faults.clone());
        let running = RunningLane::start(lane, &plan, agent, faults, ztunnel)
            .await
            .map_err(|source| failed(source.into()))?;
        let switch = Arc::clone(running.pump().switch());
        let births = tokio::sync::Mutex::new(());
        let installed = Arc::clone(&self.installed);
        let running = RwLock::new(Some(running));
        Ok(Arc::new(LabCluster { plan, switch, installed, births, running }))
    }
}

/// A lane of the lab.
#[derive(Debug)]
struct LabCluster {
    plan: Plan,
    switch: Arc<Switch>,
    installed: Installed,
    /// Held while a pod is made or unmade, so that no two are made under one name.
    births: tokio::sync::Mutex<()>,
    /// Absent when the lane has been taken down.
    running: RwLock<Option<RunningLane>>,
}

impl LabCluster {
    /// The lane, if it still works.
    async fn running(&self) -> Result<RwLockReadGuard<'_, RunningLane>, ClusterError> {
        let running = RwLockReadGuard::try_map(self.running.read().await, Option::as_ref)
            .map_err(|_down| ClusterError::Down)?;
        running.pump().check()?;
        Ok(running)
    }

    async fn address_book(&self) -> Result<AddressBook, ClusterError> {
        let running = self.running().await?;
        let pods = running.pods();
        let mut book = AddressBook {
            kubelet: pods.iter().map(|(name, pod)| (name.clone(), pod.probe_source)).collect(),
            ..AddressBook::default()
        };
        for (name, pod) in pods.iter() {
            let addresses = pod.addresses();
            book.pods.extend(addresses.first().map(|it| (name.clone(), *it)));
            book.second_of_pods.extend(addresses.get(1).map(|it| (name.clone(), *it)));
        }
        for (name, addresses) in running.outside() {
            book.outside.extend(addresses.first().map(|it| (name.to_owned(), *it)));
            book.second_of_outside.extend(addresses.get(1).map(|it| (name.to_owned(), *it)));
        }
        Ok(book)
    }

    async fn endpoint_list(&self) -> Result<Vec<Endpoint>, ClusterError> {
        let running = self.running().await?;
        let (states, revision) = {
            let datapath = self.switch.datapath();
            (datapath.endpoints(), datapath.revision())
        };
        let mut endpoints = Vec::with_capacity(states.len());
        for EndpointState { reference, node, identity, realised, .. } in states {
            // Between the switch and the list of pods a pod may come or go.
            let pod = running.pods().get(&reference).cloned();
            let Some(pod) = pod else { continue };
            endpoints.push(Endpoint {
                node: running.node_name(node).to_owned(),
                identity: Some(identity),
                realised,
                audit: false,
                readiness: pod.readiness().await,
                pod: reference,
            });
        }
        // To Cilium they are their node, which no policy is about.
        let in_nodes: Vec<_> = {
            let pods = running.pods();
            let all = pods.iter().filter(|(_, pod)| pod.host_network);
            all.map(|(name, pod)| (name.clone(), Arc::clone(pod))).collect()
        };
        for (reference, pod) in in_nodes {
            endpoints.push(Endpoint {
                node: running.node_name(pod.node).to_owned(),
                identity: Some(Reserved::Host.number()),
                realised: revision,
                audit: false,
                readiness: pod.readiness().await,
                pod: reference,
            });
        }
        Ok(endpoints)
    }

    /// Tells the switch of a change and says what to wait for.
    async fn change(
        &self,
        make: impl FnOnce(&mut Datapath, &Mesh, Now) -> u64 + Send,
    ) -> Result<Receipt, ClusterError> {
        let running = self.running().await?;
        let now = Now::read();
        let revision = make(&mut self.switch.datapath(), running.mesh(), now);
        let nodes = (0..NODES.len()).map(|node| running.node_name(NodeId(node)).to_owned());
        Ok(Receipt {
            accepted: now.monotonic,
            change: Change::Revisions(nodes.map(|node| (node, revision)).collect()),
        })
    }

    async fn apply_policy(&self, policy: Policy) -> Result<Receipt, ClusterError> {
        if policy.reads_handshakes() {
            return Err(ClusterError::Handshakes);
        }
        let of_the_mesh = match &policy {
            Policy::Mesh(policy) => Some(policy.clone()),
            _ => None,
        };
        if let Some(policy) = &of_the_mesh {
            mesh::check(policy)?;
        }
        let apply = |datapath: &mut Datapath, mesh: &Mesh, now| {
            let revision = datapath.apply(policy, now);
            if let Some(policy) = of_the_mesh {
                mesh.apply(policy, revision);
            }
            revision
        };
        self.change(apply).await
    }

    async fn apply_gateway(
        &self,
        manifest: &Manifest,
        waypoint: &Waypoint,
    ) -> Result<Receipt, ClusterError> {
        let _alone = self.births.lock().await;
        let accepted = Now::read().monotonic;
        let running = self.running().await?;
        running.start_waypoint(&self.plan, &self.plan.waypoint(waypoint)).await?;
        let object = manifest.reference.clone();
        Ok(Receipt { accepted, change: Change::Added { object, uid: String::new() } })
    }

    async fn delete_gateway(&self, gateway: &NamespacedName) -> Result<Receipt, ClusterError> {
        let _alone = self.births.lock().await;
        let accepted = Now::read().monotonic;
        self.running().await?.stop_waypoint(gateway).await?;
        // It is gone, and everybody knows.
        Ok(Receipt { accepted, change: Change::Nothing })
    }

    /// What kubelet would say of a waypoint.
    async fn waypoint_state(
        &self,
        waypoint: &PodRef,
    ) -> Result<Option<WaypointState>, ClusterError> {
        let running = self.running().await?;
        let found = running.waypoints().get(&gateway_name(waypoint)).cloned();
        Ok(found.map(|it| {
            let message = it.lacks();
            let addresses = it.addresses.clone();
            WaypointState { ready: message.is_none(), message, addresses }
        }))
    }

    /// What istiod would write into the status of an object.
    async fn conditions_of(
        &self,
        object: &ObjectRef,
    ) -> Result<Option<Vec<Condition>>, ClusterError> {
        let running = self.running().await?;
        let Some(gateway) = as_gateway(object) else {
            return Ok(running.mesh().conditions(object));
        };
        let found = running.waypoints().get(&gateway).map(|it| it.lacks());
        Ok(found.map(|lacks| vec![mesh::programmed(lacks)]))
    }

    async fn look(&self, receipts: &[Receipt]) -> Result<Settling, ClusterError> {
        let running = self.running().await?;
        let wanted_on = |node: &str| {
            let wanted = receipts.iter().filter_map(|receipt| match &receipt.change {
                Change::Revisions(revisions) => revisions.get(node).copied(),
                _ => None,
            });
            wanted.max()
        };
        let (endpoints, away) = {
            let datapath = self.switch.datapath();
            (datapath.endpoints(), datapath.agents_are_away(Now::read().monotonic))
        };
        for receipt in receipts {
            let Change::Restarted { component, .. } = receipt.change else { continue };
            let is_away = match component {
                Component::Cilium => away,
                Component::Ztunnel => running.mesh().ztunnels_restart(),
            };
            if is_away {
                let status = format!("{component} is not back from its restart");
                return Ok(Settling::NotYet { status });
            }
        }
        let mut late: Vec<String> = endpoints
            .iter()
            .filter_map(|endpoint| {
                let wanted = wanted_on(running.node_name(endpoint.node))?;
                let EndpointState { reference, realised, .. } = endpoint;
                (*realised < wanted)
                    .then(|| format!("{reference} is at revision {realised} of {wanted}"))
            })
            .collect();
        let of_the_mesh = running.mesh().revision();
        running.check_ztunnels()?;
        late.extend(running.pods().iter().filter_map(|(name, pod)| {
            let realised = pod.ztunnel()?.realised()?;
            (realised < of_the_mesh).then(|| {
                format!("the ztunnel of {name} is at revision {realised} of {of_the_mesh}")
            })
        }));
        let gateways = receipts.iter().filter_map(|receipt| match &receipt.change {
            Change::Added { object, .. } => as_gateway(object),
            _ => None,
        });
        for gateway in gateways {
            let lacks = match running.waypoints().get(&gateway) {
                Some(waypoint) => waypoint.lacks(),
                None => Some("it does not exist".to_owned()),
            };
            late.extend(lacks.map(|why| format!("waypoint {gateway} is not ready: {why}")));
        }
        late.extend(running.untold());
        Ok(if late.is_empty() {
            Settling::Realised
        } else {
            Settling::NotYet { status: late.join(", ") }
        })
    }

    async fn open_session(&self, pod: &PodRef) -> Result<Session, ClusterError> {
        let running = self.running().await?;
        let connected = if pod.namespace == CAPTURE {
            let listeners = running.listeners().await?;
            let found = listeners.iter().find(|(node, _)| running.node_name(**node) == pod.name);
            let (_, found) = found.ok_or_else(|| ClusterError::Absent { pod: pod.clone() })?;
            found.agent.connect(AGENT).await?
        } else {
            let found = running.pods().get(pod).cloned();
            let found = found.ok_or_else(|| ClusterError::Absent { pod: pod.clone() })?;
            found.agent().connect(AGENT).await?
        };
        let (reader, writer) = connected.into_split();
        Ok(Session { reader: Box::new(reader), writer: Box::new(writer) })
    }

    async fn listeners(&self) -> Result<BTreeMap<NodeSlot, PodRef>, ClusterError> {
        let running = self.running().await?;
        let listeners = running.listeners().await?;
        let slots = [NodeSlot::A, NodeSlot::B].into_iter();
        let named = listeners.keys().map(|node| PodRef {
            namespace: CAPTURE.to_owned(),
            name: running.node_name(*node).to_owned(),
        });
        Ok(slots.zip(named).collect())
    }

    async fn make_pod(&self, pod: &PodRef, first: Vec<FirstRun>) -> Result<(), ClusterError> {
        // Nobody but the agent sets up the network of a pod (`plugins/cilium-cni` of Cilium), and time alone brings it back.
        let back = self.switch.datapath().agents_back_at(Now::read().monotonic);
        if let Some(back) = back {
            tokio::time::sleep_until(back.into()).await;
        }
        let _alone = self.births.lock().await;
        let running = self.running().await?;
        let plan =
            self.plan.pods.get(pod).ok_or_else(|| ClusterError::NoSuchPod { pod: pod.clone() })?;
        if running.pods().contains_key(pod) {
            return Err(ClusterError::Exists { pod: pod.clone() });
        }
        Ok(running.start_pod(plan, first).await?)
    }

    async fn unmake_pod(&self, pod: &PodRef) -> Result<(), ClusterError> {
        let _alone = self.births.lock().await;
        Ok(self.running().await?.stop_pod(pod).await?)
    }
}

#[async_trait]
impl Cluster for LabCluster {
    async fn addresses(&self) -> Result<AddressBook, FabricError> {
        self.address_book().await.map_err(|error| FabricError::Addresses { source: error.into() })
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, FabricError> {
        self.endpoint_list().await.map_err(|error| FabricError::Endpoints { source: error.into() })
    }

    async fn readiness(&self, pod: &PodRef) -> Result<Option<Readiness>, FabricError> {
        let readiness = async {
            let running = self.running().await?;
            let found = running.pods().get(pod).cloned();
            Ok::<_, ClusterError>(match found {
                Some(pod) => Some(pod.readiness().await),
                None => None,
            })
        };
        readiness
            .await
            .map_err(|error| FabricError::Readiness { pod: pod.clone(), source: error.into() })
    }

    async fn waypoint(&self, waypoint: &PodRef) -> Result<Option<WaypointState>, FabricError> {
        self.waypoint_state(waypoint)
            .await
            .map_err(|error| FabricError::Readiness { pod: waypoint.clone(), source: error.into() })
    }

    async fn conditions(&self, object: &ObjectRef) -> Result<Option<Vec<Condition>>, FabricError> {
        self.conditions_of(object)
            .await
            .map_err(|error| FabricError::Status { object: object.clone(), source: error.into() })
    }

    async fn apply(&self, manifest: &Manifest) -> Result<Receipt, FabricError> {
        let applied = match &manifest.policy {
            Policy::Gateway { waypoint, .. } => self.apply_gateway(manifest, waypoint).await,
            policy => self.apply_policy(policy.clone()).await,
        };
        applied.map_err(|error| FabricError::Apply {
            object: manifest.reference.clone(),
            source: error.into(),
        })
    }

    async fn delete(&self, object: &ObjectRef) -> Result<Receipt, FabricError> {
        let withdrawn = |datapath: &mut Datapath, mesh: &Mesh, now| match policy_ref(object) {
            Some(policy) => {
                let revision = datapath.remove(&policy, now);
                mesh.withdraw(&policy, revision);
                revision
            }
            None => datapath.revision(),
        };
        let deleted = match as_gateway(object) {
            Some(gateway) => self.delete_gateway(&gateway).await,
            None => self.change(withdrawn).await,
        };
        deleted
            .map_err(|error| FabricError::Delete { object: object.clone(), source: error.into() })
    }

    async fn relabel(&self, change: &Relabelled) -> Result<Receipt, FabricError> {
        let Relabelled { pod, labels } = change;
        let relabelled = async {
            let plan = self.plan.pods.get(pod);
            let plan = plan.ok_or_else(|| ClusterError::NoSuchPod { pod: pod.clone() })?;
            if plan.workload.as_ref().is_some_and(|it| it.enrolled) {
                return Err(ClusterError::NotRelabelled);
            }
            let labels = plan.identified_by(labels);
            self.change(|datapath, _mesh, now| datapath.relabel(pod, labels, now)).await
        };
        relabelled
            .await
            .map_err(|error| FabricError::Relabel { pod: pod.clone(), source: error.into() })
    }

    async fn restart(&self, component: Component) -> Result<Receipt, FabricError> {
        let restarted = async {
            let running = self.running().await?;
            if component == Component::Ztunnel && running.has_real_ztunnels() {
                return Err(ClusterError::NotRestarted);
            }
            let now = Now::read();
            let installed = self.installed.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // Before the first record is missing.
            self.switch.interrupt(format!("{component} restarts"));
            match component {
                Component::Cilium => self.switch.datapath().restart_agents(installed, now),
                Component::Ztunnel => running.mesh().restart_ztunnels(&installed, now.monotonic),
            }
            let change = Change::Restarted { component, before: BTreeSet::new() };
            Ok::<_, ClusterError>(Receipt { accepted: now.monotonic, change })
        };
        restarted.await.map_err(|error| FabricError::Restart { component, source: error.into() })
    }

    async fn settled(&self, receipts: &[Receipt]) -> Result<Settling, FabricError> {
        self.look(receipts).await.map_err(|error| FabricError::Settled { source: error.into() })
    }

    async fn session(&self, pod: &PodRef) -> Result<Session, FabricError> {
        self.open_session(pod)
            .await
            .map_err(|error| FabricError::Session { pod: pod.clone(), source: error.into() })
    }

    async fn create_pod(&self, pod: &PodRef, first: Vec<FirstRun>) -> Result<(), FabricError> {
        self.make_pod(pod, first)
            .await
            .map_err(|error| FabricError::CreatePod { pod: pod.clone(), source: error.into() })
    }

    async fn delete_pod(&self, pod: &PodRef) -> Result<(), FabricError> {
        self.unmake_pod(pod)
            .await
            .map_err(|error| FabricError::DeletePod { pod: pod.clone(), source: error.into() })
    }

    async fn capture_points(&self) -> Result<BTreeMap<NodeSlot, PodRef>, FabricError> {
        self.listeners().await.map_err(|error| FabricError::Capture { source: error.into() })
    }

    async fn mesh_authority(&self) -> Result<Arc<MeshAuthority>, FabricError> {
        let running = self.running().await;
        let authority = running.map(|it| it.mesh().trust().authority());
        authority.map_err(|error| FabricError::MeshAuthority { source: error.into() })
    }

    async fn forget(&self) -> bool {
        self.running().await.is_ok_and(|running| running.forget())
    }

    fn evidence(&self) -> broadcast::Receiver<Witness> {
        self.switch.subscribe()
    }

    fn broken(&self) -> Option<String> {
        let running = self.running.try_read().ok()?;
        running.as_ref()?.check_ztunnels().err().map(|error| error.to_string())
    }

    async fn down(&self) -> Result<(), FabricError> {
        let running = self.running.write().await.take();
        if let Some(running) = running {
            running.stop().await;
        }
        Ok(())
    }
}

/// The waypoint of that name, where the object is a gateway.
fn as_gateway(object: &ObjectRef) -> Option<NamespacedName> {
    let namespace =
        object.namespace.as_ref().filter(|_| object.kind == PolicyKind::Gateway.name())?;
    Some(NamespacedName { namespace: namespace.clone(), name: object.name.clone() })
}

fn gateway_name(waypoint: &PodRef) -> NamespacedName {
    NamespacedName { namespace: waypoint.namespace.clone(), name: waypoint.name.clone() }
}

/// The policy of that name; none when it is of a kind that the lab does not enforce.
fn policy_ref(object: &ObjectRef) -> Option<PolicyRef> {
    let kind = PolicyKind::ALL.into_iter().find(|kind| kind.name() == object.kind)?;
    Some(PolicyRef { kind, namespace: object.namespace.clone(), name: object.name.clone() })
}
