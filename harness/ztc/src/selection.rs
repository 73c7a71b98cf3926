//! Which cases a run takes: by filter, and by what the profile's fabric has.

use ztc_engine::profile::Profile;
use ztc_model::suite::{Case, Suite};

use crate::ground::Ground;
use crate::project::Suites;

/// A case and whether the fabric can run it.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The case.
    pub case: Case,
    /// What the fabric lacks for it, if it lacks something.
    pub lacks: Option<String>,
}

impl Selected {
    /// The name of the case as a test: `PROFILE::SUITE::CASE`.
    pub fn test_name(&self, profile: &Profile) -> String {
        format!("{}::{}", profile.profile, self.case.id)
    }
}

/// All cases, in the order of the suites, each with what the ground lacks for it.
pub fn all(suites: &Suites, ground: &Ground) -> Vec<Selected> {
    let of_suite = |suite: &Suite| -> Vec<Selected> {
        let world = &suites.worlds[&suite.world];
        let selected = |case: &Case| Selected {
            lacks: ground.lacks(case, &suite.needs, world),
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
