//! From a profile to a cluster that is ready: the steps, in order, each with a condition and a ceiling.
//!
//! Every step that is done is written into the lease. A run that was ended half-way is gone on from; one
//! with another profile or bundle takes the old cluster down first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use ztc_engine::profile::{ClusterSpec, KubeProxy, MeshSpec, Profile};
use ztc_engine::wait::{Look, WaitError, until};
use ztc_model::yaml::{self, Diagnostic, Source};

use crate::api::{self, ApiError};
use crate::bundle::{Bundle, BundleError, MESH_CHARTS, hex};
use crate::diagnosis::diagnosis;
use crate::docker::{Docker, DockerError, pieces};
use crate::kind::{self, Kind};
use crate::lease::{Lease, LeaseError, State};
use crate::ledger::Ledger;
use crate::mark;
use crate::objects::Pull;
use crate::outside::CLUSTER;
use crate::probe::{self, ProbeError};
use crate::program::{Program, ProgramError};
use crate::ready::{Hosting, Ready};

/// How long one chart may take until everything of it is ready.
const CHART: Duration = Duration::from_mins(6);
/// How long helm itself may take, besides what it waits for.
const HELM: Duration = Duration::from_mins(1);
/// How long nodes may take to get ready once there is a network.
const NODES: Duration = Duration::from_mins(4);
/// Between two looks at a node.
const POLL: Duration = Duration::from_millis(250);

/// The namespace of the mesh.
const ISTIO: &str = "istio-system";

/// Where charts come from without a bundle.
const CILIUM_CHARTS: &str = "https://helm.cilium.io";
/// The same for Istio's.
const ISTIO_CHARTS: &str = "https://blob.istio.io/istio-release/charts";

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
    /// A file of values cannot be read.
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

/// Makes the cluster of a profile.
pub struct Provisioner {
    folders: Folders,
    profile: Profile,
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

/// The steps, by the names under which they are written into the lease.
mod step {
    pub(super) const NODES: &str = "nodes";
    pub(super) const IMAGES: &str = "images";
    pub(super) const CILIUM: &str = "cilium";
    pub(super) const NETWORK: &str = "network";
    pub(super) const GATEWAY_API: &str = "gateway-api";
    pub(super) const PROBE: &str = "probe";
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
            Some(bundle) => of_bundle(spec, bundle),
            None => spec,
        };
        Ok(Self { folders, profile, spec, bundle, progress })
    }

    /// The name of the cluster.
    fn cluster(&self) -> String {
        format!("ztc-{}", self.profile.profile)
    }

    fn tools(&self) -> PathBuf {
        self.folders.root.join(".tools")
    }

    fn say(&self, line: &str) {
        (self.progress)(line);
    }

    async fn lease(&self) -> Result<Lease, LeaseError> {
        let folder = self.folders.root.join("target/ztc/lease").join(&self.profile.profile);
        Lease::take(folder, || self.say("another run has the cluster; waiting for it")).await
    }

    /// Brings the cluster up, or takes the one that is there.
    ///
    /// # Errors
    /// The step that failed, and what was seen of the cluster then. What has been made stays, and
    /// the next run goes on from there.
    pub async fn up(&self, run: &str) -> Result<Ready, ProvisionError> {
        let lease = self.lease().await?;
        let docker = Docker::connect().await?;
        let kind = Kind::find(&self.tools())?;
        let mut state = self.begin(&lease, &docker, &kind).await?;
        let steps = Steps { of: self, lease: &lease, docker: &docker, kind: &kind };
        steps.once(&mut state, step::NODES, steps.nodes()).await?;
        let cluster = self.cluster();
        let nodes = kind.nodes(&cluster).await?;
        let client = api::client(&lease.kubeconfig(), run).await?;
        steps.once(&mut state, step::IMAGES, steps.images(&nodes)).await?;
        steps.once(&mut state, step::CILIUM, steps.cilium()).await?;
        steps.once(&mut state, step::NETWORK, steps.network(&client)).await?;
        if self.spec.mesh.is_some() {
            steps.once(&mut state, step::GATEWAY_API, steps.gateway_api(&client)).await?;
            for chart in MESH_CHARTS {
                steps.once(&mut state, chart, steps.mesh(chart)).await?;
            }
        }
        let archive = probe::image(&self.folders.sources, || {
            self.say("cargo builds the probe for the nodes; the first time this takes minutes");
        })
        .await?;
        let probe = format!("{} {}", step::PROBE, archive.reference);
        if !state.done.contains(&probe) {
            let image = archive.reference.clone();
            steps
                .timed(step::PROBE, steps.probe(archive.reference.clone(), archive.tar, &nodes))
                .await?;
            state.done.push(format!("{} {image}", step::PROBE));
            lease.note(&state)?;
        }
        mark::set(&client, &cluster).await?;
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
            _lease: lease,
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
        let kind = Kind::find(&self.tools())?;
        let cluster = self.cluster();
        if lease.state()?.is_none() && kind.clusters().await?.contains(&cluster) {
            return Err(ProvisionError::NameTaken { cluster });
        }
        take_down(&lease, &docker, &kind, &cluster).await
    }

    /// The digest of everything that the cluster is made of.
    fn contents(&self) -> Result<String, ProvisionError> {
        let mut digest = Sha256::new();
        digest.update(format!("{:?}", self.spec));
        digest.update(self.bundle.as_ref().map(Bundle::contents).unwrap_or_default());
        for path in self.value_files() {
            digest.update(read(&path)?);
        }
        Ok(hex(&digest.finalize()))
    }

    fn value_files(&self) -> Vec<PathBuf> {
        let mesh = self.spec.mesh.iter();
        let of_mesh = mesh.flat_map(|it| [&it.istiod_values, &it.ztunnel_values]);
        let own = of_mesh.chain([&self.spec.cilium_values]).flatten();
        let own = own.map(|it| self.folders.root.join("clusters").join(it));
        let charts = ["cilium"].into_iter().chain(MESH_CHARTS);
        own.chain(charts.filter_map(|it| self.bundle.as_ref()?.values(it))).collect()
    }

    fn values(&self, file: Option<&PathBuf>) -> Option<PathBuf> {
        file.map(|it| self.folders.root.join("clusters").join(it))
    }
}

async fn take_down(
    lease: &Lease,
    docker: &Docker,
    kind: &Kind,
    cluster: &str,
) -> Result<(), ProvisionError> {
    for container in docker.labelled(&format!("{CLUSTER}={cluster}")).await? {
        docker.remove(&container).await?;
    }
    kind.delete(cluster, &lease.kubeconfig()).await?;
    Ok(lease.forget()?)
}

/// The cluster that comes of a bundle: it has the bundle's versions, whatever the profile would take
/// from registries, and no mesh where the bundle has none.
fn of_bundle(spec: ClusterSpec, bundle: &Bundle) -> ClusterSpec {
    let version = |part, wanted: String| bundle.version(part).map_or(wanted, str::to_owned);
    ClusterSpec {
        kubernetes: version("kubernetes", spec.kubernetes),
        cilium: version("cilium", spec.cilium),
        mesh: spec.mesh.filter(|_| bundle.has_mesh()).map(|mesh| MeshSpec {
            istio: version("istio", mesh.istio),
            gateway_api: version("gatewayApi", mesh.gateway_api),
            ..mesh
        }),
        ..spec
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ProvisionError> {
    std::fs::read(path).map_err(|source| ProvisionError::Values { path: path.to_owned(), source })
}

/// What the steps work with.
struct Steps<'a> {
    of: &'a Provisioner,
    lease: &'a Lease,
    docker: &'a Docker,
    kind: &'a Kind,
}

impl Steps<'_> {
    /// Does a step unless an earlier run has done it.
    async fn once(
        &self,
        state: &mut State,
        name: &'static str,
        work: impl Future<Output = Result<(), ProvisionError>>,
    ) -> Result<(), ProvisionError> {
        if state.done.iter().any(|it| it == name) {
            return Ok(());
        }
        self.timed(name, work).await?;
        state.done.push(name.to_owned());
        Ok(self.lease.note(state)?)
    }

    async fn timed(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(), ProvisionError>>,
    ) -> Result<(), ProvisionError> {
        let cluster = self.of.cluster();
        self.of.say(&format!("{cluster}: {name} ..."));
        let begun = Instant::now();
        if let Err(why) = work.await {
            let seen = if why.is_about_the_cluster() {
                diagnosis(&self.lease.kubeconfig()).await
            } else {
                String::new()
            };
            return Err(ProvisionError::Step { step: name, cluster, why: Box::new(why), seen });
        }
        self.of.say(&format!("{cluster}: {name} done in {:.1} s", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn nodes(&self) -> Result<(), ProvisionError> {
        let (of, cluster) = (self.of, self.of.cluster());
        let image = match of.bundle.as_ref().and_then(Bundle::node_image) {
            Some(image) => {
                if !self.docker.has_image(&image.reference).await {
                    let bundle = of.bundle.as_ref().expect("an image of a bundle");
                    bundle.verify(image)?;
                    self.docker.load_file(&image.reference, &bundle.path(image)).await?;
                }
                Some(image.reference.clone())
            }
            None => Some(
                of.spec
                    .node_image
                    .clone()
                    .unwrap_or_else(|| format!("kindest/node:v{}", of.spec.kubernetes)),
            ),
        };
        let over = match of.bundle.as_ref().and_then(Bundle::kind_config) {
            Some(path) => Some(document(&path)?),
            None => None,
        };
        let config = kind::config(&of.spec, image.as_deref(), over);
        // JSON is YAML.
        let file = self.written("kind.json", &config)?;
        let kubeconfig = self.lease.kubeconfig();
        // One that was begun and not finished cannot be gone on with.
        self.kind.delete(&cluster, &kubeconfig).await?;
        Ok(self.kind.create(&cluster, &file, &kubeconfig, self.lease.lock()?).await?)
    }

    /// A document as a file of the lease.
    fn written(&self, name: &str, document: &Value) -> Result<PathBuf, ProvisionError> {
        let path = self.lease.file(name);
        std::fs::write(&path, document.to_string())
            .map_err(|source| LeaseError::Write { path: path.clone(), source })?;
        Ok(path)
    }

    /// The images of a bundle into all nodes, node by node at once, archive after archive.
    async fn images(&self, nodes: &[String]) -> Result<(), ProvisionError> {
        let Some(bundle) = &self.of.bundle else { return Ok(()) };
        for image in bundle.archives() {
            bundle.verify(image)?;
            let path = bundle.path(image);
            try_join_all(nodes.iter().map(|node| {
                let path = &path;
                async move { self.docker.import_into_node(node, pieces(path).await?).await }
            }))
            .await
            .map_err(|source| ProvisionError::Archive {
                path: path.clone(),
                source: Box::new(source),
            })?;
        }
        Ok(())
    }

    async fn cilium(&self) -> Result<(), ProvisionError> {
        let spec = &self.of.spec;
        let values = json!({
            "k8sServiceHost": format!("{}-control-plane", self.of.cluster()),
            "k8sServicePort": 6443,
            "kubeProxyReplacement": spec.kube_proxy == KubeProxy::Replaced,
        });
        let chart = Chart {
            name: "cilium",
            namespace: crate::cilium::NAMESPACE,
            version: &spec.cilium,
            repository: CILIUM_CHARTS,
            values: self.of.values(spec.cilium_values.as_ref()),
            own: values,
        };
        self.chart(&chart).await
    }

    async fn network(&self, client: &Client) -> Result<(), ProvisionError> {
        let nodes: Api<Node> = Api::all(client.clone());
        until("nodes that are Ready", NODES, POLL, || async {
            let listed = nodes.list(&ListParams::default()).await;
            let listed = listed.map_err(|error| ztc_engine::chain(&error))?;
            let late: Vec<String> = listed
                .items
                .iter()
                .filter(|node| !is_ready(node))
                .filter_map(|node| node.metadata.name.clone())
                .collect();
            Ok(if late.is_empty() {
                Look::Met(())
            } else {
                Look::NotYet { status: format!("{} not Ready", late.join(", ")) }
            })
        })
        .await?;
        Ok(())
    }

    async fn gateway_api(&self, client: &Client) -> Result<(), ProvisionError> {
        let Some(bundle) = &self.of.bundle else { return Err(ProvisionError::NoDefinitions) };
        for path in bundle.crds() {
            let text = String::from_utf8_lossy(&read(&path)?).into_owned();
            let objects = yaml::values(&Source::new(path.display().to_string(), text))
                .map_err(ProvisionError::Wrong)?;
            for object in objects {
                api::install(client, &object).await?;
            }
        }
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ISTIO } });
        api::install(client, &namespace).await?;
        Ok(())
    }

    async fn mesh(&self, name: &'static str) -> Result<(), ProvisionError> {
        let mesh = self.of.spec.mesh.as_ref().expect("a profile with a mesh");
        let (values, own) = match name {
            "istiod" => (mesh.istiod_values.as_ref(), json!({ "profile": "ambient" })),
            "cni" => (None, json!({ "profile": "ambient" })),
            "ztunnel" => (mesh.ztunnel_values.as_ref(), json!({})),
            _ => (None, json!({})),
        };
        let chart = Chart {
            name,
            namespace: ISTIO,
            version: &mesh.istio,
            repository: ISTIO_CHARTS,
            values: self.of.values(values),
            own,
        };
        self.chart(&chart).await
    }

    /// Installs a chart and waits until everything of it is ready. Values come in this order, the
    /// later over the earlier: the profile's, what follows from the profile, the bundle's.
    async fn chart(&self, chart: &Chart<'_>) -> Result<(), ProvisionError> {
        let helm =
            Program::find("helm", &self.of.tools())?.with("KUBECONFIG", self.lease.kubeconfig());
        release(&helm, chart).await?;
        let own = self.written(&format!("values-{}.json", chart.name), &chart.own)?;
        let bundle = self.of.bundle.as_ref();
        let packed = bundle.and_then(|it| it.chart(chart.name));
        let mut arguments: Vec<String> =
            ["upgrade", "--install", chart.name].map(str::to_owned).into();
        match packed {
            Some(path) => arguments.push(path.display().to_string()),
            None => arguments.extend([
                chart.name.to_owned(),
                "--repo".to_owned(),
                chart.repository.to_owned(),
                "--version".to_owned(),
                chart.version.to_owned(),
            ]),
        }
        arguments.extend(["--namespace".to_owned(), chart.namespace.to_owned()]);
        let files = chart.values.iter().cloned();
        let files = files.chain([own]).chain(bundle.and_then(|it| it.values(chart.name)));
        for file in files {
            arguments.extend(["--values".to_owned(), file.display().to_string()]);
        }
        arguments.extend(["--wait".to_owned(), "--timeout".to_owned()]);
        arguments.push(format!("{}s", CHART.as_secs()));
        helm.run_holding(self.lease.lock()?, &arguments, CHART + HELM).await?;
        Ok(())
    }

    /// The probe's image into the nodes, for pods, and into Docker, for the hosts outside.
    async fn probe(
        &self,
        reference: String,
        tar: Vec<u8>,
        nodes: &[String],
    ) -> Result<(), ProvisionError> {
        let bytes = bytes::Bytes::from(tar);
        try_join_all(nodes.iter().map(|node| {
            let bytes = bytes.clone();
            let archive = futures_util::stream::iter([Ok(bytes)]);
            self.docker.import_into_node(node, archive)
        }))
        .await?;
        Ok(self.docker.load(&reference, bytes.into()).await?)
    }
}

/// Removes what is left of an installation that was killed: helm takes it for one that still goes on, and
/// refuses another. Who holds the lease knows that it does not.
async fn release(helm: &Program, chart: &Chart<'_>) -> Result<(), ProvisionError> {
    let only = format!("^{}$", chart.name);
    let list =
        ["list", "--pending", "--short", "--namespace", chart.namespace, "--filter", only.as_str()];
    if helm.run(&list, HELM).await?.trim().is_empty() {
        return Ok(());
    }
    let ceiling = format!("{}s", CHART.as_secs());
    let uninstall = [
        "uninstall",
        chart.name,
        "--namespace",
        chart.namespace,
        "--ignore-not-found",
        "--wait",
        "--timeout",
        ceiling.as_str(),
    ];
    helm.run(&uninstall, CHART + HELM).await?;
    Ok(())
}

/// A chart to be installed.
struct Chart<'a> {
    name: &'static str,
    namespace: &'static str,
    version: &'a str,
    repository: &'static str,
    /// The profile's values.
    values: Option<PathBuf>,
    /// What follows from the profile.
    own: Value,
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.filter(|it| it.type_ == "Ready").any(|it| it.status == "True")
}

/// A file with one YAML document.
fn document(path: &Path) -> Result<Value, ProvisionError> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let documents = yaml::values(&Source::new(path.display().to_string(), text));
    let documents = documents.map_err(ProvisionError::Wrong)?;
    Ok(documents.into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
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
