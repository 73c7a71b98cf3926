//! The labels of pods: who they are to Cilium.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use ztc_engine::fabric::Change;
use ztc_model::suite::Relabelled;

use super::RealLane;
use crate::api;
use crate::fabric::ClusterError;
use crate::objects::{MANAGED_BY, WORLD};
use crate::pods;

impl RealLane {
    /// Gives a pod these labels instead of those that it has.
    pub(super) async fn give_labels(&self, change: &Relabelled) -> Result<Change, ClusterError> {
        let Relabelled { pod, labels } = change;
        let found = self.pods.get(pod).ok_or_else(|| ClusterError::Absent { pod: pod.clone() })?;
        let lacks: BTreeSet<String> =
            own_labels(&found).into_keys().filter(|it| !labels.contains_key(it)).collect();
        let kept = labels.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        let patch: BTreeMap<String, Option<String>> =
            kept.chain(lacks.iter().map(|key| (key.clone(), None))).collect();
        api::relabel_pod(&self.client, &pod.namespace, &pod.name, &patch).await?;
        Ok(Change::Labels { pod: pod.clone(), has: labels.clone(), lacks })
    }

    /// What of changed labels is not enforced yet: the endpoint has its new identity, and every agent's ipcache knows it.
    pub(super) async fn label_lag(
        &self,
        changes: &[&Change],
    ) -> Result<Option<String>, ClusterError> {
        let mut relabelled = changes.iter().filter_map(|change| match change {
            Change::Labels { pod, has, lacks } => Some((pod, has, lacks)),
            _ => None,
        });
        let Some(first) = relabelled.next() else { return Ok(None) };
        let states = self.agents.states().await?;
        let endpoints: Vec<_> = states.values().flat_map(|state| &state.endpoints).collect();
        for (pod, has, lacks) in std::iter::once(first).chain(relabelled) {
            let address = self.pods.get(pod).and_then(|it| pods::address(&it));
            let endpoint =
                address.and_then(|it| endpoints.iter().find(|one| one.addresses.contains(&it)));
            let lag = match endpoint {
                None => Some("it has no endpoint".to_owned()),
                Some(endpoint) => endpoint.lags_behind(has, lacks),
            };
            if let Some(lag) = lag {
                return Ok(Some(format!("pod {pod}: {lag}")));
            }
        }
        Ok(self.unknown(&states).await?)
    }
}

/// Whether a pod has the labels that it is to have; a run that was killed may have left others.
pub(super) fn are_as_wanted(found: &Pod, wanted: &Value) -> bool {
    let wanted: BTreeMap<String, String> =
        serde_json::from_value(wanted["metadata"]["labels"].clone()).unwrap_or_default();
    found.metadata.labels.clone().unwrap_or_default() == wanted
}

/// The labels of a pod that are not the fabric's.
fn own_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| key != MANAGED_BY.0 && key != WORLD);
    labels
}
