//! Which cases a run takes, by filter and by what the profile's fabric has, and in which order.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ztc_engine::expected::{Day, Entry};
use ztc_engine::profile::{LaneKind, Profile};
use ztc_model::lane::keeps_to_its_lane;
use ztc_model::suite::{Case, Suite};
use ztc_model::world::World;

use crate::ground::Ground;
use crate::project::Suites;

/// A case and whether the fabric can run it.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The case.
    pub case: Case,
    /// What the fabric lacks for it, if it lacks something.
    pub lacks: Option<String>,
    /// The failure that is known of it here, if one is.
    pub expected_failure: Option<Entry>,
}

impl Selected {
    /// The name of the case as a test: `PROFILE::SUITE::CASE`.
    pub fn test_name(&self, profile: &Profile) -> String {
        format!("{}::{}", profile.profile, self.case.id)
    }

    /// The line of the case in a list, on this day.
    pub fn line(&self, profile: &Profile, today: Day) -> String {
        let name = self.test_name(profile);
        match (&self.lacks, &self.expected_failure) {
            (Some(lacks), _) => format!("{name} (ignored: {lacks})"),
            (None, Some(Entry { comes_to, issue, until, .. })) => {
                let how = if *until < today { "was expected" } else { "is expected" };
                format!("{name} ({comes_to} {how} until {until}: {issue})")
            }
            (None, None) => name,
        }
    }
}

/// One part of the cases of a run, for several machines that have a part each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part, from 1.
    part: usize,
    /// Of how many.
    parts: usize,
}

/// A text that names no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write I/N, such as `2/4`: the second of four parts")]
pub struct NotAShard;

impl FromStr for Shard {
    type Err = NotAShard;

    fn from_str(text: &str) -> Result<Self, NotAShard> {
        let (part, parts) = text.split_once('/').ok_or(NotAShard)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_error| NotAShard);
        let (part, parts) = (number(part)?, number(parts)?);
        if part == 0 || part > parts { Err(NotAShard) } else { Ok(Self { part, parts }) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.parts)
    }
}

impl Shard {
    /// The cases of the part. Each is in one part, and those that stand together stay together, as a world costs more than a
    /// case.
    pub fn of<T>(self, mut cases: Vec<T>) -> Vec<T> {
        let end = |part: usize| cases.len() * part / self.parts;
        let (begin, end) = (end(self.part - 1), end(self.part));
        cases.truncate(end);
        cases.split_off(begin)
    }
}

/// All cases, in the order of the suites, each with what the ground lacks for it.
pub fn all(suites: &Suites, ground: &Ground) -> Vec<Selected> {
    let of_suite = |suite: &Suite| -> Vec<Selected> {
        let world = &suites.worlds[&suite.world];
        let selected = |case: &Case| Selected {
            lacks: ground.lacks(case, &suite.needs, world),
            expected_failure: ground.expected_failure(case, &suites.expected_failures),
            case: case.clone(),
        };
        suite.cases.iter().map(selected).collect()
    };
    suites.suites.iter().flat_map(of_suite).collect()
}

/// The cases whose test name contains the filter; all of them without one.
pub fn matching(all: Vec<Selected>, filter: Option<&str>, profile: &Profile) -> Vec<Selected> {
    let filter = filter.unwrap_or_default();
    all.into_iter().filter(|it| it.test_name(profile).contains(filter)).collect()
}

/// There is no one case that was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOne {
    /// No case has the text in its name.
    #[error("no case has `{text}` in its name; `ztc list` shows them all")]
    None {
        /// What was asked for.
        text: String,
    },
    /// Several have, and none is called so.
    #[error("`{text}` is in the name of {} cases; name one of them:\n{}", cases.len(), cases.join("\n"))]
    Many {
        /// What was asked for.
        text: String,
        /// The names of the cases, set in.
        cases: Vec<String>,
    },
}

/// Of those that have a text in their names, the one whose case is called so, or else the only one.
///
/// # Errors
/// Where there is none, or several.
pub fn the_one<T>(mut found: Vec<T>, text: &str, case: impl Fn(&T) -> &Case) -> Result<T, NotOne> {
    let called_so = found.iter().position(|it| case(it).id.as_str() == text);
    let text = text.to_owned();
    match (called_so, found.len()) {
        (Some(index), _) => Ok(found.swap_remove(index)),
        (None, 1) => Ok(found.remove(0)),
        (None, 0) => Err(NotOne::None { text }),
        (None, _) => {
            let cases = found.iter().map(|it| format!("  {}", case(it).id)).collect();
            Err(NotOne::Many { text, cases })
        }
    }
}

/// The order in which a run tells of its cases, and in which lanes that share a cluster take them (`ztc_engine::turns`): those
/// of one world after the other, as a lane has one at a time, and worlds in the order of their first cases. Where lanes share a
/// cluster, the cases of a world that run alone come first: copies of the world are not there yet, whose endpoints would be
/// regenerated with every clusterwide policy.
pub fn in_turn(
    cases: Vec<Selected>,
    profile: &Profile,
    worlds: &BTreeMap<String, Arc<World>>,
) -> Vec<Selected> {
    let mut order: BTreeMap<String, usize> = BTreeMap::new();
    for selected in &cases {
        let next = order.len();
        order.entry(selected.case.world.clone()).or_insert(next);
    }
    let shared = profile.lanes.each == LaneKind::Namespaces && profile.lanes.count > 1;
    let goes_beside = |case: &Case| {
        let world = worlds.get(&case.world);
        shared && world.is_some_and(|world| keeps_to_its_lane(case, world).is_ok())
    };
    let mut cases = cases;
    cases.sort_by_cached_key(|it| (order[&it.case.world], goes_beside(&it.case)));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    /// The order on a profile with so many lanes, and that of the suites.
    fn turns(profile: &str, lanes: usize) -> (Vec<Selected>, Vec<Selected>, Profile) {
        let project = Project::at(Project::sources());
        let suites = project.suites().unwrap();
        let mut profile = project.profile(profile).unwrap();
        profile.lanes.count = lanes;
        let cases = suites.suites.iter().flat_map(|suite| &suite.cases);
        let selected =
            |it: &Case| Selected { case: it.clone(), lacks: None, expected_failure: None };
        let cases: Vec<_> = cases.map(selected).collect();
        (in_turn(cases.clone(), &profile, &suites.worlds), cases, profile)
    }

    fn names<'a>(cases: impl IntoIterator<Item = &'a Selected>) -> Vec<&'a str> {
        cases.into_iter().map(|it| it.case.id.as_str()).collect()
    }

    #[test]
    fn every_case_is_in_one_part() {
        for (cases, parts) in [(10, 1), (10, 3), (3, 10), (0, 2), (231, 7)] {
            let all: Vec<usize> = (0..cases).collect();
            let taken = (1..=parts).flat_map(|part| Shard { part, parts }.of(all.clone()));
            assert_eq!(taken.collect::<Vec<_>>(), all, "{cases} cases in {parts} parts");
        }
        assert_eq!("2/4".parse(), Ok(Shard { part: 2, parts: 4 }));
        for text in ["", "2", "0/4", "5/4", "1/0", "a/b", "1/2/3", "-1/2"] {
            assert_eq!(text.parse::<Shard>(), Err(NotAShard), "{text}");
        }
    }

    #[test]
    fn cases_of_a_world_are_taken_together_and_none_is_lost() {
        for (profile, lanes) in [("lab", 6), ("kind", 1), ("kind", 3)] {
            let (turns, cases, _) = turns(profile, lanes);
            let mut worlds: Vec<&str> = turns.iter().map(|it| it.case.world.as_str()).collect();
            worlds.dedup();
            let times = worlds.len();
            worlds.sort_unstable();
            worlds.dedup();
            assert_eq!(times, worlds.len(), "a world comes twice on {profile}");
            let (mut taken, mut all) = (names(&turns), names(&cases));
            taken.sort_unstable();
            all.sort_unstable();
            assert_eq!(taken, all);
        }
    }

    #[test]
    fn within_a_world_the_order_is_that_of_the_suites_where_nothing_runs_alone() {
        for (profile, lanes) in [("lab", 6), ("kind", 1)] {
            let (turns, cases, _) = turns(profile, lanes);
            let of = |all: &[Selected], world: &str| {
                let all = all.iter().filter(|it| it.case.world == world);
                all.map(|it| it.case.id.to_string()).collect::<Vec<_>>()
            };
            for world in ["two-teams", "bank", "node-network"] {
                assert_eq!(of(&turns, world), of(&cases, world), "{profile}");
            }
        }
    }

    #[test]
    fn where_lanes_share_a_cluster_what_runs_alone_comes_first_in_its_world() {
        let (turns, _, profile) = turns("kind", 3);
        assert_eq!(profile.lanes.each, LaneKind::Namespaces);
        let suites = Project::at(Project::sources()).suites().unwrap();
        let beside: Vec<(&str, bool)> = turns
            .iter()
            .map(|it| {
                let world = &suites.worlds[&it.case.world];
                (it.case.world.as_str(), keeps_to_its_lane(&it.case, world).is_ok())
            })
            .collect();
        let mut turned = beside.clone();
        turned.dedup();
        let of =
            |world| turned.iter().filter(|it| it.0 == world).map(|it| it.1).collect::<Vec<_>>();
        assert_eq!(of("two-teams"), [false, true]);
    }
}
