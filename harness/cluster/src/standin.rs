//! A stand-in for an API server: HTTP on loopback, without TLS, and as rude as a test wants it.
//!
//! A test takes the requests one by one and answers each itself, so that what the server does reads from top
//! to bottom. It knows of Kubernetes only the form of errors.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How long anything may take that does not hang, on a machine that is busy with something else.
const BOUND: Duration = Duration::from_secs(20);

/// What comes of something that must not hang.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(BOUND, future)
        .await
        .unwrap_or_else(|elapsed| panic!("{what} did not come within {BOUND:?}: {elapsed}"))
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The server.
pub(crate) struct Server {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Asked>,
    accepting: AbortHandle,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let serve = service_fn(move |request| pass_on(request, sender.clone()));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
                tokio::spawn(connection);
            }
        });
        Self { address, requests, accepting: accepting.abort_handle() }
    }

    /// A client of it, made as for a real one.
    pub(crate) fn client(&self) -> Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        crate::api::identified(Config::new(url), "a-run").unwrap()
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Asked {
        soon("a request", self.requests.recv()).await.unwrap()
    }

    /// The requests that have come and were not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Lets the test answer. One that lets go of a request ends the connection without an answer.
async fn pass_on(
    request: Request<Incoming>,
    requests: mpsc::UnboundedSender<Asked>,
) -> Result<Response<Body>, oneshot::error::RecvError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let (answer, answered) = oneshot::channel();
    // A test that has ended waits for no requests.
    requests.send(Asked { head, body, answer }).ok();
    answered.await
}

/// A request that waits for its answer.
pub(crate) struct Asked {
    head: request::Parts,
    body: Bytes,
    answer: oneshot::Sender<Response<Body>>,
}

impl Asked {
    pub(crate) fn method(&self) -> &Method {
        &self.head.method
    }

    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// A parameter of the query, as it was sent.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.head.uri.query().unwrap_or_default().split('&');
        pairs.filter_map(|it| it.split_once('=')).find(|it| it.0 == name).map(|it| it.1)
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn answer(self, body: &Value) {
        self.respond(StatusCode::OK, &HeaderMap::new(), body);
    }

    /// An error in Kubernetes' form.
    pub(crate) fn refuse(self, code: u16, reason: &str, message: &str) {
        self.refuse_with(&HeaderMap::new(), code, reason, message);
    }

    /// An error that says after how many seconds to come again.
    pub(crate) fn refuse_for(self, seconds: u64, code: u16, reason: &str) {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, seconds.into())]);
        self.refuse_with(&headers, code, reason, "come again");
    }

    fn refuse_with(self, headers: &HeaderMap, code: u16, reason: &str, message: &str) {
        let body = status(code, reason, message);
        self.respond(StatusCode::from_u16(code).unwrap(), headers, &body);
    }

    fn respond(self, code: StatusCode, headers: &HeaderMap, body: &Value) {
        let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = code;
        response.headers_mut().clone_from(headers);
        // Whoever asked may have gone.
        self.answer.send(response).ok();
    }
}

/// An object of the kind by which Kubernetes tells of errors.
fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}
