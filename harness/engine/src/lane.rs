//! A lane with a world in it: its cluster, its board, and the agents that are attached.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use ztc_model::lane::Renaming;
use ztc_model::world::{PodRef, World};
use ztc_wire::RunId;

use crate::agent::{Agent, first_run};
use crate::board::Board;
use crate::fabric::Cluster;
use crate::profile::Pace;

/// A lane that cases can run in.
#[derive(Debug)]
pub(crate) struct LiveLane {
    /// The name of the world that it has, as cases write it.
    pub(crate) written: String,
    /// The world as it is here.
    pub(crate) world: Arc<World>,
    /// What things are called here; nothing where they are called as they are written.
    pub(crate) renaming: Option<Renaming>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) board: Arc<Board>,
    agents: Mutex<BTreeMap<PodRef, Arc<Agent>>>,
    first_run: RunId,
}

impl LiveLane {
    pub(crate) fn new(
        written: String,
        world: Arc<World>,
        renaming: Option<Renaming>,
        cluster: Arc<dyn Cluster>,
    ) -> Self {
        let board = Arc::new(Board::new(cluster.evidence()));
        let (agents, first_run) = (Mutex::default(), first_run());
        Self { written, world, renaming, cluster, board, agents, first_run }
    }

    /// The agent in a pod, attached and greeted. One that was lost, or that left a run without an
    /// answer, is attached to again.
    ///
    /// # Errors
    /// Why it does not answer, in words.
    pub(crate) async fn agent(&self, pod: &PodRef, pace: &Pace) -> Result<Arc<Agent>, String> {
        let agent = {
            let mut agents = self.agents.lock().await;
            match agents.get(pod) {
                Some(agent) if agent.is_sound() => Arc::clone(agent),
                unsound => {
                    // The agent outlives the attachment, and so do the ids of its runs.
                    let next = unsound.map_or(self.first_run, |agent| agent.next_id());
                    let (cluster, ceiling) = (Arc::clone(&self.cluster), pace.ready_ceiling());
                    let agent = Agent::attach(cluster, pod.clone(), next, ceiling);
                    let agent = Arc::new(agent);
                    agents.insert(pod.clone(), Arc::clone(&agent));
                    agent
                }
            }
        };
        agent.hello(pace.ready_ceiling(), pace.poll()).await.map(|()| agent)
    }
}
