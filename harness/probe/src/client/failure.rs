//! What an error of the operating system says about the network, and what it does not.

use std::fmt::Display;
use std::io;

use rustix::io::Errno;
use rustls::AlertDescription;
use ztc_wire::{Observed, Phase};

/// The client itself could not send.
pub(super) fn unsent(operation: &str, error: impl Display) -> Observed {
    Observed::Unsent { operation: operation.into(), error: error.to_string() }
}

/// What TLS says, where an error is its own and not the operating system's.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The peer ended TLS.
pub(super) fn alert(description: AlertDescription) -> Observed {
    match description {
        AlertDescription::Unknown(number) => {
            return Observed::TlsAlert { description: number.to_string() };
        }
        // The library spells it in the British way.
        AlertDescription::UnrecognisedName => {
            return Observed::TlsAlert { description: "unrecognized_name".into() };
        }
        _ => {}
    }
    // Rust's names are those of RFC 8446 §6.2 in another case.
    let mut words = String::new();
    for letter in format!("{description:?}").chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_lowercase());
    }
    Observed::TlsAlert { description: words }
}

/// An error of a socket that is towards the network. Local failures (no address, no memory, no
/// route of this family's sockets) are [`Observed::Unsent`]; the others are answers.
pub(super) fn from_network(operation: &str, waiting_for: Phase, error: &io::Error) -> Observed {
    if let Some(rustls::Error::AlertReceived(description)) = tls_error(error) {
        return alert(*description);
    }
    // What TLS makes of the end of a stream that it did not expect yet.
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Observed::Closed { reset: false };
    }
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => Observed::Refused,
        Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => {
            Observed::Closed { reset: true }
        }
        // The kernel gave up before our deadline did.
        Some(Errno::TIMEDOUT) => Observed::Timeout { phase: waiting_for },
        // A route that says so, a local filter that says so, and what ICMP becomes: the tables
        // `icmp_err_convert` (net/ipv4/icmp.c) and `tab_unreach` (net/ipv6/icmp.c).
        Some(
            Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::ACCESS
            | Errno::PERM
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PROTO,
        ) => Observed::Unreachable { error: error.to_string() },
        _ => unsent(operation, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(errno: Errno) -> Observed {
        from_network("connect", Phase::Connect, &errno.into())
    }

    #[test]
    fn what_the_network_answers_is_no_failure_of_ours() {
        assert_eq!(observed(Errno::CONNREFUSED), Observed::Refused);
        assert_eq!(observed(Errno::CONNRESET), Observed::Closed { reset: true });
        assert_eq!(observed(Errno::TIMEDOUT), Observed::Timeout { phase: Phase::Connect });
        for errno in [Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::ACCESS, Errno::PERM] {
            assert!(matches!(observed(errno), Observed::Unreachable { .. }), "{errno}");
        }
    }

    #[test]
    fn an_alert_is_told_in_the_words_of_its_standard() {
        let error =
            io::Error::other(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName));
        let seen = from_network("receive", Phase::Reply, &error);
        assert_eq!(seen, Observed::TlsAlert { description: "unrecognized_name".into() });
        let seen = alert(AlertDescription::Unknown(200));
        assert_eq!(seen, Observed::TlsAlert { description: "200".into() });
    }

    #[test]
    fn a_local_failure_says_nothing_about_the_network() {
        for errno in [Errno::ADDRNOTAVAIL, Errno::MFILE, Errno::NOBUFS, Errno::INVAL] {
            assert!(matches!(observed(errno), Observed::Unsent { .. }), "{errno}");
        }
        let ours = from_network("receive", Phase::Reply, &io::ErrorKind::Other.into());
        assert!(matches!(ours, Observed::Unsent { .. }));
    }
}
