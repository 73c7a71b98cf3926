//! The agent from outside: what it says in its sessions about what it did on loopback.
#![expect(clippy::unwrap_used, reason = "a test may panic, and what it calls with it")]

mod clients;
mod executable;
mod hbone;
mod names;
mod samples;
mod sessions;
mod support;
mod tls;
