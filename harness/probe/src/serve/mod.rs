//! The services: what an agent answers, from its start on, on every address of its pod.
//!
//! A service answers with what it was asked and its own name. It must not know who asks, or
//! whether that one was meant to get through.

mod dns;
mod echo;
mod http;
mod listen;
mod start;

pub use start::ServeError;
pub(crate) use start::start;
