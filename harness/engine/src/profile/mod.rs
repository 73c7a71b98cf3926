//! A profile: what a run happens on and at which pace. One file under `clusters/`.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use ztc_model::combination::Combination;
use ztc_model::suite::Feature;

pub use cluster::{ChartRepositories, ClusterSpec, IpFamily, KubeProxy, MeshSpec};

/// A profile as its file says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// Its name: the first segment of every test's name.
    pub profile: String,
    /// What it is for, one sentence.
    pub about: String,
    /// The fabric.
    pub fabric: FabricKind,
    /// How many copies of a world, and what a copy is.
    pub lanes: Lanes,
    /// What the fabric has. Declared, not guessed: what is lacking is known before anything runs.
    pub features: BTreeSet<Feature>,
    /// What to make or to expect, for a fabric of real clusters.
    #[serde(default)]
    pub cluster: Option<ClusterSpec>,
    /// The addresses of the outside hosts that somebody has put up for a cluster that is there
    /// already. Their names, if they have some, must resolve to them in the cluster.
    #[serde(default)]
    pub outside: BTreeMap<String, IpAddr>,
    /// How a lab is broken on purpose, in the words of `ZTC_LAB_FAULT`; a version of it that one may upgrade to.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Whose ztunnel decides in a lab.
    #[serde(default)]
    pub ztunnel: ZtunnelKind,
    /// How long things may take.
    pub pace: Pace,
}

/// Whose ztunnel decides in the mesh of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ZtunnelKind {
    /// The lab's own, or the real one that somebody names.
    #[default]
    Any,
    /// A real one: without it there is no run.
    Real,
}

impl Profile {
    /// The same profile for a cluster of other versions, under a name of its own, so that no two of them are one cluster.
    /// Nothing if it describes no cluster that can have these.
    #[must_use]
    pub fn of_versions(self, versions: &Combination) -> Option<Self> {
        let cluster = self.cluster?.of_versions(versions)?;
        let mut features = self.features;
        if cluster.mesh.is_none() {
            features.retain(|feature| !Feature::OF_THE_MESH.contains(feature));
        }
        let profile = format!("{}-{}", self.profile, versions.short());
        Some(Self { profile, features, cluster: Some(cluster), ..self })
    }
}

/// The fabrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FabricKind {
    /// The embedded cluster of network namespaces.
    Lab,
    /// A cluster that the `kind` command makes in containers of this machine.
    Kind,
    /// A cluster that is there already.
    Attach,
}

impl FabricKind {
    /// The word for it in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Kind => "kind",
            Self::Attach => "attach",
        }
    }
}

/// The lanes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lanes {
    /// How many, at least 1.
    pub count: usize,
    /// What each of them is.
    pub each: LaneKind,
}

/// What a lane is. It decides which cases have to run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LaneKind {
    /// A cluster of its own: cases never meet.
    Cluster,
    /// Namespaces of one cluster: a case that reaches beyond its namespaces runs alone.
    Namespaces,
}

/// How long things may take, milliseconds. Polls are short and ceilings long: a ceiling is reached
/// only when something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pace {
    /// Until pods are ready and agents answer.
    pub ready_ceiling_ms: u64,
    /// Until a stimulus that must pass passes: controls, proofs, recovery, allowed cells.
    pub pass_ceiling_ms: u64,
    /// From the API's acceptance until denials are true.
    pub settle_ceiling_ms: u64,
    /// Until the agent gives up on a single stimulus.
    pub probe_deadline_ms: u64,
    /// How long a denial must stay true.
    pub hold_ms: u64,
    /// How many fresh stimuli a denied cell sends in that time.
    pub hold_samples: u32,
    /// How many an allowed cell sends.
    pub allowed_samples: u32,
    /// Between two stimuli of the stream that measures the time to enforce; longer in cases with many cells.
    pub stream_every_ms: u64,
    /// Between two looks at a condition.
    pub poll_ms: u64,
}

impl Pace {
    pub(crate) const fn ready_ceiling(&self) -> Duration {
        Duration::from_millis(self.ready_ceiling_ms)
    }

    /// Until everything that a case made is gone again.
    pub(crate) const fn clean_up_ceiling(&self) -> Duration {
        Duration::from_millis(self.ready_ceiling_ms + self.settle_ceiling_ms)
    }

    /// Until what was restarted is there again and has realised everything anew.
    pub(crate) const fn restart_ceiling(&self) -> Duration {
        Duration::from_millis(self.ready_ceiling_ms + self.settle_ceiling_ms)
    }

    pub(crate) const fn pass_ceiling(&self) -> Duration {
        Duration::from_millis(self.pass_ceiling_ms)
    }

    pub(crate) const fn settle_ceiling(&self) -> Duration {
        Duration::from_millis(self.settle_ceiling_ms)
    }

    pub(crate) const fn probe_deadline(&self) -> Duration {
        Duration::from_millis(self.probe_deadline_ms)
    }

    pub(crate) fn stream_every(&self) -> Duration {
        period(self.stream_every_ms)
    }

    pub(crate) fn poll(&self) -> Duration {
        period(self.poll_ms)
    }

    /// The pace of a case with so many cells that send all the time, or with fewer of which each takes up as much as several. They share what an agent, a datapath and a
    /// stream of records can carry: from a number on more cells send no more, but each as much more rarely.
    #[must_use]
    pub(crate) fn shared_by(self, cells: usize) -> Self {
        let share = u64::try_from(cells.div_ceil(CELLS_AT_FULL_PACE)).unwrap_or(u64::MAX);
        Self { stream_every_ms: self.stream_every_ms.saturating_mul(share.max(1)), ..self }
    }

    /// Between two attempts of what is beside a refused stimulus. Nothing is timed by it, and several cells of a case may have
    /// the same.
    pub(crate) fn beside_every(&self) -> Duration {
        self.hold_every(self.allowed_samples).max(self.stream_every())
    }

    /// Between two samples of a hold.
    pub(crate) fn hold_every(&self, samples: u32) -> Duration {
        period(self.hold_ms / u64::from(samples.max(1)))
    }
}

/// How many cells of a case send their streams as often as the profile says. The lab's switch, which carries some
/// thousand new flows a second on two cores, has all lanes of a run to serve.
const CELLS_AT_FULL_PACE: usize = 5;

/// A period of a clock, which cannot be nothing.
fn period(ms: u64) -> Duration {
    Duration::from_millis(ms.max(1))
}
