//! The way from one ground to another, as the steps of a change that is watched.

use std::sync::Arc;

use thiserror::Error;
use ztc_cluster::{ProvisionError, RealCluster, Upgrade};
use ztc_engine::change::{Act, Step};
use ztc_engine::event::ExitStatus;
use ztc_engine::profile::FabricKind;
use ztc_lab::Lab;
use ztc_lab::fault::Faults;
use ztc_model::combination::upgrade::{self, NoWay, Phase};
use ztc_model::suite::Component;

use crate::ground::{Ground, GroundError, ReadyFabric};

/// Why one ground cannot become another.
#[derive(Debug, Error)]
pub(crate) enum WayError {
    /// They are of different kinds.
    #[error("{from} is of the fabric `{}`, and {to} of `{}`; an upgrade stays on one", kinds.0, kinds.1)]
    OtherFabric { from: String, to: String, kinds: (&'static str, &'static str) },
    /// Somebody else's cluster.
    #[error(
        "{profile} is a cluster that ztc did not make, and it upgrades none but its own; `ztc monitor CASE -- COMMAND` \
         watches it while a command upgrades it"
    )]
    NotOurs { profile: String },
    /// It is the same.
    #[error("{profile} is named twice; an upgrade goes from one profile to another")]
    Same { profile: String },
    /// The versions are none that one can go between.
    #[error("there is no upgrade from {from} to {to}")]
    NoWay { from: String, to: String, source: NoWay },
    /// The clusters cannot be made.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// It was not begun.
    #[error("the upgrade cannot begin; the cluster runs what it ran")]
    Begin(#[source] Box<ProvisionError>),
}

impl WayError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Ground(error) => error.exit_status(),
            Self::Begin(_) => ExitStatus::Inconclusive,
            Self::OtherFabric { .. }
            | Self::NotOurs { .. }
            | Self::Same { .. }
            | Self::NoWay { .. } => ExitStatus::Usage,
        }
    }
}

/// A way that can be gone.
#[derive(Debug)]
pub(crate) struct Way {
    legs: Vec<Leg>,
}

/// One direction of it.
#[derive(Debug)]
struct Leg {
    to: Ground,
    phases: Vec<Phase>,
    /// What its steps are called with, so that they are not taken for those of the way there.
    word: &'static str,
}

impl Way {
    /// The way from one ground to another, and back if so. Nothing is started.
    pub(crate) fn of(from: &Ground, to: &Ground, back: bool) -> Result<Self, WayError> {
        let there = Leg { to: to.clone(), phases: phases(from, to)?, word: "" };
        let mut legs = vec![there];
        if back {
            legs.push(Leg { to: from.clone(), phases: phases(to, from)?, word: "back: " });
        }
        Ok(Self { legs })
    }

    /// The steps of it on a ground that is ready. What can be done beforehand is done now.
    pub(crate) async fn begin(self, ready: &ReadyFabric) -> Result<Vec<Step>, WayError> {
        let mut steps = Vec::new();
        for (index, leg) in self.legs.into_iter().enumerate() {
            match ready {
                ReadyFabric::Lab(lab) => steps.extend(leg.on_the_lab(lab)),
                ReadyFabric::Real(cluster) => {
                    steps.extend(leg.on_a_cluster(cluster, index == 0).await?);
                }
            }
        }
        Ok(steps)
    }
}

impl Leg {
    /// The lab's parts restart, and those who come back are the new ones.
    fn on_the_lab(self, lab: &Arc<Lab>) -> Vec<Step> {
        let install = install(Arc::clone(lab), self.to.faults.clone());
        let name = format!("{}install {}", self.word, self.to.profile.profile);
        let restarts = self.phases.iter().filter_map(|phase| {
            let component = match phase {
                Phase::Cilium => Component::Cilium,
                Phase::Ztunnel => Component::Ztunnel,
                _ => return None,
            };
            let name = format!("{}{phase}", self.word);
            Some(Step { name, act: Act::Restart(component) })
        });
        std::iter::once(Step { name, act: install }).chain(restarts).collect()
    }

    async fn on_a_cluster(
        self,
        cluster: &RealCluster,
        is_first: bool,
    ) -> Result<Vec<Step>, WayError> {
        let begun = |error| WayError::Begin(Box::new(error));
        let way = Arc::new(cluster.upgrade(self.to.provisioner()?).await.map_err(begun)?);
        // What the cluster was made with is in its nodes.
        if is_first {
            way.bring_images().await.map_err(begun)?;
        }
        let phases: Arc<[Phase]> = self.phases.into();
        let mut steps = Vec::new();
        for (index, phase) in phases.iter().enumerate() {
            let announced = (index == 0).then(|| Arc::clone(&phases));
            let act = make(Arc::clone(&way), *phase, announced);
            steps.push(Step { name: format!("{}{phase}", self.word), act });
        }
        Ok(steps)
    }
}

fn install(lab: Arc<Lab>, faults: Faults) -> Act {
    Act::Call(Box::new(move || {
        lab.install(faults.clone());
        Box::pin(std::future::ready(Ok(())))
    }))
}

fn make(way: Arc<Upgrade>, phase: Phase, announced: Option<Arc<[Phase]>>) -> Act {
    Act::Call(Box::new(move || {
        let (way, announced) = (Arc::clone(&way), announced.clone());
        Box::pin(async move {
            let made = async {
                if let Some(phases) = &announced {
                    way.announce(phases)?;
                }
                way.make(phase).await
            };
            made.await.map_err(|error| ztc_engine::chain(&error))
        })
    }))
}

/// What is replaced, in order.
fn phases(from: &Ground, to: &Ground) -> Result<Vec<Phase>, WayError> {
    let names = || (from.profile.profile.clone(), to.profile.profile.clone());
    let kinds = (from.profile.fabric, to.profile.fabric);
    if kinds.0 != kinds.1 {
        let (from, to) = names();
        return Err(WayError::OtherFabric { from, to, kinds: (kinds.0.word(), kinds.1.word()) });
    }
    if from.profile.profile == to.profile.profile {
        return Err(WayError::Same { profile: names().0 });
    }
    match kinds.0 {
        // It shows the behaviour of one version alone: what differs is how it is broken.
        FabricKind::Lab => Ok(vec![Phase::Cilium, Phase::Ztunnel]),
        FabricKind::Attach => Err(WayError::NotOurs { profile: names().0 }),
        FabricKind::Kind => upgrade::phases(from.versions(), to.versions()).map_err(|source| {
            let (from, to) = names();
            WayError::NoWay { from, to, source }
        }),
    }
}
