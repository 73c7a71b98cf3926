//! What is said of a failure that is known, beside what the case came to. It never takes the place of that.

use ztc_engine::event::CaseReport;
use ztc_engine::expected::{Entry, ExpectedFailure, Standing};

/// What is said of a case that came to the failure that is known of it, and of a whole run that has nothing worse.
pub(crate) const AS_EXPECTED: &str = "failed as expected";

/// What is said of a case that passed although a failure is known of it.
pub(crate) const UNEXPECTED: &str = "passed unexpectedly";

/// Whether a case came to the failure that is known of it.
pub(crate) fn is_as_expected(report: &CaseReport) -> bool {
    report.standing() == Some(Standing::AsExpected)
}

/// Whether a case passed although a failure is known of it.
pub(crate) fn is_unexpected_pass(report: &CaseReport) -> bool {
    report.standing() == Some(Standing::UnexpectedPass)
}

/// The rank of what there is no proof of. Between it and a pass there is room for what failed as expected.
pub(crate) const UNPROVEN: u8 = 2;

/// How bad a case is for the run: what failed as expected is less than what nobody expected, and no pass.
pub(crate) fn rank(report: &CaseReport) -> u8 {
    match report.standing() {
        Some(Standing::AsExpected) => UNPROVEN - 1,
        // As any other broken assertion that is no leak.
        Some(Standing::UnexpectedPass) => 2 * UNPROVEN,
        _ => report.verdict.severity() * UNPROVEN,
    }
}

/// What is known of a case and what that means for it, in a sentence; nothing where nothing is known.
pub(crate) fn words(report: &CaseReport) -> Option<String> {
    let ExpectedFailure { entry, standing } = report.expected_failure.as_deref()?;
    let Entry { comes_to, issue, until, because, place } = entry;
    Some(match standing {
        Standing::AsExpected => {
            format!("{comes_to} is known until {until}: {because} {issue}, {place}")
        }
        Standing::UnexpectedPass => format!(
            "{place} says that it comes to {comes_to}, and it passes: take the entry out, and look at {issue}"
        ),
        Standing::Otherwise => format!(
            "{place} says that it comes to {comes_to} and to nothing else, so that entry does not count; see {issue}"
        ),
        Standing::Expired => format!(
            "{place} says that it comes to {comes_to}, expired on {until} and does not count; look at {issue}, and take \
             the entry out or give it another day"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn what_is_known_is_said_with_its_issue_its_day_and_its_place() {
        let leak = || sample::known("fail-open", "2026-12-31", sample::fail_open());
        let told = [
            leak(),
            sample::known("fail-closed", "2026-12-31", sample::pass()),
            sample::known("fail-closed", "2026-12-31", sample::fail_open()),
            sample::known("fail-open", "2026-11-23", sample::fail_open()),
        ]
        .map(|report| words(&report).unwrap());
        insta::assert_snapshot!(told.join("\n"));
        assert_eq!(words(&sample::fail_open()), None);
    }

    #[test]
    fn what_failed_as_expected_is_better_than_any_news_and_no_pass() {
        let order = [
            sample::pass(),
            sample::known("fail-open", "2026-12-31", sample::fail_open()),
            sample::no_proof(),
            sample::fail_closed(),
            sample::fail_open(),
        ];
        let ranks = order.each_ref().map(rank);
        assert!(ranks.is_sorted_by(|one, other| one < other), "{ranks:?}");
        let passed = sample::known("fail-open", "2026-12-31", sample::pass());
        assert_eq!(rank(&passed), rank(&sample::fail_closed()));
    }
}
