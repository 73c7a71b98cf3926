//! A fabric in memory: it does what a script says, in no time that anybody waits for.

mod agent;
mod bench;
mod cluster;
mod fabric;
mod network;
mod record;
mod script;

pub(crate) use bench::{Bench, PACE, cases};
pub(crate) use fabric::CEILING;
pub(crate) use script::{Fate, Fault, Record, Script, Stop};
