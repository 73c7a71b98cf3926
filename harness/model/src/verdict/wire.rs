//! What was on the wire, judged once the flow is known to get through.

use super::{Doubt, Facts, Failure, Verdict};
use crate::capture::{AtNode, Wire, is_tls, told};

/// What must be encrypted and was in clear, at any node. No doubt outranks it.
pub(super) fn leak(facts: &Facts) -> Option<Failure> {
    facts.wire.iter().find_map(|at| {
        let sighting = at.in_clear.as_ref()?;
        Some(Failure::InClear { node: at.node.to_string(), seen: told(sighting) })
    })
}

/// Whether the wire was as expected on every node of the flow.
pub(super) fn judge(wire: Wire, facts: &Facts) -> Result<(), Verdict> {
    if facts.wire.is_empty() {
        return doubt("nothing was captured".to_owned());
    }
    facts.wire.iter().try_for_each(|at| {
        if let Some(why) = &at.failed {
            return doubt(format!("no capture on node {}: {why}", at.node));
        }
        match wire {
            Wire::Clear => in_clear(at),
            Wire::Encrypted => encrypted(at),
        }
    })
}

fn in_clear(at: &AtNode) -> Result<(), Verdict> {
    match &at.in_clear {
        Some(_) => Ok(()),
        None => doubt(format!(
            "it was not seen in clear on node {}: the capture is blind there, or it was not sent in clear",
            at.node
        )),
    }
}

/// That nothing was seen in clear is no proof by itself: the capture may have lost it, may see nothing at all, or
/// nothing of these two.
fn encrypted(at: &AtNode) -> Result<(), Verdict> {
    let AtNode { node, lost, .. } = at;
    if *lost > 0 {
        return doubt(format!("the capture on node {node} could not keep {lost} packets"));
    }
    if !at.controlled {
        return doubt(format!(
            "the capture on node {node} may be blind: it saw nothing of what must be in clear there"
        ));
    }
    let mut carried = at.tunnels.iter().filter(|it| it.sent > 0).peekable();
    if carried.peek().is_none() {
        return doubt(format!("nothing was seen in a tunnel between the two on node {node}"));
    }
    match carried.find(|it| !is_tls(it.speaks)) {
        None => Ok(()),
        Some(tunnel) => doubt(format!(
            "the tunnel {} -> {} on node {node} carries {}",
            tunnel.client, tunnel.server, tunnel.speaks
        )),
    }
}

fn doubt(why: String) -> Result<(), Verdict> {
    Err(Verdict::Inconclusive(Doubt::NoEvidence(why)))
}
