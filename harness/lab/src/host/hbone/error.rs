//! Why a proxy of the mesh does not start.

use std::io;
use std::net::SocketAddr;

use super::tls::TlsError;
use crate::host::netns::NetnsError;
use crate::host::pump::PumpError;
use crate::host::runtime_thread::RuntimeThreadError;
use crate::mesh::TrustError;

/// Why there is no ztunnel or no waypoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// There is no certificate for its identity.
    #[error(transparent)]
    Certificate(#[from] TrustError),
    /// It cannot speak TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its network namespace cannot be made or entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// It could not be plugged into the switch.
    #[error(transparent)]
    Attach(#[from] PumpError),
    /// Its thread could not be started.
    #[error(transparent)]
    Thread(#[from] RuntimeThreadError),
    /// A socket could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
}
