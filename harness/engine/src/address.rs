//! From the words of a case to what an agent can send.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ztc_model::policy::mesh::SpiffeId;
use ztc_model::stimulus::{Bearer, Hbone, Peer, Send, Target};
use ztc_model::suite::{Cell, Origin};
use ztc_model::world::{Called, PodRef, Token, World};
use ztc_model::ztunnel::HBONE_PORT;
use ztc_wire::{Family, Host, Papers, Stimulus};

use crate::board::{Asked, Pair};
use crate::chain;
use crate::fabric::AddressBook;
use crate::mesh_authority::MeshAuthority;

const DNS_PORT: u16 = 53;

/// What stimuli carry.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Baggage<'a> {
    /// The tokens of the world.
    pub(crate) tokens: &'a [Token],
    /// Who issues certificates of the mesh, and the world that has their pods, where something is sent in tunnels.
    pub(crate) mesh: Option<(&'a MeshAuthority, &'a World)>,
}

/// The stimulus that an agent can send; nothing for a readiness probe, which is kubelet's.
///
/// # Errors
/// Whose address, or which token, is not known, or what certificate cannot be made.
pub(crate) fn stimulus(
    send: &Send,
    book: &AddressBook,
    baggage: Baggage<'_>,
) -> Result<Option<Stimulus>, String> {
    Ok(Some(match send {
        Send::Tcp(to) => Stimulus::Tcp { to: target(to, book)? },
        Send::Udp(to) => Stimulus::Udp { to: target(to, book)? },
        Send::Ping(to) => Stimulus::Ping { to: address(&to.peer, to.family, book)? },
        Send::UdpFlow(to) => Stimulus::UdpFlow { to: target(to, book)? },
        Send::TcpFlow(to) => Stimulus::TcpFlow { to: target(to, book)? },
        Send::Tls(to) => Stimulus::Tls { to: target(to, book)? },
        Send::Http { tls, method, to, path, token } => Stimulus::Http {
            tls: *tls,
            method: method.clone(),
            to: target(to, book)?,
            path: path.clone(),
            headers: headers(token.as_deref(), baggage.tokens)?,
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
                Some(peer) => Some(SocketAddr::new(address(peer, None, book)?, DNS_PORT)),
            },
        },
        Send::Hbone(tunnel) => {
            let through = Peer::Pod(tunnel.through.clone());
            Stimulus::Hbone {
                at: SocketAddr::new(address(&through, None, book)?, HBONE_PORT),
                authority: SocketAddr::new(address(&tunnel.to.peer, None, book)?, tunnel.to.port),
                papers: papers(tunnel, baggage)?,
            }
        }
        Send::Readiness(_) => return Ok(None),
    }))
}

/// What the client of a tunnel believes and shows; nothing where it speaks in clear.
fn papers(tunnel: &Hbone, baggage: Baggage<'_>) -> Result<Option<Papers>, String> {
    if tunnel.speaks == Bearer::InClear {
        return Ok(None);
    }
    let (authority, world) = baggage.mesh.ok_or("nobody issues certificates of the mesh here")?;
    let identity = |pod: &PodRef| {
        let pod = world.pod(pod).ok_or_else(|| format!("the world has no pod {pod}"))?;
        Ok::<_, String>(SpiffeId::of(&pod.namespace, &pod.service_account))
    };
    let shows = match &tunnel.speaks {
        Bearer::Pod { pod, flaw } => Some(authority.issue(&identity(pod)?, *flaw)),
        Bearer::Nobody | Bearer::InClear => None,
    };
    Ok(Some(Papers {
        authority: authority.certificate().clone(),
        peer: identity(&tunnel.through)?.to_string(),
        shows: shows.transpose().map_err(|error| chain(&error))?,
    }))
}

/// The headers of a request that carries a token, or none.
fn headers(name: Option<&str>, tokens: &[Token]) -> Result<BTreeMap<String, String>, String> {
    let Some(name) = name else { return Ok(BTreeMap::new()) };
    let token = tokens.iter().find(|it| it.name == name);
    let token = token.ok_or_else(|| format!("the world has no token `{name}`"))?;
    Ok(BTreeMap::from([("authorization".to_owned(), format!("Bearer {}", token.text))]))
}

/// Between whom a cell's connections go, where they are TCP, and what name somebody else may ask for on its behalf.
pub(crate) fn pair(cell: &Cell, world: &World, book: &AddressBook) -> Option<Pair> {
    let Origin::Pod(from) = &cell.from else { return None };
    let is_meshed = world.pod(from).is_some_and(|it| world.is_ambient(it));
    let to = match &cell.send {
        Send::Tcp(to) | Send::TcpFlow(to) | Send::Tls(to) | Send::Http { to, .. } => to,
        Send::Dns { name, .. } if is_meshed => {
            return Some(Pair {
                client: *book.pods.get(from)?,
                servers: BTreeSet::new(),
                outside: BTreeSet::new(),
                ports: BTreeSet::new(),
                asked: Asked::Connection { port: DNS_PORT, to_server: true },
                name: Some(name.clone()),
            });
        }
        _ => return None,
    };
    let is_peer = |pod: &PodRef| cell.peers.contains(&pod.to_string());
    let servers: BTreeSet<IpAddr> =
        book.pods.iter().filter(|(pod, _)| is_peer(pod)).map(|(_, address)| *address).collect();
    Some(Pair {
        client: *book.pods.get(from)?,
        servers,
        // Whose connections a ztunnel takes over.
        outside: if is_meshed {
            outside(cell, book).map(|(_, address)| address).collect()
        } else {
            BTreeSet::new()
        },
        ports: ports(to, world),
        asked: match &cell.send {
            // What is inside of TLS no waypoint sees.
            Send::Http { tls: false, method, path, .. } => Asked::Request {
                method: method.clone(),
                host: match &to.peer {
                    Peer::Name(name) => name.clone(),
                    peer => address(peer, to.family, book).ok()?.to_string(),
                },
                path: path.clone(),
            },
            _ => Asked::Connection { port: to.port, to_server: !matches!(to.peer, Peer::Name(_)) },
        },
        name: match &to.peer {
            Peer::Name(name) if is_meshed => Some(name.clone()),
            _ => None,
        },
    })
}

/// The addresses of who may answer a cell's stimulus, of both families; none where the fabric does not know where everybody
/// is who may.
pub(crate) fn served_at(cell: &Cell, book: &AddressBook) -> BTreeSet<IpAddr> {
    let pods = book.pods.iter().chain(&book.second_of_pods);
    let pods = pods.map(|(pod, address)| (pod.to_string(), *address));
    let serving = pods.filter(|(name, _)| cell.peers.contains(name)).chain(outside(cell, book));
    let (names, addresses): (BTreeSet<String>, BTreeSet<IpAddr>) = serving.unzip();
    if names.len() == cell.peers.len() { addresses } else { BTreeSet::new() }
}

/// The hosts outside that may answer a cell's stimulus, by what they call themselves, with their addresses.
fn outside(cell: &Cell, book: &AddressBook) -> impl Iterator<Item = (String, IpAddr)> {
    let hosts = book.outside.iter().chain(&book.second_of_outside);
    let hosts = hosts.map(|(host, address)| (Peer::Outside(host.clone()).to_string(), *address));
    hosts.filter(|(name, _)| cell.peers.contains(name))
}

/// The ports that may be seen of a connection: of a service its own, and that of the pods behind it.
fn ports(to: &Target, world: &World) -> BTreeSet<u16> {
    let service = match &to.peer {
        Peer::Name(name) => world.called(name),
        _ => None,
    };
    let behind = match service {
        Some(Called::Service(service)) => {
            let port = service.ports.iter().find(|it| it.port == to.port);
            port.and_then(|it| it.target_port)
        }
        _ => None,
    };
    std::iter::once(to.port).chain(behind).collect()
}

fn target(to: &Target, book: &AddressBook) -> Result<ztc_wire::Target, String> {
    let (host, family) = match &to.peer {
        Peer::Name(name) => (Host::Name(name.clone()), to.family),
        peer => (Host::Ip(address(peer, to.family, book)?), None),
    };
    Ok(ztc_wire::Target { host, port: to.port, family })
}

/// The address of a peer, of a family where one is asked for, else the first.
fn address(peer: &Peer, family: Option<Family>, book: &AddressBook) -> Result<IpAddr, String> {
    let known = match peer {
        Peer::Address(address) => [Some(address), None],
        Peer::Pod(pod) => [book.pods.get(pod), book.second_of_pods.get(pod)],
        Peer::Outside(host) => [book.outside.get(host), book.second_of_outside.get(host)],
        Peer::Name(_) => [None, None],
    };
    let wanted = |it: &&IpAddr| family.is_none_or(|family| Family::of(**it) == family);
    known.into_iter().flatten().find(wanted).copied().ok_or_else(|| match family {
        Some(family) => format!("the fabric knows no {family} address of {peer}"),
        None => format!("the fabric knows no address of {peer}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> Result<Option<Stimulus>, String> {
        let pod: PodRef = "zt-pay/ledger".parse().unwrap();
        let first = IpAddr::from([10, 244, 0, 7]);
        let second: IpAddr = "fd00:10:244::7".parse().unwrap();
        let book = AddressBook {
            pods: [(pod.clone(), first)].into(),
            second_of_pods: [(pod, second)].into(),
            outside: [("api".to_owned(), first)].into(),
            ..AddressBook::default()
        };
        let token = Token {
            name: "teller".to_owned(),
            about: "the teller's".to_owned(),
            text: "a.b.c".to_owned(),
        };
        stimulus(&text.parse().unwrap(), &book, Baggage { tokens: &[token], mesh: None })
    }

    #[test]
    fn a_family_chooses_among_the_addresses_of_a_peer() {
        for (text, to) in [
            ("ping zt-pay/ledger", "10.244.0.7"),
            ("ping zt-pay/ledger over ipv4", "10.244.0.7"),
            ("ping zt-pay/ledger over ipv6", "fd00:10:244::7"),
        ] {
            assert_eq!(sent(text), Ok(Some(Stimulus::Ping { to: to.parse().unwrap() })), "{text}");
        }
    }

    #[test]
    fn a_token_is_sent_after_bearer() {
        let sent = sent("GET http://ledger.zt-pay/ with token teller");
        let Ok(Some(Stimulus::Http { headers, .. })) = sent else { panic!("{sent:?}") };
        assert_eq!(headers["authorization"], "Bearer a.b.c");
        let unknown = self::sent("GET http://ledger.zt-pay/ with token clerk");
        assert_eq!(unknown, Err("the world has no token `clerk`".to_owned()));
    }

    #[test]
    fn a_peer_without_an_address_of_the_family_is_told() {
        assert_eq!(
            sent("ping outside/api over ipv6"),
            Err("the fabric knows no ipv6 address of outside/api".to_owned())
        );
    }
}
