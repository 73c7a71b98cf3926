//! From the words of a case to what an agent can send.

use std::net::{IpAddr, SocketAddr};

use ztc_model::stimulus::{Peer, Send, Target};
use ztc_wire::{Host, Stimulus};

use crate::fabric::AddressBook;

const DNS_PORT: u16 = 53;

/// The stimulus that an agent can send; nothing for a readiness probe, which is kubelet's.
///
/// # Errors
/// Whose address is not known.
pub(crate) fn stimulus(send: &Send, book: &AddressBook) -> Result<Option<Stimulus>, String> {
    Ok(Some(match send {
        Send::Tcp(to) => Stimulus::Tcp { to: target(to, book)? },
        Send::Udp(to) => Stimulus::Udp { to: target(to, book)? },
        Send::UdpFlow(to) => Stimulus::UdpFlow { to: target(to, book)? },
        Send::Http { method, to, path } => Stimulus::Http {
            method: method.clone(),
            to: target(to, book)?,
            path: path.clone(),
            headers: std::collections::BTreeMap::new(),
        },
        Send::Dns { name, ipv6, tcp, server } => Stimulus::Dns {
            name: name.clone(),
            record: Send::record(*ipv6),
            transport: Send::transport(*tcp),
            server: match server {
                None => None,
                Some(Peer::Name(name)) => {
                    return Err(format!("`{name}` is a name, and a resolver needs an address"));
                }
                Some(peer) => Some(SocketAddr::new(address(peer, book)?, DNS_PORT)),
            },
        },
        Send::Readiness(_) => return Ok(None),
    }))
}

fn target(to: &Target, book: &AddressBook) -> Result<ztc_wire::Target, String> {
    let host = match &to.peer {
        Peer::Name(name) => Host::Name(name.clone()),
        peer => Host::Ip(address(peer, book)?),
    };
    Ok(ztc_wire::Target { host, port: to.port })
}

fn address(peer: &Peer, book: &AddressBook) -> Result<IpAddr, String> {
    let found = match peer {
        Peer::Address(address) => Some(address),
        Peer::Pod(pod) => book.pods.get(pod),
        Peer::Outside(host) => book.outside.get(host),
        Peer::Name(_) => None,
    };
    found.copied().ok_or_else(|| format!("the fabric knows no address of {peer}"))
}
