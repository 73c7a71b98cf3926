//! Clusters that are there already: somebody's own, or one that we made.
//!
//! Nothing is installed. A cluster that does not carry our mark is refused unless the person says that it is theirs;
//! what is made in it carries our label and is removed again, and the run ends with the list of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use ztc_engine::profile::{ChartRepositories, ClusterSpec, IpFamily, KubeProxy, MeshSpec, Profile};

use crate::api::{self, ApiError};
use crate::charts::ISTIO;
use crate::cilium::{Agents, CiliumError};
use crate::lease::{Lease, LeaseError};
use crate::ledger::Ledger;
use crate::mark;
use crate::objects::Pull;
use crate::preflight::mesh::{UNKNOWN, tag};
use crate::preflight::{GATEWAY_DEFINITION, bundle_version};
use crate::ready::{Hosting, Ready};
use crate::refusal::Refusal;

/// What the person allows.
#[derive(Debug, Clone, Default)]
pub struct Permission {
    /// The kubeconfig; the usual one where none is named.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; the current one where none is named.
    pub context: Option<String>,
    /// That the cluster may be used although it is not one of ours.
    pub owned: bool,
    /// The reference of the probe's image, from which the nodes can pull it.
    pub image: Option<String>,
}

/// Why a cluster is not used.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no kubeconfig that leads to it.
    #[error("cannot use the kubeconfig; name one with --kubeconfig or KUBECONFIG")]
    Kubeconfig(#[source] KubeconfigError),
    /// No client can be made of it.
    #[error("cannot make a client for the context {context}")]
    Client {
        /// Which.
        context: String,
        /// Why.
        source: Refusal,
    },
    /// It is not ours, and nobody has said that it may be used.
    #[error(
        "the cluster of the context {context} was not made by ztc; it would get pods, namespaces and policies; if it is \
         yours to do that to, say --i-own-this-cluster"
    )]
    NotOurs {
        /// The context.
        context: String,
    },
    /// Nobody has said where the probe's image is.
    #[error(
        "nodes of this cluster cannot be given an image; push the probe's to a registry that they can reach, and name \
         it with --probe-image"
    )]
    NoImage,
    /// It does not let itself be looked at.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Cilium does not answer.
    #[error(transparent)]
    Cilium(#[from] CiliumError),
    /// Somebody else uses it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// Uses a cluster that is there already.
#[derive(Debug, Clone)]
pub struct Attach {
    /// The folder of the lease.
    pub lease: PathBuf,
    /// The profile.
    pub profile: Profile,
    /// What the person allows.
    pub permission: Permission,
}

impl Attach {
    /// Looks at the cluster, and whether it may be used. Nothing is made.
    ///
    /// # Errors
    /// Why it is not used.
    pub async fn ready(&self, run: &str, busy: impl FnOnce() + Send) -> Result<Ready, AttachError> {
        let Permission { kubeconfig, context, owned, image } = &self.permission;
        let file = match kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let file = file.map_err(AttachError::Kubeconfig)?;
        let context = context.clone().or_else(|| file.current_context.clone()).unwrap_or_default();
        let options =
            KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(file, &options).await;
        let client =
            api::identified(config.map_err(AttachError::Kubeconfig)?, run).map_err(|source| {
                AttachError::Client { context: context.clone(), source: source.into() }
            })?;
        if !owned && !mark::is_there(&client).await? {
            return Err(AttachError::NotOurs { context });
        }
        let image = image.clone().ok_or(AttachError::NoImage)?;
        let lease = Lease::take(self.lease.clone(), busy).await?;
        Ok(Ready {
            nodes: nodes(&client).await?,
            spec: seen(&client).await?,
            outside: Hosting::Given(self.profile.outside.clone()),
            cluster: context,
            client,
            image,
            pull: Pull::IfNotPresent,
            run: run.to_owned(),
            keeps_worlds: false,
            ledger: Ledger::default(),
            secret: lease.secret()?,
            lease,
        })
    }
}

/// The nodes that pods can be put on, sorted.
async fn nodes(client: &Client) -> Result<Vec<String>, ApiError> {
    let listed = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .map_err(|source| ApiError::Read { what: "the nodes".to_owned(), source: source.into() })?;
    let usable = listed
        .items
        .into_iter()
        .filter(|node| node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true)));
    let mut names: Vec<String> = usable.filter_map(|node| node.metadata.name).collect();
    names.sort();
    Ok(names)
}

/// What the cluster is made of. There is nothing to compare it with, so what is seen is what is wanted.
async fn seen(client: &Client) -> Result<ClusterSpec, AttachError> {
    let agents = Agents::find(client.clone()).await?;
    let versions: BTreeMap<String, String> = agents.versions().await?;
    Ok(ClusterSpec {
        kubernetes: api::version(client).await?,
        node_image: None,
        idle_minutes: 0,
        nodes: versions.len(),
        ip_family: IpFamily::Ipv4,
        kube_proxy: KubeProxy::Kept,
        // Two versions at once are a finding of the preflight.
        cilium: versions.into_values().next().unwrap_or_default(),
        cilium_values: None,
        definitions: Vec::new(),
        mesh: mesh(client).await?,
        chart_repositories: ChartRepositories::default(),
    })
}

/// The mesh, by the image of its ztunnel and by what the Gateway API's definitions say of themselves.
async fn mesh(client: &Client) -> Result<Option<MeshSpec>, ApiError> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), ISTIO);
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source: kube::Error| ApiError::Read { what, source: source.into() }
    };
    let ztunnel = sets.get_opt("ztunnel").await.map_err(failed("ztunnel"))?;
    let image = ztunnel.and_then(|it| {
        let pod = it.spec?.template.spec?;
        pod.containers.into_iter().next()?.image
    });
    let Some(image) = image else { return Ok(None) };
    let gateways = Api::<CustomResourceDefinition>::all(client.clone())
        .get_metadata_opt(GATEWAY_DEFINITION)
        .await
        .map_err(failed("the Gateway API's resource definitions"))?;
    let gateway_api = gateways.and_then(|it| bundle_version(&it.metadata));
    let unknown = || UNKNOWN.to_owned();
    Ok(Some(MeshSpec {
        istio: tag(&image).map_or_else(unknown, str::to_owned),
        gateway_api: gateway_api.unwrap_or_else(unknown),
        istiod_values: None,
        cni_values: None,
        ztunnel_values: None,
    }))
}
