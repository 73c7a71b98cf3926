//! A cluster in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::time::Instant;
use ztc_engine::fabric::{
    AddressBook, Change, Cluster, Endpoint, FabricError, Readiness, Receipt, Session, Settling,
    Witness,
};
use ztc_model::condition::Condition;
use ztc_model::manifest::{Manifest, ObjectRef};
use ztc_model::policy::Protocol;
use ztc_model::suite::{Component, Relabelled};
use ztc_model::world::{Born, Pod, PodRef, World};
use ztc_wire::FirstRun;

use super::agent::Agent;
use super::network::{KUBELET, Network};
use super::script::Script;

/// The node that realises everything.
const NODE: &str = "node-b";

/// One cluster with a world in it.
#[derive(Debug)]
pub(crate) struct FakeCluster {
    pub(crate) network: Arc<Network>,
    agents: Mutex<BTreeMap<PodRef, Arc<Agent>>>,
    begun: Instant,
}

impl FakeCluster {
    pub(crate) fn new(script: Script, world: Arc<World>) -> Self {
        let network = Arc::new(Network::new(script, world));
        let agents = network
            .world
            .pods
            .iter()
            .filter(|pod| pod.born == Born::WithTheWorld)
            .map(|pod| (pod.reference(), Agent::new(pod.reference(), Arc::clone(&network))))
            .collect();
        Self { network, agents: Mutex::new(agents), begun: Instant::now() }
    }

    /// The pods that a case has made and not deleted.
    pub(crate) fn born_pods(&self) -> Vec<String> {
        let agents = self.agents.lock().expect("nothing panics while it is held");
        let born =
            |pod: &&PodRef| self.network.world.pod(pod).is_some_and(|it| it.born == Born::InACase);
        agents.keys().filter(born).map(ToString::to_string).collect()
    }

    /// How many sessions the agent in a pod has had.
    pub(crate) fn sessions(&self, pod: &str) -> usize {
        let agents = self.agents.lock().expect("nothing panics while it is held");
        let agent = agents.iter().find(|(it, _)| it.to_string() == pod);
        agent.map_or(0, |(_, agent)| agent.sessions())
    }

    fn readiness(&self, pod: &Pod) -> Readiness {
        let message = match (self.network.script.not_ready, pod.readiness) {
            (Some((name, message)), _) if name == pod.reference().to_string() => {
                Some(message.to_owned())
            }
            (_, Some(port)) => {
                let to = (self.network.address(&pod.reference()), port).into();
                let stopped = self.network.stop(None, to);
                if let Some(stop) = &stopped {
                    let (network, stop) = (Arc::clone(&self.network), stop.clone());
                    tokio::spawn(async move {
                        network.testify(&stop, Protocol::Tcp, (KUBELET, 40_000).into(), to).await;
                    });
                }
                stopped.map(|_| "context deadline exceeded".to_owned())
            }
            _ => None,
        };
        // A probe every 10 ms.
        let probes = u64::try_from(self.begun.elapsed().as_millis() / 10).expect("a short life");
        Readiness { ready: message.is_none(), probes: Some(probes), message }
    }

    fn receipt() -> Receipt {
        let change = Change::Revisions(BTreeMap::from([(NODE.to_owned(), 2)]));
        Receipt { accepted: Instant::now().into_std(), change }
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn addresses(&self) -> Result<AddressBook, FabricError> {
        let world = &self.network.world;
        let address = |pod: &Pod| (pod.reference(), self.network.address(&pod.reference()));
        Ok(AddressBook {
            pods: world.pods.iter().map(address).collect(),
            outside: BTreeMap::new(),
            kubelet: world.pods.iter().map(|pod| (pod.reference(), KUBELET)).collect(),
            ..AddressBook::default()
        })
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, FabricError> {
        let agents: Vec<PodRef> =
            self.agents.lock().expect("nothing panics while it is held").keys().cloned().collect();
        let pods = agents.iter().filter_map(|pod| self.network.world.pod(pod));
        Ok(pods
            .map(|pod| Endpoint {
                pod: pod.reference(),
                node: NODE.to_owned(),
                identity: Some(1000),
                realised: 1,
                audit: self.network.script.audit,
                readiness: self.readiness(pod),
            })
            .collect())
    }

    async fn readiness(&self, pod: &PodRef) -> Result<Option<Readiness>, FabricError> {
        let exists = self.agents.lock().expect("nothing panics while it is held").contains_key(pod);
        let pod = self.network.world.pod(pod).filter(|_| exists);
        Ok(pod.map(|pod| self.readiness(pod)))
    }

    async fn conditions(&self, object: &ObjectRef) -> Result<Option<Vec<Condition>>, FabricError> {
        Ok(self.network.conditions(object))
    }

    async fn apply(&self, manifest: &Manifest) -> Result<Receipt, FabricError> {
        self.network.apply(&manifest.reference);
        Ok(Self::receipt())
    }

    async fn delete(&self, object: &ObjectRef) -> Result<Receipt, FabricError> {
        self.network.delete(object);
        Ok(Self::receipt())
    }

    async fn relabel(&self, _change: &Relabelled) -> Result<Receipt, FabricError> {
        Ok(Self::receipt())
    }

    async fn restart(&self, _component: Component) -> Result<Receipt, FabricError> {
        self.network.restart();
        Ok(Self::receipt())
    }

    async fn settled(&self, receipts: &[Receipt]) -> Result<Settling, FabricError> {
        self.network.look();
        let realised = self.network.script.realised_after;
        let is_realised = |receipt: &Receipt| {
            realised.is_some_and(|after| Instant::from_std(receipt.accepted).elapsed() >= after)
        };
        Ok(if receipts.iter().all(is_realised) {
            Settling::Realised
        } else {
            Settling::NotYet { status: format!("{NODE} enforces revision 1 of 2") }
        })
    }

    async fn session(&self, pod: &PodRef) -> Result<Session, FabricError> {
        let agent = self.agents.lock().expect("nothing panics while it is held").get(pod).cloned();
        agent.and_then(|agent| agent.session()).ok_or_else(|| FabricError::Session {
            pod: pod.clone(),
            source: io::Error::from(io::ErrorKind::ConnectionRefused).into(),
        })
    }

    async fn create_pod(&self, pod: &PodRef, first: Vec<FirstRun>) -> Result<(), FabricError> {
        self.network.bear(pod);
        let agent = Agent::new(pod.clone(), Arc::clone(&self.network));
        self.agents
            .lock()
            .expect("nothing panics while it is held")
            .insert(pod.clone(), Arc::clone(&agent));
        for run in first {
            agent.run(run.id, run.deadline_ms, run.stimulus);
        }
        Ok(())
    }

    async fn delete_pod(&self, pod: &PodRef) -> Result<(), FabricError> {
        self.agents.lock().expect("nothing panics while it is held").remove(pod);
        Ok(())
    }

    async fn forget(&self) -> bool {
        self.network.script.forgets
    }

    fn broken(&self) -> Option<String> {
        self.network.script.broken.map(str::to_owned)
    }

    fn evidence(&self) -> broadcast::Receiver<Witness> {
        self.network.witnesses.subscribe()
    }

    async fn down(&self) -> Result<(), FabricError> {
        Ok(())
    }
}
