//! Kubernetes manifests: the objects that a case applies.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::{self, Policy, PolicyKind, PolicyRef, Specs};
use crate::selector::is_subdomain;
use crate::world::Waypoint;
use crate::yaml::{self, Diagnostic, Document, Source, Spanned};

/// An object that a case applies.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Its name.
    pub reference: ObjectRef,
    /// What it says.
    pub policy: Policy,
    /// The document as it is applied.
    pub object: Value,
    /// And as it is written.
    pub text: Arc<str>,
    /// The name of the file it is in.
    pub file: String,
    /// The line that names its kind, from 1.
    pub line: usize,
    /// Why Cilium does not take it, where that is what a case is about. It says nothing then.
    pub invalid: Option<String>,
}

/// An object of a cluster by its coordinates.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// Its group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace, for kinds that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Manifest {
    /// Where it is written: file and line.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// The waypoint that it is, if it is one.
    pub fn waypoint(&self) -> Option<&Waypoint> {
        match &self.policy {
            Policy::Gateway { waypoint, .. } => Some(waypoint),
            _ => None,
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl ObjectRef {
    /// Whether it is that policy.
    pub fn names(&self, policy: &PolicyRef) -> bool {
        *self == Self::from(policy)
    }
}

impl From<&PolicyRef> for ObjectRef {
    fn from(policy: &PolicyRef) -> Self {
        Self {
            api_version: policy.kind.api_version().to_owned(),
            kind: policy.kind.name().to_owned(),
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
        }
    }
}

/// What every manifest has; its other fields are read once its kind is known.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion")]
    api_version: Spanned<String>,
    kind: Spanned<String>,
    metadata: Spanned<Metadata>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: Spanned<String>,
    #[serde(default)]
    namespace: Option<Spanned<String>>,
    #[serde(default, rename = "labels")]
    _labels: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
}

/// Reads a file of manifests as `kubectl apply` does, and evaluates or refuses every field.
///
/// # Errors
/// A diagnostic at what is not known, or is of a kind that nobody enforces.
pub fn manifests(source: &Source) -> Result<Vec<Manifest>, Box<Diagnostic>> {
    yaml::documents(source)?.iter().map(manifest).collect()
}

/// Reads a file with one manifest that an API server takes and Cilium does not: the object exists, its
/// condition `Valid` is false, and nothing of it is enforced (`docs/facts.md`, surprise 1).
///
/// # Errors
/// What else is wrong with it; nothing, if there is nothing wrong with it.
pub(crate) fn invalid(source: &Source) -> Result<Manifest, Option<Box<Diagnostic>>> {
    let documents = yaml::documents(source)?;
    let [document] = documents.as_slice() else {
        let message = "a file of an invalid policy holds that one alone";
        return Err(Some(Diagnostic::new(source, (1, 1), 1, message, None)));
    };
    let (header, reference, policy) = read(document)?;
    match policy {
        Err(refusal) if refusal.taken_and_invalid => {
            let specs =
                Specs { reference: reference.clone(), specs: Vec::new(), reads_handshakes: false };
            let nothing = match reference.kind {
                PolicyKind::NetworkPolicy => Policy::Network(specs),
                PolicyKind::CiliumNetworkPolicy => Policy::Cilium(specs),
                PolicyKind::CiliumClusterwideNetworkPolicy => Policy::Clusterwide(specs),
                // Istio's webhook, or the schema of the API server, refuses what is wrong with these.
                PolicyKind::CiliumNodeConfig
                | PolicyKind::PeerAuthentication
                | PolicyKind::RequestAuthentication
                | PolicyKind::AuthorizationPolicy
                | PolicyKind::Gateway
                | PolicyKind::AdminNetworkPolicy
                | PolicyKind::BaselineAdminNetworkPolicy
                | PolicyKind::ClusterNetworkPolicy => return Err(Some(refusal)),
            };
            let manifest = written(document, &header, &reference, nothing)?;
            Ok(Manifest { invalid: Some(refusal.message), ..manifest })
        }
        Err(refusal) => Err(Some(refusal)),
        Ok(_) => Err(None),
    }
}

/// Reads a file of manifests of kinds that nobody enforces: what they say is not evaluated.
///
/// # Errors
/// A diagnostic at what is wrong; nothing where somebody enforces one of them.
pub(crate) fn unenforced(source: &Source) -> Result<Vec<Manifest>, Option<Box<Diagnostic>>> {
    let mut manifests = Vec::new();
    for document in yaml::documents(source)? {
        let header: Header = document.read_manifest(&[])?;
        let kind = kind(&document, &header)?;
        if !kind.is_unenforced() {
            return Err(None);
        }
        let reference = reference(&document, &header, kind)?;
        let policy = Policy::Unenforced(reference.clone());
        manifests.push(written(&document, &header, &reference, policy)?);
    }
    Ok(manifests)
}

/// Reads what an object would be in the place of a manifest. Places of diagnostics are of no file.
///
/// # Errors
/// Why the API server, or who enforces it, does not take it.
pub(crate) fn reread(original: &Manifest, object: Value) -> Result<Manifest, Box<Diagnostic>> {
    // JSON is YAML, so the reader is the same.
    let source = Source::new(original.file.clone(), object.to_string());
    let documents = yaml::documents(&source)?;
    let read = documents.first().map(manifest).transpose()?;
    let nothing = || Diagnostic::new(&source, (1, 1), 1, "nothing is left of the object", None);
    let (line, text) = (original.line, Arc::clone(&original.text));
    Ok(Manifest { object, text, line, ..read.ok_or_else(nothing)? })
}

fn manifest(document: &Document<'_>) -> Result<Manifest, Box<Diagnostic>> {
    let (header, reference, policy) = read(document)?;
    written(document, &header, &reference, policy?)
}

/// What a policy says, if it is valid.
type Said = Result<Policy, Box<Diagnostic>>;

fn read(document: &Document<'_>) -> Result<(Header, PolicyRef, Said), Box<Diagnostic>> {
    let header: Header = document.read_manifest(&[])?;
    let kind = kind(document, &header)?;
    let reference = reference(document, &header, kind)?;
    let policy = match kind {
        PolicyKind::NetworkPolicy => policy::network(document, &reference),
        PolicyKind::CiliumNetworkPolicy => policy::namespaced(document, &reference),
        PolicyKind::CiliumClusterwideNetworkPolicy => policy::clusterwide(document, &reference),
        PolicyKind::CiliumNodeConfig => policy::node_config(document, &reference),
        PolicyKind::PeerAuthentication => policy::mesh::peers(document, &reference),
        PolicyKind::RequestAuthentication => policy::mesh::requests(document, &reference),
        PolicyKind::AuthorizationPolicy => policy::mesh::authorization(document, &reference),
        PolicyKind::Gateway => policy::mesh::gateway(document, &reference),
        PolicyKind::AdminNetworkPolicy
        | PolicyKind::BaselineAdminNetworkPolicy
        | PolicyKind::ClusterNetworkPolicy => Err(document.diagnostic_at(
            &header.kind,
            format!("nobody enforces a {kind}: Cilium, as it is installed by default, ignores it"),
            Some("a case that shows this writes `{ file: FILE, is: unenforced }`"),
        )),
    };
    Ok((header, reference, policy))
}

fn written(
    document: &Document<'_>,
    header: &Header,
    reference: &PolicyRef,
    policy: Policy,
) -> Result<Manifest, Box<Diagnostic>> {
    Ok(Manifest {
        reference: ObjectRef::from(reference),
        policy,
        object: document.read_manifest(&[])?,
        text: document.text().into(),
        file: document.file().to_owned(),
        line: document.line_of(&header.kind),
        invalid: None,
    })
}

fn kind(document: &Document<'_>, header: &Header) -> Result<PolicyKind, Box<Diagnostic>> {
    let Header { api_version, kind, .. } = header;
    let known = PolicyKind::ALL.into_iter().find(|it| it.name() == kind.value);
    let enforced = PolicyKind::ALL.into_iter().filter(|it| !it.is_unenforced());
    let enforced: Vec<&str> = enforced.map(PolicyKind::name).collect();
    match known {
        None => Err(document.diagnostic_at(
            kind,
            format!("kind `{}` is not known", kind.value),
            Some(&format!("this version knows {}", enforced.join(", "))),
        )),
        Some(known) if known.api_version() != api_version.value => Err(document.diagnostic_at(
            api_version,
            format!("`{}` has no {known}", api_version.value),
            Some(&format!("write `apiVersion: {}`", known.api_version())),
        )),
        Some(known) => Ok(known),
    }
}

fn reference(
    document: &Document<'_>,
    header: &Header,
    kind: PolicyKind,
) -> Result<PolicyRef, Box<Diagnostic>> {
    let Metadata { name, namespace, .. } = &header.metadata.value;
    for text in [Some(name), namespace.as_ref()].into_iter().flatten() {
        if !is_subdomain(&text.value) {
            return Err(document.diagnostic_at(
                text,
                format!("`{}` is no name of an object", text.value),
                Some("a name is at most 253 lower-case letters, digits, `-` and `.`"),
            ));
        }
    }
    match namespace {
        Some(namespace) if !kind.is_namespaced() => {
            let message = format!("a {kind} has no namespace");
            Err(document.diagnostic_at(namespace, message, None))
        }
        None if kind.is_namespaced() => Err(document.diagnostic_at(
            &header.metadata,
            format!("a {kind} needs a namespace"),
            Some("name the namespace: a case applies manifests as they are"),
        )),
        namespace => Ok(PolicyRef {
            kind,
            namespace: namespace.as_ref().map(|it| it.value.clone()),
            name: name.value.clone(),
        }),
    }
}
