//! Tunnels of the mesh (HBONE): HTTP/2 CONNECT over mutual TLS 1.3, both ends.
//!
//! ztunnels and waypoints open and accept them alike. Who may be in one, and where it leads, is not for this room to
//! know.

mod accept;
mod carry;
mod error;
mod pool;
#[cfg(test)]
mod tests;
mod tls;

pub(super) use accept::{Carrier, NotAccepted, Tunnel, accept, answer, listen};
pub(super) use carry::{Admitted, Ended, Tunnelled, carry, carry_once_admitted};
pub(crate) use error::ProxyError;
pub(super) use pool::{Pool, TunnelError};
pub(super) use tls::Tls;
