//! The data that a run reads: suites, worlds and profiles, as files under one folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use ztc_engine::profile::Profile;
use ztc_model::suite::{Library, Suite, load, world};
use ztc_model::world::World;
use ztc_model::yaml::{self, Diagnostic, MAX_BYTES, Source};

/// The folder of worlds under `suites/`.
const WORLDS: &str = "worlds";
/// The file of a suite in its folder.
const SUITE_FILE: &str = "suite.yaml";

/// A folder with `suites/` and `clusters/` in it.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
}

/// Why the data cannot be read. Nothing is started then.
#[derive(Debug, Error)]
pub enum ProjectError {
    /// A folder cannot be listed.
    #[error("cannot list {}", path.display())]
    List {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file says something wrong.
    #[error("{0}")]
    Wrong(Box<Diagnostic>),
    /// A suite or a world is called otherwise than its folder or file: names must be unique.
    #[error("{} calls itself `{says}`; it must be `{must}`, as its place says", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// Its name by its own words.
        says: String,
        /// Its name by its place.
        must: String,
    },
    /// There is no suite.
    #[error("there is no suite under {}; a suite is a folder with a {SUITE_FILE}", path.display())]
    Empty {
        /// Where they are looked for.
        path: PathBuf,
    },
    /// There is no such profile.
    #[error("there is no profile `{name}`; give a file, or one of: {}", known.join(", "))]
    NoProfile {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
}

impl From<Box<Diagnostic>> for ProjectError {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self::Wrong(diagnostic)
    }
}

/// Everything that there is to run.
#[derive(Debug, Clone)]
pub struct Suites {
    /// The suites, by name.
    pub suites: Vec<Suite>,
    /// The worlds, by name.
    pub worlds: BTreeMap<String, Arc<World>>,
}

impl Project {
    /// The project in this folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The project in the working directory if there is one, else the one that this program was
    /// built from.
    pub fn find() -> Self {
        let here = PathBuf::from(".");
        if here.join("suites").is_dir() && here.join("clusters").is_dir() {
            return Self::at(here);
        }
        Self::at(Self::sources())
    }

    /// The folder that this program was built from, if it is still there.
    pub fn sources() -> PathBuf {
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        fs::canonicalize(&built_from).unwrap_or(built_from)
    }

    /// Its folder.
    pub fn root(&self) -> PathBuf {
        self.root.clone()
    }

    /// Where results go.
    pub fn results(&self) -> PathBuf {
        self.root.join("target/ztc")
    }

    /// Reads and checks every suite and every world.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn suites(&self) -> Result<Suites, ProjectError> {
        let folder = self.root.join("suites");
        let sources = self.yaml_files(&folder)?;
        let worlds = worlds(&sources)?;
        let mut suites = Vec::new();
        for (place, source) in sources.iter().filter(|(place, _)| place.file == SUITE_FILE) {
            let library = Library { worlds: worlds.clone(), manifests: beside(&sources, place) };
            let suite = load(source, &library)?;
            named_by_place(source, &suite.name, &place.folder)?;
            suites.push(suite);
        }
        if suites.is_empty() {
            return Err(ProjectError::Empty { path: folder });
        }
        let worlds = worlds.into_iter().map(|(name, world)| (name, Arc::new(world))).collect();
        Ok(Suites { suites, worlds })
    }

    /// The YAML files one folder down.
    fn yaml_files(&self, folder: &Path) -> Result<BTreeMap<Place, Source>, ProjectError> {
        let mut sources = BTreeMap::new();
        for folder in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
            for path in entries(&folder)? {
                if path.extension().is_some_and(|it| it == "yaml") {
                    let place = Place { folder: name(&folder), file: name(&path) };
                    sources.insert(place, self.source(&path)?);
                }
            }
        }
        Ok(sources)
    }

    /// A file as text, under a name that is relative to the project.
    fn source(&self, path: &Path) -> Result<Source, ProjectError> {
        let shown = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        let failed = |source| ProjectError::Read { path: path.to_owned(), source };
        // The size is looked at before anything is read into memory.
        let size = fs::metadata(path).map_err(failed)?.len();
        if size > MAX_BYTES as u64 {
            let message = format!("the file is {size} bytes long; at most {MAX_BYTES} are read");
            let source = Source::new(shown, "");
            return Err(Diagnostic::new(&source, (1, 1), 1, message, None).into());
        }
        let bytes = fs::read(path).map_err(failed)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Ok(Source::new(shown, text))
    }

    /// The text of a file that a diagnostic or a manifest names.
    ///
    /// # Errors
    /// When it cannot be read any more.
    pub fn text(&self, file: &str) -> Result<String, ProjectError> {
        Ok(self.source(&self.root.join(file))?.text)
    }

    /// The profile of that name under `clusters/`, or in that file.
    ///
    /// # Errors
    /// When there is none, or it is wrong.
    pub fn profile(&self, name: &str) -> Result<Profile, ProjectError> {
        let folder = self.root.join("clusters");
        let in_folder = folder.join(format!("{name}.yaml"));
        let path = if in_folder.is_file() { in_folder } else { PathBuf::from(name) };
        if !path.is_file() {
            let files = entries(&folder)?.into_iter().filter(|path| path.is_file());
            let mut known: Vec<String> = files.filter_map(|path| stem(&path)).collect();
            known.sort_unstable();
            return Err(ProjectError::NoProfile { name: name.to_owned(), known });
        }
        Ok(yaml::strict(&self.source(&path)?)?)
    }
}

fn worlds(sources: &BTreeMap<Place, Source>) -> Result<BTreeMap<String, World>, ProjectError> {
    let mut worlds = BTreeMap::new();
    for (place, source) in sources.iter().filter(|(place, _)| place.folder == WORLDS) {
        let world = world(source)?;
        let must = stem(Path::new(&place.file)).unwrap_or_default();
        named_by_place(source, &world.world, &must)?;
        worlds.insert(world.world.clone(), world);
    }
    Ok(worlds)
}

fn named_by_place(source: &Source, says: &str, must: &str) -> Result<(), ProjectError> {
    if says == must {
        return Ok(());
    }
    let (says, must) = (says.to_owned(), must.to_owned());
    Err(ProjectError::Misnamed { path: PathBuf::from(&source.file), says, must })
}

/// Where a file is under `suites/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    folder: String,
    file: String,
}

/// The manifests that a suite can apply, by the names that it uses: `FILE` in its own folder,
/// `../FOLDER/FILE` in another suite's.
fn beside(sources: &BTreeMap<Place, Source>, suite: &Place) -> BTreeMap<String, Source> {
    sources
        .iter()
        .filter(|(place, _)| place.file != SUITE_FILE && place.folder != WORLDS)
        .map(|(place, source)| {
            let name = if place.folder == suite.folder {
                place.file.clone()
            } else {
                format!("../{}/{}", place.folder, place.file)
            };
            (name, source.clone())
        })
        .collect()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ProjectError> {
    let failed = |source| ProjectError::List { path: folder.to_owned(), source };
    let mut paths = fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|it| it.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default()
}

fn stem(path: &Path) -> Option<String> {
    path.file_stem().map(|it| it.to_string_lossy().into_owned())
}
