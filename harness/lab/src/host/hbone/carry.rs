//! Carries bytes between two streams until both are done, whatever they are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, split};

/// How much is read at once, in bytes.
const PIECE: usize = 16 * 1024;

/// The stream of a tunnel.
pub(in crate::host) struct Tunnelled {
    sends: SendStream<Bytes>,
    receives: RecvStream,
    /// What was received and not read yet.
    unread: Bytes,
    /// Counts it among those that its tunnel carries, where somebody counts.
    _load: Option<Arc<()>>,
}

impl Tunnelled {
    pub(in crate::host) fn new(
        sends: SendStream<Bytes>,
        receives: RecvStream,
        load: Option<Arc<()>>,
    ) -> Self {
        Self { sends, receives, unread: Bytes::new(), _load: load }
    }

    /// What comes first, when it comes. Whoever reads reads it again; nothing where nothing comes.
    pub(in crate::host) async fn first(&mut self) -> &[u8] {
        if self.unread.is_empty()
            && let Some(Ok(piece)) = self.receives.data().await
        {
            self.unread = piece;
        }
        &self.unread
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

/// What a connection came to.
#[derive(Debug, Default)]
pub(in crate::host) struct Ended {
    /// Bytes from the client.
    pub(in crate::host) sent: u64,
    /// Bytes to the client.
    pub(in crate::host) received: u64,
    /// Why it came to no good end.
    pub(in crate::host) error: Option<String>,
}

impl Ended {
    /// By an error, before anything was carried.
    pub(in crate::host) fn by(error: &impl ToString) -> Self {
        Self { error: Some(error.to_string()), ..Self::default() }
    }
}

/// What went wrong with a tunnel, as it would have gone wrong with a socket.
fn broken(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL) => io::ErrorKind::ConnectionReset.into(),
        // There is none where the error is one's own: what was sent came after the end.
        None if !error.is_io() => io::ErrorKind::BrokenPipe.into(),
        _ if error.is_io() => match error.into_io() {
            Some(error) => error,
            None => io::ErrorKind::BrokenPipe.into(),
        },
        _ => io::Error::other(error),
    }
}

/// Carries bytes from the client to the server and back. Either side may stop sending while the other goes on; one
/// that breaks off ends both, and is no error (`ignore_io_errors` in `src/copy.rs` of ztunnel).
pub(in crate::host) async fn carry<C, S>(client: C, server: S) -> Ended
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
    Ended { sent, received, error: carried.err().and_then(|it| unusual(&it)) }
}

/// The same, but that what the client sends first is let pass by `admit`, or the connection is over. What the server sends is
/// carried meanwhile.
pub(in crate::host) async fn carry_once_admitted<C, S>(
    client: C,
    server: S,
    admit: impl FnOnce() -> bool,
) -> (Ended, Admitted)
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let (mut sent, mut received) = (0, 0);
    let mut admitted = Admitted::NotAsked;
    let there = async {
        let mut first = vec![0; PIECE];
        let length = from_client.read(&mut first).await?;
        sent = length as u64;
        if length == 0 {
            return to_server.shutdown().await;
        }
        if !admit() {
            admitted = Admitted::No;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        admitted = Admitted::Yes;
        to_server.write_all(&first[..length]).await?;
        pass_on(&mut from_client, &mut to_server, &mut sent).await
    };
    let back = pass_on(&mut from_server, &mut to_client, &mut received);
    let carried = tokio::try_join!(there, back);
    if admitted == Admitted::No {
        // The client sees an end, and none that is broken off.
        to_client.shutdown().await.ok();
    }
    (Ended { sent, received, error: carried.err().and_then(|it| unusual(&it)) }, admitted)
}

/// Whether what a client sent first was let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) enum Admitted {
    /// It sent nothing.
    NotAsked,
    /// It was.
    Yes,
    /// It was not.
    No,
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

/// The words of an error, where it is none of those with which connections end.
fn unusual(error: &io::Error) -> Option<String> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    let is_usual =
        matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof);
    (!is_usual).then(|| format!("io error: {error}"))
}
