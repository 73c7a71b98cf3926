//! The folder of a run, and the link to the latest one.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::file::{self, FileError};
use crate::{conformance, evidence, html, jsonl, junit, markdown};

/// The link to the latest run, next to the folders of the runs.
pub const LATEST: &str = "latest";

/// The folder that a run leaves its reports in.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
}

/// Why a run has no folder.
#[derive(Debug, Error)]
pub enum RunDirError {
    /// The name of the run cannot name a folder.
    #[error("{run:?} cannot be the name of a run")]
    BadName {
        /// The name.
        run: String,
    },
    /// Another run left its reports there.
    #[error("{} is another run's folder", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The folder or the link to it cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RunDir {
    /// Makes the folder of a run in `base` (`target/ztc`), which is made as well if need be, and
    /// lets [`LATEST`] point to it.
    ///
    /// # Errors
    /// [`RunDirError`]; a folder that is there already is left alone.
    pub fn create(base: &Path, run: &str) -> Result<Self, RunDirError> {
        let mut parts = Path::new(run).components();
        let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !is_name || run == LATEST || run.ends_with('/') {
            return Err(RunDirError::BadName { run: run.to_owned() });
        }
        file::make_folder(base)?;
        let path = base.join(run);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(RunDirError::Taken { path });
            }
            Err(source) => return Err(FileError::MakeFolder { path, source }.into()),
        }
        file::replace_link(&base.join(LATEST), Path::new(run))?;
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where `junit.xml` goes.
    pub fn junit(&self) -> PathBuf {
        self.path.join(junit::FILE)
    }

    /// Where `report.html` goes.
    pub fn page(&self) -> PathBuf {
        self.path.join(html::FILE)
    }

    /// Where `report.md` goes.
    pub fn summary(&self) -> PathBuf {
        self.path.join(markdown::FILE)
    }

    /// Where `report.yaml` goes, of a run that has one.
    pub fn conformance(&self) -> PathBuf {
        self.path.join(conformance::FILE)
    }

    /// Where the stream of events goes.
    pub fn events(&self) -> PathBuf {
        self.path.join(jsonl::FILE)
    }

    /// Where the evidence of the cases goes.
    pub fn evidence(&self) -> PathBuf {
        self.path.join(evidence::FOLDER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_run_is_linked() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("target/ztc");
        for run in ["one", "two"] {
            let dir = RunDir::create(&base, run).unwrap();
            assert_eq!(fs::read_link(base.join(LATEST)).unwrap(), Path::new(run));
            assert!(dir.path().is_dir());
        }
    }

    #[test]
    fn a_run_never_writes_over_another_one() {
        let folder = tempfile::tempdir().unwrap();
        RunDir::create(folder.path(), "one").unwrap();
        let error = RunDir::create(folder.path(), "one").unwrap_err();
        assert!(matches!(error, RunDirError::Taken { .. }), "{error}");
    }

    #[test]
    fn a_run_cannot_leave_its_base() {
        let folder = tempfile::tempdir().unwrap();
        for run in ["", ".", "..", "/tmp", "a/b", "a/", "latest"] {
            let error = RunDir::create(folder.path(), run).unwrap_err();
            assert!(matches!(error, RunDirError::BadName { .. }), "{run:?}: {error}");
        }
    }
}
