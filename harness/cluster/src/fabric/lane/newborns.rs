//! Pods that are made and unmade one by one, and the namespaces that come and go with them.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::Api;
use ztc_engine::wait::{Look, until};
use ztc_model::manifest::ObjectRef;
use ztc_model::world::{Born, Namespace, PodRef};
use ztc_wire::FirstRun;

use super::{POD, POLL, RealLane, UP};
use crate::api;
use crate::fabric::ClusterError;
use crate::objects;
use crate::pods;

impl RealLane {
    /// Makes a pod that is born in a case, with its namespace if that is, too.
    pub(super) async fn make_pod(
        &self,
        pod: &PodRef,
        first: Vec<FirstRun>,
    ) -> Result<(), ClusterError> {
        let declared =
            self.world.pod(pod).ok_or_else(|| ClusterError::NoSuchPod { pod: pod.clone() })?;
        if let Some(namespace) = self.newborn_namespace(&pod.namespace) {
            let object = objects::namespace(&self.world, namespace);
            self.ready.ledger.made(api::make_ours(&self.client, &object).await?);
            self.account(&pod.namespace).await?;
        }
        let object = objects::pod(&self.world, &self.setting, &self.hosts.zone, declared, first)?;
        self.ready.ledger.made(api::make_ours(&self.client, &object).await?);
        until("the agent of the pod", POD, POLL, || async {
            let found = self.pods.get(pod);
            Ok(match found {
                Some(found) if pods::is_running(&found) => Look::Met(()),
                Some(found) => {
                    let message = pods::readiness(&found).message.unwrap_or_default();
                    Look::NotYet { status: format!("pod {pod}: {message}") }
                }
                None => Look::NotYet { status: format!("pod {pod} does not exist") },
            })
        })
        .await?;
        Ok(())
    }

    /// Deletes a pod that was born in a case, and with the last of them its namespace if that was, too.
    pub(super) async fn unmake_pod(&self, pod: &PodRef) -> Result<(), ClusterError> {
        self.remove_pod(pod).await?;
        let is_left = self.pods.all().keys().any(|it| it.namespace == pod.namespace);
        match self.newborn_namespace(&pod.namespace) {
            Some(namespace) if !is_left => self.remove_namespace(namespace).await,
            _ => Ok(()),
        }
    }

    /// Deletes whatever a run that was killed has left of pods and namespaces that are born in a case.
    pub(super) async fn unmake_newborns(&self) -> Result<(), ClusterError> {
        let newborns = self.world.pods.iter().filter(|pod| pod.born == Born::InACase);
        for pod in newborns.map(ztc_model::world::Pod::reference) {
            if self.pods.get(&pod).is_some() {
                self.remove_pod(&pod).await?;
            }
        }
        for namespace in self.world.namespaces.iter().filter(|it| it.born == Born::InACase) {
            self.remove_namespace(namespace).await?;
        }
        Ok(())
    }

    fn newborn_namespace(&self, name: &str) -> Option<&Namespace> {
        self.world.namespace(name).filter(|it| it.born == Born::InACase)
    }

    async fn remove_namespace(&self, namespace: &Namespace) -> Result<(), ClusterError> {
        let object = ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            namespace: None,
            name: namespace.name.clone(),
        };
        if api::exists(&self.client, &object).await? {
            api::delete(&self.client, &object).await?;
            self.gone(&object).await?;
        }
        Ok(())
    }

    /// Waits for the end of something that was deleted.
    pub(super) async fn gone(&self, object: &ObjectRef) -> Result<(), ClusterError> {
        until("the end of what was made", UP, POLL, || async {
            match api::exists(&self.client, object).await {
                Ok(false) => Ok(Look::Met(())),
                Ok(true) => Ok(Look::NotYet { status: format!("{object} still exists") }),
                Err(error) => Ok(Look::NotYet { status: ztc_engine::chain(&error) }),
            }
        })
        .await?;
        self.ready.ledger.removed(object.to_string());
        Ok(())
    }

    /// Waits for the account that pods of a new namespace run as.
    pub(super) async fn account(&self, namespace: &str) -> Result<(), ClusterError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        until("the default service account", POD, POLL, || async {
            match accounts.get_opt("default").await {
                Ok(Some(_)) => Ok(Look::Met(())),
                Ok(None) => Ok(Look::NotYet { status: format!("{namespace} has none") }),
                Err(error) => Ok(Look::NotYet { status: ztc_engine::chain(&error) }),
            }
        })
        .await?;
        Ok(())
    }

    /// Deletes a pod and waits for its end.
    pub(super) async fn remove_pod(&self, pod: &PodRef) -> Result<(), ClusterError> {
        api::delete_pod(&self.client, &pod.namespace, &pod.name).await?;
        self.ready.ledger.removed(format!("Pod/{pod}"));
        until("the end of the pod", POD, POLL, || async {
            Ok(match self.pods.any(pod) {
                None => Look::Met(()),
                Some(_) => Look::NotYet { status: format!("pod {pod} still exists") },
            })
        })
        .await?;
        Ok(())
    }
}
