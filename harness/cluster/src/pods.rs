//! The pods of a world as the API server tells of them: watched, not asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use ztc_engine::fabric::Readiness;
use ztc_engine::wait::WaitError;
use ztc_model::world::PodRef;

use crate::objects::{CONTAINER, MANAGED_BY, WORLD};

/// How long the first list may take.
const FIRST: Duration = Duration::from_mins(1);

/// The pods of one world, kept up to date by a watch that is opened again when it breaks.
#[derive(Debug)]
pub(crate) struct Pods {
    store: Store<Pod>,
    watching: AbortHandle,
}

impl Pods {
    /// Watches the pods of a world from now on; the first list has been read.
    pub(crate) async fn watch(client: &Client, world: &str) -> Result<Self, WaitError> {
        Self::watch_within(FIRST, client, world).await
    }

    async fn watch_within(
        ceiling: Duration,
        client: &Client,
        world: &str,
    ) -> Result<Self, WaitError> {
        let selector = format!("{}={},{WORLD}={world}", MANAGED_BY.0, MANAGED_BY.1);
        let config = watcher::Config::default().labels(&selector);
        let (store, writer) = reflector::store();
        let (says, said) = tokio::sync::watch::channel("no answer".to_owned());
        let stream = watcher(Api::<Pod>::all(client.clone()), config)
            .default_backoff()
            .reflect(writer)
            .for_each(move |event| {
                if let Err(error) = event {
                    says.send_replace(ztc_engine::chain(&error));
                }
                async {}
            });
        let watching = tokio::spawn(stream).abort_handle();
        // The writer lives as long as the task, and the task as long as this.
        let pods = Self { store, watching };
        match timeout(ceiling, pods.store.wait_until_ready()).await {
            Ok(_) => Ok(pods),
            // The watch is tried again for ever, whatever the answer.
            Err(_elapsed) => Err(WaitError::Ceiling {
                what: "the first list of the pods".to_owned(),
                ceiling,
                last: said.borrow().clone(),
            }),
        }
    }

    /// All pods that are not going away.
    pub(crate) fn all(&self) -> BTreeMap<PodRef, Arc<Pod>> {
        let living = self.store.state().into_iter();
        living
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(|pod| (reference(&pod), pod))
            .collect()
    }

    /// The pod of that name, whether it is going away or not.
    pub(crate) fn any(&self, pod: &PodRef) -> Option<Arc<Pod>> {
        self.store.state().into_iter().find(|it| reference(it) == *pod)
    }

    /// The pod of that name that is not going away.
    pub(crate) fn get(&self, pod: &PodRef) -> Option<Arc<Pod>> {
        self.all().remove(pod)
    }

    /// The name of the pod with that address of its own.
    pub(crate) fn at(&self, address: IpAddr) -> Option<PodRef> {
        let mut own = self.all().into_iter().filter(|(_, pod)| !is_in_node_network(pod));
        own.find(|(_, pod)| self::address(pod) == Some(address)).map(|it| it.0)
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// The name of a pod.
pub(crate) fn reference(pod: &Pod) -> PodRef {
    PodRef {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    }
}

/// The address of a pod; nothing while it has none.
pub(crate) fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

/// The second address of a pod, where the cluster has both families.
pub(crate) fn second_address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ips.as_ref()?.get(1)?.ip.parse().ok()
}

/// Whether a pod has its node's network, and so its node's address.
pub(crate) fn is_in_node_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|it| it.host_network) == Some(true)
}

/// What kubelet says of a pod, and why it is not ready.
pub(crate) fn readiness(pod: &Pod) -> Readiness {
    let conditions = pod.status.iter().flat_map(|it| it.conditions.iter().flatten());
    let ready = conditions.clone().find(|it| it.type_ == "Ready");
    let is_ready = ready.is_some_and(|it| it.status == "True");
    let message = (!is_ready).then(|| {
        waiting(pod)
            .or_else(|| ready.and_then(|it| it.message.clone()))
            .or_else(|| pod.status.as_ref()?.phase.clone())
            .unwrap_or_else(|| "kubelet has said nothing of it".to_owned())
    });
    Readiness { ready: is_ready, probes: None, message }
}

/// Whether the agent of a pod runs.
pub(crate) fn is_running(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|it| it.container_statuses.iter().flatten());
    statuses
        .filter(|it| it.name == CONTAINER)
        .any(|it| it.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// Why the agent of a pod waits or has ended.
fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let state = status.state.as_ref()?;
    if let Some(ended) = &state.terminated {
        let reason = ended.reason.as_deref().unwrap_or("no reason");
        return Some(format!("its agent ended with code {} ({reason})", ended.exit_code));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or("no reason");
    Some(match &waiting.message {
        Some(message) => format!("its agent waits: {reason}: {message}"),
        None => format!("its agent waits: {reason}"),
    })
}

/// How many readiness probes of a pod kubelet has concluded, out of its `/metrics/probes`.
///
/// Kubelet counts each result under `prober_probe_total`; the pod's uid tells it from one of the same
/// name before.
pub(crate) fn concluded_probes(metrics: &str, uid: &str) -> u64 {
    let uid = format!("pod_uid=\"{uid}\"");
    let lines = metrics.lines().filter(|line| {
        line.starts_with("prober_probe_total{")
            && line.contains("probe_type=\"Readiness\"")
            && line.contains(&uid)
    });
    let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    // Counters are whole numbers in the form of floats.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    counts.map(|count| count as u64).sum()
}

#[cfg(test)]
mod tests {
    use ztc_engine::wait::{Look, until};

    use super::*;
    use crate::standin::{BOUND, Events, POLL, Server, soon};

    const METRICS: &str = "\
# HELP prober_probe_total [BETA] Cumulative number of a liveness, readiness or startup probe
# TYPE prober_probe_total counter
prober_probe_total{container=\"agent\",namespace=\"zt-pay\",pod=\"ledger\",pod_uid=\"one\",probe_type=\"Readiness\",result=\"failed\"} 2
prober_probe_total{container=\"agent\",namespace=\"zt-pay\",pod=\"ledger\",pod_uid=\"one\",probe_type=\"Readiness\",result=\"successful\"} 40
prober_probe_total{container=\"agent\",namespace=\"zt-pay\",pod=\"ledger\",pod_uid=\"two\",probe_type=\"Readiness\",result=\"successful\"} 7
prober_probe_total{container=\"agent\",namespace=\"zt-pay\",pod=\"ledger\",pod_uid=\"one\",probe_type=\"Liveness\",result=\"successful\"} 99
";

    #[test]
    fn the_probes_of_one_pod_are_counted_whatever_their_result() {
        assert_eq!(concluded_probes(METRICS, "one"), 42);
        assert_eq!(concluded_probes(METRICS, "three"), 0);
    }

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "metadata": {}, "status": status })).unwrap()
    }

    #[test]
    fn a_pod_that_is_not_ready_says_why() {
        let starting = pod(&serde_json::json!({ "phase": "Pending", "containerStatuses": [{
            "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ErrImageNeverPull" } },
        }]}));
        let readiness = readiness(&starting);
        assert!(!readiness.ready && !is_running(&starting));
        assert_eq!(readiness.message.as_deref(), Some("its agent waits: ErrImageNeverPull"));
    }

    #[test]
    fn a_ready_pod_needs_no_message() {
        let ready =
            pod(&serde_json::json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
        let readiness = readiness(&ready);
        assert!(readiness.ready && readiness.message.is_none());
    }

    fn living(name: &str, version: &str) -> serde_json::Value {
        serde_json::json!({ "metadata": {
            "namespace": "zt-pay", "name": name, "uid": name, "resourceVersion": version,
        }})
    }

    /// The pods of a world with one, and the watch of it.
    async fn watched(server: &mut Server) -> (Pods, Events) {
        let client = server.client();
        let (pods, events) = tokio::join!(Pods::watch(&client, "pay"), async {
            let asked = server.next().await;
            let selector = asked.parameter("labelSelector").unwrap();
            assert!(selector.contains("pay"), "{selector}");
            asked.list("10", &[living("ledger", "9")]);
            watch(server, "10").await
        });
        (pods.unwrap(), events)
    }

    /// Takes the request that opens a watch from a version on.
    async fn watch(server: &mut Server, version: &str) -> Events {
        let asked = server.next().await;
        assert!(asked.parameter("watch").is_some(), "a list in place of a watch");
        assert_eq!(asked.parameter("resourceVersion"), Some(version));
        asked.watch()
    }

    async fn become_these(pods: &Pods, names: &[&str]) {
        until("the pods", BOUND, POLL, || async {
            let seen: Vec<String> = pods.all().into_keys().map(|it| it.name).collect();
            let status = format!("{seen:?}");
            Ok(if seen == names { Look::Met(()) } else { Look::NotYet { status } })
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn pods_that_come_and_go_are_seen_without_asking() {
        let mut server = Server::start().await;
        let (pods, events) = watched(&mut server).await;
        become_these(&pods, &["ledger"]).await;
        events.tell("ADDED", &living("client", "11"));
        become_these(&pods, &["client", "ledger"]).await;
        let mut leaving = living("ledger", "12");
        leaving["metadata"]["deletionTimestamp"] = "2026-11-23T23:05:06Z".into();
        events.tell("MODIFIED", &leaving);
        become_these(&pods, &["client"]).await;
        let ledger = reference(&serde_json::from_value(leaving.clone()).unwrap());
        assert!(pods.any(&ledger).is_some() && pods.get(&ledger).is_none());
        events.tell("DELETED", &leaving);
        events.tell("ADDED", &living("new", "13"));
        become_these(&pods, &["client", "new"]).await;
        assert!(pods.any(&ledger).is_none());
    }

    #[tokio::test]
    async fn a_watch_that_ends_goes_on_where_it_was() {
        let mut server = Server::start().await;
        let (pods, events) = watched(&mut server).await;
        events.tell("ADDED", &living("client", "11"));
        drop(events);
        let events = watch(&mut server, "11").await;
        events.tell("DELETED", &living("ledger", "12"));
        become_these(&pods, &["client"]).await;
    }

    #[tokio::test]
    async fn a_watch_that_is_torn_goes_on_where_it_was() {
        let mut server = Server::start().await;
        let (pods, events) = watched(&mut server).await;
        events.tell("ADDED", &living("client", "11"));
        become_these(&pods, &["client", "ledger"]).await;
        events.tear();
        let events = watch(&mut server, "11").await;
        events.tell("DELETED", &living("ledger", "12"));
        become_these(&pods, &["client"]).await;
    }

    #[tokio::test]
    async fn pods_that_went_while_a_watch_was_out_of_date_are_gone() {
        let mut server = Server::start().await;
        let (pods, events) = watched(&mut server).await;
        events.tell("ADDED", &living("client", "11"));
        events.expire();
        let asked = server.next().await;
        assert!(asked.parameter("watch").is_none(), "a watch in place of a list");
        asked.list("20", &[living("new", "15")]);
        let events = watch(&mut server, "20").await;
        become_these(&pods, &["new"]).await;
        events.tell("ADDED", &living("newer", "21"));
        become_these(&pods, &["new", "newer"]).await;
    }

    #[tokio::test]
    async fn pods_that_may_not_be_listed_are_an_error_that_says_so() {
        let mut server = Server::start().await;
        let client = server.client();
        let watching = Pods::watch_within(Duration::from_secs(2), &client, "pay");
        let (pods, ()) = tokio::join!(soon("the ceiling", watching), async {
            server.next().await.refuse(403, "Forbidden", "pods is forbidden");
        });
        let error = pods.unwrap_err().to_string();
        assert!(error.starts_with("the first list of the pods did not come"), "{error}");
        assert!(error.contains("pods is forbidden"), "{error}");
    }

    #[tokio::test]
    async fn pods_that_are_dropped_are_watched_no_more() {
        let mut server = Server::start().await;
        let (pods, events) = watched(&mut server).await;
        drop(pods);
        soon("the end of the watch", events.abandoned()).await;
    }
}
