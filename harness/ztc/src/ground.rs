//! The ground of a run: which fabric its profile names, and how it is made ready.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use ztc_cluster::{
    Bundle, BundleError, CiliumError, Finding, Folders, ProvisionError, Provisioner, RealCluster,
};
use ztc_engine::event::ExitStatus;
use ztc_engine::fabric::Fabric;
use ztc_engine::profile::{FabricKind, Profile};
use ztc_lab::{Entered, Lab, LabError, SandboxError};

use crate::execution::agent_command;
use crate::project::{Project, ProjectError};
use crate::terminal;

/// The environment variable that names a bundle.
pub(crate) const BUNDLE_ENV: &str = "ZTC_BUNDLE";

/// Why there is no ground to run on.
#[derive(Debug, Error)]
pub enum GroundError {
    /// The profile cannot be read.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// The bundle cannot be used.
    #[error("cannot use the bundle")]
    Bundle(#[from] BundleError),
    /// The lab refused.
    #[error("cannot use the lab")]
    Lab(#[from] LabError),
    /// The profile describes no cluster that can be made.
    #[error("cannot make this cluster")]
    Profile(#[source] ProvisionError),
    /// The cluster did not get ready.
    #[error("the cluster is not ready")]
    Provision(#[source] Box<ProvisionError>),
    /// The cluster is such that verdicts would be wrong or impossible.
    #[error("the cluster is not fit for a run; `ztc doctor` looks again\n{findings}")]
    Unfit {
        /// Everything that was found.
        findings: String,
    },
    /// The cluster has no Cilium that answers.
    #[error("the cluster cannot be used")]
    Cilium(#[from] CiliumError),
}

impl GroundError {
    /// What the process should exit with.
    pub const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Project(_) | Self::Bundle(_) | Self::Lab(_) | Self::Profile(_) => {
                ExitStatus::Usage
            }
            Self::Provision(_) | Self::Cilium(_) | Self::Unfit { .. } => ExitStatus::Inconclusive,
        }
    }
}

/// What a run is to happen on, before anything of it is made.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The profile; what its bundle lacks is not among its features.
    pub profile: Profile,
    bundle: Option<Bundle>,
    root: PathBuf,
}

/// A ground that is ready.
#[derive(Debug)]
pub struct ReadyGround {
    /// What makes lanes.
    pub fabric: Arc<dyn Fabric>,
    /// The versions of what enforces, by part.
    pub versions: BTreeMap<String, String>,
    /// How it is broken on purpose; normally not at all.
    pub faults: Option<String>,
}

impl Ground {
    /// Reads the profile of that name, and the bundle if one is named. Nothing is started.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn find(
        project: &Project,
        profile: &str,
        bundle: Option<PathBuf>,
    ) -> Result<Self, GroundError> {
        let mut profile = project.profile(profile)?;
        // A bundle is for clusters that are made; the lab needs none, whatever the environment says.
        let bundle = bundle.filter(|_| profile.fabric == FabricKind::Kind);
        let bundle = bundle.map(|folder| Bundle::open(&folder)).transpose()?;
        if let Some(bundle) = &bundle {
            let lacks = bundle.lacks();
            profile.features.retain(|feature| !lacks.contains(feature));
        }
        Ok(Self { profile, bundle, root: project.root() })
    }

    /// The bundle that the environment names.
    pub fn bundle_in_environment() -> Option<PathBuf> {
        std::env::var_os(BUNDLE_ENV).filter(|it| !it.is_empty()).map(PathBuf::from)
    }

    /// Enters the lab's namespaces, if it is the lab. To be called first of all: the process inside
    /// is another one.
    ///
    /// # Errors
    /// What the machine lacks.
    pub fn enter(&self) -> Result<Entered, SandboxError> {
        match self.profile.fabric {
            FabricKind::Lab => ztc_lab::enter(),
            FabricKind::Kind => Ok(Entered::Inside),
        }
    }

    /// Makes it ready. It must have been entered before.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn ready(&self, run: &str) -> Result<ReadyGround, GroundError> {
        match self.profile.fabric {
            FabricKind::Lab => {
                let lab = Lab::new(agent_command())?;
                let faults = lab.faults();
                Ok(ReadyGround { fabric: Arc::new(lab), versions: BTreeMap::new(), faults })
            }
            FabricKind::Kind => {
                let ready = self.provisioner()?.up(run).await;
                let ready = ready.map_err(|error| GroundError::Provision(Box::new(error)))?;
                let fabric = RealCluster::new(ready).await?;
                require_fit(&fabric.findings().await?)?;
                let versions = fabric.versions();
                Ok(ReadyGround { fabric: Arc::new(fabric), versions, faults: None })
            }
        }
    }

    /// Looks whether a run on the cluster would mean something; the lab always would.
    ///
    /// # Errors
    /// Why the cluster cannot be looked at.
    pub async fn findings(&self, run: &str) -> Result<Vec<Finding>, GroundError> {
        match self.profile.fabric {
            FabricKind::Lab => Ok(Vec::new()),
            FabricKind::Kind => {
                let ready = self.provisioner()?.up(run).await;
                let ready = ready.map_err(|error| GroundError::Provision(Box::new(error)))?;
                Ok(RealCluster::new(ready).await?.findings().await?)
            }
        }
    }

    /// Makes the cluster and leaves it to runs to come. There is nothing to do for the lab.
    ///
    /// # Errors
    /// Why it is not ready.
    pub async fn up(&self, run: &str) -> Result<(), GroundError> {
        match self.profile.fabric {
            FabricKind::Lab => Ok(()),
            FabricKind::Kind => self.ready(run).await.map(drop),
        }
    }

    /// Deletes the cluster. There is nothing to do for the lab.
    ///
    /// # Errors
    /// What is left.
    pub async fn down(&self) -> Result<(), GroundError> {
        match self.profile.fabric {
            FabricKind::Lab => Ok(()),
            FabricKind::Kind => {
                let down = self.provisioner()?.down().await;
                down.map_err(|error| GroundError::Provision(Box::new(error)))
            }
        }
    }

    fn provisioner(&self) -> Result<Provisioner, GroundError> {
        let (profile, bundle) = (self.profile.clone(), self.bundle.clone());
        let progress = Arc::new(|line: &str| terminal::trouble(line));
        let folders = Folders { root: self.root.clone(), sources: Project::sources() };
        Provisioner::new(folders, profile, bundle, progress).map_err(GroundError::Profile)
    }
}

/// Warnings are said; what blocks ends the run before anything is concluded.
fn require_fit(findings: &[Finding]) -> Result<(), GroundError> {
    let (blocking, warnings): (Vec<&Finding>, Vec<&Finding>) =
        findings.iter().partition(|it| it.blocks);
    for warning in warnings {
        terminal::trouble(&warning.to_string());
    }
    if blocking.is_empty() {
        return Ok(());
    }
    let findings: Vec<String> = blocking.iter().map(ToString::to_string).collect();
    Err(GroundError::Unfit { findings: findings.join("\n") })
}
