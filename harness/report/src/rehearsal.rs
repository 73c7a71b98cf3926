//! A run on the lab is a rehearsal, and everything that shows one says so (`docs/adr/0001`).

use std::collections::BTreeMap;

use ztc_engine::event::RunStarted;

/// The fabric that rehearses, as [`RunStarted::fabric`] names it.
const LAB: &str = "lab";

/// What a rehearsal is, for whoever reads its result.
pub(crate) const MEANING: &str = "a rehearsal: it counts once a real cluster shows the same";

/// Whether a run proves nothing about a real cluster.
pub(crate) fn is_rehearsal(run: &RunStarted) -> bool {
    run.fabric == LAB
}

/// The cases of a rehearsal that were never seen on a real cluster, by suite; nothing where there are none.
pub(crate) fn unproven(run: &RunStarted) -> Option<String> {
    let mut by_suite: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &run.unproven {
        *by_suite.entry(case.suite()).or_default() += 1;
    }
    let suites: Vec<String> = by_suite.iter().map(|(suite, it)| format!("{suite} {it}")).collect();
    let (few, all) = (run.unproven.len(), run.cases.len());
    (few > 0).then(|| format!("{few} of {all} cases on a real data plane: {}", suites.join(", ")))
}

#[cfg(test)]
mod tests {
    use ztc_engine::event::EventKind;
    use ztc_model::suite::CaseId;

    use super::*;
    use crate::sample;

    #[test]
    fn unproven_cases_are_counted_by_suite() {
        let EventKind::RunStarted(run) = sample::run().remove(0).kind else { panic!("no run") };
        assert_eq!(unproven(&run), None);
        let unproven_cases = ["one", "two"].map(|case| CaseId::new("l6-fqdn", case)).to_vec();
        let run = RunStarted { unproven: unproven_cases, cases: Vec::new(), ..run };
        let told = "2 of 0 cases on a real data plane: l6-fqdn 2";
        assert_eq!(unproven(&run).as_deref(), Some(told));
    }
}
