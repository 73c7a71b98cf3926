//! The versions that a case is about. What an upstream project changes is expected of some versions, and its opposite of
//! the others.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use semver::{Comparator, Prerelease, Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::yaml::{Diagnostic, Source, Spanned};

/// A part of a cluster that has a version.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Kubernetes.
    Kubernetes,
    /// Cilium.
    Cilium,
    /// Istio.
    Istio,
    /// The resource definitions of the Gateway API.
    GatewayApi,
}

impl Part {
    /// All of them, in the order in which names of combinations have them.
    pub const ALL: [Self; 4] = [Self::Kubernetes, Self::Cilium, Self::Istio, Self::GatewayApi];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kubernetes => "kubernetes",
            Self::Cilium => "cilium",
            Self::Istio => "istio",
            Self::GatewayApi => "gateway-api",
        })
    }
}

/// Ranges of versions, by part; none is about all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions(BTreeMap<Part, VersionReq>);

/// What the reason why a case is about other versions begins with. Reasons are stored as they are told.
const ABOUT: &str = "it is about ";

/// Whether a case was left out for this reason because it is about other versions, and for nothing that is lacking.
pub fn is_about_others(reason: &str) -> bool {
    reason.starts_with(ABOUT)
}

impl Versions {
    /// Why a cluster of these versions, by the name of the part, is none that this is about.
    pub fn exclude(&self, cluster: &BTreeMap<String, String>) -> Option<String> {
        self.0.iter().find_map(|(part, range)| {
            let Some(version) = cluster.get(&part.to_string()) else {
                return Some(format!(
                    "{ABOUT}{part} {range}, and the profile says no version of it"
                ));
            };
            match Version::parse(version) {
                Err(_) => Some(format!("{ABOUT}{part} {range}, and {version} is no version")),
                Ok(it) if !range.matches(&released(&it)) => {
                    Some(format!("{ABOUT}{part} {range}, and here is {version}"))
                }
                Ok(_) => None,
            }
        })
    }

    /// Reads ranges, by part.
    ///
    /// # Errors
    /// A diagnostic at one that is none, or that no version is in.
    pub fn read(
        source: &Source,
        written: &BTreeMap<Part, Spanned<String>>,
    ) -> Result<Self, Box<Diagnostic>> {
        let range = |(part, text): (&Part, &Spanned<String>)| {
            let help = Some("write `>=1.20.0`, `<1.20.0` or `>=1.19.0, <1.20.3`");
            let range = text.value.parse::<VersionReq>().map_err(|error| {
                let message = format!("`{}` is no range of versions: {error}", text.value);
                source.diagnostic_at(text, message, help)
            })?;
            if is_empty(&range) {
                let message = format!("no version is in the range `{}`", text.value);
                return Err(source.diagnostic_at(text, message, help));
            }
            Ok((*part, range))
        };
        Ok(Self(written.iter().map(range).collect::<Result<_, _>>()?))
    }

    /// Whether it says nothing of any part.
    pub fn is_about_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts that it says something of.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        self.0.keys().copied()
    }

    /// Each range with its part.
    pub(crate) fn to_strings(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(part, range)| format!("{part} {range}"))
    }
}

/// The release that a version is of or leads to: `1.31.0` of `1.31.0-rc.1`. A range without a word of such versions would
/// leave them out.
fn released(version: &Version) -> Version {
    Version { pre: Prerelease::EMPTY, ..version.clone() }
}

/// Whether no release is in a range. If one is, then the first after one of its ends, or the first of all.
fn is_empty(range: &VersionReq) -> bool {
    let after = |it: &Comparator| {
        let (major, minor, patch) = (it.major, it.minor.unwrap_or(0), it.patch.unwrap_or(0));
        [
            Version::new(major, minor, patch),
            Version::new(major, minor, patch.saturating_add(1)),
            Version::new(major, minor.saturating_add(1), 0),
            Version::new(major.saturating_add(1), 0, 0),
        ]
    };
    let first = std::iter::once(Version::new(0, 0, 0));
    let mut candidates = first.chain(range.comparators.iter().flat_map(after));
    !candidates.any(|it| range.matches(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(part: Part, range: &str) -> Versions {
        Versions(BTreeMap::from([(part, range.parse().unwrap())]))
    }

    fn cluster(part: &str, version: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(part.to_owned(), version.to_owned())])
    }

    #[test]
    fn a_version_is_in_the_range_or_the_reason_says_both() {
        let since = about(Part::Cilium, ">=1.20.0");
        assert_eq!(since.exclude(&cluster("cilium", "1.20.2")), None);
        assert_eq!(
            since.exclude(&cluster("cilium", "1.19.6")).unwrap(),
            "it is about cilium >=1.20.0, and here is 1.19.6"
        );
        let unsaid = since.exclude(&cluster("istio", "1.31.1")).unwrap();
        assert!(unsaid.contains("says no version") && is_about_others(&unsaid));
        assert!(!is_about_others("kind lacks waypoint"));
        assert_eq!(Versions::default().exclude(&BTreeMap::new()), None);
    }

    #[test]
    fn what_leads_to_a_release_counts_as_the_release() {
        let since = about(Part::Istio, ">=1.31.0");
        assert_eq!(since.exclude(&cluster("istio", "1.31.0-bench")), None);
        assert!(since.exclude(&cluster("istio", "1.30.4-rc.1")).is_some());
    }

    #[test]
    fn a_range_without_a_version_is_known() {
        let some = ["*", "<0.0.1", ">1.2", ">1", "=1.20", "~1.20.3", "^0.1", ">=1.19, <1.20.3"];
        for some in some {
            assert!(!is_empty(&some.parse().unwrap()), "{some}");
        }
        for none in [">=1.21.0, <1.20.0", "<0.0.0", ">1.20.2, <1.20.3", "=1.20.2, =1.20.3"] {
            assert!(is_empty(&none.parse().unwrap()), "{none}");
        }
    }
}
