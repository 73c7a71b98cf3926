//! The steps by which a cluster is made.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use ztc_engine::wait::{Look, until};
use ztc_model::condition;
use ztc_model::manifest::ObjectRef;
use ztc_model::yaml::{self, Source};

use super::{ProvisionError, Provisioner, read};
use crate::api;
use crate::bundle::Bundle;
use crate::charts::{Chart, ISTIO, MESH_CHARTS};
use crate::diagnosis::diagnosis;
use crate::docker::{Docker, pieces};
use crate::kind::{self, Kind};
use crate::lease::{Lease, LeaseError, State};
use crate::outside;
use crate::program::Program;
use crate::rollout;

/// How long one chart may take until everything of it is ready.
const CHART: Duration = Duration::from_mins(6);
/// How long helm itself may take, besides what it waits for.
const HELM: Duration = Duration::from_mins(1);
/// How long nodes may take to get ready once there is a network.
const NODES_READY: Duration = Duration::from_mins(4);
/// How long a resource definition may take until it is served.
const DEFINED: Duration = Duration::from_secs(30);
/// Between two looks at a node.
const POLL: Duration = Duration::from_millis(250);

// The steps, by the names under which they are written into the lease.
pub(super) const NODES: &str = "nodes";
pub(super) const IMAGES: &str = "images";
pub(super) const CILIUM: &str = "cilium";
pub(super) const NETWORK: &str = "network";
pub(super) const DNS: &str = "dns";
pub(super) const DEFINITIONS: &str = "definitions";
pub(super) const GATEWAY_API: &str = "gateway-api";
pub(super) const PROBE: &str = "probe";

/// What the steps work with.
pub(super) struct Steps<'a> {
    pub(super) of: &'a Provisioner,
    pub(super) lease: &'a Lease,
    pub(super) docker: &'a Docker,
    pub(super) kind: &'a Kind,
}

impl Steps<'_> {
    /// Does a step unless an earlier run has done it.
    pub(super) async fn once(
        &self,
        state: &Mutex<State>,
        name: &'static str,
        work: impl Future<Output = Result<(), ProvisionError>>,
    ) -> Result<(), ProvisionError> {
        if is_done(state, name) {
            return Ok(());
        }
        self.timed(name, work).await?;
        self.note_done(state, name)
    }

    /// Writes down that a step is done, for whoever goes on from here.
    pub(super) fn note_done(&self, state: &Mutex<State>, name: &str) -> Result<(), ProvisionError> {
        let mut state = lock(state);
        state.done.push(name.to_owned());
        Ok(self.lease.note(&state)?)
    }

    pub(super) async fn timed(
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

    pub(super) async fn nodes(&self) -> Result<(), ProvisionError> {
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
            None => Some(kind::node_image(&of.spec)),
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
    pub(super) async fn images(&self, nodes: &[String]) -> Result<(), ProvisionError> {
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

    pub(super) async fn cilium(&self, client: &Client) -> Result<(), ProvisionError> {
        let of = self.of;
        self.chart(client, &Chart::cilium(&of.spec, &of.cluster(), &of.profiles())).await
    }

    pub(super) async fn network(&self, client: &Client) -> Result<(), ProvisionError> {
        let nodes: Api<Node> = Api::all(client.clone());
        until("nodes that are Ready", NODES_READY, POLL, || async {
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

    /// Cluster DNS can answer only when there is a network.
    pub(super) async fn dns(&self, client: &Client) -> Result<(), ProvisionError> {
        Ok(outside::dns_ready(client).await?)
    }

    /// The namespace of the mesh, and the resource definitions that the profile has besides; waits until objects of their
    /// kinds are taken.
    pub(super) async fn definitions(&self, client: &Client) -> Result<(), ProvisionError> {
        // Worlds take this namespace for given, where there is no mesh, too.
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ISTIO } });
        api::install(client, &namespace).await?;
        for path in self.of.definitions() {
            for name in install_all(client, &path).await? {
                until("resource definitions to be established", DEFINED, POLL, || async {
                    let said = api::conditions(client, &definition(&name)).await;
                    let said = said.map_err(|error| ztc_engine::chain(&error))?;
                    let said = said.ok_or_else(|| format!("{name} is not there"))?;
                    Ok(if condition::holds(&said, "Established") {
                        Look::Met(())
                    } else {
                        Look::NotYet { status: format!("{name} is not") }
                    })
                })
                .await?;
            }
        }
        Ok(())
    }

    pub(super) async fn gateway_api(&self, client: &Client) -> Result<(), ProvisionError> {
        let Some(bundle) = &self.of.bundle else { return Err(ProvisionError::NoDefinitions) };
        for path in bundle.crds() {
            install_all(client, &path).await?;
        }
        Ok(())
    }

    pub(super) async fn mesh(
        &self,
        client: &Client,
        name: &'static str,
    ) -> Result<(), ProvisionError> {
        let mesh = self.of.spec.mesh.as_ref().expect("a profile with a mesh");
        let chart = Chart::of_mesh(name, &self.of.spec, mesh, &self.of.profiles());
        self.chart(client, &chart).await
    }

    /// Cluster DNS and the mesh. What the mesh's own pods wait for is their images and istiod, which is found by its name:
    /// ztunnel comes last.
    pub(super) async fn names_and_mesh(
        &self,
        state: &Mutex<State>,
        client: &Client,
    ) -> Result<(), ProvisionError> {
        let names = Box::pin(self.once(state, DNS, self.dns(client)));
        if self.of.spec.mesh.is_none() {
            return names.await;
        }
        let chart = |name| Box::pin(self.once(state, name, self.mesh(client, name)));
        let [_kinds, istiod, cni, ztunnel] = MESH_CHARTS;
        tokio::try_join!(names, chart(istiod), chart(cni))?;
        chart(ztunnel).await
    }

    /// Installs a chart and waits until everything of it is ready.
    async fn chart(&self, client: &Client, chart: &Chart) -> Result<(), ProvisionError> {
        let helm =
            Program::find("helm", &self.of.tools())?.with("KUBECONFIG", self.lease.kubeconfig());
        release(&helm, chart).await?;
        let own = self.written(&format!("values-{}.json", chart.name), chart.own())?;
        let bundle = self.of.bundle.as_ref();
        let mut arguments: Vec<String> =
            ["upgrade", "--install", chart.name].map(str::to_owned).into();
        match bundle.and_then(|it| it.chart(chart.name)) {
            Some(packed) => arguments.push(packed.display().to_string()),
            None => arguments.extend(chart.in_repository()),
        }
        arguments.extend(chart.values(own, bundle.and_then(|it| it.values(chart.name))));
        arguments.extend(["--wait".to_owned(), "--timeout".to_owned()]);
        arguments.push(format!("{}s", CHART.as_secs()));
        helm.run_holding(self.lease.lock()?, &arguments, CHART + HELM).await?;
        until(&format!("the pods of chart {}", chart.name), CHART, POLL, || async {
            // The way to the API server may lead through what is replaced.
            Ok(match rollout::release_lag(client, chart.namespace, chart.name).await {
                Ok(None) => Look::Met(()),
                Ok(Some(status)) => Look::NotYet { status },
                Err(error) => Look::NotYet { status: ztc_engine::chain(&error) },
            })
        })
        .await?;
        Ok(())
    }

    /// The probe's image into the nodes, for pods, and into Docker, for the hosts outside.
    pub(super) async fn probe(
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

/// Whether an earlier run has done a step, or this one.
pub(super) fn is_done(state: &Mutex<State>, name: &str) -> bool {
    lock(state).done.iter().any(|it| it == name)
}

/// The list is whole after every statement, so a panic elsewhere does not spoil it.
pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is left of an installation that was killed: helm takes it for one that still goes on, and
/// refuses another. Who holds the lease knows that it does not.
async fn release(helm: &Program, chart: &Chart) -> Result<(), ProvisionError> {
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

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.filter(|it| it.type_ == "Ready").any(|it| it.status == "True")
}

/// Installs every object of a file; their names.
async fn install_all(client: &Client, path: &Path) -> Result<Vec<String>, ProvisionError> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let objects = yaml::values(&Source::new(path.display().to_string(), text))
        .map_err(ProvisionError::Wrong)?;
    let mut names = Vec::new();
    for object in objects {
        names.extend(api::install(client, &object).await?.metadata.name);
    }
    Ok(names)
}

/// The resource definition of that name.
fn definition(name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        namespace: None,
        name: name.to_owned(),
    }
}

/// A file with one YAML document.
fn document(path: &Path) -> Result<Value, ProvisionError> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let documents = yaml::values(&Source::new(path.display().to_string(), text));
    let documents = documents.map_err(ProvisionError::Wrong)?;
    Ok(documents.into_iter().next().unwrap_or_default())
}
