//! The agent that runs in a pod: it sends what it is told to send, serves what it is told to
//! serve, and says what it saw.
//!
//! This room knows sockets and the words of `ztc-wire`. It must not know policies, expectations,
//! Kubernetes or YAML: an agent that does not know what should happen can only say what happened.
//! The same code is the `ztc-probe` executable of a real pod and the agent mode of `ztc` in the lab.

mod agent;
mod attach;
mod capture;
mod client;
mod exit;
mod interfaces;
mod ports;
mod random;
mod resolv_conf;
mod run;
mod sample;
mod serve;
mod session;
mod spool;
mod tls;
mod words;

pub use agent::{AgentError, run, run_if_agent};
pub use attach::{AttachError, attach};
pub use exit::exit_code;
pub use run::RunError;
pub use serve::ServeError;
pub use tls::TlsError;
