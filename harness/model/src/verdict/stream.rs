//! Flows of which every stimulus counts, from before the first policy to the end of the hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Denial, Doubt, Facts, Failure, Sample, Verdict, attribute, passes, testimony};
use crate::evidence::{Did, Evidence};
use crate::outcome::Reading;

/// Judges a flow of which nothing may be lost. It needs no control: what never passes is lost from the first
/// stimulus on.
pub(super) fn unbroken(peers: &BTreeSet<String>, facts: &Facts) -> Result<(), Verdict> {
    begun(facts)?;
    for sample in facts.meanwhile.iter().chain(&facts.samples) {
        arrived(sample, peers)?;
    }
    Ok(())
}

/// Judges a flow that has to be stopped for a while, by whom the case says.
///
/// That it begins and ends with the policies that make it so needs no removal: each policy is enforced before
/// the next one is applied, so what is lost in between is lost to the first of them.
pub(super) fn interrupted(
    denial: &Denial<'_>,
    peers: &BTreeSet<String>,
    facts: &Facts,
) -> Result<(), Verdict> {
    let doubt = |doubt| Err(Verdict::Inconclusive(doubt));
    match &facts.control {
        _ if facts.broken.is_some() => {}
        None => return doubt(Doubt::Control("it was never taken".to_owned())),
        Some(seen) => {
            passes(seen, peers).map_err(|why| Verdict::Inconclusive(Doubt::Control(why)))?;
        }
    }
    begun(facts)?;
    for sample in &facts.meanwhile {
        if let Reading::Unsent { why } = Reading::of(&sample.seen, peers) {
            return doubt(Doubt::Client(why));
        }
    }
    for sample in &facts.samples {
        arrived(sample, peers)?;
    }
    let stopped = |it: &&Sample| Reading::of(&it.seen, peers) == Reading::Stopped;
    let lost: Vec<&Sample> = facts.meanwhile.iter().filter(stopped).collect();
    let Some(newest) = facts.meanwhile.last().filter(|_| lost.is_empty()) else {
        let records: Vec<_> = lost.iter().flat_map(|it| &it.evidence).map(as_it_was).collect();
        return attribute(denial, records.iter().collect());
    };
    let seen = format!("nothing was lost of {} stimuli: {}", facts.meanwhile.len(), newest.seen);
    Err(Verdict::Fail(Failure::FailOpen { seen, after_ms: newest.after_ms }))
}

/// A record of a packet that nothing allowed, without the names of policies. Such a record needs none; where it has
/// some, Cilium's agent found them when it read the record (`CorrelatePolicy` of Hubble asks for the rules that the
/// endpoint has by then), and while policies change these are the rules that ended the interruption
/// (`docs/facts.md`, an allowance named as what denied).
fn as_it_was(evidence: &Arc<Evidence>) -> Arc<Evidence> {
    match evidence.did {
        Did::DenyByDefault { .. } if !evidence.policies.is_empty() => {
            Arc::new(Evidence { policies: Vec::new(), ..Evidence::clone(evidence) })
        }
        _ => Arc::clone(evidence),
    }
}

/// How many stimuli of a stream did not arrive as they were sent.
pub fn lost(peers: &BTreeSet<String>, facts: &Facts) -> usize {
    let all = facts.meanwhile.iter().chain(&facts.samples);
    all.filter(|it| arrived(it, peers).is_err()).count()
}

fn begun(facts: &Facts) -> Result<(), Verdict> {
    let doubt = |doubt| Err(Verdict::Inconclusive(doubt));
    if let Some(broken) = &facts.broken {
        return doubt(broken.clone());
    }
    if facts.meanwhile.is_empty() || facts.samples.is_empty() {
        return doubt(Doubt::NoEvidence("the stream was not watched to its end".to_owned()));
    }
    Ok(())
}

/// Whether a stimulus arrived at once. A connection that was dropped is tried again by the kernel and may get
/// through a second later: where an enforcement point says so, it counts as lost.
fn arrived(sample: &Sample, peers: &BTreeSet<String>) -> Result<(), Verdict> {
    let dropped = sample.evidence.iter().find(|it| it.did.is_denial() && it.opening);
    match (Reading::of(&sample.seen, peers), dropped) {
        (Reading::Through { .. }, None) => Ok(()),
        (Reading::Unsent { why }, _) => Err(Verdict::Inconclusive(Doubt::Client(why))),
        (_, dropped) => Err(Verdict::Fail(Failure::FailClosed {
            seen: sample.seen.to_string(),
            stopped_by: dropped
                .or_else(|| sample.evidence.iter().find(|it| it.did.is_denial()))
                .map(|it| testimony(it)),
        })),
    }
}
