//! Daemon sets of those who enforce, one pod a node: how they are restarted, and what of a restart is still to come.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;

use crate::api::{self, ApiError};
use crate::pods;

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Daemons {
    /// Where it is.
    pub(crate) namespace: &'static str,
    /// The label of its pods.
    pub(crate) label: &'static str,
    /// What its pods are called where they cannot be listed.
    pub(crate) what: &'static str,
}

impl Daemons {
    async fn pods(&self, client: &Client) -> Result<Vec<Pod>, ApiError> {
        api::pods(client, self.namespace, self.label, self.what).await
    }

    /// Its pods that run now.
    pub(crate) async fn running(&self, client: &Client) -> Result<Vec<Pod>, ApiError> {
        api::running_pods(client, self.namespace, self.label, self.what).await
    }

    /// Deletes its pods: the daemon set makes others. Returns the identifiers of those that were there.
    pub(crate) async fn restart(&self, client: &Client) -> Result<BTreeSet<String>, ApiError> {
        let mut before = BTreeSet::new();
        for pod in self.pods(client).await? {
            before.extend(pod.metadata.uid);
            let name = pod.metadata.name.unwrap_or_default();
            api::end_pod(client, self.namespace, &name).await?;
        }
        Ok(before)
    }

    /// What of a restart is still to come; nothing when as many pods are ready as nodes want one, and none of them was there
    /// before.
    pub(crate) async fn restart_lag(
        &self,
        client: &Client,
        before: &BTreeSet<String>,
        wanted: usize,
    ) -> Result<Option<String>, ApiError> {
        let found = self.pods(client).await?;
        let is_old = |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|uid| before.contains(uid));
        let (old, new): (Vec<Pod>, Vec<Pod>) = found.into_iter().partition(is_old);
        let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
        if let Some(old) = old.first() {
            return Ok(Some(format!("{} is still there", name(old))));
        }
        let late = new.iter().find(|pod| !pods::readiness(pod).ready);
        if let Some(late) = late {
            return Ok(Some(format!("{} is not Ready", name(late))));
        }
        let missing = || format!("{} of {wanted} of {} are back", new.len(), self.what);
        Ok((new.len() < wanted).then(missing))
    }
}
