//! What an upgrade came to: the suites before, the flows that were watched meanwhile, the suites after, and what changed.
//!
//! Pure: the three runs are put together from their events elsewhere. The verdict is the worst of all four: a leak of a few
//! milliseconds is a leak, a cell that is newly allowed is one even where nobody expected otherwise, and what was not seen was
//! not shown to hold.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ztc_engine::event::{ChangeReport, ExitStatus};
use ztc_model::window::{Window, WindowKind};

use crate::comparison::Side;
use crate::console::{count, summary_words};
use crate::diff::Diff;
use crate::file::{self, FileError};
use crate::page::{Page, Tone};
use crate::span::microseconds;
use crate::{change, escape};

/// The names of its files in its folder, for terminals and for pull requests.
const FILES: [&str; 2] = ["upgrade.txt", "upgrade.md"];

/// How wide the text in a folder is.
const FILE_WIDTH: usize = 100;

/// What an upgrade came to.
#[derive(Debug)]
pub struct Upgrade {
    /// From what to what, in words.
    way: String,
    before: Side,
    /// The run in whose middle everything was replaced.
    during: Side,
    /// Where there is none, why.
    after: Result<(Side, Diff), &'static str>,
}

impl Upgrade {
    /// Puts it together; where `after` is missing, as nothing ran any more or nobody knows what it came to, it says why. `way`
    /// says from what to what, in words.
    pub fn of(way: String, before: Side, during: Side, after: Result<Side, &'static str>) -> Self {
        let after = after.map(|after| {
            let diff = Diff::between([&before, &after]);
            (after, diff)
        });
        Self { way, before, during, after }
    }

    /// What was watched; nothing where the case that was to be watched never came to the change.
    fn change(&self) -> Option<&ChangeReport> {
        self.during.changes.first()
    }

    /// What the process should exit with.
    pub fn exit_status(&self) -> ExitStatus {
        let is_unseen = self.change().is_none_or(|it| it.trouble.is_some());
        let watched = self.before.exit_status().or_worse(self.during.exit_status());
        let watched = watched.with_trouble(is_unseen);
        match &self.after {
            Ok((after, diff)) => watched.or_worse(after.exit_status()).or_worse(diff.exit_status()),
            Err(_) => watched.with_trouble(true),
        }
    }

    /// What a person reads of it, without the end of the last line.
    pub fn text(&self, width: usize, colour: bool) -> String {
        let mut text = match &self.after {
            Ok((_, diff)) if !diff.says_nothing() => diff.text(width, colour) + "\n\n",
            _ => String::new(),
        };
        let mut page = Page::new(width, colour);
        page.paragraph("upgrade ", Tone::Strong, &self.way);
        for (lead, words) in self.lines() {
            page.paragraph(&format!("  {lead:<8} "), Tone::Plain, &words);
        }
        let (tone, words) = self.verdict();
        page.paragraph("", tone, words);
        text.push_str(&page.into_text());
        text
    }

    /// The same for pull requests and summaries of CI.
    pub fn markdown(&self) -> String {
        let (_, words) = self.verdict();
        let way = escape::markdown(&self.way);
        let mut text = format!("# Upgrade {way}\n\n**{words}**\n\n| | |\n|---|---|\n");
        for (lead, words) in self.lines() {
            _ = writeln!(text, "| {lead} | {} |", escape::markdown(&words));
        }
        if let Some(change) = self.change() {
            let told = fenced(&change::text(change, FILE_WIDTH, false));
            _ = write!(text, "\n```text\n{told}\n```\n");
        }
        if let Ok((_, diff)) = &self.after {
            _ = write!(text, "\n{}", diff.markdown());
        }
        text
    }

    /// Keeps both in a folder, which is made if need be; the paths of the files.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write(&self, folder: &Path) -> Result<[PathBuf; 2], FileError> {
        file::make_folder(folder)?;
        let paths = FILES.map(|name| folder.join(name));
        let text = self.text(FILE_WIDTH, false) + "\n";
        file::replace(&paths[0], text.as_bytes())?;
        file::replace(&paths[1], self.markdown().as_bytes())?;
        Ok(paths)
    }

    /// What it came to in a sentence, and the tone of that.
    fn verdict(&self) -> (Tone, &'static str) {
        let after = self.after.as_ref().map(|(after, _)| after);
        let sides = [&self.before, &self.during].into_iter().chain(after);
        let known: usize = sides.map(|it| it.summary.failed_as_expected).sum();
        match self.exit_status() {
            ExitStatus::Pass if known > 0 => (
                Tone::Doubtful,
                "failed as expected: what leaked or was cut is known, and nothing is otherwise than before",
            ),
            status => verdict(status),
        }
    }

    /// What each part came to, in a line with its lead.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let ran = |side: &Side| format!("{}: {}", side.run.run, summary_words(&side.summary));
        let mut lines = vec![("before", ran(&self.before)), ("during", ran(&self.during))];
        if let Some(change) = self.change() {
            lines.push(("steps", change::steps(change)));
            lines.push(("watched", watched(change)));
            lines.extend(change::KINDS.iter().filter_map(|kind| windows_of(change, *kind)));
            lines.extend(change.trouble.clone().map(|it| ("trouble", it)));
        } else {
            lines.push(("watched", "nothing: the case did not come to the change".to_owned()));
        }
        match &self.after {
            Ok((after, diff)) => {
                lines.extend([("after", ran(after)), ("changed", diff.summary())]);
            }
            Err(why) => lines.push(("after", (*why).to_owned())),
        }
        lines
    }
}

const fn verdict(status: ExitStatus) -> (Tone, &'static str) {
    match status {
        ExitStatus::Pass => (
            Tone::Good,
            "pass: nothing leaked, nothing was cut for longer than allowed, nothing is otherwise than before",
        ),
        ExitStatus::Failed => (
            Tone::Bad,
            "fail: an assertion is broken, a flow was cut for longer than allowed, or something is otherwise than before",
        ),
        ExitStatus::FailOpen => {
            (Tone::Bad, "fail-open: a flow that must be denied got through, or is newly allowed")
        }
        ExitStatus::Inconclusive | ExitStatus::Usage => (
            Tone::Doubtful,
            "inconclusive: nothing is known to have leaked, and not everything was seen",
        ),
    }
}

fn windows(change: &ChangeReport, kind: WindowKind) -> impl Iterator<Item = &Window> {
    change.flows.iter().flat_map(|it| &it.windows).filter(move |it| it.kind == kind)
}

/// How many windows of a kind there were, the longest of them, and in which step it began; nothing without one.
fn windows_of(change: &ChangeReport, kind: WindowKind) -> Option<(&'static str, String)> {
    let of_kind: Vec<&Window> = windows(change, kind).collect();
    let longest = of_kind.iter().max_by_key(|it| it.long_us())?;
    let step = change.step_of(longest).map(|it| format!(" in `{}`", it.step)).unwrap_or_default();
    let lead = match kind {
        WindowKind::Leak => "leaks",
        WindowKind::Outage => "outages",
        WindowKind::Blind => "blind",
    };
    let long = microseconds(longest.long_us());
    Some((lead, format!("{}, the longest {long}{step}", of_kind.len())))
}

fn watched(change: &ChangeReport) -> String {
    let samples: u64 = change.flows.iter().map(|it| it.samples).sum();
    let resets: usize = change.flows.iter().filter_map(|it| it.reconnects).sum();
    format!(
        "{} of {}, {samples} samples{}; {}{}",
        count(change.flows.len(), "flow", "flows"),
        change.case,
        change::pace(change),
        count(resets, "connection reset", "connections reset"),
        change::births(change),
    )
}

/// A text that cannot end the block it stands in.
fn fenced(text: &str) -> String {
    text.replace("```", "'''")
}

#[cfg(test)]
mod tests {
    use ztc_engine::event::{StepReport, WatchedFlow};
    use ztc_model::outcome::EnforcementPoint;
    use ztc_model::suite::CaseId;
    use ztc_model::verdict::Verdict;

    use super::*;
    use crate::sample;

    fn change(kinds: &[(WindowKind, u64, u64)]) -> ChangeReport {
        let step =
            |step: &str, from_us, until_us| StepReport { step: step.to_owned(), from_us, until_us };
        let window = |(kind, from_us, until_us): &(WindowKind, u64, u64)| Window {
            kind: *kind,
            from_us: *from_us,
            until_us: *until_us,
            samples: 5,
            first: None,
            last: None,
            seen: "answered by zt-pay/vault".to_owned(),
        };
        ChangeReport {
            case: CaseId::new("l2-namespace", "agree"),
            steps: vec![
                step("before", 0, 2_000_000),
                step("cilium", 2_000_000, 22_000_000),
                step("after", 22_000_000, 24_000_000),
            ],
            every_us: 10_000,
            outage_us: 0,
            after_ms: 40,
            flows: vec![WatchedFlow {
                cell: 0,
                from: "zt-shop/web".to_owned(),
                send: "tcp zt-pay/vault:9000".to_owned(),
                expected: "denied by cilium as default-deny".to_owned(),
                denied: true,
                point: Some(EnforcementPoint::Cilium),
                samples: 2400,
                slowest_us: 0,
                reconnects: None,
                births: None,
                windows: kinds.iter().map(window).collect(),
                evidence: Vec::new(),
            }],
            unwatched: Vec::new(),
            trouble: None,
        }
    }

    fn during(changes: Vec<ChangeReport>) -> Side {
        Side { changes, ..sample::side("old", &[sample::pass()]) }
    }

    fn upgrade(changes: Vec<ChangeReport>, after: Option<Side>) -> Upgrade {
        let before = sample::side("old", &[sample::pass()]);
        let after = after.ok_or("not run: the upgrade was not made");
        Upgrade::of("old to new: cilium".to_owned(), before, during(changes), after)
    }

    fn after() -> Side {
        sample::side("new", &[sample::pass()])
    }

    #[test]
    fn a_quiet_upgrade_passes_and_says_what_it_rests_on() {
        let quiet = upgrade(vec![change(&[])], Some(after()));
        assert_eq!(quiet.exit_status(), ExitStatus::Pass);
        insta::assert_snapshot!(quiet.text(100, false));
    }

    #[test]
    fn windows_are_told_by_kind_with_the_longest() {
        let windows = [
            (WindowKind::Leak, 2_003_000, 2_053_000),
            (WindowKind::Leak, 2_903_000, 2_913_000),
            (WindowKind::Outage, 2_001_000, 2_201_000),
        ];
        let leaky = upgrade(vec![change(&windows)], Some(after()));
        assert_eq!(leaky.exit_status(), ExitStatus::FailOpen, "whatever the case says");
        insta::assert_snapshot!(leaky.markdown());
    }

    #[test]
    fn what_was_not_watched_or_not_made_to_its_end_is_no_pass() {
        assert_eq!(upgrade(vec![change(&[])], None).exit_status(), ExitStatus::Inconclusive);
        let unwatched = upgrade(Vec::new(), Some(after()));
        assert_eq!(unwatched.exit_status(), ExitStatus::Inconclusive);
        insta::assert_snapshot!(upgrade(Vec::new(), None).text(100, false));
    }

    #[test]
    fn what_is_newly_allowed_is_a_leak_whatever_was_watched() {
        let of = |profile, verdict| {
            sample::side(profile, &[sample::case("s::a", vec![sample::denied(verdict)])])
        };
        let leak = Verdict::Fail(ztc_model::verdict::Failure::FailOpen {
            seen: "answered".to_owned(),
            after_ms: 1,
        });
        let (before, after) = (of("old", Verdict::Pass), of("new", leak));
        let watched = during(vec![change(&[])]);
        let upgrade = Upgrade::of("old to new".to_owned(), before, watched, Ok(after));
        assert_eq!(upgrade.exit_status(), ExitStatus::FailOpen);
        assert!(upgrade.text(100, false).contains("newly allowed"));
    }

    #[test]
    fn what_is_known_is_not_said_to_be_nothing() {
        let known = || sample::known("fail-open", "2026-12-31", sample::fail_open());
        let of = |name| sample::side(name, &[known()]);
        let during = during(vec![change(&[])]);
        let upgrade = Upgrade::of("old to new".to_owned(), of("old"), during, Ok(of("new")));
        assert_eq!(upgrade.exit_status(), ExitStatus::Pass);
        let text = upgrade.text(100, false);
        assert!(
            text.contains("1 failed as expected") && !text.contains("nothing leaked"),
            "{text}"
        );
    }
}
