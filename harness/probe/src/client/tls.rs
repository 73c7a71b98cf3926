//! The TLS client: a whole handshake that asks for the target's name and checks the certificate for it,
//! and then the words of TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, Error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use ztc_wire::{Host, Leg, Observed, Phase, Target};

use super::failure::{alert, from_network, tls_error, unsent};
use super::{socket, tcp};
use crate::run::Run;
use crate::words::{EXCERPT, excerpt};

/// Connects, shakes hands, asks, and listens.
pub(super) async fn exchange(
    run: &Run,
    to: &Target,
    remote: SocketAddr,
) -> Result<Observed, Observed> {
    let stream = connect(run, to, remote).await?;
    run.wait_for(Phase::Reply);
    tcp::converse(run, stream, remote).await
}

/// A connection on which the peer has proved to be the target.
pub(super) async fn connect(
    run: &Run,
    to: &Target,
    remote: SocketAddr,
) -> Result<TlsStream<Opening>, Observed> {
    let config = run.tls().client.clone();
    let config = config.ok_or_else(|| unsent("speak TLS", "no authority is known"))?;
    let name = server_name(&to.host)?;
    run.wait_for(Phase::Connect);
    let stream = socket::connect(run, Leg::Send, remote).await?;
    run.wait_for(Phase::Handshake);
    shake_hands(config, name, stream).await
}

/// TLS on a connection.
pub(super) async fn shake_hands(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: TcpStream,
) -> Result<TlsStream<Opening>, Observed> {
    let opening = Opening { stream, heard: Vec::new() };
    let shaken = TlsConnector::from(config).connect(name, opening).into_fallible().await;
    shaken.map_err(|(error, opening)| failed(&error, &opening.heard))
}

/// What the certificate has to be for. A name is told to the server, without the dot at its end
/// (RFC 6066 §3); an address is not.
fn server_name(host: &Host) -> Result<ServerName<'static>, Observed> {
    match host {
        Host::Ip(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|error| unsent("ask for a server's name", error)),
    }
}

/// What ended a handshake, after these first bytes of the peer.
fn failed(error: &io::Error, heard: &[u8]) -> Observed {
    match tls_error(error) {
        Some(Error::AlertReceived(description)) => alert(*description),
        Some(Error::InvalidCertificate(wrong)) => certificate(wrong),
        Some(
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerMisbehaved(_)
            | Error::PeerIncompatible(_)
            | Error::PeerSentOversizedRecord
            | Error::NoCertificatesPresented
            | Error::DecryptError,
        ) => Observed::Garbled { got: excerpt(heard) },
        Some(other) => unsent("shake hands", other),
        None => match from_network("shake hands", Phase::Handshake, error) {
            Observed::Closed { reset } => Observed::HandshakeCut { reset },
            other => other,
        },
    }
}

fn certificate(wrong: &CertificateError) -> Observed {
    match wrong {
        CertificateError::NotValidForNameContext { presented, .. } => {
            Observed::WrongName { names: presented.iter().map(|it| bare(it).to_owned()).collect() }
        }
        CertificateError::NotValidForName => Observed::WrongName { names: Vec::new() },
        other => Observed::Untrusted { error: other.to_string() },
    }
}

/// The name alone of one that `webpki` presents with its kind: `DnsName("api.zt.test")`.
fn bare(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

/// A stream that keeps the first bytes that the peer sent: they tell what a peer is that speaks no TLS.
#[derive(Debug)]
pub(super) struct Opening {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl AsyncRead for Opening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let new = &buffer.filled()[before..];
        let room = EXCERPT.saturating_sub(self.heard.len());
        self.heard.extend_from_slice(&new[..room.min(new.len())]);
        read
    }
}

impl AsyncWrite for Opening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
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

    fn asked(name: &str) -> String {
        server_name(&Host::Name(name.into())).unwrap().to_str().into_owned()
    }

    #[test]
    fn a_name_is_asked_for_without_its_last_dot() {
        assert_eq!(asked("api.zt.test."), "api.zt.test");
        assert_eq!(asked("api.zt.test"), "api.zt.test");
    }

    #[test]
    fn a_name_that_is_none_is_unsent() {
        let sent = server_name(&Host::Name("a b".into()));
        assert!(matches!(sent, Err(Observed::Unsent { .. })), "{sent:?}");
    }

    #[test]
    fn a_presented_name_is_told_without_its_kind() {
        assert_eq!(bare("DnsName(\"api.zt.test\")"), "api.zt.test");
        assert_eq!(bare("IpAddress(192.0.2.1)"), "192.0.2.1");
        assert_eq!(bare("whatever"), "whatever");
    }

    #[test]
    fn an_expired_certificate_is_not_one_for_another_name() {
        let seen = certificate(&CertificateError::Expired);
        assert!(matches!(seen, Observed::Untrusted { .. }), "{seen}");
    }

    #[test]
    fn an_end_within_the_handshake_is_told_as_one() {
        let end = |kind: io::ErrorKind| failed(&kind.into(), b"");
        assert_eq!(end(io::ErrorKind::UnexpectedEof), Observed::HandshakeCut { reset: false });
        let reset = rustix::io::Errno::CONNRESET.into();
        assert_eq!(failed(&reset, b""), Observed::HandshakeCut { reset: true });
    }
}
