//! Combinations of versions: which are supported, which are known not to work together, and which of them a nightly run
//! takes.
//!
//! Pure: a file says the versions and the incompatibilities ([`mod@file`]), and what is selected follows from it alone
//! (`selection.rs`). This room must not know how a cluster of a combination is made, nor what cases come to on it.

pub mod file;
mod selection;
pub mod upgrade;

use std::collections::BTreeMap;
use std::fmt;

use semver::Version;

use crate::suite::{Part, Versions};

pub use file::read;
pub use selection::{Apart, Selection};

/// A version of every part of a cluster: a cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Combination(BTreeMap<Part, Version>);

impl Combination {
    /// The version of a part; a cluster without a mesh has none of Istio.
    pub fn version(&self, part: Part) -> Option<String> {
        self.0.get(&part).map(ToString::to_string)
    }

    /// The versions, by the name of the part.
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(part, version)| (part.to_string(), version.to_string())).collect()
    }

    /// Its versions in few letters, for names of clusters: `1-36-3-1-20-2-1-31-1-1-6-1`.
    pub fn short(&self) -> String {
        let versions: Vec<String> = self.0.values().map(ToString::to_string).collect();
        let kept =
            |it: char| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '-' };
        versions.join("-").chars().map(kept).collect()
    }

    fn has(&self, part: Part, version: &Version) -> bool {
        self.0.get(&part) == Some(version)
    }
}

impl fmt::Display for Combination {
    /// Its name, such as `k8s-1.36.3_cilium-1.20.2_istio-1.31.1_gwapi-1.6.1`. It does not depend on what else the matrix has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (part, version)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "_" };
            write!(f, "{separator}{}-{version}", short(*part))?;
        }
        Ok(())
    }
}

const fn short(part: Part) -> &'static str {
    match part {
        Part::Kubernetes => "k8s",
        Part::Cilium => "cilium",
        Part::Istio => "istio",
        Part::GatewayApi => "gwapi",
    }
}

/// Versions that are known not to work together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatibility {
    ranges: Versions,
    /// What goes wrong.
    pub because: String,
    /// Where that is said.
    pub source: String,
}

impl Incompatibility {
    fn rules_out(&self, combination: &Combination) -> bool {
        self.ranges.exclude(&combination.versions()).is_none()
    }
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.ranges.to_strings().collect();
        write!(f, "{}: {} ({})", ranges.join(" and "), self.because, self.source)
    }
}

/// The supported versions, and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// The profile whose clusters get the versions of a combination.
    pub profile: String,
    /// By part, newest first.
    versions: BTreeMap<Part, Vec<Version>>,
    incompatible: Vec<Incompatibility>,
    bundled: Vec<Combination>,
}

impl Matrix {
    /// The combination of that name, one of a bundle included.
    pub fn named(&self, name: &str) -> Option<Combination> {
        let all = self.compatible().into_iter().chain(self.bundled.iter().cloned());
        all.into_iter().find(|it| it.to_string() == name)
    }

    /// Why a combination of these versions is none, if its name is one that the versions could have.
    pub fn ruled_out(&self, name: &str) -> Option<&Incompatibility> {
        let combination = self.product().into_iter().find(|it| it.to_string() == name)?;
        self.incompatible.iter().find(|it| it.rules_out(&combination))
    }

    /// Whether a combination is one that only a bundle has.
    pub fn is_bundled(&self, combination: &Combination) -> bool {
        self.bundled.contains(combination)
    }

    /// Every combination, newest first, whether its parts work together or not.
    fn product(&self) -> Vec<Combination> {
        let start = vec![Combination(BTreeMap::new())];
        self.versions.iter().fold(start, |combinations, (part, versions)| {
            let with = |combination: &Combination, version: &Version| {
                let mut combination = combination.clone();
                combination.0.insert(*part, version.clone());
                combination
            };
            let longer = |it: Combination| -> Vec<Combination> {
                versions.iter().map(|version| with(&it, version)).collect()
            };
            combinations.into_iter().flat_map(longer).collect()
        })
    }

    /// Every combination whose parts are not known not to work together, newest first.
    fn compatible(&self) -> Vec<Combination> {
        let works = |it: &Combination| !self.incompatible.iter().any(|known| known.rules_out(it));
        self.product().into_iter().filter(works).collect()
    }
}
