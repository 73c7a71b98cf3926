//! What counts as a difference between two cells. The rules are those of the parent's docs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ztc_engine::event::{CellReport, EvidenceReport};
use ztc_model::evidence::Did;
use ztc_model::outcome::EnforcementPoint;

/// One way in which two cells differ, with what each side has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// The word of the verdict.
    Verdict([&'static str; 2]),
    /// Who stopped the flow, and how.
    StoppedBy([String; 2]),
    /// What the client saw, in kind.
    Seen([String; 2]),
}

/// Everything in which two cells differ that counts.
pub(super) fn between(cells: [&CellReport; 2]) -> Vec<Difference> {
    let mut differences = Vec::new();
    let words = cells.map(|cell| cell.verdict.word());
    if words[0] != words[1] {
        differences.push(Difference::Verdict(words));
    }
    let denials = cells.map(|cell| Denials::of(&cell.evidence));
    if denials[0] != denials[1] {
        differences.push(Difference::StoppedBy(denials.map(|it| it.words())));
    }
    let seen = cells.map(|cell| in_kind(&cell.seen));
    if seen[0] != seen[1] {
        differences.push(Difference::Seen(seen));
    }
    differences
}

/// The denials on record, whatever they were written about and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Denials(BTreeSet<Denial>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Denial {
    point: EnforcementPoint,
    kind: String,
    policies: BTreeSet<String>,
}

impl Denials {
    pub(crate) fn of(evidence: &[EvidenceReport]) -> Self {
        let told = evidence.iter().filter(|it| it.did.is_denial()).map(|it| Denial {
            point: it.point,
            kind: kind(&it.did),
            policies: it.policies.iter().cloned().collect(),
        });
        let told: BTreeSet<Denial> = told.collect();
        let is_named = |denial: &Denial| {
            let same = |it: &&Denial| (it.point, &it.kind) == (denial.point, &denial.kind);
            told.iter().filter(same).any(|it| !it.policies.is_empty())
        };
        let adds = |it: &&Denial| !it.policies.is_empty() || !is_named(it);
        Self(told.iter().filter(adds).cloned().collect())
    }

    fn words(&self) -> String {
        self.on_record().unwrap_or_else(|| "nobody, by the records".to_owned())
    }

    /// Who stopped the flow and how; nothing where there are no records.
    pub(crate) fn on_record(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let words = self.0.iter().map(|Denial { point, kind, policies }| {
            let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
            match policies.as_slice() {
                [] => format!("{point}: {kind}"),
                policies => format!("{point}: {kind} of {}", policies.join(", ")),
            }
        });
        Some(words.collect::<Vec<_>>().join(" and "))
    }
}

/// What was done, without what it was done to.
fn kind(did: &Did) -> String {
    match did {
        // Which of the names along a search path is refused is the search path's doing.
        Did::RefuseName { .. } => "refused the query".to_owned(),
        // The words of a ztunnel have the time and the addresses in them.
        Did::RefuseCertificate { .. } | Did::RefuseTarget { .. } => {
            without_numbers(&did.to_string())
        }
        did => did.to_string(),
    }
}

/// The same words with each that has a digit in it left out.
fn without_numbers(words: &str) -> String {
    let is_number = |word: &str| word.contains(|it: char| it.is_ascii_digit());
    let kept = words.split(' ').map(|word| if is_number(word) { "…" } else { word });
    kept.collect::<Vec<_>>().join(" ")
}

/// What a client saw without what may differ. It is read from the words of a report, which are those
/// of `ztc_wire::Observed` and `ztc_model::outcome::Seen`; words that are not known are kept whole.
fn in_kind(seen: &str) -> String {
    let words: Vec<&str> = seen.split(' ').collect();
    match words.as_slice() {
        ["time-out:", rest @ ..] | ["silence", "so", "far:", rest @ ..] => {
            format!("silence: {}", rest.join(" "))
        }
        ["accepted,", "then", "reset" | "closed"] => "accepted, then ended".to_owned(),
        ["accepted,", "then", "reset" | "closed", "in", "the", "handshake"] => {
            "accepted, then ended in the handshake".to_owned()
        }
        // Addresses are among the names of a certificate.
        ["a", "certificate", "for", ..] => "a certificate for other names".to_owned(),
        ["a", "certificate", "that", "is", "not", "believed:", ..] => {
            "a certificate that is not believed".to_owned()
        }
        [code, "for", _name] => format!("{code} for a name"),
        [code, addresses @ ..] if is_addresses(addresses) => format!("{code} with an address"),
        ["echoed", "by", _address] => "echoed".to_owned(),
        ["unreachable", ..] => "unreachable".to_owned(),
        ["not", "Ready:", ..] => "not Ready".to_owned(),
        ["an", "answer", "that", "is", "not", "ours:", ..] => {
            "an answer that is not ours".to_owned()
        }
        _ => seen.to_owned(),
    }
}

fn is_addresses(words: &[&str]) -> bool {
    !words.is_empty() && words.iter().all(|word| word.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ztc_model::outcome::Seen;
    use ztc_wire::{DnsRcode, Observed, Phase};

    use super::*;

    #[test]
    fn what_ztunnel_says_is_compared_without_its_times_and_addresses() {
        let target = |why: &str| kind(&Did::RefuseTarget { why: why.to_owned() });
        assert_eq!(
            target("ip mismatch: 10.244.0.11 != 10.244.0.12"),
            target("ip mismatch: 10.9.0.1 != 10.9.0.2")
        );
        assert_ne!(target("ip mismatch: 10.9.0.1 != 10.9.0.2"), target("port not allowed"));
        let expired = |now: u64| {
            kind(&Did::RefuseCertificate {
                why: format!("InvalidCertificate(ExpiredContext {{ time: UnixTime({now}) }})"),
            })
        };
        assert_eq!(expired(1_796_022_592), expired(1_796_024_062));
    }

    fn kind_of(observed: Observed) -> String {
        in_kind(&Seen::Client(observed).to_string())
    }

    fn dns(rcode: DnsRcode, answers: &[[u8; 4]]) -> Observed {
        let answers = answers.iter().map(|it| IpAddr::from(*it)).collect();
        Observed::Dns { rcode, answers, peer: None, remote: remote() }
    }

    fn http(status: u16, peer: Option<&str>) -> Observed {
        let peer = peer.map(ToOwned::to_owned);
        Observed::Http { status, peer, server: None, body: String::new(), remote: remote() }
    }

    fn reply(peer: &str) -> Observed {
        Observed::Reply { peer: peer.to_owned(), remote: remote() }
    }

    fn unresolved(rcode: DnsRcode, name: &str) -> Observed {
        Observed::Unresolved { rcode, name: name.to_owned() }
    }

    fn remote() -> SocketAddr {
        SocketAddr::from(([10, 0, 1, 5], 80))
    }

    #[test]
    fn what_depends_on_place_and_time_is_no_difference() {
        let words = |it: &str| it.to_owned();
        let alike = [
            [
                Observed::Timeout { phase: Phase::Connect },
                Observed::Cancelled { phase: Phase::Connect },
            ],
            [Observed::Closed { reset: true }, Observed::Closed { reset: false }],
            [
                dns(DnsRcode::NOERROR, &[[10, 0, 0, 1]]),
                dns(DnsRcode::NOERROR, &[[10, 0, 0, 2], [10, 0, 0, 3]]),
            ],
            [
                unresolved(DnsRcode::REFUSED, "api.zt.test."),
                unresolved(DnsRcode::REFUSED, "api.zt.test.zt-shop.svc.cluster.local."),
            ],
            [
                Observed::Unreachable { error: words("No route to host") },
                Observed::Unreachable { error: words("Network is unreachable") },
            ],
            [Observed::Garbled { got: words("a b") }, Observed::Garbled { got: words("c") }],
            [Observed::HandshakeCut { reset: true }, Observed::HandshakeCut { reset: false }],
            [
                Observed::WrongName { names: vec![words("a.zt.test"), words("192.0.2.1")] },
                Observed::WrongName { names: vec![words("a.zt.test")] },
            ],
            [
                Observed::Untrusted { error: words("expired") },
                Observed::Untrusted { error: words("UnknownIssuer") },
            ],
        ];
        for [one, other] in alike {
            assert_eq!(kind_of(one), kind_of(other));
        }
        let not_ready = |message| Seen::Kubelet { ready: false, message };
        let [silent, told] = [not_ready(None), not_ready(Some(words("connect: time-out")))];
        assert_eq!(in_kind(&silent.to_string()), in_kind(&told.to_string()));
    }

    #[test]
    fn what_an_answer_is_and_who_gave_it_is_a_difference() {
        let mut kinds: BTreeSet<String> = [
            Observed::Timeout { phase: Phase::Resolve },
            Observed::Timeout { phase: Phase::Connect },
            Observed::Timeout { phase: Phase::Reply },
            Observed::Timeout { phase: Phase::Handshake },
            Observed::Closed { reset: true },
            Observed::HandshakeCut { reset: true },
            Observed::TlsAlert { description: "handshake_failure".to_owned() },
            Observed::TlsAlert { description: "unrecognized_name".to_owned() },
            Observed::WrongName { names: Vec::new() },
            Observed::Untrusted { error: "expired".to_owned() },
            Observed::Refused,
            Observed::Unreachable { error: "No route to host".to_owned() },
            Observed::Echo { remote: remote().ip() },
            Observed::Garbled { got: "a b".to_owned() },
            dns(DnsRcode::NOERROR, &[[10, 0, 0, 1]]),
            dns(DnsRcode::NOERROR, &[]),
            dns(DnsRcode::NXDOMAIN, &[]),
            dns(DnsRcode::REFUSED, &[]),
            unresolved(DnsRcode::REFUSED, "api.zt.test."),
            unresolved(DnsRcode::NXDOMAIN, "api.zt.test."),
            http(200, Some("outside/web")),
            http(200, Some("outside/api")),
            http(403, Some("outside/web")),
            http(403, None),
            reply("outside/web"),
            reply("outside/api"),
        ]
        .map(kind_of)
        .into();
        assert!(kinds.insert(in_kind(&Seen::Kubelet { ready: true, message: None }.to_string())));
        assert!(kinds.insert(in_kind(&Seen::Kubelet { ready: false, message: None }.to_string())));
        assert_eq!(kinds.len(), 28, "{kinds:#?}");
    }
}
