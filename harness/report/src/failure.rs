//! What is said of a case that did not pass.
//!
//! The first three lines of every failing cell say what was sent, what happened, and who should
//! have stopped it and who did. What supports them follows.

use std::cmp::Reverse;
use std::path::Path;

use ztc_engine::event::{CaseReport, CellReport, ConditionReport, EvidenceReport, LossReport};
use ztc_model::verdict::{Failure, Verdict};

use crate::evidence;
use crate::expected;
use crate::page::{Page, Tone};
use crate::span::{microseconds, milliseconds};

/// From this many failing cells on, those that went wrong in the same way are shown once.
const FOLDED_ABOVE: usize = 6;

/// Why a case did not pass, and what is known of it, without colour; empty for a case that passed and of which nothing is. Lines are not wrapped: that
/// is for what shows them.
///
/// `folder` is the folder of the run's reports, if there is one: the text then ends with the path
/// of the case's evidence in it.
pub fn failure_text(report: &CaseReport, folder: Option<&Path>) -> String {
    let mut page = Page::new(usize::MAX, false);
    write_failure(&mut page, report, folder);
    page.into_text()
}

/// A failure in one line: what was sent and what happened, of the worst cell; what is known of a case that should not pass.
pub(crate) fn failure_line(report: &CaseReport) -> String {
    if expected::is_unexpected_pass(report) {
        return expected::words(report).unwrap_or_default();
    }
    match failing_cells(report).first().filter(|it| it.verdict == report.verdict) {
        Some(cell) => format!("{}: {}", sent(cell), happened(cell)),
        None => report.verdict.to_string(),
    }
}

/// Writes why a case did not pass, and what is known of it; nothing for a case that passed and of which nothing is.
pub(crate) fn write_failure(page: &mut Page, report: &CaseReport, folder: Option<&Path>) {
    if report.verdict == Verdict::Pass {
        write_known(page, report);
        return;
    }
    let groups = fold(failing_cells(report));
    let conditions = failing_conditions(report);
    if groups.is_empty() && conditions.is_empty() {
        page.paragraph("", Tone::Strong, undecided(report));
        page.paragraph("", tone(&report.verdict), &report.verdict.to_string());
    }
    for (number, group) in groups.iter().enumerate() {
        if number > 0 {
            page.blank();
        }
        write_cell(page, group.first);
        if group.others > 0 {
            let more = format!("{} more went wrong in the same way", group.others);
            page.paragraph("  and       ", Tone::Plain, &more);
        }
    }
    for condition in conditions {
        page.paragraph("", Tone::Strong, &format!("the status of {}", condition.object));
        page.paragraph("", tone(&condition.verdict), &condition.verdict.to_string());
    }
    page.blank();
    write_known(page, report);
    page.paragraph("because   ", Tone::Plain, &report.because);
    page.paragraph("place     ", Tone::Plain, &report.place);
    if let Some(ms) = report.settled_ms {
        let settled = format!("{} after the policies were accepted", milliseconds(ms));
        page.paragraph("settled   ", Tone::Plain, &settled);
    }
    if let Some(residue) = &report.residue {
        page.paragraph("residue   ", Tone::Plain, residue);
    }
    if let Some(folder) = folder {
        let path = folder.join(evidence::FOLDER).join(evidence::file_of(&report.case));
        page.paragraph("evidence  ", Tone::Plain, &path.display().to_string());
    }
}

/// Writes what is known of a case, if something is.
pub(crate) fn write_known(page: &mut Page, report: &CaseReport) {
    if let Some(words) = expected::words(report) {
        page.paragraph("known     ", Tone::Doubtful, &words);
    }
}

/// The tone in which a verdict is said.
pub(crate) fn tone(verdict: &Verdict) -> Tone {
    match verdict {
        Verdict::Pass => Tone::Good,
        Verdict::Fail(_) => Tone::Bad,
        Verdict::Inconclusive(_) => Tone::Doubtful,
    }
}

/// What is said where a verdict is not that of a cell: the case could not be asked its questions.
fn undecided(report: &CaseReport) -> &'static str {
    if report.cells.iter().all(|cell| cell.samples == 0) {
        "nothing was sent"
    } else {
        "every stimulus was as expected, but the case as a whole is not"
    }
}

/// The cells that did not pass, worst first, otherwise in the order of the case.
fn failing_cells(report: &CaseReport) -> Vec<&CellReport> {
    let mut cells: Vec<_> =
        report.cells.iter().filter(|cell| cell.verdict != Verdict::Pass).collect();
    cells.sort_by_key(|cell| Reverse(cell.verdict.severity()));
    cells
}

/// The conditions that are not as expected; none of a case that nobody could be asked about.
fn failing_conditions(report: &CaseReport) -> Vec<&ConditionReport> {
    let is_failing = |it: &&ConditionReport| {
        matches!(it.verdict, Verdict::Fail(_)) || it.verdict == report.verdict
    };
    let failing = report.conditions.iter().filter(|it| it.verdict != Verdict::Pass);
    failing.filter(is_failing).collect()
}

/// Cells that went wrong in the same way.
struct Group<'a> {
    first: &'a CellReport,
    others: usize,
}

/// Puts cells together that went wrong in the same way, if there are many.
fn fold(cells: Vec<&CellReport>) -> Vec<Group<'_>> {
    let many = cells.len() > FOLDED_ABOVE;
    let mut groups: Vec<Group<'_>> = Vec::new();
    for cell in cells {
        match groups.iter_mut().find(|group| many && is_same_way(group.first, cell)) {
            Some(group) => group.others += 1,
            None => groups.push(Group { first: cell, others: 0 }),
        }
    }
    groups
}

/// Whether two cells differ in nothing but what was sent, and when.
fn is_same_way(one: &CellReport, other: &CellReport) -> bool {
    one.verdict.word() == other.verdict.word()
        && one.seen == other.seen
        && blame(one) == blame(other)
}

fn write_cell(page: &mut Page, cell: &CellReport) {
    page.paragraph("", Tone::Strong, &sent(cell));
    page.paragraph("", tone(&cell.verdict), &happened(cell));
    page.paragraph("", Tone::Plain, &blame(cell));
    if let Some(control) = &cell.control {
        page.paragraph("  control   ", Tone::Plain, control);
    }
    if let Some(proof) = &cell.proof {
        page.paragraph("  proof     ", Tone::Plain, proof);
    }
    page.paragraph("  samples   ", Tone::Plain, &samples(cell));
    if let Some(loss) = &cell.loss {
        page.paragraph("  stream    ", Tone::Plain, &lost(loss));
    }
    // What leaks is not enforced.
    let leaked = matches!(&cell.verdict, Verdict::Fail(failure) if failure.is_leak());
    if let Some(ms) = cell.time_to_enforce_ms.filter(|_| !leaked) {
        let enforced = format!("{} after the policies were accepted", milliseconds(ms));
        page.paragraph("  enforced  ", Tone::Plain, &enforced);
    }
    for record in records(&cell.evidence) {
        page.paragraph("  record    ", Tone::Plain, &record);
    }
    write_wire(page, cell);
}

/// What was seen on the wire, node by node, and the bytes that say most.
pub(crate) fn write_wire(page: &mut Page, cell: &CellReport) {
    for at in &cell.wire {
        page.paragraph("  wire      ", Tone::Plain, &at.to_string());
    }
    let in_clear = cell.wire.iter().find_map(|at| Some(&at.in_clear.as_ref()?.excerpt));
    let tunnel = || cell.wire.iter().find_map(|at| Some(&at.tunnels.first()?.excerpt));
    for line in in_clear.or_else(tunnel).into_iter().flatten() {
        page.line(&[(Tone::Faint, "            "), (Tone::Faint, line)]);
    }
}

/// What was lost of a stream, and for how long.
pub(crate) fn lost(loss: &LossReport) -> String {
    let LossReport { sent, lost, for_ms } = *loss;
    match lost {
        0 => format!("{sent} sent from before the first policy on, none lost"),
        _ => format!(
            "{lost} of {sent} lost since before the first policy, in {}",
            milliseconds(for_ms)
        ),
    }
}

/// What was sent, and by whom.
pub(crate) fn sent(cell: &CellReport) -> String {
    format!("{} sent {}", cell.from, cell.send)
}

/// What happened, in a line.
pub(crate) fn happened(cell: &CellReport) -> String {
    match &cell.verdict {
        Verdict::Pass => cell.seen.clone(),
        Verdict::Fail(Failure::FailOpen { after_ms, .. }) => format!(
            "got through: {}, sent {} after the policies were accepted",
            cell.seen,
            milliseconds(*after_ms)
        ),
        Verdict::Fail(Failure::InClear { node, seen }) => {
            format!("its nonce was on the wire in clear on node {node}: {seen}")
        }
        Verdict::Fail(Failure::FailClosed { seen, .. }) => format!("did not get through: {seen}"),
        Verdict::Fail(Failure::WrongLayer { .. } | Failure::WrongPolicy { .. }) => {
            format!("did not get through: {}", cell.seen)
        }
        Verdict::Fail(failure @ Failure::WrongCondition { .. }) => failure.to_string(),
        Verdict::Inconclusive(doubt) => doubt.to_string(),
    }
}

/// Who should have stopped it, and who did.
pub(crate) fn blame(cell: &CellReport) -> String {
    let stopped = match &cell.verdict {
        Verdict::Pass | Verdict::Fail(Failure::WrongCondition { .. }) => {
            return format!("should have been {}", cell.expected);
        }
        Verdict::Fail(Failure::FailOpen { .. }) => "nobody stopped it".to_owned(),
        Verdict::Fail(Failure::InClear { .. }) => "nobody encrypted it".to_owned(),
        Verdict::Fail(Failure::FailClosed { stopped_by: Some(by), .. }) => {
            format!("stopped by {by}")
        }
        Verdict::Fail(Failure::FailClosed { stopped_by: None, .. }) => {
            "nobody says that they stopped it".to_owned()
        }
        Verdict::Fail(Failure::WrongLayer { found, .. }) => format!("stopped by {found}"),
        Verdict::Fail(Failure::WrongPolicy { found, .. }) => {
            format!("the record names {}", found.join(", "))
        }
        Verdict::Inconclusive(_) if !cell.wire.is_empty() => {
            return format!("should have been {}", cell.expected);
        }
        Verdict::Inconclusive(_) if cell.samples == 0 => {
            "it was not sent under the policies".to_owned()
        }
        Verdict::Inconclusive(_) => match cell.evidence.iter().find(|it| it.did.is_denial()) {
            Some(record) => format!("a record, but no proof: {}", testimony(record)),
            None => "nobody says that they stopped it".to_owned(),
        },
    };
    format!("should have been {}; {stopped}", cell.expected)
}

/// How many stimuli were sent under the policies, and what settled them.
pub(crate) fn samples(cell: &CellReport) -> String {
    let mut words = format!("{} sent", cell.samples);
    let (evidence, time_out) = (cell.settled_by_evidence, cell.settled_by_time_out);
    if evidence + time_out > 0 {
        words.extend([format!("; {evidence} settled by evidence, {time_out} by time-out")]);
    }
    if let Some(us) = cell.settle_median_us {
        words.extend(["; median ", &microseconds(us), " from packet to record"]);
    }
    words
}

/// The records in words, those that say the same once, with the first one's flow.
pub(crate) fn records(evidence: &[EvidenceReport]) -> Vec<String> {
    let mut said: Vec<(String, &EvidenceReport, usize)> = Vec::new();
    for record in evidence {
        let words = testimony(record);
        match said.iter_mut().find(|(known, ..)| *known == words) {
            Some((.., others)) => *others += 1,
            None => said.push((words, record, 0)),
        }
    }
    said.into_iter()
        .map(|(words, record, others)| {
            let flow = &record.flow;
            let flow = format!("{} {} -> {}", flow.protocol, flow.source, flow.destination);
            match others {
                0 => format!("{words} ({flow})"),
                _ => format!("{words} ({flow} and {others} more)"),
            }
        })
        .collect()
}

fn testimony(record: &EvidenceReport) -> String {
    let words = format!("{} on {}: {}", record.point, record.node, record.did);
    if record.policies.is_empty() {
        return words;
    }
    format!("{words} of {}", record.policies.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn text(report: &CaseReport) -> String {
        failure_text(report, Some(Path::new("target/ztc/run")))
    }

    #[test]
    fn a_leak_says_who_answered_and_who_should_have_stopped_it() {
        insta::assert_snapshot!(text(&sample::fail_open()), @"
        zt-shop/web sent GET http://169.254.169.254:80/
        got through: HTTP 200 from outside/metadata, sent 12 ms after the policies were accepted
        should have been denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata); nobody stopped it
          control   HTTP 200 from outside/metadata
          proof     HTTP 200 from outside/metadata
          samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
          record    cilium on lab-1: allowed at egress (TCP 10.0.1.5:41000 -> 169.254.169.254:80 and 1 more)
          record    cilium on lab-1: denied at egress by a deny rule of CiliumClusterwideNetworkPolicy/block-metadata (TCP 10.0.1.5:41002 -> 169.254.169.254:80)

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        settled   2 ms after the policies were accepted
        evidence  target/ztc/run/evidence/l1-cluster/metadata-is-denied.json
        ");
    }

    #[test]
    fn an_allowed_flow_that_is_stopped_says_by_whom_if_anybody_knows() {
        insta::assert_snapshot!(text(&sample::fail_closed()), @"
        zt-shop/web sent GET http://169.254.169.254:80/
        did not get through: time-out: no answer to the connect
        should have been allowed; stopped by cilium on lab-1: denied at egress: nothing allows it
          samples   20 sent

        zt-pay/ledger sent GET http://169.254.169.254:80/
        did not get through: time-out: no answer to the connect
        should have been allowed; nobody says that they stopped it
          samples   20 sent

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        settled   2 ms after the policies were accepted
        evidence  target/ztc/run/evidence/l1-cluster/the-web-is-allowed.json
        ");
    }

    #[test]
    fn a_denial_by_somebody_else_names_both() {
        insta::assert_snapshot!(text(&sample::wrong_layer()), @"
        zt-shop/web sent GET http://169.254.169.254:80/
        did not get through: REFUSED for metadata.example.
        should have been denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata); stopped by dns-proxy on lab-1: refused the query for metadata.example.
          control   HTTP 200 from outside/metadata
          proof     HTTP 200 from outside/metadata
          samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
          enforced  3 ms after the policies were accepted
          record    dns-proxy on lab-1: refused the query for metadata.example. (TCP 10.0.1.5:41000 -> 169.254.169.254:80)

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        settled   2 ms after the policies were accepted
        evidence  target/ztc/run/evidence/l1-cluster/metadata-is-denied.json
        ");
    }

    #[test]
    fn what_a_controller_says_is_told_where_every_flow_is_as_expected() {
        let report = sample::wrong_condition();
        insta::assert_snapshot!(text(&report), @"
        the status of AuthorizationPolicy/zt-bank/deny-post
        wrong-condition: AuthorizationPolicy/zt-bank/deny-post should say ZtunnelAccepted=True, UnsupportedValue, and says ZtunnelAccepted=True, Accepted: attached to ztunnel

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        settled   2 ms after the policies were accepted
        evidence  target/ztc/run/evidence/l1-cluster/metadata-is-denied.json
        ");
        assert_eq!(failure_line(&report), report.verdict.to_string());
    }

    #[test]
    fn a_denial_by_another_policy_names_both() {
        insta::assert_snapshot!(text(&sample::wrong_policy()), @"
        zt-shop/web sent GET http://169.254.169.254:80/
        did not get through: silence so far: no answer to the connect
        should have been denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata); the record names CiliumNetworkPolicy/zt-shop/no-egress
          control   HTTP 200 from outside/metadata
          proof     HTTP 200 from outside/metadata
          samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
          enforced  3 ms after the policies were accepted
          record    cilium on lab-1: denied at egress by a deny rule of CiliumNetworkPolicy/zt-shop/no-egress (TCP 10.0.1.5:41000 -> 169.254.169.254:80)

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        settled   2 ms after the policies were accepted
        evidence  target/ztc/run/evidence/l1-cluster/metadata-is-denied.json
        ");
    }

    #[test]
    fn a_denial_without_proof_shows_the_record_as_none() {
        insta::assert_snapshot!(text(&sample::no_proof()), @"
        zt-shop/web sent GET http://169.254.169.254:80/
        inconclusive: no proof: after removing CiliumClusterwideNetworkPolicy/block-metadata alone: time-out: no answer to the connect
        should have been denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata); a record, but no proof: cilium on lab-1: denied at egress: nothing allows it
          control   HTTP 200 from outside/metadata
          proof     time-out: no answer to the connect
          samples   20 sent; 19 settled by evidence, 1 by time-out; median 3.1 ms from packet to record
          enforced  3 ms after the policies were accepted
          record    cilium on lab-1: denied at egress: nothing allows it (TCP 10.0.1.5:41000 -> 169.254.169.254:80)

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        settled   2 ms after the policies were accepted
        evidence  target/ztc/run/evidence/l1-cluster/metadata-is-denied.json
        ");
    }

    #[test]
    fn a_failed_control_says_what_was_seen() {
        insta::assert_snapshot!(text(&sample::no_control()), @"
        zt-shop/web sent GET http://169.254.169.254:80/
        inconclusive: control failed: refused
        should have been denied by cilium as explicit-deny (CiliumClusterwideNetworkPolicy/block-metadata); it was not sent under the policies
          control   refused
          samples   0 sent

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        settled   2 ms after the policies were accepted
        evidence  target/ztc/run/evidence/l1-cluster/metadata-is-denied.json
        ");
    }

    #[test]
    fn a_case_that_could_not_begin_says_so_without_a_cell() {
        insta::assert_snapshot!(text(&sample::no_fabric()), @"
        nothing was sent
        inconclusive: the fabric failed: lane 0 did not come up: no TUN device

        because   A metadata service gives the credentials of the node to every pod that can reach it.
        place     suites/l1-cluster/metadata.yaml:14
        evidence  target/ztc/run/evidence/l1-cluster/metadata-is-denied.json
        ");
    }

    #[test]
    fn the_worst_cell_comes_first() {
        let [closed, open] = [sample::fail_closed(), sample::fail_open()];
        let cells = [sample::no_proof().cells, closed.cells, open.cells].concat();
        let report = sample::case("many", cells);
        let text = failure_text(&report, None);
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no {words} in {text}"));
        assert!(at("got through") < at("did not get through"));
        assert!(at("did not get through") < at("inconclusive"));
        assert!(failure_line(&report).contains("got through"));
    }

    #[test]
    fn many_cells_that_failed_alike_are_shown_once() {
        let leak = sample::fail_open().cells.swap_remove(1);
        let cells = |count: usize| {
            let cell =
                |port| CellReport { send: format!("tcp outside/web:{port}"), ..leak.clone() };
            (0..count).map(cell).collect::<Vec<_>>()
        };
        let shown = |cells| failure_text(&sample::case("many", cells), None);
        assert_eq!(shown(cells(6)).matches("got through").count(), 6);

        let text = shown([cells(7), sample::no_proof().cells].concat());
        assert_eq!(text.matches("got through").count(), 1, "{text}");
        assert!(text.contains("and       6 more went wrong in the same way"), "{text}");
        assert!(text.contains("inconclusive"), "{text}");
    }

    #[test]
    fn a_case_that_passes_has_no_failure() {
        assert_eq!(text(&sample::pass()), "");
    }
}
