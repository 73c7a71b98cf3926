//! `Gateway` of the class `istio-waypoint`, from manifest to the waypoint that istiod makes of it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::world::{Waypoint, WaypointFor};
use crate::yaml::{Diagnostic, Document, Spanned};
use crate::ztunnel::HBONE_PORT;

use super::super::object::Object;
use super::super::{Policy, PolicyRef};
use super::waypoint::WAYPOINT_CLASS;

/// The label that says what a waypoint is asked for.
pub(crate) const WAYPOINT_FOR: &str = "istio.io/waypoint-for";

/// What a listener of a waypoint speaks.
const HBONE: &str = "HBONE";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    gateway_class_name: Spanned<String>,
    listeners: Spanned<Vec<Listener>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listener {
    #[serde(rename = "name")]
    _name: String,
    port: Spanned<u16>,
    protocol: Spanned<String>,
}

#[derive(Deserialize)]
struct Labelled {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Option<BTreeMap<String, Spanned<String>>>,
}

/// Reads a `Gateway` that is a waypoint; any other is refused.
pub(crate) fn gateway(
    document: &Document<'_>,
    reference: &PolicyRef,
) -> Result<Policy, Box<Diagnostic>> {
    let object: Object<Section> = document.read_manifest(&[])?;
    let Section { gateway_class_name: class, listeners } = object.spec;
    if class.value != WAYPOINT_CLASS {
        let message = format!("a gateway of the class `{}` is no waypoint", class.value);
        let help = format!("write `gatewayClassName: {WAYPOINT_CLASS}`");
        return Err(document.diagnostic_at(&class, message, Some(&help)));
    }
    let [listener] = listeners.value.as_slice() else {
        return Err(document.diagnostic_at(
            &listeners,
            "a waypoint has one listener",
            Some("write `listeners: [{ name: mesh, port: 15008, protocol: HBONE }]`"),
        ));
    };
    if listener.port.value != HBONE_PORT {
        let message = format!("a waypoint listens on port {HBONE_PORT}");
        return Err(document.diagnostic_at(&listener.port, message, None));
    }
    if listener.protocol.value != HBONE {
        let message = format!("a waypoint speaks {HBONE}");
        return Err(document.diagnostic_at(&listener.protocol, message, None));
    }
    Ok(Policy::Gateway {
        reference: reference.clone(),
        waypoint: Waypoint {
            namespace: reference.namespace.clone().unwrap_or_default(),
            name: reference.name.clone(),
            serves: serves(document)?,
        },
    })
}

/// What it is asked for, by its own label; without one what its class says, which is services.
fn serves(document: &Document<'_>) -> Result<WaypointFor, Box<Diagnostic>> {
    let Labelled { metadata } = document.read_manifest(&[])?;
    let labels = metadata.labels.unwrap_or_default();
    let Some(label) = labels.get(WAYPOINT_FOR) else { return Ok(WaypointFor::default()) };
    WaypointFor::ALL.into_iter().find(|it| it.label() == label.value).ok_or_else(|| {
        let known = WaypointFor::ALL.map(WaypointFor::label).join(", ");
        let message = format!("`{}` is nothing that a waypoint is for", label.value);
        document.diagnostic_at(label, message, Some(&format!("there are: {known}")))
    })
}
