//! The clients: one stimulus each, once, on a fresh socket, and then the raw facts.
//!
//! A client's steps return `Err(Observed)` when a fact ends the run before its time; nothing here
//! retries, caches or judges.

mod dns;
mod failure;
mod http;
mod ping;
mod resolve;
mod send;
mod socket;
mod tcp;
mod udp;

pub(crate) use send::send;
