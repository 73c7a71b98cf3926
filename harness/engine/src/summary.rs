//! From what a case's life brought to what its report says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ztc_model::evidence::Evidence;
use ztc_model::manifest::Manifest;
use ztc_model::outcome::{Expected, Reading};
use ztc_model::ruling::{Rulebook, Ruling};
use ztc_model::suite::{Case, Cell};
use ztc_model::verdict::{Doubt, Facts, Sample, Verdict, lost};

use crate::case::{Outcome, Said};
use crate::event::{CaseReport, CellReport, ConditionReport, EvidenceReport, LossReport};

/// How many records a report keeps of a cell.
const KEPT_RECORDS: usize = 6;

/// How many gaps of the stream of records a doubt tells of.
const GAPS_TOLD: usize = 3;

pub(crate) fn case(
    case: &Case,
    lane: usize,
    took: Duration,
    settled: Option<Duration>,
    (cells, conditions): (Vec<CellReport>, Vec<ConditionReport>),
    residue: Option<String>,
) -> CaseReport {
    let verdicts = cells.iter().map(|it| &it.verdict);
    let verdicts = verdicts.chain(conditions.iter().map(|it| &it.verdict));
    CaseReport {
        case: case.id.clone(),
        because: case.because.clone(),
        gap: case.gap.clone(),
        place: format!("{}:{}", case.file, case.line),
        lane,
        verdict: Verdict::worst(verdicts.cloned()),
        took_ms: millis(took),
        settled_ms: settled.map(millis),
        applied: case.apply.iter().map(Manifest::place).collect(),
        cells,
        conditions,
        residue,
        inspections: Vec::new(),
        expected_failure: None,
    }
}

/// The report of a case that could not be begun.
pub(crate) fn unable(it: &Case, lane: usize, took: Duration, doubt: &Doubt) -> CaseReport {
    let outcome = Outcome {
        facts: Facts { broken: Some(doubt.clone()), ..Facts::default() },
        ..Outcome::default()
    };
    let verdict = Verdict::Inconclusive(doubt.clone());
    let asked = |it: &Cell| cell((it, it), &outcome, verdict.clone(), &[], None);
    let cells = it.cells.iter().map(asked).collect();
    case(it, lane, took, None, (cells, conditions(it, &[])), None)
}

/// The reports of the conditions of a case, as it is written.
pub(crate) fn conditions(case: &Case, said: &[Said]) -> Vec<ConditionReport> {
    let unasked = || Verdict::Inconclusive(Doubt::NoEvidence("nobody was asked".to_owned()));
    let said = said.iter().map(Some).chain(std::iter::repeat(None));
    let both = case.conditions.iter().zip(said);
    let reports = both.map(|(expected, said)| ConditionReport {
        object: expected.object.to_string(),
        expected: expected.to_string(),
        verdict: said.map_or_else(unasked, |it| it.verdict.clone()),
        found: said.and_then(|it| it.found.clone()),
    });
    reports.collect()
}

/// The report of a cell as it is written, which is `asked` by the names of the lane.
pub(crate) fn cell(
    (cell, asked): (&Cell, &Cell),
    outcome: &Outcome,
    verdict: Verdict,
    gaps: &[String],
    rulebook: Option<&Rulebook<'_>>,
) -> CellReport {
    let peers = &asked.peers;
    let facts = &outcome.facts;
    let denied = cell.expected.is_denied();
    let (by_evidence, by_time_out) = settled(&facts.samples, peers);
    CellReport {
        from: cell.from.to_string(),
        send: cell.send.to_string(),
        expected: cell.expected.to_string(),
        expected_by: match &cell.expected {
            Expected::Denied { by, .. } | Expected::Interrupted { by, .. } => *by,
            Expected::Refused { by, .. } => Some(*by),
            Expected::Allowed { .. } | Expected::Throughout => None,
        },
        verdict: with_gaps(verdict, denied, gaps),
        seen: decisive(facts, peers, denied),
        control: facts.control.as_ref().map(ToString::to_string),
        proof: facts.proof.as_ref().map(ToString::to_string),
        time_to_enforce_ms: outcome.time_to_enforce.map(millis),
        samples: facts.samples.len(),
        settled_by_evidence: by_evidence,
        settled_by_time_out: by_time_out,
        settle_median_us: median(outcome.settled_after.clone())
            .map(|it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX)),
        loss: cell.expected.is_stream().then(|| LossReport {
            sent: facts.meanwhile.len() + facts.samples.len(),
            lost: lost(peers, facts),
            for_ms: millis(outcome.lost_for.unwrap_or_default()),
        }),
        evidence: records(facts, |it| {
            rulebook.map_or_else(Vec::new, |rulebook| rulebook.rulings(asked, it))
        }),
        wire: facts.wire.clone(),
    }
}

/// A missing record may have been lost with a gap in the stream: the doubt says so. A denial is not
/// proved by what is left either, as what was lost may say that somebody else stopped the flow. What a
/// client has seen stands, whatever was lost.
fn with_gaps(verdict: Verdict, denied: bool, gaps: &[String]) -> Verdict {
    if gaps.is_empty() {
        return verdict;
    }
    // While a stream cannot be opened again every attempt has a reason of its own.
    let more = match gaps.len().saturating_sub(GAPS_TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let told = gaps.iter().take(GAPS_TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
    let gaps = format!("the stream of records had gaps: {told}{more}");
    match verdict {
        Verdict::Inconclusive(Doubt::NoEvidence(why)) => {
            Verdict::Inconclusive(Doubt::NoEvidence(format!("{why}; {gaps}")))
        }
        Verdict::Pass if denied => Verdict::Inconclusive(Doubt::NoEvidence(gaps)),
        verdict => verdict,
    }
}

/// How many stopped stimuli have a record of their denial, and how many have none.
fn settled(samples: &[Sample], peers: &BTreeSet<String>) -> (usize, usize) {
    let (on_record, in_silence): (Vec<&Sample>, Vec<&Sample>) = samples
        .iter()
        .filter(|it| Reading::of(&it.seen, peers) == Reading::Stopped)
        .partition(|it| it.evidence.iter().any(|evidence| evidence.did.is_denial()));
    (on_record.len(), in_silence.len())
}

/// The sample that decides, in words: the first that is not as expected, else the first.
fn decisive(facts: &Facts, peers: &BTreeSet<String>, denied: bool) -> String {
    let mut all = facts.meanwhile.iter().chain(&facts.samples);
    let first = all.clone().next();
    let sample = all.find(|it| !is_as_expected(it, peers, denied)).or(first);
    match sample {
        Some(sample) => sample.seen.to_string(),
        None => facts.control.as_ref().map_or("nothing was sent".to_owned(), |control| {
            format!("{control} (the control; nothing was sent under the policies)")
        }),
    }
}

/// Whether what the client saw is what the cell expects, whoever stopped it.
pub(crate) fn is_as_expected(sample: &Sample, peers: &BTreeSet<String>, denied: bool) -> bool {
    match Reading::of(&sample.seen, peers) {
        Reading::Stopped => denied,
        Reading::Through { .. } => !denied,
        _ => false,
    }
}

/// The first record of each kind. A denial decides more than an allowance, and one that names a
/// policy says more than its twin that does not.
fn records(facts: &Facts, rulings: impl Fn(&Evidence) -> Vec<Ruling>) -> Vec<EvidenceReport> {
    let mut seen = BTreeSet::new();
    let samples = facts.meanwhile.iter().chain(&facts.samples).flat_map(|it| &it.evidence);
    let mut all: Vec<&Arc<Evidence>> = samples.chain(&facts.beyond).collect();
    all.sort_by_key(|evidence| (!evidence.did.is_denial(), evidence.policies.is_empty()));
    all.retain(|evidence| {
        let policies: Vec<String> = evidence.policies.iter().map(ToString::to_string).collect();
        seen.insert((evidence.point, evidence.node.clone(), evidence.did.to_string(), policies))
    });
    all.truncate(KEPT_RECORDS);
    let told = |it: &Arc<Evidence>| EvidenceReport { rulings: rulings(it), ..record(it) };
    all.into_iter().map(told).collect()
}

pub(crate) fn record(evidence: &Evidence) -> EvidenceReport {
    EvidenceReport {
        point: evidence.point,
        node: evidence.node.clone(),
        flow: evidence.flow,
        did: evidence.did.clone(),
        policies: evidence.policies.iter().map(ToString::to_string).collect(),
        rulings: Vec::new(),
        record: serde_json::to_value(&evidence.record).expect("records have string keys only"),
    }
}

/// The one in the middle, if there is one.
pub(crate) fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_tells_of_the_first_gaps_and_counts_the_others() {
        let gaps = ["ended", "no such pod", "refused", "refused again", "mute"].map(str::to_owned);
        assert_eq!(
            with_gaps(Verdict::Pass, true, &gaps).to_string(),
            "inconclusive: no evidence: the stream of records had gaps: ended; no such pod; refused; and 2 more"
        );
    }
}
