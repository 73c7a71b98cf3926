//! The TCP and UDP echo, and the TCP one inside of TLS.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::ServeError;
use super::listen::accept;
use crate::words::{self, MAX_WORDS};

/// Answers every line of every connection, until something else is said there.
pub(super) async fn over_tcp(
    listener: TcpListener,
    port: u16,
    peer: Arc<str>,
    tls: Option<TlsAcceptor>,
) -> ServeError {
    loop {
        let stream = match accept(&listener, port).await {
            Ok(stream) => stream,
            Err(error) => return error,
        };
        let (peer, tls) = (Arc::clone(&peer), tls.clone());
        // However a conversation breaks, its client knows; there is nobody to tell here.
        tokio::spawn(async move {
            match tls {
                None => converse(stream, &peer).await.ok(),
                Some(tls) => converse(tls.accept(stream).await.ok()?, &peer).await.ok(),
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, peer: &str) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(MAX_WORDS, stream);
    let mut line = Vec::with_capacity(MAX_WORDS);
    loop {
        line.clear();
        (&mut stream).take(MAX_WORDS as u64).read_until(b'\n', &mut line).await?;
        let Some(answer) = words::answer(&line, peer) else { return Ok(()) };
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

/// Answers every datagram that is a question, and no other.
pub(super) async fn over_udp(socket: UdpSocket, port: u16, peer: Arc<str>) -> ServeError {
    let mut datagram = [0; MAX_WORDS];
    loop {
        let (length, client) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            Err(source) => return ServeError::Receive { port, source },
        };
        if let Some(answer) = datagram.get(..length).and_then(|words| words::answer(words, &peer)) {
            // An answer that cannot be sent is lost, as a datagram may be.
            socket.send_to(answer.as_bytes(), client).await.ok();
        }
    }
}
