//! Requests of HTTP: read, decided about, answered or sent on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, Cursor};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, SERVER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring::default_provider;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, join, sink, split};
use tokio::time::timeout;
use ztc_model::policy::mesh::waypoint::{self, Decision, Token};

use super::head::{self, Head, LONGEST};
use super::upstream::{Body, UpstreamError};
use super::{Proxy, Visit, seconds};
use crate::host::hbone::Tunnelled;
use crate::mesh::{Outcome, RequestLog};

/// How long a client may take for the head of its request.
const HEAD: Duration = Duration::from_secs(10);

/// How much is still read of a client that was refused before it had said all, and for how long: one that writes on
/// must not lose the answer.
const LEFT_OVER: u64 = 4 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// Who a waypoint says to be.
const ENVOY: HeaderValue = HeaderValue::from_static("istio-envoy");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What is between two proxies and goes no further (RFC 9110 §7.6.1).
const OF_THE_HOP: [HeaderName; 7] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// What a client is told where a server did not answer, in Envoy's words.
const TERMINATED: &str = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";

/// What is known of a request so far.
struct Exchange {
    log: Mutex<(RequestLog, Outcome)>,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

/// What a connection came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// Nobody asked anything.
    Nothing,
    /// It was no request that can be answered.
    Refused(StatusCode),
    /// There was a request, and a response unless the client went first.
    Asked,
}

impl Proxy {
    /// Serves a connection.
    pub(super) async fn serve_requests(self: Arc<Self>, visit: Visit, stream: Tunnelled) {
        let exchange = Exchange::new(visit.log());
        let served =
            converse(stream, HEAD, |request| self.answer(&visit, &exchange, request)).await;
        let refused = match served {
            Served::Nothing => return,
            Served::Refused(status) => Some(status),
            Served::Asked => None,
        };
        let (log, mut outcome) = exchange.over();
        if let Some(status) = refused {
            outcome.status = status.as_u16();
            outcome.flags = Some("DPE");
            outcome.details = Some("http1.codec_error".to_owned());
        } else if outcome.status == 0 {
            outcome.flags = Some("DC");
            outcome.details = Some("downstream_remote_disconnect".to_owned());
        }
        self.log(&visit, &log, outcome);
    }

    /// Answers a request, or has it answered by a server.
    async fn answer(
        &self,
        visit: &Visit,
        exchange: &Exchange,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let asked = asked(&head);
        let id = request_id();
        exchange.note(|log, _| {
            log.authority = Some(asked.host.clone());
            log.method = Some(asked.method.clone());
            log.path = Some(asked.path.clone());
            log.user_agent = asked.headers.get(USER_AGENT.as_str()).cloned();
            log.request_id = Some(id.clone());
        });
        if head.uri.path_and_query().is_none() {
            // A CONNECT of the client's own leads nowhere.
            let outcome = Outcome { flags: Some("NR"), ..Outcome::default() };
            return exchange.reply(StatusCode::NOT_FOUND, "", "route_not_found", outcome);
        }
        let realm = format!(
            "Bearer realm=\"http://{}{}\", error=\"invalid_token\"",
            asked.host, asked.path
        );
        let asked = visit.asked(Some(asked));
        let decision = self.plan.mesh.judge_at_waypoint(&visit.target, asked, seconds());
        let (Some(status), Some(details)) = (decision.status(), decision.details()) else {
            let request = forwarded(&head, &id, Exchange::counted(body, &exchange.received));
            return self.forward(visit, exchange, request).await;
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
        let text = match &decision {
            Decision::TokenRefused { why } => why.to_string(),
            _ => "RBAC: access denied".to_owned(),
        };
        let mut response = exchange.reply(status, &text, &details, Outcome::default());
        if status == StatusCode::UNAUTHORIZED
            && let Ok(realm) = HeaderValue::try_from(realm)
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        response
    }

    /// Sends a request to a server, and its response back.
    async fn forward(
        &self,
        visit: &Visit,
        exchange: &Exchange,
        request: Request<Body>,
    ) -> Response<Body> {
        let Ok(route) = self.plan.mesh.route_behind(visit.client, &visit.target) else {
            let outcome = Outcome { flags: Some("UH"), ..Outcome::default() };
            let unavailable = StatusCode::SERVICE_UNAVAILABLE;
            return exchange.reply(
                unavailable,
                "no healthy upstream",
                "no_healthy_upstream",
                outcome,
            );
        };
        let asked = Instant::now();
        let sent = match self.upstream_for(&visit.identity) {
            Ok(upstream) => upstream.send(&route, request).await,
            Err(error) => Err(error),
        };
        let server = Some(route.to);
        let mut response = match sent {
            Ok(response) => response,
            Err(UpstreamError::Exchange(error)) if error.is_parse() => {
                let outcome = Outcome { server, flags: Some("UPE"), ..Outcome::default() };
                let details = "upstream_reset_before_response_started{protocol_error}";
                return exchange.reply(StatusCode::BAD_GATEWAY, "", details, outcome);
            }
            Err(error) => {
                exchange.note(|log, _| self.log_failure(log, &error, asked.elapsed()));
                let outcome = Outcome { server, flags: Some("UC"), ..Outcome::default() };
                let details = "upstream_reset_before_response_started{connection_termination}";
                let unavailable = StatusCode::SERVICE_UNAVAILABLE;
                return exchange.reply(unavailable, TERMINATED, details, outcome);
            }
        };
        let answered = asked.elapsed();
        exchange.note(|_, outcome| {
            outcome.status = response.status().as_u16();
            outcome.details = Some("via_upstream".to_owned());
            outcome.server = server;
            outcome.answered = Some(answered);
        });
        without_hop(response.headers_mut());
        let took = HeaderValue::from(u64::try_from(answered.as_millis()).unwrap_or(u64::MAX));
        response.headers_mut().insert(X_SERVICE_TIME, took);
        response.headers_mut().insert(SERVER, ENVOY);
        response.map(|body| Exchange::counted(body, &exchange.sent))
    }
}

impl Exchange {
    fn new(log: RequestLog) -> Self {
        Self {
            log: Mutex::new((log, Outcome::default())),
            received: Arc::default(),
            sent: Arc::default(),
        }
    }

    fn note(&self, note: impl FnOnce(&mut RequestLog, &mut Outcome)) {
        // It is whole whenever the lock is free.
        let mut noted = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (log, outcome) = &mut *noted;
        note(log, outcome);
    }

    /// A response of the waypoint's own.
    fn reply(
        &self,
        status: StatusCode,
        text: &str,
        details: &str,
        outcome: Outcome,
    ) -> Response<Body> {
        let details = Some(details.to_owned());
        self.note(|_, noted| *noted = Outcome { status: status.as_u16(), details, ..outcome });
        self.sent.store(text.len() as u64, Ordering::Relaxed);
        let body = Full::from(text.to_owned()).map_err(|never: Infallible| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = status;
        response.headers_mut().insert(SERVER, ENVOY);
        if !text.is_empty() {
            response.headers_mut().insert(http::header::CONTENT_TYPE, TEXT);
        }
        response
    }

    /// A body whose bytes are counted as they pass.
    fn counted(body: Incoming, count: &Arc<AtomicU64>) -> Body {
        let count = Arc::clone(count);
        let counting = body.map_frame(move |frame| {
            let length = frame.data_ref().map_or(0, Bytes::len);
            count.fetch_add(length as u64, Ordering::Relaxed);
            frame
        });
        counting.boxed_unsync()
    }

    fn over(self) -> (RequestLog, Outcome) {
        let (log, mut outcome) = self.log.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.received = self.received.load(Ordering::Relaxed);
        outcome.sent = self.sent.load(Ordering::Relaxed);
        (log, outcome)
    }
}

/// Reads one request of a connection, whose head may take as long as `patience`, and writes the response. What is no
/// request is refused, and the connection is over then.
pub(super) async fn converse<S, F>(
    mut stream: S,
    patience: Duration,
    answer: impl Fn(Request<Incoming>) -> F,
) -> Served
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response<Body>>,
{
    let mut begun = BytesMut::new();
    let looked = match timeout(patience, read_head(&mut stream, &mut begun)).await {
        Ok(Ok(looked)) => looked,
        Ok(Err(_broken)) => return Served::Nothing,
        Err(_late) => Head::Refused(StatusCode::REQUEST_TIMEOUT),
    };
    let refused = match looked {
        Head::Whole => None,
        Head::Partial if begun.is_empty() => return Served::Nothing,
        Head::Partial => Some(StatusCode::BAD_REQUEST),
        Head::Refused(status) => Some(status),
    };
    if let Some(status) = refused {
        // A client that has gone needs no answer.
        refuse(stream, status).await.ok();
        return Served::Refused(status);
    }
    let (reader, writer) = split(stream);
    let stream = join(Cursor::new(begun).chain(reader), writer);
    let service = service_fn(|request| {
        let response = answer(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_headers(head::MOST)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    match served {
        Err(error) if error.is_parse() => Served::Refused(StatusCode::BAD_REQUEST),
        Ok(()) | Err(_) => Served::Asked,
    }
}

/// Reads until something can be said of the head; `Partial` where the client has ended before.
async fn read_head(stream: &mut (impl AsyncRead + Unpin), into: &mut BytesMut) -> io::Result<Head> {
    loop {
        match head::look(into) {
            Head::Partial => {}
            looked => return Ok(looked),
        }
        into.reserve(LONGEST / 8);
        if stream.read_buf(into).await? == 0 {
            return Ok(Head::Partial);
        }
    }
}

async fn refuse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    status: StatusCode,
) -> io::Result<()> {
    let reason = status.canonical_reason().unwrap_or_default();
    let response = format!(
        "HTTP/1.1 {} {reason}\r\nserver: istio-envoy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        status.as_u16()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await?;
    let rest = &mut stream.take(LEFT_OVER);
    match timeout(LINGER, copy(rest, &mut sink())).await {
        Ok(read) => read.map(drop),
        Err(_still_writing) => Ok(()),
    }
}

/// What policy is asked about a request. A target with a host goes before the header (RFC 9112 §3.2.2).
fn asked(head: &Parts) -> waypoint::Request {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        // As one list, in which order they came (RFC 9110 §5.3).
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    waypoint::Request {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        host: host(head),
        headers,
        token: Token::Absent,
    }
}

fn host(head: &Parts) -> String {
    let named = head.headers.get(HOST).map(|it| String::from_utf8_lossy(it.as_bytes()));
    let target = head.uri.authority().map(ToString::to_string);
    target.or_else(|| named.map(Into::into)).unwrap_or_default()
}

/// The request as a server gets it.
fn forwarded(head: &Parts, id: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    let path = head.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    *request.uri_mut() = path;
    let mut headers = head.headers.clone();
    without_hop(&mut headers);
    let told = [(HOST, host(head)), (X_REQUEST_ID, id.to_owned())];
    for (name, value) in told {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    *request.headers_mut() = headers;
    request
}

/// Takes away what goes no further, also what `Connection` names.
fn without_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter_map(|it| it.trim().parse().ok())
        .collect();
    for name in OF_THE_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// A number for a request (RFC 9562, version 4).
fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    // Numbers that repeat would harm nobody.
    default_provider().secure_random.fill(&mut bytes).ok();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        write!(text, "{dash}{byte:02x}").expect("a text takes all");
    }
    text
}
