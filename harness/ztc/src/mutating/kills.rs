//! Which cases have killed mutants of which policies so far: what has noticed that one rule of a policy is gone is likely to
//! notice another one, too. It says who is asked first, and nothing else depends on it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ztc_model::mutation::Mutant;
use ztc_model::suite::{Case, CaseId};

/// How many mutants each case has killed, by the place of their policy.
#[derive(Debug, Default)]
pub(super) struct Kills(BTreeMap<String, BTreeMap<CaseId, usize>>);

impl Kills {
    /// Notes who has killed a mutant.
    pub(super) fn note(&mut self, mutant: &Mutant, by: &CaseId) {
        let of_its_policy = self.0.entry(mutant.place()).or_default();
        *of_its_policy.entry(by.clone()).or_default() += 1;
    }

    /// The cases in the order in which they are likely to kill a mutant: those first that have killed the most of its policy,
    /// and all others as they come.
    pub(super) fn likeliest<'a>(&self, mutant: &Mutant, mut cases: Vec<&'a Case>) -> Vec<&'a Case> {
        if let Some(of_its_policy) = self.0.get(&mutant.place()) {
            cases.sort_by_key(|it| Reverse(of_its_policy.get(&it.id).copied().unwrap_or_default()));
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use ztc_model::mutation::mutants;

    use super::*;
    use crate::project::Project;

    #[test]
    fn who_has_killed_mutants_of_the_same_policy_is_asked_first() {
        let suites = Project::at(Project::sources()).suites().unwrap();
        let cases: Vec<&Case> = suites.suites.iter().flat_map(|it| &it.cases).collect();
        let all = mutants(cases.iter().copied());
        let candidates = |it: &Mutant| it.candidates(cases.iter().copied());
        let several = |it: &&Mutant| candidates(it).len() > 2;
        let (first, last) = (all.iter().find(several).unwrap(), all.iter().rfind(several).unwrap());
        assert_ne!(first.place(), last.place());
        let ids = |kills: &Kills, mutant: &Mutant| -> Vec<CaseId> {
            let order = kills.likeliest(mutant, candidates(mutant));
            order.into_iter().map(|it| it.id.clone()).collect()
        };
        let mut kills = Kills::default();
        let [as_they_come, elsewhere] = [first, last].map(|it| ids(&kills, it));
        let [one, another, third, ..] = as_they_come.as_slice() else { panic!("{as_they_come:?}") };
        for by in [third, another, third] {
            kills.note(first, by);
        }
        assert_eq!(ids(&kills, first)[..3], [third.clone(), another.clone(), one.clone()]);
        assert_eq!(ids(&kills, last), elsewhere, "another policy");
    }
}
