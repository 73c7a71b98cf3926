//! A manifest around its spec: fields that are read elsewhere are let pass here, and others refused.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// An object with one spec; `Object<Option<S>>` where it may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object<S> {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(rename = "metadata")]
    _metadata: IgnoredAny,
    pub(super) spec: S,
}
