//! A real ztunnel that somebody gives, to be used instead of the lab's own.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::host::{NFT, run};

/// The environment variable that names its executable.
pub const VARIABLE: &str = "ZTC_LAB_ZTUNNEL";

/// How long a program may take to say which one it is.
const SAYING: Duration = Duration::from_secs(10);

/// The word before its version, in what ztunnel says of itself (`src/version.rs` of istio/ztunnel).
const VERSION: &str = "Version:\"";
/// What a build says that does not know its version.
const UNKNOWN: &str = "unknown";

/// Why a real ztunnel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RealZtunnelError {
    /// A program does not say which one it is.
    #[error("cannot run `{} {word}`", program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// What it is asked.
        word: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The executable is another one.
    #[error("{} is no ztunnel: asked for its `version` it says {said:?}", program.display())]
    Other {
        /// Which.
        program: PathBuf,
        /// The beginning of what it said.
        said: String,
    },
    /// There is nothing that redirects what pods send.
    #[error(
        "a real ztunnel gets what pods send by rules of nftables, and there is no `{NFT}`: install the package nftables, or \
         unset {VARIABLE}"
    )]
    NoNft(#[source] Box<Self>),
}

/// A real ztunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RealZtunnel {
    /// Its executable.
    pub(crate) program: PathBuf,
    /// Which it is, by itself.
    pub(crate) version: String,
}

impl RealZtunnel {
    /// The one that the environment names, if it names one.
    pub(crate) fn from_environment() -> Result<Option<Self>, RealZtunnelError> {
        let named = env::var_os(VARIABLE).filter(|it| !it.is_empty());
        named.map(Self::of).transpose()
    }

    fn of(program: OsString) -> Result<Self, RealZtunnelError> {
        let program = PathBuf::from(program);
        let output = ask(&program, "version")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = version(&said).ok_or_else(|| RealZtunnelError::Other {
            program: program.clone(),
            said: said.chars().take(80).collect(),
        })?;
        ask(Path::new(NFT), "--version").map_err(|it| RealZtunnelError::NoNft(Box::new(it)))?;
        Ok(Self { program, version })
    }
}

/// The version in what ztunnel says of itself.
fn version(said: &str) -> Option<String> {
    let (_, after) = said.split_once("version.BuildInfo{")?.1.split_once(VERSION)?;
    let (version, _) = after.split_once('"')?;
    let known = if version == UNKNOWN { "of an unknown version" } else { version };
    Some(known.to_owned())
}

/// Has a program say which one it is.
fn ask(program: &Path, word: &'static str) -> Result<Output, RealZtunnelError> {
    run(Command::new(program).arg(word), "", SAYING).map_err(|error| RealZtunnelError::Run {
        program: program.to_owned(),
        word,
        source: Box::new(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ztunnel_says_its_version() {
        let said =
            r#"version.BuildInfo{Version:"1.31.0", GitRevision:"0f1a", RustVersion:"1.95.0"}"#;
        assert_eq!(version(said).as_deref(), Some("1.31.0"));
        let said = r#"version.BuildInfo{Version:"unknown", GitRevision:"unknown"}"#;
        assert_eq!(version(said).as_deref(), Some("of an unknown version"));
        assert_eq!(version("true (GNU coreutils) 9.1"), None);
    }

    #[test]
    fn what_is_no_ztunnel_is_refused() {
        let error = RealZtunnel::of("/bin/echo".into()).unwrap_err();
        assert!(matches!(error, RealZtunnelError::Other { .. }), "{error}");
        let error = RealZtunnel::of("/no/such/file".into()).unwrap_err();
        assert!(matches!(error, RealZtunnelError::Run { .. }), "{error}");
    }
}
