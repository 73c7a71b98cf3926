//! The mark by which a cluster that we made is known.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use serde_json::json;

use crate::api::{self, ApiError};
use crate::objects::MANAGED_BY;

/// Where the mark is.
const NAMESPACE: &str = "kube-system";
/// What it is called.
const NAME: &str = "ztc-made-this-cluster";

/// Marks a cluster as ours.
pub(crate) async fn set(client: &Client, cluster: &str) -> Result<(), ApiError> {
    let mark = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "namespace": NAMESPACE,
            "name": NAME,
            "labels": { MANAGED_BY.0: MANAGED_BY.1 },
        },
        "data": { "cluster": cluster },
    });
    api::install(client, &mark).await.map(drop)
}

/// Whether a cluster is ours.
pub(crate) async fn is_there(client: &Client) -> Result<bool, ApiError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let mark = maps.get_opt(NAME).await.map_err(|source| ApiError::Read {
        what: "the mark of the cluster".to_owned(),
        source: source.into(),
    })?;
    Ok(mark.is_some())
}
