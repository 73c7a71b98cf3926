//! What ztunnels and waypoints say of themselves: their admin interfaces, which listen on loopback in their own pods and
//! are reached by port-forward. Their images have nothing that could be executed.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::timeout;
use ztc_engine::fabric::Inspection;

use crate::api::ApiError;
use crate::mesh::ZTUNNELS;

/// The port of the admin interface, of ztunnel as of Envoy.
const PORT: u16 = 15_000;

/// Where a waypoint tells of its listeners.
const LISTENERS: &str = "/config_dump?resource=dynamic_listeners";

/// How long one answer may take.
const CEILING: Duration = Duration::from_secs(15);

/// How much of an answer is kept, bytes: a dump of a large mesh has many megabytes.
const KEPT: usize = 1 << 20;

/// What is asked, by the label of the pods, and the command of `istioctl` with the same content.
const QUESTIONS: [(&str, &str, &str); 2] = [
    (ZTUNNELS.label, "/config_dump", "istioctl ztunnel-config all -o json"),
    (
        "gateway.istio.io/managed=istio.io-mesh-controller",
        LISTENERS,
        "istioctl x authz check; istioctl proxy-config listener -o json",
    ),
];

/// Why an admin interface does not answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Its pod could not be found.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Its port could not be reached.
    #[error("cannot forward port {PORT} of {pod}")]
    Forward {
        /// Which.
        pod: String,
        /// Why.
        source: kube::Error,
    },
    /// It does not speak HTTP, or stopped in the middle.
    #[error("cannot ask {pod} for {path}")]
    Http {
        /// Which.
        pod: String,
        /// For what.
        path: &'static str,
        /// Why.
        source: hyper::Error,
    },
    /// It took too long.
    #[error("{pod} did not answer within {} s", CEILING.as_secs())]
    Ceiling {
        /// Which.
        pod: String,
    },
}

/// Asks every ztunnel and every waypoint for its policies, certificates and listeners. What cannot be
/// had is said in its place.
pub(crate) async fn inspect(client: &Client) -> Vec<Inspection> {
    let mut inspections = Vec::new();
    for (label, path, command) in QUESTIONS {
        let said = |place: String, output| Inspection {
            place,
            command: format!("{command} (GET {path} on port {PORT})"),
            output,
        };
        match pods(client, label).await {
            Ok(pods) => {
                for (namespace, pod) in pods {
                    let output = get(client, &namespace, &pod, path).await;
                    let output = output.unwrap_or_else(|error| ztc_engine::chain(&error));
                    inspections.push(said(format!("{namespace}/{pod}"), output));
                }
            }
            Err(error) => inspections.push(said(label.to_owned(), ztc_engine::chain(&error))),
        }
    }
    inspections
}

async fn pods(client: &Client, label: &str) -> Result<Vec<(String, String)>, ApiError> {
    let listed = Api::<Pod>::all(client.clone())
        .list(&ListParams::default().labels(label).fields("status.phase=Running"))
        .await
        .map_err(|source| ApiError::Read {
            what: format!("pods labelled {label}"),
            source: source.into(),
        })?;
    let named = listed.items.into_iter().map(|it| it.metadata);
    Ok(named.filter_map(|it| Some((it.namespace?, it.name?))).collect())
}

/// What a ztunnel says of its configuration, as JSON.
pub(crate) async fn config_dump(
    client: &Client,
    namespace: &str,
    pod: &str,
) -> Result<Bytes, AdminError> {
    whole(client, namespace, pod, "/config_dump").await
}

/// What a waypoint says of its listeners, as JSON.
pub(crate) async fn listeners(
    client: &Client,
    namespace: &str,
    pod: &str,
) -> Result<Bytes, AdminError> {
    whole(client, namespace, pod, LISTENERS).await
}

async fn whole(
    client: &Client,
    namespace: &str,
    pod: &str,
    path: &'static str,
) -> Result<Bytes, AdminError> {
    let asked = timeout(CEILING, ask(client, namespace, pod, path));
    let told = || format!("{namespace}/{pod}");
    asked.await.map_err(|_elapsed| AdminError::Ceiling { pod: told() })?
}

/// Asks the admin interface of a pod; the beginning of its answer.
async fn get(
    client: &Client,
    namespace: &str,
    pod: &str,
    path: &'static str,
) -> Result<String, AdminError> {
    let bytes = whole(client, namespace, pod, path).await?;
    let kept = bytes.get(..KEPT).unwrap_or(&bytes);
    let text = String::from_utf8_lossy(kept);
    Ok(match bytes.len() - kept.len() {
        0 => text.into_owned(),
        more => format!("{text}\n... {more} bytes more"),
    })
}

async fn ask(
    client: &Client,
    namespace: &str,
    pod: &str,
    path: &'static str,
) -> Result<Bytes, AdminError> {
    let told = format!("{namespace}/{pod}");
    let http = |source| AdminError::Http { pod: told.clone(), path, source };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut forwarder = pods
        .portforward(pod, &[PORT])
        .await
        .map_err(|source| AdminError::Forward { pod: told.clone(), source })?;
    let stream = forwarder.take_stream(PORT).expect("this port was asked for");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let driving = tokio::spawn(connection);
    let answer = async {
        let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new());
        let request = request.expect("a path of this file is one");
        let response = sender.send_request(request).await?;
        Ok::<_, hyper::Error>(response.into_body().collect().await?.to_bytes())
    };
    let bytes = answer.await.map_err(http);
    // The connection is of no use for a second question.
    driving.abort();
    forwarder.abort();
    bytes
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;
    use crate::standin::{Remote, Server, soon};

    /// Answers the one request that comes over a forwarded port.
    async fn serve(server: &mut Server, answer: &str) -> (String, Remote) {
        let asked = server.next().await;
        assert!(asked.path().ends_with("/pods/ztunnel-1/portforward"), "{}", asked.path());
        let mut remote = asked.forward(PORT).await;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.extend(remote.hear().await.expect("a request"));
        }
        remote.reply(answer.as_bytes()).await.unwrap();
        (String::from_utf8(request).unwrap(), remote)
    }

    fn asking(server: &Server) -> JoinHandle<Result<String, AdminError>> {
        let client = server.client();
        tokio::spawn(async move { get(&client, "istio-system", "ztunnel-1", "/config_dump").await })
    }

    #[tokio::test]
    async fn an_answer_comes_over_the_forwarded_port() {
        let mut server = Server::start().await;
        let asking = asking(&server);
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let (request, _remote) = soon("the request", serve(&mut server, answer)).await;
        assert!(request.starts_with("GET /config_dump HTTP/1.1\r\n"), "{request}");
        assert_eq!(soon("the answer", asking).await.unwrap().unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_port_that_breaks_in_the_middle_is_an_error() {
        let mut server = Server::start().await;
        let asking = asking(&server);
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{";
        let (_request, remote) = soon("the request", serve(&mut server, answer)).await;
        remote.reset();
        let error = soon("the error", asking).await.unwrap().unwrap_err();
        assert!(matches!(error, AdminError::Http { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_is_an_error() {
        let mut server = Server::start().await;
        let asking = asking(&server);
        server.next().await.refuse(404, "NotFound", "pods \"ztunnel-1\" not found");
        let error = soon("the error", asking).await.unwrap().unwrap_err();
        assert!(matches!(error, AdminError::Forward { .. }), "{error}");
    }
}
