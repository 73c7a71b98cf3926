//! What is seen of a cluster when something does not come: pods, events and the ends of logs.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Client;
use kube::api::{Api, ListParams, LogParams};

use crate::api;
use crate::pods::{readiness, reference};
use crate::program::tail;

/// How long looking may take: the cluster may be what is broken.
const CEILING: Duration = Duration::from_secs(15);

/// How many pods are told of, and how many events.
const MOST: usize = 6;

/// What there is to see, as lines for the end of an error; nothing where nothing can be seen.
pub(crate) async fn diagnosis(kubeconfig: &Path) -> String {
    if !kubeconfig.is_file() {
        return String::new();
    }
    let seen = async {
        let client = api::client(kubeconfig, "diagnosis").await.ok()?;
        Some(look(&client).await)
    };
    tokio::time::timeout(CEILING, seen).await.ok().flatten().unwrap_or_default()
}

async fn look(client: &Client) -> String {
    let mut text = String::new();
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await;
    let unready = pods.map(|it| it.items).unwrap_or_default().into_iter();
    for pod in unready.filter(|it| !readiness(it).ready).take(MOST) {
        let message = readiness(&pod).message.unwrap_or_default();
        writeln!(text, "\n  pod {}: {message}", reference(&pod)).expect("a string takes it all");
        let name = pod.metadata.name.unwrap_or_default();
        let pods: Api<Pod> =
            Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let parameters = LogParams { tail_lines: Some(5), ..LogParams::default() };
        if let Ok(log) = pods.logs(&name, &parameters).await {
            for line in tail(&log).lines() {
                writeln!(text, "    | {line}").expect("a string takes it all");
            }
        }
    }
    let warnings = ListParams::default().fields("type=Warning");
    let events = Api::<Event>::all(client.clone()).list(&warnings).await;
    let events = events.map(|it| it.items).unwrap_or_default();
    for event in events.iter().rev().take(MOST) {
        let (kind, name) = (&event.involved_object.kind, &event.involved_object.name);
        writeln!(
            text,
            "\n  event about {} {}: {}",
            kind.as_deref().unwrap_or_default(),
            name.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default()
        )
        .expect("a string takes it all");
    }
    text
}
