//! Ways to break the lab on purpose, so that the harness can be tested: each must be noticed.
//!
//! Most faults come after the decision about a packet, and let kubelet's probes of pods and what waypoints ask of istiod pass where no
//! policy denies them, so that pods become ready and the harness comes to the point where it has to
//! notice. Others get one rule of Cilium's wrong, so that
//! the decision itself and its records are wrong: each is for a mistake that somebody could make, and
//! some case has to notice it.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// The environment variable that faults are read from, as names with a comma between.
pub const VARIABLE: &str = "ZTC_LAB_FAULT";

/// The policy that a record names where it names a wrong one.
pub(crate) const WRONG_NAME: &str = "somebody-else";

/// One way to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `ignore-egress-deny`: what a deny rule keeps in passes. The records say that it was dropped.
    IgnoreEgressDeny,
    /// `allow-everything`: all that policy drops passes, names that the DNS proxy refuses too. The
    /// records say that it was dropped. What ztunnels and waypoints refuse passes without a record of it.
    AllowEverything,
    /// `drop-everything`: all that policy is asked about vanishes in its original direction. The
    /// records are those of the decision: a connection that was allowed is on record as allowed,
    /// and nothing tells of the loss. What a node sends to its own pods vanishes only where a
    /// direction is enforced; what a pod in its node's network sends, which no policy is asked about,
    /// vanishes too.
    DropEverything,
    /// `lose-flow-records`: enforcement works, and no record of it leaves, of ztunnels and waypoints neither.
    LoseFlowRecords,
    /// `wrong-policy-name`: enforcement works, and records name another policy.
    WrongPolicyName,
    /// `late-enforcement=300ms`: until that long after the last change of a policy, what policy
    /// denies passes. It is enforcement that is late, so there is no record of a denial before.
    LateEnforcement(Duration),
    /// `leak-one-in=20`: of the flows that policy drops every 20th passes, all of its packets
    /// through both hooks. The records say that they were dropped.
    LeakOneIn(NonZeroU32),
    /// `ipv6-unenforced`: what policy drops passes over IPv6. The records
    /// say that it was dropped.
    Ipv6Unenforced,
    /// `egress-only`: what the policy of an endpoint drops where it arrives passes. The records say
    /// that it was dropped.
    EgressOnly,
    /// `first-packet-leaks`: of each flow that policy drops the first packet passes, and its reply. A
    /// connection never comes about; a datagram is answered. The records say that it was dropped.
    FirstPacketLeaks,
    /// `mute-clients`: what a pod sends on its own account vanishes before the switch looks at it,
    /// without a record. What it answers to others passes.
    MuteClients,
    /// `notin-skips-missing-key`: a `NotIn` matches only what has the label.
    NotInSkipsMissingKey,
    /// `cidr-matches-pods`: a range of addresses selects the pods that have one of them.
    CidrMatchesPods,
    /// `cidr-matches-host`: a range of addresses selects the nodes that have one of them.
    CidrMatchesHost,
    /// `fqdn-learns-without-proxy`: addresses are learnt from every DNS answer over UDP to a pod.
    FqdnLearnsWithoutProxy,
    /// `fqdn-ignores-ttl`: what was learnt is never forgotten.
    FqdnIgnoresTtl,
    /// `fqdn-leaks-namespace`: what a policy allows by name it allows in every namespace.
    FqdnLeaksNamespace,
    /// `deny-loses-to-allow`: a deny rule drops only what no rule allows. The records say that it
    /// was dropped.
    DenyLosesToAllow,
    /// `mode-ignored`: the enforcement mode stays `default`, whatever it is set to.
    ModeIgnored,
    /// `established-not-rechecked`: a connection that was let pass once goes on passing. The records say
    /// that it was dropped.
    EstablishedNotRechecked,
    /// `identity-never-changes`: a pod stays who it was, whatever becomes of its labels.
    IdentityNeverChanges,
    /// `restart-opens=200ms`: for so long from a restart of agents on, all that policy drops passes. The records say that it
    /// was dropped, once agents are back.
    RestartOpens(Duration),
    /// `restart-closes=200ms`: for so long from a restart of agents on, all that policy is asked about vanishes, as with
    /// `drop-everything`.
    RestartCloses(Duration),
    /// `restart-forgets-names`: agents that come back know no address that was learnt for a name.
    RestartForgetsNames,
    /// `ztunnel-restart-forgets-strict=20ms`: for so long from a restart of ztunnels on, they know no `PeerAuthentication`.
    ZtunnelRestartForgetsStrict(Duration),
    /// `strict-accepts-plaintext`: ztunnels know no `PeerAuthentication`.
    StrictAcceptsPlaintext,
    /// `ztunnel-ignores-deny`: ztunnels know no `AuthorizationPolicy` that denies.
    ZtunnelIgnoresDeny,
    /// `ztunnel-ignores-port`: to ztunnels a rule for a port is about all of them.
    ZtunnelIgnoresPort,
    /// `open-connections-kept`: ztunnels let connections go on that a new policy forbids.
    OpenConnectionsKept,
    /// `ztunnel-captures-probes`: kubelet's probes go to ztunnels as everything else does.
    ZtunnelCapturesProbes,
    /// `capture-forwards-from-the-node`: what ztunnels ask for on behalf of pods is subject to no policy and goes past the
    /// DNS proxy, as what their nodes ask for is.
    CaptureForwardsFromTheNode,
    /// `ztunnel-asks-for-services`: ztunnels know no name by themselves, not those of services.
    ZtunnelAsksForServices,
    /// `ztunnel-keeps-no-answers`: ztunnels put every query to the server, whatever they were told a moment ago.
    ZtunnelKeepsNoAnswers,
    /// `hbone-in-clear`: ztunnels speak HTTP/2 to each other as it is, without TLS, and believe each other who they are.
    HboneInClear,
    /// `hbone-accepts-any-certificate`: ztunnels believe every certificate, and that a peer without one is who its address
    /// says.
    HboneAcceptsAnyCertificate,
    /// `hbone-accepts-clear`: ztunnels accept tunnels without TLS, too, and believe that a peer is who its address says.
    HboneAcceptsClear,
    /// `hbone-ignores-authority`: ztunnels lead a tunnel to their pod, whomever it is asked for.
    HboneIgnoresAuthority,
    /// `capture-blind`: captures of what pods send and receive see nothing.
    CaptureBlind,
    /// `waypoint-ignores-method`: to waypoints a rule for a method is about all of them.
    WaypointIgnoresMethod,
    /// `waypoint-skips-expiry`: waypoints believe tokens whose time is over.
    WaypointSkipsExpiry,
    /// `waypoint-forwards-client-identity`: waypoints speak to servers with the identity of their client, and keep no
    /// connection for the next one.
    WaypointForwardsClientIdentity,
    /// `pod-ip-skips-hardening`: ztunnels know no policy that lets waypoints alone pass, so that the address of a pod
    /// is a way past its waypoint.
    PodIpSkipsHardening,
    /// `waypoint-hangs`: waypoints accept what is sent through them, and say nothing more.
    WaypointHangs,
    /// `waypoint-ready-without-control-plane`: waypoints are ready although nobody has told them what to do.
    WaypointReadyWithoutControlPlane,
    /// `istiod-is-away`: nothing that waypoints ask istiod reaches it, and they never get ready.
    IstiodIsAway,
    /// `istiod-accepts-everything`: istiod says of every policy that it is accepted, and of every service that it is behind its
    /// waypoint.
    IstiodAcceptsEverything,
    /// `waypoint-for-services-alone`: no ztunnel asks a waypoint about what is sent to the address of a pod.
    WaypointForServicesAlone,
}

/// The faults without a number, by their names.
const NAMED: [(&str, Fault); 42] = [
    ("ignore-egress-deny", Fault::IgnoreEgressDeny),
    ("allow-everything", Fault::AllowEverything),
    ("drop-everything", Fault::DropEverything),
    ("lose-flow-records", Fault::LoseFlowRecords),
    ("wrong-policy-name", Fault::WrongPolicyName),
    ("ipv6-unenforced", Fault::Ipv6Unenforced),
    ("egress-only", Fault::EgressOnly),
    ("first-packet-leaks", Fault::FirstPacketLeaks),
    ("mute-clients", Fault::MuteClients),
    ("notin-skips-missing-key", Fault::NotInSkipsMissingKey),
    ("cidr-matches-pods", Fault::CidrMatchesPods),
    ("cidr-matches-host", Fault::CidrMatchesHost),
    ("fqdn-learns-without-proxy", Fault::FqdnLearnsWithoutProxy),
    ("fqdn-ignores-ttl", Fault::FqdnIgnoresTtl),
    ("fqdn-leaks-namespace", Fault::FqdnLeaksNamespace),
    ("deny-loses-to-allow", Fault::DenyLosesToAllow),
    ("mode-ignored", Fault::ModeIgnored),
    ("established-not-rechecked", Fault::EstablishedNotRechecked),
    ("identity-never-changes", Fault::IdentityNeverChanges),
    ("restart-forgets-names", Fault::RestartForgetsNames),
    ("strict-accepts-plaintext", Fault::StrictAcceptsPlaintext),
    ("ztunnel-ignores-deny", Fault::ZtunnelIgnoresDeny),
    ("ztunnel-ignores-port", Fault::ZtunnelIgnoresPort),
    ("open-connections-kept", Fault::OpenConnectionsKept),
    ("ztunnel-captures-probes", Fault::ZtunnelCapturesProbes),
    ("capture-forwards-from-the-node", Fault::CaptureForwardsFromTheNode),
    ("ztunnel-asks-for-services", Fault::ZtunnelAsksForServices),
    ("ztunnel-keeps-no-answers", Fault::ZtunnelKeepsNoAnswers),
    ("hbone-in-clear", Fault::HboneInClear),
    ("hbone-accepts-any-certificate", Fault::HboneAcceptsAnyCertificate),
    ("hbone-accepts-clear", Fault::HboneAcceptsClear),
    ("hbone-ignores-authority", Fault::HboneIgnoresAuthority),
    ("capture-blind", Fault::CaptureBlind),
    ("waypoint-ignores-method", Fault::WaypointIgnoresMethod),
    ("waypoint-skips-expiry", Fault::WaypointSkipsExpiry),
    ("waypoint-forwards-client-identity", Fault::WaypointForwardsClientIdentity),
    ("pod-ip-skips-hardening", Fault::PodIpSkipsHardening),
    ("waypoint-hangs", Fault::WaypointHangs),
    ("waypoint-ready-without-control-plane", Fault::WaypointReadyWithoutControlPlane),
    ("istiod-is-away", Fault::IstiodIsAway),
    ("istiod-accepts-everything", Fault::IstiodAcceptsEverything),
    ("waypoint-for-services-alone", Fault::WaypointForServicesAlone),
];

/// The ways in which a lab is broken; normally none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match fault {
                Fault::LateEnforcement(time)
                | Fault::RestartOpens(time)
                | Fault::RestartCloses(time)
                | Fault::ZtunnelRestartForgetsStrict(time) => {
                    write!(f, "{}={}ms", fault.name(), time.as_millis())?;
                }
                Fault::LeakOneIn(count) => write!(f, "leak-one-in={count}")?,
                fault => f.write_str(fault.name())?,
            }
        }
        Ok(())
    }
}

impl Fault {
    /// Its name, without its number.
    fn name(self) -> &'static str {
        match self {
            Self::LateEnforcement(_) => "late-enforcement",
            Self::LeakOneIn(_) => "leak-one-in",
            Self::RestartOpens(_) => "restart-opens",
            Self::RestartCloses(_) => "restart-closes",
            Self::ZtunnelRestartForgetsStrict(_) => "ztunnel-restart-forgets-strict",
            fault => {
                let named = NAMED.iter().find(|(_, it)| *it == fault);
                named.expect("every fault without a number is listed").0
            }
        }
    }
}

/// A text that is no list of faults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no fault of the lab; valid in {VARIABLE}, and among the faults of a profile, are {}`late-enforcement=300ms`, \
     `restart-opens=200ms`, `restart-closes=200ms`, `ztunnel-restart-forgets-strict=20ms` and `leak-one-in=20`",
    NAMED.map(|(name, _)| format!("`{name}`, ")).concat()
)]
pub struct NotAFault {
    text: String,
}

impl Faults {
    /// A lab that is broken in these ways.
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self(faults.into_iter().collect())
    }

    /// These and others.
    #[must_use]
    pub(crate) fn and(self, others: Self) -> Self {
        Self(self.0.into_iter().chain(others.0).collect())
    }

    /// Whether it is broken in this way.
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    /// For how long after a change of a policy denials are not enforced.
    pub(crate) fn late_enforcement(&self) -> Option<Duration> {
        self.0.iter().find_map(|fault| match fault {
            Fault::LateEnforcement(delay) => Some(*delay),
            _ => None,
        })
    }

    /// For how long from a restart of agents on everything passes.
    pub(crate) fn restart_opens(&self) -> Option<Duration> {
        self.0.iter().find_map(|fault| match fault {
            Fault::RestartOpens(time) => Some(*time),
            _ => None,
        })
    }

    /// For how long from a restart of agents on nothing passes.
    pub(crate) fn restart_closes(&self) -> Option<Duration> {
        self.0.iter().find_map(|fault| match fault {
            Fault::RestartCloses(time) => Some(*time),
            _ => None,
        })
    }

    /// For how long from a restart of ztunnels on plain text is accepted where it must not be.
    pub(crate) fn forgets_strict(&self) -> Option<Duration> {
        self.0.iter().find_map(|fault| match fault {
            Fault::ZtunnelRestartForgetsStrict(time) => Some(*time),
            _ => None,
        })
    }

    /// One of how many denied flows passes.
    pub(crate) fn leak_one_in(&self) -> Option<NonZeroU32> {
        self.0.iter().find_map(|fault| match fault {
            Fault::LeakOneIn(flows) => Some(*flows),
            _ => None,
        })
    }
}

/// Reads names with a comma between; an empty text is none.
impl FromStr for Faults {
    type Err = NotAFault;

    fn from_str(text: &str) -> Result<Self, NotAFault> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Fault {
    type Err = NotAFault;

    fn from_str(text: &str) -> Result<Self, NotAFault> {
        let fault = match text.split_once('=') {
            None => NAMED.iter().find(|(name, _)| *name == text).map(|(_, fault)| *fault),
            Some(("late-enforcement", delay)) => milliseconds(delay).map(Self::LateEnforcement),
            Some(("restart-opens", time)) => milliseconds(time).map(Self::RestartOpens),
            Some(("restart-closes", time)) => milliseconds(time).map(Self::RestartCloses),
            Some(("ztunnel-restart-forgets-strict", time)) => {
                milliseconds(time).map(Self::ZtunnelRestartForgetsStrict)
            }
            Some(("leak-one-in", flows)) => flows.parse().ok().map(Self::LeakOneIn),
            Some(_) => None,
        };
        fault.ok_or_else(|| NotAFault { text: text.to_owned() })
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_names_with_a_comma_between() {
        let faults: Faults =
            "ignore-egress-deny, late-enforcement=300ms,leak-one-in=20".parse().unwrap();
        assert!(faults.has(Fault::IgnoreEgressDeny));
        assert!(!faults.has(Fault::AllowEverything));
        assert_eq!(faults.late_enforcement(), Some(Duration::from_millis(300)));
        assert_eq!(faults.leak_one_in(), NonZeroU32::new(20));
    }

    #[test]
    fn an_empty_text_is_no_fault() {
        assert_eq!("".parse(), Ok(Faults::default()));
    }

    #[test]
    fn every_name_in_the_message_is_a_fault() {
        let message = "tpyo".parse::<Faults>().unwrap_err().to_string();
        let mut names = message.split('`').skip(1).step_by(2);
        assert_eq!(names.next(), Some("tpyo"));
        let faults: Vec<Fault> = names.map(|name| name.parse().unwrap()).collect();
        assert_eq!(faults.len(), NAMED.len() + 5);
    }

    #[test]
    fn a_fault_without_its_number_is_refused() {
        for text in ["late-enforcement", "late-enforcement=soon", "leak-one-in=0", "mute-clients=1"]
        {
            assert!(text.parse::<Faults>().is_err(), "{text}");
        }
    }
}
