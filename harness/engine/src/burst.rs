//! Many stimuli at once, for measuring: the path is the one that cases take, agents and board
//! included.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use ztc_model::outcome::{Reading, Seen};
use ztc_model::stimulus::Send;
use ztc_model::world::PodRef;

use crate::address::{self, Baggage};
use crate::agent::{Agent, first_run};
use crate::board::Board;
use crate::chain;
use crate::fabric::Cluster;
use crate::volley::Aim;

/// How long an agent may take to say hello.
const HELLO_CEILING: Duration = Duration::from_secs(5);
/// Between two looks whether it has.
const POLL: Duration = Duration::from_millis(2);

/// One pod that sends as fast as its window lets it, to all its targets in turn.
#[derive(Debug)]
pub struct Burst {
    aims: Vec<Aim>,
}

/// What came of a burst.
#[derive(Debug, Clone)]
pub struct Volume {
    /// From the first order to the last answer.
    pub took: Duration,
    /// How many got through.
    pub through: usize,
    /// What the others saw, each thing once.
    pub otherwise: BTreeSet<String>,
}

impl Volume {
    /// How many got through in a second.
    pub fn per_second(&self) -> f64 {
        let through = u32::try_from(self.through).unwrap_or(u32::MAX);
        f64::from(through) / self.took.as_secs_f64()
    }
}

impl Burst {
    /// Attaches to the agent of a pod.
    ///
    /// # Errors
    /// Why it cannot send this, in words.
    pub async fn new(
        cluster: Arc<dyn Cluster>,
        pod: PodRef,
        sends: &[Send],
        deadline: Duration,
    ) -> Result<Self, String> {
        let book = cluster.addresses().await.map_err(|error| chain(&error))?;
        let stimulus = |send: &Send| {
            address::stimulus(send, &book, Baggage::default())?
                .ok_or_else(|| format!("an agent does not send `{send}`"))
        };
        let stimuli = sends.iter().map(stimulus).collect::<Result<Vec<_>, String>>()?;
        let board = Arc::new(Board::new(cluster.evidence()));
        let agent = Agent::attach(cluster, pod, first_run(), HELLO_CEILING);
        agent.hello(HELLO_CEILING, POLL).await?;
        let agent = Arc::new(agent);
        let aim = |stimulus| Aim {
            agent: Arc::clone(&agent),
            board: Arc::clone(&board),
            stimulus,
            canary: None,
            after: None,
            beside: None,
            deadline,
            pair: None,
            served_at: BTreeSet::new(),
        };
        Ok(Self { aims: stimuli.into_iter().map(aim).collect() })
    }

    /// Sends `count` stimuli, at most `window` of them in flight.
    pub async fn send(&self, count: usize, window: usize) -> Volume {
        let begun = Instant::now();
        let mut volume = Volume { took: Duration::ZERO, through: 0, otherwise: BTreeSet::new() };
        let mut flying = JoinSet::new();
        for aim in self.aims.iter().cycle().take(count) {
            if flying.len() >= window
                && let Some(Ok(seen)) = flying.join_next().await
            {
                volume.count(&seen);
            }
            let aim = aim.clone();
            flying.spawn(async move { aim.once().await });
        }
        while let Some(joined) = flying.join_next().await {
            if let Ok(seen) = joined {
                volume.count(&seen);
            }
        }
        volume.took = begun.elapsed();
        volume
    }
}

impl Volume {
    fn count(&mut self, seen: &Seen) {
        match Reading::of(seen, &BTreeSet::new()) {
            Reading::Through { .. } => self.through += 1,
            _ => {
                self.otherwise.insert(seen.to_string());
            }
        }
    }
}
