//! What an agent is told before it starts. It comes as one environment variable, because the pod's
//! first process has no other way in: no file of ours is in its image, no session is open yet.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{RunId, Service, Stimulus, Tls};

/// The environment variable that makes this executable an agent; its value is an [`AgentConfig`]
/// as JSON. Linux takes at most 128 KiB in one variable (`MAX_ARG_STRLEN`, execve(2)).
pub const AGENT_ENV: &str = "ZTC_AGENT";

/// The ports that agents send from: what comes from one of them is an agent's, and from any other is not.
///
/// From above what pods usually listen on to the end of Linux's own `ip_local_port_range`. Also above the ports that Istio
/// keeps for itself in the network of a pod (15000 to 15090, istio.io "Ports used by Istio"): from one of them an agent
/// would be taken for a proxy, and its query would pass one by.
pub const AGENT_PORTS: RangeInclusive<u16> = 15_100..=60_999;

/// Everything an agent has to know at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The name it answers with as a peer: `namespace/pod`, or a host's name.
    pub name: String,
    /// Where it listens for sessions; a socket left there by an earlier start is replaced.
    pub socket: PathBuf,
    /// Who resolves names, in the format of resolv.conf(5). Read anew by every run that needs it.
    pub resolv_conf: PathBuf,
    /// What it serves from its start on.
    #[serde(default)]
    pub serve: Vec<Service>,
    /// What it needs to speak TLS; without it nothing is sent or served over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What it sends from its very first moment on, before anybody attaches.
    #[serde(default)]
    pub first: Vec<FirstRun>,
}

/// A run that starts with the agent; its events wait in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstRun {
    /// How the answers are told apart; shares its numbers with the runs of the sessions.
    pub id: RunId,
    /// After this long the agent gives up and reports a time-out. Milliseconds from the start.
    pub deadline_ms: u64,
    /// What to send.
    pub stimulus: Stimulus,
}

/// Why a text is no configuration of an agent.
#[derive(Debug, Error)]
#[error("the value of {AGENT_ENV} is no configuration of an agent")]
pub struct ConfigError {
    #[from]
    source: serde_json::Error,
}

impl AgentConfig {
    /// Reads the value of [`AGENT_ENV`].
    pub fn from_json(value: &[u8]) -> Result<Self, ConfigError> {
        Ok(serde_json::from_slice(value)?)
    }

    /// The value of [`AGENT_ENV`] that says this.
    pub fn to_json(&self) -> Result<String, ConfigError> {
        Ok(serde_json::to_string(self)?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{Certified, Der, DnsTransport, RecordType};

    fn config() -> AgentConfig {
        AgentConfig {
            name: "zt-shop/web".into(),
            socket: "/run/ztc/agent.sock".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            serve: vec![Service::Tcp { port: 9000 }],
            tls: Some(Tls {
                authority: Der(vec![0x30, 0x80]),
                shows: Some(Certified { certificate: Der(vec![0x30]), key: Der(vec![]) }),
            }),
            first: vec![FirstRun {
                id: RunId(1),
                deadline_ms: 500,
                stimulus: Stimulus::Dns {
                    name: "ledger.zt-pay.svc.cluster.local".into(),
                    record: RecordType::A,
                    transport: DnsTransport::Udp,
                    server: Some(SocketAddr::from(([10, 96, 0, 10], 53))),
                },
            }],
        }
    }

    #[test]
    fn a_configuration_survives_the_environment() {
        let value = config().to_json().unwrap();
        assert_eq!(AgentConfig::from_json(value.as_bytes()).unwrap(), config());
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let value = r#"{"name":"a","socket":"/s","resolv_conf":"/r","serv":[]}"#;
        assert!(AgentConfig::from_json(value.as_bytes()).is_err());
    }

    #[test]
    fn services_and_first_runs_may_be_left_out() {
        let value = br#"{"name":"a","socket":"/s","resolv_conf":"/r"}"#;
        let config = AgentConfig::from_json(value).unwrap();
        assert!(config.serve.is_empty() && config.first.is_empty());
    }
}
