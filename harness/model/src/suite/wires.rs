//! What a case may say of the wire, and that what is said to be encrypted has its control.

use std::collections::BTreeSet;

use crate::capture::Wire;
use crate::outcome::Expected;
use crate::stimulus::{Peer, Send};
use crate::suite::file::{ExpectationFile, Is};
use crate::suite::{Cell, Feature, Origin};
use crate::world::{NodeSlot, PodRef, World};
use crate::yaml::{Diagnostic, Source, Spanned};

type Checked<T = ()> = Result<T, Box<Diagnostic>>;

/// Whether a cell whose wire is asked about can be captured.
///
/// # Errors
/// A diagnostic at what stands against it.
pub(super) fn can_be_captured(
    source: &Source,
    needs: &BTreeSet<Feature>,
    world: &World,
    (file, create): (&ExpectationFile, &[PodRef]),
    cell: &Cell,
) -> Checked {
    let Some(wire) = &file.wire else { return Ok(()) };
    let wrong = |message: String, help| Err(source.diagnostic_at(wire, message, help));
    if file.is != Is::Allowed {
        return wrong("only of what is allowed it is known to be on the wire".to_owned(), None);
    }
    if file.throughout.as_ref().is_some_and(|it| it.value) {
        return wrong(
            "the wire of a flow that is allowed throughout is not looked at".to_owned(),
            None,
        );
    }
    if !needs.contains(&Feature::Capture) {
        let message = format!("the suite does not say that it needs {}", Feature::Capture);
        return wrong(message, Some("add it to `needs` at the top of the suite"));
    }
    if !carries_its_nonce(&cell.send) {
        let message = format!("`{}` has no nonce that could be seen in clear", cell.send);
        return wrong(message, Some("say it of `tcp`, `udp`, `ping` or METHOD http://…"));
    }
    if cell.peers.len() > 1 {
        let message = format!("`{}` may go to several pods: which of them is not known", cell.send);
        return wrong(message, Some("send to one of them, or to a service with one behind it"));
    }
    let ends = match &cell.from {
        Origin::Pod(pod) if !create.contains(pod) => {
            std::iter::once(pod.clone()).chain(cell.served_by())
        }
        from => return wrong(format!("nothing is captured of what {from} sends"), None),
    };
    for end in ends {
        if world.pod(&end).is_some_and(|it| it.host_network) {
            let message = format!("{end} is in its node's network, and has no edge of its own");
            return wrong(message, None);
        }
    }
    Ok(())
}

/// Whether what it sends has the nonce as it is, in the words of the agent. What is inside of TLS never is on any wire.
fn carries_its_nonce(send: &Send) -> bool {
    match send {
        Send::Tcp(_) | Send::TcpFlow(_) | Send::Udp(_) | Send::UdpFlow(_) | Send::Ping(_) => true,
        Send::Http { tls, .. } => !tls,
        Send::Tls(_) | Send::Hbone(_) | Send::Dns { .. } | Send::Readiness(_) => false,
    }
}

/// Whether what is said to be encrypted has its control on all of its nodes: something in clear, by which it is known
/// that the capture there sees what there is.
///
/// # Errors
/// A diagnostic at the first that has none.
pub(super) fn controls_exist(
    source: &Source,
    world: &World,
    expectations: &[Spanned<ExpectationFile>],
    cells: &[Cell],
) -> Checked {
    let of = |wire: Wire| cells.iter().filter(move |it| it.wire() == Some(wire));
    let covered: BTreeSet<NodeSlot> = of(Wire::Clear).flat_map(|it| it.nodes(world)).collect();
    for cell in of(Wire::Encrypted) {
        let Some(node) = cell.nodes(world).into_iter().find(|it| !covered.contains(it)) else {
            continue;
        };
        let said = expectations.iter().find(|it| super::load::line(&it.value.from) == cell.line);
        let Some(wire) = said.and_then(|it| it.value.wire.as_ref()) else { continue };
        let message = format!(
            "nothing in the case has to be in clear on node {node}: a capture that sees nothing would pass"
        );
        let help = "add the control: something with `wire: clear` from or to a pod on that node, of a pair outside the mesh";
        return Err(source.diagnostic_at(wire, message, Some(help)));
    }
    Ok(())
}

impl Cell {
    /// How it is expected to be on the wire, where the case asks.
    pub const fn wire(&self) -> Option<Wire> {
        match self.expected {
            Expected::Allowed { wire, .. } => wire,
            _ => None,
        }
    }

    /// The nodes where it is on the wire: those of its pods.
    pub fn nodes(&self, world: &World) -> BTreeSet<NodeSlot> {
        let client = match &self.from {
            Origin::Pod(pod) => Some(pod.clone()),
            Origin::Kubelet => None,
        };
        let pods = client.into_iter().chain(self.served_by());
        pods.filter_map(|pod| world.pod(&pod).map(|it| it.node)).collect()
    }

    /// The pods that may serve it.
    pub fn served_by(&self) -> BTreeSet<PodRef> {
        let named = self.peers.iter().filter_map(|it| it.parse().ok());
        let sent_to = match self.send.peer() {
            Some(Peer::Pod(pod)) => Some(pod.clone()),
            _ => None,
        };
        named.chain(sent_to).collect()
    }
}
