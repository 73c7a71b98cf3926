//! Files that are whole or not there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What can go wrong with a report's file, with its path.
#[derive(Debug, Error)]
pub enum FileError {
    /// The folder cannot be made.
    #[error("cannot make the folder {}", path.display())]
    MakeFolder {
        /// The folder.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot create {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The link cannot be made.
    #[error("cannot link {}", path.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The new file or link cannot take the place of the old one.
    #[error("cannot put {} in its place", path.display())]
    Rename {
        /// The place.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
}

/// Writes a file next to its place and moves it there: a reader sees the old one or the new one.
///
/// # Errors
/// [`FileError::Write`] and [`FileError::Rename`]; the old file is as it was.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let beside = beside(path);
    fs::write(&beside, content)
        .map_err(|source| FileError::Write { path: beside.clone(), source })?;
    put_in_place(&beside, path)
}

/// Makes a symbolic link, in place of the one that may be there.
///
/// # Errors
/// [`FileError::Link`] and [`FileError::Rename`]; the old link is as it was.
pub(crate) fn replace_link(path: &Path, target: &Path) -> Result<(), FileError> {
    let beside = beside(path);
    let linked = match std::os::unix::fs::symlink(target, &beside) {
        // Somebody was killed between making the link and moving it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&beside).and_then(|()| std::os::unix::fs::symlink(target, &beside))
        }
        linked => linked,
    };
    linked.map_err(|source| FileError::Link { path: beside.clone(), source })?;
    put_in_place(&beside, path)
}

/// Makes a folder and those above it, unless they are there.
///
/// # Errors
/// [`FileError::MakeFolder`].
pub(crate) fn make_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path)
        .map_err(|source| FileError::MakeFolder { path: path.to_owned(), source })
}

fn put_in_place(beside: &Path, path: &Path) -> Result<(), FileError> {
    fs::rename(beside, path).map_err(|source| FileError::Rename { path: path.to_owned(), source })
}

/// The name under which this process makes a file. Other runs may replace the same one now.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().expect("a report has a name").to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("junit.xml");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_even_after_a_kill_in_the_middle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latest");
        replace_link(&path, Path::new("one")).unwrap();
        std::os::unix::fs::symlink("lost", beside(&path)).unwrap();
        replace_link(&path, Path::new("two")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("two"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_operation_and_the_path() {
        let error = replace(Path::new("/proc/none/junit.xml"), b"").unwrap_err();
        assert!(error.to_string().starts_with("cannot write /proc/none/junit.xml."), "{error}");
    }
}
