//! The messages of a session between the engine and one agent.
//!
//! The agent numbers what it has to say and keeps it in a spool. A session only attaches to the
//! spool: it can break at any byte and be opened again with nothing lost and nothing said twice.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Canary, Captured, Observed, Stimulus, Stretch, Watch};

/// The version of these messages. Both sides refuse another one.
pub const PROTOCOL: u32 = 6;

/// Names one run of a stimulus; unique in the life of an agent, chosen by the engine.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct RunId(pub u64);

/// From the engine to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToAgent {
    /// The first message of a session; the agent answers with [`FromAgent::Hello`] and then with
    /// everything in its spool after number `after`.
    Attach {
        /// [`PROTOCOL`] of the engine.
        protocol: u32,
        /// The last number that the engine has; 0 for none.
        after: u64,
    },
    /// Send this, on a fresh socket.
    Run {
        /// How the answers are told apart.
        id: RunId,
        /// After this long the agent gives up and reports a time-out. Milliseconds from receipt.
        deadline_ms: u64,
        /// What to send.
        stimulus: Stimulus,
        /// What its nonce begins with, where somebody looks for it on the wire.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        canary: Option<Canary>,
    },
    /// Capture packets in the agent's network namespace, until it is cancelled; then [`Event::Captured`] is said.
    Capture {
        /// How the answers are told apart; shares its numbers with the runs.
        id: RunId,
        /// After this long the capture ends by itself. Milliseconds from receipt.
        deadline_ms: u64,
        /// What to look for.
        watch: Watch,
    },
    /// Send this again and again, each time on a fresh socket unless the stimulus keeps one, until it is cancelled;
    /// then [`Event::Sampled`] is said for the last time, with `over`.
    Sample {
        /// How the answers are told apart; shares its numbers with the runs.
        id: RunId,
        /// From one to the next, microseconds; at least 1,000.
        every_us: u64,
        /// After this long the agent gives up on one, milliseconds.
        deadline_ms: u64,
        /// What to send.
        stimulus: Stimulus,
    },
    /// Give up on a run now; it reports [`Observed::Cancelled`] unless it was faster. A capture ends and reports, and so do
    /// samples, once those that are under way have ended.
    Cancel {
        /// The run to give up on; an unknown one is ignored.
        id: RunId,
    },
    /// The engine has everything up to here: the spool may forget it.
    Ack {
        /// The last number received.
        seq: u64,
    },
    /// The session ends; the agent goes on.
    Bye,
}

/// From the agent to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromAgent {
    /// The answer to [`ToAgent::Attach`].
    Hello {
        /// [`PROTOCOL`] of the agent.
        protocol: u32,
        /// The agent's crate version.
        version: String,
        /// The name it answers with as a peer: `namespace/pod`, or a host's name.
        name: String,
        /// The addresses of its network namespace, loopback and link-local IPv6 left out.
        addresses: Vec<IpAddr>,
        /// Random, new at every start: tells a restarted agent from a re-attached one.
        incarnation: u64,
        /// The agent's clock now, microseconds since the Unix epoch.
        now_us: u64,
    },
    /// One entry of the spool.
    Said {
        /// Its number, from 1, without gaps.
        seq: u64,
        /// The agent's clock at the event, microseconds since the Unix epoch.
        at_us: u64,
        /// What happened.
        event: Event,
    },
    /// The session cannot go on; the agent closes it.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// Something that happened at an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// A socket was bound and is about to send its first packet. Said before that packet.
    Started {
        /// The run.
        id: RunId,
        /// What this socket is for.
        leg: Leg,
        /// Its own address and port.
        local: SocketAddr,
        /// The address and port it is about to send to.
        remote: SocketAddr,
    },
    /// The run is over. Said once a run.
    Observed {
        /// The run.
        id: RunId,
        /// What the client saw.
        observed: Observed,
    },
    /// A capture has begun: whatever passes from now on is looked at.
    Capturing {
        /// The capture.
        id: RunId,
    },
    /// A capture is over. Said once a capture, unless it failed.
    Captured {
        /// The capture.
        id: RunId,
        /// What it saw.
        captured: Captured,
    },
    /// A capture could not begin, or broke off.
    CaptureFailed {
        /// The capture.
        id: RunId,
        /// Why.
        error: String,
    },
    /// What came of samples, in the order of sending, each told of once.
    Sampled {
        /// The samples.
        id: RunId,
        /// What came of those that have ended since the last word.
        stretches: Vec<Stretch>,
        /// Whether these are the last.
        over: bool,
    },
}

/// What a socket of a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// Asking the resolver for the target's address.
    Resolve,
    /// The stimulus itself.
    Send,
}
