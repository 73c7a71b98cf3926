//! Local ports, handed out in turn instead of at random.
//!
//! Records of enforcement points are joined to a run by its port. The kernel picks ephemeral ports
//! by hash and may repeat one within milliseconds; a turn through this range takes 22 s even at
//! 2,000 runs a second, longer than any record stays unread.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use ztc_wire::AGENT_PORTS;

use crate::random;

/// How many ports the range has.
const SPAN: u64 = (*AGENT_PORTS.end() - *AGENT_PORTS.start()) as u64 + 1;

/// The next port of an agent, for all protocols and families together.
#[derive(Debug)]
pub(crate) struct Ports {
    turn: AtomicU64,
}

impl Ports {
    /// Starts somewhere at random, so that a restarted agent does not repeat its last ports.
    pub(crate) fn new() -> Self {
        Self { turn: AtomicU64::new(random::u64() % SPAN) }
    }

    /// Binds to the next port that is free.
    ///
    /// # Errors
    /// What `bind` says, except that a port in use is skipped; [`io::ErrorKind::AddrInUse`] when
    /// the whole range is in use.
    pub(crate) fn bind<T>(&self, mut bind: impl FnMut(u16) -> io::Result<T>) -> io::Result<T> {
        (0..SPAN)
            .map(|_| bind(self.next()))
            .find(|bound| !matches!(bound, Err(e) if e.kind() == io::ErrorKind::AddrInUse))
            .unwrap_or_else(|| Err(io::ErrorKind::AddrInUse.into()))
    }

    fn next(&self) -> u16 {
        let offset = self.turn.fetch_add(1, Ordering::Relaxed) % SPAN;
        *AGENT_PORTS.start()
            + u16::try_from(offset).expect("the span is smaller than the port space")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_comes_twice_within_a_full_range() {
        let ports = Ports::new();
        let first = ports.next();
        let mut seen = HashSet::from([first]);
        for _ in 1..SPAN {
            let port = ports.next();
            assert!(AGENT_PORTS.contains(&port), "{port}");
            assert!(seen.insert(port), "{port} came twice");
        }
        assert_eq!(ports.next(), first);
    }

    /// Those of istio.io, "Ports used by Istio", and ztunnel's DNS server.
    #[test]
    fn no_port_is_one_of_istios() {
        let of_istio = [15_000, 15_001, 15_004, 15_006, 15_008, 15_020, 15_021, 15_053, 15_090];
        assert!(of_istio.iter().all(|port| !AGENT_PORTS.contains(port)));
    }

    #[test]
    fn a_port_in_use_is_skipped() {
        let ports = Ports::new();
        let taken = ports.next() + 1;
        let busy =
            |port| if port == taken { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(port) };
        assert_ne!(ports.bind(busy).unwrap(), taken);
    }

    #[test]
    fn any_other_failure_is_told_at_once() {
        let ports = Ports::new();
        let denied = |_| -> io::Result<()> { Err(io::ErrorKind::AddrNotAvailable.into()) };
        let before = ports.next();
        assert_eq!(ports.bind(denied).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert_ne!(ports.next(), before);
    }

    #[test]
    fn a_range_without_a_free_port_is_an_error() {
        let full = |_| -> io::Result<()> { Err(io::ErrorKind::AddrInUse.into()) };
        assert_eq!(Ports::new().bind(full).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
