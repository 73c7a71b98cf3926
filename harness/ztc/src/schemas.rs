//! The JSON Schemas of every file that people write or read. They are generated, committed under
//! `docs/schemas/`, and checked in CI.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use ztc_engine::profile::Profile;
use ztc_model::combination::file::MatrixFile;
use ztc_model::suite::file::SuiteFile;
use ztc_model::world::World;

use crate::expected_failures::ExpectedFailuresFile;
use crate::mutating::survivors::SurvivorsFile;
use crate::proving::Proven;

/// The folder of the schemas in a project.
pub const FOLDER: &str = "docs/schemas";

/// The schemas by file name.
pub fn all() -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("suite.schema.json", schemars::schema_for!(SuiteFile).to_value()),
        ("world.schema.json", schemars::schema_for!(World).to_value()),
        ("profile.schema.json", schemars::schema_for!(Profile).to_value()),
        ("matrix.schema.json", schemars::schema_for!(MatrixFile).to_value()),
        ("proven.schema.json", schemars::schema_for!(Proven).to_value()),
        ("expected-failures.schema.json", schemars::schema_for!(ExpectedFailuresFile).to_value()),
        ("survivors.schema.json", schemars::schema_for!(SurvivorsFile).to_value()),
    ];
    all.extend(ztc_report::schemas());
    all
}

/// A schema as it stands in its file.
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

/// Writes every schema into a folder.
///
/// # Errors
/// The file that could not be written, and why.
pub fn write(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    fs::create_dir_all(folder).map_err(|error| (folder.to_owned(), error))?;
    for (name, schema) in all() {
        let path = folder.join(name);
        fs::write(&path, text(&schema)).map_err(|error| (path, error))?;
    }
    Ok(())
}
