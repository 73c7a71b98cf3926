//! `ztc bundle create`: a bundle of what the cluster of a profile is made of.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use thiserror::Error;
use ztc_cluster::{Bundle, PackError, Packer};
use ztc_engine::event::ExitStatus;

use crate::ground::BUNDLE_ENV;
use crate::project::{Project, ProjectError};
use crate::terminal;

/// What is to be made.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// The profile whose cluster it is for: a name under `clusters/`, or a file.
    #[arg(long)]
    profile: String,
    /// The folder to make it in: one that does not exist, an empty one, or one with an unfinished bundle.
    #[arg(long)]
    out: PathBuf,
    /// A file with the Gateway API's resource definitions, which a mesh needs. May be given several times.
    #[arg(long, value_name = "FILE")]
    crds: Vec<PathBuf>,
}

/// Why there is no bundle.
#[derive(Debug, Error)]
pub(crate) enum BundlingError {
    /// The profile cannot be read.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// What is asked for cannot be made.
    #[error("cannot make this bundle")]
    Order(#[source] PackError),
    /// It could not be made.
    #[error("cannot make the bundle")]
    Pack(#[source] Box<PackError>),
}

impl BundlingError {
    /// What the process should exit with.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Project(_) | Self::Order(_) => ExitStatus::Usage,
            Self::Pack(_) => ExitStatus::Inconclusive,
        }
    }
}

/// Makes a bundle, and says how to use it.
pub(crate) async fn create(project: &Project, order: &Order) -> Result<(), BundlingError> {
    let profile = project.profile(&order.profile)?;
    let progress = Arc::new(|line: &str| terminal::trouble(line));
    let packer = Packer::new(&profile, project.root(), order.out.clone(), &order.crds, progress)
        .map_err(BundlingError::Order)?;
    let bundle = packer.pack().await.map_err(|error| BundlingError::Pack(Box::new(error)))?;
    terminal::say(&made(order, &bundle));
    Ok(())
}

fn made(order: &Order, bundle: &Bundle) -> String {
    let (folder, images) = (order.out.display(), bundle.images());
    let megabytes = bundle.size() / 1_000_000;
    format!(
        "the bundle in {folder} is whole: {images} images, {megabytes} MB\n\
         use it where there is no network: ztc up --cluster {} --bundle {folder}, or {BUNDLE_ENV}={folder}",
        order.profile
    )
}
