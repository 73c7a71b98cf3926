//! The UDP client: a datagram with a nonce out, the datagram that answers it in.

use std::net::SocketAddr;

use ztc_wire::{Leg, Observed, Phase};

use super::socket;
use crate::run::Run;
use crate::words::{self, Heard};

/// Asks and judges the first datagram that comes back.
pub(super) async fn exchange(run: &Run, remote: SocketAddr) -> Result<Observed, Observed> {
    run.wait_for(Phase::Reply);
    let nonce = run.nonce();
    let question = words::question(&nonce);
    let answer = socket::exchange_datagrams(run, Leg::Send, remote, question.as_bytes()).await?;
    Ok(match words::hear(&nonce, &answer) {
        Heard::Peer(peer) => Observed::Reply { peer, remote },
        // A datagram does not go on in the next one.
        Heard::Part | Heard::Garbled => Observed::Garbled { got: words::excerpt(&answer) },
    })
}
