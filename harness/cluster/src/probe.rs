//! The probe as one static file, to be put into nodes.
//!
//! It is built by cargo out of the sources that this program was built from, as nothing else is sure to
//! speak the same protocol. Where there are none, `ZTC_PROBE` names a file.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::image::{self, Archive, ImageError};
use crate::program::tail;

/// The variable that names a probe that has been built already.
const PROBE_ENV: &str = "ZTC_PROBE";

/// How long building it may take: two minutes on two cores from nothing.
const CEILING: Duration = Duration::from_mins(15);

/// How long somebody who looks on may be left without a word.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why there is no probe.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Neither a file nor the sources are there.
    #[error(
        "there is no probe for the nodes: {} has no Cargo.toml to build it from; set {PROBE_ENV} to a static \
         `ztc-probe` of this version",
        sources.display()
    )]
    NoSources {
        /// Where the sources were looked for.
        sources: PathBuf,
    },
    /// Cargo could not be run.
    #[error("cannot run cargo to build the probe; set {PROBE_ENV} to a static `ztc-probe`")]
    Cargo(#[source] io::Error),
    /// Cargo failed.
    #[error("cargo could not build the probe:\n{said}")]
    Build {
        /// Its last words.
        said: String,
    },
    /// It took too long.
    #[error("cargo needed more than {} min for the probe", CEILING.as_secs() / 60)]
    Ceiling,
    /// The file cannot be read.
    #[error("cannot read the probe {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file is not fit for an image.
    #[error("cannot use {} as the probe", path.display())]
    Image {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
}

/// The image of the probe, built if need be out of the sources in a folder. `slow` is told once if that
/// takes a while.
pub(crate) async fn image(sources: &Path, slow: impl FnOnce()) -> Result<Archive, ProbeError> {
    let path = match std::env::var_os(PROBE_ENV) {
        Some(path) => PathBuf::from(path),
        None => patiently(build(sources), slow).await?,
    };
    let probe = tokio::fs::read(&path)
        .await
        .map_err(|source| ProbeError::Read { path: path.clone(), source })?;
    image::archive(&probe).map_err(|source| ProbeError::Image { path, source })
}

/// Tells somebody if work takes a while.
async fn patiently<T>(work: impl Future<Output = T>, slow: impl FnOnce()) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = timeout(PATIENCE, &mut work).await {
        return done;
    }
    slow();
    work.await
}

/// Builds it in a folder of its own, as its flags are not those of the rest.
async fn build(sources: &Path) -> Result<PathBuf, ProbeError> {
    if !sources.join("Cargo.toml").is_file() {
        return Err(ProbeError::NoSources { sources: sources.to_owned() });
    }
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = sources.join("target/probe");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(sources)
        .args(["build", "--locked", "--package", "ztc-probe", "--bin", "ztc-probe"])
        // Only with a target of their own are build scripts and macros spared the flags.
        .args(["--profile", "probe", "--target", &target, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(CEILING, command.output())
        .await
        .map_err(|_elapsed| ProbeError::Ceiling)?
        .map_err(ProbeError::Cargo)?;
    if !output.status.success() {
        let said = tail(&String::from_utf8_lossy(&output.stderr));
        return Err(ProbeError::Build { said });
    }
    Ok(folder.join(target).join("probe/ztc-probe"))
}
