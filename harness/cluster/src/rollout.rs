//! What of a rollout is still to come, by what controllers say of their daemon sets and deployments.
//!
//! Helm does not wait for it: to helm a daemon set is ready when no more pods are missing than may be, and of Cilium's agents
//! all may be.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::Client;
use kube::api::{Api, ListParams};

use crate::api::ApiError;

/// The annotation with the release that an object is of.
const RELEASE: &str = "meta.helm.sh/release-name";

/// What is still to come of a release of helm: pods that are to be replaced, or are not ready.
pub(crate) async fn release_lag(
    client: &Client,
    namespace: &str,
    release: &str,
) -> Result<Option<String>, ApiError> {
    let all = ListParams::default();
    let failed = |what: &str| {
        let what = format!("{what} in {namespace}");
        move |source: kube::Error| ApiError::Read { what, source: source.into() }
    };
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let sets = sets.list(&all).await.map_err(failed("the daemon sets"))?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployments = deployments.list(&all).await.map_err(failed("the deployments"))?;
    let is_of = |annotations: Option<&BTreeMap<String, String>>| {
        annotations.and_then(|it| it.get(RELEASE)).is_some_and(|it| it == release)
    };
    let sets = sets.items.iter().filter(|it| is_of(it.metadata.annotations.as_ref()));
    let deployments = deployments.items.iter().filter(|it| is_of(it.metadata.annotations.as_ref()));
    Ok(sets.filter_map(daemon_set_lag).chain(deployments.filter_map(deployment_lag)).next())
}

/// What is still to come of a daemon set: `kubectl rollout status` asks the same, and that all pods are ready besides.
pub(crate) fn daemon_set_lag(set: &DaemonSet) -> Option<String> {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let wanted = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or(0);
    let is_seen = status.observed_generation >= set.metadata.generation;
    if !is_seen || wanted == 0 {
        return Some(format!("daemon set {name} is not seen by its controller yet"));
    }
    if updated < wanted {
        return Some(format!("{updated} of {wanted} pods of daemon set {name} are new"));
    }
    let ready = status.number_ready.min(status.number_available.unwrap_or(0));
    (ready < wanted).then(|| format!("{ready} of {wanted} pods of daemon set {name} are ready"))
}

/// What is still to come of a deployment.
pub(crate) fn deployment_lag(deployment: &Deployment) -> Option<String> {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1);
    let is_seen = status.observed_generation >= deployment.metadata.generation;
    let counts = [status.replicas, status.updated_replicas, status.available_replicas];
    if is_seen && counts.iter().all(|it| it.unwrap_or(0) == wanted) {
        return None;
    }
    let ready = status.available_replicas.unwrap_or(0);
    Some(format!("deployment {name} is being replaced: {ready} of {wanted} are available"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(status: &Value) -> Option<String> {
        let metadata = json!({ "name": "cilium", "generation": 2 });
        let set = json!({ "metadata": metadata, "status": status });
        daemon_set_lag(&serde_json::from_value(set).unwrap())
    }

    fn deployment(status: &Value) -> Option<String> {
        let metadata = json!({ "name": "istiod", "generation": 2 });
        let template = json!({ "metadata": {}, "spec": { "containers": [] } });
        let spec = json!({ "replicas": 1, "selector": {}, "template": template });
        let whole = json!({ "metadata": metadata, "spec": spec, "status": status });
        deployment_lag(&serde_json::from_value(whole).unwrap())
    }

    fn counts(generation: i64, updated: u8, ready: u8) -> Value {
        json!({
            "observedGeneration": generation, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
            "numberMisscheduled": 0, "updatedNumberScheduled": updated, "numberReady": ready,
            "numberAvailable": ready,
        })
    }

    #[test]
    fn a_daemon_set_is_through_when_every_pod_is_new_and_ready() {
        assert_eq!(set(&counts(2, 2, 2)), None);
        for (status, words) in [
            (counts(1, 2, 2), "is not seen by its controller yet"),
            (counts(2, 1, 2), "1 of 2 pods of daemon set cilium are new"),
            (counts(2, 2, 1), "1 of 2 pods of daemon set cilium are ready"),
        ] {
            assert!(set(&status).unwrap().contains(words), "{status}");
        }
        let nothing = json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
            "numberReady": 0,
        });
        assert!(set(&nothing).is_some(), "nobody has looked at it");
    }

    #[test]
    fn a_deployment_is_through_when_nothing_of_the_old_is_left() {
        let counts = |generation: i64, replicas: u8, updated: u8, available: u8| {
            json!({
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated,
                "availableReplicas": available,
            })
        };
        assert_eq!(deployment(&counts(2, 1, 1, 1)), None);
        for status in [counts(1, 1, 1, 1), counts(2, 2, 1, 2), counts(2, 1, 0, 1), json!({})] {
            assert!(deployment(&status).unwrap().starts_with("deployment istiod"), "{status}");
        }
    }
}
