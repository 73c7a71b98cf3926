//! What a suite may not ask twice, and what a case may not send twice: records could not be told apart.

use std::collections::{BTreeMap, BTreeSet};

use crate::stimulus::{Echo, Peer, Send};
use crate::suite::file::{ExpectationFile, OneOrMany, SuiteFile};
use crate::suite::load::Question;
use crate::suite::{Case, Cell, Origin};
use crate::world::World;
use crate::yaml::{Diagnostic, Source, Spanned};
use ztc_wire::Family;

type Checked = Result<(), Box<Diagnostic>>;

pub(super) fn names(source: &Source, file: &SuiteFile) -> Checked {
    let mut seen = BTreeSet::new();
    for case in &file.cases {
        if !seen.insert(&case.value.name.value) {
            return Err(source.diagnostic_at(
                &case.value.name,
                format!("a case `{}` exists already", case.value.name.value),
                None,
            ));
        }
    }
    Ok(())
}

/// Two cells with the same source, stimulus and policies are one question asked twice: either a
/// slip of the pen, or two answers of which one is wrong.
pub(super) fn cells(source: &Source, file: &SuiteFile, cases: &[Case]) -> Checked {
    let mut seen: BTreeMap<Question<'_>, &Case> = BTreeMap::new();
    for (written, case) in file.cases.iter().zip(cases) {
        let taken_away = case.remove.iter().map(|it| format!("without {it}"));
        let relabelled =
            case.relabel.iter().map(|it| format!("with {} as {:?}", it.pod, it.labels));
        let restarted = case.restart.iter().map(|it| format!("past a restart of {it}"));
        // Where flows are watched all the time the order of the policies is the question.
        let ordered = case.watches_a_stream().then(|| format!("in the order of {}", case.id));
        let policies: BTreeSet<String> = case
            .apply
            .iter()
            .map(|it| format!("{}:{}", it.file, it.reference))
            .chain(taken_away)
            .chain(relabelled)
            .chain(restarted)
            .chain(ordered)
            .chain(case.versions.to_strings())
            .collect();
        for cell in &case.cells {
            let question = (policies.clone(), &cell.from, &cell.send);
            if let Some(other) = seen.insert(question, case) {
                let message = format!(
                    "`{}` from {} is asked of the same policies in case `{}` already",
                    cell.send,
                    cell.from,
                    other.id.name()
                );
                let at = expectation_at(&written.value.expect, cell);
                return Err(source.diagnostic_at(at, message, None));
            }
        }
    }
    Ok(())
}

/// Records of echo requests carry no identifier, so one pair of addresses has one stimulus in
/// flight: a case that pings a peer by its name and by its address could not tell the records apart.
pub(super) fn pairs(
    source: &Source,
    world: &World,
    expectations: &[Spanned<ExpectationFile>],
    cells: &[Cell],
) -> Checked {
    let family = |to: &Echo| match &to.peer {
        Peer::Address(address) => Some(Family::of(*address)),
        // Without a word it is the first address of the peer, whichever that is.
        _ => to.family,
    };
    let target = |peer: &Peer| match peer {
        Peer::Address(address) => {
            let host = world.outside.iter().find(|host| host.has(*address));
            host.map_or_else(|| peer.clone(), |host| Peer::Outside(host.name.clone()))
        }
        peer => peer.clone(),
    };
    let differ = |one: &Echo, other: &Echo| {
        target(&one.peer) != target(&other.peer)
            || family(one).zip(family(other)).is_some_and(|(one, other)| one != other)
    };
    let mut seen: Vec<(&Origin, &Echo)> = Vec::new();
    for cell in cells {
        let Send::Ping(to) = &cell.send else { continue };
        if seen.iter().any(|(from, other)| **from == cell.from && !differ(to, other)) {
            let message = format!("{} pings {} twice in this case", cell.from, target(&to.peer));
            return Err(source.diagnostic_at(
                expectation_at(expectations, cell),
                message,
                Some("records of echo requests could not be told apart"),
            ));
        }
        seen.push((&cell.from, to));
    }
    Ok(())
}

/// A waypoint writes down the method, the host and the path of a request, and not its token: two requests that
/// differ in nothing else could not be told apart.
pub(super) fn requests(
    source: &Source,
    expectations: &[Spanned<ExpectationFile>],
    cells: &[Cell],
) -> Checked {
    let bare = |send: &Send| match send {
        Send::Http { tls, method, to, path, .. } => {
            let (method, to, path) = (method.clone(), to.clone(), path.clone());
            Some(Send::Http { tls: *tls, method, to, path, token: None })
        }
        _ => None,
    };
    let mut seen: BTreeMap<(&Origin, Send), &Send> = BTreeMap::new();
    for cell in cells {
        let Some(request) = bare(&cell.send) else { continue };
        let other = *seen.entry((&cell.from, request)).or_insert(&cell.send);
        if *other != cell.send {
            return Err(source.diagnostic_at(
                expectation_at(expectations, cell),
                format!(
                    "`{}` and `{other}` differ in nothing that a waypoint writes down",
                    cell.send
                ),
                Some("ask for another path with each token"),
            ));
        }
    }
    Ok(())
}

/// Where a cell's stimulus is written. All cells of a row of a table are on one line.
fn expectation_at<'a>(
    expectations: &'a [Spanned<ExpectationFile>],
    cell: &Cell,
) -> &'a Spanned<OneOrMany> {
    let sends =
        |it: &ExpectationFile| it.send.value.0.iter().any(|it| it.parse() == Ok(cell.send.clone()));
    let written = expectations
        .iter()
        .find(|it| super::load::line(&it.value.from) == cell.line && sends(&it.value))
        .unwrap_or(&expectations[0]);
    &written.value.send
}
