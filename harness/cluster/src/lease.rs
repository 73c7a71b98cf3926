//! The lease of a cluster: whose turn it is, and how far its cluster has been made.
//!
//! One folder a profile under `target/ztc/lease/`. The lock is the kernel's and goes with the process that
//! holds it, however that ends, and with the programs that it had started to make the cluster; what was made is written down step by step, so that the next run goes
//! on from there, or takes it down.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use ztc_engine::authority::{Authority, AuthorityError};

/// The file that is locked.
const LOCK: &str = "lock";
/// The file that says what was made.
const STATE: &str = "state.json";
/// The file that certificates follow from.
const SECRET: &str = "secret";
/// The file that is written when the lease is given back: its time counts.
const USED: &str = "used";

/// Why a lease cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Its folder cannot be made.
    #[error("cannot make {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It cannot be locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// What was made cannot be read.
    #[error("cannot read {}; remove it, and the cluster that it is about", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no secret for certificates.
    #[error(transparent)]
    Secret(#[from] AuthorityError),
    /// What was made cannot be written down.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// How far a cluster is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// What it is made of: the digest of profile, values and bundle.
    pub(crate) contents: String,
    /// The steps that are done, in order.
    pub(crate) done: Vec<String>,
}

/// The right to use a cluster. Dropped, the next may have it.
#[derive(Debug)]
pub(crate) struct Lease {
    folder: PathBuf,
    lock: File,
}

impl Lease {
    /// Takes the lease of a profile. `busy` is told once when somebody else has it; this then waits
    /// for them.
    pub(crate) async fn take(
        folder: PathBuf,
        busy: impl FnOnce() + Send,
    ) -> Result<Self, LeaseError> {
        fs::create_dir_all(&folder)
            .map_err(|source| LeaseError::Folder { path: folder.clone(), source })?;
        let path = folder.join(LOCK);
        let failed = |source| LeaseError::Lock { path: path.clone(), source };
        let file = File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => return Ok(Self { folder, lock: file }),
            Err(TryLockError::WouldBlock) => busy(),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
        let file = waiting.await.map_err(|error| failed(error.into()))?.map_err(failed)?;
        Ok(Self { folder, lock: file })
    }

    /// The lock, for a program that works on the cluster: it is free when all who have it are gone.
    pub(crate) fn lock(&self) -> Result<File, LeaseError> {
        let path = || self.file("lock");
        self.lock.try_clone().map_err(|source| LeaseError::Lock { path: path(), source })
    }

    /// Takes the lease if nobody has it.
    pub(crate) fn take_if_free(folder: PathBuf) -> Result<Option<Self>, LeaseError> {
        let path = folder.join(LOCK);
        let failed = |source| LeaseError::Lock { path: path.clone(), source };
        let file = File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { folder, lock: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Whether a cluster has been begun in this folder.
    pub(crate) fn is_begun(folder: &Path) -> bool {
        folder.join(STATE).is_file()
    }

    /// When the lease in this folder was last given back, or noted something; nothing if never.
    pub(crate) fn last_used(folder: &Path) -> Option<SystemTime> {
        let changed = |name| fs::metadata(folder.join(name)).and_then(|it| it.modified()).ok();
        changed(USED).max(changed(STATE))
    }

    /// A file of the lease.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The file that leads to the cluster.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// How far the cluster is; nothing where none has been begun.
    pub(crate) fn state(&self) -> Result<Option<State>, LeaseError> {
        let path = self.state_file();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| LeaseError::Read { path, source: error.into() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LeaseError::Read { path, source }),
        }
    }

    /// What certificates follow from, made when it is first asked for.
    pub(crate) fn secret(&self) -> Result<[u8; 32], LeaseError> {
        let path = self.file(SECRET);
        let found = match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_other| io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secret = Authority::secret()?;
                return write_whole(&path, &secret)
                    .map(|()| secret)
                    .map_err(|source| LeaseError::Write { path, source });
            }
            Err(error) => Err(error),
        };
        found.map_err(|source| LeaseError::Read { path, source })
    }

    /// Writes down how far the cluster is, all at once or not at all.
    pub(crate) fn note(&self, state: &State) -> Result<(), LeaseError> {
        let path = self.state_file();
        let bytes = serde_json::to_vec_pretty(state).expect("a state is plain data");
        write_whole(&path, &bytes).map_err(|source| LeaseError::Write { path, source })
    }

    /// Writes down that there is no cluster any more.
    pub(crate) fn forget(&self) -> Result<(), LeaseError> {
        for path in [self.state_file(), self.kubeconfig()] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(LeaseError::Write { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn state_file(&self) -> PathBuf {
        self.file(STATE)
    }

    /// Removes the folder, and with it the lease.
    pub(crate) fn remove(self) -> Result<(), LeaseError> {
        let path = self.folder.clone();
        // Giving it back writes into the folder.
        drop(self);
        fs::remove_dir_all(&path).map_err(|source| LeaseError::Write { path, source })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A cluster of which this cannot be noted counts as unused for longer, and is made anew.
        fs::write(self.folder.join(USED), "").ok();
    }
}

/// Writes a file all at once or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, bytes)?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn state() -> State {
        State { contents: "abc".to_owned(), done: vec!["nodes".to_owned()] }
    }

    #[tokio::test]
    async fn what_was_noted_is_read_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let lease = Lease::take(folder.path().join("kind"), || {}).await.unwrap();
        assert_eq!(lease.state().unwrap(), None);
        lease.note(&state()).unwrap();
        drop(lease);
        let lease = Lease::take(folder.path().join("kind"), || {}).await.unwrap();
        assert_eq!(lease.state().unwrap(), Some(state()));
        lease.forget().unwrap();
        assert_eq!(lease.state().unwrap(), None);
    }

    #[tokio::test]
    async fn the_secret_stays_and_a_broken_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let take = || Lease::take(folder.path().to_owned(), || {});
        let secret = take().await.unwrap().secret().unwrap();
        assert_eq!(take().await.unwrap().secret().unwrap(), secret);
        let lease = take().await.unwrap();
        fs::write(lease.file(SECRET), "short").unwrap();
        assert!(matches!(lease.secret(), Err(LeaseError::Read { .. })));
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lease::take(folder.path().to_owned(), || {}).await.unwrap();
        let told = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&told);
        let path = folder.path().to_owned();
        let second = tokio::spawn(async move {
            Lease::take(path, move || tell.store(true, Ordering::Relaxed)).await.map(drop)
        });
        while !told.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_state_that_cannot_be_read_is_told_and_not_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let lease = Lease::take(folder.path().to_owned(), || {}).await.unwrap();
        fs::write(lease.file(STATE), "{").unwrap();
        assert!(matches!(lease.state(), Err(LeaseError::Read { .. })));
    }
}
