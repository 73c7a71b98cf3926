//! The ground of a run: which fabric its profile names, and how it is made ready.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser};
use thiserror::Error;
use ztc_cluster::{
    Attach, AttachError, Bundle, BundleError, CiliumError, Finding, Folders, Ledger, Permission,
    Progress, ProvisionError, Provisioner, RealCluster,
};
use ztc_engine::event::ExitStatus;
use ztc_engine::expected::Entry;
use ztc_engine::fabric::Fabric;
use ztc_engine::profile::{FabricKind, Profile, ZtunnelKind};
use ztc_lab::fault::{Faults, NotAFault};
use ztc_lab::{Entered, Lab, LabError, SandboxError};
use ztc_model::combination::Combination;
use ztc_model::suite::{Case, Feature};
use ztc_model::world::World;

use crate::execution::agent_command;
use crate::expected_failures::ExpectedFailures;
use crate::project::{Project, ProjectError};
use crate::terminal;

/// The profile of those who name none.
const DEFAULT_PROFILE: &str = "lab";

/// The environment variable that names a bundle.
pub(crate) const BUNDLE_ENV: &str = "ZTC_BUNDLE";

/// Where to run, as a person says it: by options, or by the environment under `cargo test`.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The profile to run on: a name under `clusters/`, a file, or a cell of `ztc matrix`.
    #[arg(long, env = "ZTC_CLUSTER", default_value = DEFAULT_PROFILE)]
    pub cluster: String,
    /// A folder with everything that a cluster is made of, so that nothing is pulled.
    #[arg(long, env = BUNDLE_ENV)]
    pub bundle: Option<PathBuf>,
    /// The kubeconfig of the cluster to attach to.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; the current one otherwise.
    #[arg(long, env = "ZTC_CONTEXT")]
    pub context: Option<String>,
    /// Attach to a cluster that ztc did not make: it gets pods, namespaces and policies, and loses
    /// them again.
    #[arg(long, env = "ZTC_I_OWN_THIS_CLUSTER")]
    pub i_own_this_cluster: bool,
    /// Run cases on it whose policies reach beyond the namespaces of their world.
    #[arg(long, env = "ZTC_ALLOW_CLUSTER_WIDE")]
    pub allow_cluster_wide: bool,
    /// The probe's image, where its nodes can pull it.
    #[arg(long, env = "ZTC_PROBE_IMAGE")]
    pub probe_image: Option<String>,
    /// What the cluster that is made is called, where it goes from one profile to another.
    #[arg(long, hide = true)]
    pub cluster_name: Option<String>,
}

impl Place {
    /// What the environment says, where there are no options.
    ///
    /// # Errors
    /// A variable with a value that it cannot have.
    pub fn from_environment() -> Result<Self, clap::Error> {
        #[derive(Parser)]
        struct Environment {
            #[command(flatten)]
            place: Place,
        }
        Environment::try_parse_from(["ztc"]).map(|it| it.place)
    }

    /// The options that say it, without the profile.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let Self { bundle, kubeconfig, context, probe_image, cluster_name, .. } = self;
        let valued: [(&str, Option<&OsStr>); 5] = [
            ("--bundle", bundle.as_ref().map(AsRef::as_ref)),
            ("--kubeconfig", kubeconfig.as_ref().map(AsRef::as_ref)),
            ("--context", context.as_ref().map(AsRef::as_ref)),
            ("--probe-image", probe_image.as_ref().map(AsRef::as_ref)),
            ("--cluster-name", cluster_name.as_ref().map(AsRef::as_ref)),
        ];
        let flags = [
            ("--i-own-this-cluster", self.i_own_this_cluster),
            ("--allow-cluster-wide", self.allow_cluster_wide),
        ];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag.into());
        let valued = valued.into_iter().filter_map(|(option, value)| Some((option, value?)));
        valued.flat_map(|(option, value)| [option.into(), value.to_owned()]).chain(flags).collect()
    }
}

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
    /// The profile breaks the lab in no way that there is.
    #[error("profile {profile} has `faults` that cannot be read")]
    Faults {
        /// Which.
        profile: String,
        /// What is wrong with them.
        source: NotAFault,
    },
    /// Only the lab can be broken.
    #[error("profile {profile} has `faults`, and is of no lab; take them out")]
    SoundOnly {
        /// Which.
        profile: String,
    },
    /// A real ztunnel is none that can be broken.
    #[error(
        "the lab is broken on purpose ({faults}), and {} names a real ztunnel, which is not; unset one of both",
        ztc_lab::real_ztunnel::VARIABLE
    )]
    SoundZtunnel {
        /// How the lab is broken.
        faults: String,
    },
    /// The profile is for a real ztunnel, and there is none.
    #[error(
        "profile {profile} is for a real ztunnel, and {} names none; set it to the path of its executable",
        ztc_lab::real_ztunnel::VARIABLE
    )]
    NoZtunnel {
        /// The profile.
        profile: String,
    },
    /// The profile describes no cluster that can be made.
    #[error("cannot make this cluster")]
    Profile(#[source] ProvisionError),
    /// The cluster did not get ready.
    #[error("the cluster is not ready")]
    Provision(#[source] Box<ProvisionError>),
    /// The cluster that is there may not or cannot be used.
    #[error("cannot attach to the cluster")]
    Attach(#[from] AttachError),
    /// The cluster is such that verdicts would be wrong or impossible.
    #[error("the cluster is not fit for a run; `ztc doctor` looks again\n{findings}")]
    Unfit {
        /// Everything that was found.
        findings: String,
    },
    /// The bundle makes another cluster than the cell of the matrix is.
    #[error("the bundle in {} is of {differs}, and not what the cell {cell} says; give a bundle of this cell", bundle.display())]
    OtherVersions {
        /// The cell.
        cell: String,
        /// The bundle's folder.
        bundle: PathBuf,
        /// Its versions that differ, in words.
        differs: String,
    },
    /// No registry has the cell.
    #[error(
        "no registry has the versions of the cell {cell}; name a bundle of them with --bundle or {BUNDLE_ENV}"
    )]
    NoBundle {
        /// The cell.
        cell: String,
    },
    /// The cluster has no Cilium that answers.
    #[error("the cluster cannot be used")]
    Cilium(#[from] CiliumError),
}

impl GroundError {
    /// What the process should exit with.
    pub const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Project(_)
            | Self::Bundle(_)
            | Self::Lab(_)
            | Self::Faults { .. }
            | Self::SoundOnly { .. }
            | Self::SoundZtunnel { .. }
            | Self::NoZtunnel { .. }
            | Self::Profile(_)
            | Self::OtherVersions { .. }
            | Self::NoBundle { .. }
            | Self::Attach(
                AttachError::NotOurs { .. } | AttachError::NoImage | AttachError::Kubeconfig(_),
            ) => ExitStatus::Usage,
            Self::Provision(_) | Self::Attach(_) | Self::Cilium(_) | Self::Unfit { .. } => {
                ExitStatus::Inconclusive
            }
        }
    }
}

/// What a run is to happen on, before anything of it is made.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The profile; what its bundle lacks is not among its features.
    pub profile: Profile,
    place: Place,
    bundle: Option<Bundle>,
    /// By part, as far as they are known before the cluster is there.
    versions: BTreeMap<String, String>,
    /// How the profile has the lab broken.
    pub(crate) faults: Faults,
    root: PathBuf,
}

/// What makes lanes, and is ready to.
#[derive(Debug, Clone)]
pub enum ReadyFabric {
    /// The lab.
    Lab(Arc<Lab>),
    /// A real cluster.
    Real(Arc<RealCluster>),
}

impl ReadyFabric {
    /// As whoever runs cases sees it.
    pub fn shared(&self) -> Arc<dyn Fabric> {
        match self {
            Self::Lab(lab) => Arc::<Lab>::clone(lab),
            Self::Real(cluster) => Arc::<RealCluster>::clone(cluster),
        }
    }
}

/// A ground that is ready.
#[derive(Debug)]
pub struct ReadyGround {
    /// What makes lanes.
    pub fabric: ReadyFabric,
    /// The versions of what enforces, by part.
    pub versions: BTreeMap<String, String>,
    /// How it is broken on purpose; normally not at all.
    pub faults: Option<String>,
    /// What is made in a real cluster.
    pub ledger: Option<Ledger>,
    /// Whether somebody lent us the cluster: nothing may stay in it.
    pub is_lent: bool,
}

impl Ground {
    /// Reads the profile of a place, and its bundle. Nothing is started.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn find(project: &Project, place: &Place) -> Result<Self, GroundError> {
        let mut profile = project.profile(&place.cluster)?;
        // A bundle is for clusters that are made; no other needs one, whatever the environment says.
        let is_made = profile.fabric == FabricKind::Kind;
        let bundle = place.bundle.as_ref().filter(|it| is_made && !it.as_os_str().is_empty());
        let bundle = bundle.map(|folder| Bundle::open(folder)).transpose()?;
        if let Some(bundle) = &bundle {
            let lacks = bundle.lacks();
            profile.features.retain(|feature| !lacks.contains(feature));
        }
        let faults = faults(&profile)?;
        let versions = match (profile.fabric, profile.cluster.clone(), &bundle) {
            (FabricKind::Lab, ..) => ztc_lab::versions(),
            (_, Some(spec), Some(bundle)) => bundle.applied_to(spec).versions(),
            (_, Some(spec), None) => spec.versions(),
            (_, None, _) => BTreeMap::new(),
        };
        if let Some(cell) = project.cell(&place.cluster)? {
            if bundle.is_none() && project.the_matrix()?.is_bundled(&cell) {
                return Err(GroundError::NoBundle { cell: cell.to_string() });
            }
            require_versions(&cell, &versions, place)?;
        }
        Ok(Self { profile, place: place.clone(), bundle, versions, faults, root: project.root() })
    }

    /// Why a case cannot be run here, if so. It is known before anything is started.
    pub fn lacks(&self, case: &Case, needs: &BTreeSet<Feature>, world: &World) -> Option<String> {
        let Profile { profile: name, features, outside, .. } = &self.profile;
        let missing: Vec<String> = needs.difference(features).map(ToString::to_string).collect();
        if !missing.is_empty() {
            return Some(format!("{name} lacks {}", missing.join(", ")));
        }
        if let Some(excluded) = case.versions.exclude(&self.versions) {
            return Some(excluded);
        }
        if self.profile.fabric != FabricKind::Attach {
            return None;
        }
        let hosts = case.outside_hosts(world).into_iter();
        let missing: Vec<&str> = hosts.filter(|it| !outside.contains_key(*it)).collect();
        if !missing.is_empty() {
            return Some(format!("{name} has no outside host {}", missing.join(", ")));
        }
        (case.reaches_beyond(world) && !self.place.allow_cluster_wide).then(|| {
            "its policies reach the whole cluster; --allow-cluster-wide allows that".to_owned()
        })
    }

    /// What is known of a case here, before anything is started.
    pub fn expected_failure(&self, case: &Case, known: &ExpectedFailures) -> Option<Entry> {
        known.of(&case.id, self.profile.fabric, &self.versions).cloned()
    }

    /// Enters the lab's namespaces, if it is the lab. To be called first of all: the process inside
    /// is another one.
    ///
    /// # Errors
    /// What the machine lacks.
    pub fn enter(&self) -> Result<Entered, SandboxError> {
        match self.profile.fabric {
            FabricKind::Lab => ztc_lab::enter(),
            FabricKind::Kind | FabricKind::Attach => Ok(Entered::Inside),
        }
    }

    /// Makes it ready, for a run that uses no worlds but these if it says which. It must have been entered before.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn ready(
        &self,
        run: &str,
        worlds: Option<BTreeSet<String>>,
    ) -> Result<ReadyGround, GroundError> {
        if self.profile.fabric == FabricKind::Lab {
            let lab = Lab::new(agent_command())?.broken(self.faults.clone());
            let faults = lab.faults();
            let real = lab.real_ztunnel().map(|version| ("ztunnel".to_owned(), version.to_owned()));
            if let (Some(_), Some(faults)) = (&real, &faults) {
                return Err(GroundError::SoundZtunnel { faults: faults.clone() });
            }
            if real.is_none() && self.profile.ztunnel == ZtunnelKind::Real {
                return Err(GroundError::NoZtunnel { profile: self.profile.profile.clone() });
            }
            let versions = real.into_iter().collect();
            return Ok(ReadyGround {
                fabric: ReadyFabric::Lab(Arc::new(lab)),
                versions,
                faults,
                ledger: None,
                is_lent: false,
            });
        }
        let mut fabric = self.real(run).await?;
        if let Some(worlds) = worlds {
            fabric = fabric.of_worlds(worlds);
        }
        require_fit(&fabric.findings().await?)?;
        Ok(ReadyGround {
            versions: fabric.versions(),
            ledger: Some(fabric.ledger()),
            is_lent: self.profile.fabric == FabricKind::Attach,
            fabric: ReadyFabric::Real(Arc::new(fabric)),
            faults: None,
        })
    }

    /// The real cluster, made or found.
    async fn real(&self, run: &str) -> Result<RealCluster, GroundError> {
        let ready = if self.profile.fabric == FabricKind::Attach {
            let busy = || terminal::trouble("another run has the cluster; waiting for it");
            self.attach().ready(run, busy).await?
        } else {
            let provisioner = self.provisioner()?;
            let ready = Box::pin(provisioner.up(run)).await;
            ready.map_err(|error| GroundError::Provision(Box::new(error)))?
        };
        Ok(RealCluster::new(ready).await?)
    }

    fn attach(&self) -> Attach {
        let Place { kubeconfig, context, i_own_this_cluster, probe_image, .. } = &self.place;
        Attach {
            lease: self.folders().leases().join(&self.profile.profile),
            profile: self.profile.clone(),
            permission: Permission {
                kubeconfig: kubeconfig.clone(),
                context: context.clone(),
                owned: *i_own_this_cluster,
                image: probe_image.clone(),
            },
        }
    }

    /// Looks whether a run on the cluster would mean something; the lab always would.
    ///
    /// # Errors
    /// Why the cluster cannot be looked at.
    pub async fn findings(&self, run: &str) -> Result<Vec<Finding>, GroundError> {
        match self.profile.fabric {
            FabricKind::Lab => Ok(Vec::new()),
            FabricKind::Kind | FabricKind::Attach => Ok(self.real(run).await?.findings().await?),
        }
    }

    /// Makes the cluster and leaves it to runs to come. Only kind's are made.
    ///
    /// # Errors
    /// Why it is not ready.
    pub async fn up(&self, run: &str) -> Result<(), GroundError> {
        match self.profile.fabric {
            FabricKind::Lab | FabricKind::Attach => Ok(()),
            FabricKind::Kind => self.ready(run, None).await.map(drop),
        }
    }

    /// Deletes the cluster. Only kind's are.
    ///
    /// # Errors
    /// What is left.
    pub async fn down(&self) -> Result<(), GroundError> {
        match self.profile.fabric {
            FabricKind::Lab | FabricKind::Attach => Ok(()),
            FabricKind::Kind => {
                let down = self.provisioner()?.down().await;
                down.map_err(|error| GroundError::Provision(Box::new(error)))
            }
        }
    }

    /// Deletes the clusters of all profiles that were made from a project.
    ///
    /// # Errors
    /// What is left.
    pub async fn all_down(project: &Project) -> Result<(), GroundError> {
        let folders = Folders { root: project.root(), sources: Project::sources() };
        let progress: Progress = Arc::new(|line: &str| terminal::trouble(line));
        let down = folders.take_all_down(&progress).await;
        down.map_err(|error| GroundError::Provision(Box::new(error)))
    }

    fn folders(&self) -> Folders {
        Folders { root: self.root.clone(), sources: Project::sources() }
    }

    /// What makes its cluster.
    ///
    /// # Errors
    /// When the profile describes none.
    pub(crate) fn provisioner(&self) -> Result<Provisioner, GroundError> {
        let (profile, bundle) = (self.profile.clone(), self.bundle.clone());
        let progress = Arc::new(|line: &str| terminal::trouble(line));
        let made = Provisioner::new(self.folders(), profile, bundle, progress);
        let made = made.map_err(GroundError::Profile)?;
        Ok(match &self.place.cluster_name {
            Some(name) => made.named(name),
            None => made,
        })
    }

    /// The versions of its parts, as far as they are known before the cluster is there.
    pub(crate) const fn versions(&self) -> &BTreeMap<String, String> {
        &self.versions
    }
}

/// How a profile has the lab broken.
fn faults(profile: &Profile) -> Result<Faults, GroundError> {
    let name = || profile.profile.clone();
    if profile.fabric != FabricKind::Lab && !profile.faults.is_empty() {
        return Err(GroundError::SoundOnly { profile: name() });
    }
    let faults = profile.faults.join(",").parse();
    faults.map_err(|source| GroundError::Faults { profile: name(), source })
}

/// Whether the cluster that would be made has the versions of a cell: a run on another one would be reported for it.
fn require_versions(
    cell: &Combination,
    versions: &BTreeMap<String, String>,
    place: &Place,
) -> Result<(), GroundError> {
    let wanted = cell.versions();
    let parts: BTreeSet<&String> = wanted.keys().chain(versions.keys()).collect();
    let differs = parts.into_iter().filter(|part| wanted.get(*part) != versions.get(*part));
    let told = |part: &String| match versions.get(part) {
        Some(version) => format!("{part} {version}"),
        None => format!("no {part}"),
    };
    let differs: Vec<String> = differs.map(told).collect();
    if differs.is_empty() {
        return Ok(());
    }
    Err(GroundError::OtherVersions {
        cell: cell.to_string(),
        bundle: place.bundle.clone().unwrap_or_default(),
        differs: differs.join(", "),
    })
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
