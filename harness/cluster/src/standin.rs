//! A stand-in for an API server: HTTP on loopback, without TLS, and as rude as a test wants it.
//!
//! A test takes the requests one by one and answers each itself, so that what the server does reads from top
//! to bottom. It knows of Kubernetes only the forms: errors, watches, and the channels of exec.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Message};

/// How long anything may take that does not hang, on a machine that is busy with something else.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// Between two looks.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// The subprotocols of exec, what is liked best first.
pub(crate) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// The channel of the first port that is forwarded, in both directions.
const FORWARDED: u8 = 0;

/// The channels of exec: the first byte of a frame.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

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
                tokio::spawn(connection.with_upgrades());
            }
        });
        Self { address, requests, accepting: accepting.abort_handle() }
    }

    /// A client of it, made as for a real one.
    pub(crate) fn client(&self) -> Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        crate::api::identified(Config::new(url), "a-run").unwrap()
    }

    /// The same, with another ceiling for its answers.
    pub(crate) fn client_within(&self, ceiling: Duration) -> Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        crate::api::identified_within(ceiling, Config::new(url), "a-run").unwrap()
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
    mut request: Request<Incoming>,
    requests: mpsc::UnboundedSender<Asked>,
) -> Result<Response<Body>, oneshot::error::RecvError> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let (answer, answered) = oneshot::channel();
    // A test that has ended waits for no requests.
    requests.send(Asked { head, body, upgrade, answer }).ok();
    answered.await
}

/// A request that waits for its answer.
pub(crate) struct Asked {
    head: request::Parts,
    body: Bytes,
    upgrade: OnUpgrade,
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

    /// A list of pods, as of a version of the cluster.
    pub(crate) fn list(self, version: &str, pods: &[Value]) {
        self.answer(&json!({
            "apiVersion": "v1",
            "kind": "PodList",
            "metadata": { "resourceVersion": version },
            "items": pods,
        }));
    }

    /// Answers with events, one by one.
    pub(crate) fn watch(self) -> Events {
        let (sender, pieces) = mpsc::unbounded_channel();
        let pieces = stream::unfold(pieces, async |mut pieces: mpsc::UnboundedReceiver<_>| {
            Some((pieces.recv().await?, pieces))
        });
        self.answer.send(Response::new(StreamBody::new(pieces).boxed_unsync())).ok();
        Events { sender }
    }

    /// Starts the command that was asked for.
    pub(crate) async fn run(self) -> Remote {
        self.run_as(PROTOCOLS[0]).await
    }

    /// Starts the command that was asked for, in that subprotocol.
    pub(crate) async fn run_as(self, protocol: &'static str) -> Remote {
        let mut remote = self.upgrade(protocol).await;
        // Kubelet begins with an empty frame on every channel.
        for channel in [STDIN, STDOUT, STDERR, STATUS] {
            remote.send(channel, b"").await.unwrap();
        }
        remote
    }

    /// Forwards the port that was asked for: one channel for data and one for an error.
    pub(crate) async fn forward(self, port: u16) -> Remote {
        let mut remote = self.upgrade(PROTOCOLS[1]).await;
        for channel in [FORWARDED, FORWARDED + 1] {
            remote.send(channel, &port.to_le_bytes()).await.unwrap();
        }
        remote
    }

    async fn upgrade(self, protocol: &'static str) -> Remote {
        let offered = self.head.headers[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap();
        assert!(offered.split(", ").any(|it| it == protocol), "{offered}");
        let key = derive_accept_key(self.head.headers[header::SEC_WEBSOCKET_KEY].as_bytes());
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, key)
            .header(header::SEC_WEBSOCKET_PROTOCOL, protocol)
            .body(Full::default().map_err(|never| match never {}).boxed_unsync())
            .unwrap();
        self.answer.send(response).ok();
        let upgraded = soon("the change of protocols", self.upgrade).await.unwrap();
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().unwrap();
        let read = parts.read_buf.to_vec();
        let stream = parts.io.into_inner();
        let socket = WebSocketStream::from_partially_read(stream, read, Role::Server, None).await;
        Remote { socket }
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

/// A watch or a log that is open. Dropping it ends it in good order.
pub(crate) struct Events {
    sender: mpsc::UnboundedSender<io::Result<Frame<Bytes>>>,
}

impl Events {
    pub(crate) fn tell(&self, kind: &str, object: &Value) {
        self.write(format!("{}\n", json!({ "type": kind, "object": object })));
    }

    /// Writes what a log says.
    pub(crate) fn write(&self, text: String) {
        self.sender.send(Ok(Frame::data(text.into()))).ok();
    }

    /// Says what an API server says that no longer knows the version a watch began with.
    pub(crate) fn expire(self) {
        self.tell("ERROR", &status(410, "Expired", "too old resource version: 10 (20)"));
    }

    /// Waits until nobody watches any more.
    pub(crate) async fn abandoned(&self) {
        self.sender.closed().await;
    }

    /// Breaks it in the middle.
    pub(crate) fn tear(self) {
        self.sender.send(Err(io::ErrorKind::ConnectionAborted.into())).ok();
    }
}

/// A command that runs in a container, seen from there. Dropping it ends the connection without a
/// word, as a kubelet does that dies.
pub(crate) struct Remote {
    socket: WebSocketStream<TcpStream>,
}

impl Remote {
    async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::binary([&[channel], bytes].concat())).await
    }

    /// Writes to standard output.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), tungstenite::Error> {
        self.send(STDOUT, bytes).await
    }

    /// Writes to the port that is forwarded.
    pub(crate) async fn reply(&mut self, bytes: &[u8]) -> Result<(), tungstenite::Error> {
        self.send(FORWARDED, bytes).await
    }

    /// Writes to standard error.
    pub(crate) async fn complain(&mut self, bytes: &[u8]) -> Result<(), tungstenite::Error> {
        self.send(STDERR, bytes).await
    }

    /// Writes what does not end, until the connection does; says so when that much is written.
    pub(crate) async fn write_on(mut self, written: usize, full: oneshot::Sender<()>) {
        let (piece, mut full) = (vec![b'.'; 64 * 1024], Some(full));
        let mut sum = 0;
        while self.write(&piece).await.is_ok() {
            sum += piece.len();
            if let Some(full) = full.take_if(|_| sum >= written) {
                full.send(()).ok();
            }
        }
    }

    /// Tells that the command has ended well, and closes the connection in good order.
    pub(crate) async fn succeed(mut self) {
        let ended = json!({ "metadata": {}, "status": "Success" });
        self.send(STATUS, ended.to_string().as_bytes()).await.unwrap();
        self.close().await;
    }

    /// Tells that the runtime could not run the command to its end, and closes the connection.
    pub(crate) async fn fail(mut self, message: &str) {
        let ended = status(500, "InternalError", message);
        self.send(STATUS, ended.to_string().as_bytes()).await.unwrap();
        self.close().await;
    }

    /// Closes the connection in good order and waits until the other side has, too.
    pub(crate) async fn close(mut self) {
        // Who has heard a status may not wait for the rest.
        self.socket.close(None).await.ok();
        self.abandoned().await;
    }

    /// Resets the connection, as a middlebox does that has forgotten it.
    pub(crate) fn reset(self) {
        self.socket.get_ref().set_zero_linger().unwrap();
    }

    /// What comes next on standard input; nothing when the connection has ended.
    pub(crate) async fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Binary(frame) if frame.first() == Some(&STDIN) => {
                    return Some(frame.slice(1..).to_vec());
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Waits for the end of the connection.
    pub(crate) async fn abandoned(&mut self) {
        soon("the end of the connection", async { while self.hear().await.is_some() {} }).await;
    }
}
