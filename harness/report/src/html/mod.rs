//! `report.html`: the run as one page that people look at, complete in itself.
//!
//! Nothing is loaded from anywhere: styles and the script are in the page, and its policy lets no
//! other ones in and no request out. The page is whole without the script, which only filters.
//!
//! What comes from the events is text: a `markup::Markup` takes literals of this program as they
//! are and everything else escaped. A verdict is never told by colour alone.
//!
//! What was watched while something changed is a time line, as far as there is room for its flows.
//!
//! The page stays below [`LONGEST`] at thousands of cells: every cell has its place in a truth
//! table and a line of its own; of failures, then of the others, more is told as far as there is
//! room, and the page says what it left out.

mod case;
mod cell;
mod change;
mod markup;
mod overview;
mod policy;
mod table;
#[cfg(test)]
mod tests;
mod timeline;
mod window;

use crate::account::Account;
use case::Case;
use cell::Amount;
use change::Places;
use markup::Markup;
use policy::Policies;

/// The name of the file, in the folder of the run.
pub const FILE: &str = "report.html";

/// How long the page should get, bytes. Only so many cells that a line of each is more make it longer.
pub const LONGEST: usize = 2_000_000;

/// The part of it that texts of policies get, before anything is told of cells that passed.
const POLICIES: usize = 4;

/// The look of the page.
pub const STYLE: &str = include_str!("report.css");

/// What filters its cases.
pub const SCRIPT: &str = include_str!("report.js");

/// What the page may do: nothing but what is in it. The digests are those of [`STYLE`] and
/// [`SCRIPT`]; a test of `ztc` holds them against each other.
pub const POLICY: &str = "default-src 'none'; style-src 'sha256-w8G4UzdBhRUWrgSCqnM0mUbqRBFM01jlYaczG8jo/Ok='; script-src 'sha256-rUgCWBJjyjYzEH9p72Be9NERi1u/92xKRO9mOXO53zY='; base-uri 'none'; form-action 'none'";

/// The run as a page.
pub fn page(account: &Account) -> String {
    let reports = account.worst_first();
    let mut policies = Policies::of(&account.policies, &reports);
    let written = policies.told(LONGEST / POLICIES);
    let mut cases = Vec::with_capacity(reports.len());
    let mut places = Places::new();
    let mut first = 0;
    for (number, report) in reports.iter().enumerate() {
        let change = account.changes.iter().position(|it| it.case == report.case);
        let links = policies.at(&report.applied);
        cases.push(Case::new(report, (number, first), change, links));
        let next = first + report.cells.len();
        places.insert(&report.case, (number, first..next));
        first = next;
    }
    let mut page = Markup::new();
    write_beginning(&mut page, account);
    overview::write_suites(&mut page, account, &reports);
    change::write(&mut page, &account.changes, &places);
    overview::write_filters(&mut page, account);
    let mut rest = Markup::new();
    overview::write_rest(&mut rest, account, &reports);

    let frame = page.len() + written.len() + rest.len() + SCRIPT.len() + 4_096;
    let used = frame + cases.iter().map(Case::len).sum::<usize>();
    let mut room = LONGEST.saturating_sub(used);
    for passed in [false, true] {
        for amount in [Amount::Words, Amount::Records] {
            for case in &mut cases {
                case.tell(amount, passed, &mut room);
            }
        }
        for case in cases.iter_mut().filter(|it| it.passed() == passed) {
            case.tell_inspections(&mut room);
        }
    }

    page.tag("<section id=cases aria-labelledby=all tabindex=-1><h2 id=all>Cases</h2>");
    write_left_out(&mut page, &cases);
    if cases.is_empty() {
        page.tag("<p class=faint>No case came to its end.");
    }
    for case in &cases {
        case.write(&mut page);
    }
    page.tag("</section>");
    page.join(&written).join(&rest).tag("</main><footer>Everything on this page is in ");
    page.tag("<code>events.jsonl</code> beside it; <code>ztc report render</code> makes it again.");
    page.tag("</footer><script>").tag(SCRIPT).tag("</script></body></html>\n");
    page.into_string()
}

fn write_beginning(page: &mut Markup, account: &Account) {
    page.tag("<!DOCTYPE html><html lang=en><head><meta charset=utf-8>");
    page.tag("<meta http-equiv=\"Content-Security-Policy\" content=\"").tag(POLICY).tag("\">");
    page.tag("<meta name=viewport content=\"width=device-width, initial-scale=1\">");
    page.tag(
        "<meta name=color-scheme content=\"light dark\"><meta name=referrer content=no-referrer>",
    );
    page.tag("<title>").tag(account.verdict().1);
    if let Some(run) = &account.run {
        page.tag(" on ").text(&run.fabric).tag(", ").text(&run.run);
    }
    page.tag(" – ztc</title><style>").tag(STYLE).tag("</style></head><body>");
    page.tag("<a class=skip href=#cases>Skip to the cases</a>");
    overview::write_header(page, account);
    page.tag("<main>");
    overview::write_notices(page, account);
}

fn write_left_out(page: &mut Markup, cases: &[Case<'_>]) {
    let (mut lines, mut unwritten, mut inspections) = (0, 0, 0);
    for (line, written, inspected) in cases.iter().map(Case::left_out) {
        lines += line;
        unwritten += written;
        inspections += inspected;
    }
    if lines + unwritten + inspections == 0 {
        return;
    }
    page.tag("<p class=note><b>Left out to keep this page small:</b> ");
    page.count(lines, "cell is", "cells are").tag(" told in one line, ");
    page.count(unwritten, "cell has", "cells have").tag(" no records as they were written, ");
    page.count(inspections, "output of a tool is", "outputs of tools are");
    page.tag(" missing. All of it is in <code>evidence/</code>.");
}
