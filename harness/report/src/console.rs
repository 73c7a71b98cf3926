//! What a person sees of a run: progress while it lasts, a line a case, failures in full.
//!
//! Nothing is printed here. Whether there is a terminal, how wide it is and whether it wants colour
//! is for the caller to find out.

use std::path::PathBuf;

use ztc_engine::event::{
    CaseReport, CellReport, ChangeReport, Event, EventKind, RunStarted, Summary,
};
use ztc_engine::expected::Standing;
use ztc_model::suite::{CaseId, Gap};
use ztc_model::verdict::Verdict;

use crate::account::Mark;
use crate::change;
use crate::expected;
use crate::failure::{lost, samples, sent, tone, write_failure, write_known, write_wire};
use crate::page::{Page, Tone};
use crate::rehearsal;
use crate::span::milliseconds;

/// How wide a symbol and a word are, without the gap after them; the longest sticks out.
const WORD: usize = 15;
/// How wide the words about the time to enforce are, with the gap after them.
const FIGURES: usize = 20;

/// How a run is shown.
#[derive(Debug, Clone)]
pub struct ConsoleOptions {
    /// The columns of a line. Names that are wider stick out.
    pub width: usize,
    /// Whether to paint.
    pub colour: bool,
    /// Whether to tell the phases of the cases, and the cells of those that pass.
    pub verbose: bool,
    /// The folder of the reports, if they are written.
    pub folder: Option<PathBuf>,
}

/// What an event adds to the output. Neither text ends with a line end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// For the standard error.
    pub progress: Option<String>,
    /// For the standard output.
    pub result: Option<String>,
}

/// A case that the run fails with or that there is no proof of.
#[derive(Debug)]
struct Broken {
    case: CaseId,
    word: String,
    tone: Tone,
    rank: u8,
}

/// Shows a run, event by event.
#[derive(Debug)]
pub struct Console {
    options: ConsoleOptions,
    run: Option<RunStarted>,
    /// The cases that did not pass, or should not have.
    broken: Vec<Broken>,
    /// Of the cases that failed as expected, and of those whose entry has expired: a word, and what is known.
    known: Vec<(CaseId, &'static str, String)>,
    /// The gaps of the cases that ran, and whether they were shown.
    gaps: Vec<(CaseId, Gap, bool)>,
}

impl Console {
    /// A console that has shown nothing yet.
    pub const fn new(options: ConsoleOptions) -> Self {
        Self { options, run: None, broken: Vec::new(), known: Vec::new(), gaps: Vec::new() }
    }

    /// What to show of the next event.
    pub fn event(&mut self, event: &Event) -> Rendered {
        match &event.kind {
            EventKind::RunStarted(run) => self.run_started(run),
            EventKind::LaneUp { lane, world, took_ms } => {
                let took = milliseconds(*took_ms);
                self.progress(&format!("lane {lane}: {world} is up after {took}"))
            }
            EventKind::CaseStarted { case, lane } if self.options.verbose => {
                self.progress(&format!("lane {lane}: {case}"))
            }
            EventKind::CasePhase { case, phase } if self.options.verbose => {
                let at = milliseconds(event.at_us / 1_000);
                self.progress(&format!("{case}: {phase} at {at}"))
            }
            EventKind::CaseStarted { .. }
            | EventKind::CasePhase { .. }
            | EventKind::PolicyRead(_) => Rendered::default(),
            EventKind::CaseIgnored { case, reason } => {
                let mut page = self.page();
                write_head(&mut page, Tone::Faint, "- IGNORED", "", case);
                page.paragraph(&" ".repeat(WORD + 1), Tone::Faint, reason);
                result(page)
            }
            EventKind::ChangeWatched(report) => self.change_watched(report),
            EventKind::CaseFinished(report) => self.case_finished(report),
            EventKind::Warning { message } => self.progress(&format!("warning: {message}")),
            EventKind::Interrupted => {
                self.progress("interrupted: the running cases clean up, the others do not start")
            }
            EventKind::RunFinished(summary) => self.run_finished(summary),
        }
    }

    fn run_started(&mut self, run: &RunStarted) -> Rendered {
        self.run = Some(run.clone());
        let mut words = format!(
            "run {}: {} on {} ({}), {}",
            run.run,
            count(run.cases.len(), "case", "cases"),
            run.profile,
            run.fabric,
            count(run.lanes, "lane", "lanes")
        );
        if let Some(faults) = &run.faults {
            words.extend(["; faults injected on purpose: ", faults]);
        }
        self.progress(&words)
    }

    fn change_watched(&self, report: &ChangeReport) -> Rendered {
        let ConsoleOptions { width, colour, .. } = self.options;
        Rendered { result: Some(change::text(report, width, colour)), ..Rendered::default() }
    }

    fn case_finished(&mut self, report: &CaseReport) -> Rendered {
        if let Some(gap) = &report.gap {
            let shown = report.verdict == Verdict::Pass;
            self.gaps.push((report.case.clone(), gap.clone(), shown));
        }
        let is_told_again = match report.standing() {
            Some(Standing::AsExpected) => Some("⚑ EXPECTED"),
            Some(Standing::Expired) => Some("⚑ EXPIRED"),
            // It is told again among the broken ones.
            Some(Standing::UnexpectedPass | Standing::Otherwise) | None => None,
        };
        if let Some(word) = is_told_again {
            let words = expected::words(report).unwrap_or_default();
            self.known.push((report.case.clone(), word, words));
        }
        let mut page = self.page();
        let (word, tone) = word_of(report);
        let slowest = report.cells.iter().filter_map(|cell| cell.time_to_enforce_ms).max();
        // Of a case that failed it would be the time of the last leak.
        let slowest = slowest.filter(|_| report.verdict == Verdict::Pass);
        let enforced = slowest.map(|ms| match ms {
            0 => "enforced at once".to_owned(),
            ms => format!("enforced in {}", milliseconds(ms)),
        });
        let took = milliseconds(report.took_ms);
        let figures = format!("{took:>8}  {:<FIGURES$}", enforced.unwrap_or_default());
        write_head(&mut page, tone, &word, &figures, &report.case);

        page.set_margin(2);
        if report.verdict == Verdict::Pass {
            if self.options.verbose {
                report.cells.iter().for_each(|cell| write_passed(&mut page, cell));
            }
            if let Some(residue) = &report.residue {
                page.paragraph("residue  ", Tone::Doubtful, residue);
            }
            if !expected::is_unexpected_pass(report) {
                write_known(&mut page, report);
                return result(page);
            }
        }
        if !expected::is_as_expected(report) {
            let (case, rank) = (report.case.clone(), expected::rank(report));
            self.broken.push(Broken { case, word, tone, rank });
        }
        write_failure(&mut page, report, self.options.folder.as_deref());
        let mut rendered = result(page);
        // A failure is many lines: an empty one ends it.
        rendered.result.iter_mut().for_each(|text| text.push('\n'));
        rendered
    }

    fn run_finished(&mut self, summary: &Summary) -> Rendered {
        let mut page = self.page();
        page.blank();
        self.broken.sort_by_key(|it| std::cmp::Reverse(it.rank));
        for Broken { case, word, tone, .. } in &self.broken {
            write_head(&mut page, *tone, word, "", case);
        }
        if !self.broken.is_empty() {
            page.blank();
        }
        self.write_known(&mut page);
        self.write_gaps(&mut page);
        page.paragraph("", summary_tone(summary), &summary_words(summary));
        if let Some(run) = &self.run {
            if let Some(faults) = &run.faults {
                page.paragraph("faults: ", Tone::Plain, faults);
            }
            if !run.versions.is_empty() {
                let versions: Vec<String> = run
                    .versions
                    .iter()
                    .map(|(part, version)| format!("{part} {version}"))
                    .collect();
                let words = format!("{} — {}", run.fabric, versions.join(", "));
                page.paragraph("fabric: ", Tone::Plain, &words);
            }
            if rehearsal::is_rehearsal(run) {
                let words = format!("{} — {}", run.fabric, rehearsal::MEANING);
                page.paragraph("fabric: ", Tone::Plain, &words);
                if let Some(unproven) = rehearsal::unproven(run) {
                    page.paragraph("unproven: ", Tone::Plain, &unproven);
                }
            }
        }
        if let Some(folder) = &self.options.folder {
            page.paragraph("reports: ", Tone::Plain, &folder.display().to_string());
        }
        result(page)
    }

    /// What failed as expected changes no exit code, so that it could be forgotten.
    fn write_known(&self, page: &mut Page) {
        for (case, word, words) in &self.known {
            write_head(page, Tone::Doubtful, word, "", case);
            page.paragraph(&" ".repeat(WORD + 1), Tone::Plain, words);
        }
        if !self.known.is_empty() {
            page.blank();
        }
    }

    /// A gap is a flow that passes, so that a green run would say nothing of it.
    fn write_gaps(&self, page: &mut Page) {
        for (case, gap, shown) in &self.gaps {
            let word = if *shown { "○ GAP" } else { "○ GAP UNSHOWN" };
            write_head(page, Tone::Doubtful, word, "", case);
            page.paragraph(&" ".repeat(WORD + 1), Tone::Plain, &gap.to_string());
        }
        if !self.gaps.is_empty() {
            page.blank();
        }
    }

    fn progress(&self, words: &str) -> Rendered {
        let mut page = self.page();
        page.paragraph("", Tone::Plain, words);
        Rendered { progress: Some(page.into_text()), result: None }
    }

    fn page(&self) -> Page {
        Page::new(self.options.width, self.options.colour)
    }
}

/// Writes the line of a case: a symbol and a word, its figures, and its name, which may be long.
pub(crate) fn write_head(page: &mut Page, tone: Tone, word: &str, figures: &str, case: &CaseId) {
    let word = format!("{word:<WORD$} ");
    page.line(&[(tone, &word), (Tone::Faint, figures), (Tone::Strong, case.as_str())]);
}

fn result(page: Page) -> Rendered {
    Rendered { progress: None, result: Some(page.into_text()) }
}

/// The word of a case with its symbol, and the tone of both.
fn word_of(report: &CaseReport) -> (String, Tone) {
    let verdict = &report.verdict;
    let word = || format!("{} {}", symbol(verdict), verdict.word().to_uppercase());
    match report.standing() {
        Some(Standing::UnexpectedPass) => {
            let mark = Mark::UnexpectedPass;
            (format!("{} {}", mark.sign(), mark.word().to_uppercase()), Tone::Bad)
        }
        Some(Standing::AsExpected) => (word(), Tone::Doubtful),
        Some(Standing::Otherwise | Standing::Expired) | None => (word(), tone(verdict)),
    }
}

const fn symbol(verdict: &Verdict) -> char {
    match verdict {
        Verdict::Pass => '✓',
        Verdict::Fail(_) => '✗',
        Verdict::Inconclusive(_) => '?',
    }
}

fn write_passed(page: &mut Page, cell: &CellReport) {
    page.paragraph("", Tone::Plain, &sent(cell));
    page.paragraph("  expected  ", Tone::Plain, &cell.expected);
    page.paragraph("  seen      ", Tone::Plain, &cell.seen);
    page.paragraph("  samples   ", Tone::Plain, &samples(cell));
    if let Some(loss) = &cell.loss {
        page.paragraph("  stream    ", Tone::Plain, &lost(loss));
    }
    write_wire(page, cell);
}

fn summary_tone(summary: &Summary) -> Tone {
    let Summary { inconclusive, not_run, failed_as_expected, .. } = summary;
    if summary.failed_open + summary.failed + summary.passed_unexpectedly > 0 {
        Tone::Bad
    } else if inconclusive + not_run + failed_as_expected > 0 || summary.interrupted {
        Tone::Doubtful
    } else {
        Tone::Good
    }
}

/// The counts, worst first after those that passed, without the zeros.
pub(crate) fn summary_words(summary: &Summary) -> String {
    let counts = [
        (summary.failed_open, "failed open"),
        (summary.failed, "failed"),
        (summary.passed_unexpectedly, expected::UNEXPECTED),
        (summary.inconclusive, "inconclusive"),
        (summary.failed_as_expected, expected::AS_EXPECTED),
        (summary.ignored, "ignored"),
        (summary.not_run, "not run"),
    ];
    let mut words = format!("{} passed", summary.passed);
    for (count, word) in counts.iter().filter(|(count, _)| *count > 0) {
        words.extend([", ", &count.to_string(), " ", word]);
    }
    if summary.interrupted {
        words.push_str("; interrupted");
    }
    words.extend(["; ", &milliseconds(summary.took_ms)]);
    words
}

pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use ztc_engine::event::Phase;

    use super::*;
    use crate::sample;

    const PLAIN: ConsoleOptions =
        ConsoleOptions { width: 100, colour: false, verbose: false, folder: None };

    fn shown(options: ConsoleOptions, events: &[Event]) -> String {
        let mut console = Console::new(options);
        let mut text = String::new();
        for event in events {
            let Rendered { progress, result } = console.event(event);
            for line in progress.iter().flat_map(|it| it.lines()) {
                text.extend(["stderr: ", line, "\n"]);
            }
            for line in result.iter().flat_map(|it| it.split('\n')) {
                text.extend(["stdout: ", line, "\n"]);
            }
        }
        text
    }

    #[test]
    fn a_run_is_shown_case_by_case() {
        let folder = Some(PathBuf::from("target/ztc/2026-11-24-0410-a1"));
        let options = ConsoleOptions { folder, ..PLAIN };
        insta::assert_snapshot!(shown(options, &sample::run()), @"
        stderr: run 2026-11-24-0410-a1: 2 cases on clusters/lab.yaml (lab), 2 lanes
        stdout: - IGNORED       l5-waypoint::post-is-denied
        stdout:                 the fabric lacks: waypoint
        stderr: lane 0: two-teams is up after 400 ms
        stdout: ✗ FAIL-OPEN       612 ms                      l1-cluster::metadata-is-denied
        stdout:   zt-shop/web sent GET http://169.254.169.254:80/
        stdout:   got through: HTTP 200 from outside/metadata, sent 12 ms after the policies were accepted
        stdout:   should have been denied by cilium as explicit-deny
        stdout:       (CiliumClusterwideNetworkPolicy/block-metadata); nobody stopped it
        stdout:     control   HTTP 200 from outside/metadata
        stdout:     proof     HTTP 200 from outside/metadata
        stdout:     samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
        stdout:     record    cilium on lab-1: allowed at egress (TCP 10.0.1.5:41000 -> 169.254.169.254:80 and 1
        stdout:               more)
        stdout:     record    cilium on lab-1: denied at egress by a deny rule of
        stdout:               CiliumClusterwideNetworkPolicy/block-metadata (TCP 10.0.1.5:41002 ->
        stdout:               169.254.169.254:80)
        stdout: 
        stdout:   because   A metadata service gives the credentials of the node to every pod that can reach it.
        stdout:   place     suites/l1-cluster/metadata.yaml:14
        stdout:   settled   2 ms after the policies were accepted
        stdout:   evidence  target/ztc/2026-11-24-0410-a1/evidence/l1-cluster/metadata-is-denied.json
        stdout: 
        stdout: ✓ PASS             1.2 s  enforced in 3 ms    l1-cluster::dns-is-allowed-through-the-proxy
        stdout: 
        stdout: ✗ FAIL-OPEN     l1-cluster::metadata-is-denied
        stdout: 
        stdout: 1 passed, 1 failed open, 1 ignored; 2.4 s
        stdout: fabric: lab — a rehearsal: it counts once a real cluster shows the same
        stdout: reports: target/ztc/2026-11-24-0410-a1
        ");
    }

    #[test]
    fn a_narrow_terminal_breaks_lines_and_no_names() {
        let options = ConsoleOptions { width: 40, ..PLAIN };
        insta::assert_snapshot!(shown(options, &sample::run()), @"
        stderr: run 2026-11-24-0410-a1: 2 cases on
        stderr:     clusters/lab.yaml (lab), 2 lanes
        stdout: - IGNORED       l5-waypoint::post-is-denied
        stdout:                 the fabric lacks:
        stdout:                 waypoint
        stderr: lane 0: two-teams is up after 400 ms
        stdout: ✗ FAIL-OPEN       612 ms                      l1-cluster::metadata-is-denied
        stdout:   zt-shop/web sent GET
        stdout:       http://169.254.169.254:80/
        stdout:   got through: HTTP 200 from
        stdout:       outside/metadata, sent 12 ms after
        stdout:       the policies were accepted
        stdout:   should have been denied by cilium as
        stdout:       explicit-deny
        stdout:       (CiliumClusterwideNetworkPolicy/block-metadata);
        stdout:       nobody stopped it
        stdout:     control   HTTP 200 from
        stdout:               outside/metadata
        stdout:     proof     HTTP 200 from
        stdout:               outside/metadata
        stdout:     samples   20 sent; 19 settled by
        stdout:               evidence, 1 by time-out;
        stdout:               median 3.1 ms from packet
        stdout:               to record
        stdout:     record    cilium on lab-1: allowed
        stdout:               at egress (TCP
        stdout:               10.0.1.5:41000 ->
        stdout:               169.254.169.254:80 and 1
        stdout:               more)
        stdout:     record    cilium on lab-1: denied at
        stdout:               egress by a deny rule of
        stdout:               CiliumClusterwideNetworkPolicy/block-metadata
        stdout:               (TCP 10.0.1.5:41002 ->
        stdout:               169.254.169.254:80)
        stdout: 
        stdout:   because   A metadata service gives the
        stdout:             credentials of the node to
        stdout:             every pod that can reach it.
        stdout:   place     suites/l1-cluster/metadata.yaml:14
        stdout:   settled   2 ms after the policies were
        stdout:             accepted
        stdout: 
        stdout: ✓ PASS             1.2 s  enforced in 3 ms    l1-cluster::dns-is-allowed-through-the-proxy
        stdout: 
        stdout: ✗ FAIL-OPEN     l1-cluster::metadata-is-denied
        stdout: 
        stdout: 1 passed, 1 failed open, 1 ignored; 2.4
        stdout:     s
        stdout: fabric: lab — a rehearsal: it counts
        stdout:         once a real cluster shows the
        stdout:         same
        ");
    }

    #[test]
    fn a_verbose_console_tells_phases_and_cells() {
        let options = ConsoleOptions { verbose: true, ..PLAIN };
        let report = sample::pass();
        let case = || report.case.clone();
        let events = [
            sample::at(400_100, EventKind::CaseStarted { case: case(), lane: 0 }),
            sample::at(400_200, EventKind::CasePhase { case: case(), phase: Phase::Controls }),
            sample::at(612_000, EventKind::CaseFinished(Box::new(report.clone()))),
        ];
        insta::assert_snapshot!(shown(options, &events), @"
        stderr: lane 0: l1-cluster::metadata-is-denied
        stderr: l1-cluster::metadata-is-denied: controls at 400 ms
        stdout: ✓ PASS            612 ms  enforced in 3 ms    l1-cluster::metadata-is-denied
        stdout:   zt-shop/web sent GET http://169.254.169.254:80/
        stdout:     expected  denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata)
        stdout:     seen      silence so far: no answer to the connect
        stdout:     samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
        stdout:   zt-shop/web sent GET http://169.254.169.254:80/
        stdout:     expected  allowed
        stdout:     seen      answered by outside/web
        stdout:     samples   20 sent
        ");
    }

    #[test]
    fn a_real_run_is_no_rehearsal_and_names_its_versions() {
        let mut events = sample::run();
        if let EventKind::RunStarted(run) = &mut events[0].kind {
            run.fabric = "kind".to_owned();
            run.versions = [("cilium".to_owned(), "1.20.2".to_owned())].into();
        }
        let text = shown(PLAIN, &events);
        assert!(!text.contains("rehearsal"), "{text}");
        assert!(text.contains("fabric: kind — cilium 1.20.2"), "{text}");
    }

    #[test]
    fn gaps_are_listed_at_the_end_whether_they_were_shown_or_not() {
        let gap = |closed_by: Option<CaseId>| {
            let what = "A pod in its node's network reaches the metadata service.".to_owned();
            Some(Gap { what, closed_by })
        };
        let closing = CaseId::new("l1-cluster", "metadata-is-closed");
        let reports = [
            CaseReport { gap: gap(None), ..sample::pass() },
            CaseReport { gap: gap(Some(closing)), ..sample::no_proof() },
        ];
        let finished = reports.map(|it| sample::at(0, EventKind::CaseFinished(Box::new(it))));
        let over = sample::at(1, EventKind::RunFinished(Summary::default()));
        let text = shown(PLAIN, &[finished.as_slice(), &[over]].concat());
        let gaps = text.split_once("○").unwrap().1;
        insta::assert_snapshot!(gaps, @"
         GAP           l1-cluster::metadata-is-denied
        stdout:                 A pod in its node's network reaches the metadata service. No case closes it.
        stdout: ○ GAP UNSHOWN   l1-cluster::metadata-is-denied
        stdout:                 A pod in its node's network reaches the metadata service. Closed by
        stdout:                 l1-cluster::metadata-is-closed.
        stdout: 
        stdout: 0 passed; 0 ms
        ");
    }

    #[test]
    fn known_failures_are_told_in_full_and_again_at_the_end() {
        let reports = [
            sample::known("fail-closed", "2026-12-31", sample::fail_closed()),
            sample::known("fail-closed", "2026-12-31", sample::pass()),
            sample::known("fail-open", "2026-11-23", sample::pass()),
        ];
        insta::assert_snapshot!(shown(PLAIN, &sample::events("kind", &reports)));
    }

    #[test]
    fn an_interrupted_run_says_so_twice() {
        let summary = Summary { not_run: 3, interrupted: true, ..Summary::default() };
        let events =
            [sample::at(0, EventKind::Interrupted), sample::at(1, EventKind::RunFinished(summary))];
        insta::assert_snapshot!(shown(PLAIN, &events), @"
        stderr: interrupted: the running cases clean up, the others do not start
        stdout: 
        stdout: 0 passed, 3 not run; interrupted; 0 ms
        ");
    }

    #[test]
    fn a_case_that_passes_but_leaves_something_behind_says_so() {
        let residue = Some("cannot delete CiliumNetworkPolicy/zt-shop/a".to_owned());
        let report = CaseReport { residue, ..sample::pass() };
        let text = shown(PLAIN, &[sample::at(0, EventKind::CaseFinished(Box::new(report)))]);
        assert!(text.contains("residue  cannot delete CiliumNetworkPolicy/zt-shop/a"), "{text}");
    }

    #[test]
    fn colour_changes_no_word() {
        let painted = shown(ConsoleOptions { colour: true, ..PLAIN }, &sample::run());
        assert!(painted.contains("\u{1b}[1m\u{1b}[31m✗ FAIL-OPEN"), "{painted:?}");
        let mut plain = String::new();
        for piece in painted.split('\u{1b}') {
            plain.push_str(
                piece.strip_prefix('[').map_or(piece, |it| it.split_once('m').unwrap().1),
            );
        }
        let trimmed: Vec<_> = plain.lines().map(str::trim_end).collect();
        let expected = shown(PLAIN, &sample::run());
        assert_eq!(trimmed, expected.lines().map(str::trim_end).collect::<Vec<_>>());
    }
}
