//! The words between the engine and the agent in a pod: stimuli, raw facts, and how they are framed.
//!
//! This room knows shapes only. It must not know policies, expectations or verdicts: an agent that
//! does not know what is expected of it cannot be tempted to agree. It does no I/O.
#![forbid(unsafe_code)]

mod capture;
mod config;
mod frame;
mod message;
mod observed;
mod sample;
mod stimulus;
mod tls;

pub use capture::{Canary, Captured, Sighting, Speaks, Tunnel, Watch};
pub use config::{AGENT_ENV, AGENT_PORTS, AgentConfig, ConfigError, FirstRun};
pub use frame::{FrameError, LineSplitter, MAX_LINE, decode, encode};
pub use message::{Event, FromAgent, Leg, PROTOCOL, RunId, ToAgent};
pub use observed::{DnsRcode, Observed, Phase, TunnelAnswer};
pub use sample::{Sent, Stretch};
pub use stimulus::{
    DnsTransport, Family, Host, RecordType, Service, Stimulus, Target, Zone, ZoneAlias, ZoneRecord,
};
pub use tls::{Certified, Der, Papers, Tls};
