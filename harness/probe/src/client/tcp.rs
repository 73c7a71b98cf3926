//! The TCP client: a line with a nonce out, the line that answers it in.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use ztc_wire::{Leg, Observed, Phase};

use super::failure::from_network;
use super::socket;
use crate::run::Run;
use crate::words::{self, Heard, MAX_WORDS};

/// Connects, asks, and listens until the answer is whole or cannot become ours any more.
pub(super) async fn exchange(run: &Run, remote: SocketAddr) -> Result<Observed, Observed> {
    run.wait_for(Phase::Connect);
    let stream = socket::connect(run, Leg::Send, remote).await?;
    run.wait_for(Phase::Reply);
    converse(run, stream, remote).await
}

/// The same on a stream that is there already.
pub(super) async fn converse(
    run: &Run,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    remote: SocketAddr,
) -> Result<Observed, Observed> {
    let failed = |operation| move |error: io::Error| from_network(operation, Phase::Reply, &error);

    let nonce = run.nonce();
    stream.write_all(words::question(&nonce).as_bytes()).await.map_err(failed("send"))?;
    stream.flush().await.map_err(failed("send"))?;
    let mut heard = Vec::with_capacity(MAX_WORDS);
    loop {
        if stream.read_buf(&mut heard).await.map_err(failed("receive"))? == 0 {
            return Ok(Observed::Closed { reset: false });
        }
        match words::hear(&nonce, &heard) {
            Heard::Part => {}
            Heard::Peer(peer) => return Ok(Observed::Reply { peer, remote }),
            Heard::Garbled => return Ok(Observed::Garbled { got: words::excerpt(&heard) }),
        }
    }
}
