//! From a profile to a cluster that is ready: the steps, in order, each with a condition and a ceiling.
//!
//! Every step that is done is written into the lease. A run that was ended half-way is gone on from; one
//! with another profile or bundle takes the old cluster down first.

mod steps;
mod upgrade;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use ztc_engine::profile::{ClusterSpec, Profile};
use ztc_engine::wait::WaitError;
use ztc_model::yaml::Diagnostic;

use crate::api::{self, ApiError};
use crate::bundle::{Bundle, BundleError, hex};
use crate::charts::{MESH_CHARTS, MESH_KINDS};
use crate::docker::{Docker, DockerError};
use crate::kind::{self, Kind};
use crate::lease::{Lease, LeaseError, State};
use crate::ledger::Ledger;
use crate::mark;
use crate::objects::Pull;
use crate::probe::{self, ProbeError};
use crate::program::ProgramError;
use crate::provision::steps::Steps;
use crate::ready::{Hosting, Ready};
use crate::takedown::{Watch, take_all_down, take_down};

pub use upgrade::Upgrade;

/// Is told what is going on, one line at a time.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The profile does not describe a cluster.
    #[error("profile {profile} says `fabric: kind` and has no `cluster:`")]
    NoSpec {
        /// Which.
        profile: String,
    },
    /// It has too few nodes.
    #[error("profile {profile} has {nodes} nodes; at least 2 are needed for paths between nodes")]
    TooFewNodes {
        /// Which.
        profile: String,
        /// How many it has.
        nodes: usize,
    },
    /// Somebody else has a cluster of that name.
    #[error(
        "there is a cluster `{cluster}` that this checkout did not make; delete it with `kind delete cluster --name \
         {cluster}`, or give the profile another name"
    )]
    NameTaken {
        /// The name.
        cluster: String,
    },
    /// It is none that can be upgraded.
    #[error(
        "ztc made no cluster `{cluster}`, and upgrades none but its own; `ztc monitor CASE -- COMMAND` watches another one \
         while a command upgrades it"
    )]
    NotMade {
        /// The name, or the context that leads to it.
        cluster: String,
    },
    /// Nobody watches whether the cluster is still used.
    #[error("cannot start the process that deletes the cluster when nobody uses it")]
    Watch(#[source] std::io::Error),
    /// A file of values or definitions cannot be read.
    #[error("cannot read {}", path.display())]
    Values {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file says something wrong.
    #[error("{0}")]
    Wrong(Box<Diagnostic>),
    /// Resource definitions come from a bundle only.
    #[error(
        "the Gateway API's resource definitions are needed for a mesh, and there is no bundle with them"
    )]
    NoDefinitions,
    /// A step failed.
    #[error("step `{step}` of cluster {cluster} failed: {}{seen}", ztc_engine::chain(why))]
    Step {
        /// Which.
        step: &'static str,
        /// Of what.
        cluster: String,
        /// Why. It is said before what was seen, which is long.
        why: Box<ProvisionError>,
        /// What was seen of the cluster then.
        seen: String,
    },
    /// An archive of the bundle did not get into the nodes.
    #[error(
        "cannot bring {} into the nodes, whose architecture is {}",
        path.display(),
        std::env::consts::ARCH
    )]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: Box<DockerError>,
    },
    /// The lease cannot be had.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Docker refused.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The probe could not be had.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A condition did not come.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

impl ProvisionError {
    /// Whether a look at the cluster may say more: something in it did not come, or a program waited
    /// for it.
    const fn is_about_the_cluster(&self) -> bool {
        matches!(self, Self::Program(_) | Self::Wait(_) | Self::Api(_))
    }
}

/// Where things are.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The folder with `clusters/`, `.tools/` and `target/`.
    pub root: PathBuf,
    /// The folder with the sources of the probe.
    pub sources: PathBuf,
}

impl Folders {
    /// The folder of the leases, one a profile.
    pub fn leases(&self) -> PathBuf {
        self.root.join("target/ztc/lease")
    }

    /// Deletes every cluster that was made from here, and everything that was made for them.
    ///
    /// # Errors
    /// What is left.
    pub async fn take_all_down(&self, progress: &Progress) -> Result<(), ProvisionError> {
        take_all_down(&self.leases(), &self.root.join(".tools"), &**progress).await
    }
}

/// Makes the cluster of a profile.
pub struct Provisioner {
    folders: Folders,
    profile: Profile,
    /// What the cluster and its lease are called.
    name: String,
    spec: ClusterSpec,
    bundle: Option<Bundle>,
    progress: Progress,
}

impl std::fmt::Debug for Provisioner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provisioner")
            .field("profile", &self.profile.profile)
            .finish_non_exhaustive()
    }
}

impl Provisioner {
    /// For a profile, out of a bundle or out of registries.
    ///
    /// # Errors
    /// What is wrong with the profile; nothing is started.
    pub fn new(
        folders: Folders,
        profile: Profile,
        bundle: Option<Bundle>,
        progress: Progress,
    ) -> Result<Self, ProvisionError> {
        let name = || profile.profile.clone();
        let spec =
            profile.cluster.clone().ok_or_else(|| ProvisionError::NoSpec { profile: name() })?;
        if spec.nodes < 2 {
            return Err(ProvisionError::TooFewNodes { profile: name(), nodes: spec.nodes });
        }
        let spec = match &bundle {
            Some(bundle) => bundle.applied_to(spec),
            None => spec,
        };
        let name = profile.profile.clone();
        Ok(Self { folders, profile, name, spec, bundle, progress })
    }

    /// The same under another name than the profile's: for a cluster that goes from one profile to another.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The name of the cluster.
    fn cluster(&self) -> String {
        kind::cluster_name(&self.name)
    }

    fn tools(&self) -> PathBuf {
        self.folders.root.join(".tools")
    }

    fn say(&self, line: &str) {
        (self.progress)(line);
    }

    fn lease_folder(&self) -> PathBuf {
        self.folders.leases().join(&self.name)
    }

    async fn lease(&self) -> Result<Lease, LeaseError> {
        Lease::take(self.lease_folder(), || self.say("another run has the cluster; waiting for it"))
            .await
    }

    /// Brings the cluster up, or takes the one that is there.
    ///
    /// # Errors
    /// The step that failed, and what was seen of the cluster then. What has been made stays, and
    /// the next run goes on from there.
    pub async fn up(&self, run: &str) -> Result<Ready, ProvisionError> {
        let lease = self.lease().await?;
        let docker = Docker::connect().await?;
        let kind = Kind::find(&self.tools()).await?;
        let state = Mutex::new(self.begin(&lease, &docker, &kind).await?);
        let steps = Steps { of: self, lease: &lease, docker: &docker, kind: &kind };
        steps.once(&state, steps::NODES, steps.nodes()).await?;
        let cluster = self.cluster();
        let nodes = kind.nodes(&cluster).await?;
        let client = api::client(&lease.kubeconfig(), run).await?;
        // Images take their time, and kinds of objects need no more than the API server.
        let kinds = Box::pin(async {
            steps.once(&state, steps::DEFINITIONS, steps.definitions(&client)).await?;
            if self.spec.mesh.is_some() {
                steps.once(&state, steps::GATEWAY_API, steps.gateway_api(&client)).await?;
                steps.once(&state, MESH_KINDS, steps.mesh(&client, MESH_KINDS)).await?;
            }
            Ok(())
        });
        let images = Box::pin(steps.once(&state, steps::IMAGES, steps.images(&nodes)));
        tokio::try_join!(images, kinds)?;
        steps.once(&state, steps::CILIUM, steps.cilium(&client)).await?;
        steps.once(&state, steps::NETWORK, steps.network(&client)).await?;
        steps.names_and_mesh(&state, &client).await?;
        let archive = probe::image(&self.folders.sources, || {
            self.say("cargo builds the probe for the nodes; the first time this takes minutes");
        })
        .await?;
        let probe = format!("{} {}", steps::PROBE, archive.reference);
        if !steps::is_done(&state, &probe) {
            steps
                .timed(steps::PROBE, steps.probe(archive.reference.clone(), archive.tar, &nodes))
                .await?;
            steps.note_done(&state, &probe)?;
        }
        mark::set(&client, &cluster).await?;
        self.watch()?;
        Ok(Ready {
            client,
            outside: Hosting::Containers(docker),
            cluster,
            nodes,
            image: archive.reference,
            pull: Pull::Never,
            run: run.to_owned(),
            spec: self.spec.clone(),
            keeps_worlds: true,
            ledger: Ledger::default(),
            secret: lease.secret()?,
            lease,
        })
    }

    /// Looks at what is there, and takes down what is not wanted any more.
    async fn begin(
        &self,
        lease: &Lease,
        docker: &Docker,
        kind: &Kind,
    ) -> Result<State, ProvisionError> {
        let cluster = self.cluster();
        let exists = kind.clusters().await?.contains(&cluster);
        let contents = self.contents()?;
        match lease.state()? {
            Some(state) if state.contents == contents && exists => return Ok(state),
            Some(_) => {
                self.say("the cluster of an earlier run is not the one that is wanted, or is gone");
                take_down(lease, docker, kind, &cluster).await?;
            }
            None if exists => return Err(ProvisionError::NameTaken { cluster }),
            None => {}
        }
        let state = State { contents, done: Vec::new() };
        lease.note(&state)?;
        Ok(state)
    }

    /// Deletes the cluster, and everything that was made for it.
    ///
    /// # Errors
    /// What is left.
    pub async fn down(&self) -> Result<(), ProvisionError> {
        let lease = self.lease().await?;
        let docker = Docker::connect().await?;
        let kind = Kind::find(&self.tools()).await?;
        let cluster = self.cluster();
        if lease.state()?.is_none() && kind.clusters().await?.contains(&cluster) {
            return Err(ProvisionError::NameTaken { cluster });
        }
        take_down(&lease, &docker, &kind, &cluster).await
    }

    /// Has the cluster deleted when nobody uses it any more.
    fn watch(&self) -> Result<(), ProvisionError> {
        if self.spec.idle_minutes == 0 {
            return Ok(());
        }
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let watch = Watch {
            lease: absolute(self.lease_folder()),
            tools: absolute(self.tools()),
            cluster: self.cluster(),
            idle_s: self.spec.idle_minutes * 60,
        };
        watch.start().map_err(ProvisionError::Watch)
    }

    /// The digest of everything that the cluster is made of.
    fn contents(&self) -> Result<String, ProvisionError> {
        let mut digest = Sha256::new();
        digest.update(format!("{:?}", self.spec));
        digest.update(self.bundle.as_ref().map(Bundle::contents).unwrap_or_default());
        for path in self.value_files().into_iter().chain(self.definitions()) {
            digest.update(read(&path)?);
        }
        Ok(hex(&digest.finalize()))
    }

    fn value_files(&self) -> Vec<PathBuf> {
        let mesh = self.spec.mesh.iter();
        let of_mesh = mesh.flat_map(|it| [&it.istiod_values, &it.cni_values, &it.ztunnel_values]);
        let own = of_mesh.chain([&self.spec.cilium_values]).flatten();
        let own = own.map(|it| self.profiles().join(it));
        let charts = ["cilium"].into_iter().chain(MESH_CHARTS);
        own.chain(charts.filter_map(|it| self.bundle.as_ref()?.values(it))).collect()
    }

    /// The files of resource definitions that the profile has besides.
    fn definitions(&self) -> impl Iterator<Item = PathBuf> {
        self.spec.definitions.iter().map(|it| self.profiles().join(it))
    }

    /// The folder of profiles, which values are beside.
    fn profiles(&self) -> PathBuf {
        self.folders.root.join("clusters")
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ProvisionError> {
    std::fs::read(path).map_err(|source| ProvisionError::Values { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use ztc_model::yaml::{self, Source};

    use super::*;

    fn profile(cluster: &str) -> Profile {
        let text = format!(
            "profile: kind\nabout: A test.\nfabric: kind\nlanes: {{ count: 1, each: namespaces }}\nfeatures: []\n\
             pace: {{ readyCeilingMs: 1, passCeilingMs: 1, settleCeilingMs: 1, probeDeadlineMs: 1, holdMs: 1, \
             holdSamples: 1, allowedSamples: 1, streamEveryMs: 1, pollMs: 1 }}\n{cluster}"
        );
        yaml::strict(&Source::new("kind.yaml", text)).unwrap()
    }

    const CLUSTER: &str = "cluster: { kubernetes: 1.36.3, nodes: @, ipFamily: ipv4, kubeProxy: replaced, cilium: 1.20.2 }\n";

    fn provisioner(cluster: &str, bundle: Option<Bundle>) -> Result<Provisioner, ProvisionError> {
        let here = PathBuf::from(".");
        let folders = Folders { root: here.clone(), sources: here };
        Provisioner::new(folders, profile(cluster), bundle, Arc::new(|_line| {}))
    }

    fn bundle(versions: &str) -> Bundle {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bundle.yaml"), format!("versions: {versions}\n"))
            .unwrap();
        Bundle::open(folder.path()).unwrap()
    }

    #[test]
    fn a_profile_without_a_cluster_or_with_one_node_is_refused() {
        assert!(matches!(provisioner("", None), Err(ProvisionError::NoSpec { .. })));
        let one = provisioner(&CLUSTER.replace('@', "1"), None);
        assert!(matches!(one, Err(ProvisionError::TooFewNodes { nodes: 1, .. })));
    }

    #[test]
    fn a_cluster_has_the_versions_of_its_bundle() {
        let cluster = CLUSTER.replace('@', "2");
        let of_bundle = provisioner(&cluster, Some(bundle("{ cilium: 1.19.6 }"))).unwrap();
        assert_eq!(of_bundle.spec.cilium, "1.19.6");
        assert_eq!(of_bundle.spec.kubernetes, "1.36.3");
    }

    #[test]
    fn a_bundle_without_a_mesh_makes_a_cluster_without_one() {
        let cluster = CLUSTER
            .replace('@', "2")
            .replace(" }", ", mesh: { istio: 1.31.1, gatewayApi: 1.6.1 } }");
        assert!(provisioner(&cluster, None).unwrap().spec.mesh.is_some());
        assert!(provisioner(&cluster, Some(bundle("{}"))).unwrap().spec.mesh.is_none());
    }

    #[test]
    fn a_step_that_failed_says_why_before_what_was_seen() {
        let error = ProvisionError::Step {
            step: "cilium",
            cluster: "ztc-kind".to_owned(),
            why: Box::new(ProvisionError::NoDefinitions),
            seen: "\n  pod kube-system/etcd: Pending".to_owned(),
        };
        let told = ztc_engine::chain(&error);
        assert!(
            told.starts_with("step `cilium` of cluster ztc-kind failed: the Gateway API"),
            "{told}"
        );
        assert!(told.ends_with("bundle with them\n  pod kube-system/etcd: Pending"), "{told}");
    }

    #[test]
    fn another_bundle_makes_another_cluster() {
        let cluster = CLUSTER.replace('@', "2");
        let one = provisioner(&cluster, Some(bundle("{ cilium: 1.20.2 }"))).unwrap();
        let two = provisioner(&cluster, None).unwrap();
        assert_ne!(one.contents().unwrap(), two.contents().unwrap());
        assert_eq!(
            two.contents().unwrap(),
            provisioner(&cluster, None).unwrap().contents().unwrap()
        );
    }
}
