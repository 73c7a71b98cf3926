//! Cilium's agents: one pod a node, asked and listened to through exec.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use kube::Client;
use tokio::io::DuplexStream;
use ztc_engine::fabric::{Change, Inspection, Settling};
use ztc_model::suite::Component;
use ztc_model::world::PodRef;

use crate::api::ApiError;
use crate::daemons::Daemons;
use crate::exec::{Container, ExecError, Shell};
use crate::realised::{
    AgentState, HUBBLE_STATUS, ListedEndpoint, OutputError, Repository, kept_flows, settling,
};

/// Where Cilium is installed.
pub(crate) const NAMESPACE: &str = "kube-system";

/// Its agents.
pub(crate) const AGENTS: Daemons =
    Daemons { namespace: NAMESPACE, label: "k8s-app=cilium", what: "the agents of Cilium" };

/// The container of an agent.
const AGENT: &str = "cilium-agent";

/// With fewer flows in Hubble's ring than that whoever follows it begins before its first one, and waits there until the
/// ring has been filled once: `LastWriteParallel` is the last position but two, in numbers without a sign
/// (`pkg/hubble/container/ring.go` of Cilium 1.20.2; seen on a real cluster after a restart, `docs/facts.md`).
const FOLLOWED: u64 = 2;

/// What separates the outputs of two commands in one look.
const SEPARATOR: &str = "ztc-next";

/// Why Cilium could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CiliumError {
    /// Its pods could not be listed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A command in an agent failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A command in an agent printed what cannot be read.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// There is no agent.
    #[error("no agent of Cilium runs: no pod labelled {} in {NAMESPACE} is Running", AGENTS.label)]
    None,
    /// An agent did not say what was asked.
    #[error("the agent on {node} does not say in which mode it enforces policies: {said:?}")]
    Mode {
        /// The node.
        node: String,
        /// What it said.
        said: String,
    },
    /// Whoever follows its flows now hears none for long.
    #[error(
        "Hubble on {node} has kept {kept} flows so far, and cannot be followed before it has {FOLLOWED}"
    )]
    TooYoung {
        /// The node.
        node: String,
        /// How many it has kept.
        kept: u64,
    },
    /// An agent's command printed only half.
    #[error("the agent on {node} printed only one of two answers")]
    Half {
        /// The node.
        node: String,
    },
}

/// Whom an agent enforces policies for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnforcementMode {
    /// Endpoints that some policy selects, in the direction that it is about.
    Default,
    /// All of them, in both directions.
    Always,
}

impl EnforcementMode {
    fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Always => "always",
        }
    }
}

/// The agents of a cluster.
#[derive(Clone)]
pub(crate) struct Agents {
    client: Client,
    /// By node. Read anew when one does not answer: an agent that restarts has another name.
    by_node: Arc<tokio::sync::RwLock<BTreeMap<String, Arc<Shell>>>>,
}

impl Agents {
    /// The agents that run now.
    pub(crate) async fn find(client: Client) -> Result<Self, CiliumError> {
        let agents = Self { client, by_node: Arc::default() };
        agents.find_again().await?;
        Ok(agents)
    }

    async fn all(&self) -> BTreeMap<String, Container> {
        let agents = self.by_node.read().await;
        agents.iter().map(|(node, shell)| (node.clone(), shell.container().clone())).collect()
    }

    /// Looks for the agents again: one that restarts comes back under another name.
    pub(crate) async fn find_again(&self) -> Result<(), CiliumError> {
        let found = list(&self.client).await?;
        // A node whose agent is away keeps the old one, which does not answer: without it, a change
        // would be called realised that is not known to be.
        let mut agents = self.by_node.write().await;
        for (node, container) in found {
            if agents.get(&node).is_none_or(|it| *it.container() != container) {
                agents.insert(node, Arc::new(Shell::new(container)));
            }
        }
        Ok(())
    }

    /// Restarts the agents of all nodes. Returns what was to be seen of them before.
    pub(crate) async fn restart(&self) -> Result<Change, CiliumError> {
        let before = AGENTS.restart(&self.client).await?;
        Ok(Change::Restarted { component: Component::Cilium, before })
    }

    /// What of a restart is still to come; nothing when there is a ready agent on each node that was not there before.
    pub(crate) async fn restart_lag(
        &self,
        before: &BTreeSet<String>,
    ) -> Result<Option<String>, CiliumError> {
        let wanted = self.nodes().await.len();
        let lag = AGENTS.restart_lag(&self.client, before, wanted).await?;
        if lag.is_none() {
            self.find_again().await?;
        }
        Ok(lag)
    }

    /// Runs a script that may be run twice in every agent; what each wrote, by node.
    pub(crate) async fn run(&self, script: &str) -> Result<BTreeMap<String, String>, CiliumError> {
        let agents = self.by_node.read().await.clone();
        let outputs = try_join_all(agents.iter().map(|(node, agent)| async move {
            agent.run(&self.client, script).await.map(|output| (node.clone(), output))
        }));
        match outputs.await {
            Ok(outputs) => Ok(outputs.into_iter().collect()),
            Err(error) => {
                // The next look, if there is one, asks those that run then.
                self.find_again().await?;
                Err(error.into())
            }
        }
    }

    /// Has every agent enforce policies in a mode, until it is told otherwise or restarts; what is to be realised then.
    ///
    /// An agent that changes its mode counts one revision of its policies up and regenerates all endpoints
    /// (`docs/facts.md`). To say the same twice changes nothing.
    pub(crate) async fn set_mode(&self, mode: EnforcementMode) -> Result<Change, CiliumError> {
        let mode = mode.word();
        let script = format!(
            "cilium-dbg config get PolicyEnforcement && cilium-dbg policy get && \
             cilium-dbg config PolicyEnforcement={mode} >/dev/null"
        );
        let outputs = self.run(&script).await?;
        let revisions = outputs.into_iter().map(|(node, output)| {
            let (before, policies) = output
                .split_once('\n')
                .ok_or_else(|| CiliumError::Mode { node: node.clone(), said: output.clone() })?;
            let revision = Repository::read(policies)?.revision;
            let is_changed = before.trim() != mode;
            Ok((node, if is_changed { revision + 1 } else { revision }))
        });
        Ok(Change::Revisions(revisions.collect::<Result<_, CiliumError>>()?))
    }

    /// The version of every agent, by node.
    pub(crate) async fn versions(&self) -> Result<BTreeMap<String, String>, CiliumError> {
        let versions = self.run("cilium-dbg version").await?;
        Ok(versions.into_iter().map(|(node, it)| (node, daemon_version(&it))).collect())
    }

    /// One look at every agent: its repository first, then its endpoints.
    pub(crate) async fn states(&self) -> Result<BTreeMap<String, AgentState>, CiliumError> {
        let script = format!(
            "cilium-dbg policy get && echo && echo {SEPARATOR} && cilium-dbg endpoint list -o json"
        );
        let outputs = self.run(&script).await?;
        let states = outputs.into_iter().map(|(node, output)| {
            let (policies, endpoints) = output
                .split_once(SEPARATOR)
                .ok_or_else(|| CiliumError::Half { node: node.clone() })?;
            let repository = Repository::read(policies)?;
            let endpoints = ListedEndpoint::read_all(endpoints)?;
            Ok((node, AgentState { repository, endpoints }))
        });
        states.collect()
    }

    /// One look: have all agents realised all of these changes?
    pub(crate) async fn settled(&self, changes: &[&Change]) -> Result<Settling, CiliumError> {
        // Of these an agent has nothing to say (`settling`).
        let is_silent = |change: &Change| {
            matches!(change, Change::Nothing | Change::Invalid { .. } | Change::Labels { .. })
        };
        if changes.iter().all(|change| is_silent(change)) {
            return Ok(Settling::Realised);
        }
        let states = self.states().await?;
        let mut late = BTreeSet::new();
        for (node, state) in &states {
            for change in changes {
                if let Settling::NotYet { status } = settling(node, state, change) {
                    late.insert(status);
                }
            }
        }
        let late: Vec<String> = late.into_iter().collect();
        Ok(if late.is_empty() {
            Settling::Realised
        } else {
            Settling::NotYet { status: late.join("; ") }
        })
    }

    /// Asks every agent with Cilium's own tools: what it enforces, and which flows of these pods it
    /// remembers. What an agent cannot answer is said in the place of its answer.
    pub(crate) async fn inspect(&self, pods: &[PodRef]) -> Vec<Inspection> {
        let flows = pods.iter().map(|pod| format!("hubble observe --last 40 --pod {pod}"));
        let commands: Vec<String> = ["cilium-dbg policy get", "cilium-dbg endpoint list"]
            .into_iter()
            .map(str::to_owned)
            .chain(flows)
            .collect();
        let agents = self.all().await;
        let asked = agents.iter().flat_map(|(node, agent)| {
            commands.iter().map(move |command| async move {
                let output = agent.run(&self.client, command).await;
                Inspection {
                    place: node.clone(),
                    command: command.clone(),
                    output: output.unwrap_or_else(|error| ztc_engine::chain(&error)),
                }
            })
        });
        join_all(asked).await
    }

    /// The nodes that have an agent.
    pub(crate) async fn nodes(&self) -> Vec<String> {
        self.by_node.read().await.keys().cloned().collect()
    }

    /// The flows of a node as Hubble sees them from now on, one JSON object a line, until the stream breaks.
    ///
    /// # Errors
    /// [`CiliumError::TooYoung`] for a moment after the agent has started: what is opened then stays silent until the ring of
    /// flows is full, and nobody would know.
    pub(crate) async fn flows(&self, node: &str) -> Result<DuplexStream, CiliumError> {
        let agent = self.all().await.remove(node).ok_or(CiliumError::None)?;
        let kept = kept_flows(&agent.run(&self.client, HUBBLE_STATUS).await?)?;
        if kept < FOLLOWED {
            return Err(CiliumError::TooYoung { node: node.to_owned(), kept });
        }
        let types = ["--type", "drop", "--type", "policy-verdict", "--type", "l7"];
        let command: Vec<&str> = ["hubble", "observe", "--follow", "--output", "jsonpb"]
            .into_iter()
            .chain(types)
            .collect();
        Ok(agent.follow(&self.client, &command).await?)
    }
}

/// The version of the agent itself, out of `cilium-dbg version`: a line `Daemon: 1.20.2 ...`.
fn daemon_version(output: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix("Daemon:"));
    line.and_then(|it| it.split_whitespace().next()).unwrap_or("unknown").to_owned()
}

async fn list(client: &Client) -> Result<BTreeMap<String, Container>, CiliumError> {
    let running = AGENTS.running(client).await?;
    let agents: BTreeMap<String, Container> = running
        .into_iter()
        .filter_map(|pod| {
            let node = pod.spec?.node_name?;
            let container = Container {
                namespace: NAMESPACE.to_owned(),
                pod: pod.metadata.name?,
                name: AGENT.to_owned(),
            };
            Some((node, container))
        })
        .collect();
    if agents.is_empty() { Err(CiliumError::None) } else { Ok(agents) }
}

#[cfg(test)]
pub(crate) mod tests;
