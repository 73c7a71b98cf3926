//! Which flows pass, and what is said of those that do not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;
use ztc_engine::fabric::Witness;
use ztc_model::condition::Condition;
use ztc_model::manifest::ObjectRef;
use ztc_model::policy::Protocol;
use ztc_model::world::{PodRef, World};

use super::record;
use super::script::{Fate, Script, Stop};

/// The address that kubelet probes from.
pub(crate) const KUBELET: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254));

/// The network of one cluster.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) script: Script,
    pub(crate) world: Arc<World>,
    pub(crate) witnesses: broadcast::Sender<Witness>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The policies that exist, with the moment of their acceptance.
    applied: BTreeMap<ObjectRef, Instant>,
    /// Everything that was applied or deleted, in words.
    log: Vec<String>,
    /// The namespaces of what was applied, in that order.
    namespaces: Vec<Option<String>>,
    deletions: usize,
    /// How often somebody looked whether policies are realised.
    looks: usize,
    born: BTreeMap<PodRef, Instant>,
    restarted: Option<Instant>,
    stopped: usize,
}

impl Network {
    pub(crate) fn new(script: Script, world: Arc<World>) -> Self {
        let (witnesses, _) = broadcast::channel(1024);
        Self { script, world, witnesses, state: Mutex::default() }
    }

    pub(crate) fn apply(&self, object: &ObjectRef) {
        let mut state = self.state();
        state.log.push(format!("apply {}", object.name));
        state.namespaces.push(object.namespace.clone());
        state.applied.insert(object.clone(), Instant::now());
    }

    pub(crate) fn delete(&self, object: &ObjectRef) {
        let mut state = self.state();
        state.log.push(format!("delete {}", object.name));
        state.deletions += 1;
        if self.script.lasting_from.is_none_or(|from| state.deletions < from) {
            state.applied.remove(object);
        }
    }

    pub(crate) fn look(&self) {
        self.state().looks += 1;
    }

    /// How often somebody looked whether policies are realised.
    pub(crate) fn looks(&self) -> usize {
        self.state().looks
    }

    /// Restarts whoever enforces: nobody records for a moment.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        state.log.push("restart".to_owned());
        state.restarted = Some(Instant::now());
        self.witnesses.send(Witness::Gap { reason: "restarted".to_owned() }).ok();
    }

    pub(crate) fn bear(&self, pod: &PodRef) {
        self.state().born.insert(pod.clone(), Instant::now());
    }

    /// The names of the policies that exist.
    pub(crate) fn applied(&self) -> Vec<String> {
        self.state().applied.keys().map(|object| object.name.clone()).collect()
    }

    /// What the status of an object says; nothing where it does not exist.
    pub(crate) fn conditions(&self, object: &ObjectRef) -> Option<Vec<Condition>> {
        let accepted = *self.state().applied.get(object)?;
        let told = self.script.told.filter(|(after, _)| accepted.elapsed() >= *after);
        let told = told.map(|(_, is)| Condition {
            about: "ZtunnelAccepted".to_owned(),
            status: is.into(),
            reason: String::new(),
            message: "as the script says".to_owned(),
        });
        Some(told.into_iter().collect())
    }

    /// Everything that was applied or deleted, in words.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// How many objects were applied in a namespace.
    pub(crate) fn ever_in(&self, namespace: &str) -> usize {
        self.state().namespaces.iter().filter(|it| it.as_deref() == Some(namespace)).count()
    }

    /// The address of a pod: its place in the world.
    pub(crate) fn address(&self, pod: &PodRef) -> IpAddr {
        let place = self.world.pods.iter().position(|it| it.reference() == *pod);
        let place = place.expect("a pod of the world");
        Ipv4Addr::new(10, 0, 0, u8::try_from(place + 1).expect("a small world")).into()
    }

    /// The pod with an address.
    pub(crate) fn pod_at(&self, address: IpAddr) -> Option<PodRef> {
        let mut pods = self.world.pods.iter().map(ztc_model::world::Pod::reference);
        pods.find(|pod| self.address(pod) == address)
    }

    /// What stops a flow from a pod at this moment, if anything does.
    pub(crate) fn stop(&self, from: Option<&PodRef>, destination: SocketAddr) -> Option<Stop> {
        let mut state = self.state();
        let born = from.and_then(|pod| state.born.get(pod));
        if born.is_some_and(|born| born.elapsed() < self.script.open_after_birth) {
            return None;
        }
        if state.restarted.is_some_and(|at| at.elapsed() < self.script.open_after_restart) {
            return None;
        }
        let enforced_after = self.script.enforced_after?;
        let in_force = |stop: &&Stop| {
            let mut enforced =
                state.applied.iter().filter(|(_, at)| at.elapsed() >= enforced_after);
            self.script.standing == Some(stop.policy)
                || enforced.any(|(object, _)| object.name == stop.policy)
        };
        let concerns = |stop: &&Stop| {
            let source = from.map_or_else(|| "kubelet".to_owned(), ToString::to_string);
            stop.port == destination.port() && stop.from.is_none_or(|it| it == source)
        };
        let mut stop = self.script.stops.iter().filter(in_force).find(concerns)?.clone();
        state.stopped += 1;
        if let Some(reason) = self.script.gap.filter(|_| state.stopped == 1) {
            self.witnesses.send(Witness::Gap { reason: reason.to_owned() }).ok();
        }
        let accepted = state.applied.iter().find(|(object, _)| object.name == stop.policy);
        let in_force =
            accepted.map_or(Duration::MAX, |(_, at)| at.elapsed().saturating_sub(enforced_after));
        if (self.script.leaks)(state.stopped, in_force) {
            return None;
        }
        if (self.script.late)(state.stopped) {
            stop.fate = Fate::Late(Duration::from_millis(200));
        }
        Some(stop)
    }

    /// Says what there is to say of a stopped flow.
    pub(crate) async fn testify(
        &self,
        stop: &Stop,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) {
        tokio::time::sleep_until(Instant::now() + stop.recorded_after).await;
        if let Some(record) = stop.record {
            let evidence = record::evidence(record, protocol, source, destination);
            self.witnesses.send(Witness::Spoke(evidence)).ok();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}
