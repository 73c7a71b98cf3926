//! What a fake cluster does. The default is a cluster that does everything right.

use std::time::Duration;

/// The behaviour of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// It does not come up, after a minute: why.
    pub(crate) stillborn: Option<&'static str>,
    /// Which policies stop which flows.
    pub(crate) stops: Vec<Stop>,
    /// From the acceptance of a policy until the nodes say that they have realised it; never when
    /// absent.
    pub(crate) realised_after: Option<Duration>,
    /// From the acceptance of a policy until flows are stopped; never when absent.
    pub(crate) enforced_after: Option<Duration>,
    /// Whether a flow gets through although a policy stops it: which one it is, from 1, and how
    /// long the policy is in force.
    pub(crate) leaks: fn(usize, Duration) -> bool,
    /// Whether a stopped flow gets through later, as its second packet passes: which one it is, from 1.
    pub(crate) late: fn(usize) -> bool,
    /// From this deletion on, counted from 1, policies stay in force.
    pub(crate) lasting_from: Option<usize>,
    /// A policy that is in force before anybody applies it.
    pub(crate) standing: Option<&'static str>,
    /// For so long after its birth nothing stops a pod.
    pub(crate) open_after_birth: Duration,
    /// For so long after a restart nothing is stopped.
    pub(crate) open_after_restart: Duration,
    /// Verdicts are only logged.
    pub(crate) audit: bool,
    /// A pod that is not Ready, and kubelet's words for it.
    pub(crate) not_ready: Option<(&'static str, &'static str)>,
    /// The client in this pod cannot send.
    pub(crate) unsent: Option<&'static str>,
    /// What goes wrong with the agent in `shop/web`, once.
    pub(crate) fault: Option<Fault>,
    /// What of the world is gone when a case is over.
    pub(crate) broken: Option<&'static str>,
    /// It forgets what it has learnt from traffic when it is asked to.
    pub(crate) forgets: bool,
    /// The stream of records is interrupted when the first flow is stopped.
    pub(crate) gap: Option<&'static str>,
    /// From the acceptance of a policy until a controller says whether ztunnel was told of it, and whether; nobody does when
    /// absent.
    pub(crate) told: Option<(Duration, bool)>,
}

/// A rule of the fake network.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    /// The name of the policy that makes it so.
    pub(crate) policy: &'static str,
    /// The port that flows go to.
    pub(crate) port: u16,
    /// The pod that they come from; any when absent.
    pub(crate) from: Option<&'static str>,
    /// What becomes of them.
    pub(crate) fate: Fate,
    /// What is said of them.
    pub(crate) record: Option<Record>,
    /// How late it is said.
    pub(crate) recorded_after: Duration,
}

/// What becomes of a flow that a rule concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing answers.
    Silence,
    /// It is accepted, and then closed at once.
    Close,
    /// It gets through this much later: its first packet is dropped, the next one is not.
    Late(Duration),
}

/// What an enforcement point says of such a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// Cilium: nothing allows it.
    DefaultDeny,
    /// Cilium: a deny rule of this policy matches.
    DenyRule(&'static str),
    /// The DNS proxy: the name is refused.
    NameRefused,
    /// The DNS proxy: the name is let through.
    NameAllowed,
    /// The client's ztunnel: the tunnel for this very connection was refused.
    TunnelRefused,
    /// The server's ztunnel, of a tunnel: a rule of this policy matches.
    TunnelDenied(&'static str),
}

/// What an agent does wrong, and at which of its runs, counted from 1.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// It ends without a word, and another one takes its place after this long.
    Dies { at: usize, back_after: Duration },
    /// It says that it has started every run until this moment of its life, and never more.
    Hangs { at: usize, until: Duration },
    /// Something that is no message gets into its session.
    Babbles { at: usize },
    /// It answers for a run that it was never sent.
    Invents { at: usize },
    /// It leaves a number out.
    Skips { at: usize },
    /// The session breaks in the middle of a word.
    Breaks { at: usize },
}

impl Default for Script {
    fn default() -> Self {
        Self {
            stillborn: None,
            stops: vec![Stop::default()],
            realised_after: Some(Duration::from_millis(20)),
            enforced_after: Some(Duration::from_millis(20)),
            leaks: |_, _| false,
            late: |_| false,
            lasting_from: None,
            standing: None,
            open_after_birth: Duration::ZERO,
            open_after_restart: Duration::ZERO,
            audit: false,
            not_ready: None,
            unsent: None,
            fault: None,
            broken: None,
            forgets: true,
            gap: None,
            told: None,
        }
    }
}

impl Default for Stop {
    /// `default-deny` stops what goes to port 9000, and Cilium says so.
    fn default() -> Self {
        Self {
            policy: "default-deny",
            port: 9000,
            from: None,
            fate: Fate::Silence,
            record: Some(Record::DefaultDeny),
            recorded_after: Duration::from_millis(3),
        }
    }
}

impl Fault {
    /// The run at which it happens.
    pub(crate) fn at(self) -> usize {
        match self {
            Self::Dies { at, .. }
            | Self::Hangs { at, .. }
            | Self::Babbles { at }
            | Self::Invents { at }
            | Self::Skips { at }
            | Self::Breaks { at } => at,
        }
    }
}
