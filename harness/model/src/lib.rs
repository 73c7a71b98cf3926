//! What a case says and what its outcome means: worlds, cases, policies, outcomes, verdicts.
//!
//! This room is pure. It must not know how anything is brought about: no I/O, no clock, no async,
//! no cluster client. The lab and the real clusters share its matchers, and every verdict is a
//! function of recorded facts that can be computed again.
#![forbid(unsafe_code)]

pub mod capture;
pub mod combination;
pub mod condition;
pub mod dns;
pub mod evidence;
pub mod hubble;
pub mod identity;
pub mod labels;
pub mod lane;
pub mod manifest;
pub mod mutation;
pub mod outcome;
pub mod place;
pub mod policy;
pub mod ruling;
pub mod selector;
pub mod stimulus;
pub mod suite;
pub mod verdict;
pub mod waypoint;
pub mod window;
pub mod world;
pub mod yaml;
pub mod ztunnel;
