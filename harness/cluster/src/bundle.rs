//! Bundles: everything that a cluster is made of in one folder, so that nothing is pulled.
//!
//! The layout is this project's own and is made by `ztc bundle create`, or by any other means:
//! `bundle.yaml` names versions, archives of images, charts, resource definitions, and values and
//! kind configuration that this bundle needs. What a bundle lacks, a cluster made of it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ztc_engine::profile::{ClusterSpec, MeshSpec};
use ztc_model::suite::Feature;
use ztc_model::yaml::{self, Diagnostic, Source};

use crate::charts::MESH_CHARTS;

/// The file that makes a folder a bundle.
pub(crate) const FILE: &str = "bundle.yaml";

/// Why a folder is no bundle that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Its file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Its file says something wrong.
    #[error("{0}")]
    Wrong(Box<Diagnostic>),
    /// A file that it names is not there.
    #[error("{} names {}, which is not there: make the bundle anew", bundle.display(), path.display())]
    Missing {
        /// The bundle's file.
        bundle: PathBuf,
        /// What it names.
        path: PathBuf,
    },
    /// An archive is not the one that the bundle was made with.
    #[error(
        "{} has the digest {found}, and the bundle says {expected}: it is truncated or was replaced; make the bundle anew",
        path.display()
    )]
    Digest {
        /// The archive.
        path: PathBuf,
        /// What the bundle says.
        expected: String,
        /// What it is.
        found: String,
    },
}

/// A bundle that can be used.
#[derive(Debug, Clone)]
pub struct Bundle {
    folder: PathBuf,
    says: Contents,
}

/// What `bundle.yaml` says. Paths are relative to its folder.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Contents {
    pub(crate) versions: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node_image: Option<Image>,
    #[serde(default)]
    pub(crate) images: Vec<Image>,
    #[serde(default)]
    pub(crate) charts: BTreeMap<String, PathBuf>,
    #[serde(default)]
    pub(crate) crds: Vec<PathBuf>,
    #[serde(default)]
    pub(crate) values: BTreeMap<String, PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<PathBuf>,
}

impl Contents {
    /// As the file has it.
    pub(crate) fn text(&self) -> String {
        // JSON is YAML.
        let text = serde_json::to_string_pretty(self).expect("contents are plain data");
        format!("# Made by `ztc bundle create`.\n{text}\n")
    }

    /// Reads a file that says what a bundle has.
    pub(crate) fn read(path: &Path) -> Result<Self, BundleError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BundleError::Read { path: path.to_owned(), source })?;
        yaml::strict(&Source::new(path.display().to_string(), text)).map_err(BundleError::Wrong)
    }
}

/// An image and the archive that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    /// Its reference.
    #[serde(rename = "ref")]
    pub(crate) reference: String,
    /// The archive, in the form of `docker save`.
    pub(crate) archive: PathBuf,
    /// The SHA-256 of the archive, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
}

impl Bundle {
    /// Reads a bundle and looks whether everything that it names is there.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let path = folder.join(FILE);
        let bundle = Self { folder: folder.to_owned(), says: Contents::read(&path)? };
        let missing = bundle.named().map(|it| folder.join(it)).find(|it| !it.is_file());
        match missing {
            Some(missing) => Err(BundleError::Missing { bundle: path, path: missing }),
            None => Ok(bundle),
        }
    }

    fn named(&self) -> impl Iterator<Item = &Path> {
        let Contents { node_image, images, charts, crds, values, kind, .. } = &self.says;
        let archives = node_image.iter().chain(images).map(|image| &image.archive);
        let files = charts.values().chain(crds).chain(values.values()).chain(kind);
        archives.chain(files).map(PathBuf::as_path)
    }

    /// How many images it has, with that of the nodes.
    pub fn images(&self) -> usize {
        self.says.node_image.iter().chain(&self.says.images).count()
    }

    /// How long all its files are together, in bytes.
    pub fn size(&self) -> u64 {
        let files: BTreeSet<&Path> = self.named().collect();
        let lengths = files.into_iter().map(|it| std::fs::metadata(self.folder.join(it)));
        lengths.filter_map(Result::ok).map(|it| it.len()).sum()
    }

    /// The cluster that comes of it: it has the bundle's versions, whatever the profile would take from
    /// registries, and no mesh where the bundle has none.
    pub fn applied_to(&self, spec: ClusterSpec) -> ClusterSpec {
        let version = |part, wanted: String| self.version(part).map_or(wanted, str::to_owned);
        ClusterSpec {
            kubernetes: version("kubernetes", spec.kubernetes),
            cilium: version("cilium", spec.cilium),
            mesh: spec.mesh.filter(|_| self.has_mesh()).map(|mesh| MeshSpec {
                istio: version("istio", mesh.istio),
                gateway_api: version("gatewayApi", mesh.gateway_api),
                ..mesh
            }),
            ..spec
        }
    }

    /// The version of a part, such as `cilium`.
    pub(crate) fn version(&self, part: &str) -> Option<&str> {
        self.says.versions.get(part).map(String::as_str)
    }

    /// The image of the nodes.
    pub(crate) fn node_image(&self) -> Option<&Image> {
        self.says.node_image.as_ref()
    }

    /// The archives of all other images, each once.
    pub(crate) fn archives(&self) -> impl Iterator<Item = &Image> {
        let mut seen = BTreeSet::new();
        self.says.images.iter().filter(move |image| seen.insert(&image.archive))
    }

    /// A chart.
    pub(crate) fn chart(&self, name: &str) -> Option<PathBuf> {
        self.says.charts.get(name).map(|it| self.folder.join(it))
    }

    /// The values that the bundle needs for a chart, to be merged over the profile's.
    pub(crate) fn values(&self, chart: &str) -> Option<PathBuf> {
        self.says.values.get(chart).map(|it| self.folder.join(it))
    }

    /// The resource definitions.
    pub(crate) fn crds(&self) -> impl Iterator<Item = PathBuf> {
        self.says.crds.iter().map(|it| self.folder.join(it))
    }

    /// What is merged into the configuration of kind.
    pub(crate) fn kind_config(&self) -> Option<PathBuf> {
        self.says.kind.as_ref().map(|it| self.folder.join(it))
    }

    /// Where an archive is.
    pub(crate) fn path(&self, image: &Image) -> PathBuf {
        self.folder.join(&image.archive)
    }

    /// Whether a mesh can be made of it.
    pub(crate) fn has_mesh(&self) -> bool {
        MESH_CHARTS.iter().all(|chart| self.says.charts.contains_key(*chart))
    }

    /// The features that a cluster made of this bundle cannot have.
    pub fn lacks(&self) -> BTreeSet<Feature> {
        if self.has_mesh() { BTreeSet::new() } else { Feature::OF_THE_MESH.into() }
    }

    /// Everything that the bundle says, wherever its folder is.
    pub(crate) fn contents(&self) -> String {
        format!("{:?}", self.says)
    }

    /// Looks whether an archive is the one that the bundle was made with. Reads all of it.
    pub(crate) fn verify(&self, image: &Image) -> Result<(), BundleError> {
        verify(&self.folder, image)
    }
}

/// Looks whether an archive in a folder has the digest that is said of it.
pub(crate) fn verify(folder: &Path, image: &Image) -> Result<(), BundleError> {
    let Some(expected) = &image.sha256 else { return Ok(()) };
    let path = folder.join(&image.archive);
    let found = sha256(&path).map_err(|source| BundleError::Read { path: path.clone(), source })?;
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(BundleError::Digest { path, expected: expected.clone(), found })
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex(&digest.finalize())),
            length => digest.update(&piece[..length]),
        }
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn bundle(says: &str) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), says).unwrap();
        fs::write(folder.path().join("node.tar"), "an image").unwrap();
        folder
    }

    const NODE: &str = "versions: { kubernetes: 1.36.3 }\nnodeImage: { ref: node:v1, archive: node.tar, sha256: @ }\n";
    /// Of the text `an image`.
    const DIGEST: &str = "6dbfefbb6f2dc5d5ba8e4e4e9ca3a3a5d3f0f2f1d6a7f3d1a2c4e5b6a7f8c9d0";

    #[test]
    fn an_archive_with_another_digest_is_refused() {
        let folder = bundle(&NODE.replace('@', DIGEST));
        let bundle = Bundle::open(folder.path()).unwrap();
        let error = bundle.verify(bundle.node_image().unwrap()).unwrap_err();
        let BundleError::Digest { found, .. } = &error else { panic!("{error}") };
        let sound = tempfile::tempdir().unwrap();
        fs::write(sound.path().join("node.tar"), "an image").unwrap();
        fs::write(sound.path().join(FILE), NODE.replace('@', &found.to_uppercase())).unwrap();
        let bundle = Bundle::open(sound.path()).unwrap();
        bundle.verify(bundle.node_image().unwrap()).unwrap();
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let folder = bundle("versions: {}\ncharts: { cilium: charts/cilium.tgz }\n");
        let error = Bundle::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("charts/cilium.tgz, which is not there"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_told_with_its_place() {
        let folder = bundle("versions: {}\nchart: {}\n");
        let error = Bundle::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("bundle.yaml:2") && error.contains("chart"), "{error}");
    }

    #[test]
    fn a_bundle_without_all_charts_of_the_mesh_lacks_its_features() {
        let folder = bundle("versions: {}\n");
        let lacks = Bundle::open(folder.path()).unwrap().lacks();
        assert!(lacks.contains(&Feature::Ztunnel) && !lacks.contains(&Feature::Cilium));
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let image = Image {
            reference: "a/b:v1".to_owned(),
            archive: "node.tar".into(),
            sha256: Some(DIGEST.to_owned()),
        };
        let says = Contents {
            versions: BTreeMap::from([("kubernetes".to_owned(), "1.30".to_owned())]),
            node_image: Some(image.clone()),
            images: vec![image],
            charts: BTreeMap::from([("cilium".to_owned(), "node.tar".into())]),
            crds: vec!["node.tar".into()],
            values: BTreeMap::from([("cilium".to_owned(), "node.tar".into())]),
            kind: None,
        };
        let folder = bundle(&says.text());
        let read = Bundle::open(folder.path()).unwrap();
        assert_eq!(read.contents(), format!("{says:?}"));
        assert_eq!(read.version("kubernetes"), Some("1.30"));
        assert_eq!((read.images(), read.size()), (2, 8));
    }

    #[test]
    fn an_archive_of_several_images_is_imported_once() {
        let says = "versions: {}\nimages: [{ ref: a, archive: node.tar }, { ref: b, archive: node.tar }]\n";
        let folder = bundle(says);
        assert_eq!(Bundle::open(folder.path()).unwrap().archives().count(), 1);
    }
}
