//! The form of the matrix's file, and what can be wrong with it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use semver::Version;
use serde::Deserialize;

use super::{Combination, Incompatibility, Matrix};
use crate::suite::{Part, Versions};
use crate::yaml::{self, Diagnostic, Source, Spanned};

/// More combinations than anybody has a night for: the numbers of versions multiply.
const MOST: usize = 4096;

/// The supported versions: `clusters/matrix.yaml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatrixFile {
    /// What it is for, one sentence.
    pub about: String,
    /// The profile under `clusters/` whose clusters get the versions of a cell.
    pub profile: String,
    /// The versions of each part. Without `istio` and `gateway-api` the clusters have no mesh.
    #[schemars(with = "BTreeMap<Part, Vec<String>>")]
    pub versions: Spanned<BTreeMap<Part, Vec<Spanned<String>>>>,
    /// Versions that are known not to work together.
    #[serde(default)]
    pub incompatible: Vec<IncompatibilityFile>,
    /// Combinations that no registry has, for those who have a bundle of one.
    #[serde(default)]
    #[schemars(with = "Vec<BTreeMap<Part, String>>")]
    pub bundled: Vec<Spanned<BTreeMap<Part, Spanned<String>>>>,
}

/// Versions that are known not to work together.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IncompatibilityFile {
    /// Ranges of versions of two parts or more, such as `{ istio: ">=1.30.0", gateway-api: "<1.5.0" }`.
    #[schemars(with = "BTreeMap<Part, String>")]
    pub versions: Spanned<BTreeMap<Part, Spanned<String>>>,
    /// What goes wrong.
    #[schemars(with = "String")]
    pub because: Spanned<String>,
    /// Where that is said: an address that begins with `https://`.
    #[schemars(with = "String")]
    pub source: Spanned<String>,
}

/// Reads a matrix.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn read(source: &Source) -> Result<Matrix, Box<Diagnostic>> {
    let file: MatrixFile = yaml::strict(source)?;
    let parts = parts(source, &file.versions)?;
    let mut matrix = Matrix {
        profile: file.profile,
        versions: parts,
        incompatible: Vec::new(),
        bundled: Vec::new(),
    };
    let size = matrix.versions.values().map(Vec::len).try_fold(1, usize::checked_mul);
    if size.is_none_or(|it| it > MOST) {
        let message = format!("these are more than {MOST} combinations");
        return Err(source.diagnostic_at(&file.versions, message, Some("name fewer versions")));
    }
    for known in &file.incompatible {
        let known = incompatibility(source, known, &matrix)?;
        matrix.incompatible.push(known);
    }
    for written in &file.bundled {
        let combination = bundled(source, written, &matrix)?;
        matrix.bundled.push(combination);
    }
    if matrix.compatible().is_empty() {
        let message = "no combination of these versions works together, as `incompatible` says";
        return Err(source.diagnostic_at(&file.versions, message, None));
    }
    Ok(matrix)
}

fn parts(
    source: &Source,
    written: &Spanned<BTreeMap<Part, Vec<Spanned<String>>>>,
) -> Result<BTreeMap<Part, Vec<Version>>, Box<Diagnostic>> {
    whole(source, written)?;
    let mut parts = BTreeMap::new();
    for (part, texts) in &written.value {
        if texts.is_empty() {
            return Err(source.diagnostic_at(written, format!("{part} has no version"), None));
        }
        let mut versions: Vec<Version> = Vec::new();
        for text in texts {
            let version = version(source, text)?;
            if versions.contains(&version) {
                let message = format!("{part} {version} is here twice");
                return Err(source.diagnostic_at(text, message, None));
            }
            versions.push(version);
        }
        versions.sort_unstable_by(|one, other| other.cmp(one));
        parts.insert(*part, versions);
    }
    Ok(parts)
}

/// Looks whether a cluster can be made of these parts.
fn whole<T>(source: &Source, parts: &Spanned<BTreeMap<Part, T>>) -> Result<(), Box<Diagnostic>> {
    let has = |part: Part| parts.value.contains_key(&part);
    if let Some(lacks) = [Part::Kubernetes, Part::Cilium].into_iter().find(|it| !has(*it)) {
        return Err(source.diagnostic_at(parts, format!("there is no version of {lacks}"), None));
    }
    if has(Part::Istio) != has(Part::GatewayApi) {
        let message = "a mesh has versions of both istio and gateway-api";
        let help = "name both, or none for clusters without a mesh";
        return Err(source.diagnostic_at(parts, message, Some(help)));
    }
    Ok(())
}

fn version(source: &Source, text: &Spanned<String>) -> Result<Version, Box<Diagnostic>> {
    Version::parse(&text.value).map_err(|error| {
        let message = format!("`{}` is no version: {error}", text.value);
        source.diagnostic_at(text, message, Some("write all three numbers, such as `1.20.2`"))
    })
}

fn incompatibility(
    source: &Source,
    written: &IncompatibilityFile,
    matrix: &Matrix,
) -> Result<Incompatibility, Box<Diagnostic>> {
    let IncompatibilityFile { versions: at, because, source: link } = written;
    let ranges = Versions::read(source, &at.value)?;
    if let Some(unknown) = ranges.parts().find(|part| !matrix.versions.contains_key(part)) {
        let message = format!("this matrix has no versions of {unknown}");
        return Err(source.diagnostic_at(at, message, None));
    }
    if at.value.len() < 2 {
        let message = "an incompatibility is between two parts at least";
        let help = "a version that works with nothing is no supported one: leave it out";
        return Err(source.diagnostic_at(at, message, Some(help)));
    }
    if because.value.trim().is_empty() {
        return Err(source.diagnostic_at(because, "nobody says what goes wrong", None));
    }
    if !link.value.starts_with("https://") {
        let message = "a source is an address that begins with `https://`";
        return Err(source.diagnostic_at(link, message, Some("say where this can be read")));
    }
    let known = Incompatibility {
        ranges,
        because: because.value.trim().to_owned(),
        source: link.value.clone(),
    };
    if matrix.incompatible.iter().any(|it| it.ranges == known.ranges) {
        return Err(source.diagnostic_at(at, "these ranges are here twice", None));
    }
    if !matrix.product().iter().any(|it| known.rules_out(it)) {
        let help = "it was about versions that are not supported any more: leave it out";
        let message = "no combination of the versions above is in these ranges";
        return Err(source.diagnostic_at(at, message, Some(help)));
    }
    Ok(known)
}

fn bundled(
    source: &Source,
    written: &Spanned<BTreeMap<Part, Spanned<String>>>,
    matrix: &Matrix,
) -> Result<Combination, Box<Diagnostic>> {
    whole(source, written)?;
    let parts = written.value.iter();
    let parts = parts.map(|(part, text)| Ok((*part, version(source, text)?)));
    let combination = Combination(parts.collect::<Result<_, Box<Diagnostic>>>()?);
    let all = matrix.product();
    if all.contains(&combination) || matrix.bundled.contains(&combination) {
        let message = format!("{combination} is in the matrix already");
        return Err(source.diagnostic_at(written, message, None));
    }
    Ok(combination)
}
