//! What is refused whatever policies say, so that there is no policy to remove.
//!
//! In the place of a removal stands something that differs from the stimulus in one attribute: it has to get through before
//! and after, under the same policies. And who refuses says so of this very connection, in the form that is expected.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Doubt, Facts, Failure, Verdict, form_of, passes, testimony, was_stopped};
use crate::evidence::{Did, Evidence};
use crate::outcome::{EnforcementPoint, Form};
use crate::ztunnel::NOT_TAKEN;

pub(super) fn judge(
    (by, form): (EnforcementPoint, Form),
    peers: &BTreeSet<String>,
    facts: &Facts,
) -> Result<(), Verdict> {
    was_stopped(peers, facts)?;
    let records = facts.samples.iter().flat_map(|it| &it.evidence);
    let mut records: Vec<(&Arc<Evidence>, Option<Form>)> =
        records.map(|it| (it, refused_as(&it.did))).collect();
    records.retain(|(record, form)| record.did.is_denial() || form.is_some());
    if records.is_empty() {
        let why = format!("no record of {by} about this flow");
        return Err(Verdict::Inconclusive(Doubt::NoEvidence(why)));
    }
    if let Some((other, _)) =
        records.iter().find(|(record, found)| record.point != by || *found != Some(form))
    {
        return Err(Verdict::Fail(Failure::WrongLayer {
            expected: format!("{by} as {form}"),
            found: testimony(other),
        }));
    }
    let doubt = |why: String| Err(Verdict::Inconclusive(Doubt::NoProof(why)));
    match &facts.proof {
        None => doubt("what differs from it in one attribute was not tried again".to_owned()),
        Some(seen) => passes(seen, peers).or_else(|why| {
            doubt(format!("what differs from it in one attribute does not get through: {why}"))
        }),
    }
}

fn refused_as(did: &Did) -> Option<Form> {
    match did {
        Did::Fail { reason } if reason.starts_with(NOT_TAKEN) => Some(Form::Unserved),
        did => form_of(did),
    }
}
