//! From a list of services to tasks that answer.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use ztc_wire::Service;

use super::{dns, echo, http, listen};

/// Why a service cannot start, or ends.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A port cannot be had.
    #[error("bind {protocol} port {port}")]
    Bind {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port.
        port: u16,
        /// The operating system's words.
        source: io::Error,
    },
    /// A listening socket fails for good.
    #[error("accept connections on TCP port {port}")]
    Accept {
        /// The port.
        port: u16,
        /// The operating system's words.
        source: io::Error,
    },
    /// A UDP socket fails for good.
    #[error("receive datagrams on UDP port {port}")]
    Receive {
        /// The port.
        port: u16,
        /// The operating system's words.
        source: io::Error,
    },
    /// The agent's name cannot be said in a header.
    #[error("say the name {name:?} over HTTP")]
    HeaderName {
        /// The name.
        name: String,
        /// Why not.
        source: hyper::header::InvalidHeaderValue,
    },
    /// The agent's name cannot be said in an EDNS option.
    #[error("say the name {name:?} over DNS")]
    OptionName {
        /// The name.
        name: String,
        /// Why not.
        source: hickory_proto::ProtoError,
    },
    /// A service over TLS has no certificate to show.
    #[error("serve TLS on port {port}: there is no certificate")]
    NoCertificate {
        /// The port.
        port: u16,
    },
    /// A record's name is no DNS name.
    #[error("serve the record {name:?}")]
    Record {
        /// The name.
        name: String,
        /// Why not.
        source: hickory_proto::ProtoError,
    },
    /// The DNS server ended.
    #[error("answer DNS on port {port}")]
    Dns {
        /// The port.
        port: u16,
        /// Why, if it said so.
        source: Option<hickory_server::net::NetError>,
    },
}

/// The services of an agent. Dropping them ends them.
#[derive(Debug)]
pub(crate) struct Services {
    tasks: JoinSet<ServeError>,
}

impl Services {
    /// Waits for a service that cannot go on; for ever when there is none.
    pub(crate) async fn ended(&mut self) -> ServeError {
        match self.tasks.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            None => std::future::pending().await,
        }
    }
}

/// Binds all services, as the peer of this name, and starts to answer, over TLS where they want it. On
/// return all of them are listening.
pub(crate) fn start(
    peer: &str,
    services: &[Service],
    tls: Option<&Arc<ServerConfig>>,
) -> Result<Services, ServeError> {
    let acceptor = |port: u16| match tls {
        Some(config) => Ok(Some(TlsAcceptor::from(Arc::clone(config)))),
        None => Err(ServeError::NoCertificate { port }),
    };
    let mut tasks = JoinSet::new();
    for service in services {
        match service {
            Service::Tcp { port } | Service::Tls { port } => {
                let is_tls = matches!(service, Service::Tls { .. });
                let tls = if is_tls { acceptor(*port)? } else { None };
                for listener in listen::tcp(*port)? {
                    tasks.spawn(echo::over_tcp(listener, *port, peer.into(), tls.clone()));
                }
            }
            Service::Udp { port } => {
                for socket in listen::udp(*port)? {
                    tasks.spawn(echo::over_udp(socket, *port, peer.into()));
                }
            }
            Service::Http { port } | Service::Https { port } => {
                let is_tls = matches!(service, Service::Https { .. });
                let tls = if is_tls { acceptor(*port)? } else { None };
                let echo = http::Echo::new(peer, tls)?;
                for listener in listen::tcp(*port)? {
                    tasks.spawn(echo.clone().serve(listener, *port));
                }
            }
            Service::Dns { port, zone } => {
                let server = dns::Server::bind(peer, *port, zone)?;
                tasks.spawn(server.serve());
            }
        }
    }
    Ok(Services { tasks })
}
