//! The words after `send:` in a case.
//!
//! ```text
//! tcp  zt-pay/ledger:8080              to a pod's own address
//! udp  outside/api:9000                to an outside host
//! ping zt-pay/ledger                   an ICMP echo request
//! tcp  zt-pay/ledger:8080 over ipv6    the same to the address of one family
//! udp/flow zt-pay/ledger:9001          the same, all from one port
//! tcp/flow zt-pay/ledger:9000          the same over TCP, all in one connection
//! tls  api.zt.test:9443                the same inside of TLS, with the certificate of that name
//! GET  http://ledger.zt-pay:8080/path  to a name or an address
//! GET  https://api.zt.test/            the same inside of TLS
//! GET  http://ledger.zt-pay/path with token teller   the same with a token of the world
//! dns      A api.zt.test               to the pod's own resolver
//! dns/tcp  A api.zt.test @outside/dns  to another one, over TCP
//! readiness zt-mesh/web                kubelet's probe (from: kubelet)
//! hbone zt-pay/ledger:9000 as zt-pay/web   in a tunnel of the mesh, with the certificate that is the web's
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;
use ztc_wire::{DnsTransport, Family, RecordType};

use crate::world::PodRef;

mod hbone;

pub use hbone::{Bearer, Flaw, Hbone};

/// The namespace-like word that stands for the hosts outside the nodes.
pub const OUTSIDE: &str = "outside";

/// One thing to send, as a case says it: in the words of the world, not in addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Send {
    /// A TCP connection with a nonce.
    Tcp(Target),
    /// A datagram with a nonce.
    Udp(Target),
    /// An ICMP echo request with a nonce.
    Ping(Echo),
    /// The same in a flow that goes on: every time from the same port.
    UdpFlow(Target),
    /// A nonce in a TCP connection that goes on: every time in the same one, while it stands.
    TcpFlow(Target),
    /// A TLS connection with a nonce.
    Tls(Target),
    /// An HTTP request.
    Http {
        /// Whether inside of TLS.
        tls: bool,
        /// The method.
        method: String,
        /// Host and port.
        to: Target,
        /// Path and query.
        path: String,
        /// The name of the token that it carries, if it carries one.
        token: Option<String>,
    },
    /// A connection with a nonce in a tunnel of the mesh.
    Hbone(Hbone),
    /// A DNS query.
    Dns {
        /// The name, fully qualified.
        name: String,
        /// The record type, `A` or `AAAA`.
        ipv6: bool,
        /// Over TCP rather than UDP.
        tcp: bool,
        /// The server, or the pod's own resolver.
        server: Option<Peer>,
    },
    /// Kubelet's readiness probe of a pod.
    Readiness(PodRef),
}

/// A peer and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Who.
    pub peer: Peer,
    /// The port.
    pub port: u16,
    /// Over which family of addresses, where the case says so.
    pub family: Option<Family>,
}

/// A peer that an echo request goes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Echo {
    /// Who.
    pub peer: Peer,
    /// Over which family of addresses, where the case says so.
    pub family: Option<Family>,
}

/// Somebody to send to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// A pod, by its own address.
    Pod(PodRef),
    /// An outside host, by its address.
    Outside(String),
    /// A name, resolved by the client.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Why a text is no stimulus.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The first word is none of ours.
    #[error(
        "`{word}` is no stimulus; there are tcp, tcp/flow, tls, udp, udp/flow, ping, dns, dns/tcp, hbone, readiness, METHOD \
         http://… and https://…"
    )]
    Verb {
        /// The word.
        word: String,
    },
    /// The words after the verb are not what the verb takes.
    #[error("`{verb}` is written `{form}`")]
    Shape {
        /// The verb.
        verb: &'static str,
        /// How it is written.
        form: &'static str,
    },
    /// A port is missing or no port.
    #[error("`{text}` has no port between 1 and 65535")]
    Port {
        /// The target.
        text: String,
    },
    /// The words after `over` are no family, or say what is said already.
    #[error(
        "`{text}` is not sent over a family; `over ipv4` and `over ipv6` choose the address of a pod, an \
         outside host or a name"
    )]
    Family {
        /// The stimulus.
        text: String,
    },
    /// The words after a URL are not `with token`, or what follows them is no name.
    #[error("`{text}` carries no token; a request does `with token NAME`")]
    Token {
        /// The words.
        text: String,
    },
    /// A host is neither a pod, an outside host, a name nor an address.
    #[error("`{text}` is no peer; write namespace/pod, outside/NAME, a name or an address")]
    Peer {
        /// The text.
        text: String,
    },
}

impl Send {
    /// The record type of a DNS query, on the wire.
    pub const fn record(ipv6: bool) -> RecordType {
        if ipv6 { RecordType::Aaaa } else { RecordType::A }
    }

    /// The transport of a DNS query, on the wire.
    pub const fn transport(tcp: bool) -> DnsTransport {
        if tcp { DnsTransport::Tcp } else { DnsTransport::Udp }
    }

    /// Whom it is sent to, where the case names somebody.
    pub fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Tcp(to)
            | Self::Udp(to)
            | Self::UdpFlow(to)
            | Self::TcpFlow(to)
            | Self::Tls(to)
            | Self::Http { to, .. } => Some(&to.peer),
            Self::Ping(to) => Some(&to.peer),
            Self::Hbone(tunnel) => Some(&tunnel.to.peer),
            Self::Dns { server, .. } => server.as_ref(),
            Self::Readiness(_) => None,
        }
    }
}

impl Send {
    /// Over which family it is sent, where the case says so.
    pub const fn family(&self) -> Option<Family> {
        match self {
            Self::Tcp(to)
            | Self::Udp(to)
            | Self::UdpFlow(to)
            | Self::TcpFlow(to)
            | Self::Tls(to)
            | Self::Http { to, .. } => to.family,
            Self::Ping(to) => to.family,
            Self::Hbone(_) | Self::Dns { .. } | Self::Readiness(_) => None,
        }
    }

    /// The same over one family. An address has one already, and what asks a resolver or a kubelet
    /// leaves it to them.
    fn over(mut self, family: Family) -> Option<Self> {
        let (peer, of) = match &mut self {
            Self::Tcp(to)
            | Self::Udp(to)
            | Self::UdpFlow(to)
            | Self::TcpFlow(to)
            | Self::Tls(to)
            | Self::Http { to, .. } => (&to.peer, &mut to.family),
            Self::Ping(to) => (&to.peer, &mut to.family),
            Self::Hbone(_) | Self::Dns { .. } | Self::Readiness(_) => return None,
        };
        if matches!(peer, Peer::Address(_)) {
            return None;
        }
        *of = Some(family);
        Some(self)
    }
}

impl FromStr for Send {
    type Err = SendError;

    fn from_str(text: &str) -> Result<Self, SendError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if let [rest @ .., "over", family] = words.as_slice() {
            let family = match *family {
                "ipv4" => Some(Family::Ipv4),
                "ipv6" => Some(Family::Ipv6),
                _ => None,
            };
            let send: Self = rest.join(" ").parse()?;
            let over = family.and_then(|family| send.over(family));
            return over.ok_or_else(|| SendError::Family { text: text.to_owned() });
        }
        match words.as_slice() {
            ["tcp", target] => target.parse().map(Self::Tcp),
            ["udp", target] => target.parse().map(Self::Udp),
            ["ping", peer] => parse_ping(peer),
            ["tls", target] => target.parse().map(Self::Tls),
            ["udp/flow", target] => target.parse().map(Self::UdpFlow),
            ["tcp/flow", target] => target.parse().map(Self::TcpFlow),
            ["hbone", words @ ..] => hbone::parse(words),
            ["readiness", pod] => pod.parse().map(Self::Readiness).map_err(|_not_a_pod| {
                SendError::Shape { verb: "readiness", form: "readiness NAMESPACE/POD" }
            }),
            [verb @ ("dns" | "dns/tcp"), record, name, rest @ ..] => {
                parse_dns(*verb == "dns/tcp", record, name, rest)
            }
            [method, url, with @ ..] if method.chars().all(|it| it.is_ascii_uppercase()) => {
                parse_http(method, url, parse_token(with)?)
            }
            ["tcp", ..] => Err(SendError::Shape { verb: "tcp", form: "tcp PEER:PORT" }),
            ["udp", ..] => Err(SendError::Shape { verb: "udp", form: "udp PEER:PORT" }),
            ["tls", ..] => Err(SendError::Shape { verb: "tls", form: "tls PEER:PORT" }),
            ["ping", ..] => Err(PING_SHAPE),
            ["tcp/flow", ..] => {
                Err(SendError::Shape { verb: "tcp/flow", form: "tcp/flow PEER:PORT" })
            }
            ["udp/flow", ..] => {
                Err(SendError::Shape { verb: "udp/flow", form: "udp/flow PEER:PORT" })
            }
            ["dns" | "dns/tcp", ..] => Err(DNS_SHAPE),
            words => Err(SendError::Verb { word: words.first().copied().unwrap_or("").to_owned() }),
        }
    }
}

const DNS_SHAPE: SendError =
    SendError::Shape { verb: "dns", form: "dns A|AAAA NAME [@SERVER], or dns/tcp" };

const PING_SHAPE: SendError = SendError::Shape {
    verb: "ping",
    form: "ping NAMESPACE/POD, ping outside/NAME or ping ADDRESS",
};

/// An echo request has no port. A name is refused: the address behind it is what a record is joined
/// by, and that of a service is not translated for ICMP (`bpf/lib/lb.h` of Cilium).
fn parse_ping(peer: &str) -> Result<Send, SendError> {
    match peer.parse()? {
        Peer::Name(_) => Err(PING_SHAPE),
        peer => Ok(Send::Ping(Echo { peer, family: None })),
    }
}

fn parse_dns(tcp: bool, record: &str, name: &str, rest: &[&str]) -> Result<Send, SendError> {
    let ipv6 = match record {
        "A" => false,
        "AAAA" => true,
        _ => return Err(DNS_SHAPE),
    };
    let server = match rest {
        [] => None,
        [server] => Some(server.strip_prefix('@').ok_or(DNS_SHAPE)?.parse()?),
        _ => return Err(DNS_SHAPE),
    };
    if !is_name(name) {
        return Err(DNS_SHAPE);
    }
    Ok(Send::Dns { name: name.trim_end_matches('.').to_owned(), ipv6, tcp, server })
}

fn parse_token(words: &[&str]) -> Result<Option<String>, SendError> {
    match words {
        [] => Ok(None),
        ["with", "token", name] if is_name(name) => Ok(Some((*name).to_owned())),
        words => Err(SendError::Token { text: words.join(" ") }),
    }
}

fn parse_http(method: &str, url: &str, token: Option<String>) -> Result<Send, SendError> {
    let shape =
        SendError::Shape { verb: "http", form: "METHOD http://HOST[:PORT]/PATH, or https://…" };
    let (tls, port, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, 80, rest),
        (None, Some(rest)) => (true, 443, rest),
        (None, None) => return Err(shape),
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let to: Target =
        if has_port { authority.parse()? } else { format!("{authority}:{port}").parse()? };
    match to.peer {
        Peer::Name(_) | Peer::Address(_) => {
            Ok(Send::Http { tls, method: method.to_owned(), to, path: path.to_owned(), token })
        }
        Peer::Pod(_) | Peer::Outside(_) => Err(SendError::Peer { text: authority.to_owned() }),
    }
}

impl FromStr for Target {
    type Err = SendError;

    fn from_str(text: &str) -> Result<Self, SendError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(SendError::Port { text: text.to_owned() }),
                port => Ok(Self { peer: Peer::Address(address.ip()), port, family: None }),
            };
        }
        let no_port = || SendError::Port { text: text.to_owned() };
        let (peer, port) = text.rsplit_once(':').ok_or_else(no_port)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(no_port)?;
        Ok(Self { peer: peer.parse()?, port, family: None })
    }
}

impl FromStr for Peer {
    type Err = SendError;

    fn from_str(text: &str) -> Result<Self, SendError> {
        let wrong = || SendError::Peer { text: text.to_owned() };
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            Some((OUTSIDE, name)) if is_name(name) => Ok(Self::Outside(name.to_owned())),
            Some(_) => {
                let pod: PodRef = text.parse().map_err(|_not_a_pod| wrong())?;
                if is_name(&pod.namespace) && is_name(&pod.name) {
                    Ok(Self::Pod(pod))
                } else {
                    Err(wrong())
                }
            }
            None if is_name(text) => Ok(Self::Name(text.to_owned())),
            None => Err(wrong()),
        }
    }
}

/// A DNS name: letters, digits, `-`, `_` and dots, no empty label but the last.
fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|it| it.is_ascii_alphanumeric() || it == '-' || it == '_')
        })
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod) => pod.fmt(f),
            Self::Outside(name) => write!(f, "{OUTSIDE}/{name}"),
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Peer::Address(address) => SocketAddr::new(address, self.port).fmt(f),
            ref peer => write!(f, "{peer}:{}", self.port),
        }
    }
}

impl fmt::Display for Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(to) => write!(f, "tcp {to}"),
            Self::Udp(to) => write!(f, "udp {to}"),
            Self::Ping(to) => write!(f, "ping {}", to.peer),
            Self::UdpFlow(to) => write!(f, "udp/flow {to}"),
            Self::TcpFlow(to) => write!(f, "tcp/flow {to}"),
            Self::Tls(to) => write!(f, "tls {to}"),
            Self::Http { tls, method, to, path, token } => {
                let scheme = if *tls { "https" } else { "http" };
                write!(f, "{method} {scheme}://{to}{path}")?;
                token.iter().try_for_each(|token| write!(f, " with token {token}"))
            }
            Self::Dns { name, ipv6, tcp, server } => {
                let verb = if *tcp { "dns/tcp" } else { "dns" };
                let record = if *ipv6 { "AAAA" } else { "A" };
                write!(f, "{verb} {record} {name}")?;
                server.iter().try_for_each(|server| write!(f, " @{server}"))
            }
            Self::Hbone(tunnel) => tunnel.fmt(f),
            Self::Readiness(pod) => write!(f, "readiness {pod}"),
        }?;
        self.family().iter().try_for_each(|family| write!(f, " over {family}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_it_is_written() {
        for text in [
            "tcp zt-pay/ledger:8080",
            "udp outside/api:9000",
            "udp/flow zt-pay/ledger:9001",
            "tcp/flow zt-pay/ledger:9000",
            "tcp 203.0.113.10:443",
            "tcp [2001:db8::1]:443",
            "ping zt-pay/ledger",
            "ping outside/api",
            "ping 203.0.113.10",
            "tcp zt-pay/ledger:8080 over ipv6",
            "ping outside/api over ipv6",
            "GET http://ledger.zt-pay:80/balance over ipv4",
            "GET http://ledger.zt-pay:8080/balance?of=all",
            "GET http://ledger.zt-pay:8080/balance with token teller",
            "GET http://ledger.zt-pay:80/balance with token teller over ipv6",
            "POST http://169.254.169.254:80/latest/meta-data/",
            "tls api.zt.test:9443",
            "tls outside/api:9443 over ipv6",
            "GET https://api.zt.test:443/",
            "POST https://203.0.113.10:8443/a?b=c",
            "dns A api.zt.test",
            "dns/tcp AAAA api.zt.test @outside/other",
            "dns A api.zt.test @203.0.113.53",
            "readiness zt-mesh/web",
            "hbone zt-pay/ledger:9000 as zt-pay/web",
            "hbone zt-pay/ledger:9000 as zt-pay/web forged",
            "hbone zt-pay/ledger:9000 as zt-pay/web expired",
            "hbone zt-pay/ledger:9000 as zt-pay/web early through zt-pay/vault",
            "hbone zt-pay/ledger:15020 without certificate",
            "hbone zt-pay/ledger:9000 in clear",
            "hbone 127.0.0.1:9000 as zt-pay/web through zt-pay/ledger",
        ] {
            let send: Send = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(send.to_string(), text);
        }
    }

    #[test]
    fn an_url_without_a_port_means_that_of_its_scheme() {
        for (scheme, port) in [("http", 80), ("https", 443)] {
            let Send::Http { to, path, .. } =
                format!("GET {scheme}://api.zt.test").parse().unwrap()
            else {
                panic!("no {scheme}");
            };
            assert_eq!((to.port, path.as_str()), (port, "/"));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("", "is no stimulus"),
            ("pong zt-pay/ledger", "is no stimulus"),
            ("ping zt-pay/ledger:80", "is no peer"),
            ("GET ftp://api.zt.test/", "is written"),
            ("tls api.zt.test", "no port"),
            ("tls api.zt.test:443 api", "is written"),
            ("ping ledger.zt-pay", "is written"),
            ("ping zt-pay/ledger twice", "is written"),
            ("tcp zt-pay/ledger:80 over ipv5", "is not sent over a family"),
            ("tcp 203.0.113.10:80 over ipv6", "is not sent over a family"),
            ("dns A zt.test over ipv6", "is not sent over a family"),
            ("tcp zt-pay/ledger", "has no port"),
            ("tcp zt-pay/ledger:0", "has no port"),
            ("tcp zt-pay/ledger:99999", "has no port"),
            ("tcp a/b/c:80", "is no peer"),
            ("dns MX zt.test", "is written"),
            ("dns A zt.test 10.0.0.1", "is written"),
            ("readiness ledger", "is written"),
            ("hbone", "is written"),
            ("hbone zt-pay/ledger:9000", "is written"),
            ("hbone zt-pay/ledger as zt-pay/web", "has no port"),
            ("hbone zt-pay/ledger:9000 as zt-pay/web late", "is written"),
            ("hbone zt-pay/ledger:9000 as outside/api", "is written"),
            ("hbone 127.0.0.1:9000 as zt-pay/web", "is written"),
            ("hbone ledger.zt-pay:9000 as zt-pay/web through zt-pay/ledger", "is written"),
            ("hbone zt-pay/ledger:9000 in clear over ipv6", "is not sent over a family"),
        ] {
            let error = text.parse::<Send>().expect_err(text);
            assert!(error.to_string().contains(words), "{text}: {error}");
        }
    }
}
