//! What became of mutants: which were killed by a case, and which live on, with the reason that somebody gave.
//!
//! Pure: who runs the cases hands in what each mutant came to. A mutant is killed by a broken assertion alone; where nothing
//! better came of it than a case without proof, that is a class of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ztc_engine::event::{CaseReport, ExitStatus};
use ztc_model::suite::CaseId;
use ztc_model::verdict::{Doubt, Verdict};

use crate::console::count;
use crate::file::{self, FileError};
use crate::page::{Page, Tone, columns};

/// The version of the file; raised when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;
/// The name of the file.
pub const FILE: &str = "mutations.json";

/// What became of all mutants of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mutations {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of ztc.
    pub ztc: String,
    /// The profile that the cases ran on.
    pub profile: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Whether somebody asked to stop.
    pub interrupted: bool,
    /// The mutants, by file.
    pub mutants: Vec<MutantReport>,
    /// Names for which a reason is listed although they did not survive, and what they are instead.
    pub stale: BTreeMap<String, String>,
}

/// What became of one mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MutantReport {
    /// Its name.
    pub name: String,
    /// The suite that its policy belongs to.
    pub suite: String,
    /// Where its policy is: file and line.
    pub place: String,
    /// What became of it.
    pub fate: Fate,
    /// The cases that were run with it, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
    /// Why it survives, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fate {
    /// A case has an assertion that is broken with it.
    Killed {
        /// The case.
        by: CaseId,
        /// The word of the verdict.
        verdict: String,
    },
    /// A case has no proof with it, and none has a broken assertion.
    Inconclusive {
        /// The case.
        by: CaseId,
    },
    /// Every case passes with it.
    Survived,
    /// What is left would not be taken.
    Refused {
        /// Why.
        why: String,
    },
    /// What is left says the same.
    Equivalent {
        /// Why.
        why: String,
    },
    /// The profile lacks what all of its cases need.
    NotRun {
        /// What it lacks.
        why: String,
    },
    /// Nobody knows: something went wrong that says nothing about policies.
    Undecided {
        /// What.
        why: String,
    },
}

/// A case that was run with a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// The case.
    pub case: CaseId,
    /// What it came to, as far as that says something of the mutant.
    pub notice: Notice,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

/// What a case says of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Notice {
    /// An assertion of it is broken.
    Broken {
        /// The word of the verdict.
        verdict: String,
        /// The first of the worst: what was sent, and what came of it.
        told: String,
    },
    /// It has no proof.
    Unproven {
        /// Why.
        told: String,
    },
    /// It passes.
    Nothing,
    /// It could not be asked, and says nothing.
    Unasked {
        /// Why.
        told: String,
    },
}

impl Notice {
    /// What the report of a case says that was run with a mutant, and passes without.
    pub fn of(report: &CaseReport) -> Self {
        let cells = report
            .cells
            .iter()
            .map(|it| (&it.verdict, format!("{} sent {}: {}", it.from, it.send, it.verdict)));
        let said = report.conditions.iter().map(|it| (&it.verdict, it.verdict.to_string()));
        let all: Vec<(&Verdict, String)> = cells.chain(said).collect();
        let worst = all.iter().map(|it| it.0.severity()).max().unwrap_or_default();
        let first = all.into_iter().find(|it| it.0.severity() == worst);
        match first {
            None | Some((Verdict::Pass, _)) => Self::Nothing,
            Some((Verdict::Fail(failure), told)) => {
                let verdict = Verdict::Fail(failure.clone()).word().to_owned();
                Self::Broken { verdict, told }
            }
            Some((Verdict::Inconclusive(doubt), told)) if says_nothing(doubt) => {
                Self::Unasked { told }
            }
            Some((Verdict::Inconclusive(_), told)) => Self::Unproven { told },
        }
    }
}

/// Whether a doubt is about the fabric, and not about what policies do.
const fn says_nothing(doubt: &Doubt) -> bool {
    match doubt {
        Doubt::Precondition(_) | Doubt::Client(_) | Doubt::Fabric(_) | Doubt::Interrupted => true,
        Doubt::Control(_) | Doubt::NoEvidence(_) | Doubt::NoProof(_) | Doubt::NoRecovery(_) => {
            false
        }
    }
}

impl Fate {
    /// What a mutant comes to by the cases that were run with it. All that apply its policy were, unless one of them has a
    /// broken assertion.
    pub fn of(tried: &[Tried]) -> Self {
        let broken = tried.iter().find_map(|it| match &it.notice {
            Notice::Broken { verdict, .. } => {
                Some(Self::Killed { by: it.case.clone(), verdict: verdict.clone() })
            }
            _ => None,
        });
        let unproven = || {
            let first = tried.iter().find(|it| matches!(it.notice, Notice::Unproven { .. }))?;
            Some(Self::Inconclusive { by: first.case.clone() })
        };
        let unasked = || {
            tried.iter().find_map(|it| match &it.notice {
                Notice::Unasked { told } => {
                    Some(Self::Undecided { why: format!("{}: {told}", it.case) })
                }
                _ => None,
            })
        };
        broken.or_else(unproven).or_else(unasked).unwrap_or(Self::Survived)
    }

    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Killed { .. } => "killed",
            Self::Inconclusive { .. } => "inconclusive",
            Self::Survived => "survived",
            Self::Refused { .. } => "refused",
            Self::Equivalent { .. } => "equivalent",
            Self::NotRun { .. } => "not run",
            Self::Undecided { .. } => "undecided",
        }
    }
}

/// The columns of the table, by what they count; of those that were killed, by the verdict.
const COLUMNS: [(&str, &str); 10] = [
    ("mutants", ""),
    ("fail-open", "killed"),
    ("fail-closed", "killed"),
    ("wrong layer", "killed"),
    ("condition", "killed"),
    ("inconcl.", "inconclusive"),
    ("survived", "survived"),
    ("refused", "refused"),
    ("equiv.", "equivalent"),
    ("not run", "not run"),
];

/// In which column a mutant is counted, besides the first; one that is undecided in none.
fn column(fate: &Fate) -> Option<usize> {
    let column = match fate {
        Fate::Killed { verdict, .. } => match verdict.as_str() {
            "fail-open" => 1,
            "fail-closed" => 2,
            "wrong-condition" => 4,
            _ => 3,
        },
        fate => COLUMNS.iter().position(|it| it.1 == fate.word())?,
    };
    Some(column)
}

impl Mutations {
    /// What the process should exit with: a survivor without a reason and a reason that is none break the assertion that all
    /// are noticed.
    pub fn exit_status(&self) -> ExitStatus {
        let unexplained = |it: &MutantReport| it.fate == Fate::Survived && it.because.is_none();
        let undecided = |it: &MutantReport| matches!(it.fate, Fate::Undecided { .. });
        if self.mutants.iter().any(unexplained) || !self.stale.is_empty() {
            ExitStatus::Failed
        } else if self.interrupted || self.mutants.iter().any(undecided) {
            ExitStatus::Inconclusive
        } else {
            ExitStatus::Pass
        }
    }

    /// Writes [`FILE`] into a folder, which is made if need be; its path.
    ///
    /// # Errors
    /// [`FileError`].
    ///
    /// # Panics
    /// Never: it has text keys alone.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, FileError> {
        let mut text = serde_json::to_string_pretty(self).expect("its keys are texts");
        text.push('\n');
        file::make_folder(folder)?;
        let path = folder.join(FILE);
        file::replace(&path, text.as_bytes())?;
        Ok(path)
    }

    /// What a person reads of it, without the end of the last line.
    pub fn text(&self, width: usize, colour: bool) -> String {
        let mut page = Page::new(width, colour);
        self.table(&mut page);
        page.blank();
        self.survivors(&mut page);
        self.untold(&mut page);
        let tone = if self.exit_status() == ExitStatus::Pass { Tone::Good } else { Tone::Bad };
        page.paragraph("", tone, &self.summary());
        page.into_text()
    }

    /// By suite: how many mutants, and what became of them. Columns in which nothing is counted are left out.
    fn table(&self, page: &mut Page) {
        let mut suites: BTreeMap<&str, [usize; COLUMNS.len()]> = BTreeMap::new();
        let mut all = [0; COLUMNS.len()];
        for mutant in &self.mutants {
            let row = suites.entry(&mutant.suite).or_default();
            for column in [Some(0), column(&mutant.fate)].into_iter().flatten() {
                row[column] += 1;
                all[column] += 1;
            }
        }
        let longest = suites.keys().map(|it| columns(it)).max().unwrap_or_default().max(5);
        let shown: BTreeSet<usize> = (0..COLUMNS.len()).filter(|it| all[*it] > 0).collect();
        let line = |name: &str, cells: &dyn Fn(usize) -> String| {
            let cells: Vec<String> = shown
                .iter()
                .map(|it| format!("{:>width$}", cells(*it), width = columns(COLUMNS[*it].0)))
                .collect();
            format!("{name:<longest$}  {}", cells.join("  "))
        };
        page.line(&[(Tone::Strong, &line("suite", &|it| COLUMNS[it].0.to_owned()))]);
        for (suite, row) in &suites {
            page.line(&[(Tone::Plain, &line(suite, &|it| row[it].to_string()))]);
        }
        page.line(&[(Tone::Strong, &line("all", &|it| all[it].to_string()))]);
    }

    /// Every survivor with its reason, those without one first.
    fn survivors(&self, page: &mut Page) {
        let survivors = || self.mutants.iter().filter(|it| it.fate == Fate::Survived);
        for mutant in survivors().filter(|it| it.because.is_none()) {
            page.paragraph("survived  ", Tone::Bad, &mutant.name);
            let tried: Vec<&str> = mutant.tried.iter().map(|it| it.case.as_str()).collect();
            let told =
                format!("{}; no reason is listed; it passes: {}", mutant.place, tried.join(", "));
            page.paragraph("          ", Tone::Plain, &told);
        }
        for mutant in survivors() {
            if let Some(because) = &mutant.because {
                page.paragraph("survived  ", Tone::Plain, &mutant.name);
                page.paragraph("          ", Tone::Faint, because);
            }
        }
    }

    /// What else somebody has to know: those that no assertion decides, and reasons that are none.
    fn untold(&self, page: &mut Page) {
        for mutant in &self.mutants {
            match &mutant.fate {
                Fate::Inconclusive { by } => {
                    page.paragraph("inconclusive  ", Tone::Doubtful, &mutant.name);
                    page.paragraph("              ", Tone::Faint, &format!("by {by}"));
                }
                Fate::Undecided { why } => {
                    page.paragraph("undecided  ", Tone::Bad, &mutant.name);
                    page.paragraph("           ", Tone::Plain, why);
                }
                _ => {}
            }
        }
        for (name, what) in &self.stale {
            page.paragraph("stale  ", Tone::Bad, name);
            page.paragraph("       ", Tone::Plain, &format!("a reason is listed, and it {what}"));
        }
    }

    fn summary(&self) -> String {
        let many = |word: &str| self.mutants.iter().filter(|it| it.fate.word() == word).count();
        let [killed, inconclusive, survived] = ["killed", "inconclusive", "survived"].map(many);
        let asked = killed + inconclusive + survived;
        let mut parts = vec![format!(
            "score {}: {killed} of {} killed by a broken assertion",
            percent(killed, asked),
            count(asked, "mutant", "mutants"),
        )];
        for (number, words) in [
            (inconclusive, "noticed as inconclusive alone"),
            (survived, "survived"),
            (many("undecided"), "undecided"),
        ] {
            if number > 0 {
                parts.push(format!("{number} {words}"));
            }
        }
        let apart = ["refused", "equivalent", "not run"].into_iter();
        let apart: Vec<String> =
            apart.filter(|it| many(it) > 0).map(|it| format!("{} {it}", many(it))).collect();
        if !apart.is_empty() {
            parts.push(format!("not counted: {}", apart.join(", ")));
        }
        if self.interrupted {
            parts.push("interrupted".to_owned());
        }
        parts.push(format!("{} s", self.took_ms / 1000));
        parts.join("; ")
    }
}

/// A share in percent, with one digit; rounded down, so that only all of them are 100.
fn percent(part: usize, whole: usize) -> String {
    match part.checked_mul(1000).and_then(|it| it.checked_div(whole)) {
        None => "-".to_owned(),
        Some(mille) => format!("{}.{} %", mille / 10, mille % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn case(name: &str) -> CaseId {
        CaseId::new("l1-cluster", name)
    }

    fn mutant(place: &str, fate: Fate) -> MutantReport {
        MutantReport {
            name: format!("l1-cluster::deny.yaml: {place} deleted"),
            suite: "l1-cluster".to_owned(),
            place: "suites/l1-cluster/deny.yaml:3".to_owned(),
            fate,
            tried: vec![Tried { case: case("denies"), notice: Notice::Nothing, took_ms: 5 }],
            because: None,
        }
    }

    fn killed(verdict: &str) -> Fate {
        Fate::Killed { by: case("denies"), verdict: verdict.to_owned() }
    }

    fn all() -> Mutations {
        let why = || "a DENY without rules never denies: Istio refuses it".to_owned();
        let listed = MutantReport {
            because: Some(
                "A trap: the rule does nothing, which is what the case shows.".to_owned(),
            ),
            ..mutant("spec.egress[2]", Fate::Survived)
        };
        Mutations {
            schema: SCHEMA,
            ztc: "0.1.0".to_owned(),
            profile: "lab-mutation".to_owned(),
            took_ms: 93_456,
            interrupted: false,
            mutants: vec![
                mutant("spec.egress[0]", killed("fail-open")),
                mutant("spec.egress[1]", killed("wrong-policy")),
                listed,
                mutant("spec.egress[3]", Fate::Refused { why: why() }),
                mutant("spec.egress[4]", Fate::Inconclusive { by: case("denies") }),
                MutantReport {
                    suite: "l6-fqdn".to_owned(),
                    ..mutant("spec.egress[5]", killed("fail-closed"))
                },
            ],
            stale: BTreeMap::new(),
        }
    }

    #[test]
    fn what_became_of_mutants_reads_like_this() {
        let all = all();
        assert_eq!(all.exit_status(), ExitStatus::Pass);
        insta::assert_snapshot!(all.text(100, false));
    }

    #[test]
    fn a_survivor_without_a_reason_and_a_reason_without_a_survivor_fail() {
        let mut unexplained = all();
        unexplained.mutants[2].because = None;
        assert_eq!(unexplained.exit_status(), ExitStatus::Failed);
        let mut stale = all();
        let name = "l1-cluster::deny.yaml: spec.egress[0] deleted".to_owned();
        stale.stale.insert(name, "is killed".to_owned());
        assert_eq!(stale.exit_status(), ExitStatus::Failed);
        insta::assert_snapshot!(format!(
            "{}\n\n{}",
            unexplained.text(100, false),
            stale.text(100, false)
        ));
    }

    #[test]
    fn what_nobody_knows_is_no_pass() {
        let mut undecided = all();
        let why = "the fabric failed".to_owned();
        undecided.mutants.push(mutant("spec.egress[6]", Fate::Undecided { why }));
        assert_eq!(undecided.exit_status(), ExitStatus::Inconclusive);
        let interrupted = Mutations { interrupted: true, ..all() };
        assert_eq!(interrupted.exit_status(), ExitStatus::Inconclusive);
    }

    #[test]
    fn only_a_broken_assertion_kills() {
        let tried = |notice: Notice| Tried { case: case("denies"), notice, took_ms: 1 };
        let of = |reports: &[CaseReport]| {
            Fate::of(&reports.iter().map(|it| tried(Notice::of(it))).collect::<Vec<_>>())
        };
        assert_eq!(of(&[sample::pass(), sample::fail_open()]), killed("fail-open"));
        assert_eq!(of(&[sample::wrong_layer()]), killed("wrong-layer"));
        assert_eq!(of(&[sample::no_control(), sample::wrong_layer()]), killed("wrong-layer"));
        assert_eq!(of(&[sample::no_control()]), Fate::Inconclusive { by: case("denies") });
        assert_eq!(of(&[sample::pass()]), Fate::Survived);
        let mut failed = sample::no_control();
        for cell in &mut failed.cells {
            cell.verdict = Verdict::Inconclusive(Doubt::Fabric("gone".to_owned()));
        }
        assert_eq!(of(&[failed.clone(), sample::fail_open()]), killed("fail-open"));
        assert!(matches!(of(&[sample::pass(), failed]), Fate::Undecided { .. }));
    }

    #[test]
    fn a_score_is_never_rounded_up() {
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(1999, 2000), "99.9 %");
        assert_eq!(percent(7, 7), "100.0 %");
    }
}
