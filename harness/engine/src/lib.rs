//! The life of a case: controls, apply, settle, assert and hold, evidence, proof, after-controls.
//!
//! This room knows time and order. It must not know how a fabric does what it is asked, nor how a
//! result is shown: it talks to the traits of [`fabric`] and emits [`event`]s.
#![forbid(unsafe_code)]

mod address;
mod agent;
mod attempts;
pub mod authority;
mod board;
pub mod burst;
mod case;
mod cell;
mod chain;
pub mod change;
pub mod event;
pub mod expected;
pub mod fabric;
mod interruption;
mod lane;
pub mod mesh_authority;
pub mod profile;
mod readiness;
pub mod runner;
mod stage;
mod summary;
pub mod turns;
mod volley;
pub mod wait;

pub use chain::chain;
