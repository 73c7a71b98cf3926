//! Which combinations of a matrix are taken. The same matrix gives the same ones in the same order, however its file is
//! ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use semver::Version;

use super::upgrade::phases;
use super::{Combination, Incompatibility, Matrix};
use crate::suite::Part;

/// Which combinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All whose parts work together.
    All,
    /// So many that any two versions that can be together are together in one of them; the newest is the first.
    Pairwise,
    /// The one with the newest versions.
    Newest,
    /// The one with the oldest.
    Oldest,
    /// Those that only bundles have.
    Bundled,
}

/// A version of a part.
type One = (Part, Version);

/// Two versions that are together in no combination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// The two, each with its part.
    pub pair: [String; 2],
    /// The incompatibility that says so; without one, several leave no combination between them.
    pub because: Option<Incompatibility>,
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pair: [one, other], because } = self;
        write!(f, "{one} and {other} are never together: ")?;
        match because {
            Some(known) => write!(f, "{} ({})", known.because, known.source),
            None => f.write_str("incompatibilities with other parts leave no combination of both"),
        }
    }
}

impl Matrix {
    /// The combinations of a selection. Those of a bundle alone are in no other one.
    pub fn select(&self, selection: Selection) -> Vec<Combination> {
        match selection {
            Selection::All => self.compatible(),
            Selection::Pairwise => self.pairwise(),
            Selection::Newest => self.newest().into_iter().collect(),
            Selection::Oldest => self.oldest().into_iter().collect(),
            Selection::Bundled => self.bundled.clone(),
        }
    }

    /// Pairs of supported versions that no combination has.
    pub fn apart(&self) -> Vec<Apart> {
        let together: BTreeSet<[One; 2]> = self.compatible().iter().flat_map(pairs).collect();
        let all: BTreeSet<[One; 2]> = self.product().iter().flat_map(pairs).collect();
        let apart = all.difference(&together).map(|pair| {
            let [one, other] = pair;
            let alone = Combination(BTreeMap::from([one.clone(), other.clone()]));
            Apart {
                pair: [one, other].map(|(part, version)| format!("{part} {version}")),
                because: self.incompatible.iter().find(|it| it.rules_out(&alone)).cloned(),
            }
        });
        apart.collect()
    }

    /// How many newer versions of its parts there are, all together.
    fn age(&self, combination: &Combination) -> usize {
        let ages = self.versions.iter().map(|(part, versions)| {
            versions.iter().position(|it| combination.has(*part, it)).unwrap_or_default()
        });
        ages.sum()
    }

    /// The upgrades that a night makes: to the newest combination, from each that has another version of one part alone.
    pub fn upgrades(&self) -> Vec<[Combination; 2]> {
        let Some(newest) = self.newest() else { return Vec::new() };
        let differs =
            |it: &Combination| it.0.iter().filter(|one| !newest.has(*one.0, one.1)).count();
        let is_next = |it: &Combination| {
            differs(it) == 1 && phases(&it.versions(), &newest.versions()).is_ok()
        };
        let from = self.compatible().into_iter().filter(is_next);
        from.map(|it| [it, newest.clone()]).collect()
    }

    fn newest(&self) -> Option<Combination> {
        self.compatible().into_iter().min_by_key(|it| self.age(it))
    }

    fn oldest(&self) -> Option<Combination> {
        self.compatible().into_iter().max_by_key(|it| self.age(it))
    }

    /// Greedy: always the one with the most pairs that none has yet, the newer of equals.
    fn pairwise(&self) -> Vec<Combination> {
        let candidates = self.compatible();
        let mut missing: BTreeSet<[One; 2]> = candidates.iter().flat_map(pairs).collect();
        let mut taken = Vec::new();
        let mut next = self.newest();
        while let Some(combination) = next {
            for pair in pairs(&combination) {
                missing.remove(&pair);
            }
            taken.push(combination);
            let brings =
                |it: &&Combination| pairs(it).filter(|pair| missing.contains(pair)).count();
            // The last of equals would be taken: from the oldest on, that is the newest.
            let best = candidates.iter().rev().max_by_key(brings);
            next = best.filter(|it| brings(it) > 0).cloned();
        }
        taken
    }
}

/// All pairs of versions in a combination.
fn pairs(combination: &Combination) -> impl Iterator<Item = [One; 2]> + use<> {
    let ones: Vec<One> = combination.0.clone().into_iter().collect();
    let mut pairs = Vec::new();
    for (index, one) in ones.iter().enumerate() {
        pairs.extend(ones.iter().skip(index + 1).map(|other| [one.clone(), other.clone()]));
    }
    pairs.into_iter()
}
