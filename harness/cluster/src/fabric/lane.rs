//! A world in a real cluster: what the engine asks of it.

mod captures;
mod labels;
mod mesh;
mod mode;
mod newborns;
mod settling;
mod waypoints;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, broadcast};
use ztc_engine::fabric::{
    AddressBook, Cause, Change, Cluster, Endpoint, FabricError, Inspection, Readiness, Receipt,
    Session, Settling, WaypointState, Witness,
};
use ztc_engine::mesh_authority::MeshAuthority;
use ztc_engine::wait::{Look, until};
use ztc_model::condition::Condition;
use ztc_model::identity::Reserved;
use ztc_model::manifest::{Manifest, ObjectRef};
use ztc_model::policy::{Policy, PolicyKind};
use ztc_model::suite::{CaseId, Component, Relabelled};
use ztc_model::world::{Born, NodeSlot, PodRef, World};
use ztc_wire::FirstRun;

use crate::admin;
use crate::api::{self, ApiError, OnBehalf, Ours};
use crate::bundle::hex;
use crate::cilium::{Agents, CiliumError, EnforcementMode};
use crate::exec;
use crate::mesh::{Waypoint, Ztunnels};
use crate::objects::{self, Setting};
use crate::observers::Observers;
use crate::outside::Hosts;
use crate::pods::{self, Pods, concluded_probes};
use crate::ready::Ready;
use crate::realised::AgentState;

use self::waypoints::{is_gateway, named as named_gateway};
use super::{AWAY, ClusterError};

/// The address that Istio gives to kubelet's probes of ambient pods (`HOST_PROBE_SNAT_IP`, `cni/README.md`).
const AMBIENT_PROBE: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 127);

/// How long a world may take until all of it is ready.
const UP: Duration = Duration::from_mins(3);
/// How long a pod may take to start, or to go.
const POD: Duration = Duration::from_mins(1);
/// Between two looks at what a watch has brought, or at an agent.
const POLL: Duration = Duration::from_millis(50);

/// The annotation that tells whether a pod is still the one that is wanted.
const CONTENTS: &str = "ztc.dev/contents";

/// The world of a case in a real cluster.
pub(super) struct RealLane {
    pub(super) ready: Arc<Ready>,
    /// Says for which case it asks.
    pub(super) client: Client,
    pub(super) on_behalf: OnBehalf,
    /// Held by the lane that changes policies.
    pub(super) turns: Arc<Mutex<()>>,
    /// Whether the world stays for the next run.
    pub(super) stays: bool,
    pub(super) world: Arc<World>,
    pub(super) setting: Setting,
    pub(super) hosts: Hosts,
    pub(super) agents: Agents,
    pub(super) observers: Observers,
    /// Where there is a mesh.
    pub(super) ztunnels: Option<Ztunnels>,
    pub(super) waypoints: Vec<Waypoint>,
    pub(super) pods: Pods,
    /// By node.
    pub(super) internal: BTreeMap<String, IpAddr>,
}

impl fmt::Debug for RealLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealLane").field("world", &self.world.world).finish_non_exhaustive()
    }
}

impl RealLane {
    /// Removes the policies that are here for nobody, those of runs before this one and those of this lane, and waits
    /// until nothing enforces them. Those of other lanes stay.
    pub(super) async fn sweep(&self) -> Result<(), ClusterError> {
        let Ready { run, ledger, .. } = &*self.ready;
        let mut changes = Vec::new();
        for kind in PolicyKind::ALL {
            for meant in left_over(kind, &self.world.world, run) {
                let found = api::ours(&self.client, kind.api_version(), kind.name(), meant).await?;
                for object in found {
                    let uid = api::delete(&self.client, &object).await?;
                    ledger.removed(object.to_string());
                    changes.extend(self.reset_mode(&object).await?);
                    changes.extend(uid.map(|uid| Change::Removed { object, uid }));
                }
            }
        }
        let changes: Vec<&Change> = changes.iter().collect();
        until("left-over policies to go", UP, POLL, || async {
            Ok(match self.look(&changes).await {
                Ok(Settling::Realised) => Look::Met(()),
                Ok(Settling::NotYet { status }) => Look::NotYet { status },
                Err(error) => Look::NotYet { status: ztc_engine::chain(&error) },
            })
        })
        .await?;
        Ok(())
    }

    /// Makes the pods that are not there yet as they have to be, and waits until all are ready and
    /// every agent knows who they are.
    pub(super) async fn populate(&self) -> Result<(), ClusterError> {
        let wanted = objects::pods(&self.world, &self.setting, &self.hosts.zone)?;
        let wanted: Vec<(PodRef, Value)> =
            wanted.into_iter().map(|pod| (named(&pod), annotated(pod))).collect();
        self.unmake_newborns().await?;
        for (reference, pod) in &wanted {
            if !self.has(reference, pod) {
                self.make_as_wanted(reference, pod).await?;
            }
        }
        until("the pods of the world", UP, POLL, || async {
            let late = wanted.iter().find_map(|(reference, _)| self.lateness(reference));
            Ok(late.map_or(Look::Met(()), |status| Look::NotYet { status }))
        })
        .await?;
        self.known().await
    }

    /// Whether a pod is there and as it has to be.
    fn has(&self, reference: &PodRef, pod: &Value) -> bool {
        self.pods.get(reference).is_some_and(|it| is_as_wanted(&it, pod))
    }

    /// Makes a pod, in place of one that is not as it has to be.
    async fn make_as_wanted(&self, reference: &PodRef, pod: &Value) -> Result<(), ClusterError> {
        if self.pods.get(reference).is_some() {
            self.remove_pod(reference).await?;
        }
        self.account(&reference.namespace).await?;
        self.ready.ledger.made(api::make_ours(&self.client, pod).await?);
        Ok(())
    }

    /// What a pod of the world still lacks.
    fn lateness(&self, pod: &PodRef) -> Option<String> {
        let Some(found) = self.pods.get(pod) else {
            return Some(format!("pod {pod} does not exist"));
        };
        let readiness = pods::readiness(&found);
        let message = readiness.message.unwrap_or_default();
        (!readiness.ready).then(|| format!("pod {pod} is not Ready: {message}"))
    }

    /// One look: has whoever enforces them realised these changes?
    async fn look(&self, changes: &[&Change]) -> Result<Settling, ClusterError> {
        let (of_the_mesh, of_cilium): (Vec<&Change>, Vec<&Change>) =
            changes.iter().partition(|it| is_of_the_mesh(it));
        if !of_the_mesh.is_empty()
            && let Some(status) = self.mesh_lag(&of_the_mesh).await?
        {
            return Ok(Settling::NotYet { status });
        }
        if let Some(status) = self.restart_lag(&of_cilium).await? {
            return Ok(Settling::NotYet { status });
        }
        if let Some(status) = self.label_lag(&of_cilium).await? {
            return Ok(Settling::NotYet { status });
        }
        Ok(self.agents.settled(&of_cilium).await?)
    }

    /// Listens to everybody who enforces something in this world.
    pub(super) async fn observe(&self) -> Observers {
        Observers::start(&self.agents, self.ztunnels.as_ref(), self.waypoints.clone()).await
    }

    /// Waits until every agent's datapath has the identity of every pod: a peer that is not known
    /// yet is `world`, and would be denied for a wrong reason.
    async fn known(&self) -> Result<(), ClusterError> {
        until("identities in every agent's ipcache", UP, POLL, || async {
            let unknown = async { self.unknown(&self.agents.states().await?).await };
            Ok(match unknown.await {
                Ok(None) => Look::Met(()),
                Ok(Some(status)) => Look::NotYet { status },
                Err(error) => Look::NotYet { status: ztc_engine::chain(&error) },
            })
        })
        .await?;
        until("the mesh to know its workloads", UP, POLL, || async {
            Ok(match self.mesh_lag(&[]).await {
                Ok(None) => Look::Met(()),
                Ok(Some(status)) => Look::NotYet { status },
                Err(error) => Look::NotYet { status: ztc_engine::chain(&error) },
            })
        })
        .await?;
        Ok(())
    }

    /// Whom some agent's datapath does not know as who its own agent says that it is.
    async fn unknown(
        &self,
        states: &BTreeMap<String, AgentState>,
    ) -> Result<Option<String>, CiliumError> {
        let identities: BTreeMap<IpAddr, u32> = states
            .values()
            .flat_map(|state| &state.endpoints)
            .flat_map(|it| it.addresses.iter().filter_map(|address| Some((*address, it.identity?))))
            .collect();
        let caches = self.agents.run("cilium-dbg bpf ipcache list -o json").await?;
        for (reference, pod) in self.pods.all() {
            let Some(address) = pods::address(&pod) else {
                return Ok(Some(format!("pod {reference} has no address")));
            };
            if pods::is_in_node_network(&pod) {
                continue;
            }
            let Some(identity) = identities.get(&address) else {
                return Ok(Some(format!("pod {reference} has no identity")));
            };
            for (node, cache) in &caches {
                let known = crate::realised::cached_identity(cache, address)?;
                if known != Some(*identity) {
                    return Ok(Some(format!(
                        "{node} does not know that {reference} is {identity}"
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Removes policies and pods.
    async fn clear(&self) -> Result<(), ClusterError> {
        self.sweep().await?;
        let pods: Vec<PodRef> = self.pods.all().into_keys().collect();
        try_join_all(pods.iter().map(|pod| self.remove_pod(pod))).await?;
        // A case that could not clean up has left their namespaces.
        self.unmake_newborns().await
    }

    /// Removes what the pods needed, the last first, and waits until all of it is gone.
    async fn leave(&self) -> Result<(), ClusterError> {
        let client = &self.client;
        let mut objects: Vec<ObjectRef> =
            objects::before_pods(&self.world).iter().filter_map(api::reference).collect();
        objects.reverse();
        for object in &objects {
            api::delete(client, object).await?;
        }
        for object in &objects {
            self.gone(object).await?;
        }
        self.remove_capture_namespace().await
    }

    /// Changes what policies there are, when no other lane does: what is realised in which order is told apart then.
    async fn change(
        &self,
        change: impl Future<Output = Result<Change, ClusterError>> + Send,
    ) -> Result<Receipt, ClusterError> {
        let _turn = self.turns.lock().await;
        let change = change.await?;
        Ok(Receipt { accepted: Instant::now(), change })
    }

    async fn endpoint_list(&self) -> Result<Vec<Endpoint>, ClusterError> {
        let states = self.agents.states().await?;
        let mut endpoints = self.in_node_networks();
        for (node, state) in states {
            for listed in state.endpoints {
                // An endpoint that is going away may share its address with the pod that comes.
                let pod = listed.addresses.iter().find_map(|address| self.pods.at(*address));
                let Some((pod, object)) =
                    pod.and_then(|it| Some((it.clone(), self.pods.get(&it)?)))
                else {
                    continue;
                };
                endpoints.push(Endpoint {
                    pod,
                    node: node.clone(),
                    identity: listed.identity,
                    realised: listed.realised,
                    audit: listed.audit,
                    readiness: pods::readiness(&object),
                });
            }
        }
        Ok(endpoints)
    }

    /// The pods in their nodes' networks: to Cilium each is its node, which no policy is about.
    fn in_node_networks(&self) -> Vec<Endpoint> {
        let all = self.pods.all();
        let pods = all.into_iter().filter(|(_, pod)| pods::is_in_node_network(pod));
        let endpoint = |(reference, pod): (PodRef, Arc<Pod>)| Endpoint {
            pod: reference,
            node: pod.spec.as_ref().and_then(|it| it.node_name.clone()).unwrap_or_default(),
            identity: Some(Reserved::Host.number()),
            realised: 0,
            audit: false,
            readiness: pods::readiness(&pod),
        };
        pods.map(endpoint).collect()
    }

    async fn read_readiness(&self, pod: &PodRef) -> Result<Option<Readiness>, ApiError> {
        let Some(found) = self.pods.get(pod) else { return Ok(None) };
        let mut readiness = pods::readiness(&found);
        let node = found.spec.as_ref().and_then(|it| it.node_name.clone());
        if let (Some(node), Some(uid)) = (node, &found.metadata.uid) {
            let path = format!("/api/v1/nodes/{node}/proxy/metrics/probes");
            let failed = |source: kube::Error| ApiError::Read {
                what: format!("kubelet's probes on {node}"),
                source: source.into(),
            };
            let request = http::Request::get(&path)
                .body(Vec::new())
                .map_err(|error| failed(kube::Error::HttpError(error)))?;
            let metrics = self.client.request_text(request).await.map_err(failed)?;
            readiness.probes = Some(concluded_probes(&metrics, uid));
        }
        Ok(Some(readiness))
    }

    fn address_book(&self) -> AddressBook {
        let all = self.pods.all();
        let kubelet = self.world.pods.iter().filter_map(|pod| {
            let source = if self.ready.spec.mesh.is_some() && self.world.is_ambient(pod) {
                AMBIENT_PROBE.into()
            } else {
                *self.internal.get(self.setting.nodes.get(&pod.node)?)?
            };
            Some((pod.reference(), source))
        });
        AddressBook {
            pods: all
                .iter()
                .filter_map(|(name, pod)| Some((name.clone(), pods::address(pod)?)))
                .collect(),
            second_of_pods: all
                .iter()
                .filter_map(|(name, pod)| Some((name.clone(), pods::second_address(pod)?)))
                .collect(),
            outside: self.hosts.addresses.clone(),
            // Outside hosts are containers with an address of IPv4 alone.
            second_of_outside: self.hosts.second.clone(),
            kubelet: kubelet.collect(),
        }
    }

    async fn open_session(&self, pod: &PodRef) -> Result<Session, ClusterError> {
        if self.pods.get(pod).is_none() {
            return Err(ClusterError::Absent { pod: pod.clone() });
        }
        Ok(exec::session(&self.client, &pod.namespace, &pod.name).await?)
    }
}

fn is_of_the_mesh(change: &Change) -> bool {
    let (Change::Added { object, .. } | Change::Removed { object, .. }) = change else {
        return false;
    };
    let of_policies =
        PolicyKind::ALL.iter().any(|kind| kind.is_of_the_mesh() && kind.name() == object.kind);
    of_policies || is_gateway(object)
}

/// What of a kind is here for nobody when a world is made ready. The gateways of a world stay with it: only those that a
/// case has applied are left over.
const fn left_over<'a>(kind: PolicyKind, world: &'a str, run: &'a str) -> [Ours<'a>; 2] {
    match kind {
        PolicyKind::Gateway => [Ours::AppliedIn(world), Ours::AppliedByOthers(run)],
        _ => [Ours::World(world), Ours::OtherRuns(run)],
    }
}

fn named(pod: &Value) -> PodRef {
    let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
    PodRef { namespace: text("namespace"), name: text("name") }
}

/// A pod that says what it was made of. The run that makes it does not matter.
fn annotated(mut pod: Value) -> Value {
    let contents = format!("{}{}", pod["metadata"]["annotations"], pod["spec"]);
    pod["metadata"]["annotations"][CONTENTS] = hex(&Sha256::digest(contents)).into();
    pod
}

fn is_as_wanted(found: &Pod, wanted: &Value) -> bool {
    let contents = found.metadata.annotations.as_ref().and_then(|it| it.get(CONTENTS));
    contents.map(String::as_str) == wanted["metadata"]["annotations"][CONTENTS].as_str()
        && labels::are_as_wanted(found, wanted)
        && pods::is_running(found)
}

#[async_trait]
impl Cluster for RealLane {
    fn on_behalf_of(&self, case: Option<&CaseId>) {
        self.on_behalf.set(case);
    }

    async fn addresses(&self) -> Result<AddressBook, FabricError> {
        Ok(self.address_book())
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, FabricError> {
        self.endpoint_list().await.map_err(|error| FabricError::Endpoints { source: error.into() })
    }

    async fn readiness(&self, pod: &PodRef) -> Result<Option<Readiness>, FabricError> {
        self.read_readiness(pod)
            .await
            .map_err(|error| FabricError::Readiness { pod: pod.clone(), source: error.into() })
    }

    async fn waypoint(&self, waypoint: &PodRef) -> Result<Option<WaypointState>, FabricError> {
        self.waypoint_state(waypoint)
            .await
            .map_err(|error| FabricError::Readiness { pod: waypoint.clone(), source: error.into() })
    }

    async fn conditions(&self, object: &ObjectRef) -> Result<Option<Vec<Condition>>, FabricError> {
        api::conditions(&self.client, object)
            .await
            .map_err(|error| FabricError::Status { object: object.clone(), source: error.into() })
    }

    async fn apply(&self, manifest: &Manifest) -> Result<Receipt, FabricError> {
        let (run, world) = (&self.ready.run, &self.world.world);
        self.change(async {
            let applied = api::apply(&self.client, &manifest.object, run, world).await?;
            self.ready.ledger.made(manifest.reference.to_string());
            let uid = applied.metadata.uid.unwrap_or_default();
            let object = manifest.reference.clone();
            Ok(match (&manifest.policy, &manifest.invalid) {
                // Nobody has anything to realise.
                (Policy::Unenforced(_), _) => Change::Nothing,
                (Policy::Mode(_), _) => self.agents.set_mode(EnforcementMode::Always).await?,
                (_, Some(_)) => Change::Invalid { object },
                (_, None) => Change::Added { object, uid },
            })
        })
        .await
        .map_err(|error| FabricError::Apply {
            object: manifest.reference.clone(),
            source: error.into(),
        })
    }

    async fn delete(&self, object: &ObjectRef) -> Result<Receipt, FabricError> {
        self.change(async {
            if is_gateway(object) {
                // The end of its log is no gap.
                self.observers.leave_waypoint(&named_gateway(object).to_string());
            }
            // A policy that stays would deny to every case that comes.
            let uid = api::answered(AWAY, || api::delete(&self.client, object)).await??;
            self.ready.ledger.removed(object.to_string());
            if let Some(change) = self.reset_mode(object).await? {
                return Ok(change);
            }
            let object = object.clone();
            Ok(uid.map_or(Change::Nothing, |uid| Change::Removed { object, uid }))
        })
        .await
        .map_err(|error| FabricError::Delete { object: object.clone(), source: error.into() })
    }

    async fn relabel(&self, change: &Relabelled) -> Result<Receipt, FabricError> {
        let pod = &change.pod;
        self.change(self.give_labels(change))
            .await
            .map_err(|error| FabricError::Relabel { pod: pod.clone(), source: error.into() })
    }

    async fn restart(&self, component: Component) -> Result<Receipt, FabricError> {
        self.change(async {
            match component {
                Component::Cilium => Ok(self.agents.restart().await?),
                Component::Ztunnel => match &self.ztunnels {
                    Some(ztunnels) => Ok(ztunnels.restart().await?),
                    None => Err(ClusterError::NoMesh),
                },
            }
        })
        .await
        .map_err(|error| FabricError::Restart { component, source: error.into() })
    }

    async fn settled(&self, receipts: &[Receipt]) -> Result<Settling, FabricError> {
        let failed = |source: Cause| FabricError::Settled { source };
        let changes: Vec<&Change> = receipts.iter().map(|receipt| &receipt.change).collect();
        let (settling, judged) = tokio::join!(self.look(&changes), self.judged(&changes));
        settling::both(settling, judged).map_err(|error| failed(error.into()))
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
        let points = self.capturing_pods().await;
        points.map_err(|error| FabricError::Capture { source: error.into() })
    }

    async fn mesh_authority(&self) -> Result<Arc<MeshAuthority>, FabricError> {
        self.authority().await
    }

    async fn inspect(&self, pods: &[PodRef]) -> Vec<Inspection> {
        let mut inspections = self.agents.inspect(pods).await;
        if self.ready.spec.mesh.is_some() {
            inspections.extend(admin::inspect(&self.client).await);
        }
        for kind in PolicyKind::ALL {
            let listed = api::ours_whole(&self.client, kind.api_version(), kind.name()).await;
            inspections.push(Inspection {
                place: "API server".to_owned(),
                command: format!("kubectl get {} --all-namespaces -o json", kind.name()),
                output: listed.unwrap_or_else(|error| ztc_engine::chain(&error)),
            });
        }
        inspections
    }

    fn evidence(&self) -> broadcast::Receiver<Witness> {
        self.observers.subscribe()
    }

    /// A pod that was deleted, or whose agent ended: nobody starts it again.
    fn broken(&self) -> Option<String> {
        let pods = self.world.pods.iter().filter(|pod| pod.born == Born::WithTheWorld);
        pods.map(ztc_model::world::Pod::reference).find_map(|pod| match self.pods.get(&pod) {
            None => Some(format!("pod {pod} does not exist")),
            Some(found) if pods::is_running(&found) => None,
            Some(found) => {
                let message = pods::readiness(&found).message.unwrap_or_default();
                Some(format!("pod {pod} does not run: {message}"))
            }
        })
    }

    async fn down(&self) -> Result<(), FabricError> {
        self.clear().await.map_err(|error| FabricError::Down {
            leftovers: self.pods.all().into_keys().map(|pod| format!("pod {pod}")).collect(),
            source: error.into(),
        })
    }

    /// On a cluster of ours the pods of the first lane stay: the next run takes them if they are still what it
    /// wants. On somebody else's nothing does.
    async fn release(&self) -> Result<(), FabricError> {
        let released = async {
            if self.stays {
                return self.sweep().await;
            }
            self.clear().await?;
            self.leave().await
        };
        released.await.map_err(|error| FabricError::Down {
            leftovers: self.ready.ledger.left(),
            source: error.into(),
        })
    }
}
