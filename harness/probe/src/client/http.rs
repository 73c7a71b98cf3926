//! The HTTP client: one request on a connection of its own.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection};
use hyper::header::{HOST, HeaderName, HeaderValue, SERVER};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use ztc_wire::{Leg, Observed, Phase, Target};

use super::failure::{from_network, unsent};
use super::socket;
use crate::run::Run;
use crate::words::{X_ZTC_NONCE, X_ZTC_PEER, excerpt};

/// How much of a body is read.
const BODY: usize = 256;

/// The port that a `Host` header leaves out (RFC 9110 §4.2.1 and §4.2.2).
const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// The request of a stimulus. Its headers may replace `Host`, but not the nonce.
pub(super) fn request(
    tls: bool,
    method: &str,
    to: &Target,
    path: &str,
    headers: &BTreeMap<String, String>,
    nonce: &str,
) -> Result<Request<Empty<Bytes>>, Observed> {
    let host = if to.port == default_port(tls) { to.host.to_string() } else { to.to_string() };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .body(Empty::new())
        .map_err(|error| unsent("write a request", error))?;
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|error| unsent("write a header", error))?;
        let value =
            HeaderValue::try_from(value).map_err(|error| unsent("write a header", error))?;
        request.headers_mut().insert(name, value);
    }
    let nonce = HeaderValue::try_from(nonce).expect("hexadecimal digits are text");
    request.headers_mut().insert(X_ZTC_NONCE, nonce);
    Ok(request)
}

/// A connection for a request in plain.
pub(super) async fn connect(run: &Run, remote: SocketAddr) -> Result<TcpStream, Observed> {
    run.wait_for(Phase::Connect);
    socket::connect(run, Leg::Send, remote).await
}

/// Sends the request, and reads the response.
pub(super) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    run: &Run,
    stream: S,
    remote: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Result<Observed, Observed> {
    run.wait_for(Phase::Reply);

    let nonce = request.headers().get(X_ZTC_NONCE).cloned();
    let (mut sender, mut connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unsent("start HTTP", error))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        Ok(read(response, nonce.as_ref(), remote).await)
    };
    let mut answer = pin!(answer);
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // What was read before the end still reaches the answer; why it ended may not.
        ended = &mut connection => {
            answer.await.map_err(|error| ended.err().unwrap_or(error))
        }
    };
    Ok(answered.unwrap_or_else(|error: hyper::Error| failed(&error, connection)))
}

async fn read(
    response: Response<Incoming>,
    nonce: Option<&HeaderValue>,
    remote: SocketAddr,
) -> Observed {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    // A body that breaks off does not unsay the head.
    while let Some(Ok(frame)) = incoming.frame().await {
        body.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        if body.len() >= BODY {
            break;
        }
    }
    let text = |name: &HeaderName| text(&head.headers, name);
    Observed::Http {
        status: head.status.as_u16(),
        peer: text(&X_ZTC_PEER).filter(|_| head.headers.get(X_ZTC_NONCE) == nonce),
        server: text(&SERVER),
        body: excerpt(&body),
        remote,
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// What is known when no response came: what the socket said, or what came instead.
fn failed<S: AsyncRead + AsyncWrite + Unpin>(
    error: &hyper::Error,
    connection: Connection<TokioIo<S>, Empty<Bytes>>,
) -> Observed {
    if error.is_parse() {
        return Observed::Garbled { got: excerpt(&connection.into_parts().read_buf) };
    }
    if error.is_user() {
        return unsent("send a request", error);
    }
    match error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) => from_network("exchange HTTP", Phase::Reply, cause),
        None => Observed::Closed { reset: false },
    }
}

#[cfg(test)]
mod tests {
    use ztc_wire::Host;

    use super::*;

    const NONCE: &str = "c0ffee";

    fn ledger(port: u16) -> Target {
        Target { host: Host::Name("ledger.zt-pay".into()), port, family: None }
    }

    #[test]
    fn the_host_header_leaves_the_default_port_out() {
        let host = |tls, port| {
            let request = request(tls, "GET", &ledger(port), "/", &BTreeMap::new(), NONCE).unwrap();
            text(request.headers(), &HOST).unwrap()
        };
        assert_eq!(host(false, 80), "ledger.zt-pay");
        assert_eq!(host(false, 8080), "ledger.zt-pay:8080");
        assert_eq!(host(false, 443), "ledger.zt-pay:443");
        assert_eq!(host(true, 443), "ledger.zt-pay");
        assert_eq!(host(true, 80), "ledger.zt-pay:80");
    }

    #[test]
    fn a_stimulus_may_replace_the_host_but_not_the_nonce() {
        let headers =
            [("host", "other"), ("X-Ztc-Nonce", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let request = request(false, "GET", &ledger(80), "/", &headers.into(), NONCE).unwrap();
        assert_eq!(text(request.headers(), &HOST).unwrap(), "other");
        assert_eq!(text(request.headers(), &X_ZTC_NONCE).unwrap(), NONCE);
        assert_eq!(request.headers().get_all(X_ZTC_NONCE).iter().count(), 1);
    }

    #[test]
    fn a_request_that_cannot_be_written_is_unsent() {
        let unsent = |method, path| {
            let written = request(false, method, &ledger(80), path, &BTreeMap::new(), NONCE);
            matches!(written, Err(Observed::Unsent { .. }))
        };
        assert!(unsent("GE T", "/") && unsent("GET", "/a b"));
        assert!(!unsent("BREW", "/pot?milk=1"));
    }
}
