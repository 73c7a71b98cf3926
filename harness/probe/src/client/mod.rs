//! The clients: one stimulus each, once, and then the raw facts; all but those that go on on a fresh socket.
//!
//! A client's steps return `Err(Observed)` when a fact ends the run before its time; nothing here
//! retries, caches or judges.

mod dns;
mod failure;
mod flow;
mod hbone;
mod http;
mod ping;
mod resolve;
mod send;
mod socket;
mod stream;
mod tcp;
mod tls;
mod udp;

pub(crate) use flow::Flows;
pub(crate) use send::send;
pub(crate) use stream::Streams;
