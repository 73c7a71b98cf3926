//! From a stimulus to the client that sends it.

use ztc_wire::{Observed, Stimulus};

use super::{dns, flow, hbone, http, ping, resolve, stream, tcp, tls, udp};
use crate::run::Run;

/// Sends a stimulus and returns what was seen. Dropping the future closes its socket.
pub(crate) async fn send(run: &Run, stimulus: &Stimulus) -> Observed {
    exchange(run, stimulus).await.unwrap_or_else(|observed| observed)
}

async fn exchange(run: &Run, stimulus: &Stimulus) -> Result<Observed, Observed> {
    match stimulus {
        Stimulus::Tcp { to } => tcp::exchange(run, resolve::target(run, to).await?).await,
        Stimulus::Udp { to } => udp::exchange(run, resolve::target(run, to).await?).await,
        Stimulus::Ping { to } => ping::exchange(run, *to).await,
        Stimulus::UdpFlow { to } => flow::exchange(run, resolve::target(run, to).await?).await,
        Stimulus::TcpFlow { to } => stream::exchange(run, resolve::target(run, to).await?).await,
        Stimulus::Tls { to } => tls::exchange(run, to, resolve::target(run, to).await?).await,
        Stimulus::Hbone { at, authority, papers } => {
            hbone::exchange(run, *at, *authority, papers.as_ref()).await
        }
        Stimulus::Http { tls, method, to, path, headers } => {
            let request = http::request(*tls, method, to, path, headers, &run.nonce())?;
            let remote = resolve::target(run, to).await?;
            if *tls {
                http::exchange(run, tls::connect(run, to, remote).await?, remote, request).await
            } else {
                http::exchange(run, http::connect(run, remote).await?, remote, request).await
            }
        }
        Stimulus::Dns { name, record, transport, server } => {
            let server = server.map_or_else(|| resolve::server(run), Ok)?;
            dns::exchange(run, server, *transport, name, *record).await
        }
    }
}
