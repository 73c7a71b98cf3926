//! Connections in tunnels of the mesh that a client opens by itself.
//!
//! ```text
//! hbone zt-pay/ledger:9000 as zt-pay/web               with the certificate that is the web's
//! hbone zt-pay/ledger:9000 as zt-pay/web forged        with one that another authority has issued
//! hbone zt-pay/ledger:9000 without certificate         TLS, and nothing is shown
//! hbone zt-pay/ledger:9000 in clear                    no TLS
//! hbone 127.0.0.1:9000 as zt-pay/web through zt-pay/ledger   the tunnel ends at the ledger, and asks for somebody else
//! ```

use std::fmt;

use super::{Peer, Send, SendError, Target};
use crate::world::PodRef;

/// A connection in a tunnel (HBONE) that the client opens itself, as a proxy would or as none would.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hbone {
    /// Whom the tunnel is asked for: a pod or an address.
    pub to: Target,
    /// At whose proxy it ends.
    pub through: PodRef,
    /// As whom the client speaks.
    pub speaks: Bearer,
}

/// As whom the client of a tunnel speaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bearer {
    /// With a certificate for the identity of a pod.
    Pod {
        /// Whose.
        pod: PodRef,
        /// What is wrong with the certificate, if something is.
        flaw: Option<Flaw>,
    },
    /// In TLS, without a certificate.
    Nobody,
    /// Without TLS.
    InClear,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flaw {
    /// Another authority issued it, of the same name.
    Forged,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    Early,
}

const SHAPE: SendError = SendError::Shape {
    verb: "hbone",
    form: "hbone POD:PORT, then `as POD`, `as POD forged`, `as POD expired`, `as POD early`, `without certificate` or `in \
           clear`, then `through POD` where the tunnel ends elsewhere",
};

impl Flaw {
    const ALL: [(&'static str, Self); 3] =
        [("forged", Self::Forged), ("expired", Self::Expired), ("early", Self::Early)];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, it)| *it == self).map_or("", |(word, _)| word)
    }
}

/// Reads the words after `hbone`.
pub(super) fn parse(words: &[&str]) -> Result<Send, SendError> {
    let (words, through) = match words {
        [rest @ .., "through", pod] => (rest, Some(pod_of(pod)?)),
        words => (words, None),
    };
    let [to, words @ ..] = words else { return Err(SHAPE) };
    let to: Target = to.parse()?;
    let speaks = match words {
        ["as", pod] => Bearer::Pod { pod: pod_of(pod)?, flaw: None },
        ["as", pod, word] => {
            let flaw = Flaw::ALL.iter().find(|(name, _)| name == word).ok_or(SHAPE)?.1;
            Bearer::Pod { pod: pod_of(pod)?, flaw: Some(flaw) }
        }
        ["without", "certificate"] => Bearer::Nobody,
        ["in", "clear"] => Bearer::InClear,
        _ => return Err(SHAPE),
    };
    let through = match (&to.peer, through) {
        (Peer::Pod(_) | Peer::Address(_), Some(through)) => through,
        (Peer::Pod(pod), None) => pod.clone(),
        _ => return Err(SHAPE),
    };
    Ok(Send::Hbone(Hbone { to, through, speaks }))
}

fn pod_of(text: &str) -> Result<PodRef, SendError> {
    match text.parse()? {
        Peer::Pod(pod) => Ok(pod),
        _ => Err(SHAPE),
    }
}

impl Hbone {
    /// In what it differs from another one, in words.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let differences = [
            ("whom it is asked for", self.to.peer != other.to.peer),
            ("the port", self.to.port != other.to.port),
            ("where it ends", self.through != other.through),
            ("as whom it speaks", self.speaks != other.speaks),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
    }
}

impl fmt::Display for Hbone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, through, speaks } = self;
        write!(f, "hbone {to} {speaks}")?;
        if to.peer == Peer::Pod(through.clone()) { Ok(()) } else { write!(f, " through {through}") }
    }
}

impl fmt::Display for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { pod, flaw: None } => write!(f, "as {pod}"),
            Self::Pod { pod, flaw: Some(flaw) } => write!(f, "as {pod} {}", flaw.word()),
            Self::Nobody => f.write_str("without certificate"),
            Self::InClear => f.write_str("in clear"),
        }
    }
}
