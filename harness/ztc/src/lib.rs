//! The `ztc` command and the conformance test: where data, fabrics, engine and reports meet.
//!
//! This room reads files, enters the lab's namespaces and turns verdicts into exit codes. It must
//! not judge: what a case comes to is the model's word.
#![forbid(unsafe_code)]

mod benching;
mod bundling;
mod cells;
mod child;
pub mod cli;
mod comparing;
pub mod conformance;
pub mod execution;
pub mod expected_failures;
pub mod ground;
mod merging;
pub mod mutating;
pub mod project;
pub mod proving;
mod rendering;
mod repeating;
pub mod repro;
mod reproducing;
mod requests;
pub mod schemas;
pub mod selection;
mod terminal;
mod upgrading;
