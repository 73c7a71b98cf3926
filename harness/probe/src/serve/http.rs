//! The HTTP echo: 200 for everything, with the nonce and the peer's name; in plain or inside of TLS.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::ServeError;
use super::listen::accept;
use crate::words::{X_ZTC_NONCE, X_ZTC_PEER};

/// Answers as this peer.
#[derive(Clone)]
pub(super) struct Echo {
    peer: Arc<str>,
    header: HeaderValue,
    tls: Option<TlsAcceptor>,
}

/// The body of a response, as JSON.
#[derive(Serialize)]
struct Body<'a> {
    peer: &'a str,
    method: &'a str,
    path: &'a str,
}

impl Echo {
    /// # Errors
    /// [`ServeError::HeaderName`] when the name is no header's value.
    pub(super) fn new(peer: &str, tls: Option<TlsAcceptor>) -> Result<Self, ServeError> {
        let header = HeaderValue::from_str(peer)
            .map_err(|source| ServeError::HeaderName { name: peer.into(), source })?;
        Ok(Self { peer: peer.into(), header, tls })
    }

    /// Answers every request of every connection.
    pub(super) async fn serve(self, listener: TcpListener, port: u16) -> ServeError {
        loop {
            let stream = match accept(&listener, port).await {
                Ok(stream) => stream,
                Err(error) => return error,
            };
            let echo = self.clone();
            // However a connection breaks, its client knows; there is nobody to tell here.
            tokio::spawn(async move {
                match &echo.tls {
                    None => echo.converse(stream).await.ok(),
                    Some(tls) => echo.converse(tls.accept(stream).await.ok()?).await.ok(),
                }
            });
        }
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> hyper::Result<()> {
        let answer = service_fn(|request| {
            let response = self.answer(&request);
            async { Ok::<_, Infallible>(response) }
        });
        http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let body = Body {
            peer: &self.peer,
            method: request.method().as_str(),
            path: request.uri().path_and_query().map_or("", |path| path.as_str()),
        };
        let body = serde_json::to_vec(&body).expect("a struct of strings is JSON");
        let mut response = Response::new(Full::from(body));
        let headers = response.headers_mut();
        headers.insert(SERVER, HeaderValue::from_static("ztc-probe"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_ZTC_PEER, self.header.clone());
        if let Some(nonce) = request.headers().get(X_ZTC_NONCE) {
            headers.insert(X_ZTC_NONCE, nonce.clone());
        }
        response
    }
}
