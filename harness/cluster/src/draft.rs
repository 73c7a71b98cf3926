//! A bundle that is not finished: a folder, and what of it is done.
//!
//! What is done is in a file of its own, in the form of the bundle's, and becomes the bundle's by getting its
//! name. So a folder that was left half-way is no bundle, and is known as one that can be gone on
//! with.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::{self, Bundle, BundleError, Contents, FILE, Image};
use crate::lease::write_whole;
use crate::reference::archive_name;

/// The file that says what is done.
const DRAFT: &str = "bundle.draft.yaml";

/// The folders of a bundle.
const IMAGES: &str = "images";
const CHARTS: &str = "charts";
const CRDS: &str = "crds";
const VALUES: &str = "values";

/// Why a folder cannot become a bundle.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// It is a file.
    #[error("{} is no folder", path.display())]
    NoFolder {
        /// Which.
        path: PathBuf,
    },
    /// There is a finished bundle in it.
    #[error("{} has a bundle already; name another folder, or remove this one", path.display())]
    Finished {
        /// Which.
        path: PathBuf,
    },
    /// There is something else in it.
    #[error(
        "{} is not empty, and what is in it is no bundle that was begun; name another folder", path.display()
    )]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Something of an earlier attempt cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// What was begun cannot be gone on with.
    #[error("cannot go on with what was begun in {}; name another folder, or remove this one", path.display())]
    Begun {
        /// Which.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// What has been written is not what is there.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Whether a folder can become a bundle, and what an earlier attempt left there. Nothing is written.
pub(crate) fn look(folder: &Path) -> Result<Contents, DraftError> {
    let path = || folder.to_owned();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(DraftError::NoFolder { path: path() });
        }
        Err(source) => return Err(DraftError::Read { path: path(), source }),
    };
    let names: Result<BTreeSet<OsString>, io::Error> =
        entries.map(|it| it.map(|it| it.file_name())).collect();
    let names = names.map_err(|source| DraftError::Read { path: path(), source })?;
    let has = |name: &str| names.iter().any(|it| it == name);
    if has(FILE) {
        return Err(DraftError::Finished { path: path() });
    }
    if has(DRAFT) {
        return Contents::read(&folder.join(DRAFT))
            .map_err(|source| DraftError::Begun { path: path(), source });
    }
    if names.is_empty() {
        Ok(Contents::default())
    } else {
        Err(DraftError::NotEmpty { path: path() })
    }
}

/// A bundle that is being made.
#[derive(Debug)]
pub(crate) struct Draft {
    folder: PathBuf,
    says: Contents,
}

impl Draft {
    /// Begins with a folder, or goes on with one. Archives of an earlier attempt stay if that was about
    /// the same versions; everything else is made anew, as it is small.
    pub(crate) fn begin(
        folder: &Path,
        versions: BTreeMap<String, String>,
    ) -> Result<Self, DraftError> {
        let earlier = look(folder)?;
        let images = earlier.images.into_iter().chain(earlier.node_image);
        let images = if earlier.versions == versions { images.collect() } else { Vec::new() };
        make(folder)?;
        let says = Contents { versions, images, ..Contents::default() };
        let draft = Self { folder: folder.to_owned(), says };
        // Before anything else is written: the folder is known by it.
        draft.note()?;
        for name in [CHARTS, CRDS, VALUES] {
            let path = draft.folder.join(name);
            match fs::remove_dir_all(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DraftError::Remove { path, source });
                }
                _ => make(&path)?,
            }
        }
        make(&draft.folder.join(IMAGES))?;
        Ok(draft)
    }

    /// Removes the archives of an earlier attempt that are not the ones of these images, or are not as
    /// they were written.
    pub(crate) fn keep(&mut self, references: &BTreeSet<&str>) -> Result<(), DraftError> {
        let folder = &self.folder;
        self.says.images.retain(|image| {
            references.contains(&*image.reference)
                && image.archive == archive_path(&image.reference)
                && image.sha256.is_some()
                && bundle::verify(folder, image).is_ok()
        });
        let path = folder.join(IMAGES);
        let read = |source| DraftError::Read { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if !self.says.images.iter().any(|it| folder.join(&it.archive) == path) {
                fs::remove_file(&path)
                    .map_err(|source| DraftError::Remove { path: path.clone(), source })?;
            }
        }
        self.note()
    }

    /// Whether the archive of an image is there.
    pub(crate) fn has_image(&self, reference: &str) -> bool {
        self.says.images.iter().any(|it| it.reference == reference)
    }

    /// Where the archive of an image is to be written.
    pub(crate) fn archive(&self, reference: &str) -> PathBuf {
        self.folder.join(archive_path(reference))
    }

    /// Adds an image whose archive has been written.
    pub(crate) fn add_image(&mut self, reference: &str, sha256: String) -> Result<(), DraftError> {
        let archive = archive_path(reference);
        let reference = reference.to_owned();
        self.says.images.push(Image { reference, archive, sha256: Some(sha256) });
        self.note()
    }

    /// Makes one of its images that of the nodes.
    pub(crate) fn set_node_image(&mut self, reference: &str) {
        let images = &mut self.says.images;
        let found = images.iter().position(|it| it.reference == reference);
        self.says.node_image = found.map(|it| images.remove(it));
    }

    /// The folder that charts are to be put into.
    pub(crate) fn charts(&self) -> PathBuf {
        self.folder.join(CHARTS)
    }

    /// Adds a chart that is in the folder of charts; where it is.
    pub(crate) fn add_chart(&mut self, name: &str, file: &str) -> PathBuf {
        let path = Path::new(CHARTS).join(file);
        self.says.charts.insert(name.to_owned(), path.clone());
        self.folder.join(path)
    }

    /// Adds values for a chart; where they are.
    pub(crate) fn add_values(&mut self, name: &str, text: &str) -> Result<PathBuf, DraftError> {
        let path = Path::new(VALUES).join(format!("{name}.yaml"));
        let written = self.write(&path, text.as_bytes())?;
        self.says.values.insert(name.to_owned(), path);
        Ok(written)
    }

    /// Adds resource definitions.
    pub(crate) fn add_definitions(&mut self, text: &str) -> Result<(), DraftError> {
        let path = Path::new(CRDS).join(format!("definitions-{}.yaml", self.says.crds.len() + 1));
        self.write(&path, text.as_bytes())?;
        self.says.crds.push(path);
        Ok(())
    }

    /// Makes it a bundle once every archive has been read again and is as it was written.
    pub(crate) fn finish(self) -> Result<Bundle, DraftError> {
        self.note()?;
        for image in self.says.node_image.iter().chain(&self.says.images) {
            bundle::verify(&self.folder, image)?;
        }
        let path = self.folder.join(FILE);
        fs::rename(self.folder.join(DRAFT), &path)
            .map_err(|source| DraftError::Write { path, source })?;
        Ok(Bundle::open(&self.folder)?)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<PathBuf, DraftError> {
        let path = self.folder.join(path);
        match fs::write(&path, bytes) {
            Ok(()) => Ok(path),
            Err(source) => Err(DraftError::Write { path, source }),
        }
    }

    fn note(&self) -> Result<(), DraftError> {
        let path = self.folder.join(DRAFT);
        write_whole(&path, self.says.text().as_bytes())
            .map_err(|source| DraftError::Write { path, source })
    }
}

/// Where the archive of an image is in its bundle.
fn archive_path(reference: &str) -> PathBuf {
    Path::new(IMAGES).join(archive_name(reference))
}

fn make(folder: &Path) -> Result<(), DraftError> {
    fs::create_dir_all(folder)
        .map_err(|source| DraftError::Write { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};
    use tempfile::TempDir;
    use ztc_model::suite::Feature;

    use super::*;
    use crate::bundle::hex;

    fn versions(cilium: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("cilium".to_owned(), cilium.to_owned())])
    }

    fn begin(folder: &TempDir, cilium: &str) -> Draft {
        Draft::begin(&folder.path().join("bundle"), versions(cilium)).unwrap()
    }

    fn add(draft: &mut Draft, reference: &str) {
        fs::write(draft.archive(reference), reference).unwrap();
        draft.add_image(reference, hex(&Sha256::digest(reference))).unwrap();
    }

    fn archives(folder: &TempDir) -> usize {
        fs::read_dir(folder.path().join("bundle/images")).unwrap().count()
    }

    #[test]
    fn a_draft_becomes_a_bundle_that_can_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = begin(&folder, "1.20.2");
        let chart = draft.add_chart("cilium", "cilium-1.20.2.tgz");
        fs::write(chart, "a chart").unwrap();
        draft.add_values("cilium", "{}").unwrap();
        draft.add_definitions("{}").unwrap();
        for reference in ["a/b:v1", "a/b:v2", "node:v1"] {
            add(&mut draft, reference);
        }
        draft.set_node_image("node:v1");
        let path = folder.path().join("bundle");
        assert!(Bundle::open(&path).is_err(), "an unfinished bundle was opened");
        draft.finish().unwrap();
        let bundle = Bundle::open(&path).unwrap();
        assert_eq!(bundle.version("cilium"), Some("1.20.2"));
        assert_eq!(bundle.node_image().unwrap().reference, "node:v1");
        assert_eq!(bundle.archives().count(), 2);
        assert!(bundle.chart("cilium").unwrap().ends_with("charts/cilium-1.20.2.tgz"));
        assert!(bundle.values("cilium").is_some() && bundle.crds().count() == 1);
        assert!(bundle.lacks().contains(&Feature::Ztunnel));
        assert!(matches!(look(&path), Err(DraftError::Finished { .. })));
    }

    #[test]
    fn sound_archives_of_an_earlier_attempt_are_kept_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = begin(&folder, "1.20.2");
        for reference in ["kept:v1", "cut:v1", "unwanted:v1"] {
            add(&mut draft, reference);
        }
        fs::write(draft.archive("cut:v1"), "cu").unwrap();
        fs::write(draft.archive("kept:v1").with_extension("part"), "half").unwrap();
        let mut draft = begin(&folder, "1.20.2");
        draft.keep(&BTreeSet::from(["kept:v1", "cut:v1", "new:v1"])).unwrap();
        let has = ["kept:v1", "cut:v1", "unwanted:v1"].map(|it| draft.has_image(it));
        assert_eq!(has, [true, false, false]);
        assert_eq!(archives(&folder), 1);
    }

    #[test]
    fn archives_for_other_versions_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        add(&mut begin(&folder, "1.19.6"), "a:v1");
        let mut draft = begin(&folder, "1.20.2");
        draft.keep(&BTreeSet::from(["a:v1"])).unwrap();
        assert!(!draft.has_image("a:v1"));
        assert_eq!(archives(&folder), 0);
    }

    #[test]
    fn an_archive_that_was_changed_meanwhile_makes_no_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let mut draft = begin(&folder, "1.20.2");
        add(&mut draft, "a:v1");
        fs::write(draft.archive("a:v1"), "something else").unwrap();
        assert!(matches!(draft.finish(), Err(DraftError::Bundle(BundleError::Digest { .. }))));
        assert!(Bundle::open(&folder.path().join("bundle")).is_err());
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(look(folder.path()).is_ok() && look(&folder.path().join("new")).is_ok());
        let file = folder.path().join("holiday.jpg");
        fs::write(&file, "a picture").unwrap();
        assert!(matches!(look(folder.path()), Err(DraftError::NotEmpty { .. })));
        assert!(matches!(look(&file), Err(DraftError::NoFolder { .. })));
        assert!(Draft::begin(folder.path(), versions("1.20.2")).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_draft_that_cannot_be_read_is_told_and_not_guessed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DRAFT), "versions: {").unwrap();
        let error = look(folder.path()).unwrap_err();
        let DraftError::Begun { source: BundleError::Wrong(_), .. } = error else {
            panic!("{error}");
        };
    }
}
