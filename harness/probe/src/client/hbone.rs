//! The client of tunnels of the mesh: a CONNECT of HTTP/2, and then the words of TCP in it.
//!
//! It takes the part of a proxy: what it shows and whom it asks for is what it was told, so that a peer can be asked for
//! what no proxy would ask. Whom it speaks to it checks as a proxy does.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::{Method, Request, StatusCode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ztc_wire::{Leg, Observed, Papers, Phase, TunnelAnswer};

use super::failure::{self, from_network, unsent};
use super::{socket, tls};
use crate::run::Run;
use crate::tls::tunnels;
use crate::words::{self, EXCERPT, Heard, MAX_WORDS};

/// Opens a tunnel, asks for the connection in it, then asks through it.
pub(super) async fn exchange(
    run: &Run,
    at: SocketAddr,
    authority: SocketAddr,
    papers: Option<&Papers>,
) -> Result<Observed, Observed> {
    let config = papers.map(tunnels).transpose();
    let config = config.map_err(|error| unsent("read the papers of a tunnel", error))?;
    run.wait_for(Phase::Connect);
    let stream = socket::connect(run, Leg::Send, at).await?;
    let Some(config) = config else {
        return in_tunnel(run, stream, at, authority, None).await;
    };
    run.wait_for(Phase::Handshake);
    // There is no name to ask for; the papers say who the peer has to be.
    let name = ServerName::IpAddress(at.ip().into());
    let stream = tls::shake_hands(Arc::new(config), name, stream).await?;
    in_tunnel(run, stream, at, authority, papers.map(|it| it.peer.clone())).await
}

async fn in_tunnel(
    run: &Run,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    at: SocketAddr,
    authority: SocketAddr,
    identity: Option<String>,
) -> Result<Observed, Observed> {
    run.wait_for(Phase::Reply);
    let ear = Ear::default();
    let no_tunnel = |answer| Observed::NoTunnel { identity: identity.clone(), answer };
    let failed = |error: &h2::Error| ear.ended(error).map_or_else(|other| other, no_tunnel);

    let stream = Listening { stream, ear: ear.clone() };
    let (requests, connection) =
        h2::client::handshake(stream).await.map_err(|error| failed(&error))?;
    let asked = async {
        match ask(run, requests, at, authority).await {
            Ok(Asked::Answered(observed)) => observed,
            Ok(Asked::Refused(status)) => no_tunnel(TunnelAnswer::Status(status.as_u16())),
            Err(error) => failed(&error),
        }
    };
    let mut asked = pin!(asked);
    let mut connection = pin!(connection);
    Ok(tokio::select! {
        biased;
        observed = &mut asked => observed,
        // Streams of a connection that has ended end with it, and have what came before.
        _ended = &mut connection => asked.await,
    })
}

/// What became of a CONNECT.
enum Asked {
    /// It was opened, and this came out of it.
    Answered(Observed),
    /// It was not.
    Refused(StatusCode),
}

async fn ask(
    run: &Run,
    requests: SendRequest<Bytes>,
    at: SocketAddr,
    authority: SocketAddr,
) -> Result<Asked, h2::Error> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.to_string().parse().expect("an address and a port are an URI");
    let mut requests = requests.ready().await?;
    let (response, mut sends) = requests.send_request(request, false)?;
    let response = response.await?;
    if response.status() != StatusCode::OK {
        return Ok(Asked::Refused(response.status()));
    }
    let nonce = run.nonce();
    sends.send_data(words::question(&nonce).into(), false)?;
    let mut receives = response.into_body();
    let mut heard = Vec::with_capacity(MAX_WORDS);
    // The window is far larger than all that is read: nothing has to be given back to it.
    while let Some(piece) = receives.data().await {
        heard.extend_from_slice(&piece?);
        match words::hear(&nonce, &heard) {
            Heard::Part => {}
            Heard::Peer(peer) => return Ok(Asked::Answered(Observed::Reply { peer, remote: at })),
            Heard::Garbled => {
                let got = words::excerpt(&heard);
                return Ok(Asked::Answered(Observed::Garbled { got }));
            }
        }
    }
    Ok(Asked::Answered(Observed::Closed { reset: false }))
}

/// What came beneath HTTP/2, which does not tell of it: the first bytes, and how the stream broke off.
#[derive(Debug, Clone, Default)]
struct Ear(Arc<Mutex<Heeded>>);

#[derive(Debug, Default)]
struct Heeded {
    first: Vec<u8>,
    broke: Option<Observed>,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, Heeded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What ended HTTP/2.
    ///
    /// # Errors
    /// What was seen, where it is no answer.
    fn ended(&self, error: &h2::Error) -> Result<TunnelAnswer, Observed> {
        let heeded = self.lock();
        if let Some(description) = alert_in_clear(&heeded.first) {
            return Ok(TunnelAnswer::Alert(description));
        }
        match &heeded.broke {
            Some(Observed::TlsAlert { description }) => {
                Ok(TunnelAnswer::Alert(description.clone()))
            }
            Some(Observed::Closed { reset }) => Ok(TunnelAnswer::Closed { reset: *reset }),
            Some(other) => Err(other.clone()),
            None => match error.reason() {
                Some(reason) if error.is_remote() => {
                    Ok(TunnelAnswer::Http2(format!("{reason:?}").to_ascii_lowercase()))
                }
                Some(_) => Err(Observed::Garbled { got: words::excerpt(&heeded.first) }),
                None => Ok(TunnelAnswer::Closed { reset: false }),
            },
        }
    }
}

/// The description of a TLS alert that a peer sent before there was TLS (RFC 8446 §5.1 and §6).
fn alert_in_clear(bytes: &[u8]) -> Option<String> {
    let [0x15, 0x03, _, 0x00, 0x02, _level, description, ..] = *bytes else { return None };
    match failure::alert(description.into()) {
        Observed::TlsAlert { description } => Some(description),
        _ => None,
    }
}

/// A stream with an ear at it.
struct Listening<S> {
    stream: S,
    ear: Ear,
}

impl<S> Listening<S> {
    fn heed(&self, error: &io::Error) {
        let broke = from_network("speak HTTP/2", Phase::Reply, error);
        self.ear.lock().broke.get_or_insert(broke);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read {
            self.heed(error);
        }
        let new = &buffer.filled()[before..];
        let mut heeded = self.ear.lock();
        let room = EXCERPT.saturating_sub(heeded.first.len());
        heeded.first.extend_from_slice(&new[..room.min(new.len())]);
        drop(heeded);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Err(error)) = &written {
            self.heed(error);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_before_there_is_tls_is_told_in_words() {
        let told = alert_in_clear(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 50]);
        assert_eq!(told.as_deref(), Some("decode_error"));
        for other in [&b"HTTP/1.1 400"[..], &[0x15, 0x03, 0x03, 0x00, 0x02], &[]] {
            assert_eq!(alert_in_clear(other), None);
        }
    }
}
