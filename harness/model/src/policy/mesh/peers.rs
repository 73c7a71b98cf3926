//! `PeerAuthentication`, from manifest to what it says (`security/v1beta1/peer_authentication.proto` of
//! istio/api).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::yaml::{Diagnostic, Document, Spanned};

use super::super::object::Object;
use super::super::{Policy, PolicyRef};
use super::MeshPolicy;
use super::binding::{WorkloadSelector, selected};

/// Who may speak in plain to the workloads that it selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Its name.
    pub reference: PolicyRef,
    /// The labels of the workloads; those of the whole namespace without any.
    pub selector: BTreeMap<String, String>,
    /// The mode for all ports.
    pub mode: Mode,
    /// Ports with a mode of their own.
    pub ports: BTreeMap<u16, Mode>,
}

/// Whether plain traffic is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// As the policy above says.
    #[default]
    Unset,
    /// No matter: ambient has no such mode, and it is the same as `PERMISSIVE` there.
    Disable,
    /// It is.
    Permissive,
    /// It is not.
    Strict,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    #[serde(default)]
    selector: Option<Spanned<WorkloadSelector>>,
    #[serde(default)]
    mtls: Option<Mtls>,
    #[serde(default)]
    port_level_mtls: Option<Spanned<BTreeMap<String, Mtls>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mtls {
    #[serde(default)]
    mode: Mode,
}

/// Reads a `PeerAuthentication`.
pub(crate) fn peers(
    document: &Document<'_>,
    reference: &PolicyRef,
) -> Result<Policy, Box<Diagnostic>> {
    let object: Object<Option<Section>> = document.read_manifest(&[])?;
    let Section { selector, mtls, port_level_mtls } = object.spec.unwrap_or_default();
    let selector = selected(document, selector.as_ref())?;
    if let Some(ports) = &port_level_mtls
        && selector.is_empty()
    {
        // "portLevelMtls: only specified if selector is nonempty" (validatePeerAuthentication).
        return Err(document.diagnostic_at(
            ports,
            "modes of ports need a selector: Istio refuses them without",
            Some("select the workloads by `selector.matchLabels`"),
        ));
    }
    let mut ports = BTreeMap::new();
    if let Some(modes) = &port_level_mtls {
        for (port, mtls) in &modes.value {
            let number = port.parse().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| {
                document.diagnostic_at(modes, format!("`{port}` is no port"), None)
            })?;
            ports.insert(number, mtls.mode);
        }
    }
    Ok(Policy::Mesh(MeshPolicy::Peers(PeerAuthentication {
        reference: reference.clone(),
        selector,
        mode: mtls.map_or(Mode::Unset, |it| it.mode),
        ports,
    })))
}
