//! Failures that are known: what a case may come to without being news, and until when.
//!
//! Pure. Which entries of `suites/expected-failures.yaml` are about a run is found out where runs are made; this room only
//! holds what a case came to against its entry. It must not read a clock: the day of the run comes in.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use ztc_model::verdict::{Failure, Verdict};

/// A failure of a case that is known, and that this run is one of those it is known of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What the case comes to.
    pub comes_to: FailureKind,
    /// Where it is followed: an address that begins with `https://`.
    pub issue: String,
    /// The last day on which it is expected.
    pub until: Day,
    /// Why it is so, one sentence.
    pub because: String,
    /// Where it is written: file and line.
    pub place: String,
}

/// What a case came to beside the failure that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFailure {
    /// What is known.
    pub entry: Entry,
    /// How the case stands to it.
    pub standing: Standing,
}

/// How a case stands to the failure that is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It came to this failure and to nothing else. That is no pass, and no news.
    AsExpected,
    /// It passed: the entry has to go.
    UnexpectedPass,
    /// It came to something else, or to something else besides: the entry covers nothing of it.
    Otherwise,
    /// The entry has expired, and covers nothing any more.
    Expired,
}

/// The ways to fail. There is none for what is inconclusive: that there is no proof is never expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// A flow that must be denied got through, or was in clear: a leak.
    FailOpen,
    /// A flow that must pass did not.
    FailClosed,
    /// Denied, but by somebody else or in another form.
    WrongLayer,
    /// Denied by the right enforcement point, which names another policy.
    WrongPolicy,
    /// A controller says something else of a policy or a service.
    WrongCondition,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::FailOpen,
        Self::FailClosed,
        Self::WrongLayer,
        Self::WrongPolicy,
        Self::WrongCondition,
    ];

    /// That of a verdict; nothing where it is no failure.
    pub const fn of(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Pass | Verdict::Inconclusive(_) => None,
            Verdict::Fail(Failure::FailOpen { .. } | Failure::InClear { .. }) => {
                Some(Self::FailOpen)
            }
            Verdict::Fail(Failure::FailClosed { .. }) => Some(Self::FailClosed),
            Verdict::Fail(Failure::WrongLayer { .. }) => Some(Self::WrongLayer),
            Verdict::Fail(Failure::WrongPolicy { .. }) => Some(Self::WrongPolicy),
            Verdict::Fail(Failure::WrongCondition { .. }) => Some(Self::WrongCondition),
        }
    }

    /// The word for it, that of the verdict.
    pub const fn word(self) -> &'static str {
        match self {
            Self::FailOpen => "fail-open",
            Self::FailClosed => "fail-closed",
            Self::WrongLayer => "wrong-layer",
            Self::WrongPolicy => "wrong-policy",
            Self::WrongCondition => "wrong-condition",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A day of the calendar, in UTC: `2026-11-30`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Day(Date);

/// A text that is no day.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no day; write the year, the month and the day, such as `2026-11-30`")]
pub struct NotADay(String);

impl Day {
    /// The day of a moment.
    pub fn of(moment: jiff::Timestamp) -> Self {
        Self(moment.to_zoned(TimeZone::UTC).date())
    }
}

impl FromStr for Day {
    type Err = NotADay;

    fn from_str(text: &str) -> Result<Self, NotADay> {
        let not_a_day = || NotADay(text.to_owned());
        let day = Self(text.parse().map_err(|_error| not_a_day())?);
        // A date with a time, or in another form, is read as one, too.
        if day.to_string() == text { Ok(day) } else { Err(not_a_day()) }
    }
}

impl TryFrom<String> for Day {
    type Error = NotADay;

    fn try_from(text: String) -> Result<Self, NotADay> {
        text.parse()
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Entry {
    /// Whether it covers nothing any more on this day.
    pub fn has_expired(&self, today: Day) -> bool {
        today > self.until
    }

    /// How a case stands to it on this day: `whole` is what the case came to, `parts` are its cells and conditions.
    ///
    /// What is known of a case is one way to fail. A cell that fails in another way, or of which there is no proof, is not
    /// known, even where the worst of the case is.
    pub fn standing<'a, I: IntoIterator<Item = &'a Verdict>>(
        &self,
        today: Day,
        whole: &Verdict,
        parts: I,
    ) -> Standing {
        let is_it = |verdict: &Verdict| FailureKind::of(verdict) == Some(self.comes_to);
        if self.has_expired(today) {
            Standing::Expired
        } else if *whole == Verdict::Pass {
            Standing::UnexpectedPass
        } else if is_it(whole) && parts.into_iter().all(|it| *it == Verdict::Pass || is_it(it)) {
            Standing::AsExpected
        } else {
            Standing::Otherwise
        }
    }
}

#[cfg(test)]
mod tests {
    use ztc_model::manifest::ObjectRef;
    use ztc_model::verdict::Doubt;

    use super::*;

    fn entry(comes_to: FailureKind) -> Entry {
        Entry {
            comes_to,
            issue: "https://github.com/cilium/cilium/issues/1".to_owned(),
            until: "2026-12-31".parse().unwrap(),
            because: "It is so.".to_owned(),
            place: "suites/expected-failures.yaml:5".to_owned(),
        }
    }

    /// A verdict of every kind, and the two that are leaks.
    fn verdicts() -> Vec<Verdict> {
        let text = String::new;
        let object = || ObjectRef {
            api_version: text(),
            kind: "CiliumNetworkPolicy".to_owned(),
            namespace: None,
            name: "deny".to_owned(),
        };
        let failures = [
            Failure::FailOpen { seen: text(), after_ms: 1 },
            Failure::InClear { node: text(), seen: text() },
            Failure::FailClosed { seen: text(), stopped_by: None },
            Failure::WrongLayer { expected: text(), found: text() },
            Failure::WrongPolicy { expected: object(), found: Vec::new() },
            Failure::WrongCondition { object: Box::new(object()), expected: text(), found: text() },
        ];
        let others = [Verdict::Pass, Verdict::Inconclusive(Doubt::Interrupted)];
        others.into_iter().chain(failures.map(Verdict::Fail)).collect()
    }

    /// The standing of a case with two cells.
    fn standing(entry: &Entry, today: &str, cells: [&Verdict; 2]) -> Standing {
        let whole = Verdict::worst(cells.into_iter().cloned());
        entry.standing(today.parse().unwrap(), &whole, cells)
    }

    #[test]
    fn every_verdict_has_one_standing_to_every_entry() {
        for known in FailureKind::ALL {
            let entry = entry(known);
            for one in verdicts() {
                for other in verdicts() {
                    let words = [one.word(), other.word()];
                    let only = |allowed: &[&str]| words.iter().all(|it| allowed.contains(it));
                    let expected = if only(&["pass"]) {
                        Standing::UnexpectedPass
                    } else if only(&["pass", known.word()]) {
                        Standing::AsExpected
                    } else {
                        Standing::Otherwise
                    };
                    let cells = [&one, &other];
                    assert_eq!(
                        standing(&entry, "2026-12-31", cells),
                        expected,
                        "{known}: {words:?}"
                    );
                    assert_eq!(standing(&entry, "2027-01-01", cells), Standing::Expired);
                }
            }
        }
    }

    #[test]
    fn a_leak_is_covered_by_its_own_word_alone_and_covers_nothing_else() {
        for verdict in verdicts() {
            let leaks = matches!(&verdict, Verdict::Fail(failure) if failure.is_leak());
            for known in FailureKind::ALL {
                let covered = standing(&entry(known), "2026-11-30", [&verdict, &Verdict::Pass])
                    == Standing::AsExpected;
                let says_so = known == FailureKind::FailOpen;
                assert!(!covered || leaks == says_so, "{known} covers {verdict}");
                assert!(covered || !(leaks && says_so), "{known} does not cover {verdict}");
            }
        }
    }

    #[test]
    fn what_could_not_be_begun_is_not_known() {
        let doubt = Verdict::Inconclusive(Doubt::Fabric("no lane".to_owned()));
        let today = "2026-11-30".parse().unwrap();
        let standing = entry(FailureKind::FailClosed).standing(today, &doubt, []);
        assert_eq!(standing, Standing::Otherwise);
    }

    #[test]
    fn kinds_have_the_words_of_their_verdicts() {
        for verdict in verdicts() {
            let kind = FailureKind::of(&verdict);
            assert_eq!(kind.is_some(), matches!(verdict, Verdict::Fail(_)), "{verdict}");
            let Some(kind) = kind else { continue };
            assert_eq!(kind.word(), verdict.word());
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert!(FailureKind::ALL.contains(&kind));
        }
    }

    #[test]
    fn a_day_is_written_in_one_way_and_survives_being_stored() {
        let day: Day = "2026-11-30".parse().unwrap();
        assert_eq!(serde_json::to_value(day).unwrap(), "2026-11-30");
        assert_eq!(serde_json::from_str::<Day>("\"2026-11-30\"").unwrap(), day);
        for text in ["", "soon", "2026-13-01", "2026-02-30", "30.11.2026", "2026-1-1", "20261130"] {
            assert_eq!(text.parse::<Day>(), Err(NotADay(text.to_owned())));
        }
        for text in ["2026-11-30T00:00", "2026-11-30 ", "+002026-11-30", "2026-11-30T23:00Z"] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
        let late: jiff::Timestamp = "2026-12-01T01:30:00+02:00".parse().unwrap();
        assert_eq!(Day::of(late), day, "days are those of UTC");
    }
}
