//! Carries bytes between two streams until both are done, whatever they are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split};

use super::Ended;

/// How much is read at once, in bytes.
const PIECE: usize = 16 * 1024;

/// The stream of a tunnel.
pub(super) struct Tunnelled {
    sends: SendStream<Bytes>,
    receives: RecvStream,
    /// What was received and not read yet.
    unread: Bytes,
    /// Counts it among those that its tunnel carries, where somebody counts.
    _load: Option<Arc<()>>,
}

impl Tunnelled {
    pub(super) fn new(
        sends: SendStream<Bytes>,
        receives: RecvStream,
        load: Option<Arc<()>>,
    ) -> Self {
        Self { sends, receives, unread: Bytes::new(), _load: load }
    }
}

impl AsyncRead for Tunnelled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receives.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(piece)) => self.unread = piece,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let length = self.unread.len().min(into.remaining());
        into.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        let released = self.receives.flow_control().release_capacity(length);
        Poll::Ready(released.map_err(broken))
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sends.reserve_capacity(from.len());
        match ready!(self.sends.poll_capacity(context)) {
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(Err(error)) => Poll::Ready(Err(broken(error))),
            Some(Ok(capacity)) => {
                let length = capacity.min(from.len());
                let piece = Bytes::copy_from_slice(&from[..length]);
                Poll::Ready(self.sends.send_data(piece, false).map(|()| length).map_err(broken))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sends.send_data(Bytes::new(), true).map_err(broken))
    }
}

/// What went wrong with a tunnel, as it would have gone wrong with a socket.
fn broken(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL) => io::ErrorKind::ConnectionReset.into(),
        _ if error.is_io() => match error.into_io() {
            Some(error) => error,
            None => io::ErrorKind::BrokenPipe.into(),
        },
        _ => io::Error::other(error),
    }
}

/// Carries bytes from the client to the server and back. Either side may stop sending while the other goes on; one
/// that breaks off ends both, and is no error (`ignore_io_errors` in `src/copy.rs` of ztunnel).
pub(super) async fn carry<C, S>(client: C, server: S) -> Ended
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let (mut sent, mut received) = (0, 0);
    let there = pass_on(&mut from_client, &mut to_server, &mut sent);
    let back = pass_on(&mut from_server, &mut to_client, &mut received);
    let carried = tokio::try_join!(there, back);
    let error = match carried {
        Ok(_) => None,
        Err(error) if is_usual(&error) => None,
        Err(error) => Some(format!("io error: {error}")),
    };
    Ended { sent, received, error }
}

async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &mut u64,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece).await? {
            0 => return to.shutdown().await,
            length => {
                to.write_all(&piece[..length]).await?;
                *count += length as u64;
            }
        }
    }
}

fn is_usual(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
}
