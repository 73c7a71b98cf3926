//! All that is known of a cell: what was expected, what was seen, and every record about it.

use ztc_engine::event::{CellReport, EvidenceReport};
use ztc_model::ruling::Ruling;
use ztc_model::verdict::Verdict;

use super::markup::{Markup, class};
use super::policy::{self, Links};
use crate::account::Mark;
use crate::failure::{blame, happened, lost, samples};
use crate::span::milliseconds;

/// How much of a cell is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Amount {
    /// One line of it.
    Line,
    /// All of it in words.
    Words,
    /// And the records as they were written.
    Records,
}

/// How long a field of one line may get, characters.
const SHORT: usize = 120;

/// How long a record may get as it was written, characters.
const RECORD: usize = 6_000;

/// A cell by its number, as much of it as is asked for, open from the start or not.
pub(super) fn cell(
    cell: &CellReport,
    number: usize,
    (amount, open): (Amount, bool),
    links: &Links<'_>,
) -> Markup {
    let mut page = Markup::new();
    let mark = Mark::of(&cell.verdict);
    if amount == Amount::Line {
        page.tag("<p class=\"k ").tag(class(mark)).tag("\" id=c").number(number);
        page.tag(">").tag(mark.sign()).tag(" ").short_name(&cell.from, SHORT).tag(" sent ");
        page.short_name(&cell.send, SHORT).tag(": ").short_name(&cell.seen, SHORT);
        page.tag("; expected: ").short_name(&cell.expected, SHORT);
        return page;
    }
    page.tag("<details class=\"k ").tag(class(mark)).tag("\"");
    page.tag(if open { " open><summary>" } else { "><summary>" });
    page.mark(mark).tag(" ").name(&cell.from).tag(" sent ").name(&cell.send);
    if let Some(ms) = enforced(cell) {
        page.tag(" <small>enforced in ").text(&milliseconds(ms)).tag("</small>");
    }
    // A link into closed details opens them.
    page.tag("</summary><dl id=c").number(number).tag(">");
    page.fact("expected", Some(&cell.expected));
    if mark != Mark::Pass {
        page.tag("<dt>happened<dd class=bad>").text(&happened(cell));
        let blame = blame(cell);
        let expected = format!("should have been {}; ", cell.expected);
        page.fact("but", blame.strip_prefix(&expected));
    }
    page.fact("seen", Some(&cell.seen));
    page.fact("control", cell.control.as_deref()).fact("proof", cell.proof.as_deref());
    let enforced =
        enforced(cell).map(|ms| format!("{} after the policies were accepted", milliseconds(ms)));
    page.fact("enforced", enforced.as_deref());
    page.fact("samples", Some(&samples(cell)));
    page.fact("stream", cell.loss.as_ref().map(lost).as_deref());
    write_wire(&mut page, cell);
    page.tag("</dl>");
    write_evidence(&mut page, &cell.evidence, amount, links);
    page.tag("</details>");
    page
}

/// How long it took to enforce; what leaks is not enforced.
pub(super) fn enforced(cell: &CellReport) -> Option<u64> {
    let leaks = matches!(&cell.verdict, Verdict::Fail(failure) if failure.is_leak());
    cell.time_to_enforce_ms.filter(|_| !leaks)
}

fn write_wire(page: &mut Markup, cell: &CellReport) {
    for at in &cell.wire {
        page.fact("wire", Some(&at.to_string()));
        let in_clear = at.in_clear.as_ref().map(|it| &it.excerpt);
        let tunnel = || at.tunnels.first().map(|it| &it.excerpt);
        let Some(excerpt) = in_clear.or_else(tunnel) else { continue };
        page.tag("<dd><pre>");
        for line in excerpt {
            page.text(line).tag("\n");
        }
        page.tag("</pre>");
    }
}

/// Writes what enforcement points have on record.
pub(super) fn write_evidence(
    page: &mut Markup,
    evidence: &[EvidenceReport],
    amount: Amount,
    links: &Links<'_>,
) {
    if evidence.is_empty() {
        page.tag("<p class=faint>No enforcement point has a record of it.");
        return;
    }
    page.tag(
        "<div class=scroll tabindex=0 role=region aria-label=\"Records\"><table class=records>",
    );
    page.tag("<thead><tr><th scope=col>who<th scope=col>did<th scope=col>node<th scope=col>flow");
    page.tag("<th scope=col>policies named, and their rules<tbody>");
    for record in evidence {
        let flow = &record.flow;
        let flow = format!("{} {} → {}", flow.protocol, flow.source, flow.destination);
        page.tag(if record.did.is_denial() { "<tr class=stop>" } else { "<tr>" });
        page.tag("<th scope=row>").text(&record.point.to_string());
        page.tag("<td>").name(&record.did.to_string()).tag("<td>").name(&record.node);
        page.tag("<td>").name(&flow).tag("<td>");
        write_policies(page, record, links);
        if amount == Amount::Records {
            let written = serde_json::to_string_pretty(&record.record).unwrap_or_default();
            page.tag("<tr class=raw><td colspan=5><details><summary>as it was written");
            page.tag("</summary><pre>").clipped(&written, RECORD).tag("</pre></details>");
        }
    }
    page.tag("</table></div>");
}

/// Writes the policies that a record names, and what of them decided. What it does not name may have decided all the same.
fn write_policies(page: &mut Markup, record: &EvidenceReport, links: &Links<'_>) {
    if record.policies.is_empty() {
        page.tag("none");
    }
    let mut others: Vec<&Ruling> = record.rulings.iter().collect();
    for policy in &record.policies {
        page.tag("<div>");
        policy::write_name(page, policy, links);
        others.retain(|ruling| {
            let is_of_it = ruling.policy.to_string() == *policy;
            if is_of_it {
                page.tag("<p>");
                policy::write_ruling(page, ruling, links);
            }
            !is_of_it
        });
        page.tag("</div>");
    }
    for ruling in others {
        page.tag("<div>");
        policy::write_name(page, &ruling.policy.to_string(), links);
        page.tag("<p>");
        policy::write_ruling(page, ruling, links);
        page.tag("</div>");
    }
}
