//! The API server: objects applied, deleted and looked at.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch,
    PatchParams, Preconditions, TypeMeta,
};
use kube::config::KubeconfigError;
use serde_json::Value;
use ztc_engine::wait::{Look, WaitError, until};
use ztc_model::condition::{Condition, ConditionStatus};
use ztc_model::manifest::ObjectRef;

use crate::objects::{MANAGED_BY, RUN, WORLD};
use crate::refusal::Refusal;

#[cfg(test)]
pub(crate) use client::identified_within;
pub(crate) use client::{OnBehalf, client, identified};

/// Our name as an owner of fields (server-side apply).
pub(crate) const MANAGER: &str = "ztc";

/// Between two attempts to reach a server that does not answer.
const AGAIN: Duration = Duration::from_millis(250);

/// Why the API server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The file that leads to the cluster cannot be used.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// No client can be made of it.
    #[error("cannot make a client for the cluster of {}", path.display())]
    Client {
        /// The kubeconfig.
        path: PathBuf,
        /// Why.
        source: Refusal,
    },
    /// Somebody else owns a field that we would change.
    #[error("{object} is somebody else's: {message}; remove it, or give the manifest another name")]
    Conflict {
        /// The object.
        object: String,
        /// The API server's words, which name the other manager.
        message: String,
    },
    /// Somebody else has an object of that name.
    #[error("{object} exists already, and ztc did not make it; it is left alone")]
    NotOurs {
        /// The object.
        object: String,
    },
    /// An object was not accepted.
    #[error("the API server does not accept {object}")]
    Apply {
        /// Which.
        object: String,
        /// Why.
        source: Refusal,
    },
    /// What is to be applied is no object.
    #[error("this is no object of Kubernetes: it has no apiVersion, kind or name")]
    NoObject,
    /// An object could not be deleted.
    #[error("cannot delete {object}")]
    Delete {
        /// Which.
        object: String,
        /// Why.
        source: Refusal,
    },
    /// Something could not be read.
    #[error("cannot read {what}")]
    Read {
        /// What.
        what: String,
        /// Why.
        source: Refusal,
    },
}

impl ApiError {
    /// What came in place of an answer, if something did.
    const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Apply { source, .. }
            | Self::Delete { source, .. }
            | Self::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What comes of something that may be done twice, done again as long as nobody answers: an API
/// server that is started anew is away for half a minute, and then does not know for some seconds
/// who may do what.
pub(crate) async fn answered<T, F>(
    ceiling: Duration,
    mut work: impl FnMut() -> F,
) -> Result<Result<T, ApiError>, WaitError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let was_away = AtomicBool::new(false);
    until("an answer of the API server", ceiling, AGAIN, || {
        let (work, was_away) = (work(), &was_away);
        async move {
            let answer = work.await;
            let refusal = answer.as_ref().err().and_then(ApiError::refusal);
            let is_silence = refusal.is_some_and(Refusal::is_silence);
            let starts = was_away.fetch_or(is_silence, Ordering::Relaxed)
                && refusal.is_some_and(Refusal::is_forbidden);
            Ok(match answer {
                Err(error) if is_silence || starts => {
                    Look::NotYet { status: ztc_engine::chain(&error) }
                }
                answered => Look::Met(answered),
            })
        }
    })
    .await
}

/// The version of the API server.
pub(crate) async fn version(client: &Client) -> Result<String, ApiError> {
    let version = client.apiserver_version().await.map_err(|source| ApiError::Read {
        what: "the API server's version".to_owned(),
        source: source.into(),
    })?;
    Ok(version.git_version.trim_start_matches('v').to_owned())
}

/// Applies an object of a case, with the labels of the run and of the world that it is for; returns it as it is
/// stored.
///
/// The bytes of `spec` are the manifest's own. A field that somebody else owns is a conflict, and is
/// not taken from them.
pub(crate) async fn apply(
    client: &Client,
    object: &Value,
    run: &str,
    world: &str,
) -> Result<DynamicObject, ApiError> {
    let mut object = object.clone();
    let labels = &mut object["metadata"]["labels"];
    labels[MANAGED_BY.0] = MANAGED_BY.1.into();
    labels[RUN] = run.into();
    labels[WORLD] = world.into();
    patch(client, &object, &PatchParams::apply(MANAGER)).await
}

/// Applies an object that is part of an installation, whoever owned it before.
pub(crate) async fn install(client: &Client, object: &Value) -> Result<DynamicObject, ApiError> {
    patch(client, object, &PatchParams::apply(MANAGER).force()).await
}

async fn patch(
    client: &Client,
    object: &Value,
    parameters: &PatchParams,
) -> Result<DynamicObject, ApiError> {
    let object: DynamicObject =
        serde_json::from_value(object.clone()).map_err(|_shape| ApiError::NoObject)?;
    let (Some(types), Some(name)) = (&object.types, &object.metadata.name) else {
        return Err(ApiError::NoObject);
    };
    let api = api(client, types, object.metadata.namespace.as_deref());
    let told = told(&types.kind, object.metadata.namespace.as_deref(), name);
    match api.patch(name, parameters, &Patch::Apply(&object)).await {
        Ok(applied) => Ok(applied),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Err(ApiError::Conflict { object: told, message: status.message })
        }
        Err(source) => Err(ApiError::Apply { object: told, source: source.into() }),
    }
}

/// Makes an object of a world, unless somebody else has one of that name; its name.
pub(crate) async fn make_ours(client: &Client, object: &Value) -> Result<String, ApiError> {
    let reference = reference(object).ok_or(ApiError::NoObject)?;
    let found = api(client, &types(&reference), reference.namespace.as_deref())
        .get_metadata_opt(&reference.name)
        .await
        .map_err(|source| ApiError::Read { what: reference.to_string(), source: source.into() })?;
    let labels = found.map(|it| it.metadata.labels.unwrap_or_default());
    if labels.is_some_and(|it| it.get(MANAGED_BY.0).map(String::as_str) != Some(MANAGED_BY.1)) {
        return Err(ApiError::NotOurs { object: reference.to_string() });
    }
    install(client, object).await?;
    Ok(reference.to_string())
}

/// Whether an object exists.
pub(crate) async fn exists(client: &Client, object: &ObjectRef) -> Result<bool, ApiError> {
    let found = api(client, &types(object), object.namespace.as_deref())
        .get_metadata_opt(&object.name)
        .await
        .map_err(|source| ApiError::Read { what: object.to_string(), source: source.into() })?;
    Ok(found.is_some())
}

/// The coordinates of an object.
pub(crate) fn reference(object: &Value) -> Option<ObjectRef> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(ObjectRef {
        api_version: text(&object["apiVersion"])?,
        kind: text(&object["kind"])?,
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"])?,
    })
}

fn types(object: &ObjectRef) -> TypeMeta {
    TypeMeta { api_version: object.api_version.clone(), kind: object.kind.clone() }
}

/// The conditions in the status of an object; nothing where there is no such object.
pub(crate) async fn conditions(
    client: &Client,
    object: &ObjectRef,
) -> Result<Option<Vec<Condition>>, ApiError> {
    let found = api(client, &types(object), object.namespace.as_deref())
        .get_opt(&object.name)
        .await
        .map_err(|source| ApiError::Read { what: object.to_string(), source: source.into() })?;
    Ok(found.map(|it| written(&it.data)))
}

/// The conditions of an object; one that is none as Kubernetes has them is left out.
pub(crate) fn written(object: &Value) -> Vec<Condition> {
    let all = object["status"]["conditions"].as_array().into_iter().flatten();
    all.filter_map(|it| serde_json::from_value(it.clone()).ok()).collect()
}

/// Whether Cilium takes a policy, and why not, if it says so: the condition `Valid` of its status. One
/// that is not valid exists and enforces nothing (`docs/facts.md`, surprise 1).
pub(crate) async fn validity(
    client: &Client,
    object: &ObjectRef,
) -> Result<Option<Result<(), String>>, ApiError> {
    let conditions = conditions(client, object).await?.unwrap_or_default();
    let valid = conditions.into_iter().find(|it| it.about == "Valid");
    Ok(valid.and_then(|it| match it.status {
        ConditionStatus::True => Some(Ok(())),
        ConditionStatus::False if it.message.is_empty() => Some(Err("no reason given".to_owned())),
        ConditionStatus::False => Some(Err(it.message)),
        ConditionStatus::Unknown => None,
    }))
}

/// Deletes an object; its uid, or nothing where there was none.
pub(crate) async fn delete(
    client: &Client,
    object: &ObjectRef,
) -> Result<Option<String>, ApiError> {
    let api = api(client, &types(object), object.namespace.as_deref());
    let failed = |source: kube::Error| ApiError::Delete {
        object: object.to_string(),
        source: source.into(),
    };
    let Some(found) = api.get_metadata_opt(&object.name).await.map_err(failed)? else {
        return Ok(None);
    };
    let uid = found.metadata.uid.unwrap_or_default();
    let precondition = Preconditions { uid: Some(uid.clone()), ..Preconditions::default() };
    let parameters =
        DeleteParams { preconditions: Some(precondition), ..DeleteParams::background() };
    match api.delete(&object.name, &parameters).await {
        Ok(_) => Ok(Some(uid)),
        // It went between the two calls.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Some(uid)),
        Err(source) => Err(failed(source)),
    }
}

/// Deletes a pod at once; one that does not exist is no error.
pub(crate) async fn delete_pod(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    delete_pod_with(client, namespace, name, &DeleteParams::default().grace_period(0)).await
}

/// Deletes a pod and lets it end in its own time, as a rollout does; one that does not exist is no error.
pub(crate) async fn end_pod(client: &Client, namespace: &str, name: &str) -> Result<(), ApiError> {
    delete_pod_with(client, namespace, name, &DeleteParams::default()).await
}

async fn delete_pod_with(
    client: &Client,
    namespace: &str,
    name: &str,
    parameters: &DeleteParams,
) -> Result<(), ApiError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match pods.delete(name, parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => {
            let object = told("Pod", Some(namespace), name);
            Err(ApiError::Delete { object, source: source.into() })
        }
    }
}

/// Gives a pod labels, and takes those away that are `null`.
pub(crate) async fn relabel_pod(
    client: &Client,
    namespace: &str,
    name: &str,
    labels: &BTreeMap<String, Option<String>>,
) -> Result<(), ApiError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(serde_json::json!({ "metadata": { "labels": labels } }));
    match pods.patch_metadata(name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(source) => {
            let object = told("Pod", Some(namespace), name);
            Err(ApiError::Apply { object, source: source.into() })
        }
    }
}

/// Which objects of ours are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ours<'a> {
    /// What was applied for a world.
    World(&'a str),
    /// What another run than this one applied.
    OtherRuns(&'a str),
    /// What a case has applied in a world, and not what the world consists of.
    AppliedIn(&'a str),
    /// What a case of another run than this one has applied.
    AppliedByOthers(&'a str),
    /// What belongs to a world that is none of these.
    OtherWorlds(&'a BTreeSet<String>),
}

/// The objects of a kind that carry our label and are meant, in all namespaces.
pub(crate) async fn ours(
    client: &Client,
    api_version: &str,
    kind: &str,
    meant: Ours<'_>,
) -> Result<Vec<ObjectRef>, ApiError> {
    let meant = match meant {
        Ours::World(world) => format!("{WORLD}={world}"),
        // What has no such label is meant, too.
        Ours::OtherRuns(run) => format!("{RUN}!={run}"),
        Ours::AppliedIn(world) => format!("{WORLD}={world},{RUN}"),
        Ours::AppliedByOthers(run) => format!("{RUN},{RUN}!={run}"),
        // `notin` alone means what has no such label, too.
        Ours::OtherWorlds(worlds) => {
            let worlds: Vec<&str> = worlds.iter().map(String::as_str).collect();
            format!("{WORLD},{WORLD} notin ({})", worlds.join(","))
        }
    };
    let selected =
        ListParams::default().labels(&format!("{}={},{meant}", MANAGED_BY.0, MANAGED_BY.1));
    let types = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
    let listed = match api(client, &types, None).list_metadata(&selected).await {
        Ok(listed) => listed,
        // A cluster without a mesh does not know the mesh's kinds.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        Err(source) => {
            let what = format!("objects of the kind {kind}");
            return Err(ApiError::Read { what, source: source.into() });
        }
    };
    let objects = listed.items.into_iter().map(|it| ObjectRef {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: it.metadata.namespace,
        name: it.metadata.name.unwrap_or_default(),
    });
    Ok(objects.collect())
}

/// The pods with a label that run and are not going away; `what` they are, for the error.
pub(crate) async fn running_pods(
    client: &Client,
    namespace: &str,
    label: &str,
    what: &str,
) -> Result<Vec<Pod>, ApiError> {
    let selected = ListParams::default().labels(label).fields("status.phase=Running");
    let listed = list_pods(client, namespace, &selected, what).await?;
    let living = listed.into_iter().filter(|it| it.metadata.deletion_timestamp.is_none());
    Ok(living.collect())
}

/// The pods with a label, in whatever state.
pub(crate) async fn pods(
    client: &Client,
    namespace: &str,
    label: &str,
    what: &str,
) -> Result<Vec<Pod>, ApiError> {
    list_pods(client, namespace, &ListParams::default().labels(label), what).await
}

async fn list_pods(
    client: &Client,
    namespace: &str,
    selected: &ListParams,
    what: &str,
) -> Result<Vec<Pod>, ApiError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let listed = pods.list(selected).await;
    let listed =
        listed.map_err(|source| ApiError::Read { what: what.to_owned(), source: source.into() })?;
    Ok(listed.items)
}

/// All objects of a kind, whoever made them.
pub(crate) async fn all(
    client: &Client,
    api_version: &str,
    kind: &str,
) -> Result<Vec<DynamicObject>, ApiError> {
    let types = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
    match api(client, &types, None).list(&ListParams::default()).await {
        Ok(listed) => Ok(listed.items),
        // A cluster without gateways does not know their kind.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(source) => {
            let what = format!("objects of the kind {kind}");
            Err(ApiError::Read { what, source: source.into() })
        }
    }
}

/// The same objects as they are stored, as JSON.
pub(crate) async fn ours_whole(
    client: &Client,
    api_version: &str,
    kind: &str,
) -> Result<String, ApiError> {
    let types = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
    let listed = api(client, &types, None).list(&labelled()).await.map_err(|source| {
        ApiError::Read { what: format!("objects of the kind {kind}"), source: source.into() }
    })?;
    Ok(serde_json::to_string_pretty(&listed.items).expect("objects are JSON"))
}

/// Selects what carries our label.
fn labelled() -> ListParams {
    ListParams::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1))
}

/// The objects of a kind in a namespace, or in all or none.
fn api(client: &Client, types: &TypeMeta, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version) = types.api_version.rsplit_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn told(kind: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{kind}/{namespace}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

#[cfg(test)]
mod tests;
