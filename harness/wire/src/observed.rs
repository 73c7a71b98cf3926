//! Raw facts from the client's side. Never "blocked": what a silence means is for others to say.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the client saw of one stimulus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Observed {
    /// The nonce came back.
    Reply {
        /// Who answered, by its own words.
        peer: String,
        /// The address that answered.
        remote: SocketAddr,
    },
    /// The nonce came back in an ICMP echo reply.
    Echo {
        /// The address that answered: all that a kernel says of itself.
        remote: IpAddr,
    },
    /// An HTTP response, whoever sent it.
    Http {
        /// The status code.
        status: u16,
        /// Who answered, when the response carried the nonce; absent means that somebody else did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// The `server` header.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server: Option<String>,
        /// The first 256 bytes of the body, as text.
        body: String,
        /// The address that answered.
        remote: SocketAddr,
    },
    /// A DNS response to this very query (message id and question match).
    Dns {
        /// The response code.
        rcode: DnsRcode,
        /// The addresses in the answer.
        answers: Vec<IpAddr>,
        /// The server's name, when it told one (EDNS NSID).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// The address that answered.
        remote: SocketAddr,
    },
    /// The deadline passed in silence.
    Timeout {
        /// What was being waited for.
        phase: Phase,
    },
    /// The connection was accepted and then ended before an answer.
    Closed {
        /// True for a reset, false for an orderly end of the stream.
        reset: bool,
    },
    /// The connection was accepted and then ended in the middle of the TLS handshake, without an alert.
    HandshakeCut {
        /// True for a reset, false for an orderly end of the stream.
        reset: bool,
    },
    /// The peer ended TLS with an alert (RFC 8446 §6).
    TlsAlert {
        /// Its description, in the words of the RFC; a number where it has none.
        description: String,
    },
    /// The peer has a certificate of our authority, which is for other names.
    WrongName {
        /// The names and addresses that it is for.
        names: Vec<String>,
    },
    /// The peer has a certificate that is not to be believed: of another authority, or not valid now.
    Untrusted {
        /// What is wrong with it.
        error: String,
    },
    /// The peer of a tunnel (HBONE) answered, and did not open it to whom it was asked for.
    NoTunnel {
        /// The identity (SPIFFE) that the peer had proved by then; absent where it had proved none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
        /// Its answer.
        answer: TunnelAnswer,
    },
    /// The connection was refused.
    Refused,
    /// The network answered that there is no way.
    Unreachable {
        /// The operating system's words.
        error: String,
    },
    /// The name could not be resolved: the resolver answered, but with no address.
    Unresolved {
        /// Its response code.
        rcode: DnsRcode,
        /// The last name asked for.
        name: String,
    },
    /// Something answered, but not with our words or our nonce.
    Garbled {
        /// The first 256 bytes, as text.
        got: String,
    },
    /// The engine took the stimulus back before an answer came.
    Cancelled {
        /// What was being waited for.
        phase: Phase,
    },
    /// The client itself could not send: this says nothing about the network.
    Unsent {
        /// The operation that failed.
        operation: String,
        /// The operating system's words.
        error: String,
    },
}

impl Observed {
    /// Who answered with the nonce and a name, if anybody did.
    pub fn peer(&self) -> Option<&str> {
        match self {
            Self::Reply { peer, .. } => Some(peer),
            Self::Http { peer, .. } => peer.as_deref(),
            _ => None,
        }
    }
}

impl Observed {
    /// Whether another stimulus was seen to end in the same way: by the same peer and in the same words, but for what no
    /// two answers share.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Http { status, peer, server, .. },
                Self::Http { status: status2, peer: peer2, server: server2, .. },
            ) => (status, peer, server) == (status2, peer2, server2),
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply { peer, .. } => write!(f, "answered by {peer}"),
            Self::Echo { remote } => write!(f, "echoed by {remote}"),
            Self::Http { status, peer: Some(peer), .. } => write!(f, "HTTP {status} from {peer}"),
            Self::Http { status, peer: None, server, .. } => {
                write!(f, "HTTP {status} from {}", server.as_deref().unwrap_or("an unknown server"))
            }
            Self::Dns { rcode, answers, .. } if answers.is_empty() => write!(f, "{rcode}"),
            Self::Dns { rcode, answers, .. } => {
                write!(f, "{rcode}")?;
                answers.iter().try_for_each(|address| write!(f, " {address}"))
            }
            Self::Timeout { phase } => write!(f, "time-out: no answer to {phase}"),
            Self::Closed { reset: true } => f.write_str("accepted, then reset"),
            Self::Closed { reset: false } => f.write_str("accepted, then closed"),
            Self::HandshakeCut { reset: true } => {
                f.write_str("accepted, then reset in the handshake")
            }
            Self::HandshakeCut { reset: false } => {
                f.write_str("accepted, then closed in the handshake")
            }
            Self::TlsAlert { description } => write!(f, "TLS alert: {description}"),
            Self::WrongName { names } => write!(f, "a certificate for {}", names.join(", ")),
            Self::Untrusted { error } => write!(f, "a certificate that is not believed: {error}"),
            Self::NoTunnel { identity: Some(identity), answer } => {
                write!(f, "no tunnel: {answer} from {identity}")
            }
            Self::NoTunnel { identity: None, answer } => write!(f, "no tunnel: {answer}"),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable { error } => write!(f, "unreachable ({error})"),
            Self::Unresolved { rcode, name } => write!(f, "{rcode} for {name}"),
            Self::Garbled { got } => write!(f, "an answer that is not ours: {got:?}"),
            Self::Cancelled { phase } => write!(f, "silence so far: no answer to {phase}"),
            Self::Unsent { operation, error } => write!(f, "not sent: {operation}: {error}"),
        }
    }
}

/// How the peer of a tunnel did not open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TunnelAnswer {
    /// The CONNECT was answered with another status than 200.
    Status(u16),
    /// TLS was ended with an alert (RFC 8446 §6), in the words of the RFC.
    Alert(String),
    /// The connection ended without a word.
    Closed {
        /// True for a reset, false for an orderly end of the stream.
        reset: bool,
    },
    /// HTTP/2 was ended with an error (RFC 9113 §7), in the words of the RFC.
    Http2(String),
}

impl fmt::Display for TunnelAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Alert(description) => write!(f, "TLS alert {description}"),
            Self::Closed { reset: true } => f.write_str("a reset"),
            Self::Closed { reset: false } => f.write_str("an end"),
            Self::Http2(error) => write!(f, "HTTP/2 error {error}"),
        }
    }
}

/// What a client was waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The answer of the resolver.
    Resolve,
    /// The answer to the SYN.
    Connect,
    /// The peer's part of the TLS handshake.
    Handshake,
    /// The answer to what was sent.
    Reply,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the DNS query",
            Self::Connect => "the connect",
            Self::Handshake => "the handshake",
            Self::Reply => "the request",
        })
    }
}

/// A DNS response code (RFC 1035 §4.1.1, RFC 6895 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DnsRcode(pub u16);

impl DnsRcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The server refuses; also what Cilium's DNS proxy answers for a name that no rule allows.
    pub const REFUSED: Self = Self(5);
}

impl fmt::Display for DnsRcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("NOERROR"),
            1 => f.write_str("FORMERR"),
            2 => f.write_str("SERVFAIL"),
            3 => f.write_str("NXDOMAIN"),
            4 => f.write_str("NOTIMP"),
            5 => f.write_str("REFUSED"),
            code => write!(f, "RCODE{code}"),
        }
    }
}
