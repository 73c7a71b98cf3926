//! Pods that are born under the policies: what they send counts from their first instant on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use ztc_model::outcome::Seen;
use ztc_model::stimulus::Send;
use ztc_model::suite::{Cell, Origin};
use ztc_model::verdict::Doubt;
use ztc_model::world::PodRef;
use ztc_wire::{FirstRun, RunId};

use super::{Life, Sender};
use crate::agent::{Agent, Flight};
use crate::cell::watch_newborn;
use crate::chain;
use crate::fabric::AddressBook;
use crate::interruption::Interruption;
use crate::volley::Volley;

/// How many stimuli a newborn pod sends by itself, before anybody can ask it to.
const FIRST_STIMULI: usize = 5;

/// A pod that was born in the case.
pub(super) struct Nursery {
    pub(super) agent: Arc<Agent>,
    /// When it did not exist yet.
    born: Instant,
    /// By the key of what is sent: what the agent sends by itself.
    pub(super) flights: BTreeMap<usize, Vec<Flight>>,
}

impl Life<'_> {
    /// Makes the pods that are born under the policies, and judges what they send from their first
    /// instant on. Their control is a twin that is born at the same moment and must get through.
    pub(super) async fn newborns(
        &mut self,
        senders: &mut [Sender],
        interruption: &Interruption,
    ) -> Result<(), Doubt> {
        if self.case.create.is_empty() {
            return Ok(());
        }
        let book = self.addresses().await?;
        let mut nurseries = BTreeMap::new();
        for pod in self.case.create.clone() {
            let cells = self.case.cells.iter().enumerate();
            let cells = cells.filter(|(_, it)| it.from == Origin::Pod(pod.clone()));
            let sends: Vec<(usize, &Send)> = cells.map(|(index, it)| (index, &it.send)).collect();
            self.created.push(pod.clone());
            let birth = self.give_birth(&pod, &sends, &book, self.pace.ready_ceiling());
            let nursery = interruption.or(birth).await?;
            nurseries.insert(pod, nursery);
        }
        let accepted = Instant::now();
        let mut watching = Vec::new();
        for (index, cell) in self.case.cells.iter().enumerate() {
            let Origin::Pod(pod) = &cell.from else { continue };
            let Some(nursery) = nurseries.get_mut(pod) else { continue };
            let aim = self.aim(cell, &nursery.agent, &book).map_err(Doubt::Precondition)?;
            let mut volley = Volley::new(aim.clone());
            for flight in nursery.flights.remove(&index).unwrap_or_default() {
                volley.follow(flight, nursery.born);
            }
            senders[index] = Sender::Agent(Box::new(aim));
            watching.push((index, cell, volley));
        }
        let twins: BTreeMap<&PodRef, Arc<Agent>> =
            nurseries.iter().map(|(pod, nursery)| (pod, Arc::clone(&nursery.agent))).collect();
        let life = &*self;
        let watched = join_all(watching.into_iter().map(|(index, cell, volley)| {
            let twin = life.twin(cell, &twins, &book);
            async move {
                let watched = watch_newborn(volley, &life.pace, accepted, interruption);
                let (watched, control) = tokio::join!(watched, twin);
                (index, watched, control)
            }
        }))
        .await;
        for (index, watched, control) in watched {
            let outcome = &mut self.outcomes[index];
            outcome.take(watched);
            match control {
                Ok(control) => outcome.facts.control = control,
                Err(why) => outcome.facts.broken = Some(Doubt::Control(why)),
            }
        }
        if interruption.is_there() { Err(Doubt::Interrupted) } else { Ok(()) }
    }

    /// Makes a pod that sends each of these by itself, some times, and waits for its first word.
    ///
    /// # Errors
    /// Why it was not born within the ceiling; it may be there all the same.
    pub(super) async fn give_birth(
        &self,
        pod: &PodRef,
        sends: &[(usize, &Send)],
        book: &AddressBook,
        ceiling: Duration,
    ) -> Result<Nursery, Doubt> {
        let mut first = Vec::new();
        let mut ids: BTreeMap<usize, Vec<RunId>> = BTreeMap::new();
        for (key, send) in sends {
            let stimulus = self.stimulus(send, book).map_err(Doubt::Precondition)?;
            // Records of several echo requests in flight could not be told apart.
            let count = if matches!(send, Send::Ping(_)) { 1 } else { FIRST_STIMULI };
            for stimulus in std::iter::repeat_n(stimulus, count).flatten() {
                let id = RunId(first.len() as u64 + 1);
                let deadline_ms = self.pace.probe_deadline_ms;
                first.push(FirstRun { id, deadline_ms, stimulus });
                ids.entry(*key).or_default().push(id);
            }
        }
        let born = Instant::now();
        let all: Vec<RunId> = first.iter().map(|run| run.id).collect();
        self.lane
            .cluster
            .create_pod(pod, first)
            .await
            .map_err(|error| Doubt::Fabric(chain(&error)))?;
        let (agent, flights) =
            Agent::attach_newborn(Arc::clone(&self.lane.cluster), pod.clone(), &all, ceiling);
        agent.hello(ceiling, self.pace.poll()).await.map_err(Doubt::Precondition)?;
        let mut flights: BTreeMap<RunId, Flight> =
            flights.into_iter().map(|flight| (flight.id, flight)).collect();
        let flights = ids
            .into_iter()
            .map(|(index, ids)| (index, ids.iter().filter_map(|id| flights.remove(id)).collect()))
            .collect();
        Ok(Nursery { agent: Arc::new(agent), born, flights })
    }

    /// What the twin sees of the same stimulus, at the same time.
    async fn twin(
        &self,
        cell: &Cell,
        newborn: &BTreeMap<&PodRef, Arc<Agent>>,
        book: &AddressBook,
    ) -> Result<Option<Seen>, String> {
        let Some(twin) = &cell.twin else { return Ok(None) };
        let agent = match newborn.get(twin) {
            Some(agent) => Arc::clone(agent),
            None => self.lane.agent(twin, &self.pace).await?,
        };
        let aim = self.aim(cell, &agent, book)?;
        let (every, ceiling) = (self.pace.stream_every(), self.pace.pass_ceiling());
        Ok(Some(aim.until_through(&cell.peers, every, ceiling).await))
    }
}
