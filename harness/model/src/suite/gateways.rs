//! The waypoints that a case makes: its gateways, and what may be asked of their readiness.

use std::collections::BTreeSet;

use crate::manifest::{Manifest, ObjectRef};
use crate::outcome::EnforcementPoint;
use crate::stimulus::Send;
use crate::suite::check::in_text;
use crate::suite::file::ExpectationFile;
use crate::suite::{Case, Cell, Feature, Origin};
use crate::world::{PodRef, Waypoint, World};
use crate::yaml::{Diagnostic, Source, Spanned};

type Checked<T = ()> = Result<T, Box<Diagnostic>>;

impl Case {
    /// The manifest of the waypoint of that name, if the case makes it.
    pub fn gateway(&self, name: &PodRef) -> Option<&Manifest> {
        gateway(&self.apply, name)
    }

    /// Whether a waypoint of the case is expected to be never ready.
    pub fn holds_back(&self, waypoint: &Waypoint) -> bool {
        let is_it =
            |cell: &Cell| matches!(&cell.send, Send::Readiness(it) if *it == waypoint.reference());
        self.cells.iter().any(|cell| cell.expected.is_denied() && is_it(cell))
    }

    /// The world as it is once everything is enforced: with the waypoints that the case makes and that get ready.
    #[must_use]
    pub fn world_under(&self, world: &World) -> World {
        let stay = self.apply.iter().filter(|it| !self.remove.contains(&it.reference));
        let made = stay.filter_map(Manifest::waypoint).filter(|it| !self.holds_back(it));
        let mut under = world.clone();
        under.waypoints.extend(made.cloned());
        under
    }
}

/// The manifest of the waypoint of that name among those that are applied.
pub(super) fn gateway<'a>(apply: &'a [Manifest], name: &PodRef) -> Option<&'a Manifest> {
    apply.iter().find(|it| it.waypoint().is_some_and(|waypoint| waypoint.reference() == *name))
}

/// Whether a case can make this waypoint.
pub(super) fn can_be_made(
    source: &Source,
    world: &World,
    needs: &BTreeSet<Feature>,
    manifest: &Manifest,
) -> Checked {
    let Some(waypoint) = manifest.waypoint() else { return Ok(()) };
    let wrong = |word: &str, message| Err(in_text(source, manifest.line, word, message));
    if !needs.contains(&Feature::Waypoint) {
        let message = format!("the suite does not say that it needs {}", Feature::Waypoint);
        return wrong(&manifest.reference.kind, message);
    }
    let reference = waypoint.reference();
    if world.waypoints.iter().any(|it| it.reference() == reference) {
        return wrong(&waypoint.name, format!("the world has waypoint {reference} already"));
    }
    if world.pod(&reference).is_some() {
        return wrong(&waypoint.name, format!("the world has a pod {reference}"));
    }
    Ok(())
}

/// The twin that an expectation names, where it asks for the readiness of a waypoint of the case.
///
/// # Errors
/// A diagnostic at a twin that is none.
pub(super) fn twin(source: &Source, at: &Spanned<String>, apply: &[Manifest]) -> Checked<PodRef> {
    let wrong = |message: String| source.diagnostic_at(at, message, None);
    let twin: PodRef = at.value.parse().map_err(|error| wrong(format!("{error}")))?;
    match gateway(apply, &twin) {
        Some(_) => Ok(twin),
        None => Err(wrong(format!("the case applies no Gateway `{twin}`"))),
    }
}

/// Whether the readiness of a waypoint of the case can be judged.
pub(super) fn can_be_judged(
    source: &Source,
    file: &ExpectationFile,
    (apply, remove): (&[Manifest], &[ObjectRef]),
    cell: &Cell,
) -> Checked {
    let Send::Readiness(name) = &cell.send else { return Ok(()) };
    let Some(waypoint) = gateway(apply, name) else { return Ok(()) };
    let wrong = |message: String| Err(source.diagnostic_at(&file.send, message, None));
    if cell.from != Origin::Kubelet {
        return wrong("readiness probes come `from: kubelet`".to_owned());
    }
    if remove.contains(&waypoint.reference) {
        return wrong(format!("{} is taken away again, and nobody probes it", waypoint.reference));
    }
    if !cell.expected.is_denied() {
        return match &file.twin {
            Some(at) => {
                Err(source.diagnostic_at(at, "a waypoint that gets ready needs no twin", None))
            }
            None => Ok(()),
        };
    }
    if let Some(by) = file.by.as_ref().filter(|it| it.value != EnforcementPoint::Cilium) {
        let message = format!("{} does not keep a waypoint from its control plane", by.value);
        return Err(source.diagnostic_at(by, message, None));
    }
    let (Some(at), Some(twin)) = (&file.twin, &cell.twin) else {
        return Err(source.diagnostic_at(
            &file.send,
            format!("waypoint {name} is born under the policies: nobody knows how long it takes to get ready"),
            Some("name a `twin`: a Gateway of the case that differs in its namespace or name and gets ready"),
        ));
    };
    let other = gateway(apply, twin).and_then(Manifest::waypoint);
    match (waypoint.waypoint(), other) {
        (Some(one), Some(other)) if differ_in_one_attribute(one, other) => Ok(()),
        _ => {
            let message =
                format!("{twin} does not differ from {name} in its namespace or name alone");
            Err(source.diagnostic_at(at, message, None))
        }
    }
}

fn differ_in_one_attribute(one: &Waypoint, other: &Waypoint) -> bool {
    let differences =
        [one.namespace != other.namespace, one.name != other.name, one.serves != other.serves];
    differences.into_iter().filter(|it| *it).count() == 1
}
