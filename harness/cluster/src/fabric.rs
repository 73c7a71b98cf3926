//! A real cluster as a fabric: what the engine asks for, told to the API server, Cilium's agents and Docker.

mod lane;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use tokio::sync::{Mutex, OnceCell};
use ztc_engine::authority::{Authority, AuthorityError};
use ztc_engine::fabric::{Cluster, Fabric, FabricError, Lane};
use ztc_engine::profile::IpFamily;
use ztc_engine::wait::{Look, WaitError, until};
use ztc_model::manifest::ObjectRef;
use ztc_model::world::{NodeSlot, PodRef, World};
use ztc_model::yaml::Diagnostic;

use crate::api::{self, ApiError, OnBehalf, Ours};
use crate::cilium::{Agents, CiliumError};
use crate::exec;
use crate::fabric::lane::RealLane;
use crate::ledger::Ledger;
use crate::mesh::{MeshError, Waypoint, Ztunnels};
use crate::objects::{self, Setting};
use crate::observers::Observers;
use crate::outside::{Hosts, Outside, OutsideError};
use crate::pods::Pods;
use crate::preflight::{Finding, Seen, findings};
use crate::ready::{Hosting, Ready};

/// How long the API server may be away before it is given up.
const AWAY: Duration = Duration::from_secs(45);
/// Between two looks whether a world is gone.
const POLL: Duration = Duration::from_millis(200);

/// Why a cluster does not do what it is asked.
#[derive(Debug, thiserror::Error)]
enum ClusterError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Cilium(#[from] CiliumError),
    #[error(transparent)]
    Mesh(#[from] MeshError),
    #[error("cannot read {policy} as the API server has it")]
    Stored { policy: String, source: Box<Diagnostic> },
    #[error(transparent)]
    Exec(#[from] exec::ExecError),
    #[error(transparent)]
    Certificates(#[from] AuthorityError),
    #[error(transparent)]
    Outside(#[from] OutsideError),
    #[error(transparent)]
    Wait(#[from] WaitError),
    #[error("the cluster has {nodes} nodes, and a world needs 2")]
    Nodes { nodes: usize },
    #[error("Cilium does not take {object}: {reason}")]
    Invalid { object: ObjectRef, reason: String },
    #[error("Cilium takes {object}, which the case says to be invalid")]
    Valid { object: ObjectRef },
    #[error("the world has no pod {pod}")]
    NoSuchPod { pod: PodRef },
    #[error("pod {pod} does not exist now")]
    Absent { pod: PodRef },
    #[error("the cluster has no mesh")]
    NoMesh,
}

impl ClusterError {
    /// Whether it may be over at the next look: somebody restarts, and does not answer meanwhile.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Api(_)
                | Self::Cilium(CiliumError::Exec(_) | CiliumError::None | CiliumError::Api(_))
                | Self::Mesh(_)
        )
    }
}

/// A cluster that is ready, as a fabric.
pub struct RealCluster {
    ready: Arc<Ready>,
    agents: Agents,
    /// Held by the lane that looks after what lanes share: the hosts outside and the zone of cluster DNS.
    hosting: Mutex<()>,
    /// Held by the lane that changes policies.
    turns: Arc<Mutex<()>>,
    /// The worlds of the run, where it says which; what stands of others goes before the first of them is made.
    worlds: Option<BTreeSet<String>>,
    alone: OnceCell<()>,
    /// The API server was waited for in vain: no case waits for it again.
    lost: AtomicBool,
}

impl RealCluster {
    /// Looks for Cilium's agents in a cluster that is ready.
    ///
    /// # Errors
    /// When there is none.
    pub async fn new(ready: Ready) -> Result<Self, CiliumError> {
        let agents = Agents::find(ready.client.clone()).await?;
        Ok(Self {
            ready: Arc::new(ready),
            agents,
            hosting: Mutex::default(),
            turns: Arc::default(),
            worlds: None,
            alone: OnceCell::new(),
            lost: AtomicBool::new(false),
        })
    }

    /// For a run that uses these worlds and no others. What earlier runs left standing of others in a cluster of ours is
    /// taken down: each of its endpoints would be regenerated with every clusterwide policy.
    #[must_use]
    pub fn of_worlds(self, worlds: BTreeSet<String>) -> Self {
        Self { worlds: Some(worlds), ..self }
    }

    /// What would make verdicts wrong or impossible, what blocks first.
    ///
    /// # Errors
    /// When the cluster does not let itself be looked at.
    pub async fn findings(&self) -> Result<Vec<Finding>, CiliumError> {
        let Ready { client, spec, nodes, .. } = &*self.ready;
        let seen = Seen::gather(client, &self.agents, nodes).await?;
        Ok(findings(&seen, spec))
    }

    /// What it is made of.
    pub(crate) fn ready(&self) -> Arc<Ready> {
        Arc::clone(&self.ready)
    }

    /// What has been made in it and removed from it.
    pub fn ledger(&self) -> Ledger {
        self.ready.ledger.clone()
    }

    /// The versions of its parts.
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.ready.spec.versions()
    }
}

impl fmt::Debug for RealCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealCluster").field("cluster", &self.ready.cluster).finish_non_exhaustive()
    }
}

#[async_trait]
impl Fabric for RealCluster {
    async fn up(&self, world: Arc<World>, lane: Lane) -> Result<Arc<dyn Cluster>, FabricError> {
        match self.furnish(world, lane).await {
            Ok(cluster) => Ok(Arc::new(cluster)),
            // Pods that were made are used or replaced by the next lane.
            Err(source) => {
                Err(FabricError::Up { lane, leftovers: Vec::new(), source: source.into() })
            }
        }
    }
}

impl RealCluster {
    /// Waits for an API server that is away, once a run.
    async fn awaited(&self) -> Result<(), ClusterError> {
        let client = &self.ready.client;
        if self.lost.load(Ordering::Relaxed) {
            api::version(client).await?;
        }
        self.lost.store(true, Ordering::Relaxed);
        api::answered(AWAY, || api::version(client)).await??;
        self.lost.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Takes down the pods and the waypoints of the worlds that this run does not use.
    async fn take_others_down(&self) -> Result<(), ClusterError> {
        let Ready { client, ledger, spec, keeps_worlds, .. } = &*self.ready;
        let Some(worlds) = self.worlds.as_ref().filter(|it| *keeps_worlds && !it.is_empty()) else {
            return Ok(());
        };
        // A waypoint makes its pods again for as long as it is there.
        let gateways = spec.mesh.as_ref().map(|_| ("gateway.networking.k8s.io/v1", "Gateway"));
        for (version, kind) in gateways.into_iter().chain([("v1", "Pod")]) {
            let others = || api::ours(client, version, kind, Ours::OtherWorlds(worlds));
            for object in others().await? {
                match (kind, &object.namespace) {
                    ("Pod", Some(namespace)) => {
                        api::delete_pod(client, namespace, &object.name).await?;
                    }
                    _ => drop(api::delete(client, &object).await?),
                }
                ledger.removed(object.to_string());
            }
            until("the end of worlds that this run does not use", AWAY, POLL, || async {
                match others().await {
                    Ok(left) => Ok(left.first().map_or(Look::Met(()), |object| Look::NotYet {
                        status: format!("{object} still exists"),
                    })),
                    Err(error) => Ok(Look::NotYet { status: ztc_engine::chain(&error) }),
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn furnish(&self, world: Arc<World>, lane: Lane) -> Result<RealLane, ClusterError> {
        let Ready {
            client, spec, outside, cluster, nodes, image, pull, ledger, run, secret, ..
        } = &*self.ready;
        self.awaited().await?;
        self.alone.get_or_try_init(|| self.take_others_down()).await?;
        let [first, second, ..] = nodes.as_slice() else {
            return Err(ClusterError::Nodes { nodes: nodes.len() });
        };
        let slots = BTreeMap::from([(NodeSlot::A, first.clone()), (NodeSlot::B, second.clone())]);
        let authority = Arc::new(Authority::new(*secret)?);
        let hosts = match outside {
            Hosting::Containers(docker) => {
                let _alone = self.hosting.lock().await;
                let dual_stack = spec.ip_family == IpFamily::Dual;
                let authority = &authority;
                let outside =
                    Outside { docker, client, cluster, nodes, image, dual_stack, authority };
                outside.bring_up(&world).await?
            }
            Hosting::Given(addresses) => {
                let (addresses, second) = (addresses.clone(), BTreeMap::new());
                Hosts { zone: world.outside_zone(&addresses), addresses, second }
            }
        };
        let setting = Setting { image: image.clone(), pull: *pull, nodes: slots, authority };
        for object in objects::before_pods(&world) {
            let name = api::make_ours(client, &object).await?;
            ledger.made(name);
        }
        let ztunnels = spec.mesh.as_ref().map(|_| Ztunnels::new(client.clone()));
        let waypoints: Vec<Waypoint> =
            world.waypoints.iter().map(|it| Waypoint::new(client.clone(), it)).collect();
        let (own, on_behalf) = OnBehalf::of_nobody(client.clone(), run);
        let mut lane = RealLane {
            client: own,
            on_behalf,
            turns: Arc::clone(&self.turns),
            // Each endpoint of a copy would be regenerated with every clusterwide policy of the runs to come.
            stays: self.ready.keeps_worlds && lane == Lane(0),
            pods: Pods::watch(client, &world.world).await?,
            observers: Observers::of_nobody(),
            ztunnels,
            waypoints,
            agents: self.agents.clone(),
            internal: internal_addresses(client).await?,
            ready: Arc::clone(&self.ready),
            world,
            setting,
            hosts,
        };
        lane.sweep().await?;
        lane.populate().await?;
        // Before, a waypoint need not be there to be listened to.
        lane.observers = lane.observe().await;
        Ok(lane)
    }
}

/// The addresses of Cilium's own interface on each node: local probes come from there.
async fn internal_addresses(client: &kube::Client) -> Result<BTreeMap<String, IpAddr>, ApiError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("cilium.io", "v2", "CiliumNode"));
    let nodes: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let listed = nodes.list(&ListParams::default()).await.map_err(|source| ApiError::Read {
        what: "Cilium's nodes".to_owned(),
        source: source.into(),
    })?;
    let internal = |node: &DynamicObject| {
        let addresses = node.data["spec"]["addresses"].as_array()?;
        let own = addresses.iter().find(|it| it["type"] == "CiliumInternalIP")?;
        own["ip"].as_str()?.parse().ok()
    };
    let named =
        listed.items.iter().filter_map(|it| Some((it.metadata.name.clone()?, internal(it)?)));
    Ok(named.collect())
}
