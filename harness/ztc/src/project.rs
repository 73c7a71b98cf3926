//! The data that a run reads: suites, worlds and profiles, as files under one folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use ztc_engine::profile::Profile;
use ztc_model::combination::{self, Combination, Matrix};
use ztc_model::suite::{Library, Suite, load, world};
use ztc_model::world::World;
use ztc_model::yaml::{self, Diagnostic, MAX_BYTES, Source};

use crate::expected_failures::{self, ExpectedFailures};
use crate::mutating::survivors::{self, Survivors};

/// The folder of worlds under `suites/`.
const WORLDS: &str = "worlds";
/// The file of a suite in its folder.
const SUITE_FILE: &str = "suite.yaml";
/// The supported versions, in the folder of profiles, without `.yaml`.
const MATRIX: &str = "matrix";

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
    /// There is no matrix.
    #[error("there is no {}, which says the supported versions", path.display())]
    NoMatrix {
        /// Where it is looked for.
        path: PathBuf,
    },
    /// The matrix has no such cell.
    #[error(
        "the matrix has no cell `{name}`{why}; `ztc matrix` lists them, `ztc matrix --select bundled` those of bundles"
    )]
    NoCell {
        /// What was asked for.
        name: String,
        /// Why there is none, if that is known.
        why: String,
    },
    /// The matrix is about a profile that describes no cluster for it.
    #[error(
        "profile {profile} of the matrix describes no cluster that can have the versions of {cell}"
    )]
    NoCluster {
        /// The profile.
        profile: String,
        /// The cell.
        cell: String,
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
    /// The failures that are known of their cases.
    pub expected_failures: ExpectedFailures,
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

    /// Reads and checks every suite and every world, and what is known of the cases.
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
        let expected_failures = self.expected_failures(&suites)?;
        Ok(Suites { suites, worlds, expected_failures })
    }

    /// The failures that are known of cases; none where there is no such file.
    fn expected_failures(&self, suites: &[Suite]) -> Result<ExpectedFailures, ProjectError> {
        let path = self.root.join(expected_failures::FILE);
        if !path.is_file() {
            return Ok(ExpectedFailures::default());
        }
        let cases = suites.iter().flat_map(|suite| &suite.cases).map(|case| &case.id);
        Ok(expected_failures::read(&self.source(&path)?, cases)?)
    }

    /// The mutants that are known to survive, with the reasons; none where there is no such file.
    ///
    /// # Errors
    /// What is wrong in the file, with its place.
    pub fn survivors(&self) -> Result<Survivors, ProjectError> {
        let path = self.root.join(survivors::FILE);
        if !path.is_file() {
            return Ok(Survivors::default());
        }
        Ok(survivors::read(&self.source(&path)?)?)
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

    /// The profile of that name under `clusters/`, in that file, or of that cell of the matrix.
    ///
    /// # Errors
    /// When there is none, or it is wrong.
    pub fn profile(&self, name: &str) -> Result<Profile, ProjectError> {
        if let Some(path) = self.profile_file(name) {
            return Ok(yaml::strict(&self.source(&path)?)?);
        }
        if let Some(profile) = self.profile_of_cell(name)? {
            return Ok(profile);
        }
        let files = entries(&self.clusters())?.into_iter().filter(|path| path.is_file());
        let stems = files.filter_map(|path| stem(&path));
        let mut known: Vec<String> = stems.filter(|it| it != MATRIX).collect();
        known.sort_unstable();
        Err(ProjectError::NoProfile { name: name.to_owned(), known })
    }

    fn clusters(&self) -> PathBuf {
        self.root.join("clusters")
    }

    fn profile_file(&self, name: &str) -> Option<PathBuf> {
        let in_folder = self.clusters().join(format!("{name}.yaml"));
        let path = if in_folder.is_file() { in_folder } else { PathBuf::from(name) };
        path.is_file().then_some(path)
    }

    fn matrix_file(&self) -> PathBuf {
        self.clusters().join(format!("{MATRIX}.yaml"))
    }

    /// The supported versions; nothing in a project that says none.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn matrix(&self) -> Result<Option<Matrix>, ProjectError> {
        let path = self.matrix_file();
        if !path.is_file() {
            return Ok(None);
        }
        Ok(Some(combination::read(&self.source(&path)?)?))
    }

    /// The supported versions.
    ///
    /// # Errors
    /// When there are none, or they cannot be read.
    pub fn the_matrix(&self) -> Result<Matrix, ProjectError> {
        self.matrix()?.ok_or_else(|| ProjectError::NoMatrix { path: self.matrix_file() })
    }

    /// The cell of the matrix of that name, if it is one and no profile is called so.
    ///
    /// # Errors
    /// When the matrix cannot be read.
    pub fn cell(&self, name: &str) -> Result<Option<Combination>, ProjectError> {
        if self.profile_file(name).is_some() {
            return Ok(None);
        }
        Ok(self.matrix()?.and_then(|matrix| matrix.named(name)))
    }

    /// The cell of the matrix of that name.
    ///
    /// # Errors
    /// When there is none, with the reason.
    pub fn the_cell(&self, name: &str) -> Result<Combination, ProjectError> {
        if let Some(cell) = self.cell(name)? {
            return Ok(cell);
        }
        let matrix = self.the_matrix()?;
        let known = matrix.ruled_out(name);
        let why = known.map(|it| format!(", as is known of {it}")).unwrap_or_default();
        Err(ProjectError::NoCell { name: name.to_owned(), why })
    }

    fn profile_of_cell(&self, name: &str) -> Result<Option<Profile>, ProjectError> {
        let Some(matrix) = self.matrix()? else { return Ok(None) };
        let Some(cell) = matrix.named(name) else { return Ok(None) };
        let failed =
            || ProjectError::NoCluster { profile: matrix.profile.clone(), cell: name.to_owned() };
        let file = self.profile_file(&matrix.profile).ok_or_else(failed)?;
        let profile: Profile = yaml::strict(&self.source(&file)?)?;
        profile.of_versions(&cell).map(Some).ok_or_else(failed)
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
