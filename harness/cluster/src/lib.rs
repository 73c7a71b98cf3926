//! Real clusters: made with kind, or taken as they are.
//!
//! This room knows Docker, kind, helm, the API server, Cilium's own programs and ztunnel. It must not know what a
//! case expects, nor how a result is shown. What it reads of other programs is parsed by pure
//! functions that are tested with recorded outputs.
#![forbid(unsafe_code)]

mod admin;
mod api;
mod attach;
mod bundle;
mod charts;
mod cilium;
mod daemons;
mod diagnosis;
mod docker;
mod draft;
mod exec;
mod fabric;
mod image;
mod kind;
mod lease;
mod ledger;
mod mark;
mod mesh;
mod objects;
mod observers;
mod outside;
mod pack;
mod pods;
mod preflight;
mod probe;
mod program;
mod provision;
mod ready;
mod realised;
mod reference;
mod refusal;
mod rendered;
mod rollout;
mod saved;
#[cfg(test)]
mod standin;
mod takedown;

pub use admin::AdminError;
pub use api::ApiError;
pub use attach::{Attach, AttachError, Permission};
pub use bundle::{Bundle, BundleError};
pub use cilium::CiliumError;
pub use docker::DockerError;
pub use draft::DraftError;
pub use exec::ExecError;
pub use fabric::RealCluster;
pub use image::ImageError;
pub use lease::LeaseError;
pub use ledger::Ledger;
pub use mesh::MeshError;
pub use outside::OutsideError;
pub use pack::{PackError, Packer};
pub use preflight::Finding;
pub use probe::ProbeError;
pub use program::ProgramError;
pub use provision::{Folders, Progress, ProvisionError, Provisioner, Upgrade};
pub use ready::Ready;
pub use realised::OutputError;
pub use refusal::Refusal;
pub use takedown::run_if_reaper;
